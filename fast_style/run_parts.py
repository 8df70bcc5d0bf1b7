"""Small pictures first: the parts of a run, each on pictures of a size of its own.

What a net has to learn first is not in the details, and pictures of half the size take a third of
the time. docs/quality.md measures what it is worth to begin with them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from fast_style.config import RunConfig


@dataclass(frozen=True)
class RunPart:
    """Some steps of a run.

    Attributes:
      config: The run's configuration, but with the sizes and style weights of this part.
      stop_step: The step at which it ends, exclusive.
    """

    config: RunConfig
    stop_step: int


def small_steps(config: RunConfig, steps: int) -> int:
    """Returns how many of a run's steps, the first ones, are on pictures of half the size."""
    return round(config.small_first * steps)


def run_parts(config: RunConfig, steps: int) -> tuple[RunPart, ...]:
    """Returns the parts of a run in order; without `small_first` there is one.

    Args:
      config: The run.
      steps: Of the whole run.
    """
    small = small_steps(config, steps)
    whole = RunPart(config, steps)
    if not small:
        return (whole,)
    return (RunPart(at_image_size(config, config.image_size // 2), small), whole)


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
