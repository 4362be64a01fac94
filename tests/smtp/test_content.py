"""Dot stuffing, in pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.smtp.content import NotCanonical, stuffed

# Lines that like to begin with dots.
_lines = st.lists(st.text("a.\x00é ", max_size=12).map(lambda line: line.encode() + b"\r\n"), max_size=30)


def unstuffed(octets: bytes) -> bytes:
    """What a server does (RFC 5321 §4.5.2), line by line."""
    kept = octets.split(b"\r\n")
    return b"\r\n".join(line[1:] if line.startswith(b".") else line for line in kept)


@given(_lines, st.integers(1, 40))
def test_a_server_gets_back_what_went_in(lines: list[bytes], piece: int) -> None:
    """Whatever the content and the size of the pieces, unstuffing gives the content, and no line is a lone dot."""
    content = b"".join(lines)

    sent = b"".join(stuffed(content, piece=piece))

    assert content == unstuffed(sent)
    assert b"." not in sent.split(b"\r\n")


@given(_lines, st.integers(1, 40))
def test_pieces_are_whole_lines(lines: list[bytes], piece: int) -> None:
    """Every piece ends with CRLF, so that a dot is judged at the beginning of its own line."""
    assert all(part.endswith(b"\r\n") for part in stuffed(b"".join(lines), piece=piece))


@pytest.mark.parametrize(
    "content",
    [
        b"no end",
        b"bare\nfeed\r\n",
        b"bare\rreturn\r\n",
        b"ends with feed\n",
        b"ends with return\r",
        b"a\r\n\n.\r\n",
        b"hidden\n.\nMAIL FROM:<evil@example.com>\r\n",
        b"hidden\r.\r\r\n",
        b"\r\r\n",
        b"\n",
        b"\r",
    ],
)
@pytest.mark.parametrize("piece", [1, 65_536])
def test_a_bare_line_end_is_not_sent(content: bytes, piece: int) -> None:
    """CR or LF alone ends a line for some servers and not for others: that hides messages in messages."""
    with pytest.raises(NotCanonical):
        list(stuffed(content, piece=piece))


def test_a_long_content_is_sent_in_pieces() -> None:
    """Content goes out in blocks, not at once, so that the peer's early words can be heard between."""
    pieces = list(stuffed(b"x" * 78 + b"\r\n" * 1 + (b"y" * 78 + b"\r\n") * 20_000))

    assert len(pieces) > 20
    assert max(map(len, pieces)) < 66_000
