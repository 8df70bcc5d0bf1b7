"""Configs of optimized pictures: the files of this project, strictness, rules."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from fast_style import picture_loss
from fast_style.errors import ConfigError
from fast_style.optimize_config import (
    NORMALIZATIONS,
    TV_FORMS,
    OptimizeConfig,
    load_optimize_config,
    optimize_config_to_yaml,
)

CONF = Path(__file__).parents[1] / "conf"
FILES = sorted((CONF / "optimize").glob("*.yml"))

VGG19_STYLE_LAYERS = tuple(f"vgg_19/conv{block}/conv{block}_1" for block in range(1, 6))


def problems_of(*overrides: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_optimize_config(None, overrides)
    assert caught.value.source == "--set"
    return caught.value.problems


def test_every_file_of_this_project_loads() -> None:
    assert {path.stem for path in FILES} == {
        "default",
        "keras_vgg19",
        "tf2_vgg19",
        "matconvnet_vgg19",
    }
    for path in FILES:
        load_optimize_config(path)
        first_line = path.read_text(encoding="utf-8").splitlines()[0]
        assert first_line.startswith("# python -m fast_style optimize "), path


def test_every_config_file_has_a_loader() -> None:
    known = {*CONF.glob("*.yml"), *FILES, CONF / "distill/vgg_mini.yml"}
    assert {*CONF.rglob("*.yml")} == known


def test_every_formula_is_a_choice_of_the_config() -> None:
    assert NORMALIZATIONS == tuple(picture_loss.NORMALIZATIONS)
    assert TV_FORMS == tuple(picture_loss.TV_FORMS)


def test_the_default_file_says_the_defaults_and_every_key() -> None:
    path = CONF / "optimize" / "default.yml"
    assert load_optimize_config(path) == OptimizeConfig()
    shown = re.findall(r"^(?:# )?(\w+):", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(shown) == sorted(field.name for field in dataclasses.fields(OptimizeConfig))


def test_the_keras_recipe_is_as_published() -> None:
    config = load_optimize_config(CONF / "optimize" / "keras_vgg19.yml")
    assert (config.start, config.size, config.size_side) == ("content", 400, "height")
    assert (config.optimizer, config.learning_rate, config.steps) == ("sgd", 100.0, 10_000)
    assert (config.decay_rate, config.decay_every_steps) == (0.96, 100)
    assert (config.content_weight, config.style_weight, config.tv_weight) == (2.5e-8, 1e-6, 1e-6)
    assert (config.normalization, config.tv_form, config.pooling) == ("keras", "power", "max")
    assert config.content_layers == ("vgg_19/conv5/conv5_2",)
    assert config.style_layers == VGG19_STYLE_LAYERS
    assert (config.save_every_steps, config.scales) == (100, 1)


def test_the_tf2_recipe_is_as_published() -> None:
    config = load_optimize_config(CONF / "optimize" / "tf2_vgg19.yml")
    assert (config.start, config.size, config.size_side) == ("content", 512, "long_side")
    assert (config.optimizer, config.learning_rate) == ("adam", 0.02)
    assert (config.adam_beta_1, config.adam_beta_2, config.adam_epsilon) == (0.99, 0.999, 0.1)
    assert (config.pixel_range, config.clip_each_step) == (1.0, True)
    assert (config.content_weight, config.style_weight, config.tv_weight) == (1e4, 1e-2, 0.0)
    assert (config.normalization, config.pooling, config.scales) == ("tf2", "max", 1)
    assert config.content_layers == ("vgg_19/conv5/conv5_2",)
    assert config.style_layers == VGG19_STYLE_LAYERS


def test_the_matconvnet_recipe_is_as_published() -> None:
    config = load_optimize_config(CONF / "optimize" / "matconvnet_vgg19.yml")
    assert (config.start, config.size, config.style_fit) == ("content", None, "width")
    assert (config.optimizer, config.learning_rate, config.steps) == ("adam", 10.0, 1000)
    assert (config.content_weight, config.style_weight, config.tv_weight) == (5.0, 500.0, 100.0)
    assert (config.normalization, config.tv_form, config.pooling) == ("matconvnet", "l2", "avg")
    assert config.content_layers == ("vgg_19/conv4/conv4_2", "vgg_19/conv5/conv5_2")
    assert config.content_weight_blend == 1.0
    assert config.style_layers == VGG19_STYLE_LAYERS
    assert config.style_layer_weights == (0.2,) * 5


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_written_and_read_again_a_config_is_the_same(path: Path, tmp_path: Path) -> None:
    config = load_optimize_config(path)
    copy = tmp_path / "copy.yml"
    copy.write_text(optimize_config_to_yaml(config), encoding="utf-8")
    assert load_optimize_config(copy) == config


def test_overrides_replace_what_the_file_says_and_keep_the_rest() -> None:
    path = CONF / "optimize" / "keras_vgg19.yml"
    changed = load_optimize_config(path, ["steps=300", "content_layers=[vgg_19/conv3/conv3_2]"])
    expected = dataclasses.replace(
        load_optimize_config(path), steps=300, content_layers=("vgg_19/conv3/conv3_2",)
    )
    assert changed == expected


def test_values_are_checked_on_construction_too() -> None:
    assert OptimizeConfig(content_weight=2).content_weight == 2.0
    wrong: dict[str, Any] = {"steps": 0}
    with pytest.raises(ConfigError, match="OptimizeConfig: 1 problem\n  steps: expected a whole"):
        OptimizeConfig(**wrong)


def test_all_problems_of_a_file_are_reported_together(tmp_path: Path) -> None:
    path = tmp_path / "bad.yml"
    path.write_text("stepz: 3\noptimizer: adm\nsize: 16\nsize: 20\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_optimize_config(path)
    assert caught.value.source == str(path)
    assert caught.value.problems == (
        "size: given twice, on lines 3 and 4; keep one",
        "stepz: unknown key; did you mean 'steps'?",
        "size: expected a whole number of at least 32, got 20",
        "optimizer: expected one of adam, lbfgs, sgd, got 'adm'; did you mean 'adam'?",
    )


def test_an_empty_file_is_told_what_it_could_hold(tmp_path: Path) -> None:
    path = tmp_path / "empty.yml"
    path.touch()
    with pytest.raises(ConfigError, match="this file is empty; add keys such as 'steps: 100'"):
        load_optimize_config(path)


WRONG = {
    "pixel_range=2": "pixel_range: expected 255 or 1, got 2",
    "pixel_range=true": "pixel_range: expected 255 or 1, got true",
    "style_layer_weights=3": "style_layer_weights: expected a list of one or more numbers, got 3",
    "style_layer_weights=[1,-1,1,1]": "style_layer_weights[1]: expected a number of at least 0, "
    "got -1",
    "style_layer_weights=[1,2]": "style_layer_weights: expected 4 numbers, one per style layer, "
    "got 2; change them, or write null for the normalization's own",
    "style_layer_weights=[0,0,0,0]": "style_layer_weights: all are 0; for no style, set "
    "'style_weight: 0'",
    "content_weight_blend=0.5": "content_weight_blend: expected two content layers to blend, got "
    "1; name two, or set content_weight_blend to null",
    "content_weight_blend=1.5": "content_weight_blend: expected a number from 0 to 1, got 1.5",
    "normalization=keras": "style_fit: expected stretch, with style_scale 1.0, for normalization "
    "keras, whose Gram matrices are sums over all pixels and compare only between pictures of one "
    "size",
    "content_layers=[vgg_16/conv9]": "content_layers: 'vgg_16/conv9' is not a layer of vgg_16; did "
    "you mean 'vgg_16/conv5/conv5_3'?",
    "learning_rate=0": "learning_rate: expected a number above 0, got 0",
    "start=photo": "start: expected one of content, noise, got 'photo'",
}


@pytest.mark.parametrize("override", WRONG)
def test_wrong_values_are_one_sentence(override: str) -> None:
    assert problems_of(override) == (WRONG[override],)


def test_noise_and_a_picture_cannot_both_be_the_start() -> None:
    assert problems_of("start=noise", "start_image=x.png") == (
        "start_image: not allowed beside 'start: noise'; remove one of the two",
    )


def test_average_pooling_is_for_the_vggs() -> None:
    problems = problems_of(
        "loss_model=alexnet_v2",
        "pooling=avg",
        "content_layers=[alexnet_v2/conv3]",
        "style_layers=[alexnet_v2/conv1]",
        "style_layer_weights=null",
    )
    assert problems == ("pooling: 'avg' is for the VGGs; alexnet_v2 keeps its own pooling",)
