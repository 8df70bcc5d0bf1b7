"""Times exported files beside the native net: `python benchmarks/runtimes.py --model models/candy`.

The files are those of `export.py`: ONNX in ONNX Runtime, TFLite in LiteRT, the SavedModel in
TensorFlow. From uint8 array to uint8 array, warm, in turns in one process, each runtime with as
many threads. Prints one JSON line per runtime, then how the native net compares with the fastest
of the foreign ones.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from common import Times, common_arguments, emit, interleaved, random_photos, set_threads

if TYPE_CHECKING:
    from fast_style.checkpoints import Model
    from fast_style.parity import Run


def main() -> None:
    """Reads the command line, exports the model, and measures each size in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    common_arguments(parser, rounds=7)
    parser.add_argument("--model", help="a trained model (default: random weights)")
    parser.add_argument("--arch", default="johnson", help="of random weights")
    parser.add_argument("--sizes", type=int, nargs="+", default=[512], metavar="PX")
    options = parser.parse_args()
    threads = options.threads or os.cpu_count() or 1
    set_threads(threads)

    from fast_style.checkpoints import Model, load_model
    from fast_style.transform_net import init_weights

    if options.model:
        model = load_model(options.model)
    else:
        weights = init_weights(options.arch, seed=options.seed)
        model = Model(options.arch, 1.0, ("random",), weights)
    with tempfile.TemporaryDirectory() as folder:
        runs = runtimes(model, Path(folder), threads)
        first = np.eye(1, len(model.style_names), dtype=np.float32)[0]
        for size in options.sizes:
            photo = random_photos(1, size, options.seed)[0]
            times = interleaved(
                {
                    name: lambda run=run, photo=photo: run(photo, first)
                    for name, run in runs.items()
                },
                rounds=options.rounds,
                warmup=options.warmup,
            )
            settings = {"size": size, "arch": model.arch, "width": model.width, "threads": threads}
            for name, measured in times.items():
                emit("runtimes", name, measured.summary(), **settings)
            for name in times:
                if name.startswith("native"):
                    emit("runtimes", f"fastest / {name}", compared(times, name), **settings)


def runtimes(model: Model, folder: Path, threads: int) -> dict[str, Run]:
    """Exports a model, and returns what stylizes a picture in each runtime."""
    from fast_style.lite_export import tflite_runner, write_tflite
    from fast_style.onnx_export import onnx_runner, write_onnx
    from fast_style.saved_model import saved_model_signatures, write_saved_model
    from fast_style.stylize import Stylizer

    runs: dict[str, Run] = {}
    for precision in ("float32", "bfloat16"):
        stylizer = Stylizer(model, precision=precision)
        runs[f"native {precision}"] = lambda photo, mix, s=stylizer: s.stylize(
            photo, style_weights=list(mix), tile="off"
        )
    write_saved_model(model, folder / "1", name="model", precision="float32", card={})
    runs["savedmodel float32"] = saved_model_signatures(folder / "1")[0].run
    write_onnx(model, folder / "model.onnx", card={})
    runs["onnx float32"] = onnx_runner(folder / "model.onnx", threads=threads)
    for storage in ("float16", "int8"):
        path = folder / f"{storage}.tflite"
        write_tflite(model, path, storage=storage)
        runs[f"tflite {storage}"] = tflite_runner(path, threads=threads)
    return runs


def compared(times: dict[str, Times], name: str) -> dict[str, float | str]:
    """Says how many times as fast as the fastest foreign runtime a native net is."""
    foreign = {key: t.summary() for key, t in times.items() if key.startswith(("onnx", "tflite"))}
    ours = times[name].summary()
    found: dict[str, float | str] = {}
    for measure in ("seconds", "cpu_seconds", "least"):
        fastest = min(foreign, key=lambda key: foreign[key][measure])
        found[measure] = round(foreign[fastest][measure] / ours[measure], 2)
        found[f"{measure}_of"] = fastest
    return found


if __name__ == "__main__":
    main()
