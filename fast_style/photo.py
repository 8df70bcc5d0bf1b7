"""A picture file read so that the result can be written with everything that the file held."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from fast_style.colour_profiles import profile_mode, to_srgb
from fast_style.deep_colour import is_deep_colour, joined, read_deep_colour
from fast_style.extras import Extras, orientation, read_extras
from fast_style.opening import DEFAULT_MAX_PIXELS, Source, open_picture, opened
from fast_style.pixel_modes import deep_values, is_deep_grey, split_alpha, to_array

_FRAMED_FORMATS = {"GIF": "frames", "WEBP": "frames", "PNG": "frames", "AVIF": "frames",
                   "TIFF": "pages"}  # fmt: skip
_OTHER_COLOURS = ("CMYK", "LAB")


@dataclass(frozen=True)
class Photo:
    """A picture as the net gets it, and what its file held besides.

    Attributes:
      pixels: [H, W, 3] RGB, upright; uint16 (0..65535) if the file holds more than 8 bits a
        channel, else uint8. Transparent pixels are laid over white.
      extras: To be written beside the result.
      notes: Sentences about what was left out, such as further frames.
      form: The file's format by its contents, as Pillow names it: 'JPEG', 'PNG'...
    """

    pixels: np.ndarray
    extras: Extras
    notes: tuple[str, ...] = ()
    form: str = ""


def read_photo(
    source: Source,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    reserve: Callable[[int], None] | None = None,
) -> Photo:
    """Reads a picture of any kind with everything that travels with it.

    Numbers of an RGB picture are taken as they are, whatever its profile says they mean, and the
    profile goes to the result: nothing is lost by conversions, and colours that were left alone are
    exactly those of the original. CMYK, Lab and grey pictures with a profile are converted to sRGB
    by it, because the result is RGB.

    Args:
      source: A path, bytes, or a binary file.
      max_pixels: Larger pictures are refused before they are decoded.
      reserve: Called with the number of pixels before they are decoded, and may wait.

    Raises:
      ImageError: As `images.read_image` does.
    """
    with opened(source, max_pixels) as image:
        if reserve is not None:
            reserve(image.width * image.height)
        notes = _frame_notes(image)
        file = image.fp
        if is_deep_colour(image):

            def reopen() -> Image.Image:
                assert file is not None
                file.seek(0)
                return open_picture(file, max_pixels)

            colour, alpha = _deep_colour(image, reopen)
        elif is_deep_grey(image.mode):
            image.load()
            values, alpha = deep_values(np.asarray(image), image.info.get("transparency"))
            colour = np.repeat(values[..., None], 3, axis=2)
        else:
            image.load()
            rgb, mask = _in_srgb(image) or split_alpha(image)
            colour, alpha = to_array(rgb), None if mask is None else np.asarray(mask)
        extras, damage = read_extras(image)
        if image.mode in _OTHER_COLOURS or profile_mode(extras.icc_profile or b"") != "RGB":
            extras = replace(extras, icc_profile=None)
        turn = orientation(image)
        colour = upright(colour, turn)
        if alpha is not None and alpha.min() == np.iinfo(alpha.dtype).max:
            alpha = None
        if alpha is not None:
            alpha = upright(alpha, turn)
            _lay_over_white(colour, alpha)
        return Photo(colour, replace(extras, alpha=alpha), (*notes, *damage), image.format or "")


def upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    """Turns an array as an EXIF orientation says (EXIF 2.32, tag 274).

    Args:
      stored: [H, W, ...] of any type.
      orientation: 1 to 8.

    Returns:
      [H, W, ...] or [W, H, ...], contiguous and writable.
    """
    turned = {
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, 1),
    }.get(orientation, lambda a: a)(stored)
    return np.require(turned, requirements=["C", "W"])


def _frame_notes(image: Image.Image) -> list[str]:
    word = _FRAMED_FORMATS.get(image.format or "")
    if word is None:
        return []
    try:
        count = getattr(image, "n_frames", 1)
        image.seek(0)
    except Exception:  # Frames that nobody asked for may be damaged.
        image.seek(0)
        return [f"only the first of its {word} is stylized"]
    return [f"only the first of its {count} {word} is stylized"] if count > 1 else []


def _deep_colour(
    image: Image.Image, reopen: Callable[[], Image.Image]
) -> tuple[np.ndarray, np.ndarray | None]:
    high, low, grey = read_deep_colour(image, reopen)
    if grey:
        halves = np.asarray(high).astype(np.uint16)
        return (
            np.repeat((halves[..., :1] << 8) | halves[..., 1:2], 3, axis=2),
            (halves[..., 2] << 8) | halves[..., 3],
        )
    values = joined(high, low)
    key = image.info.get("transparency")
    if values.shape[2] == 4:
        return np.ascontiguousarray(values[..., :3]), values[..., 3]
    if isinstance(key, tuple) and len(key) == 3:
        hidden = (values == np.array(key, np.uint16)).all(-1)
        return values, np.where(hidden, 0, 65535).astype(np.uint16)
    return values, None


def _in_srgb(image: Image.Image) -> tuple[Image.Image, Image.Image | None] | None:
    """Converts loaded CMYK, Lab and grey by their profile; none if there is nothing to convert."""
    if image.mode not in (*_OTHER_COLOURS, "L", "LA") or "transparency" in image.info:
        return None
    bare = image.getchannel("L") if image.mode == "LA" else image
    profile = image.info.get("icc_profile") or b""
    if profile_mode(profile) != bare.mode:
        if image.mode != "LAB":
            return None
        profile = None  # Lab says itself what its numbers mean.
    converted = to_srgb(bare, profile)
    if converted is None:
        return None
    return converted, image.getchannel("A") if image.mode == "LA" else None


def _lay_over_white(colour: np.ndarray, alpha: np.ndarray) -> None:
    """Mixes [H, W, 3] with white, in place and rounded: c * a + 1 * (1 - a), of full range."""
    most = int(np.iinfo(colour.dtype).max)
    for row in range(0, len(colour), 256):  # In strips, because the sums need 32 bits.
        part = alpha[row : row + 256, :, None].astype(np.uint32)
        mixed = colour[row : row + 256] * part + most * (most - part) + most // 2
        colour[row : row + 256] = mixed // most
