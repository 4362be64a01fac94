"""What the chart repeats of the service's settings: its schema of `config`, and the tables of its README.

    python -m tests.tools.chart_docs           write helm/values.schema.json and helm/README.md anew
    python -m tests.tools.chart_docs --check   say whether they are in step; exit status 1 when not

Helm checks values before anything reaches a cluster, so the schema of the configuration stands in
the chart's own: `postroom config schema`, said in JSON Schema 7, which Helm 3 reads. The rest of
`values.schema.json` is written by hand and left as it is. The README's tables come from the
comments of `values.yaml` and from the settings' descriptions.
"""

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import yaml

from service.settings import Settings
from service.settings.sources import SECRETS
from tests.tools.cache import REPOSITORY

CHART = REPOSITORY / "helm"
SCHEMA = CHART / "values.schema.json"
README = CHART / "README.md"

Schema = dict[str, Any]

#: What the README says above its tables.
_HEAD = """\
# The chart of Postroom

How to install, upgrade, scale, back up and restore: [docs/kubernetes.md](../docs/kubernetes.md). Both tables are made
from the sources: `make openapi` writes them anew.

"""
_VALUES_HEAD = """\
## Values

An unknown name or a wrong type is refused before anything is installed.

| value | default | meaning |
|---|---|---|
"""
_SETTINGS_HEAD = """\

## The configuration: `config.…`

What the service itself reads. The same names work without Kubernetes: in the file `postroom.yaml`, and in the
environment with `POSTROOM_` before them and `__` between levels. Times are written `30s`, `10m`, `24h`, sizes `35MB`.
A secret may also be given as `<name>_file`, which names a file that holds it: in the chart that is the only way.
`routes[]` has one entry for each way out; its `kind` decides which of its settings there are.

| setting | default | meaning |
|---|---|---|
"""


def schema() -> str:
    """Return the chart's schema with the settings of today in it."""
    chart: Schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    settings: Schema = dict(Settings.schema())
    chart["$defs"] = {name: _for_helm(group) for name, group in settings["$defs"].items()}
    kept = ("type", "additionalProperties", "properties")
    config = _for_helm({name: settings[name] for name in kept})
    # The chart writes the two addresses, so nothing is missing from an empty configuration.
    chart["properties"]["config"] = {"description": chart["properties"]["config"]["description"], **config}
    return json.dumps(chart, indent=2, ensure_ascii=False) + "\n"


def _for_helm(node: Any) -> Any:
    """Leave out what only describes, and let a route's kind choose its schema: so a mistake is said at its place."""
    if isinstance(node, list):
        return [_for_helm(each) for each in node]
    if not isinstance(node, dict):
        return node
    if "discriminator" in node:
        return _by_kind(node["discriminator"])
    described = {"title", "default", "examples", "description", "writeOnly", "format"}
    # Below `properties` these are names of settings.
    return {
        name: {each: _for_helm(inner) for each, inner in child.items()}
        if name == "properties"
        else _for_helm(child)
        for name, child in node.items()
        if name not in described
    }


def _by_kind(discriminator: Schema) -> Schema:
    name, mapping = discriminator["propertyName"], discriminator["mapping"]
    return {
        "type": "object",
        "required": [name],
        "properties": {name: {"enum": sorted(mapping)}},
        "allOf": [
            {"if": {"properties": {name: {"const": kind}}}, "then": {"$ref": reference}}
            for kind, reference in sorted(mapping.items())
        ],
    }


def readme() -> str:
    """Return the chart's README."""
    values = "".join(f"| `{name}` | {default} | {said} |\n" for name, default, said in _values())
    settings = "".join(f"| `{name}` | {default} | {said} |\n" for name, default, said in _settings())
    return _HEAD + _VALUES_HEAD + values + _SETTINGS_HEAD + settings


# --- the chart's own values -------------------------------------------------------------------------


def _values() -> Iterator[tuple[str, str, str]]:
    """List the values with their defaults and what the comment above them says, in the file's order."""
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    comments = _comments(text)
    for path, default in _leaves(yaml.safe_load(text), (), comments):
        said = comments.get(path, "")
        # What a group says is said at its first value.
        above = comments.get(path[:-1], "") if _is_first(path, text) else ""
        yield ".".join(path), _code(default), _cell(" ".join(part for part in (above, said) if part))


def _leaves(
    node: Schema, path: tuple[str, ...], said: dict[tuple[str, ...], str]
) -> Iterator[tuple[Any, Any]]:
    for name, child in node.items():
        if isinstance(child, dict) and child and name not in _WHOLE:
            yield from _leaves(child, (*path, name), said)
        else:
            yield (*path, name), child


#: Groups of Kubernetes' own, shown as one value.
_WHOLE = {"resources", "podSecurityContext", "containerSecurityContext"}


def _is_first(path: tuple[str, ...], text: str) -> bool:
    group: Any = yaml.safe_load(text)
    for name in path[:-1]:
        group = group[name]
    return len(path) > 1 and next(iter(group)) == path[-1]


def _comments(text: str) -> dict[tuple[str, ...], str]:
    """Find what stands above each value after `# --`, up to the first empty line of the comment."""
    found: dict[tuple[str, ...], str] = {}
    path: list[str] = []
    said: list[str] | None = None
    for line in text.splitlines():
        bare = line.strip()
        if bare.startswith("# -- "):
            said = [bare.removeprefix("# -- ")]
        elif bare == "#" and said:
            said = [*said, ""]
        elif bare.startswith("# ") and said and "" not in said:
            said.append(bare.removeprefix("# "))
        elif (value := re.match(r"( *)([A-Za-z]\w*):", line)) is not None:
            path = [*path[: len(value[1]) // 2], value[2]]
            if said:
                found[tuple(path)] = " ".join(part for part in said if part)
            said = None
    return found


# --- the settings -----------------------------------------------------------------------------------


def _settings() -> Iterator[tuple[str, str, str]]:
    schema: Schema = dict(Settings.schema())
    yield from _group({**schema, "description": ""}, schema["$defs"], "")


def _group(group: Schema, groups: Schema, at: str) -> Iterator[tuple[str, str, str]]:
    """List the settings of a group and of those below it; what the group says is said at its first."""
    above = group.get("description", "")
    for name, setting in group["properties"].items():
        if name.removesuffix("_file") in SECRETS and name.endswith("_file"):
            continue
        place = f"{at}{name}"
        references, several = _referred(setting)
        if not references:
            yield (
                place,
                _default(setting, required=name in group.get("required", ())),
                _meaning(above, setting),
            )
            above = ""
            continue
        said: set[str] = set()
        for described in (groups[reference] for reference in references):
            if "properties" not in described:
                yield place, _default(setting, required=False), _meaning(above, setting, described)
                continue
            # What the kinds of a route have in common is said once.
            fresh = {name: each for name, each in described["properties"].items() if name not in said}
            below = "" if len(references) > 1 else described.get("description", "")
            said |= set(fresh)
            parts = {**described, "description": below, "properties": fresh}
            yield from _group(parts, groups, f"{place}{'[]' if several else ''}.")


def _referred(setting: Schema) -> tuple[list[str], bool]:
    """Say which groups a setting consists of, and whether it is a list of them."""
    several = "items" in setting and "type" in setting
    node = setting["items"] if several else setting
    choices = node.get("oneOf") or node.get("anyOf") or [node]
    return [each["$ref"].rpartition("/")[2] for each in choices if "$ref" in each], several


def _default(setting: Schema, *, required: bool) -> str:
    return "required" if required else _code(_short(setting.get("default")))


def _short(default: object) -> object:
    """Write a default as a person writes it: pydantic's schema has durations in ISO 8601."""
    if isinstance(default, list):
        return ", ".join(str(_short(each)) for each in default)
    if isinstance(default, str) and (parts := _ISO_DURATION.fullmatch(default)):
        return " ".join(
            f"{number}{unit}" for number, unit in zip(parts.groups(), "dhms", strict=True) if number
        )
    return default


_ISO_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?)?")


def _meaning(above: str, *described: Schema) -> str:
    said = described[0].get("description", "")
    alternatives = [each for one in described for each in (one, *one.get("anyOf", ()))]
    choices = next((each["enum"] for each in alternatives if "enum" in each), ())
    listed = f"One of {', '.join(f'`{each}`' for each in choices)}." if choices else ""
    return _cell(" ".join(part for part in (above, said, listed) if part))


def _code(value: object) -> str:
    if value in (None, "", [], {}):
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"`{text}`" if len(text) < 80 else "see `values.yaml`"


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def main(arguments: list[str]) -> int:
    """Write both files, or compare them."""
    wanted = {SCHEMA: schema(), README: readme()}
    if arguments != ["--check"]:
        for path, text in wanted.items():
            path.write_text(text, encoding="utf-8")
        return 0
    stale = [
        path
        for path, text in wanted.items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    for path in stale:
        print(f"{path.relative_to(REPOSITORY)} is not in step: make openapi", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
