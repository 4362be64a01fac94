"""The check that an answer holds nothing that the document does not tell."""

from typing import Any

import pytest

from tests.contract.undescribed import undescribed

DOCUMENT = {
    "components": {
        "schemas": {
            "Inner": {"type": "object", "properties": {"a": {"type": "string"}}},
            "Other": {"type": "object", "properties": {"b": {"type": "string"}}},
        }
    }
}
INNER = {"$ref": "#/components/schemas/Inner"}
OTHER = {"$ref": "#/components/schemas/Other"}


@pytest.mark.parametrize(
    ("value", "schema", "found"),
    [
        ({"a": "x"}, INNER, []),
        ({"a": "x", "z": 1}, INNER, ["/z"]),
        ([{"a": "x"}, {"z": 1}], {"type": "array", "items": INNER}, ["/1/z"]),
        ({"b": "x"}, {"anyOf": [INNER, OTHER, {"type": "null"}]}, []),
        ({"b": "x", "z": 1}, {"anyOf": [INNER, OTHER]}, ["/z"]),
        (None, {"anyOf": [INNER, {"type": "null"}]}, []),
        ({"k": {"z": 1}}, {"type": "object", "additionalProperties": INNER}, ["/*/z"]),
        ({"anything": {"goes": 1}}, {"type": "object", "additionalProperties": True}, []),
        ({"anything": {"goes": 1}}, {"type": "object"}, []),
    ],
)
def test_what_is_not_told_is_found(value: Any, schema: dict[str, Any], found: list[str]) -> None:
    """By its place, in objects, lists and unions; what is open in the document stays open."""
    assert undescribed(value, schema, DOCUMENT) == found
