from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny

from fast_style import memory
from fast_style.effects import bare_share, grained, recolour, rescale_styled, weaken
from fast_style.resample import Resampler, levels, pixels_like, resized, size_within, strips
from fast_style.stylize_options import StylizeOptions, parse_tile

DEPTHS = [np.uint8, np.uint16]


def pictures(dtype: Any = np.uint8) -> tuple[np.ndarray, np.ndarray]:
    """A photo and a styled picture of noise around another colour."""
    rng = np.random.default_rng(0)
    photo = levels(tiny.smooth_picture(31, 45, 0)) * 0.6 + 40
    styled = rng.normal([150, 110, 90], 25, photo.shape)
    return pixels_like(photo, np.dtype(dtype)), pixels_like(styled, np.dtype(dtype))


# --- strength ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DEPTHS)
@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_the_ends_of_strength_are_exact(dtype: Any, strength: float) -> None:
    photo, styled = pictures(dtype)
    result = styled.copy()
    weaken(result, photo, strength)
    np.testing.assert_array_equal(result, styled if strength else photo)


@pytest.mark.parametrize("strength", [0.25, 0.5, 0.75])
def test_strength_keeps_contrast_and_mean_colour_between_both(strength: float) -> None:
    photo, styled = pictures(np.uint16)
    result = styled.copy()
    weaken(result, photo, strength)
    flat = [levels(x).reshape(-1, 3).astype(np.float64) for x in (photo, styled, result)]
    means = [x.mean(0) for x in flat]
    spreads = [np.sqrt(x.var(0).sum()) for x in flat]
    between = (1 - strength) * means[0] + strength * means[1]
    np.testing.assert_allclose(means[2], between, atol=0.1)  # Rounding, a few clipped pixels.
    wanted = (1 - strength) * spreads[0] + strength * spreads[1]
    assert spreads[2] == pytest.approx(wanted, rel=0.01)
    faded = (1 - strength) * flat[0] + strength * flat[1]
    assert np.sqrt(faded.var(0).sum()) < 0.9 * wanted  # What a plain average would give.


def test_strength_moves_little_for_little() -> None:
    photo, styled = pictures()
    for strength, end in ((0.01, photo), (0.99, styled)):
        result = styled.copy()
        weaken(result, photo, strength)
        assert np.abs(result.astype(int) - end).max() <= 5


def test_strength_of_flat_pictures_is_a_plain_average() -> None:
    photo, styled = np.full((4, 5, 3), 100, np.uint8), np.full((4, 5, 3), 200, np.uint8)
    weaken(styled, photo, 0.25)
    np.testing.assert_array_equal(styled, 125)


# --- colours and detail --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DEPTHS)
def test_recolouring_keeps_the_photos_chroma_and_the_styles_brightness(dtype: Any) -> None:
    photo, styled = pictures(dtype)
    result = styled.copy()
    recolour(result, photo)
    luma = np.array([0.299, 0.587, 0.114])
    got, expected = levels(result), levels(photo)
    inside = ((got > 1) & (got < 254)).all(-1)
    assert inside.mean() > 0.8
    tolerance = 1.0 if dtype == np.uint8 else 0.01
    np.testing.assert_allclose(
        (got @ luma)[inside], (levels(styled) @ luma)[inside], atol=tolerance
    )
    chroma = [x - (x @ luma)[..., None] for x in (got, expected)]
    np.testing.assert_allclose(chroma[0][inside], chroma[1][inside], atol=tolerance)


def test_a_picture_styled_smaller_gets_the_photos_fine_brightness() -> None:
    rng = np.random.default_rng(0)
    coarse = levels(tiny.smooth_picture(60, 80, 0)) * 0.5 + 60
    grain = rng.normal(0, 12, (60, 80, 1))
    photo = pixels_like(coarse + grain, np.dtype(np.uint8))
    styled = np.full((30, 40, 3), (90, 120, 150), np.uint8)
    out = np.empty_like(photo)
    rescale_styled(styled, photo, out)
    difference = out.astype(float) - (90, 120, 150)
    np.testing.assert_allclose(difference[..., 0], difference[..., 1], atol=1)  # Brightness alone.
    fine = levels(photo) - levels(resized(resized(photo, 30, 40), 60, 80))
    assert np.corrcoef(difference[..., 1].ravel(), fine.mean(-1).ravel())[0, 1] > 0.98


def test_a_picture_styled_larger_is_only_scaled_down() -> None:
    photo, _ = pictures()
    styled = tiny.smooth_picture(62, 90, 3)
    out = np.empty_like(photo)
    rescale_styled(styled, photo, out)
    np.testing.assert_array_equal(out, resized(styled, 31, 45))


# --- another size --------------------------------------------------------------------------------


def test_strips_of_a_resampled_picture_are_those_of_the_whole() -> None:
    resampler = Resampler(tiny.smooth_picture(150, 33, 0), 233, 41)
    expected = resampler.rows(0, 233)
    for top, bottom in ((0, 70), (70, 71), (71, 233)):
        np.testing.assert_allclose(resampler.rows(top, bottom), expected[top:bottom], atol=1e-3)


def cubic(size: int, target: int) -> np.ndarray:
    """Keys' weights, [target, size], one by one."""
    scale = size / target
    spread = max(scale, 1.0)
    weights = np.zeros((target, size))
    for i in range(target):
        for j in range(size):
            x = abs(j - ((i + 0.5) * scale - 0.5)) / spread
            if x < 1:
                weights[i, j] = 1.5 * x**3 - 2.5 * x**2 + 1
            elif x < 2:
                weights[i, j] = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        weights[i] /= weights[i].sum()
    return weights


@pytest.mark.parametrize("target", [(9, 40), (53, 11), (17, 23), (1, 1), (200, 3)])
def test_resampling_is_cubic_convolution(target: tuple[int, int]) -> None:
    picture = tiny.smooth_picture(17, 23, 0)
    expected = np.einsum(
        "ij,jkc,lk->ilc", cubic(17, target[0]), picture.astype(float), cubic(23, target[1])
    )
    np.testing.assert_allclose(Resampler(picture, *target).rows(0, target[0]), expected, atol=1e-3)


def test_flat_pictures_stay_flat_and_equal_sizes_stay_untouched() -> None:
    flat = np.full((13, 29, 3), 65535, np.uint16)
    assert (resized(flat, 50, 7) == 65535).all()
    assert resized(flat, 13, 29) is flat


def test_levels_and_pixels_are_inverse() -> None:
    for dtype in DEPTHS:
        pixels = np.arange(0, np.iinfo(dtype).max + 1, 51, dtype=np.int64).astype(dtype)
        np.testing.assert_array_equal(pixels_like(levels(pixels), np.dtype(dtype)), pixels)
    assert levels(np.array([65535], np.uint16)) == 255.0
    np.testing.assert_array_equal(
        pixels_like(np.array([-3.0, 254.6, 300.0], np.float32), np.dtype(np.uint8)), [0, 255, 255]
    )


def test_sizes_within_a_limit_keep_their_proportions() -> None:
    assert size_within(3000, 4000, 1024) == (768, 1024)
    assert size_within(30, 40, 1024) == (30, 40)
    assert size_within(1, 5000, 100) == (1, 100)


def test_strips_cover_every_row_once() -> None:
    rows = [row for part in strips(10, 7, 21) for row in range(part.start, part.stop)]
    assert rows == list(range(10))
    assert len(list(strips(3, 10**6, 10))) == 3


# --- grain ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_is_bare_are_blocks_of_one_colour_where_the_photo_is_flat(dtype: type) -> None:
    level = 257 if dtype == np.uint16 else 1
    shape = (16 * 4 + 5, 16 * 5 + 9, 3)
    block = 16**2 / (shape[0] * shape[1])
    rng = np.random.default_rng(1)
    photo, styled = ((level * rng.integers(0, 256, shape)).astype(dtype) for _ in range(2))
    assert bare_share(photo, photo) == 0.0
    styled[16:48, 32:64] = level * np.array((7, 200, 0))
    assert bare_share(photo, styled) == 0.0  # A net may paint texture over with one colour.
    photo[:48, 48:64] = level * 90
    photo[9, 60, 1] += 3 * level
    assert bare_share(photo, styled) == pytest.approx(2 * block)
    styled[20, 60, 2] += 2 * level
    styled[40, 60, 0] += 3 * level
    assert bare_share(photo, styled) == pytest.approx(block)
    alpha = np.full(shape[:2], 9, np.uint8)
    assert bare_share(photo, styled, alpha) == pytest.approx(block)
    alpha[16:32, 48:64] = 0
    assert bare_share(photo, styled, alpha) == 0.0
    # The photo of another size: a clipped sky that loses its last noise when it is scaled down.
    sky = np.full((4 * 69, 4 * 89, 3), 255 * level, dtype)
    sky[::7, ::5] -= 4 * level
    assert bare_share(sky, sky) == 0.0
    sky_alpha = np.full(sky.shape[:2], 1, np.uint8)
    for given in (None, sky_alpha):
        assert bare_share(sky, styled, given) == pytest.approx(3 * block)
    sky_alpha[64:128] = 0
    assert bare_share(sky, styled, sky_alpha) == pytest.approx(block)
    for side in (1, 15):
        small = np.zeros((400, side, 3), dtype)
        assert bare_share(small, small) == bare_share(small[:side], small[:side]) == 0.0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grain_is_noise_of_so_many_levels_and_always_the_same(dtype: type) -> None:
    largest = np.iinfo(dtype).max
    photo = np.full((700, 1600, 3), largest // 2, dtype)  # More than one strip.
    noisy = grained(photo, 5.0)
    assert noisy.dtype == dtype and (photo == largest // 2).all()
    step = next(iter(strips(700, 1600))).stop
    assert step < 700
    difference = (noisy.astype(float) - photo) * 255.0 / largest
    assert difference.std() == pytest.approx(5.0, rel=0.02)
    assert abs(difference.mean()) < 0.05
    # Independent from pixel to pixel, from channel to channel and from strip to strip.
    for one, other in (
        (difference[:, 1:], difference[:, :-1]),
        (difference[..., 0], difference[..., 1]),
        (difference[: 700 - step], difference[step:]),
    ):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.01
    np.testing.assert_array_equal(grained(photo, 5.0), noisy)
    assert grained(photo, 0.0) is photo
    black, white = grained(np.zeros((9, 9, 3), dtype), 5.0), grained(photo * 0 + largest, 5.0)
    assert black.max() < largest // 4 and white.min() > largest // 2  # Clipped, not wrapped.


# --- options and memory --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strength": -0.1}, "strength: expected a number from 0 to 1, got -0.1"),
        ({"strength": float("nan")}, "strength: expected a number from 0 to 1, got nan"),
        ({"strength": True}, "strength: .* got True"),
        ({"stroke_scale": 0.4}, "stroke_scale: expected a number from 0.5 to 4, got 0.4"),
        ({"grain": -1}, "grain: expected a number from 0 to 32, got -1"),
        ({"grain": float("nan")}, "grain: expected a number from 0 to 32, got nan"),
        ({"max_size": 0}, "max_size: expected a whole number of at least 1, got 0"),
        ({"max_size": 1.5}, "max_size: expected a whole number of at least 1, got 1.5"),
        ({"tile": "on"}, "tile: expected auto, off, fast, .* of at least 32, got 'on'"),
        ({"tile": 31}, "tile: .* got 31"),
        ({"tile": ("fast", 8)}, r"tile: .* got \('fast', 8\)"),
        ({"tile": ("slow", 512)}, r"tile: .* got \('slow', 512\)"),
    ],
)
def test_options_out_of_range_are_refused_by_name(settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StylizeOptions(**settings)


def test_tiles_are_read_from_text() -> None:
    texts = ["auto", "off", "fast", "512", "fast:768"]
    assert [parse_tile(text) for text in texts] == ["auto", "off", "fast", 512, ("fast", 768)]
    for text in ("fast:", "fast:x", "-5", ""):
        with pytest.raises(ValueError, match="tile: expected"):
            StylizeOptions(tile=parse_tile(text))


def test_pictures_are_whole_only_in_half_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    assert memory.available_memory() > 2**20
    needed = 1000 * 1000 * memory.WHOLE_BYTES_PER_PIXEL
    monkeypatch.setattr(memory, "available_memory", lambda: 2 * needed)
    assert memory.fits_whole(1000, 1000)
    assert not memory.fits_whole(1000, 1001)
    assert not memory.fits_whole(1000, 1000, channels=1.1)
    assert memory.fits_whole(1000, 1000, channels=0.5)
    monkeypatch.setattr(memory, "available_memory", lambda: 10**15)
    assert not memory.fits_whole(10_000, 10_000)


def test_memory_is_guessed_where_the_system_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_from_meminfo", lambda: None)
    assert memory.available_memory() > 2**20
    monkeypatch.setattr(memory, "_from_sysconf", lambda: None)
    assert 2**20 < memory.available_memory() <= 2 * 2**30
