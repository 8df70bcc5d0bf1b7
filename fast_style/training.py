"""Training a transform net: the loop, and what it reports and leaves behind.

`train` reads top to bottom as a run: check what the configuration names, resume or start, prepare
the targets, step, report, keep checkpoints. It prints nothing; a `TrainObserver` is told.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from fast_style import objective as tags
from fast_style.builders import (
    build_network,
    build_objective,
    check_resumable,
    describe_run,
    find_run_photos,
    initial_weights,
    load_style_pictures,
    preview_picture,
    total_steps,
)
from fast_style.checkpoints import (
    MODEL_FILE,
    Model,
    checkpoint_path,
    read_checkpoint,
    read_newest_checkpoint,
    remove_partial_files,
    save_checkpoint,
    save_model,
)
from fast_style.config import RunConfig
from fast_style.data import PhotoStream, read_crops
from fast_style.errors import FastStyleError
from fast_style.files import atomic_path, check_folder, make_folder
from fast_style.hardware import describe_device, resolve_precision
from fast_style.images import write_image
from fast_style.jobs import GENERATED_FOLDER
from fast_style.objective import Objective
from fast_style.stylize import stylize_batch
from fast_style.train_state import TrainState, make_score, make_train_step, style_choice
from fast_style.transform_net import init_weights, weight_count

PREVIEW_FILE = "preview.jpg"
VALIDATION_FILE = "validation.json"
HELD_OUT = 64  # At most so many held-out photos are scored at a checkpoint.
# Pictures are most of what TensorBoard keeps: a megabyte each time.
IMAGES_EVERY_SUMMARIES = 10
LAST_STEPS = 20  # A run's last losses are averaged over so many steps.


@dataclass(frozen=True)
class RunHeader:
    """What a run is about to do, told before its first step.

    Attributes:
      device: What computes.
      precision: 'float32' or 'bfloat16'.
      loss_model: Name of the loss network.
      loss_model_file: The weights file in use.
      photos: Number of training photos.
      steps: Steps at the end of the run.
      start_step: Steps already done.
      arch: Architecture of the transform net.
      weights: Its number of weights.
      folder: The run's folder.
      targets: Where the style pictures, as the loss network sees them, were written.
      notes: Sentences a person should read.
    """

    device: str
    precision: str
    loss_model: str
    loss_model_file: Path
    photos: int
    steps: int
    start_step: int
    arch: str
    weights: int
    folder: Path
    targets: tuple[Path, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class StepReport:
    """One finished step.

    Attributes:
      step: Steps done, this one included.
      losses: {TensorBoard tag: value}.
      images_per_second: Since the report before.
      waited: Share of that time spent waiting for photos, 0..1.
    """

    step: int
    losses: Mapping[str, float]
    images_per_second: float
    waited: float


@dataclass(frozen=True)
class TrainResult:
    """What a run left behind.

    Attributes:
      model: Path of the model file.
      steps: Steps done in all.
      first: Losses of this run's first step; empty if there was none.
      last: Losses averaged over its last 20 steps.
      seconds: Time spent in the loop.
      skipped: {photo: why it could not be read}.
      interrupted: Whether a person stopped it.
      converged: Whether it ended because held-out losses stopped improving.
    """

    model: Path
    steps: int
    first: Mapping[str, float]
    last: Mapping[str, float]
    seconds: float
    skipped: Mapping[Path, str]
    interrupted: bool = False
    converged: bool = False


class TrainObserver:
    """Is told what happens during a run; every method may be left as it is."""

    def on_start(self, header: RunHeader) -> None:
        """Called once, before the first step."""

    def on_log(self, report: StepReport) -> None:
        """Called every `log_every_steps` steps, and after the first and the last."""

    def on_step(self, step: int) -> None:
        """Called after every step."""

    def on_checkpoint(self, path: Path, validation: Mapping[str, float]) -> None:
        """Called when a checkpoint was written, with validation losses if there are any."""


def set_aside(folder: Path) -> Path | None:
    """Renames an old run's folder, so that a new one can start without losing it.

    Returns:
      Where it is now; none if there was nothing.
    """
    if not folder.exists():
        return None
    stamp = time.strftime("%Y%m%d-%H%M%S")
    aside = folder.with_name(f"{folder.name}.{stamp}")
    count = 1
    while aside.exists():
        count += 1
        aside = folder.with_name(f"{folder.name}.{stamp}-{count}")
    try:
        folder.rename(aside)
    except OSError as error:
        raise FastStyleError(
            f"{folder}: cannot be renamed to {aside.name} ({error.strerror}); "
            "change its permissions or choose another 'naming'"
        ) from error
    return aside


@dataclass
class ValidationRecord:
    """The held-out total loss of each scored checkpoint; kept as `validation.json` in the run.

    Attributes:
      val_dataset: The photos that were scored; totals over others do not compare.
      totals: {step: mean total loss}.
    """

    val_dataset: str | None
    totals: dict[int, float] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, val_dataset: str | None, last_step: int) -> ValidationRecord:
        """Reads what is known of these photos up to a step; nothing if there is no such file."""
        try:
            found = json.loads((folder / VALIDATION_FILE).read_text(encoding="utf-8"))
            if found["val_dataset"] != val_dataset:
                return cls(val_dataset)
            totals = {int(step): float(total) for step, total in found["totals"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return cls(val_dataset)  # It is a record; a run can start a new one.
        return cls(val_dataset, {s: total for s, total in totals.items() if s <= last_step})

    def add(self, step: int, total: float) -> None:
        """Takes note of a checkpoint's score."""
        self.totals[step] = total

    def write(self, folder: Path) -> None:
        """Writes the file."""
        with atomic_path(folder / VALIDATION_FILE) as aside:
            aside.write_text(json.dumps(dataclasses.asdict(self), indent=1), encoding="utf-8")

    @property
    def best_step(self) -> int | None:
        """The step of the lowest total, the earliest of equals; none before the first score."""
        return min(self.totals, key=lambda step: (self.totals[step], step), default=None)

    @property
    def since_best(self) -> int:
        """How many checkpoints were scored after the best one."""
        best = self.best_step
        return 0 if best is None else sum(step > best for step in self.totals)


# --- the loop ------------------------------------------------------------------------------------


@dataclass
class _Run:
    """The parts of a run in progress, so that the loop's helpers need no long argument lists."""

    config: RunConfig
    state: TrainState
    objective: Objective
    precision: str
    photos: tuple[Path, ...]
    validation: list[np.ndarray]
    description: dict[str, Any]
    writer: Any
    preview: np.ndarray
    score: Any
    record: ValidationRecord
    first: dict[str, float] = field(default_factory=dict)
    # Losses of the last steps, left on the device until somebody wants their values.
    last: deque[dict[str, tf.Tensor]] = field(default_factory=lambda: deque(maxlen=LAST_STEPS))

    @property
    def converged(self) -> bool:
        """Whether held-out losses have not improved for as long as the configuration allows."""
        patience = self.config.patience_checkpoints
        return patience is not None and self.record.since_best >= patience


def train(
    config: RunConfig, *, fresh: bool = False, observer: TrainObserver | None = None
) -> TrainResult:
    """Trains a transform net as a configuration describes, resuming what is already there.

    Args:
      config: The run.
      fresh: Start over; a run that is already in the folder is renamed, not deleted.
      observer: Is told what happens.

    Returns:
      What was made. Ctrl-C ends the run early, after a checkpoint.

    Raises:
      FastStyleError: For everything a person can put right, before anything is written; and when a
        loss stops being finite, with the last good checkpoint left intact.
    """
    observer = observer or TrainObserver()
    folder = config.run_folder
    for place in (folder, GENERATED_FOLDER):
        check_folder(place)
    pictures = load_style_pictures(config)
    photos, held_out = find_run_photos(config)
    validation = read_crops(held_out, config.image_size, limit=HELD_OUT) if held_out else []
    steps = total_steps(config, len(photos))
    precision = resolve_precision(config.precision)
    network = build_network(config, precision)
    preview = preview_picture(config, photos)
    description = describe_run(config, precision, network, len(photos))
    notes: list[str] = []

    found = None if fresh else read_newest_checkpoint(folder)
    if found is None:
        state = TrainState(initial_weights(config))
    else:
        checkpoint, tensors, earlier, damaged = found
        notes += [f"{error}: going on from {checkpoint.name}" for error in damaged]
        notes += check_resumable(config, description, earlier, checkpoint)
        styles = len(config.style_specs)
        state = TrainState(init_weights(config.arch, width=config.width, styles=styles))
        state.restore(checkpoint, tensors)
    start_step = int(state.step.numpy())

    if fresh and (aside := set_aside(folder)):
        notes.append(f"the run that was in {folder} is now in {aside}")
    make_folder(folder)
    remove_partial_files(folder)
    targets = _write_targets(config, pictures)
    observer.on_start(
        RunHeader(
            device=describe_device(),
            precision=precision,
            loss_model=config.loss_model,
            loss_model_file=network.weights_file,
            photos=len(photos),
            steps=steps,
            start_step=start_step,
            arch=config.arch,
            weights=weight_count(config.arch, width=config.width, styles=len(config.style_specs)),
            folder=folder,
            targets=targets,
            notes=tuple(notes),
        )
    )
    objective = build_objective(config, network, pictures)
    run = _Run(
        config=config,
        state=state,
        objective=objective,
        precision=precision,
        photos=photos,
        validation=validation,
        description=description,
        writer=tf.summary.create_file_writer(str(folder)),
        preview=preview,
        score=make_score(state, objective, arch=config.arch, precision=precision),
        record=ValidationRecord.read(folder, config.val_dataset, start_step),
    )
    try:
        return _loop(run, start_step, steps, observer)
    finally:
        run.writer.close()


def _loop(run: _Run, start_step: int, steps: int, observer: TrainObserver) -> TrainResult:
    config = run.config
    styles = len(config.style_specs)
    train_step = make_train_step(
        run.state,
        run.objective,
        arch=config.arch,
        precision=run.precision,
        learning_rate=config.learning_rate,
        batch_size=config.batch_size,
        image_size=config.image_size,
    )
    stream = PhotoStream(
        run.photos,
        image_size=config.image_size,
        batch_size=config.batch_size,
        seed=config.seed,
        random_crop=config.random_crop,
        random_flip=config.random_flip,
        start_step=start_step,
        stop_step=start_step if run.converged else max(steps, start_step),
    )
    step = start_step
    saved = start_step if start_step else None
    interrupted = False
    began = logged_at = time.perf_counter()
    logged_step, logged_wait = start_step, 0.0
    with stream:
        try:
            for photos in stream:
                choice = style_choice(config.seed, step, config.batch_size, styles)
                losses, styled = train_step(photos, choice)
                step += 1
                if run.last:
                    # Of the step before: its values are there, so nothing waits for the device.
                    _check_finite(run.last[-1], step - 1)
                run.last.append(losses)
                observer.on_step(step)
                if step == start_step + 1:
                    run.first = _checked_values(losses, step)
                    # The first step holds the tracing: not a measure of speed.
                    observer.on_log(StepReport(step, run.first, 0.0, 0.0))
                    logged_at, logged_step = time.perf_counter(), step
                    logged_wait = stream.waited_seconds
                elif step % config.log_every_steps == 0 or step == steps:
                    values = _checked_values(losses, step)
                    now, wait = time.perf_counter(), stream.waited_seconds
                    elapsed = now - logged_at
                    rate = (step - logged_step) * config.batch_size / elapsed
                    waited = (wait - logged_wait) / elapsed
                    observer.on_log(StepReport(step, values, rate, waited))
                    logged_at, logged_step, logged_wait = now, step, wait
                if step % config.summary_every_steps == 0 or step == start_step + 1:
                    values = _checked_values(losses, step)
                    with_images = (
                        step == start_step + 1
                        or step % (config.summary_every_steps * IMAGES_EVERY_SUMMARIES) == 0
                    )
                    _summarize(run, step, values, (photos, styled) if with_images else None)
                if step % config.checkpoint_every_steps == 0 or step == steps:
                    _check_finite(losses, step)
                    _save(run, step, observer, validate=True)
                    saved = step
                    if run.converged:
                        break
        except KeyboardInterrupt:
            interrupted = True
            # It may have come between the update and our count of it.
            step = int(run.state.step.numpy())
    if step and (saved != step or not (config.run_folder / MODEL_FILE).is_file()):
        # Whoever interrupts wants to get away: what is learned is kept, and scored another time.
        _save(run, step, observer, validate=False)
    if run.converged:
        _keep_best(run, step)
    return TrainResult(
        model=config.run_folder / MODEL_FILE,
        steps=step,
        first=run.first,
        last=_mean([_values(losses) for losses in run.last]),
        seconds=time.perf_counter() - began,
        skipped=dict(stream.skipped),
        interrupted=interrupted,
        converged=run.converged,
    )


def _values(losses: Mapping[str, tf.Tensor]) -> dict[str, float]:
    return {tag: float(value) for tag, value in losses.items()}


def _checked_values(losses: Mapping[str, tf.Tensor], step: int) -> dict[str, float]:
    _check_finite(losses, step)
    return _values(losses)


def _check_finite(losses: Mapping[str, tf.Tensor], step: int) -> None:
    # A sum is finite only if all its terms are: one value to fetch.
    if np.isfinite(float(losses[tags.TOTAL]) + float(losses[tags.GRADIENT_NORM])):
        return
    broken = [tag for tag, value in _values(losses).items() if not np.isfinite(value)]
    raise FastStyleError(
        f"step {step}: not a finite number: {', '.join(broken)}; training stopped and nothing of "
        "it was saved. Lower learning_rate, or set precision: float32; the same command goes on "
        "from the last checkpoint, if there is one"
    )


def _mean(history: list[dict[str, float]]) -> dict[str, float]:
    if not history:
        return {}
    return {tag: float(np.mean([values[tag] for values in history])) for tag in history[0]}


def _summarize(
    run: _Run,
    step: int,
    values: Mapping[str, float],
    pictures: tuple[np.ndarray, tf.Tensor] | None,
) -> None:
    """Writes losses, and now and then photos and their styled versions, for TensorBoard."""
    with run.writer.as_default(step=step):
        for tag, value in values.items():
            tf.summary.scalar(tag, value)
        if pictures is not None:
            photos, styled = pictures
            tf.summary.image("generated", tf.cast(tf.round(styled), tf.uint8), max_outputs=4)
            tf.summary.image("origin", photos, max_outputs=4)
    run.writer.flush()


def _save(run: _Run, step: int, observer: TrainObserver, *, validate: bool) -> None:
    """Writes the model file, the checkpoint and the preview, then scores the held-out photos."""
    config = run.config
    folder = config.run_folder
    weights = {name: value.numpy() for name, value in run.state.weights.items()}
    metadata = {**run.description, "steps": step}
    # The model first: it refuses weights that have diverged, before a checkpoint holds them.
    _save_model(run, weights, metadata)
    path = save_checkpoint(
        folder,
        step,
        run.state.tensors(),
        run.description,
        keep=config.keep_checkpoints,
        spare=run.record.best_step,
    )
    _write_preview(run, step)
    validation = _validate(run) if validate else {}
    if validation:
        run.record.add(step, validation[tags.TOTAL])
        run.record.write(folder)
        _save_model(run, weights, metadata | {"validation": validation})
        with run.writer.as_default(step=step):
            for tag, value in validation.items():
                tf.summary.scalar(f"validation/{tag}", value)
        run.writer.flush()
    observer.on_checkpoint(path, validation)


def _save_model(run: _Run, weights: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    config = run.config
    names = tuple(style.name for style in config.style_specs)
    model = Model(config.arch, config.width, names, weights, metadata)
    save_model(config.run_folder / MODEL_FILE, model)


def _keep_best(run: _Run, step: int) -> None:
    """Makes the best checkpoint the model, at the end of a run that stopped improving."""
    best = run.record.best_step
    if best is None or best == step:
        return
    tensors, _ = read_checkpoint(checkpoint_path(run.config.run_folder, best))
    weights = {name: tensors[name] for name in run.state.weights}
    total = {tags.TOTAL: run.record.totals[best]}
    _save_model(run, weights, {**run.description, "steps": best, "validation": total})


def _validate(run: _Run) -> dict[str, float]:
    """Returns the mean losses over the held-out photos, each style in turn; empty without them."""
    styles = len(run.config.style_specs)
    found = []
    for index, photo in enumerate(run.validation):
        choice = np.eye(styles, dtype=np.float32)[[index % styles]]
        found.append(_values(run.score(tf.constant(photo[None]), tf.constant(choice))))
    return _mean(found)


def _write_preview(run: _Run, step: int) -> None:
    """Writes preview.jpg: the preview photo in each style, side by side."""
    styles = len(run.config.style_specs)
    photo = tf.constant(run.preview[None])
    styled = [
        stylize_batch(
            run.config.arch,
            run.state.weights,
            photo,
            tf.one_hot([index], styles),
            run.precision,
        )[0].numpy()
        for index in range(styles)
    ]
    pixels = np.concatenate(styled, axis=1)
    write_image(run.config.run_folder / PREVIEW_FILE, pixels)
    with run.writer.as_default(step=step):
        tf.summary.image("preview", pixels[None])
    run.writer.flush()


def _write_targets(config: RunConfig, pictures: list[np.ndarray]) -> tuple[Path, ...]:
    """Writes each style picture as the loss network sees it."""
    paths = []
    for style, picture in zip(config.style_specs, pictures, strict=True):
        # Styles of one net share its name, so that two such nets do not share pictures.
        name = style.name if config.styles is None else f"{config.naming}_{style.name}"
        path = GENERATED_FOLDER / f"target_style_{name}.jpg"
        write_image(path, picture)
        paths.append(path)
    return tuple(paths)
