"""Configs: the inherited files, strictness, overrides, and the files of this project."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fast_style.config import (
    START,
    RunConfig,
    StyleSpec,
    config_from_dict,
    config_to_yaml,
    load_config,
)
from fast_style.errors import ConfigError
from fast_style.flat_config import MAX_FILE_BYTES
from fast_style.loss_models import LOSS_MODELS, MINI_LAYERS, vgg_layers

ROOT = Path(__file__).parents[1]

# A file as the users of fast-neural-style (2016) have it: 14 keys, comments everywhere.
ANCESTOR_FILE = """\
## The style to learn
style_image: img/{naming}.jpg # a picture of it
naming: "{naming}" # checkpoints and events are found under this name
model_path: models # in this folder: <model_path>/<naming>/

## How much each loss counts
content_weight: 1.0 # likeness to the photo
style_weight: {style_weight} # likeness to the style
tv_weight: 0.0 # smoothness ## off

## Sizes and length of the training
image_size: 256
batch_size: 4
epoch: 2

## The network behind the losses
loss_model: "vgg_16"
content_layers: # compared with the photo
  - "vgg_16/conv3/conv3_3"
style_layers: # compared with the style
  - "vgg_16/conv1/conv1_2"
  - "vgg_16/conv2/conv2_2"
  - "vgg_16/conv3/conv3_3"
  - "vgg_16/conv4/conv4_3"
checkpoint_exclude_scopes: "vgg_16/fc" # not needed, so not read
loss_model_file: "pretrained/vgg_16.ckpt" # its weights
"""
ANCESTOR_STYLES = {
    "candy": ("50.0", 50.0),
    "mosaic": ("100.0", 100.0),
    "cubist": ("180.0", 180.0),
    "udnie": ("200.0", 200.0),
    "feathers": ("220.0", 220.0),
    "wave": ("220.0", 220.0),
    "scream": ("250.0", 250.0),
    "denoised_starry": ("250", 250.0),
}

MINIMAL = {"naming": "candy", "style_image": "candy.jpg", "style_weight": 50.0, "epoch": 2}
TWO_STYLES = [
    {"name": "candy", "image": "candy.jpg", "weight": 50.0},
    {"name": "wave", "image": "wave.jpg", "weight": 220.0},
]


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yml"
    path.write_text(text, encoding="utf-8")
    return path


def changed(**changes: Any) -> dict[str, Any]:
    """The minimal config with changes; a value of `...` removes the key."""
    values = MINIMAL | changes
    return {key: value for key, value in values.items() if value is not ...}


def problems_of(**changes: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        config_from_dict(changed(**changes), "run.yml")
    return caught.value.problems


def file_problems(path: Path, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    assert caught.value.source == str(path)
    return caught.value.problems


def override_problems(path: Path, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    assert caught.value.source == "--set"
    return caught.value.problems


# Files written for the ancestor.


@pytest.mark.parametrize("naming", ANCESTOR_STYLES)
def test_ancestor_file_loads_unchanged(naming: str, tmp_path: Path) -> None:
    written, style_weight = ANCESTOR_STYLES[naming]
    path = write(tmp_path, ANCESTOR_FILE.format(naming=naming, style_weight=written))

    config = load_config(path)

    expected = {
        "style_image": f"img/{naming}.jpg",
        "naming": naming,
        "model_path": "models",
        "content_weight": 1.0,
        "style_weight": style_weight,
        "tv_weight": 0.0,
        "image_size": 256,
        "batch_size": 4,
        "epoch": 2,
        "loss_model": "vgg_16",
        "content_layers": ("vgg_16/conv3/conv3_3",),
        "style_layers": (
            "vgg_16/conv1/conv1_2",
            "vgg_16/conv2/conv2_2",
            "vgg_16/conv3/conv3_3",
            "vgg_16/conv4/conv4_3",
        ),
        "checkpoint_exclude_scopes": "vgg_16/fc",
        "loss_model_file": "pretrained/vgg_16.ckpt",
    }
    assert {key: getattr(config, key) for key in expected} == expected
    assert isinstance(config.style_weight, float)
    assert config == RunConfig(
        naming=naming, style_image=f"img/{naming}.jpg", style_weight=style_weight, epoch=2
    )


def test_keys_beyond_the_ancestors_have_the_documented_defaults() -> None:
    config = config_from_dict(MINIMAL, "run.yml")

    inherited = set(re.findall(r"^(\w+):", ANCESTOR_FILE, re.MULTILINE))
    assert len(inherited) == 14
    ours = {key: value for key, value in config.to_dict().items() if key not in inherited}
    assert ours == {
        "styles": None,
        "style_size": None,
        "dataset": "data/train2014",
        "val_dataset": None,
        "patience_checkpoints": None,
        "small_first": 0.0,
        "mini_first": 0.0,
        "minutes": None,
        "random_crop": False,
        "random_flip": False,
        "steps": None,
        "optimizer": "adam",
        "learning_rate": 0.001,
        "norm_learning_rate": None,
        "learning_rate_schedule": "constant",
        "warmup_steps": 0,
        "gradient_clip": 1.5,
        "grid_weight": 0.0,
        "border_weight": 0.0,
        "consistency_weight": 0.0,
        "arch": "johnson",
        "width": 1.0,
        "precision": "auto",
        "xla": False,
        "init_from": None,
        "seed": 0,
        "log_every_steps": 10,
        "summary_every_steps": 25,
        "checkpoint_every_steps": 1000,
        "keep_checkpoints": 5,
        "preview_image": None,
    }


# The files of this project.


def test_every_config_of_this_project_loads_and_names_its_style() -> None:
    # conf/optimize describes single pictures and has a loader and tests of its own.
    paths = sorted((ROOT / "conf").glob("*.yml"))
    assert {path.stem for path in paths} >= set(ANCESTOR_STYLES)
    for path in paths:
        config = load_config(path)
        assert config.naming == path.stem
        assert config.grid_weight == 500.0
        for style in config.style_specs:
            assert Path(style.image).parent == Path("data/styles"), path
        first_line = path.read_text(encoding="utf-8").splitlines()[0]
        assert f"python train.py -c conf/{path.name}" in first_line


@pytest.mark.parametrize("naming", ANCESTOR_STYLES)
def test_the_picture_of_every_style_is_here(naming: str) -> None:
    (style,) = load_config(ROOT / "conf" / f"{naming}.yml").style_specs
    assert (ROOT / style.image).is_file()


@pytest.mark.parametrize("naming", ANCESTOR_STYLES)
def test_our_style_files_keep_the_ancestors_values_but_the_weight(
    naming: str, tmp_path: Path
) -> None:
    written, _ = ANCESTOR_STYLES[naming]
    ancestor = load_config(
        write(tmp_path, ANCESTOR_FILE.format(naming=naming, style_weight=written))
    )

    ours = load_config(ROOT / "conf" / f"{naming}.yml")

    assert ours == dataclasses.replace(
        ancestor,
        style_image=f"data/styles/{naming}.jpg",
        style_weight=ours.style_weight,
        # How it learns is ours.
        optimizer="muon",
        learning_rate=0.0005,
        learning_rate_schedule="cooldown",
        warmup_steps=20,
        grid_weight=500.0,
        border_weight=20.0,
        init_from=START,
    )


def test_an_hour_by_the_clock_differs_from_the_file_of_its_style_in_how_it_learns() -> None:
    assert load_config(ROOT / "conf" / "hour.yml") == dataclasses.replace(
        load_config(ROOT / "conf" / "wave.yml"),
        naming="hour",
        epoch=None,
        minutes=60.0,
        checkpoint_every_steps=500,
        batch_size=1,
        random_crop=True,
        random_flip=True,
        small_first=0.3,
        mini_first=0.65,
    )


@pytest.mark.parametrize("naming", ANCESTOR_STYLES)
def test_a_style_file_says_where_its_weight_is_not_the_ancestors(naming: str) -> None:
    _, ancestor = ANCESTOR_STYLES[naming]
    path = ROOT / "conf" / f"{naming}.yml"
    (ours,) = load_config(path).style_specs
    second_line = path.read_text(encoding="utf-8").splitlines()[1]

    said = f"style_weight is {ours.weight:g}, not the {ancestor:g} of 2016:"

    assert (said in second_line) == (ours.weight != ancestor)


def test_the_fully_commented_file_shows_every_key() -> None:
    text = (ROOT / "conf" / "candy.yml").read_text(encoding="utf-8")
    shown = re.findall(r"^(?:# )?(\w+):", text, re.MULTILINE)
    assert sorted(shown) == sorted(field.name for field in dataclasses.fields(RunConfig))


# Reading a file.


def test_yaml_numbers_and_words_reach_their_keys(tmp_path: Path) -> None:
    text = "naming: off\nstyle_image: 2001-01-01\nstyle_weight: 1E2\nsteps: 010\n"
    config = load_config(
        write(tmp_path, text + "learning_rate: 1e-3\nrandom_crop: TRUE\nseed: 0x1F")
    )

    assert config.naming == "off"
    assert config.style_image == "2001-01-01"
    assert config.style_weight == 100.0
    assert config.steps == 10
    assert config.learning_rate == 0.001
    assert config.random_crop is True
    assert config.seed == 31


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "run.yml"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(MINIMAL).encode())
    assert load_config(path) == config_from_dict(MINIMAL, "run.yml")


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    assert file_problems(tmp_path / "run.yml") == ("no such file; check the path",)


def test_a_folder_is_no_config(tmp_path: Path) -> None:
    assert file_problems(tmp_path) == ("this is a folder; name a YAML file in it",)


def test_an_unreadable_file_says_why(tmp_path: Path) -> None:
    loop = tmp_path / "run.yml"
    loop.symlink_to(loop)
    (problem,) = file_problems(loop)
    assert re.fullmatch(r"cannot read this file \(.+\); check the path", problem)


def test_a_path_that_cannot_exist_says_why() -> None:
    with pytest.raises(ConfigError, match=r"cannot read this file \(embedded null byte\)"):
        load_config("run\x00.yml")


def test_text_that_is_not_utf8_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "run.yml"
    path.write_bytes("naming: candy\nstyle_image: caf\u00e9.jpg\n".encode("latin-1"))
    assert file_problems(path) == ("line 2: not UTF-8 text; save it as UTF-8",)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path, "#" * (MAX_FILE_BYTES + 1))
    assert file_problems(path) == ("larger than 1,000,000 bytes, so not a config; check the path",)


def test_patience_needs_held_out_photos(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="patience_checkpoints: needs held-out photos"):
        RunConfig(**MINIMAL, patience_checkpoints=3)


@pytest.mark.parametrize(
    "sizes, problem",
    [
        ({"image_size": 62}, "image_size: expected an even number of at least 64 .*, got 62"),
        ({"image_size": 129}, "image_size: expected an even number of at least 64 .*, got 129"),
        ({"style_size": 63}, "style_size: expected at least 64 with small_first, got 63"),
    ],
)
def test_half_the_size_has_to_be_a_size(sizes: dict[str, Any], problem: str) -> None:
    RunConfig(**MINIMAL, **sizes)
    with pytest.raises(ConfigError, match=problem):
        RunConfig(**MINIMAL, **sizes, small_first=0.5)


@pytest.mark.parametrize("text", ["", "# naming: candy\n", "---\n", "null\n"])
def test_an_empty_file_says_so(text: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    assert file_problems(path) == ("this file is empty; add keys such as 'naming: candy'",)


@pytest.mark.parametrize(
    ("text", "got"),
    [("- naming: candy\n- epoch: 2\n", "a list of 2"), ("candy", "'candy'"), ("5", "5")],
)
def test_a_file_without_keys_says_what_it_holds(text: str, got: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    assert file_problems(path) == (f"expected keys and values such as 'naming: candy', got {got}",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("naming: candy\nepoch: 2: 3\n", "line 2: not valid YAML: mapping values are not allowed"),
        ("naming: " + "[" * 3000, "line 1: nested deeper than 20 levels"),
        ("naming: !!python/name:os.system", "line 1: the tag '!!python/name:os.system' is not"),
    ],
)
def test_yaml_mistakes_are_one_sentence_with_the_line(
    text: str, message: str, tmp_path: Path
) -> None:
    (problem,) = file_problems(write(tmp_path, text))
    assert problem.startswith(message)
    assert "\n" not in problem


def test_every_problem_of_a_file_is_reported_at_once(tmp_path: Path) -> None:
    text = """\
style_image: img/mosaic.jpg
style_wieght: 100.0
batch_size: 0
image_size: 256
image_size: 512
epoch: 2
steps: 100
content_layers: [vgg_16/conv3/conv3_9]
"""
    path = write(tmp_path, text)

    with pytest.raises(ConfigError) as caught:
        load_config(path)

    assert str(caught.value).splitlines() == [
        f"{path}: 6 problems",
        "  image_size: given twice, on lines 4 and 5; keep one",
        "  style_wieght: unknown key; did you mean 'style_weight'?",
        "  naming: missing; add this key",
        "  batch_size: expected a whole number of at least 1, got 0",
        "  epoch, steps: expected one of the two, got both; remove one",
        "  content_layers: 'vgg_16/conv3/conv3_9' is not a layer of vgg_16; "
        "did you mean 'vgg_16/conv3/conv3_3'?",
    ]
    assert caught.value.exit_code == 2


# Single keys.


def test_an_unknown_key_suggests_the_one_that_was_meant() -> None:
    assert problems_of(Image_Size=64) == ("Image_Size: unknown key; did you mean 'image_size'?",)


def test_an_unknown_key_like_no_other_lists_the_choices() -> None:
    (problem,) = problems_of(zzz=64)
    assert problem.startswith("zzz: unknown key; choose from naming, style_image, style_weight, ")
    assert all(field.name in problem for field in dataclasses.fields(RunConfig))


def test_a_merge_key_is_an_unknown_key(tmp_path: Path) -> None:
    (problem,) = file_problems(write(tmp_path, json.dumps({**MINIMAL, "<<": {"seed": 1}})))
    assert problem.startswith("<<: unknown key;")


def test_a_misspelt_required_key_is_not_also_missing() -> None:
    assert problems_of(naming=..., namming="x") == ("namming: unknown key; did you mean 'naming'?",)
    assert problems_of(epoch=..., epochs=2) == ("epochs: unknown key; did you mean 'epoch'?",)


def test_every_missing_key_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_dict({}, "run.yml")
    assert caught.value.problems == (
        "naming: missing; add this key",
        "epoch, minutes, steps: expected one of the three, got none; add one such as 'epoch: 2'",
        "style_image: missing; add this key, or 'styles' for several styles",
        "style_weight: missing; add this key, or 'styles' for several styles",
    )


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("batch_size", 0, "expected a whole number of at least 1, got 0"),
        ("batch_size", -4, "expected a whole number of at least 1, got -4"),
        ("batch_size", 4.0, "expected a whole number of at least 1, got 4.0"),
        ("batch_size", "4", "expected a whole number of at least 1, got '4'"),
        ("batch_size", True, "expected a whole number of at least 1, got true"),
        ("batch_size", None, "expected a whole number of at least 1, got nothing"),
        ("batch_size", [4], "expected a whole number of at least 1, got a list of 1"),
        ("batch_size", {"a": 4}, "expected a whole number of at least 1, got a mapping"),
        ("batch_size", 2**31, "expected at most 2147483647, got 2147483648"),
        ("batch_size", 10**400, "expected at most 2147483647, got a number of more than 19 digits"),
        ("image_size", 31, "expected a whole number of at least 32, got 31"),
        ("style_size", 16, "expected a whole number of at least 32, got 16"),
        ("epoch", 0, "expected a whole number of at least 1, got 0"),
        ("epoch", 1.5, "expected a whole number of at least 1, got 1.5"),
        ("seed", -1, "expected a whole number of at least 0, got -1"),
        ("log_every_steps", 0, "expected a whole number of at least 1, got 0"),
        ("summary_every_steps", 0, "expected a whole number of at least 1, got 0"),
        ("checkpoint_every_steps", 0, "expected a whole number of at least 1, got 0"),
        ("keep_checkpoints", 0, "expected a whole number of at least 1, got 0"),
        ("style_weight", -1, "expected a number of at least 0, got -1"),
        ("style_weight", "50", "expected a number of at least 0, got '50'"),
        ("style_weight", False, "expected a number of at least 0, got false"),
        ("style_weight", float("inf"), "expected a finite number of at least 0, got .inf"),
        ("content_weight", float("nan"), "expected a finite number of at least 0, got .nan"),
        ("consistency_weight", -1, "expected a number of at least 0, got -1"),
        ("grid_weight", -1, "expected a number of at least 0, got -1"),
        ("border_weight", -1, "expected a number of at least 0, got -1"),
        ("tv_weight", float("-inf"), "expected a finite number of at least 0, got -.inf"),
        ("tv_weight", 10**400, "expected a number of at least 0, got a number of more than 19"),
        ("learning_rate", 0, "expected a number above 0, got 0"),
        ("norm_learning_rate", 0.0, "expected a number above 0, got 0.0"),
        ("gradient_clip", 0.0, "expected a number above 0, got 0.0"),
        ("width", 0, "expected a number from 0.03125 to 8, got 0"),
        ("width", 9.5, "expected a number from 0.03125 to 8, got 9.5"),
        ("random_crop", 1, "expected true or false, got 1"),
        ("random_flip", "off", "expected true or false, got 'off'"),
        ("dataset", "", "expected a path, got ''"),
        ("dataset", None, "expected text, got nothing"),
        ("dataset", 2014, "expected text, got 2014; put it in quotes"),
        ("model_path", "a\x00b", "expected text without control characters, got 'a\\x00b'"),
        ("loss_model_file", "\ud800", "expected text without control characters, got '\\ud800'"),
        ("checkpoint_exclude_scopes", ["vgg_16/fc"], "expected text, got a list of 1"),
        ("arch", "jonson", "expected one of johnson, slim2016, got 'jonson'; did you mean 'johns"),
        ("precision", 16, "expected one of auto, float32, bfloat16, got 16"),
        ("precision", "x", "expected one of auto, float32, bfloat16, got 'x'"),
        ("content_layers", [], "expected a list of one or more layer names, got an empty list"),
        ("style_layers", "conv1", "expected a list of one or more layer names, got 'conv1'"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(key: str, value: Any, expected: str) -> None:
    (problem,) = problems_of(**{key: value})
    assert problem.startswith(f"{key}: {expected}")


def test_long_and_odd_values_stay_one_short_line() -> None:
    (problem,) = problems_of(arch="x\n" * 500)
    assert len(problem) < 200
    assert "\n" not in problem


def test_whole_numbers_are_stored_as_floats_where_floats_are_wanted() -> None:
    config = config_from_dict(changed(style_weight=250, width=2, content_weight=0), "run.yml")

    values = (config.style_weight, config.width, config.content_weight)
    assert values == (250.0, 2.0, 0.0)
    assert [type(value) for value in values] == [float, float, float]


@pytest.mark.parametrize("naming", ["candy", "denoised_starry", "v1.5-b (2)", "c++", "星月夜", "_"])
def test_naming_accepts_plain_names(naming: str) -> None:
    assert RunConfig(**changed(naming=naming)).run_folder == Path("models") / naming


@pytest.mark.parametrize(
    "naming",
    ["", ".", "..", "../x", "a/b", "a\\b", "/a", ".hidden", "-o", "a.", "a ", " a", "a\n", "a\x00"]
    + ["a*", "a?", "a[1]", "a:b", "~", "\ud800", "x" * 101, "é" * 51],
)
def test_naming_refuses_what_is_no_plain_name(naming: str) -> None:
    (problem,) = problems_of(naming=naming)
    assert problem.startswith("naming: expected a plain name (letters, digits, '_', '-', '.', no")


def test_naming_asks_for_quotes_around_a_number() -> None:
    assert problems_of(naming=42) == ("naming: expected text, got 42; put it in quotes",)


# Rules over several keys.


def test_two_lengths_are_refused_and_three() -> None:
    assert problems_of(steps=100) == (
        "epoch, steps: expected one of the two, got both; remove one",
    )
    assert problems_of(minutes=60) == (
        "epoch, minutes: expected one of the two, got both; remove one",
    )
    assert problems_of(steps=100, minutes=60) == (
        "epoch, minutes, steps: expected one of the three, got all; remove two",
    )


def test_no_length_is_refused() -> None:
    expected = (
        "epoch, minutes, steps: expected one of the three, got none; add one such as 'epoch: 2'"
    )
    assert problems_of(epoch=...) == (expected,)
    assert problems_of(epoch=None, steps=None) == (expected,)


@pytest.mark.parametrize("minutes", [0, -1.0, math.inf, "60"])
def test_minutes_are_a_number_above_nothing(minutes: Any) -> None:
    (problem,) = problems_of(epoch=..., minutes=minutes)
    assert problem.startswith("minutes: expected a ") and "number above 0, got " in problem


def test_minutes_take_the_place_of_the_length_in_the_file(candy: Path) -> None:
    config = load_config(candy, ["minutes=1.5"])
    assert (config.epoch, config.steps, config.minutes) == (None, None, 1.5)


def test_vgg_mini_comes_first_only_before_what_it_reports() -> None:
    assert config_from_dict(changed(mini_first=0.5), "run.yml").mini_first == 0.5
    layers = {"content_layers": ["vgg_19/conv3/conv3_3"], "style_layers": ["vgg_19/conv3/conv3_3"]}
    assert problems_of(mini_first=0.5, loss_model="vgg_19", **layers) == (
        "mini_first: vgg_mini reports the losses of vgg_16, and loss_model is vgg_19; "
        "set mini_first to 0 or choose vgg_16",
    )


def test_vgg_mini_comes_first_only_with_layers_that_it_has() -> None:
    layers = ["vgg_16/conv1/conv1_2", "vgg_16/conv4/conv4_2"]
    assert problems_of(mini_first=0.5, style_layers=layers) == (
        "mini_first: vgg_mini does not have 'vgg_16/conv4/conv4_2' of style_layers, but "
        f"{', '.join(MINI_LAYERS)}; choose from these or set mini_first to 0",
    )
    assert config_from_dict(changed(mini_first=0, style_layers=layers), "run.yml").mini_first == 0


def test_overriding_the_loss_model_drops_what_comes_before_it(tmp_path: Path) -> None:
    path = write(tmp_path, json.dumps(changed(mini_first=0.5)))
    assert load_config(path).mini_first == 0.5
    assert load_config(path, ["loss_model=vgg_mini"]).mini_first == 0.0
    assert load_config(path, ["loss_model=vgg_16", "mini_first=0.2"]).mini_first == 0.2


def test_slim2016_takes_one_width_and_one_style() -> None:
    assert config_from_dict(changed(arch="slim2016", width=1), "run.yml").width == 1.0
    assert problems_of(arch="slim2016", width=0.5) == (
        "width: expected 1.0 for arch slim2016, got 0.5; remove it or choose arch johnson",
    )
    assert problems_of(arch="slim2016", norm_learning_rate=0.01) == (
        "norm_learning_rate: the norms of arch slim2016 have no weights; "
        "remove it or choose arch johnson",
    )
    many = {"arch": "slim2016", "style_image": ..., "style_weight": ..., "styles": TWO_STYLES}
    assert problems_of(**many) == (
        "styles: expected one style for arch slim2016, got 2; "
        "remove the others or choose arch johnson",
    )
    one = many | {"styles": TWO_STYLES[:1]}
    assert len(config_from_dict(changed(**one), "run.yml").style_specs) == 1


# Layers.


def test_vgg_layers_are_named_in_order() -> None:
    assert vgg_layers("vgg_a") == (
        "vgg_a/conv1/conv1_1",
        "vgg_a/pool1",
        "vgg_a/conv2/conv2_1",
        "vgg_a/pool2",
        "vgg_a/conv3/conv3_1",
        "vgg_a/conv3/conv3_2",
        "vgg_a/pool3",
        "vgg_a/conv4/conv4_1",
        "vgg_a/conv4/conv4_2",
        "vgg_a/pool4",
        "vgg_a/conv5/conv5_1",
        "vgg_a/conv5/conv5_2",
        "vgg_a/pool5",
    )
    assert len(vgg_layers("vgg_16")) == 13 + 5
    assert len(vgg_layers("vgg_19")) == 16 + 5


def test_an_unknown_loss_model_suggests_a_known_one() -> None:
    assert len(LOSS_MODELS) == 17
    (problem,) = problems_of(loss_model="vgg16")
    assert problem.startswith("loss_model: expected one of vgg_16, vgg_19, vgg_a, vgg_mini,")
    assert problem.endswith("got 'vgg16'; did you mean 'vgg_16'?")


def test_another_loss_model_asks_for_its_own_layers() -> None:
    problems = problems_of(loss_model="vgg_19", style_layers=["vgg_19/conv1/conv1_1"])
    assert problems == (
        "content_layers: 'vgg_16/conv3/conv3_3' is a layer of vgg_16 but loss_model is vgg_19; "
        "did you mean 'vgg_19/conv3/conv3_3'?",
    )
    problems = problems_of(loss_model="resnet_v1_50", style_layers=["resnet_v1_50/conv1"])
    assert problems == (
        "content_layers: 'vgg_16/conv3/conv3_3' is a layer of vgg_16 but loss_model is "
        "resnet_v1_50; name layers of that network",
    )


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("conv3_3", "is not a layer of vgg_16; did you mean 'vgg_16/conv3/conv3_3'?"),
        ("pool2", "is not a layer of vgg_16; did you mean 'vgg_16/pool2'?"),
        ("conv3/conv3_3", "is not a layer of vgg_16; did you mean 'vgg_16/conv3/conv3_3'?"),
        ("vgg_16/conv3/conv3_4", "is not a layer of vgg_16; did you mean 'vgg_16/conv3/conv3_3'?"),
        (
            "zzz",
            "is not a layer of vgg_16; choose from vgg_16/conv1/conv1_1, vgg_16/conv1/conv1_2,",
        ),
    ],
)
def test_a_layer_that_a_vgg_lacks_is_named_with_the_nearest(layer: str, expected: str) -> None:
    (problem,) = problems_of(content_layers=[layer])
    assert problem.startswith(f"content_layers: '{layer}' {expected}")


def test_layers_of_other_networks_are_left_to_the_loss_network() -> None:
    layers = ["Conv2d_2c_3x3", "Mixed_3b"]
    config = config_from_dict(
        changed(loss_model="inception_v1", content_layers=layers, style_layers=layers), "run.yml"
    )
    assert config.content_layers == ("Conv2d_2c_3x3", "Mixed_3b")


def test_layers_are_text_and_not_repeated() -> None:
    assert problems_of(style_layers=["vgg_16/pool1", 3, "vgg_16/pool1"]) == (
        "style_layers[1]: expected text, got 3; put it in quotes",
        "style_layers[2]: 'vgg_16/pool1' is listed twice; keep one",
    )


# Styles.


def test_several_styles_keep_their_order(tmp_path: Path) -> None:
    text = """\
naming: pair
steps: 100
styles:
  - {name: candy, image: candy.jpg, weight: 50}
  - name: wave
    image: wave.jpg
    weight: 2.2e2
"""
    config = load_config(write(tmp_path, text))

    assert config.style_specs == (
        StyleSpec("candy", "candy.jpg", 50.0),
        StyleSpec("wave", "wave.jpg", 220.0),
    )
    assert config.styles == config.style_specs


def test_a_single_style_carries_the_name_of_the_run() -> None:
    config = config_from_dict(MINIMAL, "run.yml")
    assert config.style_specs == (StyleSpec(name="candy", image="candy.jpg", weight=50.0),)


def test_styles_exclude_the_keys_of_a_single_style() -> None:
    assert problems_of(styles=TWO_STYLES) == (
        "style_image: not allowed beside 'styles'; remove one of the two",
        "style_weight: not allowed beside 'styles'; remove one of the two",
    )


def test_every_problem_of_a_list_of_styles_is_named_with_its_place() -> None:
    styles = [
        {"name": "a/b", "image": "", "weight": -1},
        "candy",
        {"name": "wave", "weigth": 220.0, "image": "wave.jpg"},
        {"name": "WAVE", "image": "wave.jpg", "weight": 1},
        {"name": "udnie"},
    ]
    problems = problems_of(style_image=..., style_weight=..., styles=styles)

    assert problems[0].startswith("styles[0].name: expected a plain name")
    assert problems[1:] == (
        "styles[0].image: expected a path, got ''",
        "styles[0].weight: expected a number of at least 0, got -1",
        "styles[1]: expected {name, image, weight}, got 'candy'",
        "styles[2].weigth: unknown key; did you mean 'weight'?",
        "styles[3].name: 'WAVE' is used twice; rename one",
        "styles[4].image: missing; add this key",
        "styles[4].weight: missing; add this key",
    )


@pytest.mark.parametrize(("styles", "got"), [([], "an empty list"), ("candy", "'candy'")])
def test_styles_are_a_list_of_at_least_one(styles: Any, got: str) -> None:
    assert problems_of(style_image=..., style_weight=..., styles=styles) == (
        f"styles: expected a list of one or more {{name, image, weight}}, got {got}",
    )


# Overrides.


@pytest.fixture
def candy(tmp_path: Path) -> Path:
    return write(tmp_path, ANCESTOR_FILE.format(naming="candy", style_weight="50.0"))


def test_overrides_take_the_place_of_the_files_values(candy: Path) -> None:
    overrides = ["style_weight=80", "learning_rate = 1e-4", "random_crop=true", "dataset=a=b.zip"]
    overrides += ["style_layers=[vgg_16/pool1, vgg_16/pool2]", "naming=off", "seed=1", "seed=010"]

    config = load_config(candy, overrides)

    assert config == dataclasses.replace(
        load_config(candy),
        style_weight=80.0,
        learning_rate=1e-4,
        random_crop=True,
        dataset="a=b.zip",
        style_layers=("vgg_16/pool1", "vgg_16/pool2"),
        naming="off",
        seed=10,
    )


def test_an_override_without_a_value_unsets_an_optional_key(tmp_path: Path) -> None:
    path = write(tmp_path, json.dumps(MINIMAL | {"val_dataset": "photos"}))
    assert load_config(path, ["val_dataset="]).val_dataset is None


def test_overriding_steps_drops_the_epoch_of_the_file_and_the_other_way_round(
    candy: Path, tmp_path: Path
) -> None:
    config = load_config(candy, ["steps=300"])
    assert (config.epoch, config.steps) == (None, 300)

    config = load_config(candy, ["steps="])
    assert (config.epoch, config.steps) == (2, None)

    by_steps = write(tmp_path, json.dumps(changed(epoch=..., steps=9)))
    config = load_config(by_steps, ["epoch=1"])
    assert (config.epoch, config.steps) == (1, None)


def test_overriding_both_epoch_and_steps_is_refused(candy: Path) -> None:
    assert override_problems(candy, "epoch=1", "steps=2") == (
        "epoch, steps: expected one of the two, got both; remove one",
    )


def test_overriding_styles_drops_the_single_style_of_the_file(candy: Path) -> None:
    config = load_config(candy, ["styles=[{name: wave, image: w.jpg, weight: 220}]"])
    assert config.style_specs == (StyleSpec("wave", "w.jpg", 220.0),)
    assert (config.style_image, config.style_weight) == (None, None)


def test_overriding_the_style_picture_drops_the_styles_of_the_file(tmp_path: Path) -> None:
    values = changed(style_image=..., style_weight=..., styles=TWO_STYLES)
    path = write(tmp_path, json.dumps(values))

    config = load_config(path, ["style_image=w.jpg", "style_weight=220"])

    assert config.style_specs == (StyleSpec("candy", "w.jpg", 220.0),)
    assert override_problems(path, "style_image=w.jpg") == (
        "style_weight: missing; add this key, or 'styles' for several styles",
    )


def test_overriding_the_arch_drops_the_rate_of_norms_of_the_file(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "naming: a\nstyle_image: s.jpg\nstyle_weight: 1\nsteps: 3\nnorm_learning_rate: 0.01\n",
    )
    assert load_config(path, ["arch=slim2016"]).norm_learning_rate is None
    assert load_config(path, ["arch=johnson"]).norm_learning_rate == 0.01  # What it is anyway.


def test_a_net_of_another_shape_starts_afresh(tmp_path: Path) -> None:
    def load(init_from: str, *changes: str) -> str | None:
        text = f"naming: a\nstyle_image: s.jpg\nstyle_weight: 1\nsteps: 3\ninit_from: {init_from}\n"
        return load_config(write(tmp_path, text), changes).init_from

    for change in ("arch=slim2016", "width=0.5"):
        assert load(START, change) is None
        assert load(START, change, "init_from=y") == "y"
        assert load("mine", change) == "mine"  # Perhaps it is of that shape.
    assert load(START, "width=1.0", "arch=johnson") == START


def test_overriding_the_loss_model_with_what_it_is_keeps_its_file(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "naming: a\nstyle_image: s.jpg\nstyle_weight: 1\nsteps: 3\nloss_model_file: mine.npz\n",
    )
    assert load_config(path, ["loss_model=vgg_16"]).loss_model_file == "mine.npz"
    assert load_config(path, ["loss_model=vgg_mini"]).loss_model_file != "mine.npz"


def test_wrong_overrides_are_reported_under_their_own_name(candy: Path) -> None:
    assert override_problems(
        candy,
        "steps 300",
        "=3",
        "tv_weight=[1",
        "style_wieght=80",
        "batch_size=0",
        "seed={a: 1, a: 2}",
    ) == (
        "expected key=value such as 'steps=300', got 'steps 300'",
        "expected key=value such as 'steps=300', got '=3'",
        "tv_weight: not valid YAML: while parsing a flow sequence, "
        "expected ',' or ']', but got '<stream end>'",
        "seed: a: given twice, on lines 1 and 1; keep one",
        "style_wieght: unknown key; did you mean 'style_weight'?",
        "batch_size: expected a whole number of at least 1, got 0",
        "seed: expected a whole number of at least 0, got a mapping",
    )


def test_an_override_that_contradicts_the_file_is_the_overrides_problem(tmp_path: Path) -> None:
    path = write(tmp_path, json.dumps(changed(width=0.5)))
    assert override_problems(path, "arch=slim2016") == (
        "width: expected 1.0 for arch slim2016, got 0.5; remove it or choose arch johnson",
    )


def test_an_override_mends_the_value_that_it_replaces(tmp_path: Path) -> None:
    path = write(tmp_path, "naming: candy\nstyle_image: c.jpg\nbatch_size: 0\nepoch: two\n")
    config = load_config(path, ["style_weight=50", "batch_size=1", "steps=5"])
    assert (config.style_weight, config.batch_size, config.steps) == (50.0, 1, 5)


def test_problems_of_the_file_and_of_the_overrides_come_together(tmp_path: Path) -> None:
    path = write(tmp_path, json.dumps(changed(seed=-1)))
    assert file_problems(path, "batch_size=0", "steps") == (
        "seed: expected a whole number of at least 0, got -1",
        "--set expected key=value such as 'steps=300', got 'steps'",
        "--set batch_size: expected a whole number of at least 1, got 0",
    )


# Building, changing and writing configs.


def test_a_config_cannot_be_changed() -> None:
    config = config_from_dict(MINIMAL, "run.yml")
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'seed'"):
        config.seed = 1  # pyright: ignore[reportAttributeAccessIssue]


def test_a_config_built_in_python_is_checked_too() -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig(**changed(batch_size=0, arch="slim2016", width=2))
    assert str(caught.value).splitlines() == [
        "RunConfig: 2 problems",
        "  batch_size: expected a whole number of at least 1, got 0",
        "  width: expected 1.0 for arch slim2016, got 2.0; remove it or choose arch johnson",
    ]


ROUND_TRIPS = {
    "one style": MINIMAL,
    "two styles": changed(style_image=..., style_weight=..., styles=TWO_STYLES),
    "every key": changed(
        epoch=...,
        steps=40_000,
        style_size=384,
        learning_rate=1e-05,
        tv_weight=1e-20,
        consistency_weight=25,
        grid_weight=500,
        border_weight=20,
        content_weight=1e22,
        precision="bfloat16",
        val_dataset="val",
        preview_image="p.jpg",
        init_from="models/x",
        random_crop=True,
        random_flip=True,
        width=0.25,
    ),
    "text like other things": changed(
        naming="1e-3",
        dataset="off",
        model_path="~",
        val_dataset="null",
        preview_image="a: b # c",
        init_from="- 'x' \"y\" \\",
        style_image=" \u00e9 \u661f \U0001f58c \u00a0 \u2028 \x85 \ufeff ",
        checkpoint_exclude_scopes="",
    ),
}


@pytest.mark.parametrize("values", ROUND_TRIPS.values(), ids=ROUND_TRIPS)
def test_a_config_survives_plain_values_json_and_yaml(
    values: dict[str, Any], tmp_path: Path
) -> None:
    config = config_from_dict(values, "run.yml")

    assert list(config.to_dict()) == [field.name for field in dataclasses.fields(RunConfig)]
    assert config_from_dict(config.to_dict(), "again") == config
    assert config_from_dict(json.loads(json.dumps(config.to_dict())), "again") == config
    text = config_to_yaml(config)
    assert load_config(write(tmp_path, text)) == config
    assert re.findall(r"^(\w+):", text, re.MULTILINE) == list(config.to_dict())
    assert hash(config) == hash(config_from_dict(config.to_dict(), "again"))


def test_checking_leaves_the_mapping_as_it_was() -> None:
    values = changed(style_layers=["vgg_16/pool1"], style_weight=50)
    config_from_dict(values, "run.yml")
    assert values == changed(style_layers=["vgg_16/pool1"], style_weight=50)
    assert type(values["style_weight"]) is int


def test_importing_the_config_does_not_import_tensorflow() -> None:
    code = "import sys, fast_style.config; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
