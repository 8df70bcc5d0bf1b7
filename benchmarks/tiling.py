"""Time and peak memory of stylizing large pictures: whole, in exact tiles, in fast tiles.

    python benchmarks/tiling.py --sizes 1024 2048 4096 8192 --modes whole exact fast

Every case runs in a process of its own, whose peak resident memory is then its own, and prints one
JSON line. `relative` is its time per megapixel over that of a whole picture of 1024x1024 px, which
the same process times before and after, so that a machine busy with other work is told from a slow
engine. Pictures are smooth seeded noise; weights are fresh. Modes: `whole` is left out above
4096 px; `exact:PX` and `fast:PX` choose a tile's side.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time

import numpy as np
from common import peak_mb

LARGEST_WHOLE = 4096
REFERENCE = 1024


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """Returns smooth noise, uint8 [height, width, 3], made strip by strip."""
    from fast_style.resample import Resampler, pixels_like, strips

    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), np.uint8)
    resampler = Resampler(coarse, height, width)
    result = np.empty((height, width, 3), np.uint8)
    for rows in strips(height, width):
        values = resampler.rows(rows.start, rows.stop)
        values += rng.normal(0.0, 6.0, values.shape).astype(np.float32)
        result[rows] = pixels_like(values, result.dtype)
    return result


def seconds(run, repeats: int) -> list[float]:
    """Returns how long each call took."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return taken


def measure(arch: str, precision: str, mode: str, height: int, width: int, seed: int) -> dict:
    """Times one case in this process."""
    import tensorflow as tf

    from fast_style.checkpoints import Model
    from fast_style.hardware import describe_device
    from fast_style.stylize import Stylizer
    from fast_style.transform_net import init_weights

    model = Model(arch, 1.0, ("style",), init_weights(arch, seed=seed), {})
    stylizer = Stylizer(model, precision=precision)
    name, _, side = mode.partition(":")
    tile = {"whole": "off", "exact": int(side or 512), "fast": ("fast", int(side or 1024))}[name]
    small = picture(REFERENCE, REFERENCE, seed)

    def reference() -> None:
        stylizer.stylize(small, tile="off")

    # Traces the graphs; for tiles, of the shapes that the picture will have, more or less.
    reference()
    warm_up = small if name != "exact" else small[: REFERENCE // 2, : REFERENCE // 2 + 1]
    stylizer.stylize(warm_up, tile={"exact": 256, "fast": ("fast", 512)}.get(name, "off"))
    before = seconds(reference, 3)
    reference_peak = peak_mb()
    large = picture(height, width, seed)
    result = np.empty_like(large)
    start = time.perf_counter()
    stylizer.stylize(large, tile=tile, out=result)
    taken = time.perf_counter() - start
    after = seconds(reference, 2)
    megapixels = height * width / 1e6
    per_megapixel = float(np.median(before + after)) / (REFERENCE**2 / 1e6)
    return {
        "arch": arch,
        "precision": stylizer.precision,
        "mode": mode,
        "height": height,
        "width": width,
        "seed": seed,
        "seconds": round(taken, 2),
        "seconds_per_megapixel": round(taken / megapixels, 3),
        "reference_seconds": [round(value, 2) for value in before + after],
        "relative": round(taken / megapixels / per_megapixel, 2),
        "peak_mb": round(peak_mb()),
        "reference_peak_mb": round(reference_peak),
        "temporary_gb": round(stylizer.temporary_bytes(height, width) / 1e9, 2)
        if name == "exact"
        else 0.0,
        "mean_level": round(float(result[::8, ::8].mean()), 2),
        "device": describe_device(),
        "tensorflow": tf.__version__,
        "python": platform.python_version(),
        "temporary_folder": tempfile.gettempdir(),
    }


def main() -> int:
    """Runs every case in a process of its own."""
    parser = argparse.ArgumentParser(
        description="Time and peak memory of stylizing large pictures."
    )
    parser.add_argument(
        "--sizes", nargs="+", default=["1024", "2048", "4096", "8192"], help="N or HxW, in px"
    )
    parser.add_argument("--modes", nargs="+", default=["whole", "exact", "fast"])
    parser.add_argument("--arch", default="johnson")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        mode, height, width = options.case
        print(
            json.dumps(
                measure(
                    options.arch, options.precision, mode, int(height), int(width), options.seed
                )
            )
        )
        return 0
    failed = 0
    for size in options.sizes:
        height, _, width = size.partition("x")
        width = width or height
        for mode in options.modes:
            if mode == "whole" and int(height) * int(width) > LARGEST_WHOLE**2:
                continue
            settings = ["--arch", options.arch, "--precision", options.precision]
            case = ["--seed", str(options.seed), "--case", mode, height, width]
            failed += subprocess.run([sys.executable, __file__, *settings, *case]).returncode != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
