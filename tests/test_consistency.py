from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tiny

from fast_style import consistency, train_state
from fast_style import objective as tags
from fast_style.consistency import (
    NOISE,
    SHIFTS,
    STILL,
    consistency_loss,
    draw_shift,
    shifted,
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


def shifted_by_loops(picture: np.ndarray, shift: tuple[float, float]) -> np.ndarray:
    """x[p + d], linear between pixels and mirrored, in float64."""
    height, width, _ = picture.shape
    found = np.zeros(picture.shape)

    def mirrored(place: int, size: int) -> int:
        place = abs(place)
        return 2 * (size - 1) - place if place >= size else place

    for y in range(height):
        for x in range(width):
            down, right = y + shift[0], x + shift[1]
            top, left = math.floor(down), math.floor(right)
            for i, part_y in ((top, 1 - (down - top)), (top + 1, down - top)):
                for j, part_x in ((left, 1 - (right - left)), (left + 1, right - left)):
                    pixel = picture[mirrored(i, height), mirrored(j, width)]
                    found[y, x] += part_y * part_x * pixel.astype(np.float64)
    return found


def loss_by_loops(
    photos: np.ndarray, styled: np.ndarray, answers: np.ndarray, shift: tuple[float, float]
) -> tuple[float, float]:
    """The loss in float64, and which part of all pixels stands still."""
    losses, shares = [], []
    for photo, one, other in zip(photos, styled, answers, strict=True):
        height, width, _ = photo.shape
        change = np.abs(shifted_by_loops(photo, shift) - photo).mean(2)
        moved = shifted_by_loops(one, shift)
        wider = np.pad(change, 3, "reflect")
        found: tuple[list[float], list[float]] = ([], [])  # What moves, and what stands still.
        for y in range(height):
            for x in range(width):
                if not (0 <= y + shift[0] <= height - 1 and 0 <= x + shift[1] <= width - 1):
                    continue
                calm = wider[y : y + 7, x : x + 7].mean() < STILL
                wanted = one[y, x] if calm else moved[y, x]
                error = np.mean((other[y, x].astype(np.float64) - wanted) ** 2)
                found[bool(calm)].append(float(error))
        pixels = sum(map(len, found))
        weights = [len(kind) / (len(kind) + pixels / 100) for kind in found]
        means = [float(np.mean(kind)) if kind else 0.0 for kind in found]
        losses.append(np.average(means, weights=weights))
        shares.append(len(found[1]) / pixels)
    return float(np.mean(losses)), float(np.mean(shares))


def half_smooth(count: int, height: int, width: int) -> np.ndarray:
    """Pictures that are smooth on the left and busy on the right."""
    rng = np.random.default_rng(4)
    found = 0.02 * pictures(count, height, width) + 90.0
    found[:, :, width // 2 :] += rng.normal(0, 30, (count, height, width - width // 2, 3))
    return np.clip(found, 0, 255).astype(np.float32)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_loss_equals_the_formula_in_float64(number: int) -> None:
    photos = half_smooth(2, 19, 27)
    seen = []

    def stylize(x: tf.Tensor) -> tf.Tensor:
        seen.append(0.5 * x + tf.square(x) / 255.0)
        return seen[-1]

    styled = stylize(tf.constant(photos)).numpy()
    loss = consistency_loss(stylize, tf.constant(photos), tf.constant(styled), seed_of(number))
    shift = tuple(draw_shift(seed_of(number)).numpy().astype(np.float64).tolist())
    expected, still = loss_by_loops(photos, styled, seen[-1].numpy(), shift)
    assert 0.05 < still < 0.95
    assert float(loss) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (3.0, -2.0), (-4.0, 4.0), (0.4, -3.7), (-0.25, 1.5)])
def test_pictures_are_shifted_as_the_formula_says(shift: tuple[float, float]) -> None:
    photos = pictures(2, 17, 23).astype(np.float32)
    found = shifted(tf.constant(photos), tf.constant(shift)).numpy()
    for photo, moved in zip(photos, found, strict=True):
        np.testing.assert_allclose(moved, shifted_by_loops(photo, shift), atol=2e-3)


def test_shifts_are_small_and_large_and_depend_on_the_seed_alone() -> None:
    draw = tf.function(draw_shift)
    found = np.array([draw(seed_of(number)).numpy() for number in range(300)])
    assert np.abs(found).max() <= SHIFTS[1]
    lengths = np.abs(found).max(1)
    assert (lengths < 0.5).mean() > 0.15 and (lengths > 2.0).mean() > 0.1
    assert np.all(np.abs(found.mean(0)) < 0.3)
    np.testing.assert_allclose(draw(seed_of(7)), draw_shift(seed_of(7)))
    assert np.any(draw(seed_of(7)).numpy() != draw(seed_of(8)).numpy())


def test_a_net_that_answers_alike_costs_nothing_and_one_that_passes_noise_on_its_variance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photos = tf.constant(pictures(2, 33, 41))
    flat = consistency_loss(tf.zeros_like, photos, tf.zeros([2, 33, 41, 3]), seed_of(0))
    assert float(flat) == 0.0
    grey = tf.fill([2, 33, 41, 3], 90.0)
    noisy = consistency_loss(tf.identity, grey, grey, seed_of(0))
    # 8,000 samples: their mean square is within a few hundredths of the variance.
    assert float(noisy) == pytest.approx(NOISE**2, rel=0.06)
    monkeypatch.setattr(consistency, "NOISE", 0.0)
    # What moves has to move along, which the photo itself does.
    monkeypatch.setattr(consistency, "STILL", 0.0)
    moving = consistency_loss(tf.identity, photos, tf.cast(photos, tf.float32), seed_of(0))
    assert float(moving) == pytest.approx(0.0, abs=1e-6)


def test_strokes_that_move_along_with_smooth_parts_cost_something(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(consistency, "NOISE", 0.0)
    photos = tf.fill([1, 33, 41, 3], 90.0)
    strokes = tf.constant(np.random.default_rng(0).uniform(0, 255, (1, 33, 41, 3)), tf.float32)
    shift = draw_shift(seed_of(1))
    held = consistency_loss(lambda x: strokes, photos, strokes, seed_of(1))
    carried = consistency_loss(lambda x: shifted(strokes, shift), photos, strokes, seed_of(1))
    assert float(held) == 0.0
    assert float(carried) > 100.0


def test_the_gradient_goes_through_both_answers() -> None:
    photos = tf.constant(half_smooth(1, 19, 27))
    gain = tf.constant(2.0)

    def loss_and_gradient(*learned: bool) -> tuple[float, float]:
        with tf.GradientTape() as tape:
            tape.watch(gain)
            first, second = (gain if it else tf.constant(2.0) for it in learned)
            styled = first * tf.cast(photos, tf.float32)
            loss = consistency_loss(lambda x: second * x, photos, styled, seed_of(2))
        gradient: Any = tape.gradient(loss, gain)
        return float(loss), float(gradient)

    # The loss is proportional to gain^2.
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


# Terms of training steps alone: (key of their weight, function, tag, tag of what is weighted).
TERMS = [
    ("consistency_weight", "consistency_loss", tags.CONSISTENCY, tags.WEIGHTED_CONSISTENCY),
    ("grid_weight", "grid_loss", tags.GRID, tags.WEIGHTED_GRID),
    ("border_weight", "border_loss", tags.BORDER, tags.WEIGHTED_BORDER),
]


@pytest.mark.parametrize(("key", "function", "tag"), [term[:3] for term in TERMS])
def test_a_weight_of_zero_leaves_the_step_as_it_was(
    key: str, function: str, tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, losses = take_steps(2)

    def not_to_be_computed(*arguments: Any) -> None:
        raise AssertionError("the term was computed")

    monkeypatch.setattr(train_state, function, not_to_be_computed)
    off, losses_off = take_steps(2, **{key: 0.0}, seed=5)
    assert losses_off == losses
    assert tag not in losses[0]
    for name, value in plain.items():
        np.testing.assert_array_equal(off[name], value, err_msg=name)
    with pytest.raises(AssertionError, match="the term was computed"):
        take_steps(1, **{key: 1.0})


@pytest.mark.parametrize(("key", "tag", "weighted_tag"), [(term[0], *term[2:]) for term in TERMS])
def test_the_term_is_part_of_the_total_and_moves_the_weights(
    key: str, tag: str, weighted_tag: str
) -> None:
    plain, (without,) = take_steps(1)
    moved, (losses,) = take_steps(1, **{key: 3.0})
    weighted = losses[weighted_tag]
    assert losses[tag] > 0.0
    assert weighted == pytest.approx(3.0 * losses[tag], rel=1e-6)
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


def test_a_run_with_them_reports_the_terms_and_scores_held_out_photos_without(
    tmp_path: Path,
) -> None:
    world = tiny.make_world(tmp_path)
    reports: list[StepReport] = []
    held_out: list[set[str]] = []

    class Recorder(TrainObserver):
        def on_log(self, report: StepReport) -> None:
            reports.append(report)

        def on_checkpoint(self, path: Path, validation: Any) -> None:
            held_out.append(set(validation))

    config = dataclasses.replace(
        world.config(tmp_path, val_dataset=str(world.held_out), steps=2),
        consistency_weight=2.0,
        grid_weight=30.0,
        border_weight=2.0,
    )
    with tiny.working_in(tmp_path):
        train(config, observer=Recorder())
    for report in reports:
        parts = (tags.WEIGHTED_CONTENT, tags.WEIGHTED_STYLE, tags.WEIGHTED_VARIATION)
        parts += tuple(weighted for *_, weighted in TERMS)
        assert all(report.losses[tag] > 0.0 for tag in parts[3:])
        total = sum(report.losses[tag] for tag in parts)
        assert report.losses[tags.TOTAL] == pytest.approx(total, rel=1e-5)
    assert len(reports) == 2
    assert held_out and tags.TOTAL in held_out[0]
    assert held_out[0].isdisjoint({tags.CONSISTENCY, tags.GRID, tags.BORDER})


def test_parts_of_a_batch_are_disturbed_as_in_the_whole() -> None:
    photos = tf.constant(pictures(4, 20, 24))
    seen = []

    def stylize(x: tf.Tensor) -> tf.Tensor:
        seen.append(x.numpy())
        return x

    styled = tf.cast(photos, tf.float32)
    whole = float(consistency_loss(stylize, photos, styled, seed_of(5)))
    parts = []
    for first in (0, 2):
        part = slice(first, first + 2)
        loss = consistency_loss(stylize, photos[part], styled[part], seed_of(5), (first, 4))
        np.testing.assert_array_equal(seen[-1], seen[0][part])
        parts.append(float(loss))
    assert np.mean(parts) == pytest.approx(whole, rel=1e-5)
