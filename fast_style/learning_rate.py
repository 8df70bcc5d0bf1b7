"""How the learning rate goes up and down over a run."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

_COOLDOWN = 0.3  # Share of a run over which the schedule of that name falls.


def learning_rate_at(
    step: Any,
    *,
    peak: float,
    warmup_steps: int = 0,
    decay_steps: int | None = None,
    last: float = 0.0,
    passed: Any = None,
    schedule: str = "cosine",
) -> tf.Tensor:
    """Returns the learning rate of a step; for use inside a graph.

    peak * min(1, (step + 1) / warmup_steps) * (last + (1 - last) * f(s)), with s the share of
    `decay_steps` that has passed, or `passed`; without either it does not fall. So it rises in a
    straight line over the first `warmup_steps` steps, and falls with f: along half a cosine,
    (1 + cos(pi s)) / 2 (Loshchilov & Hutter, 2017, without restarts), or as a cooldown,
    min(1, (1 - s) / 0.3), in a straight line over the last 30 % (Hägele et al., 2024).

    Args:
      step: Steps done before it, a number or an integer tensor [].
      peak: What it is without the two.
      warmup_steps: 0: it begins at its peak.
      decay_steps: It stays at its last from then on.
      last: What it ends at, as a factor of `peak`.
      passed: Instead of `decay_steps`: the share s that has passed, 0 to 1, a number or a float32
        tensor [].
      schedule: How it falls: 'cosine' or 'cooldown'; 'constant': it does not.

    Returns:
      [] float32.

    Raises:
      ValueError: If `schedule` is unknown.
    """
    done = tf.cast(step, tf.float32)
    rate = tf.constant(peak, tf.float32)
    if warmup_steps:
        rate *= tf.minimum(1.0, (done + 1.0) / warmup_steps)
    if decay_steps is not None:
        assert passed is None
        passed = tf.minimum(1.0, done / decay_steps)
    if passed is None or schedule == "constant":
        return rate
    if schedule == "cosine":
        left = 0.5 * (1.0 + tf.cos(math.pi * passed))
    elif schedule == "cooldown":
        left = tf.minimum(1.0, (1.0 - passed) / _COOLDOWN)
    else:
        raise ValueError(f"schedule: expected constant, cosine or cooldown, got {schedule!r}")
    return rate * (last + (1.0 - last) * left)


def fall_begins(schedule: str) -> float:
    """Returns the share of a run up to which a schedule holds its peak.

    0 for one that falls from the start, and for one that never does: there is no fall to wait for.
    """
    return 1.0 - _COOLDOWN if schedule == "cooldown" else 0.0
