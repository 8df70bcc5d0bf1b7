"""What a run must not go through in silence: numbers that are not finite.

`train_step` changes nothing but its count when a loss or a gradient is not finite. `Guard` says so,
names what broke, keeps the batch for inspection, and ends a run that only fails.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fast_style import objective as tags
from fast_style.errors import FastStyleError, first_few
from fast_style.files import atomic_path

_log = logging.getLogger(__name__)

MOST_IN_A_ROW = 3
"""So many batches in a row whose numbers are not finite end a run."""

_MOST_KEPT = 20  # Batches kept for inspection in one folder: 16 MB at the default size.
_MOST_NAMED = 6


@dataclass(frozen=True, eq=False)
class TakenStep:
    """One training step, whose numbers may still be on their way from the device.

    Attributes:
      step: Steps done, this one included.
      photos: Its batch, uint8 [N, H, W, 3].
      style_weights: [N, S] float32.
      losses: {tag: scalar tensor}, the gradient's norm among them.
      gradients: [W] tensor: half the squared norm of each weight's gradient, in their order.
      words: What each process had to say to the others with this step; none from a single device.
    """

    step: int
    photos: np.ndarray
    style_weights: np.ndarray
    losses: Mapping[str, Any]
    gradients: Any
    words: Any = None

    @cached_property
    def values(self) -> dict[str, float]:
        """The losses as numbers; waits for the device."""
        return {tag: float(value) for tag, value in self.losses.items()}

    @cached_property
    def finite(self) -> bool:
        """Whether the step changed the weights; waits for the device."""
        # A sum is finite only if all its terms are: one value to fetch.
        return bool(
            np.isfinite(float(self.losses[tags.TOTAL]) + float(self.losses[tags.GRADIENT_NORM]))
        )

    def broken(self, weights: Sequence[str]) -> list[str]:
        """Names what is not finite: losses by term and layer, gradients by the weight.

        Args:
          weights: Names of the weights, in the order of `gradients`.
        """
        terms = [
            tag
            for tag, value in self.values.items()
            if not np.isfinite(value) and tag != tags.GRADIENT_NORM
        ]
        if terms:  # The gradient of what is not finite is not finite either.
            return terms
        found = np.isfinite(np.asarray(self.gradients))
        named = [
            f"gradient of {name}" for name, fine in zip(weights, found, strict=True) if not fine
        ]
        return named or [tags.GRADIENT_NORM]


class Guard:
    """Looks at every step of a run, and acts on those whose numbers are not finite.

    Attributes:
      skipped: Steps whose batch was skipped.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        weights: Sequence[str],
        photos_of: Callable[[int], Sequence[Path]],
        state_is_finite: Callable[[], bool],
        roll_back: Callable[[int], str],
    ) -> None:
        """Watches a run.

        Args:
          folder: The run's, where batches are kept; None keeps none.
          weights: Names of the weights, in the order of `TakenStep.gradients`.
          photos_of: A step to the photos that its batch was to show.
          state_is_finite: Tells whether weights and moments are finite.
          roll_back: Restores them as last saved, with the steps done given, and names the source.
        """
        self.skipped: list[int] = []
        self._folder = folder
        self._weights = weights
        self._photos_of = photos_of
        self._state_is_finite = state_is_finite
        self._roll_back = roll_back
        self._in_a_row: list[int] = []

    def check(self, taken: TakenStep) -> bool:
        """Looks at a step, once.

        Returns:
          Whether weights and moments were restored, so that whatever was computed from them since
          does not count.

        Raises:
          FastStyleError: If this and the steps before were not finite, `MOST_IN_A_ROW` of them.
        """
        if taken.finite:
            self._in_a_row.clear()
            return False
        self.skipped.append(taken.step)
        self._in_a_row.append(taken.step)
        names = taken.broken(self._weights)
        broken = first_few(names, _MOST_NAMED)
        kept = self._keep(taken)
        _log.warning(
            "step %d: not a finite number: %s; this batch is skipped%s",
            taken.step,
            broken,
            f" and kept in {kept}" if kept else "",
            extra={
                "event": "not_finite",
                "fields": {"step": taken.step, "broken": names, "batch": str(kept or "") or None},
            },
        )
        if len(self._in_a_row) >= MOST_IN_A_ROW:
            raise FastStyleError(
                f"step {taken.step}: not a finite number in {MOST_IN_A_ROW} batches in a row: "
                f"{broken}; training stopped and nothing since the last checkpoint was saved. "
                "Lower learning_rate or gradient_clip, or set precision: float32; the same "
                "command goes on from the last checkpoint, if there is one"
            )
        return self.restore(taken.step)

    def restore(self, step: int) -> bool:
        """Rolls back if weights or moments are not finite.

        Returns:
          Whether it did.
        """
        if self._state_is_finite():
            return False
        source = self._roll_back(step)
        _log.warning(
            "step %d: the weights are not finite numbers; going on from those of %s",
            step,
            source,
            extra={"event": "rolled_back", "fields": {"step": step, "source": source}},
        )
        return True

    def _keep(self, taken: TakenStep) -> Path | None:
        """Writes the batch for inspection; a run does not end because that fails."""
        if self._folder is None:
            return None
        if len(list(self._folder.glob("nonfinite-step-*.npz"))) >= _MOST_KEPT:
            return None
        path = self._folder / f"nonfinite-step-{taken.step}.npz"
        names = np.array([str(photo) for photo in self._photos_of(taken.step)], np.str_)
        try:
            with atomic_path(path) as aside, aside.open("wb") as file:
                np.savez_compressed(
                    file,
                    photos=taken.photos,
                    style_weights=taken.style_weights,
                    step=np.int64(taken.step),
                    files=names,
                )
        except FastStyleError as error:
            _log.warning("%s", error)
            return None
        return path
