"""The reply parser and the door for raw messages, on octets that look like theirs."""

from hypothesis import example, given
from hypothesis import strategies as st

from service.smtp.framing import LINE_OCTETS, REPLY_OCTETS
from tests.fuzz import examples
from tests.fuzz.reading import raw_holds, replies_hold

REPLY_PIECES = st.sampled_from([
    *(b"250", b"250 ", b"250-", b"354 go", b"421 4.3.2 bye", b"550 5.1.1 no", b"550-5.1.1 no", b"2_0 ok", b"999"),
    *(b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\n", b"\0", b"\xff", b"\xc3", b"\xe2\x80\xa8", b" ", b"-", b"5.7.1 "),
    *(b"x" * 100, b"x" * (LINE_OCTETS - 4), b"y" * LINE_OCTETS, b"250-x\r\n" * 600, b"\x1b[2J", "é".encode()),
])  # fmt: skip
REPLIES = st.lists(REPLY_PIECES | st.binary(max_size=8), max_size=12).map(b"".join)

RAW_PIECES = st.sampled_from([
    *(b"From: a@b\r\n", b"From: Ana <ana@contoso.com>\r\n", b"from:a@b\r\n", b"From : a@b\r\n", b"From: a@b, c@d\r\n"),
    *(b"Sender: a@b\r\n", b"To: x@y\r\n", b"Bcc: x@y\r\n", b"BCC:\r\n x@y\r\n", b"Return-Path: <>\r\n", b"Subject: x\r\n"),
    *(b"Subject: =?utf-8?q?a=0D=0Ab?=\r\n", b"Subject: =?utf-8?b?w6k=?=\r\n", b"X: =?x?y?z?=\r\n", b" folded\r\n"),
    *(b"\tfolded\r\n", b" \r\n", b"\r\n", b"\n", b"\r", b"\0", b"body\r\n", b".\r\n", b"\r\n.\r\n", b"..\r\n", b"\xff\r\n"),
    *(b"Message-ID: <a@b>\r\n", b"Message-ID: x\r\n", b"Date: Mon, 23 Nov 2026 19:40:02 +0000\r\n", b"Date: x\r\n"),
    *(b"Content-Type: multipart/mixed; boundary=x\r\n", b"--x\r\n", b"--x--\r\n", b"x" * 998 + b"\r\n", b"y" * 999),
    *(b'From: "a, b" <a@b>\r\n', b'From: "a" (c) <a@b>\r\n', b"From: g: a@b;\r\n", b"From: <@x:a@b>\r\n", b": x\r\n"),
    *("From: é <a@b>\r\n".encode(), "From: é@b\r\n".encode(), b"From: =?utf-8?q?a=40b=2C?= <c@d>\r\n", b"X\r\n"),
])  # fmt: skip
RAW = st.lists(RAW_PIECES | st.binary(max_size=6), max_size=12).map(b"".join)


@examples(200)
@given(octets=REPLIES, places=st.lists(st.integers(0, 20_000), max_size=8))
@example(octets=b"x" * (LINE_OCTETS + 1) + b"\n", places=[LINE_OCTETS])
@example(octets=b"250-" + b"x" * LINE_OCTETS, places=[3])
@example(octets=b"250-x\r\n" * (REPLY_OCTETS // 6 + 2), places=[7, 8, 9])
@example(octets=b"250 ok\r\n250 ok\r\n250-a\r\n250 ok\r\n", places=[8, 20])
def test_replies_are_the_same_however_they_are_cut(octets: bytes, places: list[int]) -> None:
    """Lines, replies and the end are those of one piece, memory is bounded, and nothing but BadFraming is raised."""
    replies_hold(octets, places)


@examples(400)
@given(raw=RAW)
@example(raw=b"From: a@b\r\n\r\n")
@example(raw=b"From: a@b\n\nx")
def test_a_raw_message_is_taken_as_everybody_reads_it(raw: bytes) -> None:
    """Refused, or: clean for the wire, the same when taken again, and with the authors that others see."""
    raw_holds(raw)


@examples(150)
@given(fields=st.lists(RAW_PIECES, max_size=6), body=st.binary(max_size=200))
def test_a_header_around_any_body_is_taken_as_everybody_reads_it(fields: list[bytes], body: bytes) -> None:
    """A message that begins well, with any fields behind, and any octets for a body."""
    raw_holds(
        b"From: Ana <ana@contoso.com>\r\nSender: ana@contoso.com\r\n" + b"".join(fields) + b"\r\n\r\n" + body
    )
