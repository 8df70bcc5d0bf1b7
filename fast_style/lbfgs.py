"""L-BFGS on a picture's pixels: the yardstick, and the fastest way to one styled picture.

SciPy's L-BFGS-B (Byrd, Lu, Nocedal & Zhu, 1995; code 778 of Zhu et al., 1997) with its More-Thuente
line search, as Gatys et al. and Johnson et al. (2016, Figure 5) use its unbounded form. The bounds
keep every iterate a picture that can be shown, so that no loss is reached with colours no file
could hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fast_style.errors import FastStyleError

LossAndGradient = Callable[[np.ndarray], tuple[float, np.ndarray]]
"""float32 pixels of the start's shape to the loss and its gradient, of the same shape."""

OnIteration = Callable[[int, float, np.ndarray], None]
"""Is told (iterations done, loss, float32 picture) after each; the picture is its own to keep."""

# What ends a run is the number of iterations; SciPy wants limits on the rest as well.
_NO_LIMIT = 2**31 - 1


@dataclass(frozen=True)
class LbfgsResult:
    """What a run found.

    Attributes:
      picture: float32 of the start's shape: the last iterate, which has the lowest loss.
      start_loss: Loss of the start.
      losses: Loss after each iteration; they never rise.
      evaluations: How often the loss was computed, the start included.
      stopped: Why there are fewer losses than iterations asked for: no step lowers the loss any
        more in the precision it is computed in. Empty if all were done.
    """

    picture: np.ndarray
    start_loss: float
    losses: tuple[float, ...]
    evaluations: int
    stopped: str


def minimize(
    loss_and_gradient: LossAndGradient,
    start: np.ndarray,
    *,
    iterations: int,
    on_iteration: OnIteration | None = None,
    bounds: tuple[float, float] | None = (0.0, 255.0),
    memory: int = 10,
) -> LbfgsResult:
    """Minimizes a loss over a picture's pixels, for a number of iterations.

    An iteration is one accepted step; its line search usually evaluates the loss once, at most 20
    times. There is no tolerance: a run ends early only where the loss can fall no further. The same
    start and loss give the same result, bit for bit, as far as the loss itself does.

    The loss is divided by the mean size of the first gradient's entries: the first step then
    moves a pixel by about one unit, whatever the loss is measured in. Later steps do not depend on
    such a factor.

    Args:
      loss_and_gradient: The loss; it must not change its argument. Best computed in float32 or
        better: the line search takes rounding for hills.
      start: Floats of any shape, in the unit of `bounds`; clipped to them.
      iterations: At least 0.
      on_iteration: Called after each iteration. What it raises ends the run and is passed on.
      bounds: Lowest and highest value of every pixel; none: unbounded.
      memory: Steps that the curvature is estimated from, at least 1.

    Raises:
      FastStyleError: If SciPy is missing, or the loss or its gradient is not finite.
      ValueError: If `iterations`, `memory` or `bounds` is not as above.
    """
    if iterations < 0 or memory < 1 or (bounds is not None and not bounds[0] < bounds[1]):
        raise ValueError(
            "expected iterations of at least 0, memory of at least 1 and rising bounds, got "
            f"{iterations}, {memory}, {bounds}"
        )
    scipy_minimize = _scipy_minimize()
    start = np.asarray(start, np.float32)
    if bounds is not None:
        start = np.clip(start, *bounds)
    evaluations = 0

    def evaluate(flat: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal evaluations
        evaluations += 1
        loss, gradient = loss_and_gradient(flat.astype(np.float32).reshape(start.shape))
        loss, gradient = float(loss), np.asarray(gradient, np.float64).ravel()
        if not (np.isfinite(loss) and np.isfinite(gradient).all()):
            raise FastStyleError(
                f"evaluation {evaluations} of L-BFGS: the loss or its gradient is not a finite "
                f"number (loss {loss:g}); lower the weights of the losses, or compute in float32"
            )
        return loss, gradient

    start_loss, first_gradient = evaluate(start.ravel())
    scale = 1.0 / max(float(np.abs(first_gradient).mean()), np.finfo(np.float32).tiny)
    known: tuple[float, np.ndarray] | None = (start_loss, first_gradient)
    losses: list[float] = []

    def scaled(flat: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal known
        # SciPy begins with the start, which is known already.
        loss, gradient = known or evaluate(flat)
        known = None
        return loss * scale, gradient * scale

    def after_iteration(intermediate_result) -> None:  # SciPy tells callbacks by this name.
        losses.append(float(intermediate_result.fun) / scale)
        if on_iteration is not None:
            picture = intermediate_result.x.astype(np.float32).reshape(start.shape)
            on_iteration(len(losses), losses[-1], picture)

    if iterations == 0:
        return LbfgsResult(start, start_loss, (), evaluations, "")
    found = scipy_minimize(
        scaled,
        start.ravel().astype(np.float64),
        jac=True,
        method="L-BFGS-B",
        bounds=None if bounds is None else [bounds] * start.size,
        callback=after_iteration,
        options={
            "maxiter": iterations,
            "maxfun": _NO_LIMIT,
            "maxcor": memory,
            "ftol": 0.0,
            "gtol": 0.0,
        },
    )
    stopped = ""
    if len(losses) < iterations:
        stopped = f"no step lowers the loss any further, after {len(losses)} iterations"
    picture = found.x.astype(np.float32).reshape(start.shape)
    return LbfgsResult(picture, start_loss, tuple(losses), evaluations, stopped)


def _scipy_minimize() -> Callable:
    try:
        from scipy.optimize import minimize as scipy_minimize
    except ImportError as error:
        raise FastStyleError(
            "L-BFGS needs SciPy, which is not installed; run: pip install 'fast-style[optimize]'"
        ) from error
    return scipy_minimize
