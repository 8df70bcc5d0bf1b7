from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tiny

from fast_style import consistency, train_state
from fast_style import objective as tags
from fast_style.consistency import (
    LARGEST_SHIFT,
    NOISE,
    consistency_loss,
    disturb,
    shifted_difference,
)
from fast_style.objective import Objective
from fast_style.run_events import StepReport, TrainObserver
from fast_style.train_state import StepSettings, TrainState, make_train_step
from fast_style.training import train
from fast_style.transform_net import init_weights


def seed_of(number: int) -> tf.Tensor:
    return tf.constant([3, number], tf.int64)


def pictures(count: int, height: int, width: int) -> np.ndarray:
    return np.stack([tiny.smooth_picture(height, width, seed) for seed in range(count)])


def difference_by_loops(one: np.ndarray, other: np.ndarray, shift: tuple[int, int]) -> float:
    """Mean over p with p + shift inside of (other[p] - one[p + shift])^2, in float64."""
    total, count = 0.0, 0
    pictures, height, width, channels = one.shape
    for n in range(pictures):
        for y in range(height):
            for x in range(width):
                there = y + shift[0], x + shift[1]
                if 0 <= there[0] < height and 0 <= there[1] < width:
                    for c in range(channels):
                        difference = float(other[n, y, x, c]) - float(one[n, there[0], there[1], c])
                        total += difference * difference
                        count += 1
    return total / count


@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (-4, 4), (-1, -3), (2, 0)])
def test_the_difference_equals_the_formula_in_float64(shift: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    one, other = rng.uniform(0, 255, (2, 2, 7, 11, 3)).astype(np.float32)
    found = shifted_difference(tf.constant(one), tf.constant(other), tf.constant(shift))
    assert float(found) == pytest.approx(difference_by_loops(one, other, shift), rel=1e-5)


def test_the_loss_is_that_of_the_disturbed_photos() -> None:
    photos = pictures(2, 17, 23)

    def stylize(x: tf.Tensor) -> tf.Tensor:
        return 0.5 * x + tf.square(x) / 255.0

    disturbed, shift = disturb(tf.constant(photos), seed_of(5))
    styled = stylize(tf.cast(photos, tf.float32))
    loss = consistency_loss(stylize, tf.constant(photos), styled, seed_of(5))
    expected = difference_by_loops(
        styled.numpy(), stylize(disturbed).numpy(), tuple(shift.numpy().tolist())
    )
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_photos_are_shifted_mirrored_at_the_edge_and_noisy() -> None:
    photos = pictures(3, 57, 49)
    disturbed, shift = disturb(tf.constant(photos), seed_of(1))
    down, right = shift.numpy().tolist()
    assert (down, right) != (0, 0)
    margin = LARGEST_SHIFT
    wider = np.pad(photos, ((0, 0), (margin, margin), (margin, margin), (0, 0)), "reflect")
    shifted = wider[:, margin + down :, margin + right :][:, :57, :49]
    noise = disturbed.numpy() - shifted
    # 25,000 samples: their mean and deviation are within a few thousandths of the noise's own.
    assert noise.mean() == pytest.approx(0.0, abs=0.04 * NOISE)
    assert noise.std() == pytest.approx(NOISE, rel=0.03)
    assert np.abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.05


def test_shifts_take_every_value_that_they_may_and_depend_on_the_seed_alone() -> None:
    photos = tf.constant(pictures(1, 17, 23))
    draw = tf.function(disturb)
    found = {tuple(draw(photos, seed_of(number))[1].numpy().tolist()) for number in range(120)}
    for axis in (0, 1):
        assert {shift[axis] for shift in found} == set(range(-LARGEST_SHIFT, LARGEST_SHIFT + 1))
    once, again = draw(photos, seed_of(7)), disturb(photos, seed_of(7))
    np.testing.assert_array_equal(once[0], again[0])
    assert not np.array_equal(once[0], draw(photos, seed_of(8))[0])


def test_a_net_that_answers_alike_costs_nothing_and_one_that_passes_noise_on_its_variance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photos = tf.constant(pictures(2, 33, 41))
    flat = consistency_loss(tf.zeros_like, photos, tf.zeros([2, 33, 41, 3]), seed_of(0))
    assert float(flat) == 0.0
    same = consistency_loss(tf.identity, photos, tf.cast(photos, tf.float32), seed_of(0))
    assert float(same) == pytest.approx(NOISE**2, rel=0.05)
    monkeypatch.setattr(consistency, "NOISE", 0.0)
    shifted = consistency_loss(tf.identity, photos, tf.cast(photos, tf.float32), seed_of(0))
    assert float(shifted) == 0.0


def test_the_gradient_goes_through_both_answers() -> None:
    photos = tf.constant(pictures(1, 17, 23))
    gain = tf.constant(2.0)

    def loss_and_gradient(*learned: bool) -> tuple[float, float]:
        with tf.GradientTape() as tape:
            tape.watch(gain)
            first, second = (gain if it else tf.constant(2.0) for it in learned)
            styled = first * tf.cast(photos, tf.float32)
            loss = consistency_loss(lambda x: second * x, photos, styled, seed_of(2))
        gradient: Any = tape.gradient(loss, gain)
        return float(loss), float(gradient)

    # The loss is gain^2 times the mean square of the noise.
    loss, whole = loss_and_gradient(True, True)
    assert whole == pytest.approx(loss, rel=1e-4)
    parts = [loss_and_gradient(True, False)[1], loss_and_gradient(False, True)[1]]
    assert min(map(abs, parts)) > 1.0
    assert sum(parts) == pytest.approx(whole, rel=1e-3)


# A step


class _Pixels:
    """Stands in for a loss network: the pixels are its only layer."""

    channels: dict[str, int] = {}
    metrics: dict[str, tf.Tensor] = {}

    def __call__(self, images: tf.Tensor, layers: Any = None) -> dict[str, tf.Tensor]:
        return {"pixels": tf.cast(images, tf.float32)}


def take_steps(count: int, **changes: Any) -> tuple[dict[str, np.ndarray], list[dict[str, float]]]:
    """Weights and moments after some steps on one photo, and the losses of each."""
    objective = Objective(
        network=_Pixels(),  # pyright: ignore[reportArgumentType]
        content_layers=("pixels",),
        target_grams={"pixels": np.zeros([1, 3, 3], np.float32)},
        style_weights=np.ones([1], np.float32),
        content_weight=1.0,
        tv_weight=0.0,
    )
    state = TrainState(init_weights("johnson", width=0.125))
    step = make_train_step(
        state,
        objective,
        StepSettings(
            arch="johnson",
            precision="float32",
            image_size=32,
            **{"learning_rate": 1e-3, **changes},
        ),
        batch_size=1,
    )
    found = []
    for _ in range(count):
        losses, _, _ = step(tf.constant(pictures(1, 32, 32)), tf.ones([1, 1]))
        found.append({tag: float(value) for tag, value in losses.items()})
    return {name: value.numpy() for name, value in state.tensors().items()}, found


def test_a_weight_of_zero_leaves_the_step_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, losses = take_steps(2)

    def not_to_be_computed(*arguments: Any) -> None:
        raise AssertionError("the term was computed")

    monkeypatch.setattr(train_state, "consistency_loss", not_to_be_computed)
    off, losses_off = take_steps(2, consistency_weight=0.0, seed=5)
    assert losses_off == losses
    assert tags.CONSISTENCY not in losses[0]
    for name, value in plain.items():
        np.testing.assert_array_equal(off[name], value, err_msg=name)
    with pytest.raises(AssertionError, match="the term was computed"):
        take_steps(1, consistency_weight=1.0)


def test_the_term_is_part_of_the_total_and_moves_the_weights() -> None:
    plain, (without,) = take_steps(1)
    moved, (losses,) = take_steps(1, consistency_weight=3.0)
    weighted = losses[tags.WEIGHTED_CONSISTENCY]
    assert losses[tags.CONSISTENCY] > 0.0
    assert weighted == pytest.approx(3.0 * losses[tags.CONSISTENCY], rel=1e-6)
    assert losses[tags.TOTAL] == pytest.approx(without[tags.TOTAL] + weighted, rel=1e-5)
    # Adam's first moment is a tenth of the gradient.
    assert any(not np.array_equal(moved[name], plain[name]) for name in plain if "Adam" in name)


def test_noise_depends_on_the_runs_seed_and_on_the_step() -> None:
    runs = [
        [losses[tags.CONSISTENCY] for losses in take_steps(2, learning_rate=1e-30, **changes)[1]]
        for changes in ({"consistency_weight": 1.0}, {"consistency_weight": 1.0, "seed": 1})
    ]
    # The weights stay where they are: what differs is the noise.
    assert len({term for run in runs for term in run}) == 4


def test_a_run_with_it_reports_the_term_and_scores_held_out_photos_without(tmp_path: Path) -> None:
    world = tiny.make_world(tmp_path)
    reports: list[StepReport] = []
    held_out: list[set[str]] = []

    class Recorder(TrainObserver):
        def on_log(self, report: StepReport) -> None:
            reports.append(report)

        def on_checkpoint(self, path: Path, validation: Any) -> None:
            held_out.append(set(validation))

    config = dataclasses.replace(
        world.config(tmp_path, val_dataset=str(world.held_out), steps=2), consistency_weight=2.0
    )
    with tiny.working_in(tmp_path):
        train(config, observer=Recorder())
    for report in reports:
        parts = (tags.WEIGHTED_CONTENT, tags.WEIGHTED_STYLE, tags.WEIGHTED_VARIATION)
        total = sum(report.losses[tag] for tag in (*parts, tags.WEIGHTED_CONSISTENCY))
        assert report.losses[tags.TOTAL] == pytest.approx(total, rel=1e-5)
    assert len(reports) == 2
    assert held_out and tags.TOTAL in held_out[0] and tags.CONSISTENCY not in held_out[0]


def test_parts_of_a_batch_are_disturbed_as_in_the_whole() -> None:
    photos = tf.constant(pictures(4, 20, 24))
    whole, shift = disturb(photos, seed_of(5))
    for first in (0, 2):
        part, same = disturb(photos[first : first + 2], seed_of(5), (first, 4))
        np.testing.assert_array_equal(part, whole[first : first + 2])
        np.testing.assert_array_equal(same, shift)
