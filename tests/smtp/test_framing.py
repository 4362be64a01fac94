"""Octets to replies: cut anywhere, bounded, and never a secret."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.smtp.framing import LINE_OCTETS, BadFraming, Framing
from service.smtp.transcript import STARS, Strikeout

SAID = b"250-2.1.0 one\r\n250 two\r\n550 5.1.1 no\n421\r\n250 2.1.5 ok\r\n250 2.1.5 ok\r\n"


def taken(framing: Framing, *pieces: bytes) -> list[tuple[str, str | None]]:
    return [
        (line, None if reply is None else str(reply))
        for piece in pieces
        for line, reply in framing.take(piece)
    ]


@given(st.lists(st.integers(0, len(SAID)), max_size=12))
def test_cuts_change_nothing(places: list[int]) -> None:
    """Lines and replies are the same however the octets were cut; a known line is no other than a new one."""
    bounds = [0, *sorted(places), len(SAID)]
    pieces = [SAID[start:end] for start, end in itertools.pairwise(bounds)]

    assert taken(Framing(Strikeout()), *pieces) == [
        ("250-2.1.0 one", None),
        ("250 two", "250 2.1.0 one\ntwo"),
        ("550 5.1.1 no", "550 5.1.1 no"),
        ("421", "421"),
        ("250 2.1.5 ok", "250 2.1.5 ok"),
        ("250 2.1.5 ok", "250 2.1.5 ok"),
    ]


def test_a_known_line_is_the_same_reply() -> None:
    """What is said all day is taken apart once; the last line of a longer reply is not taken for a reply."""
    framing = Framing(Strikeout())
    first, second = [reply for _, reply in framing.take(b"250 ok\r\n250 ok\r\n")]
    assert first is second

    assert taken(framing, b"250-more\r\n250 ok\r\n") == [("250-more", None), ("250 ok", "250 more\nok")]


def test_a_line_that_was_known_may_hold_a_secret_later() -> None:
    """A new secret makes every line unknown; a line with a secret is struck out each time."""
    strikeout = Strikeout()
    framing = Framing(strikeout)
    assert taken(framing, b"250 hello hunter22\r\n" * 2)[1][0] == "250 hello hunter22"
    strikeout.add("hunter22")

    for _ in range(3):
        assert taken(framing, b"250 hello hunter22\r\n") == [(f"250 hello {STARS}", f"250 hello {STARS}")]


def test_what_is_known_is_bounded() -> None:
    """A server with a new line for each message does not fill the memory."""
    framing = Framing(Strikeout())
    for number in range(10_000):
        list(framing.take(b"250 queued as %d\r\n" % number))
    list(framing.take(b"250 " + b"x" * 8_000 + b"\r\n"))

    assert sum(map(len, framing._known)) < 64 * 256


@pytest.mark.parametrize(
    ("octets", "code", "shown"),
    [
        (b"2_0 ok\r\n250 ok\r\n", "bad_digits", ["2_0 ok"]),
        (b"250-a\r\n550 b\r\n", "mixed_codes", ["250-a", "550 b"]),
        (b"250 ok\r\n250 " + b"x" * LINE_OCTETS, "line_too_long", ["250 ok"]),
        (b"250-x\r\n" * 6_000, "reply_too_long", ["250-x"] * 4_000),
    ],
)
def test_what_is_no_reply(octets: bytes, code: str, shown: list[str]) -> None:
    """The reason is named, and the line that is the reason is shown before."""
    lines: list[str] = []
    with pytest.raises(BadFraming) as caught:
        lines.extend(line for line, _ in Framing(Strikeout()).take(octets))

    assert caught.value.code == code
    assert lines[: len(shown)] == shown
    assert len(lines) * 6 < 40_000
