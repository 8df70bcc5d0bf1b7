"""Times what L-BFGS waits for, loss and gradient of one picture: `python benchmarks/evaluation.py`.

In turns with the loss network alone, forward and back to the pixels, which is the least that any
such loss costs. Prints one JSON line per measurement.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from common import common_arguments, emit, interleaved, random_photos, set_threads, vgg16_file


def main() -> None:
    """Reads the command line and measures each precision in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    common_arguments(parser, rounds=15)
    parser.add_argument("--size", type=int, default=256, metavar="PX")
    parser.add_argument(
        "--precision", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"]
    )
    parser.add_argument("--loss-model-file", help="VGG16's weights (default: random ones)")
    options = parser.parse_args()
    set_threads(options.threads)

    import tensorflow as tf  # After `common` chose oneDNN.

    from fast_style.optimize import build_network, build_picture_loss
    from fast_style.optimize_config import OptimizeConfig
    from fast_style.picture_loss import make_evaluation

    size = options.size
    weights = vgg16_file(options.loss_model_file, options.seed)
    config = OptimizeConfig(loss_model_file=str(weights))
    photo, style = random_photos(2, size, options.seed)
    pixels = photo.astype(np.float32)
    for precision in options.precision:
        network = build_network(config, precision)
        loss = build_picture_loss(config, network, [style], (1.0,), size, size)
        evaluate = make_evaluation(loss, photo)

        @tf.function(input_signature=[tf.TensorSpec([size, size, 3])], autograph=False)
        def bare(picture: tf.Tensor, network=network) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(picture)
                deepest = network(picture[None])[config.style_layers[-1]]
                total = tf.reduce_sum(tf.cast(deepest, tf.float32))
            return tape.gradient(total, picture)

        times = interleaved(
            {
                "evaluation": lambda evaluate=evaluate: evaluate(pixels),
                "network alone": lambda bare=bare: np.asarray(bare(tf.constant(pixels))),
            },
            rounds=options.rounds,
            warmup=options.warmup,
        )
        settings = {"size": size, "precision": precision}
        for name, measured in times.items():
            emit("evaluation", name, measured.summary(), **settings)
        ours, least = (times[k].summary() for k in ("evaluation", "network alone"))
        ratio = {k: round(ours[k] / least[k], 3) for k in ("seconds", "cpu_seconds", "least")}
        emit("evaluation", "evaluation / network alone", ratio, **settings)


if __name__ == "__main__":
    main()
