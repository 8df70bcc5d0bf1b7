"""Picture files to and from arrays, and the resizing that the rest is built on.

Arrays are [H, W, 3] uint8, RGB, upright; 16 bits are only written here. `photo` reads them, and
whatever else travels with a picture.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence, Set
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from fast_style.colour_profiles import to_srgb
from fast_style.deep_colour import write_png, write_tiff
from fast_style.errors import FastStyleError, ImageError, UsageError
from fast_style.extras import Extras, orientation, parse_exif
from fast_style.files import atomic_path, check_folder
from fast_style.opening import (
    DEFAULT_MAX_PIXELS,
    Source,
    opened,
    printable,
    reason_of,
)
from fast_style.pixel_modes import split_alpha, to_8_bits, to_16_bits, to_array

_OUTPUT_FORMATS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}

OUTPUT_SUFFIXES = tuple(_OUTPUT_FORMATS)
"""Endings, in lower case, that `write_image` can write."""

_DEEP_FORMATS = ("PNG", "TIFF")
_ALPHA_FORMATS = ("PNG", "WEBP", "TIFF")
_NO_EXTRAS = Extras()
_LONGEST_SIDE = {"JPEG": 65_500, "WEBP": 16_383}

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a stored picture upright, by its EXIF orientation."""

_DRAFT_REDUCTION = 2.0
"""How much larger than its crop a reduced JPEG decode must stay; see `load_training_crop`."""


def read_image(
    source: Source,
    *,
    background: tuple[int, int, int] = (255, 255, 255),
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> np.ndarray:
    """Reads any picture as upright RGB.

    EXIF orientation is applied. Transparent pixels are laid over `background`. 16-bit grey keeps
    its full range (65535 becomes 255); whole numbers of 32 bits are read as 16-bit if none is
    larger, else as 31-bit; float pixels as 0..1 if none is larger, else as 0..255. Of several
    frames or pages the first is read. Colour profiles are not applied.

    Args:
      source: A path, bytes, or a binary file, which is read from where it stands to its end.
      background: RGB, 0..255, seen through transparent pixels.
      max_pixels: Refuses pictures of more pixels (H * W), before they are decoded.

    Returns:
      [H, W, 3] uint8, writable.

    Raises:
      ImageError: If this is not a picture, or is damaged, cut short, or too large.
    """
    with opened(source, max_pixels) as image:
        return to_array(_flat_upright(image, background))


def read_opaque(
    path: str | os.PathLike[str], *, max_pixels: int = DEFAULT_MAX_PIXELS
) -> np.ndarray:
    """Reads a style picture, which must have no transparent parts.

    Args:
      path: As for `read_image`.
      max_pixels: As for `read_image`.

    Returns:
      As `read_image` does.

    Raises:
      ImageError: As `read_image` does, or if any pixel is not fully opaque.
    """
    picture = None
    with opened(path, max_pixels) as image:
        rgb, alpha = _loaded(image)
        if alpha is None:
            picture = to_array(_upright(image, rgb))
    if picture is None:
        raise ImageError(
            f"{printable(path)}: has transparent parts, and what is behind them would become part "
            "of the style; save it without transparency"
        )
    return picture


def load_training_crop(
    path: str | os.PathLike[str],
    size: int,
    *,
    offset: tuple[float, float] = (0.5, 0.5),
    flip: bool = False,
) -> np.ndarray:
    """Reads a photo and crops it as `cover_crop(read_image(path), size, offset=offset)`, faster.

    Large JPEGs are decoded at 1/2, 1/4 or 1/8 of their size, five times faster for 12 megapixels.
    The decoder's own reduction is sharper than a resize; as long as at least a factor of 2 is left
    to the resize, this shows by less than one level on average, but by 2 to 3 levels where the
    decoder does nearly all of it. That last step would save only a fifth of the time.

    Args:
      path: A picture file of any kind that `read_image` reads.
      size: Side of the crop in pixels.
      offset: Where the crop lies, see `cover_crop`.
      flip: Mirrors the crop left to right.

    Returns:
      [size, size, 3] uint8.

    Raises:
      ImageError: As `read_image` does.
      ValueError: If `size` or `offset` is not as above.
    """
    _check_size(size)
    _check_offset(offset)
    with opened(path, DEFAULT_MAX_PIXELS) as image:
        at_least = int(_DRAFT_REDUCTION * size)
        image.draft(None, (at_least, at_least))  # Does nothing for other formats than JPEG.
        crop = _cover_crop(_flat_upright(image, (255, 255, 255)), size, offset)
        if flip:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return to_array(crop)


def load_scaled(path: str | os.PathLike[str], size: int) -> np.ndarray:
    """Reads a photo, scaled until its short side is `size`: all that a crop of it may show.

    Large JPEGs are decoded at a fraction of their size, as in `load_training_crop`.

    Args:
      path: A picture file of any kind that `read_image` reads.
      size: The short side in pixels. The long side is rounded.

    Returns:
      [H, W, 3] uint8 with min(H, W) == size.

    Raises:
      ImageError: As `read_image` does.
      ValueError: If `size` is below 1.
    """
    _check_size(size)
    with opened(path, DEFAULT_MAX_PIXELS) as image:
        at_least = int(_DRAFT_REDUCTION * size)
        image.draft(None, (at_least, at_least))
        picture = _flat_upright(image, (255, 255, 255))
        scale = size / min(picture.size)
        sides = (round(picture.width * scale), round(picture.height * scale))
        if sides[0] * sides[1] > DEFAULT_MAX_PIXELS:
            raise ImageError(
                f"{printable(path)}: too long and thin, {sides[0]}x{sides[1]} px with a short side "
                f"of {size}"
            )
        if scale != 1.0:
            picture = picture.resize(sides, Image.Resampling.BILINEAR)
        return to_array(picture)


def check_output(
    path: str | os.PathLike[str], sources: Iterable[str | os.PathLike[str]] = ()
) -> None:
    """Finds out, before the work, whether `write_image` could write a result, writing nothing.

    Args:
      path: Where the result goes.
      sources: Pictures that it must not replace.

    Raises:
      UsageError: If the ending is of no known format, or it is a source.
      FastStyleError: If it is a folder, or its folder cannot be written.
    """
    check_outputs([path], sources)


def check_outputs(
    paths: Iterable[str | os.PathLike[str]],
    sources: Iterable[str | os.PathLike[str]],
    *,
    suffixes: Sequence[str] = OUTPUT_SUFFIXES,
    kind: str = "pictures",
) -> None:
    """Does `check_output` for many results, none of which may replace any source.

    Args:
      paths: The results.
      sources: What they are made of.
      suffixes: The endings, in lower case, that they may have.
      kind: What they are, for the message.
    """
    kept = {os.path.realpath(source) for source in sources}
    for path in map(Path, paths):
        if path.suffix.lower() not in suffixes:
            ending = path.suffix or "a name without an ending"
            raise UsageError(
                f"{printable(path)}: {kind} are not written as {ending}; "
                f"end the name in one of {', '.join(suffixes)}"
            )
        _check_output(path, kept)


def _check_output(path: Path, sources: Set[str]) -> None:
    name = printable(path)
    if os.path.isdir(path):  # Unlike Path's, not upset by a name too long.
        raise FastStyleError(f"{name}: this is a folder; name a file in it")
    check_folder(path.parent)
    if sources and os.path.realpath(path) in sources:
        raise UsageError(f"{name}: would replace a source picture; choose another output with -o")


def write_image(
    path: str | os.PathLike[str],
    image: np.ndarray,
    *,
    quality: int = 95,
    extras: Extras = _NO_EXTRAS,
) -> None:
    """Writes a picture in the format that the path's ending names, whole or not at all.

    JPEG keeps colour at full resolution (4:4:4), because stylized pictures are full of saturated
    edges, which the usual halved chroma smears. PNG, TIFF and BMP are lossless.

    Args:
      path: Ends in one of `OUTPUT_SUFFIXES`, in any case. Missing folders are created.
      image: [H, W, 3] uint8, or uint16, whose depth PNG and TIFF keep.
      quality: 1..100, for JPEG and WebP.
      extras: Written too as far as the format has a place: alpha in PNG, WebP and TIFF; EXIF and a
        colour profile in all but BMP, for which colours are converted to sRGB. An alpha of another
        size is scaled.

    Raises:
      ImageError: If the ending is unknown or the format cannot hold a picture of this size.
      FastStyleError: If the file cannot be written there; `check_output` says so before.
      ValueError: If `image` or `quality` is not as above.
    """
    path = Path(path)
    check_output(path)
    with atomic_path(path) as aside, open(aside, "wb") as file:
        _encode(file, printable(path), path.suffix.lower(), image, quality, extras)


def keeps_alpha(path: str | os.PathLike[str]) -> bool:
    """Whether `write_image` writes an alpha to a file of that name."""
    return _OUTPUT_FORMATS.get(Path(path).suffix.lower()) in _ALPHA_FORMATS


def encode_image(
    image: np.ndarray, suffix: str, *, quality: int = 95, extras: Extras = _NO_EXTRAS
) -> bytes:
    """Returns the contents of the file that `write_image` would write.

    Args:
      image: As for `write_image`.
      suffix: One of `OUTPUT_SUFFIXES`.
      quality: As for `write_image`.
      extras: As for `write_image`.

    Raises:
      ImageError: If the format cannot hold a picture of this size.
      ValueError: If `image`, `suffix` or `quality` is not as above.
    """
    if suffix not in _OUTPUT_FORMATS:
        raise ValueError(f"suffix must be one of {', '.join(OUTPUT_SUFFIXES)}, got {suffix!r}")
    file = io.BytesIO()
    _encode(file, "result", suffix, image, quality, extras)
    return file.getvalue()


def _encode(
    file: BinaryIO, name: str, suffix: str, image: np.ndarray, quality: int, extras: Extras
) -> None:
    """Writes a picture to a file, which messages call `name`."""
    _check_image(image, deep=True)
    if not 1 <= quality <= 100:
        raise ValueError(f"quality must be 1 to 100, got {quality}")
    form = _OUTPUT_FORMATS[suffix]
    height, width = image.shape[:2]
    limit = _LONGEST_SIDE.get(form)
    if limit is not None and max(height, width) > limit:
        raise ImageError(
            f"{name}: {form} cannot hold {width}x{height} pixels (at most {limit} a side); "
            "choose .png or .tif"
        )
    if form not in _DEEP_FORMATS:
        image = to_8_bits(image)
    if form in _ALPHA_FORMATS and extras.alpha is not None:
        image = np.dstack([image, _alpha_like(image, extras.alpha)])
    try:
        _write_form(file, form, np.ascontiguousarray(image), quality, extras)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # The system's refusal: atomic_path words it.
        raise ImageError(
            f"{name}: the {form} encoder failed ({reason_of(error)}); choose another format"
        ) from error


def _write_form(file: BinaryIO, form: str, image: np.ndarray, quality: int, extras: Extras) -> None:
    """Writes [H, W, 3 or 4], of a depth that the format has, and what else it can hold."""
    height, width = image.shape[:2]
    exif = extras.exif_for(width, height, jpeg=form == "JPEG")
    more = {"icc_profile": extras.icc_profile, "dpi": extras.dpi}
    if form == "TIFF":
        write_tiff(file, image, exif=None if exif is None else parse_exif(exif), **more)
        return
    if form == "PNG" and image.dtype == np.uint16:
        write_png(file, image, exif=None if exif is None else exif[len(b"Exif\0\0") :], **more)
        return
    options: dict[str, object] = {"quality": quality} if form in ("JPEG", "WEBP") else {}
    if form == "JPEG":
        options["subsampling"] = 0
    picture = Image.fromarray(image)
    if form == "BMP":
        if extras.icc_profile is not None:
            picture = to_srgb(picture, extras.icc_profile) or picture
    else:
        options |= {key: value for key, value in more.items() if value is not None}
        if exif is not None:
            options["exif"] = exif
    picture.save(file, format=form, **options)


def _alpha_like(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Returns an alpha of an image's size and depth."""
    height, width = image.shape[:2]
    if alpha.shape != (height, width):
        scaled = Image.fromarray(alpha.astype(np.float32)).resize(
            (width, height), Image.Resampling.BILINEAR
        )
        alpha = np.rint(np.asarray(scaled)).astype(alpha.dtype)
    return to_8_bits(alpha) if image.dtype == np.uint8 else to_16_bits(alpha)


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes with an antialiased bilinear (triangle) filter.

    Each output pixel is the mean of the input under a triangle, whose half-width is one input
    pixel when enlarging and one output pixel when reducing, so that nothing aliases.

    Args:
      image: [H, W, 3] uint8.
      height: Output height in pixels, at least 1.
      width: Output width in pixels, at least 1.

    Returns:
      [height, width, 3] uint8.

    Raises:
      ValueError: If `image` is not as above or a side is below 1.
    """
    _check_image(image)
    _check_size(height)
    _check_size(width)
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    return to_array(resized)


def cover_crop(
    image: np.ndarray, size: int, *, offset: tuple[float, float] = (0.5, 0.5)
) -> np.ndarray:
    """Scales a picture until its short side is `size`, and crops a square of that size.

    A picture whose short side is `size` already is cut at whole pixels, rounded towards the top
    left, and not resampled. Else only what the crop shows is resized, antialiased as in `resize`.

    Args:
      image: [H, W, 3] uint8, of any aspect ratio.
      size: Side of the crop in pixels.
      offset: (y, x), each 0..1: 0 is the top or left end, 1 the bottom or right end, 0.5 the
        centre.

    Returns:
      [size, size, 3] uint8.

    Raises:
      ValueError: If `image`, `size` or `offset` is not as above.
    """
    _check_image(image)
    _check_size(size)
    _check_offset(offset)
    return to_array(_cover_crop(Image.fromarray(image), size, offset))


def fit_long_side(image: np.ndarray, size: int) -> np.ndarray:
    """Scales a picture, up or down, until its long side is `size`; keeps the aspect ratio.

    Args:
      image: [H, W, 3] uint8.
      size: The long side in pixels. The short side is rounded, and at least 1.

    Returns:
      [H', W', 3] uint8 with max(H', W') == size.

    Raises:
      ValueError: If `image` or `size` is not as above.
    """
    _check_image(image)
    _check_size(size)
    height, width = image.shape[:2]
    long_side = max(height, width)
    return resize(
        image,
        max(1, round(height * size / long_side)),
        max(1, round(width * size / long_side)),
    )


def to_uint8(picture: np.ndarray) -> np.ndarray:
    """Turns computed levels into those of a picture file.

    Args:
      picture: Float [H, W, 3], 0..255; what lies outside is clipped.

    Returns:
      uint8 of the same shape, rounded to the nearest level (halves to the even one).
    """
    return np.rint(np.clip(picture, 0.0, 255.0)).astype(np.uint8)


def _check_image(image: np.ndarray, *, deep: bool = False) -> None:
    shape, kind = np.shape(image), getattr(image, "dtype", type(image).__name__)
    kinds = ("uint8", "uint16") if deep else ("uint8",)
    if kind not in kinds or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        expected = " or ".join(kinds)
        raise ValueError(f"expected an image of {expected} [H, W, 3], got {kind} {list(shape)}")


def _check_size(size: int) -> None:
    if size < 1:
        raise ValueError(f"expected a size of at least 1 pixel, got {size}")


def _check_offset(offset: tuple[float, float]) -> None:
    if not all(0.0 <= part <= 1.0 for part in offset):
        raise ValueError(f"expected an offset (y, x) within 0..1, got {offset}")


def _cover_crop(image: Image.Image, size: int, offset: tuple[float, float]) -> Image.Image:
    """Does `cover_crop` on an RGB image of Pillow's."""
    side = min(image.size)
    top, left = offset[0] * (image.height - side), offset[1] * (image.width - side)
    if side == size:
        return image.crop((int(left), int(top), int(left) + side, int(top) + side))
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)


def _flat_upright(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Decodes an opened picture to upright RGB over a background."""
    rgb, alpha = _loaded(image)
    if alpha is not None:
        canvas = Image.new("RGB", rgb.size, background)
        canvas.paste(rgb, mask=alpha)
        rgb = canvas
    return _upright(image, rgb)


def _loaded(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Decodes an opened picture to RGB as stored, and its transparency if any pixel has some."""
    image.load()
    rgb, alpha = split_alpha(image)
    return rgb, None if alpha is None or np.asarray(alpha).min() == 255 else alpha


def _upright(image: Image.Image, rgb: Image.Image) -> Image.Image:
    """Turns the pixels of a loaded picture as its metadata say."""
    turn = _UPRIGHT.get(orientation(image))
    return rgb if turn is None else rgb.transpose(turn)
