"""Paints the style pictures: `python data/styles/paint.py [NAME ...] [--size N] [--seed N]`."""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from painters.candy import paint_candy
from painters.cubist import paint_cubist
from painters.feathers import paint_feathers
from painters.mosaic import paint_mosaic
from painters.scream import paint_scream
from painters.starry import paint_denoised_starry
from painters.udnie import paint_udnie
from painters.wave import paint_wave
from PIL import Image

Painter = Callable[[int, np.random.Generator], np.ndarray]

PAINTERS: dict[str, Painter] = {
    "candy": paint_candy,
    "cubist": paint_cubist,
    "denoised_starry": paint_denoised_starry,
    "feathers": paint_feathers,
    "mosaic": paint_mosaic,
    "scream": paint_scream,
    "udnie": paint_udnie,
    "wave": paint_wave,
}

# A style picture this large is kept at a lower JPEG quality instead.
MOST_BYTES = 900_000
QUALITIES = (92, 90, 88, 85, 80)


def paint(name: str, size: int, seed: int) -> np.ndarray:
    """Returns a picture of the table, uint8 [H, W, 3], its long side `size` pixels.

    The name takes part in the seed, so that pictures do not share their noise.
    """
    return PAINTERS[name](size, np.random.default_rng([seed, zlib.crc32(name.encode())]))


def encode(picture: np.ndarray) -> bytes:
    """Returns the picture as a JPEG file, of the best quality that stays within MOST_BYTES."""
    data = b""
    for quality in QUALITIES:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=quality, optimize=True)
        data = buffer.getvalue()
        if len(data) <= MOST_BYTES:
            break
    return data


def main(arguments: list[str] | None = None) -> int:
    """Paints what the command line asks for and returns the exit code."""
    parser = argparse.ArgumentParser(description="Paint the style pictures.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"among {', '.join(PAINTERS)}")
    parser.add_argument("--size", type=int, default=1280, help="long side in pixels (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="another seed, another picture")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent, metavar="DIR")
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in PAINTERS:
            parser.error(f"no picture {name!r}; choose among {', '.join(PAINTERS)}")
    if options.size < 64:
        parser.error(f"--size must be at least 64, got {options.size}")
    if options.seed < 0:
        parser.error(f"--seed must be at least 0, got {options.seed}")
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        for name in options.names or PAINTERS:
            started = time.perf_counter()
            data = encode(paint(name, options.size, options.seed))
            path = options.output / f"{name}.jpg"
            aside = path.with_suffix(".part")
            aside.write_bytes(data)
            os.replace(aside, path)
            seconds = time.perf_counter() - started
            print(f"{path}: {len(data) / 1000:.0f} kB, painted in {seconds:.0f} s")
    except OSError as error:
        print(f"{options.output}: cannot be written ({error.strerror})", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
