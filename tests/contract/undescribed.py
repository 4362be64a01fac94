"""What stands in an answer and not in the document: JSON Schema allows it, a complete document does not have it."""

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]


def undescribed(value: Any, schema: Schema, document: Mapping[str, Any], *, at: str = "") -> list[str]:
    """List the places of names that the schema does not have.

    An object whose schema names no properties is free: metadata, plans. Of a union the branch counts that
    describes most.
    """
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return undescribed(value, document["components"]["schemas"][name], document, at=at)
    if branches := [*schema.get("anyOf", ()), *schema.get("oneOf", ())]:
        fitting = [each for each in branches if each.get("type") != "null"]
        return min((undescribed(value, each, document, at=at) for each in fitting), key=len, default=[])
    if isinstance(value, list):
        items = schema.get("items", {})
        return [
            found
            for index, each in enumerate(value)
            for found in undescribed(each, items, document, at=f"{at}/{index}")
        ]
    if not isinstance(value, dict):
        return []
    fields, more = schema.get("properties", {}), schema.get("additionalProperties")
    found = []
    for name, member in value.items():
        if name in fields:
            found += undescribed(member, fields[name], document, at=f"{at}/{name}")
        elif isinstance(more, dict):
            found += undescribed(member, more, document, at=f"{at}/*")
        elif fields and not more:
            found.append(f"{at}/{name}")
    return found
