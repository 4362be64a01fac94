"""Where settings come from: a file, the environment, and files with secrets.

Three layers make one tree: the YAML file, over it the environment, and in both of them each
secret may be named by a file (`client_secret_file`). Every leaf of the tree remembers where it
came from, so that a mistake can be shown at its place and `config show` can name the source.

The file is read by its structure only: a scalar stays the text that was written. So a
password `0123` or a client id `1111` needs no quotes, and the file and the environment mean
the same by the same text.

In the environment `__` stands between levels. A list or a group may be given as JSON
(`POSTROOM_ROUTES='[…]'`) and single places in it by number (`POSTROOM_ROUTES__0__HOST`),
which goes over what the file says. An empty variable counts as not set.

What can go wrong is a `BadSettings`. No message contains a value that was read.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import yaml

PREFIX = "POSTROOM_"

#: Names that each may also be given as `<name>_file`.
SECRETS = frozenset(
    {"database_url", "redis_url", "client_secret", "password", "encryption_key", "previous_encryption_key"}
)

# Variables with our prefix that are not settings: the commands read them.
_OF_COMMANDS = frozenset({"CONFIG", "STATE", "URL", "API_KEY", "POSTGRES_BIN", "REDIS_SERVER"})

# Kubernetes sets these for each service of the namespace, and ours may well be called "postroom".
_SERVICE_LINK = re.compile(r"(.+_)?(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT(_\d+_(TCP|UDP|SCTP)(_.+)?)?)")

_YAML_ADVICE = (
    "Look at the indentation, and put values that begin with * & ! % @ ` or contain ': ' or ' #' in quotes."
)

_SECRET_CHARACTERS = 64 * 1024


class BadSettings(Exception):
    """The configuration cannot be used. Each line names a setting, the rule it breaks, and the remedy."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("\n".join(self.lines))


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value as it was given, with its source for `config show` and its place for a mistake."""

    value: object  # text, None, or what JSON knows
    source: str  # "file", "environment" or "secret file"
    place: str  # "line 12 of postroom.yaml", "POSTROOM_REDIS_URL"


Node: TypeAlias = "Leaf | dict[str, Node] | list[Node]"
Location: TypeAlias = tuple[str | int, ...]


def gather(config: Path | None, environment: Mapping[str, str]) -> tuple[dict[str, Node], list[str]]:
    """Read the layers into one tree, and list what could not be read.

    Raises BadSettings where the file is no configuration at all. A secret that could not be read
    stays in the tree as an `Unread`.
    """
    mistakes: list[str] = []
    tree: Node = {}
    for layer in (_read_file(config), _read_environment(environment, mistakes)):
        tree = _over(tree, _secrets_named(layer, mistakes))
    finished = _finished(tree, (), mistakes)
    assert isinstance(finished, dict)
    return finished, mistakes


def plain(node: Node) -> object:
    """Strip the tree of its sources."""
    if isinstance(node, Leaf):
        return node.value
    if isinstance(node, list):
        return [plain(child) for child in node]
    return {name: plain(child) for name, child in node.items()}


def leaf_at(node: Node, location: Location) -> Leaf | None:
    """Find where the value at a place came from, or the nearest group above it that was one value."""
    for step in location:
        if isinstance(node, Leaf):
            return node
        members: Mapping[str | int, Node] = (
            dict(enumerate(node)) if isinstance(node, list) else dict(node.items())
        )
        if step not in members:
            return None
        node = members[step]
    return node if isinstance(node, Leaf) else None


def dotted(location: Location) -> str:
    """Write a place as people write it: `routes[0].mailboxes[1].login.password`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location).lstrip(".")


def _read_file(config: Path | None) -> Node:
    if config is None:
        return {}
    try:
        text = config.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as fault:
        raise BadSettings(
            [f"{config}: cannot be read ({fault.strerror}). Correct --config or POSTROOM_CONFIG."]
        ) from None
    except UnicodeDecodeError:
        raise BadSettings([f"{config}: is not UTF-8 text. Save it as UTF-8."]) from None
    except (yaml.YAMLError, RecursionError) as fault:
        raise BadSettings([f"{config}{_position(fault)}: is not YAML. {_YAML_ADVICE}"]) from None
    if root is None:
        return {}
    return _File(config).read(root)


def _position(fault: yaml.YAMLError | RecursionError) -> str:
    # Only the position: the library's own text quotes the line, and a password may stand there.
    mark = getattr(fault, "problem_mark", None)
    return "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"


class _File:
    """Turns the nodes of one YAML document into our tree."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.open: list[yaml.Node] = []  # from the root to here, to see a group that contains itself

    def read(self, root: yaml.Node) -> Node:
        if not isinstance(root, yaml.MappingNode):
            raise BadSettings(
                [
                    f"{self.path}: is not a list of settings. Write `name: value` lines, as the documentation shows."
                ]
            )
        return self._node(root)

    def _node(self, node: yaml.Node) -> Node:
        if node in self.open:
            raise BadSettings([f"{self._place(node)}: contains itself. Remove the alias."])
        self.open.append(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return dict(self._members(node))
            if isinstance(node, yaml.SequenceNode):
                # An empty list is a value of its own: it goes over a default.
                return [self._node(child) for child in node.value] or Leaf([], "file", self._place(node))
            return Leaf(self._scalar(node), "file", self._place(node))
        finally:
            self.open.pop()

    def _members(self, node: yaml.MappingNode) -> Iterator[tuple[str, Node]]:
        seen: set[str] = set()
        for name, value in node.value:
            if not isinstance(name, yaml.ScalarNode) or name.value in seen:
                raise BadSettings(
                    [f"{self._place(name)}: the name is there twice, or is not a plain name. Keep one."]
                )
            seen.add(name.value)
            child = self._node(value)
            if name.value.endswith("_file") and isinstance(child, Leaf) and isinstance(child.value, str):
                # A path in the file is meant from the file, wherever the service was started.
                child = Leaf(str(self.path.parent / child.value), child.source, child.place)
            yield name.value, child

    def _place(self, node: yaml.Node) -> str:
        return f"line {node.start_mark.line + 1} of {self.path.name}"

    @staticmethod
    def _scalar(node: yaml.Node) -> str | None:
        return None if node.tag == "tag:yaml.org,2002:null" else str(node.value)


def _read_environment(environment: Mapping[str, str], mistakes: list[str]) -> Node:
    tree: Node = {}
    # Sorted, so that POSTROOM_ENTRA as JSON comes before POSTROOM_ENTRA__CLOUD, which goes over it.
    for variable in sorted(environment):
        name, value = variable.upper().removeprefix(PREFIX), environment[variable]
        if not variable.upper().startswith(PREFIX) or value == "" or _not_a_setting(name):
            continue
        steps = name.lower().split("__")
        if "" in steps:
            mistakes.append(
                f"{variable}: is not a setting's name. Put two underscores between levels, and none at the ends."
            )
            continue
        try:
            node = _value(steps[-1], value, variable)
        except (ValueError, RecursionError):
            mistakes.append(f"{variable}: is not UTF-8 text, or JSON with a name twice. Write it anew.")
            continue
        for step in reversed(steps):
            node = {step: node}
        tree = _over(tree, node)
    return tree


def _not_a_setting(name: str) -> bool:
    return name in _OF_COMMANDS or ("__" not in name and _SERVICE_LINK.fullmatch(name) is not None)


def _value(name: str, text: str, variable: str) -> Node:
    """Read JSON where it is a list or a group; anything else, and every secret, stays text."""
    text.encode()  # lone surrogates: what the environment holds is not UTF-8
    if name not in SECRETS and text.lstrip().startswith(("[", "{")):
        try:
            return _tree(json.loads(text, object_pairs_hook=_no_duplicates), variable)
        except json.JSONDecodeError:
            pass  # an address literal as EHLO name; anything else is refused by the field's own rule
    return Leaf(text, "environment", variable)


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError
    return members


def _tree(value: object, variable: str) -> Node:
    if isinstance(value, dict):
        return {str(name): _tree(child, variable) for name, child in value.items()}
    if isinstance(value, list) and value:
        return [_tree(child, variable) for child in value]
    return Leaf(value, "environment", variable)


def _over(lower: Node, upper: Node) -> Node:
    """Lay one tree over another: groups by name, lists by number, anything else replaces what is below."""
    if isinstance(lower, list) and isinstance(upper, dict) and all(name.isdecimal() for name in upper):
        lower = {str(index): child for index, child in enumerate(lower)}
    if not (isinstance(lower, dict) and isinstance(upper, dict)):
        return upper
    return lower | {
        name: _over(lower[name], child) if name in lower else child for name, child in upper.items()
    }


@dataclass(frozen=True, slots=True)
class Unread:
    """Stands for a secret until all layers are merged: a file that is overruled need not exist."""

    path: object


def _secrets_named(node: Node, mistakes: list[str]) -> Node:
    """Give each secret of one layer its plain name, whether the value or a file was named."""
    if isinstance(node, list):
        return [_secrets_named(child, mistakes) for child in node]
    if isinstance(node, Leaf):
        return node
    named: dict[str, Node] = {}
    for name, child in node.items():
        stem = name.removesuffix("_file")
        if stem in SECRETS and isinstance(child, Leaf):
            if stem in named:
                mistakes.append(f"{child.place}: {stem} and {stem}_file are both given. Keep one.")
            named[stem] = child if stem == name else Leaf(Unread(child.value), "secret file", child.place)
        else:
            named[name] = _secrets_named(child, mistakes)
    return named


def _finished(node: Node, location: Location, mistakes: list[str]) -> Node:
    """Turn groups with numbers for names into lists, and read the secrets' files."""
    if isinstance(node, Leaf):
        return _secret(node, location, mistakes) if isinstance(node.value, Unread) else node
    if location and isinstance(node, dict) and node and all(name.isdecimal() for name in node):
        numbers = sorted(int(name) for name in node)
        if numbers != list(range(len(node))):
            mistakes.append(
                f"{dotted(location)}: the numbers in the environment leave a gap. Count from 0, after what the file has."
            )
            return []
        node = [node[str(number)] for number in numbers]
    if isinstance(node, list):
        return [_finished(child, (*location, index), mistakes) for index, child in enumerate(node)]
    return {name: _finished(child, (*location, name), mistakes) for name, child in node.items()}


def _secret(leaf: Leaf, location: Location, mistakes: list[str]) -> Leaf:
    assert isinstance(leaf.value, Unread)
    setting = f"{dotted(location)}_file ({leaf.place})"
    try:
        text = Path(str(leaf.value.path)).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, ValueError) as fault:
        reason = fault.strerror if isinstance(fault, OSError) else "it is not UTF-8 text"
        mistakes.append(
            f"{setting}: the file cannot be read ({reason}). Correct the path or its permissions."
        )
        return leaf
    if not text or len(text) > _SECRET_CHARACTERS:
        mistakes.append(f"{setting}: the file is empty or far too long. Put the secret alone into it.")
        return leaf
    return Leaf(text, leaf.source, leaf.place)
