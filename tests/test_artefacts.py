from __future__ import annotations

import numpy as np
import pytest
import tiny

from fast_style.artefacts import colour_noise, dots, frame, grid, picture_faults

PHOTO = tiny.smooth_picture(17, 23, 0)
STYLE = tiny.smooth_picture(19, 11, 1)
LARGE = tiny.smooth_picture(96, 128, 2) // 2 + 64  # Room above and below.
ROWS, COLUMNS = np.indices(LARGE.shape[:2])


def added(change: np.ndarray) -> np.ndarray:
    """Returns LARGE with a change of [H, W] or [H, W, 3]."""
    change = change if change.ndim == 3 else change[..., None]
    return np.clip(np.round(LARGE + change), 0, 255).astype(np.uint8)


def noise(sigma: float, *, channels: int = 1, smooth: int = 1) -> np.ndarray:
    values = np.random.default_rng(3).normal(size=(*LARGE.shape[:2], channels))
    for axis in (0, 1):
        values = sum(np.roll(values, shift, axis) for shift in range(smooth))
    return values * (sigma / values.std())


# What is said


def test_a_net_that_works_is_not_warned_about() -> None:
    assert picture_faults(PHOTO, PHOTO, STYLE) == []
    assert picture_faults(PHOTO, STYLE, STYLE) == []
    assert picture_faults(PHOTO, LARGE, STYLE) == []
    # A style of few colours, with an eighth of the photo's contrast.
    faint = (128 + (PHOTO.astype(float) - 128) / 8).astype(np.uint8)
    assert picture_faults(PHOTO, faint, STYLE) == []


@pytest.mark.parametrize("level", [0, 117, 255])
def test_a_flat_picture_is_told_with_both_contrasts_and_nothing_else(level: int) -> None:
    (fault,) = picture_faults(PHOTO, np.full_like(PHOTO, level), STYLE)
    assert fault.startswith("it is flat: a contrast of 0.0 levels, and the photo has ")


def test_a_photo_without_contrast_asks_for_none() -> None:
    plain = np.full_like(PHOTO, 90)
    assert picture_faults(plain, np.full_like(PHOTO, 91), STYLE) == []


def test_a_saturated_picture_is_told_with_its_share() -> None:
    styled = PHOTO.clip(1, 254)
    styled[:9] = np.where(styled[:9] > 127, 255, 0)  # 9 of 17 rows.
    fault = picture_faults(PHOTO.clip(1, 254), styled, STYLE.clip(1, 254))[0]
    assert fault.startswith("it is saturated: 53% of its values are 0 or 255")


def test_a_style_of_black_and_white_may_be_taken_over() -> None:
    ink = np.where(STYLE > 127, 255, 0).astype(np.uint8)
    styled = np.where(PHOTO > 127, 255, 0).astype(np.uint8)
    assert picture_faults(PHOTO, styled, ink) == []
    assert picture_faults(PHOTO, styled, STYLE) != []


CHECKERS = 20.0 * (-1.0) ** (ROWS + COLUMNS)
SPECKS = np.where((ROWS % 16 == 8) & (COLUMNS % 16 == 8), 60.0, 0.0)
HUES = noise(40.0, channels=3)
EDGE = np.minimum(np.minimum(ROWS, 95 - ROWS), np.minimum(COLUMNS, 127 - COLUMNS))
BORDER = np.where(EDGE < 4, 50.0, 0.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (CHECKERS, "it shows a grid of 2 or 4 pixels, "),
        (SPECKS, "it has dots, "),
        (HUES, "its colours are noisy, by "),
        (BORDER, "it has a frame, "),
    ],
    ids=["grid", "dots", "noise", "frame"],
)
def test_each_artefact_is_told_alone_and_forgiven_in_what_the_style_has_too(
    change: np.ndarray, words: str
) -> None:
    (fault,) = picture_faults(LARGE, added(change), STYLE)
    assert fault.startswith(words)
    assert picture_faults(LARGE, added(change / 20.0), STYLE) == []
    if words != "it has a frame, ":  # Nobody wants that of a style's edge.
        assert picture_faults(LARGE, added(change), added(change)) == []
    assert picture_faults(added(change), added(change), STYLE) == []


# What is measured


@pytest.mark.parametrize(
    "pattern",
    [
        (-1.0) ** (ROWS + COLUMNS),
        (-1.0) ** ROWS,
        np.sqrt(2.0) * np.cos(np.pi / 2.0 * COLUMNS),
        np.sqrt(2.0) * np.cos(np.pi / 2.0 * (ROWS - COLUMNS)),
        2.0 * np.cos(np.pi / 2.0 * ROWS) * np.cos(np.pi / 2.0 * COLUMNS + 1.0),
    ],
    ids=["checkers", "rows", "quarter", "diagonal", "quarters"],
)
@pytest.mark.parametrize("levels", [6.0, 24.0])
def test_a_grid_measures_its_root_mean_square(pattern: np.ndarray, levels: float) -> None:
    assert np.sqrt(np.mean(pattern**2)) == pytest.approx(1.0)
    assert grid(added(levels * pattern)) == pytest.approx(levels, rel=0.06)  # Of whole levels.


def test_a_grid_counts_whatever_its_sign_and_place() -> None:
    pattern = 20.0 * (-1.0) ** (ROWS + COLUMNS) * np.where(COLUMNS < 64, -1.0, 1.0)
    assert grid(added(pattern)) == pytest.approx(20.0, rel=0.2)
    half = np.where(COLUMNS < 64, pattern, 0.0)  # Half the area: half the power.
    assert grid(added(half)) == pytest.approx(20.0 * np.sqrt(0.5), rel=0.2)


@pytest.mark.parametrize("period", [2.5, 3.0, 5.0, 8.0, 17.0])
def test_stripes_and_texture_of_other_periods_are_no_grid(period: float) -> None:
    stripes = 30.0 * np.cos(2.0 * np.pi / period * COLUMNS)
    assert grid(added(stripes)) < 3.0  # A tenth of what they are.
    assert grid(added(noise(30.0, smooth=int(period)))) < 3.0


def test_specks_count_where_it_is_calm_around_them() -> None:
    expected = 1e4 * 6 * 8 / (96 * 128)
    assert dots(added(SPECKS)) == pytest.approx(expected, rel=0.05)
    assert dots(added(-SPECKS)) == pytest.approx(expected, rel=0.05)
    assert dots(added(SPECKS / 2.0)) == 0.0
    assert dots(added(SPECKS[..., None] + noise(25.0, smooth=4))) < expected / 4
    blots = np.where((ROWS % 24 < 9) & (COLUMNS % 24 < 9), 60.0, 0.0)  # Too large for specks.
    assert dots(added(blots)) == 0.0


def test_colour_noise_is_that_of_hues_alone() -> None:
    assert colour_noise(added(noise(20.0))) < 1.5
    red = noise(20.0, channels=3) * (1.0, 0.0, 0.0)
    # A pixel against the mean of nine that hold it keeps 8/9 of the variance of white noise.
    expected = np.sqrt(8.0 / 9.0) * red[..., 0].std()
    assert colour_noise(added(red)) == pytest.approx(expected, rel=0.03)
    blue = noise(20.0, channels=3) * (0.0, 0.0, 1.0)
    assert colour_noise(added(blue)) == pytest.approx(
        np.sqrt(8.0 / 9.0) * blue[..., 2].std(), rel=0.03
    )


def test_a_frame_has_four_sides() -> None:
    plain = frame(LARGE)
    assert plain < 3.0
    assert frame(added(BORDER)) == pytest.approx(50.0, abs=12.0)
    assert frame(added(-BORDER)) == pytest.approx(50.0, abs=12.0)
    three = np.where(ROWS < 60, BORDER, 0.0)
    assert frame(added(three)) < 12.0


@pytest.mark.parametrize("shape", [(1, 1), (2, 64), (16, 16), (31, 40)])
def test_what_is_too_small_to_tell_is_not_told(shape: tuple[int, int]) -> None:
    picture = tiny.smooth_picture(*shape, 0)
    assert picture_faults(picture, picture[::-1], picture) == []
    checkers = np.where(np.indices(shape).sum(0) % 2 == 0, 100, 200).astype(np.uint8)
    assert grid(np.stack([checkers] * 3, axis=-1)) == 0.0
    assert frame(picture) == 0.0
