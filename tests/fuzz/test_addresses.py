"""Addresses and mailboxes out of the signs that have a meaning in them, in any order."""

from email.utils import getaddresses

from hypothesis import example, given
from hypothesis import strategies as st

from service.mail.address import Address, BadAddress, Mailbox
from tests.fuzz import examples

PIECES = st.sampled_from([
    *('"', "\\", "@", "<", ">", ",", ";", ":", "(", ")", "[", "]", ".", "..", " ", "  ", "=?", "?="),
    *("\t", "\r", "\n", "\r\n", "\r\n ", "\0", "\x1b", "\x7f", "\x85", "\u2028", "\u200b", "\ufeff", "\ud800"),
    *("a", "b", "ana", "Ana Silva", "contoso.com", "a@b", "<a@b>", "x@contoso.com", '"a b"@c.d', '"\\""@c'),
    *("=?utf-8?q?a=0D=0ABcc:_x=40y?=", "=?utf-8?b?DQo=?=", "xn--", "xn--mnchen-3ya.de", "münchen.de"),
    *("\uff20", "\ufe6b", "\u3002", "\uff0e", "\u00ad", "ß", "İ", "é", "e\u0301", "\u202e", "😀", "٢"),
    *("-", "_", "%", "!", "127.0.0.1", "[127.0.0.1]", "x" * 64, "x" * 300, ".com", "BCC:", "RCPT TO:<z@y>"),
])  # fmt: skip
TEXTS = st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=40)

#: What ends a line, or a text, somewhere on the way.
ENDS = set("\0\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")


def clean(text: str) -> bool:
    return not ENDS & set(text) and text.encode().decode() == text


@examples(400)
@given(text=TEXTS)
@example(text="a@b\n")
@example(text='"a\r\nb"@c.de')
@example(text="a@\u3002b")
def test_an_address_is_read_once_and_for_all(text: str) -> None:
    """What is accepted has no end of a line in it, and its printed form is the same address again."""
    try:
        address = Address.parse(text)
    except BadAddress:
        return

    assert clean(str(address))
    assert Address.parse(str(address)) == address
    assert Address.parse(str(address)).key == address.key
    assert address.domain.isascii()
    assert str(address).count("@") >= 1


@examples(400)
@given(text=TEXTS)
@example(text="Ana\r\nBcc: x@y <a@b>")
@example(text='"a" "b" <a@b>')
def test_a_mailbox_is_read_once_and_for_all(text: str) -> None:
    """Printed, it is the same mailbox for us, and one address, the same one, for the standard library."""
    try:
        mailbox = Mailbox.parse(text)
    except BadAddress:
        return
    printed = str(mailbox)

    assert clean(printed)
    assert Mailbox.parse(printed) == mailbox
    if mailbox.address.local.isascii() and '"' not in str(mailbox.address):
        assert [found for _, found in getaddresses([printed])] == [str(mailbox.address)]


@examples(300)
@given(texts=st.lists(TEXTS, max_size=4))
def test_a_list_has_the_mailboxes_of_its_parts(texts: list[str]) -> None:
    """Mailboxes that are read one by one are read the same from the list of their printed forms."""
    mailboxes = []
    for text in texts:
        try:
            mailboxes.append(Mailbox.parse(text))
        except BadAddress:
            continue
    if not mailboxes:
        return

    assert list(Mailbox.parse_list(", ".join(map(str, mailboxes)))) == mailboxes
    assert all(clean(str(each)) for each in mailboxes)
