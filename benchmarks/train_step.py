"""Times a training step: `python benchmarks/train_step.py --reference --convolutions --profile`.

Prints one JSON line per measurement. The step is the one that train.py runs, photos included as
uint8 arrays; reading them is measured by input_pipeline.py.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
from common import (
    common_arguments,
    emit,
    interleaved,
    peak_mb,
    random_photos,
    run_default,
    set_threads,
    training_objective,
    vgg16_file,
    wait,
)


def main() -> None:
    """Reads the command line and measures what it asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    common_arguments(parser, rounds=7)
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--arch", default="johnson")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--loss-model-file", help="VGG16's weights (default: random ones)")
    parser.add_argument("--reference", action="store_true", help="the plain float32 step, in turns")
    parser.add_argument(
        "--convolutions", action="store_true", help="the step's convolutions, one by one"
    )
    parser.add_argument("--profile", action="store_true", help="where the time of a step goes")
    parser.add_argument("--memory", action="store_true", help="peak memory, in a child process")
    parser.add_argument("--peak-of", choices=["ours", "reference"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    set_threads(options.threads)
    if options.peak_of:
        print(_peak_megabytes(options))
        return
    settings = {
        name: getattr(options, name) for name in ("image_size", "batch_size", "arch", "width")
    }
    began, cpu = time.perf_counter(), time.process_time()
    step, _, precision = _ours(options)
    step()
    first = {
        "seconds": round(time.perf_counter() - began, 3),
        "cpu_seconds": round(time.process_time() - cpu, 3),
    }
    settings["precision"] = precision
    emit(
        "train_step",
        "imports, loss network, style targets, tracing and first step",
        first,
        **settings,
    )
    candidates: dict[str, Callable[[], object]] = {"step": step}
    if options.reference:
        candidates["reference"] = _reference(options)
    times = interleaved(candidates, rounds=options.rounds, warmup=options.warmup)
    for name, measured in times.items():
        rate = {"images_per_second": round(options.batch_size / measured.median, 3)}
        made = settings if name == "step" else {**settings, "arch": "2016", "precision": "float32"}
        emit("train_step", name, measured.summary() | rate, **made)
    if options.reference:
        ours, plain = times["step"].summary(), times["reference"].summary()
        ratio = {
            key: round(plain[key] / ours[key], 2) for key in ("seconds", "cpu_seconds", "least")
        }
        emit("train_step", "reference / step", ratio, **settings)
    if options.convolutions:
        from convolutions import time_convolutions

        from fast_style import winograd

        # All of them, each as one operation.
        with mock.patch.dict(os.environ, {winograd.SWITCH: "0"}):
            concrete = _ours(options)[1]
        alone = time_convolutions(concrete, rounds=options.rounds)
        # Once more beside the convolutions: what else the machine does changes by the minute.
        now = interleaved({"step": step}, rounds=options.rounds)["step"].summary()
        alone["step / convolutions"] = round(now["seconds"] / alone["seconds"], 3)
        alone["step / convolutions, cpu"] = round(now["cpu_seconds"] / alone["cpu_seconds"], 3)
        emit("train_step", "convolutions alone", alone, **settings)
    if options.profile:
        from profiling import breakdown

        emit("train_step", "profile", breakdown(step, options.rounds), **settings)
    if options.memory:
        for what in ("ours", "reference")[: 1 + options.reference]:
            command = [sys.executable, *sys.argv, "--peak-of", what]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            peak = {"megabytes_above_idle": float(output.split()[-1])}
            emit("train_step", f"peak memory, {what}", peak, **settings)


def _ours(options: argparse.Namespace) -> tuple[Callable[[], object], Any, str]:
    """Returns the step as a function without arguments, its concrete function, its precision."""
    from fast_style.hardware import resolve_precision
    from fast_style.train_state import StepSettings, TrainState, make_train_step
    from fast_style.transform_net import init_weights

    precision = resolve_precision(options.precision)
    objective, photos = training_objective(options, precision)
    state = TrainState(init_weights(options.arch, width=options.width, seed=options.seed))
    step = make_train_step(
        state,
        objective,
        StepSettings(
            arch=options.arch,
            precision=precision,
            learning_rate=run_default("learning_rate"),
            image_size=options.image_size,
            gradient_clip=run_default("gradient_clip"),
        ),
        batch_size=options.batch_size,
    )
    styles = np.ones((options.batch_size, 1), np.float32)
    return lambda: wait(step(photos, styles)[0]), step.get_concrete_function(), precision


def _reference(options: argparse.Namespace) -> Callable[[], object]:
    import reference

    from fast_style.loss_weights import read_weights

    file = vgg16_file(options.loss_model_file, options.seed)
    photos = random_photos(options.batch_size, options.image_size, options.seed)
    step = reference.make_train_step(read_weights(file, "vgg_16"), photos[0], seed=options.seed)
    return lambda: wait(step(photos))


def _peak_megabytes(options: argparse.Namespace) -> float:
    """Runs three steps and returns how far the peak lies above TensorFlow, imported and idle."""
    import tensorflow as tf

    wait(tf.zeros([8, 8]) @ tf.zeros([8, 8]))
    idle = peak_mb()
    step = _ours(options)[0] if options.peak_of == "ours" else _reference(options)
    for _ in range(3):
        step()
    return round(peak_mb() - idle, 1)


if __name__ == "__main__":
    main()
