"""Held-out photos: how they are scored, and the record that tells when a run stops improving."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tensorflow as tf

from fast_style.config import RunConfig
from fast_style.files import atomic_path
from fast_style.objective import Objective
from fast_style.stopping import StopRequest
from fast_style.train_state import TrainState, make_score

VALIDATION_FILE = "validation.json"


@dataclass
class ValidationRecord:
    """The held-out total loss of each scored checkpoint; kept as `validation.json` in the run.

    Attributes:
      photos: Which photos were scored, in any words; totals over others do not compare.
      totals: {step: mean total loss}.
    """

    photos: str | None
    totals: dict[int, float] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, photos: str | None, last_step: int) -> ValidationRecord:
        """Reads what is known of these photos up to a step; nothing if there is no such file."""
        try:
            found = json.loads((folder / VALIDATION_FILE).read_text(encoding="utf-8"))
            if found["photos"] != photos:
                return cls(photos)
            totals = {int(step): float(total) for step, total in found["totals"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return cls(photos)  # It is a record; a run can start a new one.
        return cls(photos, {s: total for s, total in totals.items() if s <= last_step})

    def add(self, step: int, total: float) -> None:
        """Takes note of a checkpoint's score; what is not a number is the worst there is."""
        self.totals[step] = math.inf if math.isnan(total) else total

    def write(self, folder: Path) -> None:
        """Writes the file."""
        with atomic_path(folder / VALIDATION_FILE) as aside:
            aside.write_text(json.dumps(dataclasses.asdict(self), indent=1), encoding="utf-8")

    @property
    def best_step(self) -> int | None:
        """The step of the lowest total, the earliest of equals; none before the first score."""
        return min(self.totals, key=lambda step: (self.totals[step], step), default=None)

    def since_best(self, after: int = 0) -> int:
        """Returns how many checkpoints were scored after the best one, and after a step."""
        best = self.best_step
        return 0 if best is None else sum(step > max(best, after) for step in self.totals)


class HeldOut:
    """The held-out photos of a run, and how they are scored."""

    def __init__(
        self,
        state: TrainState,
        objective: Objective,
        config: RunConfig,
        precision: str,
        photos: list[np.ndarray],
    ) -> None:
        """Takes uint8 [H, W, 3] photos; without any, nothing is ever scored."""
        self._photos = photos
        self._styles = len(config.style_specs)
        self._score = make_score(state, objective, arch=config.arch, precision=precision)

    def score(self, stop: StopRequest) -> dict[str, float]:
        """Returns the mean losses, each style in turn; empty without photos or when stopped."""
        found = []
        for index, photo in enumerate(self._photos):
            if stop.requested:
                return {}
            choice = np.eye(self._styles, dtype=np.float32)[[index % self._styles]]
            losses = self._score(tf.constant(photo[None]), tf.constant(choice))
            found.append({tag: float(value) for tag, value in losses.items()})
        return mean_losses(found)


def mean_losses(history: list[dict[str, float]]) -> dict[str, float]:
    """Returns the mean of each loss; empty without any."""
    if not history:
        return {}
    return {tag: float(np.mean([values[tag] for values in history])) for tag in history[0]}
