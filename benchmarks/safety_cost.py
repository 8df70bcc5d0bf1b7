"""Times what watching its numbers costs a run: `python benchmarks/safety_cost.py`.

Two steps in turns, of the same nets with the same photos: that of train.py, which takes the norm of
every gradient, shortens those that are longer than usual, changes nothing if a number is not
finite, and tells; and a bare one of loss, gradients and Adam. Checkpoints are timed too, as a share
of the steps between two of them. Prints one line of JSON each.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    common_arguments,
    emit,
    interleaved,
    run_default,
    set_threads,
    training_objective,
    wait,
)


def main() -> None:
    """Measures both steps and a checkpoint."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0] + ".")
    common_arguments(parser, rounds=15)
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--loss-model-file", help="VGG16's weights (default: random ones)")
    options = parser.parse_args()
    set_threads(options.threads)

    import tensorflow as tf

    from fast_style import objective as tags
    from fast_style.checkpoints import save_checkpoint
    from fast_style.hardware import resolve_precision
    from fast_style.health import TakenStep
    from fast_style.train_state import StepSettings, TrainState, make_train_step
    from fast_style.transform_net import init_weights, transform

    precision = resolve_precision("auto")
    size, batch = options.image_size, options.batch_size
    objective, photos = training_objective(options, precision)
    styles = np.ones((batch, 1), np.float32)
    watched_state, bare_state = (
        TrainState(init_weights("johnson", seed=options.seed)) for _ in range(2)
    )
    step = make_train_step(
        watched_state,
        objective,
        StepSettings(
            arch="johnson",
            precision=precision,
            learning_rate=run_default("learning_rate"),
            image_size=size,
            gradient_clip=run_default("gradient_clip"),
        ),
        batch_size=batch,
    )

    def watched() -> None:
        taken = TakenStep(1, photos, styles, *step(photos, styles)[::2])
        if not taken.finite:
            raise SystemExit("the step is not finite: nothing to measure")

    @tf.function(autograph=False)
    def bare_step(pictures: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(bare_state.weights)
            styled = transform(
                "johnson", bare_state.weights, pictures, tf.constant(styles), dtype=precision
            )
            total = objective.score(styled, pictures, tf.constant(styles))[tags.TOTAL]
        gradients: dict[str, Any] = tape.gradient(total, bare_state.weights)
        rates = dict.fromkeys(gradients, run_default("learning_rate"))
        with tf.control_dependencies(bare_state.update(gradients, rates)):
            return tf.identity(total)

    times = interleaved(
        {"watched": watched, "bare": lambda: wait(bare_step(tf.constant(photos)))},
        rounds=options.rounds,
        warmup=options.warmup,
    )
    settings = {"precision": precision, "image_size": size, "batch_size": batch}
    found = {name: value.summary() for name, value in times.items()}
    for name, summary in found.items():
        emit("safety_cost", f"step, {name}", summary, **settings)
    share = {
        key: round(found["watched"][key] / found["bare"][key] - 1.0, 4)
        for key in ("seconds", "cpu_seconds", "least")
    }
    emit("safety_cost", "watched / bare - 1", share, **settings)

    with tempfile.TemporaryDirectory() as folder:
        steps = iter(range(1, 1000))
        saved = interleaved(
            {
                "checkpoint": lambda: save_checkpoint(
                    Path(folder), next(steps), watched_state.tensors(), {}, keep=2
                )
            },
            rounds=5,
            warmup=1,
        )["checkpoint"].summary()
    between = run_default("checkpoint_every_steps") * found["bare"]["seconds"]
    saved["share_of_steps_between"] = round(saved["seconds"] / between, 6)
    emit("safety_cost", "checkpoint", saved, **settings)


if __name__ == "__main__":
    main()
