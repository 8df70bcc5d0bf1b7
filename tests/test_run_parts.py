from __future__ import annotations

from typing import Any

import pytest

from fast_style.config import RunConfig, StyleSpec
from fast_style.run_parts import at_image_size, run_parts

ONE_STYLE = {"style_image": "candy.jpg", "style_weight": 20.0}
TWO_STYLES = {"styles": (StyleSpec("candy", "c.jpg", 20.0), StyleSpec("wave", "w.jpg", 220.0))}


def config(**keys: Any) -> RunConfig:
    return RunConfig(naming="run", **{"image_size": 128, "steps": 10, **ONE_STYLE, **keys})


@pytest.mark.parametrize("small_first", [0.0, 0.04])
def test_a_run_without_small_pictures_has_one_part(small_first: float) -> None:
    run = config(small_first=small_first)
    (part,) = run_parts(run, 10)
    assert part.config is run
    assert part.stop_step == 10


def test_small_pictures_take_their_share_of_the_steps() -> None:
    run = config(small_first=0.75, style_size=301)
    small, whole = run_parts(run, 1000)
    assert (small.stop_step, whole.stop_step) == (750, 1000)
    assert (small.config.image_size, small.config.style_size) == (64, 150)
    assert small.config.style_weight == 5.0
    assert whole.config is run


def test_half_the_size_may_be_smaller_than_any_that_can_be_halved() -> None:
    small, whole = run_parts(config(image_size=64, small_first=0.5), 10)
    assert (small.config.image_size, whole.config.image_size) == (32, 64)


def test_all_steps_can_be_on_small_pictures() -> None:
    small, whole = run_parts(config(small_first=1.0), 7)
    assert small.stop_step == whole.stop_step == 7


def test_each_of_several_styles_keeps_its_share() -> None:
    keys = {**TWO_STYLES, "style_image": None, "style_weight": None}
    small, _ = run_parts(config(small_first=0.5, **keys), 10)
    assert [style.weight for style in small.config.style_specs] == [5.0, 55.0]
    assert [style.name for style in small.config.style_specs] == ["candy", "wave"]
    assert small.config.style_size is None


def test_a_style_weight_changes_with_the_area() -> None:
    run = config(style_size=300)
    larger = at_image_size(run, 192)
    assert (larger.image_size, larger.style_size, larger.style_weight) == (192, 450, 45.0)
    assert at_image_size(larger, 128) == run
