"""Opening picture files from anywhere: what they are, how large they may be, how they may fail."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from typing import BinaryIO

from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from fast_style.errors import ImageError

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
"""A picture file: its path, its bytes, or a file opened for reading in binary."""

INPUT_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif"),
)
"""Endings, in lower case, by which folders of pictures are searched. Contents decide the format."""

DEFAULT_MAX_PIXELS = 89_478_485
"""Larger pictures are refused unless asked for: where Pillow warns, 0.25 GiB as an RGB array."""

_PILLOW_REFUSES_ABOVE = 2 * DEFAULT_MAX_PIXELS

# Only formats whose decoders stay inside this process: Pillow would hand EPS to Ghostscript,
# whatever the file is called. AVIF stays last, see `open_picture`.
_INPUT_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")

_PILLOW_WARNINGS = r"PIL(\.|$)"
_quiet_lock = threading.Lock()
_quiet_depth = 0
_limit_lock = threading.Lock()


def printable(path: str | os.PathLike[str]) -> str:
    """Returns a path for a one-line message: line breaks and undecodable bytes are escaped."""
    text = os.fspath(path)
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


@contextlib.contextmanager
def opened(source: Source, max_pixels: int) -> Iterator[Image.Image]:
    """Opens a picture for decoding; whatever fails in the block becomes an `ImageError`.

    The block holds nothing but decoding: arguments are checked before, or the file gets the blame.
    """
    with _source_file(source) as (name, file):
        try:
            with _quiet_pillow():
                image = open_picture(file, max_pixels)
                if image.width * image.height > max_pixels:
                    raise Image.DecompressionBombError
                if _is_misread(image):
                    raise ImageError(
                        f"{name}: a TIFF of 16-bit planes without compression is not read; "
                        "save it with interleaved channels, or as PNG"
                    )
                yield image
        except ImageError:
            raise
        except UnidentifiedImageError as error:
            file.seek(0)
            raise ImageError(
                f"{name}: not a readable picture (it holds {_describe(file.read(256))}); "
                "give a JPEG, PNG, WebP, TIFF, BMP or GIF file"
            ) from error
        except Image.DecompressionBombError as error:
            raise ImageError(
                f"{name}: has more than the allowed {max_pixels:,} pixels; "
                "make it smaller, or raise max_pixels (--max-pixels) if you trust the file"
            ) from error
        except MemoryError as error:
            raise ImageError(
                f"{name}: too little memory to decode this picture; make it smaller"
            ) from error
        except Exception as error:
            # Decoders raise nearly anything on hostile files: OSError, SyntaxError, struct.error...
            raise ImageError(
                f"{name}: this picture is damaged or cut short ({reason_of(error)}); "
                "replace the file"
            ) from error


def _is_misread(image: Image.Image) -> bool:
    """Whether Pillow would take each 16-bit plane of an uncompressed TIFF for one of 8 bits."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    deep = max(image.tag_v2.get(258, (8,))) > 8
    return deep and image.tag_v2.get(284) == 2 and image.tag_v2.get(259, 1) == 1


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
            raise ImageError(f"{name}: cannot read this picture ({reason_of(error)})") from error
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
            f"{name}: cannot open this picture ({reason_of(error)}); check its path and permissions"
        ) from error


def _empty(name: str) -> ImageError:
    return ImageError(f"{name}: this picture is empty (0 bytes); replace the file")


def open_picture(file: BinaryIO, max_pixels: int) -> Image.Image:
    """Identifies a picture and reads its header, with Pillow's limit raised where asked for.

    Raises:
      UnidentifiedImageError: If it is of no known format.
    """
    try:
        if max_pixels <= _PILLOW_REFUSES_ABOVE:
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


def reason_of(error: BaseException) -> str:
    """Returns why something failed, in one short line."""
    text = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return " ".join(printable(text).split())[:200]
