"""Picture files to and from uint8 arrays, and the resizing that the rest is built on.

Every array is [H, W, 3] uint8, RGB, upright. What a file may hold besides that (EXIF orientation,
grey, palettes, transparency, CMYK, 16 bits, several frames) ends in this module.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterable, Iterator, Set
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from fast_style.errors import FastStyleError, ImageError
from fast_style.files import atomic_path, check_folder

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
"""A picture file: its path, its bytes, or a file opened for reading in binary."""

INPUT_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif"),
)
"""Endings, in lower case, by which folders of pictures are searched. Contents decide the format."""

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

DEFAULT_MAX_PIXELS = 178_956_970
"""Larger pictures are refused unless asked for: Pillow's own limit, 0.5 GB as an RGB array."""

# Only formats whose decoders stay inside this process: Pillow would hand EPS to Ghostscript,
# whatever the file is called. AVIF stays last, see `_open`.
_INPUT_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")

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

_PILLOW_WARNINGS = r"PIL(\.|$)"
_quiet_lock = threading.Lock()
_quiet_depth = 0
_limit_lock = threading.Lock()


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
    with _opened(source, max_pixels) as image:
        return _to_array(_flat_upright(image, background))


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
    with _opened(path, max_pixels) as image:
        rgb, alpha = _loaded(image)
        if alpha is None:
            picture = _to_array(_upright(image, rgb))
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
    with _opened(path, DEFAULT_MAX_PIXELS) as image:
        at_least = int(_DRAFT_REDUCTION * size)
        image.draft(None, (at_least, at_least))  # Does nothing for other formats than JPEG.
        crop = _cover_crop(_flat_upright(image, (255, 255, 255)), size, offset)
        if flip:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return _to_array(crop)


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
    with _opened(path, DEFAULT_MAX_PIXELS) as image:
        at_least = int(_DRAFT_REDUCTION * size)
        image.draft(None, (at_least, at_least))
        picture = _flat_upright(image, (255, 255, 255))
        scale = size / min(picture.size)
        if scale != 1.0:
            sides = (round(picture.width * scale), round(picture.height * scale))
            picture = picture.resize(sides, Image.Resampling.BILINEAR)
        return _to_array(picture)


def check_output(
    path: str | os.PathLike[str], sources: Iterable[str | os.PathLike[str]] = ()
) -> None:
    """Finds out, before the work, whether `write_image` could write a result, writing nothing.

    Args:
      path: Where the result goes.
      sources: Pictures that it must not replace.

    Raises:
      ImageError: If the ending is of no known format.
      FastStyleError: If it is a folder or a source, or its folder cannot be written.
    """
    check_outputs([path], sources)


def check_outputs(
    paths: Iterable[str | os.PathLike[str]], sources: Iterable[str | os.PathLike[str]]
) -> None:
    """Does `check_output` for many results, none of which may replace any source."""
    kept = {Path(source).resolve() for source in sources}
    for path in paths:
        _check_output(Path(path), kept)


def _check_output(path: Path, sources: Set[Path]) -> None:
    name = printable(path)
    if path.suffix.lower() not in _OUTPUT_FORMATS:
        raise ImageError(
            f"{name}: pictures are not written as {path.suffix or 'a name without an ending'}; "
            f"end the name in one of {', '.join(OUTPUT_SUFFIXES)}"
        )
    if os.path.isdir(path):  # Unlike Path's, not upset by a name too long.
        raise FastStyleError(f"{name}: this is a folder; name a file in it")
    check_folder(path.parent)
    if sources and path.resolve() in sources:
        raise FastStyleError(
            f"{name}: would replace a source picture; choose another output with -o"
        )


def write_image(path: str | os.PathLike[str], image: np.ndarray, *, quality: int = 95) -> None:
    """Writes a picture in the format that the path's ending names, whole or not at all.

    JPEG keeps colour at full resolution (4:4:4), because stylized pictures are full of saturated
    edges, which the usual halved chroma smears. PNG, TIFF and BMP are lossless.

    Args:
      path: Ends in one of `OUTPUT_SUFFIXES`, in any case. Missing folders are created.
      image: [H, W, 3] uint8.
      quality: 1..100, for JPEG and WebP.

    Raises:
      ImageError: If the ending is unknown or the format cannot hold a picture of this size.
      FastStyleError: If the file cannot be written there; `check_output` says so before.
      ValueError: If `image` or `quality` is not as above.
    """
    _check_image(image)
    if not 1 <= quality <= 100:
        raise ValueError(f"quality must be 1 to 100, got {quality}")
    path = Path(path)
    check_output(path)
    name = printable(path)
    form = _OUTPUT_FORMATS[path.suffix.lower()]
    height, width = image.shape[:2]
    limit = _LONGEST_SIDE.get(form)
    if limit is not None and max(height, width) > limit:
        raise ImageError(
            f"{name}: {form} cannot hold {width}x{height} pixels (at most {limit} a side); "
            "choose .png or .tif"
        )
    options: dict[str, object] = {
        "JPEG": {"quality": quality, "subsampling": 0},
        "WEBP": {"quality": quality},
        "TIFF": {"compression": "tiff_deflate"},
    }.get(form, {})
    with atomic_path(path) as aside:
        try:
            Image.fromarray(np.ascontiguousarray(image)).save(aside, format=form, **options)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # The system's refusal: atomic_path words it.
            raise ImageError(
                f"{name}: the {form} encoder failed ({_reason(error)}); choose another format"
            ) from error


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
    return _to_array(resized)


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
    return _to_array(_cover_crop(Image.fromarray(image), size, offset))


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


def printable(path: str | os.PathLike[str]) -> str:
    """Returns a path for a one-line message: line breaks and undecodable bytes are escaped."""
    text = os.fspath(path)
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def _check_image(image: np.ndarray) -> None:
    shape, kind = np.shape(image), getattr(image, "dtype", type(image).__name__)
    if kind != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise ValueError(f"expected an image of uint8 [H, W, 3], got {kind} {list(shape)}")


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


def _to_array(image: Image.Image) -> np.ndarray:
    """Copies an RGB image into a writable array.

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
    rgb, alpha = _split_alpha(image)
    return rgb, None if alpha is None or _lowest(alpha) == 255 else alpha


def _upright(image: Image.Image, rgb: Image.Image) -> Image.Image:
    """Turns the pixels of a loaded picture as its metadata say."""
    # Asked only after loading: Pillow turns TIFFs while loading them, and then drops the tag.
    turn = _UPRIGHT.get(_orientation(image))
    return rgb if turn is None else rgb.transpose(turn)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
        return value if isinstance(value, int) else 1
    except Exception:  # Broken metadata raise nearly anything, and are no reason to lose a photo.
        return 1


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Converts a loaded picture of any mode to RGB, and its transparency, if any, to 8-bit grey."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255 instead of scaling.
        grey, alpha = _deep_grey(np.asarray(image), image.info.get("transparency"))
        return Image.fromarray(grey).convert("RGB"), alpha
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return rgba.convert("RGB"), rgba.getchannel("A")
    return (image if image.mode == "RGB" else image.convert("RGB")), None


def _deep_grey(
    values: np.ndarray, transparent_value: object
) -> tuple[np.ndarray, Image.Image | None]:
    """Scales grey of more than 8 bits to 0..255, see `read_image`."""
    alpha = None
    if isinstance(transparent_value, int):
        alpha = Image.fromarray(np.where(values == transparent_value, 0, 255).astype(np.uint8))
    highest: float = 65535.0
    if values.dtype.kind == "f":
        values = np.nan_to_num(values)
        highest = 1.0 if values.max() <= 1.0 else 255.0
    elif values.max() > 65535:
        highest = 2.0**31 - 1
    scaled = np.clip(values.astype(np.float32) * (255.0 / highest), 0.0, 255.0)
    return np.rint(scaled).astype(np.uint8), alpha


def _lowest(alpha: Image.Image) -> int:
    return int(np.asarray(alpha).min())


@contextlib.contextmanager
def _opened(source: Source, max_pixels: int) -> Iterator[Image.Image]:
    """Opens a picture for decoding; whatever fails in the block becomes an `ImageError`.

    The block holds nothing but decoding: arguments are checked before, or the file gets the blame.
    """
    with _source_file(source) as (name, file):
        try:
            with _quiet_pillow():
                image = _open(file, max_pixels)
                if image.width * image.height > max_pixels:
                    raise Image.DecompressionBombError
                yield image
        except UnidentifiedImageError as error:
            file.seek(0)
            raise ImageError(
                f"{name}: not a readable picture (it holds {_describe(file.read(256))}); "
                "give a JPEG, PNG, WebP, TIFF, BMP or GIF file"
            ) from error
        except Image.DecompressionBombError as error:
            raise ImageError(
                f"{name}: has more than the allowed {max_pixels:,} pixels; "
                "make it smaller, or raise max_pixels if you trust the file"
            ) from error
        except MemoryError as error:
            raise ImageError(
                f"{name}: too little memory to decode this picture; make it smaller"
            ) from error
        except Exception as error:
            # Decoders raise nearly anything on hostile files: OSError, SyntaxError, struct.error...
            raise ImageError(
                f"{name}: this picture is damaged or cut short ({_reason(error)}); replace the file"
            ) from error


@contextlib.contextmanager
def _source_file(source: Source) -> Iterator[tuple[str, BinaryIO]]:
    """Gives a picture's name for messages, and its contents as a seekable file."""
    if isinstance(source, (str, os.PathLike)):
        name = printable(source)
        with _open_regular(name, source) as file:
            yield name, file
        return
    if isinstance(source, (bytes, bytearray, memoryview)):
        name, data = "picture given as bytes", source
    else:
        name, data = printable(str(getattr(source, "name", "picture given as a file"))), None
        try:
            data = source.read()
        except OSError as error:
            raise ImageError(f"{name}: cannot read this picture ({_reason(error)})") from error
    if not len(data):
        raise _empty(name)
    yield name, io.BytesIO(data)


def _open_regular(name: str, path: str | os.PathLike[str]) -> BinaryIO:
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(f"{name}: this is a folder, not a picture; name a file in it")
        if not stat.S_ISREG(status.st_mode):  # A pipe or a device could be waited on forever.
            raise ImageError(f"{name}: this is not an ordinary file; name a picture file")
        if not status.st_size:
            raise _empty(name)
        return open(path, "rb")
    except FileNotFoundError as error:
        raise ImageError(f"{name}: no such picture; check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path.
        raise ImageError(
            f"{name}: cannot open this picture ({_reason(error)}); check its path and permissions"
        ) from error


def _empty(name: str) -> ImageError:
    return ImageError(f"{name}: this picture is empty (0 bytes); replace the file")


def _open(file: BinaryIO, max_pixels: int) -> Image.Image:
    """Identifies a picture and reads its header, with Pillow's limit raised where asked for."""
    try:
        if max_pixels <= DEFAULT_MAX_PIXELS:
            return Image.open(file, formats=_INPUT_FORMATS)
        with _limit_lock:
            limit = Image.MAX_IMAGE_PIXELS
            Image.MAX_IMAGE_PIXELS = None  # The caller compares the size with `max_pixels`.
            try:
                return Image.open(file, formats=_INPUT_FORMATS)
            finally:
                Image.MAX_IMAGE_PIXELS = limit
    except KeyError as error:
        # Pillow before 11.3 has no AVIF, and says so this way once nothing before it fitted.
        raise UnidentifiedImageError from error


@contextlib.contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Silences Pillow's warnings (odd metadata, large sizes), and only those.

    `warnings.catch_warnings` would restore the filters of another thread's block, so one narrow
    filter is shared by all threads that decode, and leaves with the last of them.
    """
    global _quiet_depth
    with _quiet_lock:
        warnings.filterwarnings("ignore", module=_PILLOW_WARNINGS)
        _quiet_depth += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            ours = ("ignore", None, Warning, re.compile(_PILLOW_WARNINGS), 0)
            if _quiet_depth == 0 and ours in warnings.filters:
                # A list, although it is typed as a sequence: filters have no public removal.
                warnings.filters.remove(ours)  # type: ignore[attr-defined]


def _describe(head: bytes) -> str:
    """Names what the first bytes of a file look like, for somebody who expected a picture."""
    start = head.lstrip().lower()
    if not head.strip(b"\0"):
        return "nothing but zero bytes"
    if head[4:8] == b"ftyp":
        if head[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"hevc"):
            return "a HEIC photo"
        return "a film"
    if head.startswith((b"\xff\xd8", b"\x89PNG", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")):
        return "a picture with a damaged header"
    if start.startswith(b"%pdf"):
        return "a PDF document"
    if start.startswith(b"pk\x03\x04"):
        return "a ZIP archive"
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if start.startswith((b"<svg", b"<?xml")):
        return "an SVG drawing or other XML"
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # Its end may be cut.
    except UnicodeDecodeError:
        return "something unknown"
    return "text" if all(c.isprintable() or c.isspace() for c in text) else "something unknown"


def _reason(error: BaseException) -> str:
    text = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return " ".join(printable(text).split())[:200]
