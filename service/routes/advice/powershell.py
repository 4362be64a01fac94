"""Words in a PowerShell line."""

import re

_BARE = re.compile(r"\*?[A-Za-z0-9.][A-Za-z0-9@._-]*|\*")
_QUOTES = re.compile("(['\u2018\u2019\u201a\u201b])")  # PowerShell takes the typographic ones for the same


def quoted(word: str) -> str:
    """Write a name as PowerShell takes it: bare where that is safe, otherwise in single quotes."""
    return word if _BARE.fullmatch(word) else "'" + _QUOTES.sub(r"\1\1", word) + "'"
