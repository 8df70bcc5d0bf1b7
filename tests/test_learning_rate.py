"""The learning rate over a run, against its formula."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fast_style.learning_rate import learning_rate_at


def expected(step, peak, warmup, decay, last, schedule):
    rate = peak * (min(1.0, (step + 1) / warmup) if warmup else 1.0)
    if decay is not None:
        passed = min(step, decay) / decay
        if schedule == "cosine":
            left = 0.5 * (1.0 + math.cos(math.pi * passed))
        else:
            left = 1.0 if passed < 0.7 else (1.0 - passed) / 0.3
        rate *= last + (1.0 - last) * left
    return rate


@given(
    step=st.integers(0, 200_000),
    peak=st.floats(1e-6, 1.0),
    warmup=st.integers(0, 1000),
    decay=st.none() | st.integers(1, 100_000),
    last=st.floats(0.0, 1.0),
    schedule=st.sampled_from(["cosine", "cooldown"]),
)
def test_it_equals_its_formula(step, peak, warmup, decay, last, schedule):
    rate = learning_rate_at(
        step,
        peak=peak,
        warmup_steps=warmup,
        decay_steps=decay,
        last=last,
        schedule=schedule,
    )
    assert rate.dtype == "float32"
    wanted = expected(step, peak, warmup, decay, last, schedule)
    np.testing.assert_allclose(rate.numpy(), wanted, rtol=1e-4, atol=1e-6 * peak)


@given(
    step=st.integers(0, 1000),
    warmup=st.integers(0, 1000),
    decay=st.integers(1, 1000),
    schedule=st.sampled_from(["cosine", "cooldown"]),
)
def test_a_share_that_has_passed_is_as_good_as_steps(step, warmup, decay, schedule):
    same = {"peak": 2e-3, "warmup_steps": warmup, "schedule": schedule}
    passed = np.float32(min(1.0, step / decay))
    np.testing.assert_allclose(
        learning_rate_at(step, passed=passed, **same).numpy(),
        learning_rate_at(step, decay_steps=decay, **same).numpy(),
        rtol=1e-4,
        atol=1e-9,
    )


@pytest.mark.parametrize("step", [0, 1, 999, 10**6])
def test_without_a_schedule_it_is_its_peak_to_the_last_bit(step):
    assert learning_rate_at(step, peak=1e-3).numpy() == np.float32(1e-3)


def test_it_rises_then_falls_to_nothing():
    rates = [
        float(learning_rate_at(step, peak=2e-3, warmup_steps=20, decay_steps=300))
        for step in range(301)
    ]
    top = int(np.argmax(rates))
    assert 18 <= top <= 20
    assert np.all(np.diff(rates[: top + 1]) > 0.0)
    assert np.all(np.diff(rates[top:]) < 0.0)
    assert rates[0] == pytest.approx(1e-4, rel=1e-5)
    assert rates[-1] == pytest.approx(0.0, abs=1e-9)


def test_a_cooldown_stays_at_its_peak_until_the_last_three_tenths():
    rates = [
        float(learning_rate_at(step, peak=2e-3, decay_steps=100, schedule="cooldown"))
        for step in range(101)
    ]
    assert rates[:71] == [np.float32(2e-3)] * 71
    assert rates[85] == pytest.approx(1e-3, rel=1e-5)
    assert rates[100] == 0.0
