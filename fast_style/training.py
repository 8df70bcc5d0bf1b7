"""Training a transform net: the state, one step, and the loop around it.

Reads top to bottom as a run: check what the configuration names, resume or start, prepare the
targets, step, report, keep checkpoints. It prints nothing; a `TrainObserver` is told.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from fast_style import objective as tags
from fast_style.checkpoints import (
    FIRST_MOMENT,
    MODEL_FILE,
    SECOND_MOMENT,
    STEP,
    Model,
    load_model,
    newest_checkpoint,
    read_checkpoint,
    remove_partial_files,
    save_checkpoint,
    save_model,
)
from fast_style.config import RunConfig, StyleSpec
from fast_style.data import PhotoStream, find_photos
from fast_style.errors import ConfigError, DataError, FastStyleError, ImageError, ModelError
from fast_style.fetch import ASSETS
from fast_style.files import check_folder, make_folder
from fast_style.hardware import describe_device, resolve_precision
from fast_style.images import (
    cover_crop,
    fit_long_side,
    has_transparency,
    read_image,
    write_image,
)
from fast_style.loss_net import LossNetwork, build_loss_network
from fast_style.loss_weights import weights_sha256
from fast_style.objective import Objective, style_grams
from fast_style.provenance import file_sha256, git_commit, package_versions
from fast_style.transform_net import init_weights, transform, weight_count

GENERATED_FOLDER = Path("generated")
PREVIEW_FILE = "preview.jpg"
PREVIEW_SIZE = 512  # px, long side

# Adam as in Kingma & Ba (2015) with TensorFlow's defaults of 2016.
_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8

# Keys a run may be resumed with changed: they steer when and where, not what is learned.
_FREE_KEYS = frozenset(
    {
        "steps",
        "epoch",
        "model_path",
        "learning_rate",
        "loss_model_file",
        "val_dataset",
        "log_every_steps",
        "summary_every_steps",
        "checkpoint_every_steps",
        "keep_checkpoints",
        "preview_image",
        "init_from",
    }
)


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
    """

    model: Path
    steps: int
    first: Mapping[str, float]
    last: Mapping[str, float]
    seconds: float
    skipped: Mapping[Path, str]
    interrupted: bool = False


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


# --- state and step ------------------------------------------------------------------------------


class TrainState(tf.Module):
    """Everything that training changes: weights, Adam's moments, and the step."""

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        """Starts at step 0.

        Args:
          weights: {name: float32 array}.
        """
        super().__init__(name="train_state")
        self.weights = {
            name: tf.Variable(tf.constant(value), name=name) for name, value in weights.items()
        }
        self.first = {name: tf.Variable(tf.zeros_like(v)) for name, v in self.weights.items()}
        self.second = {name: tf.Variable(tf.zeros_like(v)) for name, v in self.weights.items()}
        self.step = tf.Variable(tf.constant(0, tf.int64))

    def tensors(self) -> dict[str, tf.Variable]:
        """Returns what a checkpoint holds, but for the step."""
        return {
            **self.weights,
            **{f"{name}/{FIRST_MOMENT}": value for name, value in self.first.items()},
            **{f"{name}/{SECOND_MOMENT}": value for name, value in self.second.items()},
        }

    def restore(self, source: Path, tensors: Mapping[str, np.ndarray]) -> None:
        """Takes over a checkpoint's values; all or nothing.

        Raises:
          ModelError: If a tensor is missing or of another shape.
        """
        mine = {**self.tensors(), STEP: self.step}
        wrong = [
            name
            for name, value in mine.items()
            if name not in tensors or tuple(tensors[name].shape) != tuple(value.shape)
        ]
        if wrong:
            raise ModelError(
                f"{source}: cannot resume from it, {len(wrong)} tensors are missing or of another "
                f"shape (such as {wrong[0]}); use init_from to start from its weights alone"
            )
        for name, value in mine.items():
            value.assign(tensors[name])

    def apply_adam(
        self, gradients: Mapping[str, tf.Tensor], learning_rate: float
    ) -> list[tf.Operation]:
        """Updates weights and moments, and counts the step; for use inside a graph.

        Returns:
          The operations that do it.
        """
        power = tf.cast(self.step.assign_add(1), tf.float32)
        beta_1_power, beta_2_power = tf.pow(_BETA_1, power), tf.pow(_BETA_2, power)
        return [
            tf.raw_ops.ResourceApplyAdam(
                var=self.weights[name].handle,
                m=self.first[name].handle,
                v=self.second[name].handle,
                beta1_power=beta_1_power,
                beta2_power=beta_2_power,
                lr=learning_rate,
                beta1=_BETA_1,
                beta2=_BETA_2,
                epsilon=_EPSILON,
                grad=gradient,
            )
            for name, gradient in gradients.items()
        ]


def make_train_step(
    state: TrainState,
    objective: Objective,
    *,
    arch: str,
    precision: str,
    learning_rate: float,
    batch_size: int,
    image_size: int,
) -> Any:
    """Returns the compiled step: (photos, style weights) -> (losses, styled pictures).

    Photos are [batch_size, image_size, image_size, 3] uint8, style weights [batch_size, S] float32.
    A step whose loss or gradient is not finite changes nothing; its losses tell.
    """
    styles = len(objective.style_weights)

    @tf.function(
        input_signature=[
            tf.TensorSpec([batch_size, image_size, image_size, 3], tf.uint8),
            tf.TensorSpec([batch_size, styles], tf.float32),
        ],
        autograph=False,
    )
    def train_step(photos: tf.Tensor, style_weights: tf.Tensor):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(state.weights)
            styled = transform(arch, state.weights, photos, style_weights, dtype=precision)
            losses = objective.score(styled, photos, style_weights)
        gradients: dict[str, Any] = tape.gradient(losses[tags.TOTAL], state.weights)
        norm = tf.linalg.global_norm(list(gradients.values()))

        def update() -> tf.Operation:
            with tf.control_dependencies(state.apply_adam(gradients, learning_rate)):
                return tf.no_op()

        finite = tf.math.is_finite(losses[tags.TOTAL]) & tf.math.is_finite(norm)
        tf.cond(finite, update, tf.no_op)
        return {**losses, "gradient_norm": norm}, styled

    return train_step


def make_score(state: TrainState, objective: Objective, *, arch: str, precision: str) -> Any:
    """Returns a compiled function (photos [N, H, W, 3] uint8, style weights) -> losses."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, None, 3], tf.uint8),
            tf.TensorSpec([None, len(objective.style_weights)], tf.float32),
        ],
        autograph=False,
    )
    def score(photos: tf.Tensor, style_weights: tf.Tensor):
        styled = transform(arch, state.weights, photos, style_weights, dtype=precision)
        return objective.score(styled, photos, style_weights)

    return score


def style_choice(seed: int, step: int, batch_size: int, styles: int) -> np.ndarray:
    """Returns which style each picture of a step is trained for: a pure function of its arguments.

    Returns:
      [batch_size, styles] float32, one 1 per row.
    """
    rng = np.random.default_rng([seed, step, 0x5717E])
    return np.eye(styles, dtype=np.float32)[rng.integers(styles, size=batch_size)]


# --- from the configuration to arguments ---------------------------------------------------------


def load_style_pictures(config: RunConfig) -> list[np.ndarray]:
    """Reads the style pictures at the size that training sees.

    Without `style_size`, scaled and centre-cropped to image_size x image_size; with it, scaled so
    that the long side is `style_size`.

    Returns:
      One uint8 [H, W, 3] per style.

    Raises:
      ConfigError: If a picture is missing, unreadable or partly transparent; all are reported.
    """
    pictures, problems = [], []
    for style in config.style_specs:
        try:
            picture = read_image(style.image)
            if has_transparency(style.image):
                raise ImageError(
                    f"{style.image}: has transparent parts, and what is behind them would become "
                    "part of the style; save it without transparency"
                )
        except ImageError as error:
            problems.append(f"{_style_key(config, style)}: {error}")
            continue
        if config.style_size is None:
            pictures.append(cover_crop(picture, config.image_size))
        else:
            pictures.append(fit_long_side(picture, config.style_size))
    if problems:
        raise ConfigError(f"{config.naming}: style pictures", problems)
    return pictures


def _style_key(config: RunConfig, style: StyleSpec) -> str:
    return "style_image" if config.styles is None else f"styles ({style.name})"


def build_network(config: RunConfig, precision: Literal["float32", "bfloat16"]) -> LossNetwork:
    """Builds the loss network that a configuration describes."""
    return build_loss_network(
        config.loss_model,
        config.loss_model_file,
        tuple(dict.fromkeys((*config.content_layers, *config.style_layers))),
        dtype=precision,
        exclude_scopes=config.checkpoint_exclude_scopes,
    )


def build_objective(
    config: RunConfig, network: LossNetwork, pictures: list[np.ndarray]
) -> Objective:
    """Builds the loss that a configuration describes."""
    return Objective(
        network=network,
        content_layers=config.content_layers,
        target_grams=style_grams(network, config.style_layers, pictures),
        style_weights=np.array([style.weight for style in config.style_specs], np.float32),
        content_weight=config.content_weight,
        tv_weight=config.tv_weight,
    )


def _find_photos(config: RunConfig) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Lists the photos to train on and the held-out ones.

    Raises:
      DataError: If there are none, or fewer than one batch needs.
    """
    sets = [
        f"`python -m fast_style fetch {asset.name}` ({asset.size_bytes / 1e9:.1f} GB)"
        for asset in sorted(ASSETS.values(), key=lambda asset: asset.size_bytes)
        if asset.kind == "zip"
    ]
    photos = find_photos(
        config.dataset,
        advice="point `dataset` at a folder of your own (any photos will do),\n"
        f"or get some with {' or '.join(sets)} and use the folder that it names",
    )
    # Built only for its check of the batch size, before anything slow.
    PhotoStream(photos, image_size=config.image_size, batch_size=config.batch_size).close()
    if config.val_dataset is None:
        return photos, ()
    advice = "point `val_dataset` at a folder of photos, or remove this key"
    return photos, find_photos(config.val_dataset, advice=advice)


def total_steps(config: RunConfig, photos: int) -> int:
    """Returns the steps of a whole run: `steps`, or `epoch` passes over the photos."""
    if config.steps is not None:
        return config.steps
    assert config.epoch is not None
    return config.epoch * photos // config.batch_size


def _initial_weights(config: RunConfig) -> dict[str, np.ndarray]:
    styles = len(config.style_specs)
    fresh = init_weights(config.arch, width=config.width, styles=styles, seed=config.seed)
    if config.init_from is None:
        return fresh
    model = load_model(config.init_from)
    given = {name: value.shape for name, value in model.weights.items()}
    wanted = {name: value.shape for name, value in fresh.items()}
    if model.arch != config.arch or given != wanted:
        raise ConfigError(
            f"{config.naming}: init_from",
            [
                f"{config.init_from} is arch {model.arch}, width {model.width:g}, "
                f"{len(model.style_names)} styles, and this run is arch {config.arch}, width "
                f"{config.width:g}, {styles} styles; make them agree"
            ],
        )
    return dict(model.weights)


def _check_resumable(config: RunConfig, run: Mapping[str, Any], checkpoint: Path) -> list[str]:
    """Compares the run on disk with the one asked for.

    Returns:
      Notes on changed keys that are free to change.

    Raises:
      ConfigError: If a key changed that decides what is learned.
    """
    before = run.get("config")
    if before is None:
        return [f"{checkpoint.name} does not say how it was made; going on with this configuration"]
    now = config.to_dict()
    changed = [key for key in now if key in before and now[key] != before[key]]
    problems = [
        f"{key}: was {before[key]!r}, now {now[key]!r}" for key in changed if key not in _FREE_KEYS
    ]
    if problems:
        raise ConfigError(
            f"{config.run_folder}: cannot resume, the run there was made with other settings "
            "(undo the change, choose another 'naming', or start over with --fresh)",
            problems,
        )
    return [f"{key} changed from {before[key]!r} to {now[key]!r}" for key in changed]


def set_aside(folder: Path) -> Path | None:
    """Renames an old run's folder, so that a new one can start without losing it.

    Returns:
      Where it is now; none if there was nothing.
    """
    if not folder.exists():
        return None
    stamp = time.strftime("%Y%m%d-%H%M%S")
    aside = folder.with_name(f"{folder.name}.{stamp}")
    try:
        folder.rename(aside)
    except OSError as error:
        raise FastStyleError(
            f"{folder}: cannot be renamed to {aside.name} ({error.strerror}); "
            "change its permissions or choose another 'naming'"
        ) from error
    return aside


# --- the loop ------------------------------------------------------------------------------------


@dataclass
class _Run:
    """The parts of a run in progress, so that the loop's helpers need no long argument lists."""

    config: RunConfig
    state: TrainState
    objective: Objective
    precision: str
    photos: tuple[Path, ...]
    validation_photos: tuple[Path, ...]
    description: dict[str, Any]
    writer: Any
    preview: np.ndarray
    history: list[dict[str, float]] = field(default_factory=list)


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
    photos, validation_photos = _find_photos(config)
    steps = total_steps(config, len(photos))
    precision = resolve_precision(config.precision)
    network = build_network(config, precision)
    preview = _preview_picture(config, photos)
    notes: list[str] = []

    checkpoint = None if fresh else newest_checkpoint(folder)
    if checkpoint is None:
        state = TrainState(_initial_weights(config))
    else:
        tensors, run = read_checkpoint(checkpoint)
        notes += _check_resumable(config, run, checkpoint)
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
    run = _Run(
        config=config,
        state=state,
        objective=build_objective(config, network, pictures),
        precision=precision,
        photos=photos,
        validation_photos=validation_photos,
        description=_describe(config, precision, network, len(photos)),
        writer=tf.summary.create_file_writer(str(folder)),
        preview=preview,
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
        stop_step=max(steps, start_step),
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
                values = {tag: float(value) for tag, value in losses.items()}
                _check_finite(values, step)
                run.history.append(values)
                del run.history[1:-20]
                observer.on_step(step)
                if step == start_step + 1:
                    # The first step holds the tracing: not a measure of speed.
                    observer.on_log(StepReport(step, values, 0.0, 0.0))
                    logged_at, logged_step = time.perf_counter(), step
                    logged_wait = stream.waited_seconds
                elif step % config.log_every_steps == 0 or step == steps:
                    now, wait = time.perf_counter(), stream.waited_seconds
                    elapsed = now - logged_at
                    rate = (step - logged_step) * config.batch_size / elapsed
                    waited = (wait - logged_wait) / elapsed
                    observer.on_log(StepReport(step, values, rate, waited))
                    logged_at, logged_step, logged_wait = now, step, wait
                if step % config.summary_every_steps == 0 or step == start_step + 1:
                    _summarize(run, step, values, photos, styled)
                if step % config.checkpoint_every_steps == 0 or step == steps:
                    _save(run, step, observer)
                    saved = step
        except KeyboardInterrupt:
            interrupted = True
            # It may have come between the update and our count of it.
            step = int(run.state.step.numpy())
    if saved != step or not (config.run_folder / MODEL_FILE).is_file():
        _save(run, step, observer)
    return TrainResult(
        model=config.run_folder / MODEL_FILE,
        steps=step,
        first=run.history[0] if run.history else {},
        last=_mean(run.history[-20:]),
        seconds=time.perf_counter() - began,
        skipped=dict(stream.skipped),
        interrupted=interrupted,
    )


def _check_finite(values: Mapping[str, float], step: int) -> None:
    broken = [tag for tag, value in values.items() if not np.isfinite(value)]
    if broken:
        raise FastStyleError(
            f"step {step}: {', '.join(broken)} is not a finite number, so training stopped; the "
            "weights and the last checkpoint are from before it. Lower learning_rate, or set "
            "precision: float32, and start again to resume"
        )


def _mean(history: list[dict[str, float]]) -> dict[str, float]:
    if not history:
        return {}
    return {tag: float(np.mean([values[tag] for values in history])) for tag in history[0]}


def _summarize(
    run: _Run, step: int, values: Mapping[str, float], photos: np.ndarray, styled: tf.Tensor
) -> None:
    with run.writer.as_default(step=step):
        for tag, value in values.items():
            tf.summary.scalar(tag, value)
        tf.summary.image("generated", tf.cast(tf.round(styled), tf.uint8), max_outputs=4)
        tf.summary.image("origin", photos, max_outputs=4)
    run.writer.flush()


def _save(run: _Run, step: int, observer: TrainObserver) -> None:
    """Writes the checkpoint, the model file and the preview, and scores the held-out photos."""
    config = run.config
    folder = config.run_folder
    validation = _validate(run)
    path = save_checkpoint(
        folder, step, run.state.tensors(), run.description, keep=config.keep_checkpoints
    )
    metadata = {**run.description, "steps": step}
    if validation:
        metadata["validation"] = validation
    weights = {name: value.numpy() for name, value in run.state.weights.items()}
    names = tuple(style.name for style in config.style_specs)
    save_model(folder / MODEL_FILE, Model(config.arch, config.width, names, weights, metadata))
    _write_preview(run, step)
    with run.writer.as_default(step=step):
        for tag, value in validation.items():
            tf.summary.scalar(f"validation/{tag}", value)
    observer.on_checkpoint(path, validation)


def _validate(run: _Run) -> dict[str, float]:
    """Returns the mean losses over the held-out photos, each style in turn; empty without them."""
    if not run.validation_photos:
        return {}
    config = run.config
    score = make_score(run.state, run.objective, arch=config.arch, precision=run.precision)
    styles = len(config.style_specs)
    found = []
    for index, path in enumerate(run.validation_photos):
        try:
            photo = cover_crop(read_image(path), config.image_size)
        except ImageError:
            continue
        choice = np.eye(styles, dtype=np.float32)[[index % styles]]
        losses = score(tf.constant(photo[None]), tf.constant(choice))
        found.append({tag: float(value) for tag, value in losses.items()})
    return _mean(found)


def _preview_picture(config: RunConfig, photos: tuple[Path, ...]) -> np.ndarray:
    """Reads the photo that is styled at every checkpoint: the one asked for, or the first."""
    if config.preview_image is not None:
        try:
            return fit_long_side(read_image(config.preview_image), PREVIEW_SIZE)
        except ImageError as error:
            raise ConfigError(f"{config.naming}: preview", [f"preview_image: {error}"]) from error
    reason = ""
    for path in photos:
        try:
            return fit_long_side(read_image(path), PREVIEW_SIZE)
        except ImageError as error:
            reason = reason or str(error)
    raise DataError(
        f"{config.dataset}: none of its {len(photos)} photos can be read; for example, {reason}"
    )


def _write_preview(run: _Run, step: int) -> None:
    """Writes preview.jpg: the preview photo in each style, side by side."""
    styles = len(run.config.style_specs)
    height, width = run.preview.shape[:2]
    photo = run.preview if min(height, width) >= 16 else cover_crop(run.preview, 64)
    styled = [
        transform(
            run.config.arch,
            run.state.weights,
            tf.constant(photo[None]),
            tf.one_hot([index], styles),
            dtype=run.precision,
        )[0].numpy()
        for index in range(styles)
    ]
    pixels = np.rint(np.concatenate(styled, axis=1)).astype(np.uint8)
    write_image(run.config.run_folder / PREVIEW_FILE, pixels)
    with run.writer.as_default(step=step):
        tf.summary.image("preview", pixels[None])
    run.writer.flush()


def _write_targets(config: RunConfig, pictures: list[np.ndarray]) -> tuple[Path, ...]:
    """Writes each style picture as the loss network sees it."""
    paths = []
    for style, picture in zip(config.style_specs, pictures, strict=True):
        path = GENERATED_FOLDER / f"target_style_{style.name}.jpg"
        write_image(path, picture)
        paths.append(path)
    return tuple(paths)


def _describe(
    config: RunConfig, precision: str, network: LossNetwork, photos: int
) -> dict[str, Any]:
    """Returns how this run is made, for every artefact's header."""
    return {
        "config": config.to_dict(),
        "style_names": [style.name for style in config.style_specs],
        "style_sha256": [file_sha256(Path(style.image)) for style in config.style_specs],
        "loss_model_sha256": weights_sha256(network.weights_file),
        "photos": photos,
        "precision": precision,
        "versions": package_versions(),
        "git_commit": git_commit(),
        "licence": "the licence of the style picture and photos decides; not stated by the run",
    }
