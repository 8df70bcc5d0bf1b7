"""Where a distillation begins: its newest checkpoint, another network, or a pruned teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fast_style.checkpoints import (
    STEP,
    put_out_of_the_way,
    read_newest_checkpoint,
    save_checkpoint,
)
from fast_style.distill_apprentices import Apprentices
from fast_style.distill_config import DistillConfig
from fast_style.distill_data import Studio
from fast_style.distill_file import MAP
from fast_style.distill_start import pruned
from fast_style.errors import ConfigError
from fast_style.loss_models import MINI
from fast_style.loss_net import LossNetwork
from fast_style.loss_weights import read_weights, resolve_weights_file
from fast_style.mini_net import convolutions, read_mini, variable
from fast_style.provenance import file_sha256, names_sha256
from fast_style.train_state import TrainState

_FIRST_SCENES = 12  # Pictures from so many scenes are what the first fit is made to.
_FAR_STEP = 1 << 40  # Scenes that no step looks at.
_SCALE = "scale"
_INIT = "init_from_sha256"
_STUDIO, _APPRENTICES = "studio/", "apprentices/"

# Keys that a run may go on with changed. Of `steps`, the learning rate follows the new length; what
# files contain is compared by hash, but for `init_from`, which counts at the start alone.
_FREE_KEYS = frozenset(
    (
        *("steps", "precision", "log_every_steps", "checkpoint_every_steps", "keep_checkpoints"),
        *("teacher_file", "teacher_note", "dataset", "styles", "output", "run_folder", "init_from"),
        *("val_dataset", "val_styles", "report_photos", "report_size", "calibration_photos"),
    )
)

_SOURCES = {
    "teacher_sha256": "the content of teacher_file",
    "styles_sha256": "the pictures in styles",
    "photo_names_sha256": "the names of the photos in dataset",
}


def describe_sources(
    config: DistillConfig, teacher: LossNetwork, studio: Studio, photos: Sequence[Path]
) -> dict[str, str]:
    """Returns hashes of what a run learns from, which must not change on the way."""
    return {
        "teacher_sha256": teacher.sha256,
        "styles_sha256": file_sha256(*studio.style_files),
        "photo_names_sha256": names_sha256(photos, Path(config.dataset)),
    }


def save_run(
    config: DistillConfig,
    state: TrainState,
    scales: Mapping[str, float],
    studio: Studio,
    apprentices: Apprentices,
    sources: Mapping[str, str],
    losses: Mapping[str, float],
) -> Path:
    """Writes a checkpoint that `resume_or_start` goes on from, and returns its prefix.

    Args:
      config: The run.
      state: What it has learned, and its step.
      scales: {layer: root mean square of the teacher's features}.
      studio: What it looks at.
      apprentices: Who else shows it something.
      sources: See `describe_sources`.
      losses: The last reported.
    """
    return save_checkpoint(
        Path(config.run_folder),
        int(state.step.numpy()),
        {
            **state.tensors(),
            **studio.state(),
            **apprentices.state(),
            **{variable(layer, _SCALE): np.float32(value) for layer, value in scales.items()},
        },
        {"config": config.to_dict(), **sources, "losses": dict(losses)},
        keep=config.keep_checkpoints,
    )


@dataclass(frozen=True)
class Beginning:
    """What a run begins with.

    Attributes:
      state: What it has learned.
      scales: {layer: root mean square of the teacher's features}.
      sources: As `describe_sources` found them, and the hash of `init_from` where it began there.
      init_from: The network that it once began with, as the configuration then called it.
      apprentices: Their state, for `Apprentices.restore`; empty at the start.
      losses: The last ones.
      notes: What the user should know.
    """

    state: TrainState
    scales: dict[str, float]
    sources: dict[str, str]
    init_from: str | None
    apprentices: dict[str, np.ndarray] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def resume_or_start(
    config: DistillConfig,
    studio: Studio,
    teacher: LossNetwork,
    sources: Mapping[str, str],
    *,
    fresh: bool,
) -> Beginning:
    """Finds out what a run begins with.

    Args:
      config: The run.
      studio: Its pictures; takes over those of a checkpoint.
      teacher: The teacher.
      sources: See `describe_sources`.
      fresh: Whether to start, whatever is there.

    Raises:
      ConfigError: If what is there was made with other settings, or from something else; or if
        `init_from` is not what `channels` and `teacher` ask for.
      ModelError: If all checkpoints are damaged.
      WeightsError: If `init_from` is missing, damaged, or no distilled network.
    """
    newest = None if fresh else read_newest_checkpoint(Path(config.run_folder))
    if newest is None:
        weights, scales = _start(config, studio, teacher)
        init = {_INIT: file_sha256(_init_file(config.init_from))} if config.init_from else {}
        return Beginning(TrainState(weights), scales, {**sources, **init}, config.init_from)
    checkpoint, tensors, run, damaged = newest
    before = _settings(run, checkpoint)
    _check_same(config, sources, before, run, checkpoint)
    notes = [f"{path.name} is damaged: going on from {checkpoint.name}" for path in damaged]
    if before["init_from"] != config.init_from:
        notes.append(
            f"init_from changed from {before['init_from']!r} to {config.init_from!r} (it counts "
            "only for a new run; start one with --fresh)"
        )
    scales = {layer: float(tensors.pop(variable(layer, _SCALE))) for layer in config.layers}
    studio.restore({name: tensors.pop(name) for name in list(tensors) if name.startswith(_STUDIO)})
    apprentices = {
        name: tensors.pop(name) for name in list(tensors) if name.startswith(_APPRENTICES)
    }
    learned = {
        name: value
        for name, value in tensors.items()
        if name != STEP and not name.endswith(("/Adam", "/Adam_1"))
    }
    state = TrainState(learned)
    state.restore(checkpoint, tensors)
    for path in damaged:
        put_out_of_the_way(path)
    kept = {_INIT: run[_INIT]} if _INIT in run else {}
    return Beginning(
        state,
        scales,
        {**sources, **kept},
        before["init_from"],
        apprentices,
        dict(run.get("losses", {})),
        notes,
    )


def _settings(run: Mapping[str, Any], checkpoint: Path) -> dict[str, Any]:
    """Returns the configuration of the run on disk."""
    settings = run.get("config")
    if not isinstance(settings, dict) or "teacher" not in settings:
        raise ConfigError(
            str(checkpoint),
            ["run_folder: holds a run of another kind, no distillation; choose another"],
        )
    # Runs of earlier versions had no such things.
    return {"apprentices": 0, "init_from": None, **settings}


def _check_same(
    config: DistillConfig,
    sources: Mapping[str, str],
    before: Mapping[str, Any],
    run: Mapping[str, Any],
    checkpoint: Path,
) -> None:
    problems = [
        f"{key}: was {before.get(key)!r}, now {value!r}"
        for key, value in config.to_dict().items()
        if key not in _FREE_KEYS and before.get(key, value) != value
    ]
    problems += [
        f"{what} changed"
        for key, what in _SOURCES.items()
        if run.get(key, sources[key]) != sources[key]
    ]
    if problems:
        raise ConfigError(
            f"{checkpoint}: cannot resume, the run there was made with other settings (undo the "
            "change, choose another run_folder, or start over with --fresh, which keeps the old "
            "run)",
            problems,
        )


def _start(
    config: DistillConfig, studio: Studio, teacher: LossNetwork
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Returns the variables of the first step, and the scale of each layer's features."""
    prefix = f"{config.teacher}/"
    before = _network_before(config)
    scenes = [
        studio.scene(_FAR_STEP + index, seats=config.studio_per_step, others=config.others_per_step)
        for index in range(_FIRST_SCENES)
    ]
    pictures = [part for scene in scenes for part in (scene.styled, scene.styles, scene.others)]
    values = read_weights(teacher.weights_file, config.teacher, key="teacher_file")
    weights, maps = pruned(
        {layer: values[f"{prefix}{layer}/weights"] for layer in config.convolutions},
        {layer: values[f"{prefix}{layer}/biases"] for layer in config.convolutions},
        dict(zip(config.convolutions, config.channels, strict=True)),
        config.layers,
        np.concatenate(pictures),
        before=before,
        seed=config.seed,
    )
    scales = {}
    for layer, teacher_map in maps.items():
        # The network's features have a mean square of 1: so do the teacher's, divided by this.
        scales[layer] = float(np.sqrt(np.sum(np.square(teacher_map)) / len(teacher_map)))
        weights[variable(layer, MAP)] = teacher_map / np.float32(scales[layer])
    return weights, scales


def _network_before(config: DistillConfig) -> dict[str, np.ndarray]:
    """Returns the variables of the network to go on from; none if there is none.

    Raises:
      ConfigError: If it is not what `teacher` and `channels` ask for, or wider.
      WeightsError: If it is missing, damaged, or no distilled network.
    """
    if config.init_from is None:
        return {}
    file = _init_file(config.init_from)
    values, _, teacher = read_mini(file, key="init_from")
    found = {layer: values[variable(layer, "weights")].shape[-1] for layer in convolutions(values)}
    wanted = dict(zip(config.convolutions, config.channels, strict=True))
    problems = []
    if teacher and teacher != config.teacher:
        problems.append(f"init_from: was distilled from {teacher}, and teacher is {config.teacher}")
    elif found.keys() != wanted.keys():
        problems.append(
            f"init_from: has {len(found)} convolutions, down to {max(found)}, and `channels` asks "
            f"for {len(wanted)}, down to {max(wanted)}"
        )
    problems += [
        f"init_from: has {found[layer]} channels at {layer}, and `channels` asks for {width}; "
        "it can become wider, not narrower"
        for layer, width in wanted.items()
        if found.get(layer, 0) > width
    ]
    if problems:
        raise ConfigError(str(file), problems)
    return values


def _init_file(name: str) -> Path:
    return resolve_weights_file(name, MINI, key="init_from")
