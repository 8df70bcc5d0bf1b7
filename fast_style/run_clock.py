"""How long a run is, in steps or in time, and how far it has come."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

# What checkpoints say of a run that goes by the clock, or did in an earlier sitting: the seconds it
# has taken, and the step from which patience counts, none before that.
SECONDS, PATIENCE_FROM = "training_seconds", "patience_from_step"


@dataclass
class RunClock:
    """How far a run has come. It stands still between two calls of `move`.

    Attributes:
      steps: Steps of the whole run; none: `seconds` decides.
      seconds: How long it may take, earlier sittings included; none: `steps` decides.
      spent: Seconds that earlier sittings took; those of this one count from `start` on.
      now: The time, on a clock that nobody sets.
      step: Steps done.
      passed: The share of the run that is over, 0 to 1.
    """

    steps: int | None = None
    seconds: float | None = None
    spent: float = 0.0
    now: Callable[[], float] = time.monotonic
    step: int = field(default=0, init=False)
    passed: float = field(default=0.0, init=False)
    _began: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Checks that one of the two decides."""
        if (self.steps is None) == (self.seconds is None):
            raise ValueError(
                f"expected either steps or seconds, got {self.steps} and {self.seconds}"
            )

    def start(self) -> None:
        """Begins to count the seconds of this sitting."""
        self._began = self.now()

    @property
    def timed(self) -> bool:
        """Whether time decides how long the run is."""
        return self.seconds is not None

    def elapsed(self) -> float:
        """Returns the seconds that the run has taken so far, earlier sittings included."""
        return self.spent + (0.0 if self._began is None else self.now() - self._began)

    def move(self, step: int) -> None:
        """Takes note that so many steps are done, and of the time."""
        self.step = step
        if self.seconds is not None:
            self.passed = min(1.0, self.elapsed() / self.seconds)
        else:
            assert self.steps is not None
            self.passed = min(1.0, step / self.steps)

    def stop_step(self, share: float) -> int | None:
        """Returns the step at which a part that ends at a share of the run stops, exclusive.

        None: time decides.
        """
        return None if self.steps is None else round(share * self.steps)

    def over(self, share: float = 1.0) -> bool:
        """Whether a part of the run that ends at a share of it is over."""
        stop = self.stop_step(share)
        return self.passed >= share if stop is None else self.step >= stop
