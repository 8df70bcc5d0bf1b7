"""How much of the bare net's throughput a folder of pictures reaches, reading and writing included.

Prints one JSON line. In turns, so that both see the same machine: the net on decoded pictures in
memory, and the pipeline of `eval.py` from files to files.

    python benchmarks/folder.py --photos photos --count 300 --model models/candy
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import peak_mb
from PIL import Image

from fast_style.data import find_photos
from fast_style.images import read_image
from fast_style.jobs import Job
from fast_style.pipeline import run_jobs
from fast_style.terminal import import_tensorflow

SUFFIXES = (".jpg", ".jpg", ".jpg", ".png", ".jpg", ".webp", ".jpg", ".tif")
SIZES = ((500, 375), (375, 500), (640, 480), (500, 333), (800, 600))


def make_folder(folder: Path, photos: Path | None, count: int, seed: int) -> list[Path]:
    """Writes mixed pictures: of all formats, five of eight JPEG; of several sizes."""
    rng = np.random.default_rng(seed)
    originals = find_photos(photos) if photos is not None else ()
    paths = []
    for number in range(count):
        if originals:
            image = Image.fromarray(read_image(originals[number % len(originals)]))
        else:
            coarse = rng.integers(0, 256, (12, 9, 3), dtype=np.uint8)
            size = SIZES[number % len(SIZES)]
            image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        path = folder / f"{number:04}{SUFFIXES[number % len(SUFFIXES)]}"
        image.save(path)
        paths.append(path)
    return paths


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--photos", type=Path, help="real photos (default: smooth noise)")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--model", help="a trained model (default: an untrained johnson)")
    parser.add_argument("--width", type=float, default=1.0, help="of the untrained net")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--rounds", type=int, default=3, help="the pictures are split into so many")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    import_tensorflow()
    import tensorflow as tf

    from fast_style.checkpoints import Model, load_model
    from fast_style.stylize import Stylizer
    from fast_style.transform_net import init_weights

    if options.model:
        model = load_model(options.model)
    else:
        weights = init_weights("johnson", width=options.width, seed=options.seed)
        model = Model("johnson", options.width, ("untrained",), weights, {})
    stylizer = Stylizer(model, precision=options.precision)

    def net(images: list[np.ndarray]) -> list[np.ndarray]:
        return stylizer.stylize(images)

    bare, whole = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = make_folder(folder, options.photos, options.count, options.seed)
        net([read_image(path) for path in paths[:2]])  # Traces and warms up.
        pixels = 0
        for first in range(options.rounds):
            part = paths[first :: options.rounds]
            pictures = [read_image(path) for path in part]
            pixels += sum(picture.shape[0] * picture.shape[1] for picture in pictures)
            began = time.perf_counter()
            for picture in pictures:
                net([picture])
            bare.append((time.perf_counter() - began) / len(part))
            del pictures
            jobs = [Job(path, folder / "out" / path.name) for path in part]
            began = time.perf_counter()
            outcomes = list(run_jobs(jobs, net))
            whole.append((time.perf_counter() - began) / len(part))
            failed = [str(outcome.error) for outcome in outcomes if outcome.error]
            if failed:
                sys.exit("\n".join(failed))
    ratios = [one / other for one, other in zip(bare, whole, strict=True)]
    gpus = tf.config.list_physical_devices("GPU")
    result = {
        "benchmark": "folder",
        "pictures": options.count,
        "megapixels_each": round(pixels / options.count / 1e6, 3),
        "photos": "real" if options.photos else "synthetic",
        "bare_pictures_per_second": round(1 / statistics.mean(bare), 3),
        "folder_pictures_per_second": round(1 / statistics.mean(whole), 3),
        "share_of_bare": round(statistics.mean(bare) / statistics.mean(whole), 3),
        "share_of_bare_by_round": [round(ratio, 3) for ratio in ratios],
        "peak_memory_mb": round(peak_mb()),
        "arch": model.arch,
        "precision": stylizer.precision,
        "device": "GPU" if gpus else f"CPU, {os.cpu_count()} cores, {platform.machine()}",
        "tensorflow": tf.__version__,
        "seed": options.seed,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
