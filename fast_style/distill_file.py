"""The file that a distillation ends with, which `mini_net` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import tensorflow as tf

from fast_style.distill_config import DistillConfig
from fast_style.errors import FastStyleError
from fast_style.files import atomic_path
from fast_style.mini_net import TEACHER, metric, variable
from fast_style.train_state import TrainState

LICENCE = (
    "derived from VGG by the Visual Geometry Group, University of Oxford, CC BY 4.0; "
    "K. Simonyan and A. Zisserman, Very deep convolutional networks for large-scale image "
    "recognition, 2015"
)

MAP = "map"
"""The kind of variable that leads from a layer's features to the teacher's; not in the file."""

_PATHS = (
    "teacher_file",
    "dataset",
    "styles",
    "val_dataset",
    "val_styles",
    "output",
    "run_folder",
    "init_from",
)


def network(state: TrainState) -> dict[str, tf.Variable]:
    """Returns the variables that become part of the file as they are."""
    return {name: value for name, value in state.weights.items() if not name.endswith(f"/{MAP}")}


def mini_tensors(
    state: TrainState,
    scales: Mapping[str, float],
    config: DistillConfig,
    factors: Mapping[str, float],
) -> dict[str, np.ndarray]:
    """Returns what the file holds, in 16 bits: their rounding is a hundredth of what is not known.

    Args:
      state: What distillation has learned.
      scales: {layer: what its maps are to be multiplied by}.
      config: How it was made.
      factors: {layer: what to multiply its features by}, see `distill_report.calibration`.

    Raises:
      FastStyleError: If a number does not fit, or is none: the distillation has diverged.
    """
    exact = {name: value.numpy() for name, value in network(state).items()}
    counts = {}
    for layer in config.layers:
        name = variable(layer, MAP)
        _to_16_bits(name, teacher_map := state.weights[name].numpy() * scales[layer])
        exact[variable(layer, "metric")] = metric(factors[layer] * teacher_map)
        counts[variable(layer, "channels")] = np.array([len(teacher_map)], np.int32)
    return {name: _to_16_bits(name, value) for name, value in exact.items()} | counts


def _to_16_bits(name: str, value: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # Told below, with the name.
        half = np.ascontiguousarray(value, np.float16)
    if not np.isfinite(half).all():
        raise FastStyleError(
            f"weight {name} has values up to {np.abs(value).max():.3g}, which do not fit 16-bit "
            "floats; the distillation has diverged, and nothing since the last checkpoint was "
            "saved. Start over with --fresh and a lower learning_rate"
        )
    return half


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
      state: As for `mini_tensors`; so are `scales` and `factors`.
      scales: See there.
      config: How it was made; the header leaves out where files are.
      description: What else the header should say; JSON-able.
      factors: See there.

    Raises:
      FastStyleError: As `mini_tensors` does, or if the file cannot be written.
    """
    header = {
        TEACHER: config.teacher,
        "licence": LICENCE,
        "description": json.dumps({"config": _without_folders(config), **description}),
    }
    if config.teacher_note:
        header["teacher_note"] = config.teacher_note
    tensors = mini_tensors(state, scales, config, factors)
    with atomic_path(path) as aside:
        aside.write_bytes(safetensors.numpy.save(tensors, metadata=header))


def _without_folders(config: DistillConfig) -> dict[str, Any]:
    """Returns a configuration whose paths keep their last part: the file is for others."""
    return {
        key: Path(value).name if key in _PATHS and value else value
        for key, value in config.to_dict().items()
    }
