"""Pictures of 16 bits a channel, which Pillow cuts to 8: read through Pillow, written by ourselves.

Pillow unpacks 16-bit RGB into 8-bit RGB by taking one byte of each number. Which one depends on the
byte order that it is told, so that decoding twice, with either order, gives both bytes. Decoding
(filters, interlacing, LZW, tiles...) thus stays with Pillow and libtiff.

Sources: PNG specification, third edition (W3C, 2025); TIFF revision 6.0 (Adobe, 1992).
"""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np
from PIL import Image, TiffImagePlugin

_STRIP_BYTES = 1 << 22
_DEFLATE_LEVEL = 6

_DEEP_MODES = ("RGB;16", "RGBA;16", "RGBX;16")
_GREY_AND_ALPHA = "LA;16B"


def is_deep_colour(image: Image.Image) -> bool:
    """Says whether an opened picture, not yet loaded, holds 16-bit RGB, RGBA or grey with alpha.

    Not those of TIFFs in separate planes: there Pillow always gives the upper byte.
    """
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(284) == 2:
        return False
    raw = _raw_mode(image)
    return raw == _GREY_AND_ALPHA or raw[:-1] in _DEEP_MODES


def read_deep_colour(
    image: Image.Image, reopen: Callable[[], Image.Image]
) -> tuple[Image.Image, Image.Image, bool]:
    """Decodes a picture for which `is_deep_colour` is true.

    Args:
      image: The opened picture, not loaded; it is loaded afterwards.
      reopen: Opens the same picture again.

    Returns:
      (high, low, grey): the upper and the lower bytes, as two pictures of mode RGB or RGBA. If
      `grey` is true there is one picture twice, whose channels are the upper and lower byte of the
      grey and of the alpha.
    """
    raw = _raw_mode(image)
    if raw == _GREY_AND_ALPHA:
        _set_raw_mode(image, "RGBA")  # As many bytes a pixel, and none is left out.
        image.load()
        return image, image, True
    stored = raw[-1]
    if stored == "N":
        stored = "L" if sys.byteorder == "little" else "B"
    other = "B" if stored == "L" else "L"
    low = reopen()
    _set_raw_mode(image, raw[:-1] + stored)
    image.load()
    _set_raw_mode(low, raw[:-1] + other)
    low.load()
    return image, low, False


def joined(high: Image.Image, low: Image.Image) -> np.ndarray:
    """Returns the numbers whose upper and lower bytes two pictures hold, [H, W, C] uint16."""
    values = np.asarray(high).astype(np.uint16)
    values <<= 8
    values |= np.asarray(low)
    return values


def write_png(
    file: BinaryIO,
    pixels: np.ndarray,
    *,
    exif: bytes | None = None,
    icc_profile: bytes | None = None,
    dpi: tuple[float, float] | None = None,
) -> None:
    """Writes a PNG of 16 bits a channel.

    Each row is filtered by what makes the sum of its absolute differences least, as the
    specification advises (section 12.7).

    Args:
      file: Opened for writing.
      pixels: [H, W, 3 or 4] uint16; the fourth channel is alpha.
      exif: A TIFF structure, without 'Exif' before it.
      icc_profile: Of the numbers.
      dpi: Horizontal and vertical resolution in pixels per inch.
    """
    height, width, channels = pixels.shape
    file.write(b"\x89PNG\r\n\x1a\n")
    kind = {3: 2, 4: 6}[channels]
    _chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    if icc_profile:
        _chunk(file, b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc_profile))
    if exif:
        _chunk(file, b"eXIf", exif)
    if dpi:
        per_metre = [round(value / 0.0254) for value in dpi]
        _chunk(file, b"pHYs", struct.pack(">IIB", *per_metre, 1))
    packer = zlib.compressobj(_DEFLATE_LEVEL)
    for rows in _filtered_rows(pixels):
        if data := packer.compress(rows):
            _chunk(file, b"IDAT", data)
    _chunk(file, b"IDAT", packer.flush())
    _chunk(file, b"IEND", b"")


def write_tiff(
    file: BinaryIO,
    pixels: np.ndarray,
    *,
    exif: Image.Exif | None = None,
    icc_profile: bytes | None = None,
    dpi: tuple[float, float] | None = None,
) -> None:
    """Writes a little-endian TIFF: deflated strips of horizontal differences.

    Args:
      file: Opened for writing.
      pixels: [H, W, 3 or 4] uint8 or uint16; the fourth channel is alpha, not multiplied in.
      exif: Tags to carry, none of which may describe how pixels are stored.
      icc_profile: Of the numbers.
      dpi: Horizontal and vertical resolution in pixels per inch.
    """
    height, width, channels = pixels.shape
    rows = max(1, _STRIP_BYTES // pixels[0].nbytes)
    strips = []
    for top in range(0, height, rows):
        strip = pixels[top : top + rows].astype(pixels.dtype.newbyteorder("<"))
        strip[:, 1:] -= strip[:, :-1].copy()  # Wraps around, as predictor 2 does.
        strips.append(zlib.compress(strip.tobytes(), _DEFLATE_LEVEL))
    sizes = [len(strip) for strip in strips]
    tags = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    if exif is not None:
        for tag in exif:
            # Pillow keeps the place of a folder of tags; what is in it has to be asked for.
            tags[tag] = exif.get_ifd(tag) if tag in (34665, 34853) else exif[tag]
    tags[256], tags[257] = width, height
    tags[258] = (8 * pixels.itemsize,) * channels
    tags[259] = 8  # Deflate.
    tags[262] = 2  # RGB.
    tags[273] = tuple(sum(sizes[:number]) for number in range(len(sizes)))
    tags[277] = channels
    tags[278] = rows
    tags[279] = tuple(sizes)
    tags[317] = 2  # Horizontal differences.
    if channels == 4:
        tags[338] = 2  # Alpha, not multiplied in.
    if icc_profile:
        tags[34675] = icc_profile
    if dpi:
        tags[282], tags[283], tags[296] = dpi[0], dpi[1], 2
    for tag in (273, 279):
        tags.tagtype[tag] = 4  # LONG
    tags.save(file)  # Moves the places of the strips behind itself.
    for strip in strips:
        file.write(strip)


def _raw_mode(image: Image.Image) -> str:
    """Returns how the file stores pixels, in Pillow's words; '' if not in one piece."""
    tiles = getattr(image, "tile", ())
    modes = {args if isinstance(args, str) else args[0] for args in (tile[3] for tile in tiles)}
    mode = modes.pop() if len(modes) == 1 else ""
    return mode if isinstance(mode, str) else ""


def _set_raw_mode(image: Image.Image, mode: str) -> None:
    tiles = []
    for tile in image.tile:  # type: ignore[attr-defined]
        args = mode if isinstance(tile[3], str) else (mode, *tile[3][1:])
        tiles.append(tile._replace(args=args))
    image.tile = tiles  # type: ignore[attr-defined]


def _chunk(file: BinaryIO, kind: bytes, data: bytes) -> None:
    file.write(struct.pack(">I", len(data)) + kind + data)
    file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))


def _filtered_rows(pixels: np.ndarray) -> Iterator[bytes]:
    """Yields the rows of a PNG in strips, each row behind the number of its filter."""
    height, width, channels = pixels.shape
    step = 2 * channels
    above = np.zeros((1, width * step), np.uint8)
    rows = max(1, _STRIP_BYTES // (width * step))
    for top in range(0, height, rows):
        strip = pixels[top : top + rows].astype(">u2")
        current = np.ascontiguousarray(strip).view(np.uint8).reshape(len(strip), -1)
        up = np.concatenate([above, current[:-1]])
        left, up_left = np.zeros_like(current), np.zeros_like(current)
        left[:, step:], up_left[:, step:] = current[:, :-step], up[:, :-step]
        above = current[-1:].copy()
        # Filters 0 to 4 of section 9.2: none, Sub, Up, Average, Paeth.
        best = np.zeros((len(strip), 1 + current.shape[1]), np.uint8)
        least: np.ndarray | None = None
        for number in range(5):
            filtered = current - _predicted(number, left, up, up_left)
            cost = np.abs(filtered.view(np.int8).astype(np.int16)).sum(1, dtype=np.int64)
            better = np.ones(len(strip), bool) if least is None else cost < least
            least = cost if least is None else np.minimum(least, cost)
            best[better, 0] = number
            best[better, 1:] = filtered[better]
        yield best.tobytes()


def _predicted(number: int, left: np.ndarray, up: np.ndarray, up_left: np.ndarray) -> np.ndarray:
    if number == 0:
        return np.zeros_like(left)
    if number == 1:
        return left
    if number == 2:
        return up
    if number == 3:
        return ((left.astype(np.uint16) + up) // 2).astype(np.uint8)
    near_left = np.abs(up.astype(np.int16) - up_left)
    near_up = np.abs(left.astype(np.int16) - up_left)
    near_both = np.abs(left.astype(np.int16) + up - 2 * up_left.astype(np.int16))
    paeth = np.where(near_up <= near_both, up, up_left)
    return np.where((near_left <= near_up) & (near_left <= near_both), left, paeth)
