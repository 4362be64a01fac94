"""The rules by which a change of the API breaks a client, one by one, and where they are asked."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.contract.__main__ import compare
from tests.contract.breaking import breaks
from tests.contract.changelog import announces, broken

Document = dict[str, Any]
Change = Callable[[Document], None]


def a_document() -> Document:
    """One operation with everything that the rules look at."""
    return {
        "paths": {
            "/messages": {
                "post": {
                    "operationId": "send_message",
                    "security": [{"key": []}],
                    "parameters": [
                        {"in": "query", "name": "wait", "required": False, "schema": {"type": "integer", "maximum": 30}}
                    ],
                    "requestBody": {
                        "required": False,
                        "content": {
                            "application/json": {"schema": {"$ref": "#/components/schemas/MessageIn"}},
                            "message/rfc822": {"schema": {"type": "string"}},
                        },
                    },
                    "responses": {
                        "202": {
                            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/MessageOut"}}},
                            "headers": {"Location": {"required": True, "schema": {"type": "string"}}},
                        },
                        "422": {"content": {"application/problem+json": {"schema": {"type": "object"}}}},
                    },
                }
            }
        },
        "webhooks": {
            "recipient.sent": {
                "post": {
                    "requestBody": {
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/EventOut"}}}
                    }
                }
            }
        },
        "components": {
            "examples": {"not_found": {}},
            "schemas": {
                "MessageIn": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["from"],
                    "properties": {
                        "from": {"anyOf": [{"type": "string"}, {"$ref": "#/components/schemas/AddressIn"}]},
                        "subject": {"anyOf": [{"type": "string", "maxLength": 998}, {"type": "null"}]},
                        "priority": {"type": "string", "enum": ["high", "normal"], "default": "normal"},
                        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 50},
                        "stream": {"type": "string"},
                        "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
                    },
                },
                "AddressIn": {"type": "object", "properties": {"email": {"type": "string"}}},
                "MessageOut": {
                    "type": "object",
                    "required": ["id", "status", "size"],
                    "properties": {
                        "id": {"type": "string"},
                        "status": {"type": "string", "enum": ["queued", "sent"]},
                        "size": {"type": "integer"},
                        "at": {"type": "string", "format": "date-time"},
                        "recipients": {"type": "array", "items": {"$ref": "#/components/schemas/RecipientOut"}},
                        "answers": {"type": "array", "items": {"$ref": "#/components/schemas/MessageOut"}},
                    },
                },
                "RecipientOut": {
                    "type": "object",
                    "required": ["email"],
                    "properties": {"email": {"type": "string"}, "reply": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
                },
                "EventOut": {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}},
            },
        },
    }  # fmt: skip


def operation(document: Document) -> Any:
    return document["paths"]["/messages"]["post"]


def shape(document: Document, name: str) -> Any:
    return document["components"]["schemas"][name]


def properties(document: Document, name: str) -> Any:
    return shape(document, name)["properties"]


def parameter(document: Document) -> Any:
    return operation(document)["parameters"][0]


def bodies(document: Document) -> Any:
    return operation(document)["requestBody"]["content"]


A_FIELD = {"type": "string"}

BREAKING: list[tuple[str, Change]] = [
    ("operation_removed", lambda d: d["paths"].clear()),
    ("operation_removed", lambda d: d["paths"].update({"/mails": d["paths"].pop("/messages")})),
    ("operation_id_changed", lambda d: operation(d).update(operationId="send")),
    ("status_removed", lambda d: operation(d)["responses"].pop("422")),
    ("media_type_removed", lambda d: bodies(d).pop("message/rfc822")),
    ("media_type_removed", lambda d: operation(d)["responses"]["422"].update(content={"application/json": {}})),
    ("header_removed", lambda d: operation(d)["responses"]["202"].pop("headers")),
    ("header_removed", lambda d: operation(d)["responses"]["202"]["headers"]["Location"].pop("required")),
    ("parameter_removed", lambda d: operation(d)["parameters"].clear()),
    ("parameter_required", lambda d: parameter(d).update(required=True)),
    ("parameter_required", lambda d: operation(d)["parameters"].append({"in": "query", "name": "x", "required": True})),
    ("limit_narrowed", lambda d: parameter(d)["schema"].update(maximum=20)),
    ("limit_narrowed", lambda d: parameter(d)["schema"].update(minimum=1)),
    ("security_tightened", lambda d: operation(d).update(security=[{"key": [], "mutual": []}])),
    ("body_required", lambda d: operation(d)["requestBody"].update(required=True)),
    ("body_removed", lambda d: operation(d).pop("requestBody")),
    # what clients send
    ("property_removed", lambda d: properties(d, "MessageIn").pop("stream")),
    ("property_required", lambda d: shape(d, "MessageIn")["required"].append("subject")),
    ("type_narrowed", lambda d: properties(d, "MessageIn")["from"]["anyOf"].pop()),
    ("type_narrowed", lambda d: properties(d, "MessageIn")["subject"]["anyOf"].pop()),
    ("type_narrowed", lambda d: properties(d, "MessageIn").update(stream={"type": "integer"})),
    ("type_narrowed", lambda d: properties(d, "MessageIn")["stream"].update(enum=["bulk"])),
    ("type_narrowed", lambda d: shape(d, "AddressIn").update(additionalProperties=False)),
    ("type_narrowed", lambda d: properties(d, "MessageIn")["metadata"].update(additionalProperties={"type": "integer"})),
    ("value_removed", lambda d: properties(d, "MessageIn")["priority"].update(enum=["normal"])),
    ("default_changed", lambda d: properties(d, "MessageIn")["priority"].update(default="high")),
    ("limit_narrowed", lambda d: properties(d, "MessageIn")["subject"]["anyOf"][0].update(maxLength=100)),
    ("limit_narrowed", lambda d: properties(d, "MessageIn")["tags"].update(maxItems=10)),
    ("limit_narrowed", lambda d: properties(d, "MessageIn")["tags"]["items"].update(maxLength=10)),
    ("limit_narrowed", lambda d: properties(d, "MessageIn")["stream"].update(pattern="^[a-z]+$")),
    ("limit_narrowed", lambda d: properties(d, "MessageIn")["stream"].update(minLength=1)),
    ("format_changed", lambda d: properties(d, "MessageIn")["stream"].update(format="uuid")),
    # what clients read
    ("property_removed", lambda d: properties(d, "MessageOut").pop("size")),
    ("property_removed", lambda d: properties(d, "RecipientOut").pop("email")),
    ("property_optional", lambda d: shape(d, "MessageOut")["required"].remove("size")),
    ("type_widened", lambda d: properties(d, "MessageOut").update(size={"type": "string"})),
    ("type_widened", lambda d: properties(d, "MessageOut").update(size={"type": "number"})),
    ("type_widened", lambda d: properties(d, "MessageOut").update(id={"type": ["string", "null"]})),
    ("type_widened", lambda d: properties(d, "MessageOut").update(status={"type": "string"})),
    ("value_removed", lambda d: properties(d, "MessageOut")["status"].update(enum=["queued"])),
    ("value_added", lambda d: properties(d, "MessageOut")["status"].update(enum=["queued", "sent", "held"])),
    ("format_changed", lambda d: properties(d, "MessageOut")["at"].pop("format")),
    # beside the operations
    ("webhook_removed", lambda d: d["webhooks"].clear()),
    ("property_removed", lambda d: properties(d, "EventOut").pop("id")),
    ("code_removed", lambda d: d["components"]["examples"].clear()),
]  # fmt: skip

HARMLESS: list[tuple[str, Change]] = [
    ("nothing", lambda d: None),
    ("an operation", lambda d: d["paths"].update({"/me": {"get": {"operationId": "me", "responses": {}}}})),
    ("an optional parameter", lambda d: operation(d)["parameters"].append({"in": "query", "name": "x"})),
    ("a status", lambda d: operation(d)["responses"].update({"429": {}})),
    ("a media type", lambda d: bodies(d).update({"text/plain": {}})),
    ("another way to log in", lambda d: operation(d)["security"].append({"entra": []})),
    ("no login", lambda d: operation(d).pop("security")),
    ("an optional field of a request", lambda d: properties(d, "MessageIn").update(extra=A_FIELD)),
    ("a value in a request", lambda d: properties(d, "MessageIn")["priority"]["enum"].append("low")),
    ("a wider limit", lambda d: properties(d, "MessageIn")["tags"].update(maxItems=100)),
    ("no limit", lambda d: properties(d, "MessageIn")["tags"].pop("maxItems")),
    ("a wider type of a request", lambda d: properties(d, "MessageIn").update(stream={"type": ["string", "null"]})),
    ("less that is required", lambda d: shape(d, "MessageIn").pop("required")),
    ("a field of an answer", lambda d: properties(d, "MessageOut").update(extra=A_FIELD)),
    ("a field that is always there", lambda d: shape(d, "MessageOut")["required"].append("at")),
    ("a narrower type of an answer", lambda d: properties(d, "RecipientOut").update(reply={"type": "string"})),
    ("another description", lambda d: operation(d).update(description="x", summary="y")),
    ("a renamed shape", lambda d: _rename(d, "RecipientOut", "TakerOut")),
    ("an event", lambda d: d["webhooks"].update({"recipient.held": {"post": {}}})),
    ("a code", lambda d: d["components"]["examples"].update({"gone": {}})),
]  # fmt: skip


def _rename(document: Document, old: str, new: str) -> None:
    text = json.dumps(document).replace(f"/{old}", f"/{new}").replace(f'"{old}":', f'"{new}":')
    document.clear()
    document.update(json.loads(text))


@pytest.mark.parametrize(("rule", "change"), BREAKING)
def test_a_change_that_breaks_is_found(rule: str, change: Change) -> None:
    """Each rule finds its change, once or more often, and names the operation."""
    after = a_document()
    change(after)

    found = breaks(a_document(), after)

    assert rule in {each.rule for each in found}, [str(each) for each in found]
    assert all(each.operation.partition(" ")[0] in {"POST", "webhook", "code"} for each in found)


@pytest.mark.parametrize(("what", "change"), HARMLESS)
def test_a_change_that_breaks_nothing_passes(what: str, change: Change) -> None:
    """What clients pass over, and what they may do besides, is no break."""
    after = a_document()
    change(after)

    assert breaks(a_document(), after) == []


# -- the changelog ----------------------------------------------------------------------------

CHANGELOG = """# Changelog

## Unreleased

### Added

- breaking: `GET /added` does not count here.

### Changed

- breaking: `GET /messages` and `POST /messages/{id}/cancel` answer
  with `webhook recipient.sent` besides.
- `GET /quiet` is faster.

## 1.0.0

### Changed

- breaking: `GET /old` is another one.
"""


@pytest.mark.parametrize(
    ("operation", "announced"),
    [
        ("GET /messages", True),
        ("POST /messages/{id}/cancel", True),
        ("webhook recipient.sent", True),
        ("GET /messages/{id}", False),
        ("POST /messages/{id}", False),
        ("POST /messages", False),
        ("GET /added", False),
        ("GET /quiet", False),
        ("GET /old", False),
    ],
)
def test_a_break_is_announced_by_name(operation: str, announced: bool) -> None:
    """Only under Unreleased, in Changed or Removed, behind "breaking:", and by its whole name."""
    assert announces(broken(CHANGELOG), operation) is announced


# -- what is compared with what ---------------------------------------------------------------


def a_repository(folder: Path, *documents: Document) -> Path:
    """A repository in which each of these was committed in turn."""
    (folder / "openapi").mkdir(parents=True)
    (folder / "CHANGELOG.md").write_text(CHANGELOG)
    git(folder, "init", "-q", "-b", "main")
    for document in documents:
        write(folder, document)
        git(folder, "add", ".")
        git(folder, "commit", "-q", "-m", "a change")
    return folder


def write(folder: Path, document: Document) -> None:
    (folder / "openapi" / "openapi.json").write_text(json.dumps(document))


def git(folder: Path, *arguments: str) -> None:
    author = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *author, "-C", str(folder), *arguments], check=True, capture_output=True)


def without(status: str) -> Document:
    document = a_document()
    operation(document)["responses"].pop(status)
    return document


def test_a_silent_break_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the working tree, and in the commit that made it; an announced one passes."""
    folder = a_repository(tmp_path / "a", a_document())
    write(folder, without("422"))
    in_the_tree = compare(folder, against=None, ci=True)
    git(folder, "commit", "-q", "-a", "-m", "break it")
    in_a_commit = compare(folder, against=None, ci=True)
    said = capsys.readouterr().err
    (folder / "CHANGELOG.md").write_text(CHANGELOG.replace("GET /messages", "POST /messages"))
    announced = compare(folder, against=None, ci=True)

    assert (in_the_tree, in_a_commit, announced) == (1, 1, 0)
    assert "POST /messages: it does not answer 422 any more (status_removed)" in said
    assert "CHANGELOG.md" in said


def test_a_release_is_what_counts(tmp_path: Path) -> None:
    """After a tag v* everything is compared with its document, however many changes lie between."""
    folder = a_repository(tmp_path / "a", a_document())
    git(folder, "tag", "v1.0.0")
    write(folder, without("422"))
    git(folder, "commit", "-q", "-a", "-m", "break it")
    write(folder, without("422") | {"info": {}})
    git(folder, "commit", "-q", "-a", "-m", "something else")

    assert compare(folder, against=None, ci=True) == 1
    assert compare(folder, against="HEAD~1", ci=True) == 0


def test_the_first_document_has_nothing_before_it(tmp_path: Path) -> None:
    """It passes, in continuous integration too."""
    folder = a_repository(tmp_path / "a", a_document())

    assert compare(folder, against=None, ci=True) == 0


def test_without_history_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No git, or a history that is cut off: a line and success, but with CI=true a failure."""
    whole = a_repository(tmp_path / "whole", without("422"), a_document())
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{whole}", "shallow")
    bare = tmp_path / "bare"
    (bare / "openapi").mkdir(parents=True)
    write(bare, a_document())

    for folder, why in ((bare, "no checkout"), (tmp_path / "shallow", "cut off")):
        assert compare(folder, against=None, ci=False) == 0
        assert why in capsys.readouterr().err
        assert compare(folder, against=None, ci=True) == 1
