from __future__ import annotations

import numpy as np
import pytest
import tiny

from fast_style.steady import MOVED, UNCHANGED, Steadier, changed, flicker, is_cut

HEIGHT, WIDTH = 34, 46


def noisy(picture: np.ndarray, seed: int, spread: float = 1.0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, spread, picture.shape)
    return np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)


def flickering(picture: np.ndarray, seed: int) -> np.ndarray:
    """What a net that answers noise with large changes would return."""
    return noisy(picture, 1000 + seed, 20.0)


def test_change_is_the_mean_difference_over_a_box_of_seven() -> None:
    before = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    after = before.copy()
    after[17, 23] = (120, 60, 0)  # 60 on average over the channels, capped at 31.9.
    change = changed(before, after)
    assert change.shape == (HEIGHT, WIDTH)
    np.testing.assert_allclose(change[14:21, 20:27], 255 / 8 / 49, atol=0.13)
    assert change[13].max() == change[:, 27].max() == 0.0
    after = before + np.uint8(5)
    np.testing.assert_allclose(changed(before, after), 5.0)


def test_a_still_scene_comes_to_rest_in_spite_of_noise() -> None:
    picture = tiny.smooth_picture(HEIGHT, WIDTH, 0)
    for temporal in (0.8, 1.0):
        steadier = Steadier(temporal)
        film = [noisy(picture, seed) for seed in range(12)]
        styled = [flickering(picture, seed) for seed in range(12)]
        shown = [steadier.steady(f, s) for f, s in zip(film, styled, strict=True)]
        plain = flicker(styled, film)
        assert plain.counted > 0.9 and plain.levels > 10
        assert flicker(shown, film).levels < 0.01 * plain.levels


def test_nothing_is_kept_with_temporal_zero() -> None:
    steadier = Steadier(0.0)
    picture = tiny.smooth_picture(HEIGHT, WIDTH, 0)
    for seed in range(3):
        styled = flickering(picture, seed)
        np.testing.assert_array_equal(steadier.steady(noisy(picture, seed), styled), styled)


def test_what_moves_is_taken_as_it_is() -> None:
    """A bright block crosses a still scene; where it is and where it was, nothing is blended."""
    picture = (tiny.smooth_picture(HEIGHT, WIDTH, 0) // 4).astype(np.uint8)
    steadier = Steadier(1.0)
    for step in range(5):
        film = picture.copy()
        film[8:24, 6 * step : 6 * step + 9] = 255
        styled = 255 - film
        shown = steadier.steady(film, styled)
        moved = np.zeros((HEIGHT, WIDTH), bool)
        moved[8:24, max(0, 6 * step - 6) : 6 * step + 9] = True
        np.testing.assert_allclose(shown[moved].astype(int), styled[moved], atol=1)


def test_held_strokes_keep_their_contrast() -> None:
    """Stripes that turn by a quarter wave each frame: a mean over frames would be grey."""
    picture = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    steadier = Steadier(0.8)
    for step in range(9):
        wave = np.sin(np.arange(WIDTH) * np.pi / 4 + step * np.pi / 2)
        styled = np.rint(127 + 120 * wave).astype(np.uint8)[None, :, None]
        styled = np.broadcast_to(styled, picture.shape).copy()
        shown = steadier.steady(noisy(picture, step), styled)
    assert np.ptp(shown[..., 0].astype(int), axis=1).min() > 200


def test_a_slow_drift_does_not_freeze() -> None:
    """One level a frame is no motion from frame to frame, yet the picture has to follow."""
    steadier = Steadier(1.0)
    for level in range(0, 120):
        frame = np.full((HEIGHT, WIDTH, 3), level, np.uint8)
        shown = steadier.steady(frame, frame)
        assert abs(int(shown[0, 0, 0]) - level) <= MOVED


def test_a_cut_starts_afresh() -> None:
    dark, bright = np.zeros((2, HEIGHT, WIDTH, 3), np.uint8)
    bright = bright + np.uint8(200)
    assert is_cut(dark, bright) and not is_cut(dark, dark + np.uint8(20))
    steadier = Steadier(1.0)
    assert steadier.begins(dark)
    steadier.steady(dark, dark)
    assert steadier.begins(bright) and not steadier.begins(dark)
    np.testing.assert_array_equal(steadier.steady(bright, bright), bright)
    assert not steadier.begins(bright)


def test_frames_of_another_size_start_afresh() -> None:
    steadier = Steadier(1.0)
    small = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    steadier.steady(small, small)
    tall = np.full((WIDTH, HEIGHT, 3), 7, np.uint8)
    np.testing.assert_array_equal(steadier.steady(tall, tall), tall)


def test_a_result_of_another_size_is_steadied_too() -> None:
    steadier = Steadier(1.0)
    picture = tiny.smooth_picture(HEIGHT, WIDTH, 0)
    first = flickering(tiny.smooth_picture(11, 15, 1), 0)
    steadier.steady(picture, first)
    shown = steadier.steady(noisy(picture, 1), flickering(tiny.smooth_picture(11, 15, 1), 1))
    np.testing.assert_array_equal(shown, first)


def test_an_impossible_temporal_is_refused() -> None:
    with pytest.raises(ValueError, match=r"temporal within 0..1, got 1.5"):
        Steadier(1.5)


def test_flicker_is_the_mean_change_where_the_input_stands_still() -> None:
    film = [np.zeros((HEIGHT, WIDTH, 3), np.uint8) for _ in range(3)]
    shown = [frame.copy() for frame in film]
    film[1][:, 30:] = 10  # Moves there and stays.
    film[2][:, 30:] = 10
    shown[1][:, :10] = (3, 6, 0)
    shown[1][:, 40:] = 200  # Where the input moved: does not count in the first pair.
    shown[2][:, 40:] = 201
    shown[2][:, :10] = (3, 6, 0)
    # 7 columns around the edge average 10 * n / 7: below UNCHANGED with n = 1.
    assert 10 / 7 < UNCHANGED <= 20 / 7
    first, second = 28 * HEIGHT, WIDTH * HEIGHT
    expected = (10 * HEIGHT * 3 + 6 * HEIGHT * 1) / (first + second)
    result = flicker(shown, film)
    assert result.levels == pytest.approx(expected)
    assert result.frames == 2
    assert result.counted == pytest.approx((first + second) / (2 * second))
    everywhere = flicker(shown)
    assert everywhere.counted == 1.0
    change = (10 * HEIGHT * 3 + 6 * HEIGHT * 200 + 6 * HEIGHT * 1) / (2 * second)
    assert everywhere.levels == pytest.approx(change)


def test_cuts_do_not_count_as_flicker() -> None:
    film = [np.full((HEIGHT, WIDTH, 3), level, np.uint8) for level in (0, 0, 200, 200)]
    result = flicker(film, film)
    assert (result.levels, result.frames) == (0.0, 2)
    assert flicker(film[:1], film[:1]).frames == 0


def test_films_that_do_not_belong_together_are_refused() -> None:
    film = [np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * 3
    with pytest.raises(ValueError, match="the original is shorter"):
        flicker(film, film[:2])
    with pytest.raises(ValueError, match="the original is longer"):
        flicker(film[:2], film)
    with pytest.raises(ValueError, match="frames of 46x34 pixels do not compare with 40x34"):
        flicker(film, [frame[:, :40] for frame in film])
    even = [np.pad(frame[:33, :45], ((0, 1), (0, 1), (0, 0))) for frame in film]
    assert flicker(even, [frame[:33, :45] for frame in film]).levels == 0.0
