"""What is quick comes first: the parts of a run, on pictures of two sizes, by two loss networks.

What a net has to learn first is not in the details. Pictures of half the size take a third of the
time, and the small loss network half of it; docs/quality.md measures what it is worth to begin
with them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fast_style.config import RunConfig
from fast_style.loss_models import MINI

# The time of a step on pictures of half the size, or with the small loss network, as a share of
# the time without: measured with one photo a step on one core with avx512_bf16.
_COST_OF_SMALL, _COST_OF_MINI = 0.33, 0.54


@dataclass(frozen=True)
class RunPart:
    """A part of a run.

    Attributes:
      config: The run's configuration, but with the sizes, style weights and loss network of this
        part.
      until: The share of the run at which it ends.
      cost: The time of a step, roughly, as a share of that of one on pictures of the whole size
        with the run's own loss network.
    """

    config: RunConfig
    until: float
    cost: float = 1.0


def run_parts(config: RunConfig) -> tuple[RunPart, ...]:
    """Returns the parts of a run in order; without `small_first` and `mini_first` there is one.

    Args:
      config: The run.
    """
    parts = []
    for _, until, small, mini in spans(config.small_first, config.mini_first):
        part, cost = config, 1.0
        if small:
            part, cost = at_image_size(part, config.image_size // 2), cost * _COST_OF_SMALL
        if mini:
            part, cost = judged_by_mini(part), cost * _COST_OF_MINI
        parts.append(RunPart(part, until, cost))
    return tuple(parts)


def spans(small_first: float, mini_first: float) -> Iterator[tuple[float, float, bool, bool]]:
    """Yields each part's begin, end, whether its pictures are small, whether `vgg_mini` judges.

    Args:
      small_first: Share of the run on pictures of half the size, 0 to 1.
      mini_first: Share of it that `vgg_mini` judges, 0 to 1.
    """
    ends = sorted({small_first, mini_first, 1.0} - {0.0})
    for begin, end in zip([0.0, *ends], ends, strict=False):
        yield begin, end, begin < small_first, begin < mini_first


def judged_by_mini(config: RunConfig) -> RunConfig:
    """Returns a configuration with `vgg_mini`, which reports VGG16's losses, in its place.

    All steps are: `mini_first` is left out.
    """
    return dataclasses.replace(config, loss_model=MINI, loss_model_file="", mini_first=0.0)


def at_image_size(config: RunConfig, image_size: int) -> RunConfig:
    """Returns a configuration for pictures of another size, where style counts as much.

    A style weight keeps its meaning when it changes with a picture's area; see
    `losses.style_layer_losses`. A `style_size` changes with the photos' size. All steps are of that
    size: `small_first` is left out.

    Args:
      config: The run.
      image_size: Side of the photos' squares in px.

    Raises:
      ConfigError: If it, or the style pictures' size, is smaller than a run allows.
    """
    area = (image_size / config.image_size) ** 2
    changes: dict[str, Any] = {"image_size": image_size, "small_first": 0.0}
    if config.style_size is not None:
        changes["style_size"] = config.style_size * image_size // config.image_size
    if config.styles is None:
        assert config.style_weight is not None
        changes["style_weight"] = config.style_weight * area
    else:
        changes["styles"] = tuple(
            dataclasses.replace(style, weight=style.weight * area) for style in config.styles
        )
    return dataclasses.replace(config, **changes)
