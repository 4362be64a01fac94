"""Find the codes of problems in the source: every string that reaches a parameter or a field called `code`.

Read without running it (`ast`). A name counts as a raiser where it is a class or a function of these rooms
with a parameter `code`; its literals in that place are codes. What is computed (tables of meanings, pydantic's
own kinds) is not seen here; the tests over the served document find it.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOMS = ("service/submission", "service/mail", "service/ledger/rights.py", "service/routes/targets.py")

_CODE = re.compile(r"[a-z][a-z0-9_]+")

#: Not problems: reasons in a recommendation, and of a host that may come to the DNS later.
_OTHERS = {"SaidOut", "FailedOut"}
_PASSING = {"name_lookup_failed", "name_not_found"}


def codes_in(root: Path) -> dict[str, str]:
    """Give each code with a place where it is raised."""
    trees = {
        path: ast.parse(path.read_text(encoding="utf-8")) for room in ROOMS for path in _files(root / room)
    }
    places: dict[str, int | None] = {}
    for tree in trees.values():
        places |= dict(_raisers(tree))
    found: dict[str, str] = {}
    for path, tree in trees.items():
        # A function of the same module goes before one of the same name elsewhere.
        own = {node.name: None for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        here = {name: place for name, place in places.items() if name not in own} | dict(_raisers(tree))
        for code, line in _literals(tree, here):
            if code not in _PASSING:
                found.setdefault(code, f"{path.relative_to(root)}:{line}")
    return found


def strings_in(root: Path) -> set[str]:
    """Give every string that stands in these rooms."""
    return {
        node.value
        for room in ROOMS
        for path in _files(root / room)
        if path.name != "codes.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def _files(room: Path) -> list[Path]:
    return [room] if room.is_file() else sorted(room.rglob("*.py"))


def _raisers(tree: ast.Module) -> Iterator[tuple[str, int | None]]:
    """Give each callable with a parameter `code`, and its place; None: by keyword only."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name not in _OTHERS:
            fields = [each.target for each in node.body if isinstance(each, ast.AnnAssign)]
            if any(isinstance(target, ast.Name) and target.id == "code" for target in fields):
                yield node.name, None
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                    yield from ((node.name, place - 1) for place in _place(method))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name != "__init__":
            yield from ((node.name, place) for place in _place(node))


def _place(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[int]:
    names = [each.arg for each in function.args.args]
    if "code" in names:
        yield names.index("code")
    elif "code" in [each.arg for each in function.args.kwonlyargs]:
        yield len(names) + 1000  # never by place


def _literals(tree: ast.Module, places: dict[str, int | None]) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
        if called not in places:
            continue
        place = places[called]
        given = [each.value for each in node.keywords if each.arg == "code"]
        if place is not None and place < len(node.args):
            given.append(node.args[place])
        for value in given:
            for leaf in ast.walk(value):
                if isinstance(leaf, ast.Constant) and _CODE.fullmatch(str(leaf.value)):
                    yield str(leaf.value), node.lineno
