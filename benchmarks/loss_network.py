"""Does a net trained with vgg_mini satisfy VGG16 as well as one trained with VGG16 itself?

Two runs of the same style for the same number of steps, differing in their loss network alone.
Both nets are then scored on held-out photos *with the teacher's losses*; the pictures of all their
checkpoints are scored by both networks, to see how well the verdicts agree; and a step and its
losses are timed with both.

    python benchmarks/loss_network.py --photos DIR --held-out DIR --teacher-file vgg_16.ckpt \
        --style painting.jpg --style-weight 220 -o OUT

Started again, it goes on where it was stopped. Prints one line of JSON for each part and leaves the
two models and `pictures.jpg`, photo, vgg_mini's and VGG16's side by side, in OUT.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import CONTENT_LAYERS, STYLE_LAYERS, emit, interleaved

ROOT = Path(__file__).resolve().parents[1]
STAGES = 6
_TIMED_BATCH = 4


def main() -> None:
    """Runs all parts."""
    options = _arguments()
    folder = Path(options.output)
    models = {name: _train(options, name, folder) for name in ("vgg_16", "vgg_mini")}
    _score(options, folder, models)
    _time(options)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--photos", required=True, help="a folder to train on")
    parser.add_argument("--held-out", required=True, help="a folder to score on")
    parser.add_argument("--teacher-file", required=True, help="weights of VGG16")
    parser.add_argument("--mini-file", default=str(ROOT / "pretrained/vgg_mini.safetensors"))
    parser.add_argument("--style", required=True)
    parser.add_argument("--style-weight", type=float, default=220.0)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=4, help="of the trainings")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--rounds", type=int, default=10, help="repetitions of a timing")
    parser.add_argument("-o", "--output", required=True)
    return parser.parse_args()


def _train(options: argparse.Namespace, loss_model: str, folder: Path) -> Path:
    """Trains, or goes on, and returns the run's folder."""
    file = options.mini_file if loss_model == "vgg_mini" else options.teacher_file
    settings = {
        "naming": loss_model,
        "model_path": folder,
        "style_image": options.style,
        "style_weight": options.style_weight,
        "dataset": options.photos,
        "loss_model": loss_model,
        "loss_model_file": file,
        "image_size": options.image_size,
        "batch_size": options.batch_size,
        "steps": options.steps,
        "precision": options.precision,
        # What a loss network sees of grids and borders is of interest.
        "grid_weight": 0.0,
        "border_weight": 0.0,
        # As when the figures of README.md were measured.
        "learning_rate": 0.001,
        "learning_rate_schedule": "cosine",
        "init_from": "null",  # What comes along was trained with vgg_mini.
        "checkpoint_every_steps": max(1, options.steps // STAGES),
        "keep_checkpoints": STAGES + 1,
        "log_every_steps": 50,
    }
    command = [sys.executable, str(ROOT / "train.py"), "-c", str(ROOT / "conf/wave.yml")]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return folder / loss_model


def _networks(options: argparse.Namespace, precision: str) -> dict[str, Any]:
    from fast_style.loss_net import build_loss_network

    files = {"vgg_mini": options.mini_file, "vgg_16": options.teacher_file}
    return {
        name: build_loss_network(name, file, STYLE_LAYERS, dtype=precision)  # type: ignore[arg-type]
        for name, file in files.items()
    }


def _objectives(options: argparse.Namespace, precision: str) -> dict[str, Any]:
    from fast_style.images import cover_crop, read_opaque
    from fast_style.objective import Objective, style_grams

    style = cover_crop(read_opaque(options.style), options.image_size)
    return {
        name: Objective(
            network,
            CONTENT_LAYERS,
            style_grams(network, STYLE_LAYERS, [style]),
            np.array([options.style_weight], np.float32),
            1.0,
            0.0,
        )
        for name, network in _networks(options, precision).items()
    }


def _score(options: argparse.Namespace, folder: Path, models: dict[str, Path]) -> None:
    """Scores the pictures of all checkpoints by both networks."""
    import tensorflow as tf

    import fast_style
    from fast_style import objective as tags
    from fast_style.data import find_photos, read_crops
    from fast_style.distill_report import agreements
    from fast_style.images import write_image

    objectives = _objectives(options, "float32")
    photos = read_crops(find_photos(options.held_out), options.image_size, limit=18)
    columns = [tags.TOTAL, tags.CONTENT, *(tags.STYLE_LAYER + layer for layer in STYLE_LAYERS)]
    rows: dict[str, list[list[float]]] = {name: [] for name in objectives}
    totals: dict[tuple[str, str], list[dict[str, float]]] = {}
    last: dict[str, Sequence[np.ndarray]] = {}
    for trained_with, run in models.items():
        for checkpoint in sorted(run.glob("*.index"), key=lambda path: path.stat().st_mtime):
            prefix = str(checkpoint).removesuffix(".index")
            model = fast_style.load(prefix, precision="float32")
            styled = last[trained_with] = model.stylize(photos)
            for judge, objective in objectives.items():
                found = totals[trained_with, judge] = []
                for photo, picture in zip(photos, styled, strict=True):
                    terms = objective.score(
                        tf.constant(picture[None], tf.float32),
                        tf.constant(photo[None]),
                        tf.ones([1, 1]),
                    )
                    found.append({tag: float(value) for tag, value in terms.items()})
                    rows[judge].append([found[-1][column] for column in columns])
    own, teacher = (np.array(rows[name]) for name in ("vgg_mini", "vgg_16"))
    names = ("total", "content", *(f"style {layer.split('/')[-1]}" for layer in STYLE_LAYERS))
    for term, found in agreements(names, own, teacher).items():
        _report(
            "verdicts",
            term=term,
            triples=len(own),
            rank_correlation=round(found.rank_correlation, 4),
            median_ratio=round(found.ratio, 3),
        )
    shown = (tags.TOTAL, tags.CONTENT, tags.STYLE)
    means = {
        key: {tag: float(np.mean([item[tag] for item in found])) for tag in shown}
        for key, found in totals.items()
    }
    for (trained_with, judge), mean in means.items():
        _report("held out", trained_with=trained_with, judge=judge, **_rounded(mean))
    ratio = means["vgg_mini", "vgg_16"][tags.TOTAL] / means["vgg_16", "vgg_16"][tags.TOTAL]
    _report("vgg_mini against vgg_16, judged by vgg_16", total_ratio=round(ratio, 4))
    strips = [
        np.concatenate([photo, *(last[name][index] for name in models)], axis=1)
        for index, photo in enumerate(photos[:6])
    ]
    write_image(folder / "pictures.jpg", np.concatenate(strips, axis=0))


def _time(options: argparse.Namespace) -> None:
    """Times the losses with their gradient by the pictures, and whole steps."""
    import tensorflow as tf

    from fast_style import objective as tags
    from fast_style.hardware import resolve_precision
    from fast_style.train_state import StepSettings, TrainState, make_train_step
    from fast_style.transform_net import init_weights

    precision = resolve_precision(options.precision)
    size = options.image_size
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 256, (_TIMED_BATCH, size, size, 3), dtype=np.uint8)
    ones = tf.ones([_TIMED_BATCH, 1])
    candidates = {}
    for name, objective in _objectives(options, precision).items():

        def losses(objective: Any = objective) -> Any:
            @tf.function(autograph=False)
            def evaluate(styled: tf.Tensor):
                with tf.GradientTape() as tape:
                    tape.watch(styled)
                    terms = objective.score(styled, tf.constant(photos), ones)
                return tape.gradient(terms[tags.TOTAL], styled)

            styled = tf.constant(photos[:, ::-1], tf.float32)
            return lambda: evaluate(styled).numpy()

        step = make_train_step(
            TrainState(init_weights("johnson", width=1.0, styles=1, seed=0)),
            objective,
            StepSettings(
                arch="johnson",
                precision=precision,
                learning_rate=1e-3,
                image_size=size,
                gradient_clip=1.5,
            ),
            batch_size=_TIMED_BATCH,
        )

        def whole(step: Any = step) -> Any:
            found, _, _ = step(tf.constant(photos), ones)
            return found[tags.TOTAL].numpy()

        candidates[f"losses with {name}"] = losses()
        candidates[f"step with {name}"] = whole
    times = interleaved(candidates, rounds=options.rounds)
    for name, found in times.items():
        _report(
            name, precision=precision, image_size=size, batch_size=_TIMED_BATCH, **found.summary()
        )
    for part in ("losses", "step"):
        slow, fast = times[f"{part} with vgg_16"], times[f"{part} with vgg_mini"]
        _report(
            f"{part}: vgg_16 over vgg_mini",
            ratio=round(slow.median / fast.median, 3),
            cpu_ratio=round(slow.summary()["cpu_seconds"] / fast.summary()["cpu_seconds"], 3),
        )


def _report(what: str, **values: Any) -> None:
    emit("loss_network", what, values)


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {tag.split("/")[-1]: round(value, 1) for tag, value in values.items()}


if __name__ == "__main__":
    main()
