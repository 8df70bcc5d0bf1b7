"""Gradient descent on a picture's pixels: Adam, and plain descent, with a decaying rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fast_style.errors import FastStyleError
from fast_style.lbfgs import LossAndGradient, OnIteration

Direction = Callable[[np.ndarray], np.ndarray]
"""The gradient of a step to what, times the learning rate, is subtracted; called once a step."""


def plain_direction() -> Direction:
    """Returns the direction of plain gradient descent: the gradient."""
    return lambda gradient: gradient


def adam_direction(*, beta_1: float, beta_2: float, epsilon: float) -> Direction:
    """Returns the direction of Adam (Kingma & Ba, 2015), which remembers earlier gradients.

    At step t, from 1: m = b1 m + (1 - b1) g and v = b2 v + (1 - b2) g^2, both from 0; the direction
    is m sqrt(1 - b2^t) / (1 - b1^t) / (sqrt(v) + epsilon). That is the paper's "more efficient"
    form, which TensorFlow 1 and Keras use; its epsilon counts for more in the first steps than
    that of the form with corrected moments.
    """
    mean: np.ndarray | float = 0.0
    square: np.ndarray | float = 0.0
    step = 0

    def direction(gradient: np.ndarray) -> np.ndarray:
        nonlocal mean, square, step
        step += 1
        mean = beta_1 * mean + (1.0 - beta_1) * gradient
        square = beta_2 * square + (1.0 - beta_2) * np.square(gradient)
        # NumPy's root would be a float64 scalar, and make every direction float64.
        correction = math.sqrt(1.0 - beta_2**step) / (1.0 - beta_1**step)
        return correction * mean / (np.sqrt(square) + epsilon)

    return direction


def decayed_rate(rate: float, step: int, *, decay_rate: float, every: int) -> float:
    """Returns rate * decay_rate^(step / every): exponential decay, a little at each step.

    Args:
      rate: The learning rate at step 0.
      step: Steps done.
      decay_rate: Factor for every `every` steps.
      every: At least 1.
    """
    return rate * decay_rate ** (step / every)


@dataclass(frozen=True)
class DescentResult:
    """What a run found.

    Attributes:
      picture: float32 of the start's shape: where the last step led.
      start_loss: Loss of the start.
      losses: Loss after each step.
    """

    picture: np.ndarray
    start_loss: float
    losses: tuple[float, ...]


def minimize(
    loss_and_gradient: LossAndGradient,
    start: np.ndarray,
    *,
    iterations: int,
    direction: Direction,
    learning_rate: Callable[[int], float],
    unit: float = 1.0,
    on_iteration: OnIteration | None = None,
    bounds: tuple[float, float] | None = (0.0, 255.0),
) -> DescentResult:
    """Steps against the gradient: x <- x - rate * direction, x being pixels divided by `unit`.

    Args:
      loss_and_gradient: The loss, and its gradient with respect to the pixels as they are given.
      start: Pixels, float32, of any shape.
      iterations: At least 0.
      direction: Such as `adam_direction` returns; a fresh one for each run.
      learning_rate: Steps done to the rate of the next, in `unit` per direction.
      unit: 255 to let pixels be 0..1 for the optimizer; its gradient is then 255 times larger.
      on_iteration: Called after each step. What it raises ends the run and is passed on.
      bounds: Pixels are clipped to them at every step; none: they are not.

    Raises:
      FastStyleError: If the loss or its gradient is not finite.
    """
    picture = np.asarray(start, np.float32)
    start_loss, gradient = _checked(loss_and_gradient(picture), 0)
    losses: list[float] = []
    for step in range(iterations):
        change = learning_rate(step) * direction(unit * gradient)
        picture = picture - np.float32(unit) * np.asarray(change, np.float32)
        if bounds is not None:
            picture = np.clip(picture, *bounds)
        loss, gradient = _checked(loss_and_gradient(picture), step + 1)
        losses.append(loss)
        if on_iteration is not None:
            on_iteration(step + 1, loss, picture)
    return DescentResult(picture, start_loss, tuple(losses))


def _checked(evaluated: tuple[float, np.ndarray], step: int) -> tuple[float, np.ndarray]:
    loss, gradient = evaluated
    if not (np.isfinite(loss) and np.isfinite(gradient).all()):
        raise FastStyleError(
            f"step {step}: the loss or its gradient is not a finite number (loss {loss:g}); lower "
            "learning_rate, or compute in float32"
        )
    return loss, gradient
