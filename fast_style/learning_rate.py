"""How the learning rate goes up and down over a run."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf


def learning_rate_at(
    step: Any,
    *,
    peak: float,
    warmup_steps: int = 0,
    decay_steps: int | None = None,
    last: float = 0.0,
    passed: Any = None,
) -> tf.Tensor:
    """Returns the learning rate of a step; for use inside a graph.

    It rises in a straight line over the first `warmup_steps` steps, and falls along half a cosine
    (Loshchilov & Hutter, 2017, without restarts):
    peak * min(1, (step + 1) / warmup_steps) * (last + (1 - last) / 2 * (1 + cos(pi s))), with s the
    share of `decay_steps` that has passed, or `passed`. Without either it does not fall.

    Args:
      step: Steps done before it, a number or an integer tensor [].
      peak: What it is without the two.
      warmup_steps: 0: it begins at its peak.
      decay_steps: It stays at its last from then on.
      last: What it ends at, as a factor of `peak`.
      passed: Instead of `decay_steps`: the share s that has passed, 0 to 1, a number or a float32
        tensor [].

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
        rate *= last + (1.0 - last) * 0.5 * (1.0 + tf.cos(math.pi * passed))
    return rate
