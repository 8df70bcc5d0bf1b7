"""How a picture is stylized, besides by which model: checked before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal

Tile = int | tuple[str, int] | Literal["auto", "off", "fast"]

STROKE_SCALES = (0.5, 4.0)
MOST_GRAIN = 32.0  # levels
MAX_STYLE_WEIGHT = 10
"""Of one style, on either side of 0: far larger mixes are infinite within the net."""

MIN_TILE = 32
FAST_TILE = 1024
"""Side of a fast tile unless told otherwise: the larger, the less is computed twice."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StylizeOptions:
    """What `Stylizer.stylize` takes besides pictures.

    Attributes:
      style_weights: How much of each style; none takes the first.
      strength: 0 is the photo, 1 the full style.
      preserve_color: Whether the result has the photo's colours.
      stroke_scale: How much larger strokes are, 0.5 to 4.
      grain: Levels of noise that the net sees on the photo, 0 to 32.
      max_size: Long side of the result at most, in pixels; none keeps the photo's.
      tile: 'auto', 'off', a tile's side in pixels, 'fast', or ('fast', side): see `Stylizer`.
    """

    style_weights: Sequence[float] | None = None
    strength: float = 1.0
    preserve_color: bool = False
    stroke_scale: float = 1.0
    grain: float = 0.0
    max_size: int | None = None
    tile: Tile = "auto"

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
          ValueError: If a value is out of its range; the message starts with its name.
        """
        if not _is_number(self.strength) or not 0.0 <= self.strength <= 1.0:
            raise ValueError(f"strength: expected a number from 0 to 1, got {self.strength!r}")
        low, high = STROKE_SCALES
        if not _is_number(self.stroke_scale) or not low <= self.stroke_scale <= high:
            raise ValueError(
                f"stroke_scale: expected a number from {low:g} to {high:g}, "
                f"got {self.stroke_scale!r}"
            )
        if not _is_number(self.grain) or not 0.0 <= self.grain <= MOST_GRAIN:
            raise ValueError(
                f"grain: expected a number from 0 to {MOST_GRAIN:g}, got {self.grain!r}"
            )
        if self.max_size is not None and not _is_whole(self.max_size, 1):
            raise ValueError(
                f"max_size: expected a whole number of at least 1, got {self.max_size!r}"
            )
        self._check_tile()

    def _check_tile(self) -> None:
        tile = self.tile
        if isinstance(tile, str) and tile in ("auto", "off", "fast"):
            return
        if isinstance(tile, tuple) and len(tile) == 2 and tile[0] == "fast":
            tile = tile[1]
        if not _is_whole(tile, MIN_TILE):
            raise ValueError(
                "tile: expected auto, off, fast, or a tile's side in pixels of at least "
                f"{MIN_TILE}, got {self.tile!r}"
            )


def parse_tile(text: str) -> Tile:
    """Reads 'auto', 'off', '512', 'fast' or 'fast:512' as an option's value.

    Args:
      text: What a user typed; nonsense is returned as it is, for `StylizeOptions` to refuse.
    """
    mode, _, side = text.partition(":")
    if mode == "fast" and side.isdecimal():
        return ("fast", int(side))
    return int(text) if text.isdecimal() else text  # type: ignore[return-value]


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least
