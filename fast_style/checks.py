"""Checks of single config values, and how a value is shown in a message.

A check takes a key's full name, a value, and a list that it appends problems to, each one line for
the user. It returns the value in the form the config holds it; after a problem, what it returns is
not used. Nothing is converted but whole numbers where a float is wanted, and lists into tuples.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Check = Callable[[str, Any, list[str]], Any]

_MAX_WHOLE = 2**31 - 1


def whole(low: int) -> Check:
    """Accepts whole numbers from `low` that fit 32 bits."""
    wanted = f"a whole number of at least {low}"

    def check(key: str, value: Any, problems: list[str]) -> Any:
        if type(value) is not int or value < low:
            problems.append(f"{key}: expected {wanted}, got {show(value)}")
        elif value > _MAX_WHOLE:
            problems.append(f"{key}: expected at most {_MAX_WHOLE}, got {show(value)}")
        return value

    return check


def number(low: float = 0.0, high: float = math.inf, *, above: bool = False) -> Check:
    """Accepts finite numbers from `low` (or above it) to `high`, as floats."""
    wanted = f"number {'above' if above else 'of at least'} {low:g}"
    if high < math.inf:
        wanted = f"number from {low:g} to {high:g}"

    def check(key: str, value: Any, problems: list[str]) -> Any:
        try:
            number = float(value) if type(value) in (int, float) else math.nan
        except OverflowError:
            number = math.inf
        within = low < number if above else low <= number
        if not (within and number <= high and math.isfinite(number)):
            kind = "finite " if isinstance(value, float) and not math.isfinite(value) else ""
            problems.append(f"{key}: expected a {kind}{wanted}, got {show(value)}")
        return number

    return check


def text(key: str, value: Any, problems: list[str]) -> Any:
    """Accepts text on one line, also none at all."""
    if not isinstance(value, str):
        hint = "; put it in quotes" if isinstance(value, bool | int | float) else ""
        problems.append(f"{key}: expected text, got {show(value)}{hint}")
    elif re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", value):
        problems.append(f"{key}: expected text without control characters, got {show(value)}")
    return value


def path(key: str, value: Any, problems: list[str]) -> Any:
    """Accepts text that can be a path; nothing is looked up."""
    if isinstance(value, str) and not value.strip():
        problems.append(f"{key}: expected a path, got {show(value)}")
        return value
    return text(key, value, problems)


def plain_name(key: str, value: Any, problems: list[str]) -> Any:
    """Accepts a folder and file name on every system that TensorFlow cannot take for a pattern."""
    safe = isinstance(value, str) and re.fullmatch(r"\w(?:[\w .,+()-]*[\w)+])?", value)
    if isinstance(value, str) and not (safe and len(value.encode()) <= 100):
        problems.append(
            f"{key}: expected a plain name (letters, digits, '_', '-', '.', no '/', at most 100 "
            f"bytes, as it names a folder and files), got {show(value)}"
        )
        return value
    return text(key, value, problems)


def choice(*options: str) -> Check:
    """Accepts one of the options."""

    def check(key: str, value: Any, problems: list[str]) -> Any:
        if not isinstance(value, str) or value not in options:
            close = closest(value, options)
            hint = f"; did you mean '{close}'?" if close else ""
            problems.append(f"{key}: expected one of {', '.join(options)}, got {show(value)}{hint}")
        return value

    return check


def flag(key: str, value: Any, problems: list[str]) -> Any:
    """Accepts true and false."""
    if not isinstance(value, bool):
        problems.append(f"{key}: expected true or false, got {show(value)}")
    return value


def optional(check: Check) -> Check:
    """Accepts None, and what `check` accepts."""
    return lambda key, value, problems: None if value is None else check(key, value, problems)


def layers(key: str, value: Any, problems: list[str]) -> Any:
    """Accepts lists of one or more names without repeats, as tuples."""
    if not isinstance(value, list | tuple) or not value:
        problems.append(f"{key}: expected a list of one or more layer names, got {show(value)}")
        return value
    for index, layer in enumerate(value):
        path(f"{key}[{index}]", layer, problems)
        if layer in value[:index]:
            problems.append(f"{key}[{index}]: {show(layer)} is listed twice; keep one")
    return tuple(value)


def closest(word: Any, options: Iterable[str]) -> str | None:
    """Returns the option that `word` was perhaps meant to be."""
    close = difflib.get_close_matches(word.lower(), options, 1) if isinstance(word, str) else []
    return close[0] if close else None


def show(value: Any) -> str:
    """Returns a value in a few words, as YAML spells it; never long, whatever it holds."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return f"'{plain(value)}'"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value.bit_length() > 64:
        return "a number of more than 19 digits"
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}" if value else "an empty list"
    return "a mapping" if isinstance(value, Mapping) else f"a {type(value).__name__}"


def plain(value: Any) -> str:
    """Returns a value's text on one short line, with what would garble a terminal escaped."""
    text = str(value)
    text = text if len(text) <= 60 else f"{text[:57]}..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
