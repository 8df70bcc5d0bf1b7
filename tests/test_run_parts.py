from __future__ import annotations

from typing import Any

import pytest

from fast_style.config import RunConfig, StyleSpec
from fast_style.run_parts import at_image_size, run_parts

ONE_STYLE = {"style_image": "candy.jpg", "style_weight": 20.0}
TWO_STYLES = {"styles": (StyleSpec("candy", "c.jpg", 20.0), StyleSpec("wave", "w.jpg", 220.0))}


def config(**keys: Any) -> RunConfig:
    return RunConfig(naming="run", **{"image_size": 128, "steps": 10, **ONE_STYLE, **keys})


def test_a_run_without_anything_quick_first_has_one_part() -> None:
    run = config()
    (part,) = run_parts(run)
    assert part.config is run
    assert (part.until, part.cost) == (1.0, 1.0)


def test_small_pictures_take_their_share_of_the_steps() -> None:
    run = config(small_first=0.75, style_size=301)
    small, whole = run_parts(run)
    assert (small.until, whole.until) == (0.75, 1.0)
    assert (small.config.image_size, small.config.style_size) == (64, 150)
    assert small.config.style_weight == 5.0
    assert whole.config is run


def test_half_the_size_may_be_smaller_than_any_that_can_be_halved() -> None:
    small, whole = run_parts(config(image_size=64, small_first=0.5))
    assert (small.config.image_size, whole.config.image_size) == (32, 64)


def test_all_steps_can_be_on_small_pictures() -> None:
    (small,) = run_parts(config(small_first=1.0))
    assert (small.config.image_size, small.until) == (64, 1.0)


@pytest.mark.parametrize(
    ("small_first", "mini_first", "wanted"),
    [
        (0.0, 0.5, [(128, "vgg_mini", 0.5), (128, "vgg_16", 1.0)]),
        (0.5, 0.5, [(64, "vgg_mini", 0.5), (128, "vgg_16", 1.0)]),
        (0.3, 0.7, [(64, "vgg_mini", 0.3), (128, "vgg_mini", 0.7), (128, "vgg_16", 1.0)]),
        (0.7, 0.3, [(64, "vgg_mini", 0.3), (64, "vgg_16", 0.7), (128, "vgg_16", 1.0)]),
        (1.0, 0.4, [(64, "vgg_mini", 0.4), (64, "vgg_16", 1.0)]),
        (0.4, 1.0, [(64, "vgg_mini", 0.4), (128, "vgg_mini", 1.0)]),
    ],
)
def test_both_kinds_of_quick_steps_have_their_share(
    small_first: float, mini_first: float, wanted: list[tuple[int, str, float]]
) -> None:
    keys = {"small_first": small_first, "mini_first": mini_first}
    parts = run_parts(config(**keys, loss_model_file="vgg.ckpt"))
    found = [(part.config.image_size, part.config.loss_model, part.until) for part in parts]
    assert found == wanted
    for part in parts:
        judge = "pretrained/vgg_mini.safetensors"
        if part.config.loss_model == "vgg_16":
            judge = "vgg.ckpt"
        assert part.config.loss_model_file == judge
    costs = [part.cost for part in parts]
    assert costs == sorted(costs) and len(set(costs)) == len(costs)


def test_each_of_several_styles_keeps_its_share() -> None:
    keys = {**TWO_STYLES, "style_image": None, "style_weight": None}
    small, _ = run_parts(config(small_first=0.5, **keys))
    assert [style.weight for style in small.config.style_specs] == [5.0, 55.0]
    assert [style.name for style in small.config.style_specs] == ["candy", "wave"]
    assert small.config.style_size is None


def test_a_style_weight_changes_with_the_area() -> None:
    run = config(style_size=300)
    larger = at_image_size(run, 192)
    assert (larger.image_size, larger.style_size, larger.style_weight) == (192, 450, 45.0)
    assert at_image_size(larger, 128) == run
