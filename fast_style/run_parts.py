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
    return (RunPart(_halved(config), small), whole) if small else (whole,)


def _halved(config: RunConfig) -> RunConfig:
    """Returns a configuration for pictures of half the size, where style counts as much.

    A style weight keeps its meaning when it shrinks with a picture's area; see
    `losses.style_layer_losses`.
    """
    changes: dict[str, Any] = {"image_size": config.image_size // 2, "small_first": 0.0}
    if config.style_size is not None:
        changes["style_size"] = config.style_size // 2
    if config.styles is None:
        assert config.style_weight is not None
        changes["style_weight"] = config.style_weight / 4.0
    else:
        changes["styles"] = tuple(
            dataclasses.replace(style, weight=style.weight / 4.0) for style in config.styles
        )
    return dataclasses.replace(config, **changes)
