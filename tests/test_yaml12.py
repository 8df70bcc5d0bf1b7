"""YAML as version 1.2 reads it, and texts that must not be read at all."""

from __future__ import annotations

import math
from typing import Any

import pytest

from fast_style.yaml12 import YamlError, read_yaml


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-3", 0.001),
        ("1E5", 100000.0),
        ("1.5e+2", 150.0),
        ("-2.5", -2.5),
        ("1.", 1.0),
        (".5", 0.5),
        ("+.5", 0.5),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("250", 250),
        ("+7", 7),
        ("-7", -7),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("true", True),
        ("True", True),
        ("TRUE", True),
        ("false", False),
        ("False", False),
        ("FALSE", False),
        ("null", None),
        ("Null", None),
        ("NULL", None),
        ("~", None),
        ("", None),
        ("! 5", 5),
        ("!!str 010", "010"),
        ("!!float 3", 3.0),
    ],
)
def test_plain_values_follow_the_core_schema(text: str, expected: Any) -> None:
    value = read_yaml(f"key: {text}").value["key"]

    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    "text",
    ["off", "Off", "on", "yes", "no", "y", "n", "tRUE", "nULL", "2001-01-01", "1:30", "190:20:30"]
    + ["1_000", "0b11", "0o9", "0X1F", "1e", "e5", ".", "-x", "1.2.3", "inf", "nan", "+.nan", "="]
    + ["<<", "2001-12-14t21:59:43.10-05:00"],
)
def test_what_other_readers_convert_stays_text(text: str) -> None:
    assert read_yaml(f"key: {text}").value == {"key": text}


def test_not_a_number_is_read() -> None:
    assert all(math.isnan(value) for value in read_yaml("[.nan, .NaN, .NAN]").value)


@pytest.mark.parametrize("text", ["'010'", '"010"', "'true'", "'1e-3'", "''", "'~'"])
def test_quotes_make_text(text: str) -> None:
    assert read_yaml(f"[{text}]").value == [text[1:-1]]


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n...\n"])
def test_a_text_without_a_document_holds_none(text: str) -> None:
    assert read_yaml(text).value is None


def test_every_key_is_text() -> None:
    assert read_yaml("{1: a, true: b, null: c, 2.50: d}").value == {
        "1": "a",
        "true": "b",
        "null": "c",
        "2.50": "d",
    }


def test_comments_blocks_and_json_are_read() -> None:
    text = '# one\na: "x # y"  ## two\nb:\n  - {"c": 1}\n  # three\n  - [2, 3]\n'
    assert read_yaml(text).value == {"a": "x # y", "b": [{"c": 1}, [2, 3]]}


def test_aliases_repeat_what_they_name() -> None:
    text = "a: &layers [x, y]\nb: *layers\n"
    assert read_yaml(text).value == {"a": ["x", "y"], "b": ["x", "y"]}


def test_a_merge_key_is_an_ordinary_key() -> None:
    text = "a: &a {x: 1}\nb: {<<: *a, y: 2}\n"
    assert read_yaml(text).value["b"] == {"<<": {"x": 1}, "y": 2}


def test_keys_given_more_than_once_are_reported_with_their_lines() -> None:
    document = read_yaml("a: 1\nb: 2\n\na: 3\n'a': 4\nb: 2\n")

    assert document.value == {"a": 4, "b": 2}
    assert document.problems == (
        "a: given 3 times, on lines 1, 4 and 5; keep one",
        "b: given twice, on lines 2 and 6; keep one",
    )


def test_of_a_key_that_is_given_often_a_few_lines_are_named() -> None:
    assert read_yaml("a: 1\n" * 5).problems == (
        "a: given 5 times, on lines 1, 2, 3, 4 and 5; keep one",
    )
    assert read_yaml("a: 1\n" * 400).problems == (
        "a: given 400 times, on lines 1, 2, 3, 4, 5 and 395 more; keep one",
    )


def test_keys_given_twice_are_found_at_any_depth() -> None:
    document = read_yaml("styles:\n  - name: a\n    weight: 1\n    name: b\nx: {y: {z: 1, z: 1}}\n")

    assert document.problems == (
        "styles[0].name: given twice, on lines 2 and 4; keep one",
        "x.y.z: given twice, on lines 5 and 5; keep one",
    )


def _piled_aliases(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        aliases = ", ".join([f"*a{level - 1}"] * 9)
        lines.append(f"a{level}: &a{level} [{aliases}]")
    return "\n".join(lines)


def _merged_aliases(levels: int) -> str:
    lines = ["a0: &a0 {x: 1}"]
    for level in range(1, levels):
        aliases = ", ".join([f"*a{level - 1}"] * 9)
        lines.append(f"a{level}: &a{level} {{<<: [{aliases}]}}")
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(_piled_aliases(12), id="aliases of aliases"),
        pytest.param(_merged_aliases(12), id="merges of merges"),
        pytest.param("[" + "x," * 20_000 + "]", id="a long list"),
    ],
)
def test_too_many_values_are_refused(text: str) -> None:
    with pytest.raises(YamlError, match=r"line 1: more than 10,000 values, aliases written out"):
        read_yaml(text)


def test_some_aliases_of_aliases_are_fine() -> None:
    assert read_yaml(_piled_aliases(3)).value["a2"][8][8][8] == "x"


@pytest.mark.parametrize(
    "text",
    ["[" * 5000, "- " * 5000, "{a: " * 5000, "? " * 5000, "a: &a [*a]", "a: &a {b: *a}"],
)
def test_deep_and_endless_nesting_is_refused(text: str) -> None:
    with pytest.raises(YamlError, match="line 1: nested deeper than 20 levels; flatten it"):
        read_yaml(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: c: d\n", "line 2: not valid YAML: mapping values are not allowed here"),
        ("a:\n\t- 1", r"line 2: not valid YAML: .*'\\t'.*; indent with spaces, not tabs"),
        ("a: 1\nb: [1, 2\n", r"line 3: not valid YAML: .*expected ',' or '\]'"),
        ("a: 'x", "line 1: not valid YAML: .*unexpected end of stream"),
        ("a: *b", "line 1: not valid YAML: found undefined alias 'b'"),
        ("--- 1\n--- 2\n", "line 2: not valid YAML: expected a single document"),
        ("a: 1\nb: \x00", r"line 2: the character U\+0000 is not allowed in YAML; remove it"),
        ('a: "\\UFFFFFFFF"', "not valid YAML: an escape names no character"),
        ("? [a]\n: 1", "line 1: a list or a mapping cannot be a key; use a name"),
        ("a: " + "9" * 5000, "line 1: this number has 5000 digits; shorten it"),
        ("\na: !!python/name:os.system", "line 2: the tag '!!python/name:os.system' is not allow"),
        ("!!python/object/apply:os.getcwd []", "line 1: the tag '!!python/object/apply:os.getcwd'"),
        ("a: !!timestamp 2001-01-01", "line 1: the tag '!!timestamp' is not allowed here"),
        ("a: !!set {x, y}", "line 1: the tag '!!set' is not allowed here; write a plain value"),
        ("a: !!int 3.5", "line 1: '3.5' is not a value of the tag '!!int'"),
        ("a: !!bool yes", "line 1: 'yes' is not a value of the tag '!!bool'"),
    ],
)
def test_what_cannot_be_read_is_one_sentence_with_its_line(text: str, message: str) -> None:
    with pytest.raises(YamlError, match=message) as caught:
        read_yaml(text)
    assert "\n" not in str(caught.value)
