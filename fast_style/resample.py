"""Pictures of 8 or 16 bits in another size, strip by strip, so that memory stays small."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

_BLOCK = 64  # Positions computed at once: the weights of so many form one small matrix.


def levels(pixels: np.ndarray) -> np.ndarray:
    """Returns pixels as float32 levels 0..255, whether they have 8 or 16 bits."""
    values = pixels.astype(np.float32)
    return values / np.float32(257.0) if pixels.dtype == np.uint16 else values


def pixels_like(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Returns levels 0..255 as pixels of 8 or 16 bits, clipped and rounded to the nearest.

    Args:
      values: Float, any shape; not changed.
      dtype: uint8 or uint16.
    """
    scaled = values * np.float32(257.0) if dtype == np.uint16 else values
    return np.rint(np.clip(scaled, 0, np.iinfo(dtype).max)).astype(dtype)


def strips(height: int, width: int, pixels: int = 2**20) -> Iterator[slice]:
    """Yields the rows of a picture as slices of about so many pixels."""
    step = max(pixels // width, 1)
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))


class Resampler:
    """A picture in another size, computed where it is asked for.

    Cubic convolution (Keys, 1981, a = -1/2), widened by the factor where the picture shrinks, which
    removes what the smaller grid could not show. Positions beyond the border weigh nothing.
    """

    def __init__(self, picture: np.ndarray, height: int, width: int) -> None:
        """Prepares the weights.

        Args:
          picture: uint8 or uint16 [H, W, 3]; kept, not copied.
          height: Height of the result, at least 1.
          width: Width of the result, at least 1.
        """
        self._picture = picture
        self._rows = _Axis(picture.shape[0], height)
        self._columns = _Axis(picture.shape[1], width)
        self.shape = (height, width, 3)

    def rows(self, top: int, bottom: int) -> np.ndarray:
        """Returns rows top..bottom - 1 of the result.

        Returns:
          Float32 [rows, width, 3], 0..255 or, at sharp edges, a little beyond.
        """
        pieces = []
        for start in range(top, bottom, _BLOCK):
            first, weights = self._rows.weights(start, min(start + _BLOCK, bottom))
            source = levels(self._picture[first : first + weights.shape[1]])
            flat = weights @ source.reshape(len(source), -1)
            # Channel before column, so that the columns too are one multiplication of matrices.
            planes = flat.reshape(len(flat), -1, 3).transpose(0, 2, 1).reshape(3 * len(flat), -1)
            wide = self._columns.apply(planes).reshape(len(flat), 3, -1)
            pieces.append(wide.transpose(0, 2, 1))
        return np.concatenate(pieces)

    def whole(self) -> np.ndarray:
        """Returns the result in the type of the picture."""
        dtype = self._picture.dtype
        result = np.empty(self.shape, dtype)
        for rows in strips(*self.shape[:2]):
            result[rows] = pixels_like(self.rows(rows.start, rows.stop), dtype)
        return result


def resized(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns a picture in another size; the picture itself if it has that size.

    Args:
      picture: uint8 or uint16 [H, W, 3].
      height: At least 1.
      width: At least 1.
    """
    if picture.shape[:2] == (height, width):
        return picture
    return Resampler(picture, height, width).whole()


def size_within(height: int, width: int, long_side: int) -> tuple[int, int]:
    """Returns the largest size of the same proportions whose longer side is at most `long_side`."""
    factor = min(long_side / max(height, width), 1.0)
    return max(round(height * factor), 1), max(round(width * factor), 1)


class _Axis:
    """Which source positions make up each position of a resampled axis, and their weights."""

    def __init__(self, source: int, target: int) -> None:
        scale = source / target
        self._spread = max(scale, 1.0)
        self._reach = 2 * self._spread
        self._centres = (np.arange(target) + 0.5) * scale - 0.5
        self._source = source

    def weights(self, start: int, stop: int) -> tuple[int, np.ndarray]:
        """Returns the first source position and the weights, float32 [stop - start, positions]."""
        centres = self._centres[start:stop]
        first = max(math.ceil(centres[0] - self._reach), 0)
        last = min(math.floor(centres[-1] + self._reach), self._source - 1)
        weights = _keys((np.arange(first, last + 1) - centres[:, None]) / self._spread)
        return first, (weights / weights.sum(1, keepdims=True)).astype(np.float32)

    def apply(self, planes: np.ndarray) -> np.ndarray:
        """Resamples the last axis of [N, source] to [N, target]."""
        target = len(self._centres)
        result = np.empty((len(planes), target), np.float32)
        for start in range(0, target, _BLOCK):
            stop = min(start + _BLOCK, target)
            first, weights = self.weights(start, stop)
            result[:, start:stop] = planes[:, first : first + weights.shape[1]] @ weights.T
        return result


def _keys(x: np.ndarray) -> np.ndarray:
    """Keys (1981), eq. 15, with a = -1/2."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x**2 + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
