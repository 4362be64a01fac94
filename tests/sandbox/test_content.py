"""The octets of a message: their end, their dots, and the header fields that count."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.sandbox.content import Intake, read_head

PIECES = st.lists(
    st.sampled_from([b"\r", b"\n", b".", b"..", b"a", b"\r\n", b"\r\n.", b"\r\n.\r\n"]), max_size=12
)


@given(
    lines=st.lists(st.sampled_from([b"", b".", b"..", b".a", b"a", b"a.", b"\n.", b".\n", b"\r."])),
    cut=st.data(),
)
def test_whatever_is_stuffed_comes_out_again(lines: list[bytes], cut: st.DataObject) -> None:
    """Content stuffed as RFC 5321 has it is returned as it was, however the wire cut it to pieces."""
    content = b"".join(line + b"\r\n" for line in lines)
    stuffed = b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines)
    wire = stuffed + b".\r\nQUIT\r\n"
    intake, rest = Intake(limit=1000), None

    while rest is None:
        size = cut.draw(st.integers(1, len(wire)))
        rest, wire = intake.feed(wire[:size]), wire[size:]

    assert intake.octets() == content
    assert intake.size == len(stuffed)
    assert rest + wire == b"QUIT\r\n"


@given(pieces=PIECES)
def test_only_a_dot_alone_between_line_ends_is_the_end(pieces: list[bytes]) -> None:
    """No other spelling ends the content."""
    octets = b"".join(pieces)
    whole = b"\r\n" + octets
    end = whole.find(b"\r\n.\r\n")

    rest = Intake(limit=1000).feed(octets)

    assert rest == (whole[end + 5 :] if end >= 0 else None)


def test_what_is_too_large_is_counted_and_not_kept() -> None:
    """Beyond the limit only the size grows, and the end is still found."""
    intake = Intake(limit=100)

    for _ in range(1000):
        assert intake.feed(b"x" * 98 + b"\r\n") is None
    rest = intake.feed(b".\r\n")

    assert rest == b""
    assert not intake.whole
    assert intake.size == 100_000
    assert len(intake.octets()) <= 110


def test_the_header_is_read_with_its_folding() -> None:
    """Folded fields are one line, names have no case, and the body is not read."""
    head = read_head(
        b"FROM: Ana\r\n <ana@contoso.com>,\r\n\tbo@contoso.com\r\nsender: cy@contoso.com\r\n"
        b"Message-ID:\r\n <1@contoso.com>\r\nSubject: one\r\n two\r\n\r\nFrom: eve@contoso.com\r\n"
    )

    assert head.authors == ("ana@contoso.com", "bo@contoso.com")
    assert (head.sender, head.message_id, head.subject) == ("cy@contoso.com", "<1@contoso.com>", "one two")
    assert not head.bare_line_feeds


@pytest.mark.parametrize("octets", [b"a\nb\r\n", b"a\rb\r\n", b"\r\n\n\r", b"\n\r"])
def test_bare_line_ends_are_seen(octets: bytes) -> None:
    """A line feed or a carriage return alone is one too many."""
    assert read_head(octets).bare_line_feeds


@given(octets=st.binary(max_size=300))
def test_no_octets_are_too_broken(octets: bytes) -> None:
    """Whatever comes, the head is read without an error."""
    read_head(b"From: " + octets)
