"""L-BFGS on functions whose minimum is known, and the type of the other minimizers' steps."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from fast_style import descent
from fast_style.errors import FastStyleError
from fast_style.lbfgs import LbfgsResult, minimize

SHAPE = (5, 7, 3)
RNG = np.random.default_rng(3)
CURVATURE = RNG.uniform(0.1, 10.0, SHAPE)
MINIMUM = RNG.uniform(20.0, 230.0, SHAPE)
START = RNG.uniform(0.0, 255.0, SHAPE).astype(np.float32)


def quadratic(picture: np.ndarray, factor: float = 1.0) -> tuple[float, np.ndarray]:
    """0.5 * sum(c * (x - m)^2): zero at `MINIMUM`."""
    distance = picture.astype(np.float64) - MINIMUM
    return (
        factor * 0.5 * float((CURVATURE * distance**2).sum()),
        factor * CURVATURE * distance,
    )


def run(iterations: int = 30, **changes) -> LbfgsResult:
    return minimize(quadratic, START, iterations=iterations, **changes)


def test_a_quadratic_is_solved_and_its_losses_never_rise() -> None:
    found = run(60)

    # float32 pixels of up to 255 are known to 1.5e-5; 1e-3 leaves room for the flat directions.
    np.testing.assert_allclose(found.picture, MINIMUM, atol=1e-3)
    assert found.picture.dtype == np.float32
    assert found.start_loss == pytest.approx(quadratic(START)[0], rel=1e-12)
    assert np.all(np.diff([found.start_loss, *found.losses]) <= 0)
    assert found.losses[-1] == pytest.approx(quadratic(found.picture)[0], rel=1e-3, abs=1e-6)


def test_iterations_are_counted_and_not_evaluations() -> None:
    found = run(12)
    assert len(found.losses) == 12
    assert found.evaluations >= 13
    assert found.stopped == ""


def test_every_iteration_is_told_with_a_picture_of_that_loss() -> None:
    told: list[tuple[int, float, np.ndarray]] = []
    found = run(8, on_iteration=lambda *report: told.append(report))
    assert [iteration for iteration, _, _ in told] == list(range(1, 9))
    assert tuple(loss for _, loss, _ in told) == found.losses
    for _, loss, picture in told:
        assert picture.shape == SHAPE
        assert loss == pytest.approx(quadratic(picture)[0], rel=1e-5)


def test_bounds_hold_at_every_iterate_and_the_rest_still_reaches_the_minimum() -> None:
    pictures: list[np.ndarray] = []
    found = run(
        60, bounds=(100.0, 150.0), on_iteration=lambda _i, _loss, picture: pictures.append(picture)
    )
    assert all(p.min() >= 100.0 and p.max() <= 150.0 for p in pictures)
    # A separable quadratic has its bounded minimum at the clipped one.
    np.testing.assert_allclose(found.picture, np.clip(MINIMUM, 100.0, 150.0), atol=1e-3)


def test_without_bounds_pixels_may_leave_the_displayable_range() -> None:
    found = minimize(
        lambda x: (float(((x + 50.0) ** 2).sum()), 2.0 * (x + 50.0)),
        START,
        iterations=10,
        bounds=None,
    )
    np.testing.assert_allclose(found.picture, -50.0, atol=1e-3)


def test_the_same_run_is_the_same_bit_for_bit() -> None:
    first, second = run(15), run(15)
    assert first.losses == second.losses
    np.testing.assert_array_equal(first.picture, second.picture)


@pytest.mark.parametrize("factor", [1e-9, 1e9])
def test_the_unit_of_the_loss_does_not_matter(factor: float) -> None:
    scaled = minimize(lambda x: quadratic(x, factor), START, iterations=15)
    np.testing.assert_allclose(np.array(scaled.losses) / factor, run(15).losses, rtol=1e-3)


def test_a_flat_loss_ends_early_and_says_so() -> None:
    found = minimize(lambda x: (1.0, np.zeros_like(x)), START, iterations=9)
    assert len(found.losses) < 9
    assert found.stopped.startswith("no step lowers the loss any further, after ")
    np.testing.assert_array_equal(found.picture, START)


def test_no_iteration_returns_the_start_within_the_bounds() -> None:
    found = minimize(quadratic, START + 300.0, iterations=0)
    np.testing.assert_array_equal(found.picture, np.full(SHAPE, 255.0))
    assert found.losses == () and found.evaluations == 1


def test_a_loss_that_is_not_finite_is_one_sentence() -> None:
    with pytest.raises(FastStyleError, match="evaluation 1 of L-BFGS: .*not a finite number"):
        minimize(lambda x: (float("nan"), np.zeros_like(x)), START, iterations=3)


def test_an_interruption_is_passed_on() -> None:
    def stop(iteration: int, loss: float, picture: np.ndarray) -> None:
        if iteration == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(on_iteration=stop)


@pytest.mark.parametrize(
    "wrong", [{"iterations": -1}, {"memory": 0}, {"bounds": (255.0, 0.0)}], ids=str
)
def test_senseless_arguments_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="expected iterations of at least 0"):
        run(**wrong)


def test_missing_scipy_is_one_sentence_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(FastStyleError, match=r"pip install 'fast-style\[optimize\]'"):
        run()


@pytest.mark.parametrize(
    "direction",
    [descent.plain_direction(), descent.adam_direction(beta_1=0.9, beta_2=0.999, epsilon=1e-8)],
    ids=["plain", "adam"],
)
def test_directions_of_descent_stay_float32(direction: descent.Direction) -> None:
    for _ in range(2):
        assert direction(START).dtype == np.float32
