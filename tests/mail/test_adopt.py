"""A caller's own message: what is kept, completed, refused."""

from __future__ import annotations

from email import policy
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.mail.compose import BadDraft, authors
from service.mail.draft import HEADER_OCTETS
from tests.mail.builders import MESSAGE_ID, adopted, composed, examples, is_wire_clean, read

WHOLE = (
    b"From: Contoso <noreply@contoso.com>\r\n"
    b"To: ana@contoso.com\r\n"
    b"Subject: =?utf-8?q?Caf=C3=A9?=\r\n"
    b"Date: Mon, 23 Nov 2026 19:40:02 +0000\r\n"
    b"Message-ID: <1@contoso.com>\r\n"
    b"\r\n"
    b"Hello.\r\n"
)


def with_field(field: bytes, *, instead_of: bytes = b"") -> bytes:
    """Put a field before the whole message, and take one of its own away."""
    lines = [line for line in WHOLE.split(b"\r\n") if not instead_of or not line.startswith(instead_of)]
    return field + b"\r\n" + b"\r\n".join(lines)


def code_of(raw: bytes) -> str:
    with pytest.raises(BadDraft) as refused:
        adopted(raw)
    assert refused.value.pointer == "/raw"
    return refused.value.code


def test_a_whole_message_is_kept_to_the_octet() -> None:
    """Nothing is rebuilt: a signature over the message stays good."""
    message = adopted(WHOLE)

    assert message.octets == WHOLE
    assert (message.message_id, message.subject) == ("<1@contoso.com>", "Café")
    assert (message.smtputf8, message.eightbit) == (False, False)


def test_what_we_compose_can_be_adopted() -> None:
    """Our own messages pass our own door."""
    message = composed(html="<p>é", text="é")

    assert adopted(message.octets) == message


def test_what_the_standard_library_builds_can_be_adopted() -> None:
    """The most common way to build a message in Python is accepted as it is."""
    built = EmailMessage(policy=policy.SMTP)
    built["From"] = '"Contoso, Inc. Ünïcödé" <noreply@contoso.com>'
    built["To"] = ", ".join(f"r{n}@contoso.com" for n in range(40))
    built["Subject"] = "Grüße " * 40
    built.set_content("Hello.\n")

    message = adopted(built.as_bytes())

    assert message.subject == ("Grüße " * 40).strip()
    assert message.octets.startswith(built.as_bytes().partition(b"\r\n\r\n")[0])


def test_message_id_and_date_come_where_they_are_missing() -> None:
    """They are what Exchange knows a second copy by."""
    message = adopted(b"From: a@b\n\nHello.\n")

    assert message.octets.decode().split("\r\n") == [
        "From: a@b",
        "Date: Mon, 23 Nov 2026 19:40:02 +0000",
        f"Message-ID: {MESSAGE_ID}",
        "",
        "Hello.",
        "",
    ]
    assert message.message_id == MESSAGE_ID


def test_bcc_and_return_path_are_removed() -> None:
    """They are the envelope's, folded lines included."""
    raw = with_field(
        b"bCC: secret@contoso.com,\r\n other-secret@contoso.com\r\nReturn-Path: <bounce@contoso.com>"
    )

    assert adopted(raw).octets == WHOLE


@pytest.mark.parametrize("raw", [b"From: a@b", b"From: a@b\n", b"From: a@b\n\n", b"From: a@b\r\n\r\n"])
def test_a_message_may_have_no_body(raw: bytes) -> None:
    """RFC 5322 §3.5: the body is optional."""
    assert is_wire_clean(adopted(raw).octets)
    assert adopted(raw).octets.endswith(b">\r\n\r\n")


def test_utf8_in_the_header_asks_for_smtputf8() -> None:
    """A raw header beyond ASCII can only go to a peer that offers SMTPUTF8 (RFC 6532)."""
    message = adopted(with_field("Subject: Café".encode(), instead_of=b"Subject"))

    assert (message.smtputf8, message.eightbit, message.subject) == (True, False, "Café")


def test_utf8_in_the_body_asks_for_8bitmime() -> None:
    """The body is not looked into but for this."""
    message = adopted(WHOLE + b"\xff\xfe\r\n")

    assert (message.smtputf8, message.eightbit) == (False, True)


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "bad_header"),
        (b"\r\nHello.\r\n", "bad_header"),
        (b"To: a@b\r\n\r\n", "from_missing"),
        (b"From: \r\n\r\n", "bad_from"),
        (b"From: a@b, c@d\r\n\r\n", "sender_missing"),
        (b"From: a@b, c@d\r\nSender: a@b, c@d\r\n\r\n", "bad_sender"),
        (b"From: a@b\r\nSender: nobody\r\n\r\n", "bad_sender"),
        (b"From: Friends: a@b, c@d;\r\n\r\n", "bad_from"),
        (b"From: a@b (, evil@example.com)\r\n\r\n", "bad_from"),
        (b"From: =?utf-8?q?evil=40example.com?=@b\r\n\r\n", "bad_from"),
        (b"From: a@b\r\nFrom: c@d\r\n\r\n", "duplicate_header"),
        (b"From: a@b\r\nfrom: c@d\r\n\r\n", "duplicate_header"),
        (with_field(b"Subject: other"), "duplicate_header"),
        (with_field(b"Date: Mon, 23 Nov 2026 19:40:02 +0000"), "duplicate_header"),
        (with_field(b"message-id: <2@contoso.com>"), "duplicate_header"),
        (with_field(b"Content-Type: text/plain\r\nContent-Type: text/html"), "duplicate_header"),
        (with_field(b"Date: tomorrow", instead_of=b"Date"), "bad_date"),
        (with_field(b"Date: " + b"9" * 200, instead_of=b"Date"), "bad_date"),
        (with_field(b"Message-ID: 1@contoso.com", instead_of=b"Message-ID"), "bad_message_id"),
        (with_field("Message-ID: <é@contoso.com>".encode(), instead_of=b"Message-ID"), "bad_message_id"),
        (with_field(b"X: a\0b"), "nul"),
        (WHOLE + b"\0", "nul"),
        (with_field(b"X: a\x1bb"), "control_character"),
        (with_field(b"X: a\xffb"), "header_not_utf8"),
        (with_field(b"X : a"), "bad_header"),
        (with_field(b"X"), "bad_header"),
        (with_field(b": a"), "bad_header"),
        (b"From - Mon Nov 23 2026\r\n" + WHOLE, "bad_header"),
        (b" X: a\r\n" + WHOLE, "bad_folding"),
        (with_field(b"X: a\r\n \t \r\n b"), "bad_folding"),
        (with_field(b"X: a\nBcc: evil@example.com"), "bare_line_end"),
        (with_field(b"X: a\rBcc: evil@example.com"), "bare_line_end"),
        (WHOLE + b"\n.\nMAIL FROM:<evil@example.com>\r\n", "bare_line_end"),
        (WHOLE + b"\r.\r\n", "bare_line_end"),
        (b"From: a@b\r\r", "bare_line_end"),
        (WHOLE + b"x" * 999 + b"\r\n", "line_too_long"),
        (with_field(b"X: " + b"x" * 996), "line_too_long"),
        (b"From: a@b\r\n" + b"X: y\r\n" * (HEADER_OCTETS // 6) + b"\r\n", "header_too_large"),
        (with_field(b"X: =?utf-8?q?a=0D=0ABcc:_evil@example.com?="), "encoded_line_break"),
        (with_field(b"X: =?x-unknown?b?DQpCY2M6IGE=?="), "encoded_line_break"),
    ],
)
def test_what_servers_could_read_differently_is_refused(raw: bytes, code: str) -> None:
    """No repair is attempted: a repair is a guess, and the next server may guess otherwise."""
    assert code == code_of(raw)


def test_the_longest_line_is_accepted() -> None:
    """998 octets and the CRLF are what RFC 5322 §2.1.1 allows."""
    assert adopted(WHOLE + b"x" * 998).octets == WHOLE + b"x" * 998 + b"\r\n"


@pytest.mark.parametrize(
    ("subject", "shown"),
    [
        ("plain", "plain"),
        ("folded\r\n  here", "folded  here"),
        ("=?utf-8?b?Q2Fmw6k=?= =?iso-8859-1?q?_Caf=E9?=", "Café Café"),
        ("=?UTF-8*en?Q?Caf=C3=A9?= x", "Café x"),
        ("=?shift_jis?b?k/qWe4zq?=", "日本語"),
        ("=?utf-8?q?=ff?=", "\ufffd"),
        ("=?utf-8?b?x?=", ""),
        ("=?unicode_escape?q?=5Cud800?=", "=?unicode_escape?q?=5Cud800?="),
        ("=?utf-8?q?=1B[31m?=", "\ufffd[31m"),
        ("=?utf-8?q?" * 80, "=?utf-8?q?" * 80),
    ],
)
def test_a_subject_is_shown_decoded(subject: str, shown: str) -> None:
    """The ledger shows a subject as people read it, without anything that it could not store."""
    message = adopted(with_field(f"Subject: {subject}".encode(), instead_of=b"Subject"))

    assert message.subject == shown


def test_authors_are_everybody_in_from_and_sender() -> None:
    """The door can check each of them against what the key may use."""
    found = authors(b"From: A <a@b>,\n c@d\nSender: E <e@f>\nReply-To: x@y\n\n")

    assert [str(each) for each in found] == ["a@b", "c@d", "e@f"]


def test_a_sender_that_is_an_author_counts_once() -> None:
    """The same mailbox in both fields is one author."""
    assert [str(each) for each in authors(b"From: a@b\nSender: a@b\n\n")] == ["a@b"]


@pytest.mark.parametrize("body", [b"", b"From: e@f\r\n", b"x" * 2000, b"one\ntwo\rthree"])
def test_authors_stand_in_the_header_alone(body: bytes) -> None:
    """The body is not looked at, whatever it is: it was checked when the message was adopted."""
    assert [str(each) for each in authors(b"From: a@b\r\n\r\n" + body)] == ["a@b"]


def test_authors_of_a_malformed_message_are_refused() -> None:
    """Nobody is checked in place of somebody else."""
    with pytest.raises(BadDraft):
        authors(b"From: a@b\nFrom: c@d\n\n")


@examples
@given(
    raw=st.binary(max_size=300)
    | st.lists(st.sampled_from([*"\r\n :<>@ab\t\0\xff", "From: a@b\r\n"])).map("".join).map(str.encode)
)
def test_any_octets_are_adopted_or_refused(raw: bytes) -> None:
    """What is accepted is fit for the wire and has one From; everything else is a refusal."""
    try:
        message = adopted(raw)
    except BadDraft:
        return

    assert is_wire_clean(message.octets)
    assert len(read(message).get_all("From", [])) == 1


def test_authors_are_told_of_whatever_is_adopted() -> None:
    """Two Bcc go as one does: what is adopted has authors, before and after."""
    raw = with_field(b"Bcc: x@example.com\r\nBcc: y@example.com")

    assert authors(raw) == authors(adopted(raw).octets)
