"""Distillation: from a VGG to the narrow network that reports its losses (`mini_net`)."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import tensorflow as tf

from fast_style.checkpoints import (
    STEP,
    put_out_of_the_way,
    read_newest_checkpoint,
    remove_partial_files,
    save_checkpoint,
)
from fast_style.data import find_photos
from fast_style.distill_config import DistillConfig
from fast_style.distill_data import Studio
from fast_style.distill_report import calibration, compare
from fast_style.distill_start import pruned
from fast_style.distill_step import make_distill_step
from fast_style.errors import ConfigError
from fast_style.files import atomic_path, check_folder, make_folder
from fast_style.hardware import describe_device, resolve_precision
from fast_style.loss_models import MINI
from fast_style.loss_net import LossNetwork, build_loss_network
from fast_style.loss_weights import read_weights, resolve_weights_file
from fast_style.mini_net import TEACHER, metric, variable
from fast_style.provenance import git_commit, names_sha256, package_versions
from fast_style.run_lock import RunLock
from fast_style.stopping import StopRequest
from fast_style.train_state import TrainState

LICENCE = (
    "derived from VGG by the Visual Geometry Group, University of Oxford, CC BY 4.0; "
    "K. Simonyan and A. Zisserman, Very deep convolutional networks for large-scale image "
    "recognition, 2015"
)

_FIRST_SCENES = 12  # Pictures from so many scenes are what the first fit is made to.
_CALIBRATION_STAGES = (5, 15, 40)
_FAR_STEP = 1 << 40  # Scenes that no step looks at.
# Keys that a run may go on with changed. Of `steps`, the learning rate follows the new length.
_FREE_KEYS = frozenset(
    {
        "steps",
        "teacher_file",
        "dataset",
        "styles",
        "val_dataset",
        "val_styles",
        "report_photos",
        "calibration_photos",
        "output",
        "run_folder",
        "precision",
        "log_every_steps",
        "checkpoint_every_steps",
        "keep_checkpoints",
    }
)
_PATHS = ("teacher_file", "dataset", "styles", "val_dataset", "val_styles", "output", "run_folder")
_MAP = "map"
_SCALE = "scale"
_STUDIO = "studio/"


@dataclass(frozen=True)
class DistillHeader:
    """What a run is, before its first step."""

    device: str
    precision: str
    teacher: str
    teacher_file: Path
    photos: int
    styles: int
    weights: int
    steps: int
    start_step: int
    notes: tuple[str, ...]


class DistillObserver:
    """Is told what happens; does nothing."""

    def on_start(self, header: DistillHeader) -> None:
        """A run begins."""

    def on_step(self, step: int) -> None:
        """A step was taken."""

    def on_log(self, step: int, losses: Mapping[str, float]) -> None:
        """Mean losses since the last report, see `distill_step`."""

    def on_checkpoint(self, path: Path) -> None:
        """A checkpoint was written."""


@dataclass(frozen=True)
class DistillResult:
    """What a run came to.

    Attributes:
      output: The network's file; none if the run was stopped before its end.
      steps: Steps done in all.
      seconds: Time of this run.
      losses: The last reported.
    """

    output: Path | None
    steps: int
    seconds: float
    losses: Mapping[str, float]


def distill(
    config: DistillConfig,
    *,
    observer: DistillObserver | None = None,
    stop: StopRequest | None = None,
) -> DistillResult:
    """Distils a network, or goes on where an earlier run was stopped.

    Args:
      config: What to do.
      observer: Is told of progress.
      stop: Tells when to stop; what is done so far is then kept in a checkpoint.

    Raises:
      ConfigError: If the run on disk was made with other settings.
      DataError: If there are no photos or style pictures.
      WeightsError: If the teacher's weights are missing or damaged.
      FastStyleError: If something cannot be written.
    """
    observer, stop = observer or DistillObserver(), stop or StopRequest()
    precision = resolve_precision(config.precision)
    folder, output = Path(config.run_folder), Path(config.output)
    check_folder(folder)
    check_folder(output.parent)
    photos = find_photos(config.dataset)
    styles = find_photos(config.styles, advice="point `styles` at a folder of style pictures")
    names = [f"{config.teacher}/{layer}" for layer in config.layers]
    teacher = build_loss_network(config.teacher, config.teacher_file, names, dtype=precision)
    studio = Studio(photos, styles, size=config.image_size, seed=config.seed, seats=config.studio)
    with RunLock(folder):
        state, scales, before, notes = _resume_or_start(config, studio)
        make_folder(folder)
        remove_partial_files(folder)
        start = int(state.step.numpy())
        observer.on_start(
            DistillHeader(
                device=describe_device(),
                precision=precision,
                teacher=config.teacher,
                teacher_file=teacher.weights_file,
                photos=len(photos),
                styles=len(styles),
                weights=sum(int(tf.size(value)) for value in _network(state).values()),
                steps=config.steps,
                start_step=start,
                notes=tuple(notes),
            )
        )
        began = time.perf_counter()
        with stop.deferred():
            done, losses = _run(
                config, state, scales, studio, teacher, precision, before, observer, stop
            )
        if done < config.steps:
            return DistillResult(None, done, time.perf_counter() - began, losses)
        description = {
            "config": _without_folders(config.to_dict()),
            "teacher_sha256": teacher.sha256,
            "photos": len(photos),
            "photo_names_sha256": names_sha256(photos, Path(config.dataset)),
            "styles": [path.name for path in styles],
            "losses": dict(losses),
            "versions": package_versions(),
            "git_commit": git_commit(),
        }
        factors = _calibration(config, state, scales, teacher, photos, styles)
        write_mini(output, state, scales, config, description | {"calibration": factors}, factors)
        return DistillResult(output, done, time.perf_counter() - began, losses)


def write_mini(
    path: Path,
    state: TrainState,
    scales: Mapping[str, float],
    config: DistillConfig,
    description: Mapping[str, Any],
    factors: Mapping[str, float],
) -> None:
    """Writes a distilled network as the file that `mini_net` reads.

    Args:
      path: The file; replaced in one step.
      state: What distillation has learned.
      scales: {layer: what its maps are to be multiplied by}.
      config: How it was made.
      description: What else the header should say; JSON-able.
      factors: {layer: what to multiply its features by}, see `distill_report.calibration`.
    """
    tensors = {name: value.numpy() for name, value in _network(state).items()}
    for layer in config.layers:
        teacher_map = state.weights[variable(layer, _MAP)].numpy() * scales[layer]
        tensors[variable(layer, "metric")] = metric(factors[layer] * teacher_map)
        tensors[variable(layer, "channels")] = np.array([len(teacher_map)], np.int32)
    header = {
        TEACHER: config.teacher,
        "licence": LICENCE,
        "description": json.dumps(description),
    }
    # 16 bits: their rounding is a hundredth of what the network does not know of its teacher.
    tensors = {
        name: np.ascontiguousarray(value, np.int32 if value.dtype == np.int32 else np.float16)
        for name, value in tensors.items()
    }
    make_folder(path.parent)
    with atomic_path(path) as aside:
        aside.write_bytes(safetensors.numpy.save(tensors, metadata=header))


def _calibration(
    config: DistillConfig,
    state: TrainState,
    scales: Mapping[str, float],
    teacher: LossNetwork,
    photos: Sequence[Path],
    styles: Sequence[Path],
) -> dict[str, float]:
    """Measures what the lengths that the network reports fall short by."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "uncalibrated.safetensors"
        write_mini(file, state, scales, config, {}, dict.fromkeys(config.layers, 1.0))
        own = build_loss_network(MINI, file, [f"{MINI}/{layer}" for layer in config.layers])
        report = compare(
            own,
            teacher,
            photos,
            styles,
            content_layer=config.content_layer,
            size=config.image_size,
            pairs=config.calibration_photos,
            stages=_CALIBRATION_STAGES,
            seed=config.seed,
            to_please_teacher=True,
        )
    return calibration(report, config.layers, config.content_layer)


def _run(
    config: DistillConfig,
    state: TrainState,
    scales: Mapping[str, float],
    studio: Studio,
    teacher: LossNetwork,
    precision: str,
    before: Mapping[str, float],
    observer: DistillObserver,
    stop: StopRequest,
) -> tuple[int, dict[str, float]]:
    """Takes the steps that are left; returns the number of all, and the last losses.

    `before` are the last losses of the steps that were taken already.
    """
    take = make_distill_step(
        state,
        teacher,
        config.layers,
        scales,
        content_tap=config.content_layer,
        learning_rate=config.learning_rate,
        gram_weight=config.gram_weight,
        steps=config.steps,
        dtype=precision,
    )
    first = done = saved = int(state.step.numpy())
    recent: list[dict[str, float]] = []
    losses = dict(before)

    def save() -> None:
        nonlocal saved
        saved = done
        path = save_checkpoint(
            Path(config.run_folder),
            done,
            {
                **state.tensors(),
                **studio.state(),
                **{variable(layer, _SCALE): np.float32(value) for layer, value in scales.items()},
            },
            {"config": config.to_dict(), "losses": losses},
            keep=config.keep_checkpoints,
        )
        observer.on_checkpoint(path)

    while done < config.steps and not stop.requested:
        scene = studio.scene(done, seats=config.studio_per_step, others=config.others_per_step)
        found, gradients = take(scene)
        studio.improve(done, scene, gradients)
        done += 1
        recent.append(found)
        observer.on_step(done)
        if done == first + 1 or done % config.log_every_steps == 0 or done == config.steps:
            losses = {tag: float(np.mean([item[tag] for item in recent])) for tag in found}
            recent = []
            observer.on_log(done, losses)
        if done % config.checkpoint_every_steps == 0 or done == config.steps:
            save()
    if done > saved:
        save()
    return done, losses


def _network(state: TrainState) -> dict[str, tf.Variable]:
    """The variables that become part of the file as they are."""
    return {name: value for name, value in state.weights.items() if not name.endswith(f"/{_MAP}")}


def _resume_or_start(
    config: DistillConfig, studio: Studio
) -> tuple[TrainState, dict[str, float], dict[str, float], list[str]]:
    """Returns the state to begin with, {layer: scale}, the last losses, and notes."""
    found = read_newest_checkpoint(Path(config.run_folder))
    if found is None:
        weights, scales = _start(config, studio)
        return TrainState(weights), scales, {}, []
    checkpoint, tensors, run, damaged = found
    _check_same(config, run.get("config", {}), checkpoint)
    notes = [f"{path.name} is damaged: going on from {checkpoint.name}" for path in damaged]
    scales = {layer: float(tensors.pop(variable(layer, _SCALE))) for layer in config.layers}
    studio.restore({name: tensors.pop(name) for name in list(tensors) if name.startswith(_STUDIO)})
    learned = {
        name: value
        for name, value in tensors.items()
        if name != STEP and not name.endswith(("/Adam", "/Adam_1"))
    }
    state = TrainState(learned)
    state.restore(checkpoint, tensors)
    for path in damaged:
        put_out_of_the_way(path)
    return state, scales, dict(run.get("losses", {})), notes


def _without_folders(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a configuration whose paths keep their last part: the file is for others."""
    return {
        key: Path(value).name if key in _PATHS and value else value for key, value in values.items()
    }


def _check_same(config: DistillConfig, before: Mapping[str, Any], checkpoint: Path) -> None:
    problems = [
        f"{key}: was {before.get(key)!r}, now {value!r}"
        for key, value in config.to_dict().items()
        if key not in _FREE_KEYS and before.get(key) != value
    ]
    if problems:
        raise ConfigError(
            f"{checkpoint}: cannot resume, the run there was made with other settings (undo the "
            "change, or choose another run_folder)",
            problems,
        )


def _start(config: DistillConfig, studio: Studio) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Returns the variables of a pruned teacher, and the scale of each layer's features."""
    prefix = f"{config.teacher}/"
    scenes = [
        studio.scene(_FAR_STEP + index, seats=config.studio_per_step, others=config.others_per_step)
        for index in range(_FIRST_SCENES)
    ]
    pictures = [part for scene in scenes for part in (scene.styled, scene.styles, scene.others)]
    values = read_weights(resolve_weights_file(config.teacher_file, config.teacher), config.teacher)
    weights, maps = pruned(
        {layer: values[f"{prefix}{layer}/weights"] for layer in config.convolutions},
        {layer: values[f"{prefix}{layer}/biases"] for layer in config.convolutions},
        dict(zip(config.convolutions, config.channels, strict=True)),
        config.layers,
        np.concatenate(pictures),
        seed=config.seed,
    )
    scales = {}
    for layer, teacher_map in maps.items():
        # The network's features have a mean square of 1: so do the teacher's, divided by this.
        scales[layer] = float(np.sqrt(np.sum(np.square(teacher_map)) / len(teacher_map)))
        weights[variable(layer, _MAP)] = teacher_map / np.float32(scales[layer])
    return weights, scales
