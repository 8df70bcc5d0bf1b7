"""What a run tells while it goes, and what it leaves behind in numbers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fast_style import objective as tags

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunHeader:
    """What a run is about to do, told before its first step.

    Attributes:
      device: What computes.
      precision: 'float32' or 'bfloat16'.
      loss_model: Name of the loss network.
      loss_model_file: The weights file in use.
      photos: Number of training photos.
      steps: Steps at the end of the run; none: `minutes` decides.
      minutes: How long the run takes; none: `steps` decides.
      costs: Where each part of the run ends, as a share of it, and how long a step takes there:
        about so much of one with nothing quick first.
      small_first: Share of the run, its beginning, on pictures of half the size; 0 once it is done.
      mini_first: The same of what `vgg_mini` judges.
      start_step: Steps already done.
      seconds: Those of `minutes` that are already over.
      arch: Architecture of the transform net.
      weights: Its number of weights.
      init_from: Where a new run takes them from; none: they are fresh, or the run goes on.
      folder: The run's folder.
      targets: Where the style pictures, as the loss network sees them, were written.
      notes: Sentences a person should read.
    """

    device: str
    precision: str
    loss_model: str
    loss_model_file: Path
    photos: int
    steps: int | None
    minutes: float | None
    costs: tuple[tuple[float, float], ...]
    small_first: float
    mini_first: float
    start_step: int
    seconds: float
    arch: str
    weights: int
    init_from: str | None
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
      model_step: Step whose weights the model file holds: with `patience_checkpoints`, at the end
        of a run, the one of the lowest held-out loss.
      first: Losses of this run's first step that was finite; empty if there was none.
      last: Losses averaged over its last 20 steps, those that were not finite left out.
      seconds: Time spent in the loop.
      images_per_second: Over this run's steps of its last part, the first one left out, as it
        holds the tracing.
      skipped: {photo: why it could not be read}.
      skipped_steps: Steps whose batch was skipped because its loss or gradient was not finite.
      interrupted: Whether a person or the system stopped it.
      converged: Whether it ended because held-out losses stopped improving.
    """

    model: Path
    steps: int
    model_step: int
    first: Mapping[str, float]
    last: Mapping[str, float]
    seconds: float
    images_per_second: float
    skipped: Mapping[Path, str]
    skipped_steps: tuple[int, ...] = ()
    interrupted: bool = False
    converged: bool = False


class StepClock:
    """Measures speed between reports, on a clock that nobody sets."""

    def __init__(self, batch_size: int, waited: Callable[[], float]) -> None:
        """Starts with the first report.

        Args:
          batch_size: Photos per step.
          waited: Returns how many seconds were spent waiting for photos, in all.
        """
        self._batch_size = batch_size
        self._waited_now = waited
        self._begin: tuple[int, float] | None = None
        self._step, self._at, self._waited = 0, 0.0, 0.0

    def report(self, step: int, values: Mapping[str, float]) -> StepReport:
        """Returns a report; the first has no speed, as that step holds the tracing."""
        now, waited = time.perf_counter(), self._waited_now()
        rate = share = 0.0
        if self._begin is None:
            self._begin = step, now
        else:
            elapsed = max(now - self._at, 1e-9)
            rate = (step - self._step) * self._batch_size / elapsed
            share = (waited - self._waited) / elapsed
        self._step, self._at, self._waited = step, now, waited
        return StepReport(step, values, rate, share)

    def overall(self, step: int) -> float:
        """Images per second from the first report to now; 0 before a second step."""
        if self._begin is None or step <= self._begin[0]:
            return 0.0
        elapsed = max(time.perf_counter() - self._begin[1], 1e-9)
        return (step - self._begin[0]) * self._batch_size / elapsed


class TrainObserver:
    """Is told what happens during a run; every method may be left as it is."""

    def on_start(self, header: RunHeader) -> None:
        """Called once, before the first step."""

    def on_log(self, report: StepReport) -> None:
        """Called every `log_every_steps` steps, and after the first and the last.

        Where saving a step uses up the time of a run, nobody knew before that it was the last.
        """

    def on_step(self, step: int) -> None:
        """Called after every step."""

    def on_checkpoint(self, path: Path, validation: Mapping[str, float]) -> None:
        """Called when a checkpoint was written, with validation losses if there are any."""

    def on_end(self, result: TrainResult) -> None:
        """Called when the run has ended and everything is written."""


class LoggingObserver(TrainObserver):
    """Turns what it is told into log records of level INFO, one line each.

    Each record carries `event`, a word, and `fields`, a mapping of JSON-able values, for handlers
    that want more than the line.
    """

    def on_start(self, header: RunHeader) -> None:
        """Logs `start`, and a `note` for each."""
        fields = {name: plain_value(value) for name, value in vars(header).items()}
        length = f"to {header.steps}"
        if header.minutes is not None:
            length = f"on, {header.minutes:g} minutes in all"
        _event(
            "start",
            fields,
            f"{header.folder}: from step {header.start_step} {length}, {header.photos} photos,"
            f" {header.arch}, {header.precision} on {header.device}",
        )
        for note in header.notes:
            _event("note", {}, note)

    def on_log(self, report: StepReport) -> None:
        """Logs `step`."""
        _event(
            "step",
            plain_value(vars(report)),
            f"step {report.step}: total loss {report.losses[tags.TOTAL]:.6g}, "
            f"{report.images_per_second:.2f} images/s",
        )

    def on_checkpoint(self, path: Path, validation: Mapping[str, float]) -> None:
        """Logs `checkpoint`."""
        scored = f", held-out total {validation[tags.TOTAL]:.6g}" if validation else ""
        fields = {"path": str(path), "validation": plain_value(validation)}
        _event("checkpoint", fields, f"saved {path}{scored}")

    def on_end(self, result: TrainResult) -> None:
        """Logs `end`."""
        ended = "stopped" if result.interrupted else "ended"
        _event(
            "end",
            plain_value(vars(result)),
            f"{ended} at step {result.steps} after {result.seconds:.0f} s, "
            f"{result.images_per_second:.2f} images/s; {len(result.skipped)} photos and "
            f"{len(result.skipped_steps)} batches skipped; {result.model}",
        )


def _event(event: str, fields: Mapping[str, Any], message: str) -> None:
    _log.info("%s", message, extra={"event": event, "fields": fields})


def plain_value(value: Any) -> Any:
    """Returns a value as JSON can hold it: paths as text, tuples as lists."""
    if isinstance(value, Mapping):
        return {str(key): plain_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value
