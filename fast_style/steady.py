"""Films that do not flicker: where the film stands still, the styled frame is held.

A net answers small changes (noise, compression) with large ones. No optical flow is needed where
nothing moves, and where something moves the eye forgives. Held strokes stay sharp; a running mean
over frames would blur those of smooth, slowly moving parts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

CALM = 2.0
"""Up to so many levels of change, times `temporal`, a place of the film stands still."""

MOVED = 3.0
"""From so many levels on, times `temporal`, it has moved, and nothing is held."""

UNCHANGED = 2.0
"""Below so many levels of smoothed change, a pixel counts for the flicker number."""

CUT = 30.0
"""A mean change of so many levels over a thumbnail is a cut to another scene."""

RADIUS = 3
"""Of the box of 7x7 pixels over which `changed` smooths."""

_EVENED = ((0, 1), (1, 0), (1, 1))
"""How much larger a styled film of odd sides is: 4:2:0 has even ones."""

_PATCH_RADIUS = 8  # What is held or replaced at a time: about a stroke, or strokes would break.
_GRAIN_RADIUS = 1  # Noise of single pixels is averaged away before frames are compared.
_THUMBNAIL = (32, 32)


def changed(before: np.ndarray, after: np.ndarray, *, radius: int = RADIUS) -> np.ndarray:
    """Returns how much each place of a film has changed.

    c = mean over a box of 2 * radius + 1 pixels a side, and over the channels, of |after - before|,
    so that what moves next to a pixel counts for it.

    Args:
      before: [H, W, 3], 0..255, uint8 or float32.
      after: The same.
      radius: In pixels; the default is that of the flicker number.

    Returns:
      [H, W] float32. A change of more than 31 levels counts as one of 31.
    """
    difference = np.abs(after.astype(np.float32) - before).mean(-1)
    # In eighths of a level, because Pillow's box filter takes whole numbers of 8 bits.
    eighths = Image.fromarray(np.clip(difference * 8.0, 0.0, 255.0).astype(np.uint8))
    return np.asarray(eighths.filter(ImageFilter.BoxBlur(radius))).astype(np.float32) / 8.0


def is_cut(before: np.ndarray, after: np.ndarray) -> bool:
    """Says whether two neighbouring frames belong to different scenes.

    Args:
      before: uint8 [H, W, 3].
      after: The same.
    """
    small = [
        np.asarray(Image.fromarray(frame).resize(_THUMBNAIL, Image.Resampling.BOX), np.float32)
        for frame in (before, after)
    ]
    return before.shape != after.shape or float(np.abs(small[1] - small[0]).mean()) >= CUT


class Steadier:
    """Holds what is shown where the film did not change.

    out = k * out_before + (1 - k) * styled, with k = (m - c) / (m - s) clipped to 0..1,
    m = temporal * MOVED, s = temporal * CALM. c is the `changed`, in patches of 17x17 pixels and
    after a 3x3 mean, of the frame against a reference: the frame that what is held was made from,
    blended with the same k. A slow drift thus adds up until it counts as motion, and nothing
    smears. A cut starts afresh.
    """

    def __init__(self, temporal: float) -> None:
        """Starts without a past.

        Args:
          temporal: 0 (nothing is held) to 1 (also what changes by a little).

        Raises:
          ValueError: If it is outside 0..1.
        """
        if not 0.0 <= temporal <= 1.0:
            raise ValueError(f"expected temporal within 0..1, got {temporal}")
        self._temporal = temporal
        self._frame: np.ndarray | None = None
        self._reference: np.ndarray | None = None
        self._output: np.ndarray | None = None

    def begins(self, frame: np.ndarray) -> bool:
        """Says whether a frame is the first of a scene; the net's own past ends there, too."""
        return self._frame is None or is_cut(self._frame, frame)

    def steady(self, frame: np.ndarray, styled: np.ndarray) -> np.ndarray:
        """Takes the next frame and returns what is shown for it.

        Args:
          frame: uint8 [H, W, 3], of the film.
          styled: uint8 [H', W', 3], what the net made of it, at whatever size.

        Returns:
          uint8 [H', W', 3].
        """
        fresh = self.begins(frame) or self._output is None or self._output.shape != styled.shape
        self._frame = frame
        smooth = np.asarray(Image.fromarray(frame).filter(ImageFilter.BoxBlur(_GRAIN_RADIUS)))
        if fresh or self._reference is None or self._output is None:
            self._reference = smooth.astype(np.float32)
            self._output = styled.astype(np.float32)
            return styled
        keep = self._keep(changed(self._reference, smooth, radius=_PATCH_RADIUS))
        self._reference += (1.0 - keep[..., None]) * (smooth - self._reference)
        if keep.shape != styled.shape[:2]:
            height, width = styled.shape[:2]
            scaled = Image.fromarray(keep).resize((width, height), Image.Resampling.BILINEAR)
            keep = np.asarray(scaled)
        self._output += (1.0 - keep[..., None]) * (styled - self._output)
        return np.rint(self._output).astype(np.uint8)

    def _keep(self, change: np.ndarray) -> np.ndarray:
        if self._temporal == 0.0:
            return np.zeros_like(change)
        share = (MOVED - change / np.float32(self._temporal)) / (MOVED - CALM)
        return np.clip(share, 0.0, 1.0)


@dataclass(frozen=True)
class Flicker:
    """How much a film flickers.

    Attributes:
      levels: The number, 0..255; see `flicker`.
      frames: How many frames were compared with the one before.
      counted: The share of all pixels that stood still, 0..1.
    """

    levels: float
    frames: int
    counted: float


def flicker(shown: Iterable[np.ndarray], film: Iterable[np.ndarray] | None = None) -> Flicker:
    """Measures how much a styled film changes where the film that it was made of does not.

    F = the mean of |shown[t](p) - shown[t-1](p)|, over all t that are no cut, all channels, and all
    pixels p with `changed`(film[t-1], film[t])(p) < UNCHANGED.

    Args:
      shown: Frames, uint8 [H, W, 3].
      film: As many of the original, of the same size but for odd sides made even; none counts
        every pixel, so that motion counts as well.

    Raises:
      ValueError: If the two films differ in size or in the number of frames.
    """
    total, pixels, everything, pairs = 0.0, 0, 0, 0
    last_shown: np.ndarray | None = None
    last_film: np.ndarray | None = None
    originals = None if film is None else iter(film)
    for picture in shown:
        original = picture if originals is None else next(originals, None)
        if original is None:
            raise ValueError("the original is shorter")
        height, width = original.shape[:2]
        if (picture.shape[0] - height, picture.shape[1] - width) in _EVENED:
            picture = picture[:height, :width]
        if original.shape != picture.shape:
            raise ValueError(
                f"frames of {picture.shape[1]}x{picture.shape[0]} pixels do not compare with "
                f"{original.shape[1]}x{original.shape[0]}"
            )
        if last_shown is not None and last_film is not None and not is_cut(last_film, original):
            difference = np.abs(picture.astype(np.float32) - last_shown).mean(-1)
            still = (
                np.ones(difference.shape, bool)
                if film is None
                else changed(last_film, original) < UNCHANGED
            )
            total += float(difference[still].sum(dtype=np.float64))
            pixels += int(still.sum())
            everything += still.size
            pairs += 1
        last_shown, last_film = picture, original
    if originals is not None and next(originals, None) is not None:
        raise ValueError("the original is longer")
    return Flicker(total / pixels if pixels else 0.0, pairs, pixels / everything if pairs else 0.0)
