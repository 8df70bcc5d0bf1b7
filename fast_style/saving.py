"""What a run leaves in its folder: checkpoints, the model, the preview, TensorBoard's events."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from fast_style.artefacts import Marks, marks_of, picture_faults
from fast_style.checkpoints import (
    MODEL_FILE,
    Model,
    checkpoint_path,
    read_checkpoint,
    save_checkpoint,
    save_model,
)
from fast_style.errors import FastStyleError
from fast_style.files import refusal
from fast_style.images import write_image
from fast_style.run_clock import PATIENCE_FROM, SECONDS
from fast_style.stylize import stylize_batch
from fast_style.train_state import TrainState

PREVIEW_FILE = "preview.jpg"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunWriter:
    """Writes the files of one run.

    Attributes:
      folder: The run's.
      arch: Architecture of the transform net.
      width: Its channel multiplier.
      style_names: One per style.
      style_pictures: uint8 [H, W, 3] each, as training sees them.
      precision: What the net computes in.
      description: How the run is made, JSON-able, for checkpoints and the model file.
      preview: uint8 [H, W, 3], the photo that is styled at each checkpoint.
      keep_checkpoints: How many of the newest remain.
      events: TensorBoard's writer.
    """

    folder: Path
    arch: str
    width: float
    style_names: tuple[str, ...]
    style_pictures: Sequence[np.ndarray]
    precision: str
    description: Mapping[str, Any]
    preview: np.ndarray
    keep_checkpoints: int
    events: Any = field(init=False)

    def __post_init__(self) -> None:
        """Opens TensorBoard's event file."""
        object.__setattr__(self, "events", tf.summary.create_file_writer(str(self.folder)))

    def close(self) -> None:
        """Closes TensorBoard's event file."""
        self.events.close()

    def save_checkpoint(
        self, state: TrainState, step: int, *, spare: int | None, more: Mapping[str, Any]
    ) -> Path:
        """Writes the model file, the checkpoint and the preview.

        Args:
          state: What to save.
          step: Steps done.
          spare: A step whose checkpoint remains however old it is.
          more: Adds to the description: what the next sitting has to know.

        Returns:
          The checkpoint's prefix.

        Raises:
          FastStyleError: If something cannot be written, or weights have diverged.
        """
        # The model first: it refuses weights that have diverged, before a checkpoint holds them.
        self.save_model(state, step, more=more)
        path = save_checkpoint(
            self.folder,
            step,
            state.tensors(),
            {**self.description, **more},
            keep=self.keep_checkpoints,
            spare=spare,
        )
        self._write_preview(state, step)
        return path

    def save_model(
        self,
        state: TrainState,
        step: int,
        validation: Mapping[str, float] | None = None,
        *,
        more: Mapping[str, Any],
    ) -> None:
        """Writes the model file.

        Args:
          state: Whose weights.
          step: Steps done.
          validation: Its held-out losses, where known.
          more: Adds to the description.

        Raises:
          FastStyleError: If it cannot be written, or weights have diverged.
        """
        weights = {name: value.numpy() for name, value in state.weights.items()}
        self._write_model(weights, step, validation, more)

    def save_best_model(
        self, state: TrainState, step: int, validation: Mapping[str, float]
    ) -> None:
        """Makes the weights of an earlier checkpoint the model; `state` only names them."""
        tensors, run = read_checkpoint(checkpoint_path(self.folder, step))
        weights = {name: tensors[name] for name in state.weights}
        more = {key: run[key] for key in (SECONDS, PATIENCE_FROM) if key in run}
        self._write_model(weights, step, validation, more)

    def _write_model(
        self,
        weights: Mapping[str, np.ndarray],
        step: int,
        validation: Mapping[str, float] | None,
        more: Mapping[str, Any],
    ) -> None:
        metadata = {**self.description, **more, "steps": step}
        if validation:
            metadata["validation"] = dict(validation)
        model = Model(self.arch, self.width, self.style_names, weights, metadata)
        save_model(self.folder / MODEL_FILE, model)

    def summarize(
        self,
        step: int,
        values: Mapping[str, float],
        pictures: tuple[np.ndarray, tf.Tensor] | None = None,
    ) -> None:
        """Writes losses, and now and then photos and their styled versions, for TensorBoard."""
        with self.events.as_default(step=step):
            for tag, value in values.items():
                tf.summary.scalar(tag, value)
            if pictures is not None:
                photos, styled = pictures
                tf.summary.image("generated", tf.cast(tf.round(styled), tf.uint8), max_outputs=4)
                tf.summary.image("origin", photos, max_outputs=4)
        self.events.flush()

    @cached_property
    def _marks(self) -> list[Marks]:
        """What is measured in the preview photo, and in each style picture."""
        return [marks_of(picture) for picture in (self.preview, *self.style_pictures)]

    def _write_preview(self, state: TrainState, step: int) -> None:
        """Writes preview.jpg, the preview photo in each style, side by side; looks at it too."""
        photo = tf.constant(self.preview[None])
        styles = len(self.style_names)
        styled = []
        photo_marks, *style_marks = self._marks
        for index, (name, marks) in enumerate(zip(self.style_names, style_marks, strict=True)):
            choice = tf.one_hot([index], styles)
            pixels = stylize_batch(self.arch, state.weights, photo, choice, self.precision)
            styled.append(pixels[0].numpy())
            faults = picture_faults(photo_marks, marks_of(styled[-1]), marks)
            if faults:
                _log.warning(
                    "step %d: the preview in style %s is not right: %s; early in a run that is "
                    "usual; if it lasts, train longer, or lower learning_rate or the style's "
                    "weight",
                    step,
                    name,
                    "; ".join(faults),
                    extra={
                        "event": "preview_fault",
                        "fields": {"step": step, "style": name, "faults": faults},
                    },
                )
        pixels = np.concatenate(styled, axis=1)
        write_image(self.folder / PREVIEW_FILE, pixels)
        with self.events.as_default(step=step):
            tf.summary.image("preview", pixels[None])
        self.events.flush()


def set_aside(folder: Path, *, key: str = "naming") -> Path | None:
    """Renames an old run's folder, so that a new one can start without losing it.

    Args:
      folder: The folder.
      key: What in the configuration decides it, for messages.

    Returns:
      Where it is now; none if there was nothing.

    Raises:
      FastStyleError: If it cannot be renamed.
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
            f"{folder}: cannot be renamed to {aside.name} ({refusal(error)}); "
            f"change its permissions or choose another '{key}'"
        ) from error
    return aside


def write_targets(folder: Path, names: Sequence[str], pictures: Sequence[np.ndarray]) -> list[Path]:
    """Writes each style picture as the loss network sees it.

    Args:
      folder: Where.
      names: What each file is called, after 'target_style_'.
      pictures: uint8 [H, W, 3] each.
    """
    paths = []
    for name, picture in zip(names, pictures, strict=True):
        path = folder / f"target_style_{name}.jpg"
        write_image(path, picture)
        paths.append(path)
    return paths
