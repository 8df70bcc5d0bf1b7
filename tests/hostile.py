"""Picture files that break programs, made on the spot."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import tiny
from PIL import Image, ImageCms

from fast_style.deep_colour import write_png, write_tiff

HEIGHT, WIDTH = 17, 23


def picture(seed: int = 0) -> np.ndarray:
    return tiny.smooth_picture(HEIGHT, WIDTH, seed)


def deep_picture(channels: int = 3) -> np.ndarray:
    """uint16 whose upper and lower bytes both vary."""
    rng = np.random.default_rng(5)
    smooth = tiny.smooth_picture(HEIGHT, WIDTH, 3).astype(np.uint16) << 8
    values = smooth | rng.integers(0, 256, smooth.shape, dtype=np.uint16)
    if channels == 4:
        return np.dstack([values, rng.integers(0, 65536, (HEIGHT, WIDTH), dtype=np.uint16)])
    return values[..., :channels]


def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped_profile() -> bytes:
    """An RGB profile in which red and green mean each other: tags rXYZ and gXYZ trade places."""
    profile = srgb()
    count = int.from_bytes(profile[128:132], "big")
    table = bytearray(profile)
    for entry in range(132, 132 + 12 * count, 12):
        name = profile[entry : entry + 4]
        swapped = {b"rXYZ": b"gXYZ", b"gXYZ": b"rXYZ"}.get(name)
        if swapped:
            table[entry : entry + 4] = swapped
    return bytes(table)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def png(width: int, height: int, depth: int, kind: int, rows: bytes, *chunks: bytes) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    extra = b"".join(chunk(part[:4], part[4:]) for part in chunks)
    data = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows, 9))
    return b"\x89PNG\r\n\x1a\n" + data + chunk(b"IEND", b"")


def bomb(side: int = 10_000) -> bytes:
    """A white picture of side x side pixels, 1 bit each: some kilobytes."""
    return png(side, side, 1, 0, (b"\0" + b"\xff" * ((side + 7) // 8)) * side)


def deep_png(channels: int = 3) -> bytes:
    file = io.BytesIO()
    write_png(file, deep_picture(channels))
    return file.getvalue()


def deep_tiff(channels: int = 3) -> bytes:
    file = io.BytesIO()
    write_tiff(file, deep_picture(channels))
    return file.getvalue()


def float_tiff() -> bytes:
    values = picture()[..., 0].astype(np.float32) / 255.0
    return encoded(Image.fromarray(values), "TIFF")


def animation(form: str) -> bytes:
    frames = [Image.fromarray(picture(seed)) for seed in (0, 1, 2)]
    options: dict[str, object] = {"lossless": True} if form == "WEBP" else {}
    return encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)


def transparent_palette() -> bytes:
    image = Image.fromarray(picture()).quantize(9)
    return encoded(image, "PNG", transparency=bytes([0, 128] + [255] * 7))


def make_all(folder: Path) -> dict[str, Path]:
    """Writes one of each into `folder`; {what it is: its path}."""
    rgb = Image.fromarray(picture())
    contents: dict[str, tuple[str, bytes]] = {
        "truncated JPEG": ("cut.jpg", encoded(rgb.resize((300, 200)), "JPEG")[:3000]),
        "zero bytes": ("empty.jpg", b""),
        "nothing but zeros": ("zeros.png", bytes(1000)),
        "text": ("text.jpg", b"dear diary,\n"),
        "CMYK": ("cmyk.jpg", encoded(rgb.convert("CMYK"), "JPEG")),
        "one pixel": ("dot.png", encoded(rgb.crop((0, 0, 1, 1)), "PNG")),
        "sliver": ("sliver.png", encoded(rgb.resize((5000, 1)), "PNG")),
        "transparent palette": ("palette.png", transparent_palette()),
        "animated GIF": ("moving.gif", animation("GIF")),
        "animated WebP": ("moving.webp", animation("WEBP")),
        "bomb": ("bomb.png", bomb()),
        "16-bit grey PNG": ("grey.png", encoded(Image.fromarray(deep_picture()[..., 0]), "PNG")),
        "16-bit RGB PNG": ("deep.png", deep_png()),
        "16-bit RGBA TIFF": ("deep.tif", deep_tiff(4)),
        "unusual profile": ("swapped.png", encoded(rgb, "PNG", icc_profile=swapped_profile())),
        "damaged profile": ("badicc.png", encoded(rgb, "PNG", icc_profile=srgb()[:200])),
        "rubbish as EXIF": ("badexif.jpg", encoded(rgb, "JPEG", exif=b"Exif\0\0" + b"rubbish" * 9)),
        "one bit": ("bits.png", encoded(rgb.convert("1"), "PNG")),
        "float TIFF": ("float.tif", float_tiff()),
        "name with a line break": ("two\nlines.png", encoded(rgb, "PNG")),
    }
    paths = {}
    for what, (name, data) in contents.items():
        paths[what] = folder / name
        paths[what].write_bytes(data)
    paths["folder named as a picture"] = folder / "folder.jpg"
    (folder / "folder.jpg").mkdir()
    rgb.save(folder / "folder.jpg" / "inside.png")
    paths["pipe"] = folder / "pipe.jpg"
    os.mkfifo(paths["pipe"])
    paths["unreadable"] = folder / "secret.jpg"
    rgb.save(paths["unreadable"])
    paths["unreadable"].chmod(0)
    paths["link to itself"] = folder / "loop.jpg"
    paths["link to itself"].symlink_to("loop.jpg")
    return paths


def grey_profile(gamma: float) -> bytes:
    """The least that an ICC profile of grey needs (ICC.1:2022, 8.3): a curve and a white point."""
    white = struct.pack(">iii", 63190, 65536, 54061)  # D50 in s15Fixed16.
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    text = (
        b"mluc"
        + bytes(4)
        + struct.pack(">II2s2sII", 1, 12, b"en", b"US", 2, 28)
        + b"\0g"
        + bytes(2)
    )
    parts = [(b"wtpt", b"XYZ " + bytes(4) + white), (b"kTRC", curve), (b"desc", text),
             (b"cprt", text)]  # fmt: skip
    table, body = struct.pack(">I", len(parts)), b""
    start = 128 + 4 + 12 * len(parts)
    for name, data in parts:
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data
    header = bytearray(128)
    header[0:4] = struct.pack(">I", start + len(body))
    header[8:12] = bytes([4, 0x20, 0, 0])
    header[12:24] = b"mntrGRAYXYZ "
    header[36:40] = b"acsp"
    header[68:80] = white
    return bytes(header) + table + body
