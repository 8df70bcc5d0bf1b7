from __future__ import annotations

import numpy as np
import pytest
import tiny

from fast_style.artefacts import colour_noise, dots, frame, grid, marks_of, picture_faults

PHOTO = tiny.smooth_picture(17, 23, 0)
STYLE = tiny.smooth_picture(19, 11, 1)
LARGE = tiny.smooth_picture(128, 192, 2) // 3 + 85  # Room above and below.
ROWS, COLUMNS = np.indices(LARGE.shape[:2])


def added(change: np.ndarray) -> np.ndarray:
    """Returns LARGE with a change of [H, W] or [H, W, 3]."""
    change = change if change.ndim == 3 else change[..., None]
    return np.clip(np.round(LARGE + change), 0, 255).astype(np.uint8)


def faults(photo: np.ndarray, styled: np.ndarray, style: np.ndarray) -> list[str]:
    return picture_faults(marks_of(photo), marks_of(styled), marks_of(style))


def marks(side: int) -> np.ndarray:
    """Marks of 60 levels, 16 pixels from one to the next."""
    return np.where(((ROWS + 10) % 16 < side) & ((COLUMNS + 10) % 16 < side), 60.0, 0.0)


def noise(sigma: float, *, channels: int = 1, smooth: int = 1) -> np.ndarray:
    values = np.random.default_rng(3).normal(size=(*LARGE.shape[:2], channels))
    for axis in (0, 1):
        values = sum(np.roll(values, shift, axis) for shift in range(smooth))
    return values * (sigma / values.std())


# What is said


def test_a_net_that_works_is_not_warned_about() -> None:
    assert faults(PHOTO, PHOTO, STYLE) == []
    assert faults(PHOTO, STYLE, STYLE) == []
    assert faults(PHOTO, LARGE, STYLE) == []
    # A style of few colours, with an eighth of the photo's contrast.
    faint = (128 + (PHOTO.astype(float) - 128) / 8).astype(np.uint8)
    assert faults(PHOTO, faint, STYLE) == []


@pytest.mark.parametrize("level", [0, 117, 255])
def test_a_flat_picture_is_told_with_both_contrasts_and_nothing_else(level: int) -> None:
    (fault,) = faults(PHOTO, np.full_like(PHOTO, level), STYLE)
    assert fault.startswith("it is flat: a contrast of 0.0 levels, and the photo has ")


def test_a_photo_without_contrast_asks_for_none() -> None:
    plain = np.full_like(PHOTO, 90)
    assert faults(plain, np.full_like(PHOTO, 91), STYLE) == []


def test_a_saturated_picture_is_told_with_its_share() -> None:
    styled = PHOTO.clip(1, 254)
    styled[:9] = np.where(styled[:9] > 127, 255, 0)  # 9 of 17 rows.
    fault = faults(PHOTO.clip(1, 254), styled, STYLE.clip(1, 254))[0]
    assert fault.startswith("it is saturated: 53% of its values are 0 or 255")


def test_a_style_of_black_and_white_may_be_taken_over() -> None:
    ink = np.where(STYLE > 127, 255, 0).astype(np.uint8)
    styled = np.where(PHOTO > 127, 255, 0).astype(np.uint8)
    assert faults(PHOTO, styled, ink) == []
    assert faults(PHOTO, styled, STYLE) != []


CHECKERS = 20.0 * (-1.0) ** (ROWS + COLUMNS)
SPECKS = marks(2)
HUES = noise(25.0) * (1.0, -0.299 / 0.587, 0.0)  # of the same brightness
EDGE = np.minimum(np.minimum(ROWS, 127 - ROWS), np.minimum(COLUMNS, 191 - COLUMNS))
BORDER = np.where(EDGE < 4, 50.0, 0.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (CHECKERS, "it shows a grid of 2, 4 or 8 pixels, "),
        (SPECKS, "it has dots, "),
        (HUES, "its colours are noisy, by "),
        (BORDER, "it has a frame that is "),
    ],
    ids=["grid", "dots", "noise", "frame"],
)
def test_each_artefact_is_told_alone_and_forgiven_in_what_the_style_has_too(
    change: np.ndarray, words: str
) -> None:
    (fault,) = faults(LARGE, added(change), LARGE)
    assert fault.startswith(words)
    assert faults(LARGE, added(change / 20.0), LARGE) == []
    if words != "it has a frame that is ":  # Nobody wants that of a style's edge.
        assert faults(LARGE, added(change), added(change)) == []
    assert faults(added(change), added(change), LARGE) == []


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
    pattern = 20.0 * (-1.0) ** (ROWS + COLUMNS) * np.where(COLUMNS < 96, -1.0, 1.0)
    assert grid(added(pattern)) == pytest.approx(20.0, rel=0.2)
    half = np.where(COLUMNS < 96, pattern, 0.0)
    assert grid(added(half)) == pytest.approx(20.0, rel=0.2)


@pytest.mark.parametrize("period", [2.5, 3.0, 5.0, 17.0])
def test_stripes_and_texture_of_other_periods_are_no_grid(period: float) -> None:
    stripes = 30.0 * np.cos(2.0 * np.pi / period * COLUMNS)
    assert grid(added(stripes)) < 3.0  # A tenth of what they are.
    assert grid(added(noise(30.0, smooth=int(period)))) < 5.0


@pytest.mark.parametrize("side", [1, 2, 3, 4])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_specks_of_up_to_four_pixels_count_once_each(side: int, sign: float) -> None:
    assert dots(added(sign * marks(side))) == pytest.approx(1e4 / 16**2, rel=0.05)


def test_specks_count_by_what_is_around_them() -> None:
    assert dots(added(marks(2) / 2.0)) == 0.0  # 30 levels
    assert dots(added(marks(8))) == 0.0  # Too large for specks.
    texture = noise(15.0, smooth=4)
    assert dots(added(texture)) < 4.0
    assert dots(added(2.0 * marks(2)[..., None] + texture)) > 0.6 * 1e4 / 16**2
    assert dots(added(marks(2)[..., None] + 4.0 * texture)) < 0.2 * 1e4 / 16**2


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("slope", [0.0, 0.4, 1.0])
def test_lines_are_no_specks(width: int, slope: float) -> None:
    lines = np.where((COLUMNS + slope * ROWS) % 24 < width, 80.0, 0.0)
    assert dots(added(lines[..., None] + noise(6.0))) < 2.0


def test_colour_noise_is_that_of_hues_alone() -> None:
    assert colour_noise(added(noise(20.0)), 3) < 1.5
    for channel in (0, 2):
        change = noise(20.0, channels=3) * np.eye(3)[channel]
        for scale in (3, 7):
            # A pixel against the mean of all that are around it, itself among them.
            expected = np.sqrt(1.0 - 1.0 / scale**2) * change[..., channel].std()
            assert colour_noise(added(change), scale) == pytest.approx(expected, rel=0.05)


def test_coarse_colour_noise_shows_at_the_larger_scale() -> None:
    stripes = 30.0 * np.sign(np.sin(np.pi / 4.0 * (ROWS + COLUMNS + 0.5)))[..., None] * (1, -1, 0)
    small, large = marks_of(added(stripes)).colour_noise
    assert large > 50.0 > 40.0 > small


@pytest.mark.parametrize("width", [1, 2, 4, 8])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_frame_has_four_sides(width: int, sign: float) -> None:
    assert frame(LARGE) < 5.0
    border = np.where(EDGE < width, sign * 50.0, 0.0)
    seen = 50.0 if width > 1 else 25.0  # It is looked for in two pixels and more.
    assert frame(added(border)) == pytest.approx(seen, abs=15.0)
    assert frame(added(np.where(ROWS < 80, border, 0.0))) < 1.0


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_who_stands_in_the_middle_makes_no_frame(sign: float) -> None:
    # A cross as wide as a quarter of what is looked at of each side, up to 8 pixels from the edge.
    cross = np.where((abs(ROWS - 63.5) < 8) | (abs(COLUMNS - 95.5) < 16), sign * 85.0, 0.0)
    picture = added(np.where(EDGE < 8, 0.0, cross))
    turned = picture.swapaxes(0, 1)
    for side in (picture, picture[::-1], turned, turned[::-1]):
        side = side[:, 32:-32].astype(float)
        assert sign * (side[16:32].mean() - side[:8].mean()) > 14.0  # Its mean is off.
    for cut in (0, 6, 12, 16):  # Fewer widths fit into smaller pictures.
        assert frame(np.delete(picture, np.s_[64 - cut : 64 + cut], axis=0)) < 2.0
    assert frame(added(np.where(EDGE < 8, 0.0, sign * 85.0 / 4.0))) > 14.0


@pytest.mark.parametrize("shape", [(1, 1), (2, 64), (16, 16), (63, 40)])
def test_what_is_too_small_to_tell_is_not_told(shape: tuple[int, int]) -> None:
    picture = tiny.smooth_picture(*shape, 0)
    checkers = np.where(np.indices(shape).sum(0) % 2 == 0, 100, 200).astype(np.uint8)
    assert grid(np.stack([checkers] * 3, axis=-1)) == 0.0
    found = marks_of(picture)
    assert (found.grid, found.dots * (min(shape) < 13)) == (0.0, 0.0)
    assert found.frame == pytest.approx(0.0, abs=12.0)
