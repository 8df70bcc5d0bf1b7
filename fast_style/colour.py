"""Colours of one picture, brightness of another."""

from __future__ import annotations

import numpy as np

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of R, G and B in brightness, of R'G'B', ITU-R BT.601."""


def luma(picture: np.ndarray) -> np.ndarray:
    """Returns Y' = 0.299 R + 0.587 G + 0.114 B.

    Args:
      picture: [..., 3] float32.

    Returns:
      [...] float32.
    """
    return picture @ LUMA


def with_colours_of(picture: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """Returns a picture's brightness with a photo's colours.

    Every channel of the photo is shifted by the difference in luma,
    Y' = 0.299 R + 0.587 G + 0.114 B. So R - Y', G - Y' and B - Y', the photo's chroma, stay as they
    are, except where the shift leaves 0..255 and is clipped.

    Args:
      picture: [H, W, 3], float or uint8, RGB 0..255.
      photo: The same shape.

    Returns:
      [H, W, 3] float32, 0..255.
    """
    picture, photo = np.asarray(picture, np.float32), np.asarray(photo, np.float32)
    shift = luma(picture - photo)
    return np.clip(photo + shift[..., None], 0.0, 255.0)
