"""How the learning rate goes up and down over a run."""

from __future__ import annotations

import math
from typing import Any, Literal

import tensorflow as tf

COOLDOWN = 0.3
"""Share of a run over which the schedule `cooldown` falls."""


def learning_rate_at(
    step: Any,
    *,
    peak: float,
    warmup_steps: int = 0,
    decay_steps: int | None = None,
    last: float = 0.0,
    passed: Any = None,
    schedule: Literal["cosine", "cooldown"] = "cosine",
) -> tf.Tensor:
    """Returns the learning rate of a step; for use inside a graph.

    peak * min(1, (step + 1) / warmup_steps) * (last + (1 - last) * f(s)), with s the share of
    `decay_steps` that has passed, or `passed`; without either it does not fall. So it rises in a
    straight line over the first `warmup_steps` steps, and falls with f: along half a cosine,
    (1 + cos(pi s)) / 2 (Loshchilov & Hutter, 2017, without restarts), or as a cooldown,
    min(1, (1 - s) / 0.3), in a straight line at the end (Hägele et al., 2024).

    Args:
      step: Steps done before it, a number or an integer tensor [].
      peak: What it is without the two.
      warmup_steps: 0: it begins at its peak.
      decay_steps: It stays at its last from then on.
      last: What it ends at, as a factor of `peak`.
      passed: Instead of `decay_steps`: the share s that has passed, 0 to 1, a number or a float32
        tensor [].
      schedule: Along what it falls.

    Returns:
      [] float32.
    """
    done = tf.cast(step, tf.float32)
    rate = tf.constant(peak, tf.float32)
    if warmup_steps:
        rate *= tf.minimum(1.0, (done + 1.0) / warmup_steps)
    if decay_steps is not None:
        assert passed is None
        passed = tf.minimum(1.0, done / decay_steps)
    if passed is not None:
        if schedule == "cosine":
            left = 0.5 * (1.0 + tf.cos(math.pi * passed))
        else:
            left = tf.minimum(1.0, (1.0 - passed) / COOLDOWN)
        rate *= last + (1.0 - last) * left
    return rate
