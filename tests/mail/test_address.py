"""Addresses and mailboxes: what is read, what is refused, what is printed."""

from __future__ import annotations

from contextlib import suppress
from email.headerregistry import Address as StdlibAddress
from email.utils import parseaddr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.mail.address import (
    ADDRESS_OCTETS,
    LOCAL_OCTETS,
    NAME_CHARACTERS,
    Address,
    BadAddress,
    Mailbox,
    domain_name,
)
from tests.mail.builders import examples, hostile, line_characters


def code_of(text: str) -> str:
    with pytest.raises(BadAddress) as refused:
        Mailbox.parse(text)
    return refused.value.code


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("a@b", "a@b"),
        ("Ana.Silva+tag@CONTOSO.com", "Ana.Silva+tag@contoso.com"),
        ("o'brien@contoso.com", "o'brien@contoso.com"),
        ('"ana"@contoso.com', "ana@contoso.com"),
        ('"ana silva"@contoso.com', '"ana silva"@contoso.com'),
        ('"a@b"@contoso.com', '"a@b"@contoso.com'),
        ('"a,b@c.d"@contoso.com', '"a,b@c.d"@contoso.com'),
        (r'"a\"b\\c"@contoso.com', r'"a\"b\\c"@contoso.com'),
        ('"a..b"@contoso.com', '"a..b"@contoso.com'),
        ("ana@münchen.de", "ana@xn--mnchen-3ya.de"),
        ("ana@MÜNCHEN.de", "ana@xn--mnchen-3ya.de"),
        ("ana@xn--mnchen-3ya.de", "ana@xn--mnchen-3ya.de"),
        ("ana@例え.jp", "ana@xn--r8jz45g.jp"),
        ("ana@ＣＯＮＴＯＳＯ．com", "ana@contoso.com"),
        ("jörg@contoso.com", "jörg@contoso.com"),
    ],
)
def test_an_address_is_read_and_printed(text: str, printed: str) -> None:
    """One addr-spec is read, and printed with quotes where they are needed and only there."""
    assert printed == str(Address.parse(text))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "empty"),
        ("ana", "no_at"),
        ("@contoso.com", "local_empty"),
        ('""@contoso.com', "local_empty"),
        ("ana@", "domain_empty"),
        ("a@b@c", "several_at"),
        ("ana silva@contoso.com", "space"),
        ("a@b, c@d", "several"),
        ("a@b;c@d", "group"),
        ("Friends: a@b;", "group"),
        ("<@x.com,@y.com:a@b>", "source_route"),
        ("a@b (Ana)", "comment"),
        ("(Ana) a@b", "comment"),
        ("Ana (Silva) <a@b>", "comment"),
        ("a@b <c@d>", "several_at"),
        ("Silva, Ana <a@b>", "several"),
        ("Contoso: Sales <a@b>", "group"),
        ("Contoso [Sales] <a@b>", "needs_quotes"),
        ("<a@b> <c@d>", "angle_brackets"),
        ("Ana <a@b> x", "angle_brackets"),
        ("Ana <a@b", "angle_brackets"),
        ("Ana a@b>", "angle_brackets"),
        ('"Ana <a@b>', "quote_unclosed"),
        (r'"Ana\" <a@b>', "quote_unclosed"),
        (r'a" <a@b>\"', "quote_unclosed"),
        ('"' + '\\"' * 400, "quote_unclosed"),
        ('"a"b@c', "local_quotes"),
        ("a\\b@c", "needs_quotes"),
        (".a@b", "local_dots"),
        ("a.@b", "local_dots"),
        ("a..b@c", "local_dots"),
        ("=?utf-8?q?ana=40contoso.com?=@b", "encoded_word"),
        ('"=?utf-8?q?ana?="@b', "encoded_word"),
        ('"a> SIZE=1 <b"@c', "angle_brackets"),
        ("a﹫b@c", "local_character"),
        ("a\u202eb@c", "local_character"),
        ("a\u00a0b@c", "local_character"),
        ("\u0301a@c", "local_character"),
        ("a@[192.0.2.1]", "domain_literal"),
        ("a@[IPv6:2001:db8::1]", "domain_literal"),
        ("a@192.0.2.1", "domain_literal"),
        ("a@b.", "domain_syntax"),
        ("a@b..c", "domain_syntax"),
        ("a@-b.c", "domain_syntax"),
        ("a@b_c.d", "domain_syntax"),
        ("a@" + "b" * 64 + ".c", "domain_syntax"),
        ("a@xn--0049.com", "domain_idna"),
        ("a@☃.com", "domain_idna"),
        ("a@" + "b." * 130 + "c", "domain_too_long"),
        ("a\r\nRCPT TO:<c@d>@b", "control_character"),
        ("a\0@b", "control_character"),
        ("a\u2028@b", "control_character"),
        ("a\ud800@b", "surrogate"),
        ("Ana\ud800 <a@b>", "surrogate"),
        ("(" * 2000 + "a@b", "too_long"),
        (f"{'n' * (NAME_CHARACTERS + 1)} <a@b>", "name_too_long"),
    ],
)
def test_anything_but_one_mailbox_is_refused(text: str, code: str) -> None:
    """What two parsers could read differently is refused, with a code of its own."""
    assert code == code_of(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a@b", None),
        ("<a@b>", None),
        ("  a@b  ", None),
        ('"" <a@b>', None),
        ("Ana <a@b>", "Ana"),
        ("Ana<a@b>", "Ana"),
        ("Dr. Ana M. Silva <a@b>", "Dr. Ana M. Silva"),
        ('"Silva, Ana" <a@b>', "Silva, Ana"),
        ('"Ana" Silva <a@b>', "Ana Silva"),
        (r'"Ana \"A\" Silva" <a@b>', 'Ana "A" Silva'),
        ('"<evil@example.com>" <a@b>', "<evil@example.com>"),
        ("Ünïcödé 名前 <a@b>", "Ünïcödé 名前"),
        ("=?utf-8?q?Ana?= <a@b>", "=?utf-8?q?Ana?="),
    ],
)
def test_a_display_name_is_plain_text(text: str, name: str | None) -> None:
    """A display name is what stands there without its quotes; nothing in it is decoded."""
    mailbox = Mailbox.parse(text)

    assert (name, "a@b") == (mailbox.name, str(mailbox.address))


def test_the_detail_of_a_refusal_does_not_repeat_the_input() -> None:
    """A refusal can be answered and logged as it is."""
    with pytest.raises(BadAddress) as refused:
        Address.parse("secret-token secret@contoso.com")

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ana@contoso.com", "ana@CONTOSO.COM"),
        ('"ana"@contoso.com', "ana@contoso.com"),
        ("jo\u0308rg@contoso.com", "JÖRG@contoso.com"),
        ("ana@münchen.de", "ana@xn--mnchen-3ya.de"),
    ],
)
def test_addresses_of_one_mailbox_have_one_key(one: str, other: str) -> None:
    """Case, quotes, composition and encoding of the domain make no other mailbox."""
    assert Address.parse(one).key == Address.parse(other).key


def test_only_the_local_part_asks_for_smtputf8() -> None:
    """A domain beyond ASCII travels as A-labels and needs nothing of the peer."""
    assert Address.parse("jörg@contoso.com").smtputf8
    assert not Address.parse("ana@münchen.de").smtputf8


def test_the_longest_local_part_and_address_are_accepted() -> None:
    """The limits of RFC 5321 are counted in octets, and hold for the printed form."""
    domain = ".".join(["d" * 63] * 2 + ["d" * 61])
    assert LOCAL_OCTETS + 1 + len(domain) == ADDRESS_OCTETS

    Address.parse(f"{'a' * LOCAL_OCTETS}@{domain}")

    assert code_of(f"{'a' * (LOCAL_OCTETS + 1)}@{domain}") == "local_too_long"
    assert code_of(f"{'ü' * 33}@{domain}") == "local_too_long"
    assert code_of(f"{'a' * LOCAL_OCTETS}@{domain}d") == "too_long"


@pytest.mark.parametrize(
    ("local", "domain"),
    [("a\r\nb", "c"), ("a>b", "c"), ("", "c"), ("a", "C"), ("a", "c\r\nd"), ("a", "münchen.de"), ("a", "")],
)
def test_an_address_that_exists_is_valid(local: str, domain: str) -> None:
    """A constructor cannot be used to go round the parser."""
    with pytest.raises(BadAddress):
        Address(local=local, domain=domain)


@pytest.mark.parametrize("name", ["Ana\r\nBcc: evil@example.com", "Ana\0", "Ana\ud800", "n" * 321])
def test_a_name_that_exists_fits_a_header(name: str) -> None:
    """Line ends, NUL, surrogates and novels are refused in the form with a name of its own, too."""
    with pytest.raises(BadAddress):
        Mailbox.of(email="a@b", name=name)


def test_a_blank_name_is_no_name() -> None:
    """`name: ""` says the same as no name at all."""
    assert Mailbox.of(email="a@b", name="  ") == Mailbox.of(email="a@b", name=None)


def test_the_email_field_takes_an_address_only() -> None:
    """A display name does not slip in through the `email` of the `{email, name}` form."""
    with pytest.raises(BadAddress):
        Mailbox.of(email="Evil <a@b>", name=None)


def test_a_list_of_mailboxes_is_cut_outside_quotes() -> None:
    """A comma in a quoted name parts nobody from their address."""
    mailboxes = Mailbox.parse_list('"Silva, Ana" <a@b>, c@d')

    assert [(each.name, str(each.address)) for each in mailboxes] == [("Silva, Ana", "a@b"), (None, "c@d")]


@pytest.mark.parametrize(
    ("text", "domain"),
    [("Contoso.COM", "contoso.com"), ("münchen.de", "xn--mnchen-3ya.de"), ("localhost", "localhost")],
)
def test_a_domain_has_one_form(text: str, domain: str) -> None:
    """Domains are compared as lower-case A-labels."""
    assert domain == domain_name(text)


@examples
@given(local=st.text(line_characters, min_size=1, max_size=64), domain=st.sampled_from(["b", "contoso.com"]))
def test_every_address_survives_printing(local: str, domain: str) -> None:
    """Whatever exists as an address is printed in a form that is read back as the same."""
    try:
        address = Address(local=local, domain=domain)
    except BadAddress:
        return

    assert address == Address.parse(str(address))
    if local.isascii():
        # Its own printing leaves out the quotes that a dot at an end needs, so what it read is compared.
        theirs = StdlibAddress(addr_spec=str(address))
        assert (theirs.username, theirs.domain) == (local, domain)


@examples
@given(name=st.one_of(hostile, st.text(line_characters, max_size=80)))
def test_every_mailbox_survives_printing(name: str) -> None:
    """Whatever the name, the printed mailbox is read back as the same, by us and by others."""
    mailbox = Mailbox.of(email="ana@contoso.com", name=name)

    assert mailbox == Mailbox.parse(str(mailbox))
    assert parseaddr(str(mailbox))[1] == "ana@contoso.com"


@examples
@given(text=st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text makes the parser fail in another way than by its refusal."""
    with suppress(BadAddress):
        Mailbox.parse(text)
