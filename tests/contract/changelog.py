"""Which operations the changelog says are broken: lines under Unreleased, in Changed or Removed.

    ### Changed
    - breaking: `GET /messages` shows the newest first.

A line counts for every operation that it names behind the word "breaking:"; it may go on in further lines.
"""

import re

_SECTION = re.compile(r"^## (?P<name>.*)$", re.MULTILINE)
_PART = re.compile(r"^### (?P<name>.*)$", re.MULTILINE)
_ENTRY = re.compile(r"^- ", re.MULTILINE)


def broken(changelog: str) -> list[str]:
    """Give the entries that announce a break, each on one line and without backticks."""
    found = []
    for name, section in _parts(changelog, _SECTION):
        if name.strip("[] ").lower() != "unreleased":
            continue
        for part, text in _parts(section, _PART):
            if part.strip().lower() not in {"changed", "removed"}:
                continue
            entries = (" ".join(each.replace("`", "").split()) for each in _ENTRY.split(text)[1:])
            found += [each for each in entries if each.lower().startswith("breaking:")]
    return found


def announces(entries: list[str], operation: str) -> bool:
    """Say whether one of the entries names this operation as a whole word: `GET /messages` is not `GET /messages/{id}`."""
    whole = re.compile(rf"(?<![\w/]){re.escape(operation)}(?![\w/{{-])")
    return any(whole.search(entry) for entry in entries)


def _parts(text: str, heading: re.Pattern[str]) -> list[tuple[str, str]]:
    marks = list(heading.finditer(text))
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    return [(mark["name"], text[mark.end() : end]) for mark, end in zip(marks, ends, strict=True)]
