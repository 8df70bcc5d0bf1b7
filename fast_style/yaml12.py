"""Reads YAML 1.2 text with line numbers, on top of PyYAML, which follows YAML 1.1.

PyYAML alone reads `1e-3` as text, `010` as 8 and `off` as false, keeps the last of two equal keys,
and expands nested aliases without limit. Here plain scalars follow the core schema of the YAML 1.2
specification (section 10.3.2), equal keys are reported, and size and depth are bounded.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_DEPTH = 20
MAX_VALUES = 10_000

_TAG = "tag:yaml.org,2002:"
_MOST_LINES = 5  # on which a key is given are named
# Tried in this order: every whole number also looks like a float.
_SCALARS = {
    _TAG + "null": re.compile(r"(?:~|null|Null|NULL|)\Z"),
    _TAG + "bool": re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"),
    _TAG + "int": re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z"),
    _TAG + "float": re.compile(
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
    ),
}


class YamlError(Exception):
    """The text cannot be read at all; the message is one sentence and names the line."""


@dataclass(frozen=True)
class YamlDocument:
    """What a text holds.

    Attributes:
      value: None, bool, int, float, str, or a list or a dict (with text keys) of such values.
      problems: One line for each key that is given more than once; `value` holds the last one.
    """

    value: Any
    problems: tuple[str, ...]


def read_yaml(text: str) -> YamlDocument:
    """Reads one YAML document; a text without one holds None.

    Anchors and aliases work. `<<` is an ordinary key, as YAML 1.2 has no merge keys, and so is
    `1` or `true`: every key is text. Dates and base-60 numbers are text.

    Raises:
      YamlError: If the syntax is wrong, a tag is not one of the core schema, values are nested
        deeper than `MAX_DEPTH`, or there are more than `MAX_VALUES` with aliases written out.
    """
    try:
        node = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        raise YamlError(_sentence(error)) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, int(error.position)) + 1
        raise YamlError(
            f"line {line}: the character U+{ord(text[error.position]):04X} "
            "is not allowed in YAML; remove it"
        ) from error
    except (ValueError, OverflowError) as error:  # PyYAML lets these through, as for "\UFFFFFFFF".
        raise YamlError(f"not valid YAML: an escape names no character ({error})") from error
    conversion = _Conversion()
    value = None if node is None else conversion.value(node, "", 1)
    return YamlDocument(value, tuple(conversion.problems))


class _Loader(yaml.SafeLoader):
    """Composes bounded nodes whose plain scalars carry the tags of the YAML 1.2 core schema."""

    yaml_implicit_resolvers = {None: list(_SCALARS.items())}

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._values = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        line = self.peek_event().start_mark.line + 1
        self._depth += 1
        self._values += 1
        # Checked here as well as on the result: composing is recursive, and slow for a long list.
        _check_bounds(self._depth, self._values, line)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


@dataclass
class _Conversion:
    """Nodes to values; counts every visit, so that a pile of aliases costs what it stands for."""

    problems: list[str] = field(default_factory=list)
    values: int = 0

    def value(self, node: yaml.Node, where: str, depth: int) -> Any:
        self.values += 1
        line = node.start_mark.line + 1
        _check_bounds(depth, self.values, line)
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, where, depth)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [
                self.value(child, f"{where}[{index}]", depth + 1)
                for index, child in enumerate(node.value)
            ]
        if isinstance(node, yaml.ScalarNode):
            if node.tag == _TAG + "str":
                return node.value
            if node.tag in _SCALARS:
                return _scalar(node.tag, node.value, line)
        tag = node.tag.replace(_TAG, "!!")
        raise YamlError(f"line {line}: the tag '{tag}' is not allowed here; write a plain value")

    def _mapping(self, node: yaml.MappingNode, where: str, depth: int) -> dict[str, Any]:
        result = {}
        lines = defaultdict(list)
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise YamlError(f"line {line}: a list or a mapping cannot be a key; use a name")
            key = key_node.value
            lines[key].append(line)
            result[key] = self.value(value_node, f"{where}.{key}" if where else key, depth + 1)
        for key, found in lines.items():
            if len(found) > 1:
                times = "twice" if len(found) == 2 else f"{len(found)} times"
                shown = found[:_MOST_LINES]
                last = f"{len(found) - len(shown)} more" if found[_MOST_LINES:] else shown.pop()
                listed = f"{', '.join(map(str, shown))} and {last}"
                name = f"{where}.{key}" if where else key
                self.problems.append(f"{name}: given {times}, on lines {listed}; keep one")
        return result


def _scalar(tag: str, text: str, line: int) -> None | bool | int | float:
    """Converts a scalar that was tagged by its looks, or by hand as in `!!int x`."""
    kind = tag.removeprefix(_TAG)
    if not _SCALARS[tag].match(text):
        raise YamlError(f"line {line}: '{text[:40]}' is not a value of the tag '!!{kind}'")
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "float":
        # Python spells the special values without YAML's dot.
        return float(text.replace(".", "")) if text[-1] in "fFnN" else float(text)
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    try:
        return int(text, base)
    except ValueError as error:  # Python converts at most some thousand digits.
        raise YamlError(f"line {line}: this number has {len(text)} digits; shorten it") from error


def _check_bounds(depth: int, values: int, line: int) -> None:
    if depth > MAX_DEPTH:
        raise YamlError(f"line {line}: nested deeper than {MAX_DEPTH} levels; flatten it")
    if values > MAX_VALUES:
        raise YamlError(
            f"line {line}: more than {MAX_VALUES:,} values, aliases written out; shorten the text"
        )


def _sentence(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    line = f"line {mark.line + 1}: " if mark else ""
    parts = ", ".join(part for part in (error.context, error.problem) if part)
    hint = "; indent with spaces, not tabs" if "'\\t'" in parts else ""
    return f"{line}not valid YAML: {parts}{hint}"
