"""Lines: bare ends and lengths."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.mail.lines import has_bare_line_end, has_line_over
from tests.mail.builders import examples


@pytest.mark.parametrize(
    "octets", [b"a\rb", b"a\nb", b"a\r\r\nb", b"a\n\r\nb", b"\n\r", b"a\r", b"\r\n\r\n\n"]
)
def test_a_line_end_is_a_pair(octets: bytes) -> None:
    """A CR or LF that stands alone is found wherever it hides."""
    assert has_bare_line_end(octets)


@examples
@given(lines=st.lists(st.integers(0, 9).map(lambda length: b"x" * length), min_size=1))
def test_the_longest_line_counts(lines: list[bytes]) -> None:
    """First, last or in between: a line is over the limit or none is."""
    octets = b"\r\n".join(lines)

    assert has_line_over(5, octets) == (max(map(len, lines)) > 5)
    assert not has_bare_line_end(octets)
