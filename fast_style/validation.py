"""The record of held-out losses that a run keeps, which decides when it has stopped improving."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

from fast_style.files import atomic_path

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

    @property
    def since_best(self) -> int:
        """How many checkpoints were scored after the best one."""
        best = self.best_step
        return 0 if best is None else sum(step > best for step in self.totals)
