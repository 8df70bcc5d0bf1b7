"""How far a run has come, in steps and in time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fast_style.run_clock import RunClock


def test_steps_tell() -> None:
    clock = RunClock(1000)
    assert not clock.timed
    told = []
    for step in (0, 749, 750, 999, 1000, 1200):
        clock.move(step)
        told.append((clock.passed, clock.over(0.0), clock.over(0.75), clock.over()))
    assert told == [
        (0.0, True, False, False),
        (0.749, True, False, False),
        (0.75, True, True, False),
        (0.999, True, True, False),
        (1.0, True, True, True),
        (1.0, True, True, True),
    ]


@given(steps=st.integers(1, 10**6), share=st.floats(0.0, 1.0))
def test_a_part_is_over_at_the_step_at_which_it_stops_and_not_before(
    steps: int, share: float
) -> None:
    clock = RunClock(steps)
    stop = clock.stop_step(share)
    assert stop is not None and 0 <= stop <= steps
    clock.move(stop)
    assert clock.over(share)
    if stop:
        clock.move(stop - 1)
        assert not clock.over(share)


def test_time_tells_and_stands_still_between_two_moves() -> None:
    now = [50.0]
    clock = RunClock(seconds=100.0, spent=20.0, now=lambda: now[0])
    assert clock.timed and clock.stop_step(0.5) is None
    now[0] = 49.0  # Nothing counts before the start.
    assert clock.elapsed() == 20.0
    now[0] = 50.0
    clock.start()
    clock.move(7)
    assert (clock.passed, clock.step) == (0.2, 7)
    now[0] = 85.0
    assert clock.passed == 0.2 and not clock.over(0.5)
    clock.move(8)
    assert clock.passed == 0.55 and clock.over(0.5) and not clock.over()
    assert clock.elapsed() == 55.0
    now[0] = 1000.0
    clock.move(9)
    assert clock.passed == 1.0 and clock.over()


@pytest.mark.parametrize("lengths", [{}, {"steps": 1, "seconds": 1.0}])
def test_one_of_the_two_decides(lengths: dict) -> None:
    with pytest.raises(ValueError, match="expected either steps or seconds"):
        RunClock(**lengths)
