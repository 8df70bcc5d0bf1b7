"""Flat configs: frozen dataclasses of checked keys, read strictly from YAML files.

A config class is a frozen dataclass whose fields are annotated with a check:
`Annotated[int, checks.whole(1)]`. What is here finds every problem of a file, of `--set key=value`
overrides and of a plain mapping, and writes configs back. Nothing is converted but what `checks`
converts.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, get_type_hints

from fast_style import checks
from fast_style.errors import ConfigError
from fast_style.yaml12 import YamlError, read_yaml

MAX_FILE_BYTES = 1_000_000
_OVERRIDES = "--set"


class Problem(NamedTuple):
    """One line for the user.

    Attributes:
      keys: The keys that it is about.
      text: The line.
      meant: Keys that were perhaps meant, so that they are not reported as missing too.
    """

    keys: frozenset[str]
    text: str
    meant: frozenset[str] = frozenset()


Rules = Callable[[Mapping[str, Any]], Iterable[Problem]]
"""Checked values of known keys, wrong ones left out, to what contradicts what."""


def load(
    cls: type,
    rules: Rules,
    path: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    *,
    replaces: Mapping[str, Sequence[str | tuple[str, Any]]] | None = None,
    example: str,
) -> dict[str, Any]:
    """Reads a YAML file, with overrides, into the checked arguments of a config class.

    Args:
      cls: The config class.
      rules: What its keys must obey together.
      path: A UTF-8 file of at most `MAX_FILE_BYTES`, in YAML 1.2.
      overrides: 'key=value' texts that replace the file's values; the value is YAML too. Of two
        for one key the last counts.
      replaces: {key: other keys of the file that an override of it drops}; one with a value is
        dropped only if the file has that value.
      example: A line of such a file, for a message.

    Raises:
      ConfigError: With every problem of the file and the overrides.
    """
    source = os.fspath(path)
    values, problems = _read_file(source, example)
    return _merge(cls, rules, source, values, problems, overrides, replaces or {})


def from_overrides(cls: type, rules: Rules, overrides: Sequence[str]) -> dict[str, Any]:
    """Does what `load` does, without a file: defaults and overrides.

    Raises:
      ConfigError: With every problem.
    """
    return _merge(cls, rules, _OVERRIDES, {}, [], overrides, {})


def _merge(
    cls: type,
    rules: Rules,
    source: str,
    values: dict[str, Any],
    problems: list[str],
    overrides: Sequence[str],
    replaces: Mapping[str, Sequence[str | tuple[str, Any]]],
) -> dict[str, Any]:
    set_values, set_problems = _parse_overrides(overrides)
    dropped = set()
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}
    for key, replaced in replaces.items():
        if set_values.get(key) not in (None, values.get(key, defaults[key])):
            for other in replaced:
                name, value = (other, values.get(other)) if isinstance(other, str) else other
                if values.get(name) == value:
                    dropped.add(name)
    values = {key: value for key, value in values.items() if key not in dropped}
    checked, wrong = check(cls, rules, values | set_values)
    for problem in wrong:
        overridden = not problem.keys.isdisjoint(dropped.union(set_values))
        (set_problems if overridden else problems).append(problem.text)
    if problems:
        raise ConfigError(source, problems + [f"{_OVERRIDES} {text}" for text in set_problems])
    if set_problems:
        raise ConfigError(_OVERRIDES, set_problems)
    return checked


def check(
    cls: type, rules: Rules, values: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Problem]]:
    """Returns all keys as the config holds them, without the wrong ones, and every problem."""
    checked, problems = check_keys(cls, values)
    # A key that is wrong by itself says nothing about the rules it takes part in.
    unclear = frozenset[str]().union(*(problem.keys | problem.meant for problem in problems))
    return checked, problems + [p for p in rules(checked) if p.keys.isdisjoint(unclear)]


def complete(config: Any, rules: Rules) -> None:
    """Checks a config from its `__post_init__`; whole numbers become floats, lists tuples.

    Raises:
      ConfigError: With every problem.
    """
    given = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    values, problems = check(type(config), rules, given)
    if problems:
        raise ConfigError(type(config).__name__, [problem.text for problem in problems])
    for key, value in values.items():
        object.__setattr__(config, key, value)


def to_yaml(values: Mapping[str, Any]) -> str:
    """Writes plain values, one key a line, as text that reads back to equal ones."""
    lines = []
    for key, value in values.items():
        if isinstance(value, list) and isinstance(value[0], dict):
            lines.append(f"{key}:")
            lines += [f"  - {_to_json(item)}" for item in value]
        else:
            lines.append(f"{key}: {_to_json(value)}")
    return "\n".join(lines) + "\n"


def check_keys(
    cls: type, values: Mapping[str, Any], prefix: str = ""
) -> tuple[dict[str, Any], list[Problem]]:
    """Checks every key by itself against the fields of `cls`, and adds the defaults."""
    known = _known_keys(cls)
    problems = []
    meant = set()
    for key in values:
        if key not in known:
            close = checks.closest(key, known)
            hint = f"did you mean '{close}'?" if close else f"choose from {', '.join(known)}"
            text = f"{prefix}{checks.plain(key)}: unknown key; {hint}"
            problems.append(Problem(frozenset([key]), text, frozenset([close] if close else [])))
            meant.add(close)
    checked = {}
    for field in dataclasses.fields(cls):
        key = field.name
        if key in values:
            found: list[str] = []
            value = known[key](prefix + key, values[key], found)
            problems += [Problem(frozenset([key]), text) for text in found]
            if not found:
                checked[key] = value
        elif field.default is not dataclasses.MISSING:
            checked[key] = field.default
        elif key not in meant:
            problems.append(Problem(frozenset([key]), f"{prefix}{key}: missing; add this key"))
    return checked, problems


@functools.cache
def _known_keys(cls: type) -> dict[str, checks.Check]:
    hints = get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name].__metadata__[0] for field in dataclasses.fields(cls)}


def _to_json(value: Any) -> str:
    """JSON, which YAML 1.2 contains, with every character escaped that YAML would not keep."""

    def escaped(match: re.Match[str]) -> str:
        character = match[0]
        if character.isprintable():
            return character
        return f"\\U{ord(character):08X}"

    return re.sub(r"[^ -~]", escaped, json.dumps(value, ensure_ascii=False))


def _read_file(source: str, example: str) -> tuple[dict[str, Any], list[str]]:
    """Returns the keys of a file as they are, and the problems of keys given more than once."""
    try:
        with open(source, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise ConfigError(source, ["no such file; check the path"]) from error
    except IsADirectoryError as error:
        raise ConfigError(source, ["this is a folder; name a YAML file in it"]) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(source, [f"cannot read this file ({reason}); check the path"]) from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(
            source, [f"larger than {MAX_FILE_BYTES:,} bytes, so not a config; check the path"]
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(source, [f"line {line}: not UTF-8 text; save it as UTF-8"]) from error
    try:
        document = read_yaml(text)
    except YamlError as error:
        raise ConfigError(source, [str(error)]) from error
    if document.value is None:
        raise ConfigError(source, [f"this file is empty; add keys such as '{example}'"])
    if not isinstance(document.value, dict):
        raise ConfigError(
            source,
            [f"expected keys and values such as '{example}', got {checks.show(document.value)}"],
        )
    return document.value, list(document.problems)


def _parse_overrides(overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    values = {}
    problems = []
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.strip()
        if not equals or not key:
            problems.append(f"expected key=value such as 'steps=300', got {checks.show(override)}")
            continue
        try:
            document = read_yaml(text)
        except YamlError as error:
            problems.append(f"{key}: {str(error).removeprefix('line 1: ')}")
            continue
        problems += [f"{key}: {problem}" for problem in document.problems]
        values[key] = document.value
    return values, problems
