"""From the pixel modes of picture files (palettes, grey, 16 bits...) to arrays, and their depth."""

from __future__ import annotations

import numpy as np
from PIL import Image


def split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Converts a loaded picture of any mode to 8-bit RGB, and its transparency, if any, to grey."""
    if is_deep_grey(image.mode):  # Pillow's own conversion clips at 255 instead of scaling.
        values, alpha = deep_values(np.asarray(image), image.info.get("transparency"))
        mask = None if alpha is None else Image.fromarray((alpha >> 8).astype(np.uint8))
        return Image.fromarray(to_8_bits(values)).convert("RGB"), mask
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return rgba.convert("RGB"), rgba.getchannel("A")
    return (image if image.mode == "RGB" else image.convert("RGB")), None


def is_deep_grey(mode: str) -> bool:
    """Says whether a mode of Pillow's is grey of more than 8 bits."""
    return mode in ("I", "F") or mode.startswith("I;16")


def deep_values(
    values: np.ndarray, transparent_value: object
) -> tuple[np.ndarray, np.ndarray | None]:
    """Scales grey of more than 8 bits to 0..65535, by the rules of `read_image`.

    Args:
      values: [H, W] of a loaded picture for which `is_deep_grey` is true.
      transparent_value: The one value that is transparent, if it is a number.

    Returns:
      [H, W] uint16, and its alpha (0 or 65535) if there is a transparent value.
    """
    alpha = None
    if isinstance(transparent_value, int):
        alpha = np.where(values == transparent_value, 0, 65535).astype(np.uint16)
    if values.dtype == np.uint16:
        return values, alpha
    highest: float = 65535.0
    if values.dtype.kind == "f":
        values = np.nan_to_num(values)
        highest = 1.0 if values.max() <= 1.0 else 255.0
    elif values.max() > 65535:
        highest = 2.0**31 - 1
    scaled = np.clip(values.astype(np.float64) * (65535.0 / highest), 0.0, 65535.0)
    return np.rint(scaled).astype(np.uint16), alpha


def to_8_bits(image: np.ndarray) -> np.ndarray:
    """Rounds levels of 0..65535 to 0..255; what has 8 bits is returned as it is.

    Args:
      image: uint16 or uint8 of any shape.

    Returns:
      uint8 of the same shape.
    """
    if image.dtype == np.uint8:
        return image
    # Rounded division by 257 in whole numbers: 257 * 255 = 65535, and no level lies between two.
    return ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)


def to_16_bits(image: np.ndarray) -> np.ndarray:
    """Spreads levels of 0..255 over 0..65535; what has 16 bits is returned as it is.

    Args:
      image: uint8 or uint16 of any shape.

    Returns:
      uint16 of the same shape.
    """
    return image if image.dtype == np.uint16 else image.astype(np.uint16) * np.uint16(257)


def to_array(image: Image.Image) -> np.ndarray:
    """Copies an RGB image into a writable array, [H, W, 3] uint8.

    Large pictures are copied in strips, because NumPy takes pixels from Pillow through
    intermediate copies that would double the peak memory.
    """
    array = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(1, (1 << 22) // image.width)
    if rows >= image.height:
        array[:] = np.asarray(image)
        return array
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        array[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    return array
