"""README.md and docs/*.md: every link leads somewhere, and the guides can be followed one after another."""

import re
from pathlib import Path

import pytest

from tests.tools.cache import REPOSITORY

DOCUMENTS = (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")))

_LINK = re.compile(r"\[[^\]]*\]\((?!https?:)([^)\s]*)\)")
_REFERENCE = re.compile(r"\]\[([a-z][a-z0-9-]*)\]")
_DEFINED = re.compile(r"^\[([a-z0-9-]+)\]: https://\S+$", re.MULTILINE)


def anchors(document: Path) -> set[str]:
    """Give the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    """What a link names is there: the file, the heading in it, the address behind a short name."""
    text = document.read_text()
    broken = []
    for target in _LINK.findall(text):
        name, _, anchor = target.partition("#")
        file = document.parent / name if name else document
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    broken += [name for name in _REFERENCE.findall(text) if name not in _DEFINED.findall(text)]

    assert broken == []


def test_no_guide_uses_up_the_idempotency_key_of_another() -> None:
    """Who follows README and the guides one after another is never told that a key was used before."""
    keys = [
        key
        for document in DOCUMENTS
        for key in re.findall(r"-H 'Idempotency-Key: ([^']+)'", document.read_text())
    ]

    assert len(keys) >= 3
    assert len(keys) == len(set(keys))
