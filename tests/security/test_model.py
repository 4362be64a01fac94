"""The page about security names its tests, and they are there."""

import ast
import re
from functools import cache

import pytest

from tests.house import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text()
_NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@cache
def found_in(path: str) -> dict[str, str | None]:
    """Give the tests of a module with their docstrings."""
    if not (ROOT / path).is_file():
        return {}
    functions = (
        node
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    return {each.name: ast.get_docstring(each) for each in functions if each.name.startswith("test_")}


def threats() -> list[list[str]]:
    """Give the rows of the tables of threats: the threat, what could happen, what stands against it, the tests."""
    rows = [line.strip("|").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in rows if "::" in row[-1]]


@pytest.mark.parametrize("row", threats(), ids=lambda row: str(row[0]))
def test_every_test_that_is_named_exists(row: list[str]) -> None:
    """By its file and its name, and says what it proves."""
    named = _NAMED.findall(row[-1])

    assert named
    assert len(named) == row[-1].count("::"), "each is written as `tests/….py::test_…`"
    assert [f"{path}::{name}" for path, name in named if not found_in(path).get(name)] == []


def test_every_threat_has_a_test() -> None:
    """Each row of a table of threats has its four cells, the last one with tests; all ten of OWASP are there."""
    tables = re.findall(r"^\| threat .*?\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    rows = [line for table in tables for line in table.splitlines()]

    assert len(rows) == len(threats()) > 30
    assert {len(row) for row in threats()} == {4}
    assert {f"API{number}" for number in range(1, 11)} <= {row[0].split(" ")[0] for row in threats()}


def test_every_test_of_security_is_on_the_page() -> None:
    """What tests/security shows is told to people."""
    told = {(path, name) for path, name in _NAMED.findall(PAGE)}
    there = {
        (str(path.relative_to(ROOT)), name)
        for path in (ROOT / "tests" / "security").glob("test_*.py")
        for name in found_in(str(path.relative_to(ROOT)))
    }

    assert {name for path, name in there - told if not path.endswith("test_model.py")} == set()
