"""Times photos on their way to the step: `python benchmarks/input_pipeline.py`.

Reads 640x480 JPEGs and their prepared form as fast as a `PhotoStream` can, and, with `--step`,
measures which share of training is spent waiting for them. Prints one JSON line per measurement.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from common import Times, common_arguments, emit, random_photos
from PIL import Image


def main() -> None:
    """Reads the command line and measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    common_arguments(parser, rounds=5)
    parser.add_argument("--photos", help="a folder of photos (default: noisy 640x480 JPEGs)")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--batches", type=int, default=40, help="batches per repetition")
    parser.add_argument(
        "--step",
        type=float,
        metavar="SECONDS",
        help="the step's processor time on two cores: shows the wait beside a step of that length",
    )
    options = parser.parse_args()

    from fast_style.data import find_photos
    from fast_style.prepare import prepare_photos

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(options.photos) if options.photos else _make_photos(Path(scratch), options)
        prepared = Path(scratch) / "prepared"
        began = time.perf_counter()
        made = prepare_photos(folder, prepared, size=options.image_size)
        seconds = round(time.perf_counter() - began, 3)
        emit("input_pipeline", "prepare", {"seconds": seconds, "photos": made.photos})
        kinds = {"JPEG": find_photos(folder), "prepared": find_photos(prepared)}
        times = {kind: Times() for kind in kinds}
        for _ in range(options.rounds):
            for kind, paths in kinds.items():
                wall, cpu = _read(paths, options)
                times[kind].wall.append(wall)
                times[kind].cpu.append(cpu)
        count = options.batches * options.batch_size
        for kind, measured in times.items():
            summary = measured.summary()
            rates = {
                "images_per_second": round(count / summary["seconds"], 1),
                "cpu_milliseconds_per_image": round(1e3 * summary["cpu_seconds"] / count, 3),
            }
            emit("input_pipeline", f"read {kind}", summary | rates, image_size=options.image_size)
        if options.step:
            for kind, paths in kinds.items():
                share = _wait_share(paths, options)
                emit("input_pipeline", f"wait for {kind}", share, step_seconds=options.step)


def _make_photos(folder: Path, options: argparse.Namespace) -> Path:
    """Writes 64 JPEGs of 640x480 px with detail down to the pixel, of a usual file size."""
    photos = folder / "photos"
    photos.mkdir()
    rng = np.random.default_rng(options.seed)
    for index in range(64):
        smooth = random_photos(1, 640, options.seed + index)[0, :480]
        noisy = np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(photos / f"{index:03}.jpg", quality=90)
    return photos


def _read(paths: tuple[Path, ...], options: argparse.Namespace) -> tuple[float, float]:
    from fast_style.data import PhotoStream

    wall, cpu = time.perf_counter(), time.process_time()
    with PhotoStream(
        paths,
        image_size=options.image_size,
        batch_size=options.batch_size,
        seed=options.seed,
        stop_step=options.batches,
    ) as stream:
        for _ in stream:
            pass
    return time.perf_counter() - wall, time.process_time() - cpu


def _wait_share(paths: tuple[Path, ...], options: argparse.Namespace) -> dict[str, float]:
    """Measures the wait while matrix products keep all cores as busy as a step would."""
    import tensorflow as tf

    from fast_style.data import PhotoStream

    a = tf.random.stateless_normal([1024, 1024], (options.seed, 0))

    def step() -> None:
        # Until the work of a step is done, not until its time is over: readers take their share.
        busy = time.process_time() + options.step
        while time.process_time() < busy:
            (a @ a)[0, 0].numpy()

    steps = max(5, options.batches // 4)
    with PhotoStream(
        paths,
        image_size=options.image_size,
        batch_size=options.batch_size,
        seed=options.seed,
        stop_step=steps + 1,
    ) as stream:
        next(stream)
        before, began = stream.waited_seconds, time.perf_counter()
        for _ in stream:
            step()
        elapsed = time.perf_counter() - began
        waited = stream.waited_seconds - before
    return {"share": round(waited / elapsed, 5), "waited": round(waited, 5), "steps": steps}


if __name__ == "__main__":
    main()
