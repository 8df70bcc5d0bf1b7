from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import nets
import numpy as np
import pytest
import reference
import tiny

import fast_style
from fast_style import stylize as stylize_module
from fast_style import winograd
from fast_style.checkpoints import MODEL_FILE, save_model
from fast_style.effects import grained, recolour, rescale_styled, weaken
from fast_style.errors import ModelError
from fast_style.resample import resized
from fast_style.stylize import Stylizer

SIZES = [(1, 1), (1, 50), (15, 16), (16, 16), (17, 23), (64, 33)]


def levels_apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    assert one.dtype == other.dtype == np.uint8
    return np.abs(one.astype(int) - other.astype(int))


@pytest.fixture(scope="module")
def stylizer() -> Stylizer:
    """A net of three styles in float32."""
    return Stylizer(nets.johnson(3), precision="float32")


@pytest.fixture
def photo() -> np.ndarray:
    return tiny.smooth_picture(17, 23, 0)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_pictures_keep_their_size(stylizer: Stylizer, height: int, width: int) -> None:
    styled = stylizer.stylize(tiny.smooth_picture(height, width, 1))
    assert styled.shape == (height, width, 3)
    assert styled.dtype == np.uint8


def test_one_trace_serves_every_size_and_every_mix(stylizer: Stylizer) -> None:
    for height, width in SIZES:
        picture = tiny.smooth_picture(height, width, 1)
        stylizer.stylize([picture, picture], style_weights=[0.1, 0.2, 0.7])
    assert stylizer.run.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("switch", ["0", "1"])
def test_one_colour_gives_the_one_colour_of_the_formula(
    precision: str, switch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The norms enlarge rounding where nothing else varies: a black frame became noise."""
    monkeypatch.setenv(winograd.SWITCH, switch)
    stylizer = Stylizer(nets.johnson(3), precision=precision)
    mix = [0.2, 0.5, 0.3]
    # Without rounding, norms have nothing to enlarge.
    monkeypatch.setattr(
        reference, "normalize", lambda x, epsilon, scale, offset: np.zeros_like(x) + offset
    )
    flat = np.full((29, 38, 3), (0, 119, 255), np.uint8)
    exact = reference.johnson(stylizer.model.weights, flat[None], np.array([mix]))[0]
    assert np.ptp(exact, axis=(0, 1)).max() < 1e-6
    # One pixel that differs, and it is the net's.
    nearly = flat.copy()
    nearly[-1, -1, 2] = 254
    alone = stylizer.stylize(nearly, style_weights=mix)
    computed = stylizer.run(nearly[None].astype(np.float32), np.array([mix], np.float32))[0]
    np.testing.assert_array_equal(alone, np.rint(computed))
    styled, varied, black = stylizer.stylize([flat, nearly, flat * 0], style_weights=mix)
    np.testing.assert_array_equal(varied, alone)
    np.testing.assert_array_equal(styled, np.rint(exact))
    np.testing.assert_array_equal(black, styled)
    large = stylizer.stylize(flat, style_weights=mix, stroke_scale=2.0, max_size=30)
    np.testing.assert_array_equal(large, styled[: large.shape[0], : large.shape[1]])
    deep = stylizer.stylize(flat.astype(np.uint16) * 257, style_weights=mix, tile=32)
    np.testing.assert_array_equal(deep, np.rint(exact * 257.0))
    half = stylizer.stylize(flat, style_weights=mix, strength=0.5)
    assert levels_apart(half, np.rint((flat + exact) / 2).astype(np.uint8)).max() <= 1


def test_one_colour_gives_grey_with_slim2016(monkeypatch: pytest.MonkeyPatch) -> None:
    stylizer = Stylizer(nets.slim2016(), precision="float32")
    flat = np.full((29, 38, 3), (0, 119, 255), np.uint8)
    monkeypatch.setattr(reference, "normalize", lambda x, epsilon: np.zeros_like(x))
    exact = reference.slim2016(stylizer.model.weights, flat[None])[0]
    np.testing.assert_array_equal(stylizer.stylize(flat), np.rint(exact))


def test_pixels_are_those_of_the_formula(stylizer: Stylizer, photo: np.ndarray) -> None:
    mix = [0.2, 0.5, 0.3]
    expected = reference.johnson(stylizer.model.weights, photo[None], np.array([mix]))[0]
    styled = stylizer.stylize(photo, style_weights=mix)
    # Rounded to the nearest level: half a level, and float32's error.
    assert np.abs(styled - expected).max() < 0.55
    assert styled.std() > 20  # A picture, not a flat colour.


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 20), (5, 40), (15, 7)])
def test_small_pictures_are_reflected_up_to_16_pixels(
    stylizer: Stylizer, height: int, width: int
) -> None:
    picture = tiny.smooth_picture(height, width, 2)
    borders = ((0, max(16 - height, 0)), (0, max(16 - width, 0)), (0, 0))
    enlarged = np.pad(picture, borders, mode="reflect")
    mix = np.eye(1, 3, dtype=np.float32)
    # Not by `stylize`, which knows what pictures of one colour become, such as that of one pixel.
    styled, expected = (
        stylizer.run(pixels[None].astype(np.float32), mix)[0].numpy()
        for pixels in (picture, enlarged)
    )
    np.testing.assert_allclose(styled, expected[:height, :width], atol=0.5)


def test_a_net_is_traced_before_its_first_picture() -> None:
    stylizer = Stylizer(nets.johnson(3), precision="float32")
    stylizer.warm_up()
    assert stylizer.run.experimental_get_tracing_count() == 1
    stylizer.stylize(tiny.smooth_picture(17, 23, 0))
    assert stylizer.run.experimental_get_tracing_count() == 1


def test_a_list_gives_a_list_in_order(stylizer: Stylizer, photo: np.ndarray) -> None:
    other = tiny.smooth_picture(30, 18, 3)
    styled = stylizer.stylize([photo, other, photo])
    assert isinstance(styled, list)
    assert [picture.shape for picture in styled] == [(17, 23, 3), (30, 18, 3), (17, 23, 3)]
    np.testing.assert_array_equal(styled[0], styled[2])
    np.testing.assert_array_equal(styled[1], stylizer.stylize(other))
    assert stylizer.stylize([]) == []


def test_a_picture_is_not_changed_by_stylizing_it(stylizer: Stylizer, photo: np.ndarray) -> None:
    kept = photo.copy()
    stylizer.stylize(photo)
    np.testing.assert_array_equal(photo, kept)


def test_any_layout_in_memory_will_do(stylizer: Stylizer, photo: np.ndarray) -> None:
    mirrored = photo[:, ::-1]
    mirrored.flags.writeable = False
    assert not mirrored.flags.c_contiguous
    np.testing.assert_array_equal(stylizer.stylize(mirrored), stylizer.stylize(mirrored.copy()))


def test_the_first_style_is_taken_unless_asked(stylizer: Stylizer, photo: np.ndarray) -> None:
    first = stylizer.stylize(photo, style_weights=[1, 0, 0])
    np.testing.assert_array_equal(stylizer.stylize(photo), first)


def test_style_weights_blend_between_styles(stylizer: Stylizer, photo: np.ndarray) -> None:
    first, second, half = (
        stylizer.stylize(photo, style_weights=mix).astype(float)
        for mix in ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.5, 0.0])
    )
    apart = np.abs(first - second).mean()
    assert apart > 5
    assert 1 < np.abs(first - half).mean() < apart
    assert 1 < np.abs(second - half).mean() < apart


@pytest.mark.parametrize("weights", [(0.0, 0.0, 1.0), np.array([0.0, 0.0, 1.0])])
def test_style_weights_may_be_any_sequence(
    stylizer: Stylizer, photo: np.ndarray, weights: Any
) -> None:
    expected = stylizer.stylize(photo, style_weights=[0, 0, 1])
    np.testing.assert_array_equal(stylizer.stylize(photo, style_weights=weights), expected)


@pytest.mark.parametrize(
    "weights",
    [
        [],
        [1.0],
        [0.2, 0.2, 0.3, 0.3],
        [np.nan, 0.5, 0.5],
        [np.inf, 0.0, 0.0],
        [1e38, 0.0, 0.0],  # Infinite within the net.
        [0.0, 0.0, -10.5],
        [10**400, 0, 0],
        [[1.0, 0.0], [0.0], []],
        [[1.0], [0.0], [0.0]],
        ["much", "little", "none"],
        1.0,
    ],
)
def test_style_weights_that_do_not_fit_the_model_are_refused(
    stylizer: Stylizer, photo: np.ndarray, weights: Any
) -> None:
    expected = "expected 3 numbers from -10 to 10, for waves, glass, ink, got "
    with pytest.raises(ValueError, match=expected):
        stylizer.stylize(photo, style_weights=weights)


@pytest.mark.parametrize(
    ("image", "got"),
    [
        (np.zeros((17, 23, 3), np.float32), "float32"),
        (np.zeros((17, 23, 3), np.int64), "int64"),
        ([np.zeros((17, 23, 3), bool)], "bool"),
        ("photo.jpg", "str"),
        (None, "NoneType"),
        ((np.zeros((17, 23, 3), np.uint8),), "tuple"),
    ],
)
def test_what_is_not_a_uint8_array_is_refused(stylizer: Stylizer, image: Any, got: str) -> None:
    with pytest.raises(
        TypeError, match=f"image: expected a NumPy array of uint8 or uint16, got {got}"
    ):
        stylizer.stylize(image)


@pytest.mark.parametrize("shape", [(17, 23), (17, 23, 1), (17, 23, 4), (1, 17, 23, 3), (0, 5, 3)])
def test_what_has_not_the_shape_of_a_picture_is_refused(
    stylizer: Stylizer, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"image: expected shape \[H, W, 3\], got \[") as caught:
        stylizer.stylize(np.zeros(shape, np.uint8))
    assert str(caught.value).endswith(f"got {list(shape)}")


def test_bfloat16_is_close_to_float32(stylizer: Stylizer) -> None:
    fast = Stylizer(nets.johnson(3), precision="bfloat16")
    assert (stylizer.precision, fast.precision) == ("float32", "bfloat16")
    photo = tiny.smooth_picture(40, 52, 0)
    apart = levels_apart(fast.stylize(photo), stylizer.stylize(photo))
    # 8 bits of precision: 0.2 to 0.4 % a layer over some twenty layers, on a scale of 255.
    assert 0 < apart.mean() < 3


def test_precision_is_one_of_two_or_left_to_the_machine() -> None:
    assert Stylizer(nets.johnson()).precision in ("float32", "bfloat16")
    with pytest.raises(ValueError, match="expected .*float32.*bfloat16.* got 'float16'"):
        Stylizer(nets.johnson(), precision="float16")


def test_load_gives_a_stylizer(stylizer: Stylizer, tmp_path: Path, photo: np.ndarray) -> None:
    save_model(tmp_path / MODEL_FILE, nets.johnson(3))
    loaded = fast_style.load(tmp_path, precision="float32")
    assert isinstance(loaded, fast_style.Stylizer)
    assert loaded.model.style_names == nets.STYLES
    apart = levels_apart(loaded.stylize(photo), stylizer.stylize(photo))
    assert apart.max() <= 1


def test_load_names_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere: no such model; give the folder of a training"):
        fast_style.load(tmp_path / "nowhere")


def test_importing_the_package_loads_no_tensorflow() -> None:
    program = """
import sys
import fast_style, fast_style.cli, fast_style.config, fast_style.images, fast_style.jobs
assert {"Stylizer", "load"} <= set(fast_style.__all__)
assert "tensorflow" not in sys.modules, "imported at once"
assert not hasattr(fast_style, "unheard_of")
assert "tensorflow" not in sys.modules, "imported by a look"
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


# --- options -------------------------------------------------------------------------------------


def test_pictures_of_16_bits_stay_so_without_rounding_to_8(stylizer: Stylizer) -> None:
    photo = tiny.smooth_picture(17, 23, 0).astype(np.uint16) * 257
    photo[3:9] += 100  # Between two levels of 8 bits.
    styled = stylizer.stylize(photo)
    assert styled.dtype == np.uint16
    expected = stylizer.run(photo[None].astype(np.float32) / 257, [[1.0, 0.0, 0.0]]).numpy()[0]
    assert np.abs(styled / 257 - expected).max() < 0.003  # Half of a 16-bit level.
    assert (styled % 257 != 0).mean() > 0.9


def test_a_strength_of_0_is_the_photo_and_of_1_the_style(
    stylizer: Stylizer, photo: np.ndarray
) -> None:
    none = stylizer.stylize(photo, strength=0.0, preserve_color=True, stroke_scale=2.0)
    np.testing.assert_array_equal(none, photo)
    assert none is not photo
    full = stylizer.stylize(photo)
    np.testing.assert_array_equal(stylizer.stylize(photo, strength=1), full)
    half = stylizer.stylize(photo, strength=0.5).astype(int)
    assert 0 < np.abs(half - photo).mean() < np.abs(full.astype(int) - photo).mean()


def test_colours_are_the_photos_on_request(stylizer: Stylizer) -> None:
    grey = np.repeat(tiny.smooth_picture(17, 23, 0)[..., :1], 3, axis=2)
    assert np.ptp(stylizer.stylize(grey).astype(int), axis=2).max() > 5
    assert np.ptp(stylizer.stylize(grey, preserve_color=True).astype(int), axis=2).max() == 0


@pytest.mark.parametrize("scale", [0.5, 1.7, 4])
def test_strokes_of_another_size_keep_the_pictures_size(
    stylizer: Stylizer, photo: np.ndarray, scale: float
) -> None:
    styled = stylizer.stylize(photo, stroke_scale=scale)
    assert styled.shape == photo.shape
    assert levels_apart(styled, stylizer.stylize(photo)).mean() > 1


def test_grain_is_for_the_net_and_not_for_the_photos_own_part(
    stylizer: Stylizer, photo: np.ndarray
) -> None:
    styled = stylizer.stylize(photo, grain=8.0)
    np.testing.assert_array_equal(styled, stylizer.stylize(grained(photo, 8.0)))
    expected = styled.copy()
    recolour(expected, photo)
    weaken(expected, photo, 0.5)
    half = stylizer.stylize(photo, grain=8.0, strength=0.5, preserve_color=True)
    np.testing.assert_array_equal(half, expected)
    height, width = (round(side / 2) for side in photo.shape[:2])
    seen = grained(resized(photo, height, width), 8.0)
    rescale_styled(stylizer.stylize(seen), photo, expected)
    larger = stylizer.stylize(photo, grain=8.0, stroke_scale=2.0)
    np.testing.assert_array_equal(larger, expected)
    large = stylizer.stylize(np.repeat(photo, 2, axis=1), grain=8.0, tile=32)
    whole = stylizer.stylize(np.repeat(photo, 2, axis=1), grain=8.0, tile="off")
    assert levels_apart(large, whole).max() <= 1
    flat = np.full((40, 40, 3), 90, np.uint8)
    assert stylizer.stylize(flat).std(axis=(0, 1)).max() == 0
    assert stylizer.stylize(flat, grain=3.0).std(axis=(0, 1)).max() > 1


def test_the_thumbnail_of_fast_tiles_has_as_much_grain(
    stylizer: Stylizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stylize_module, "_THUMBNAIL", 48)
    flat = np.full((160, 160, 3), 90, np.uint8)
    fast, whole = (stylizer.stylize(flat, grain=8.0, tile=tile) for tile in (("fast", 64), "off"))
    contrast, expected = (picture.std(axis=(0, 1)) for picture in (fast, whole))
    np.testing.assert_allclose(contrast, expected, rtol=0.15)
    # Where grain is scaled down with the picture, norms enlarge what it has left: it saturates.
    averaged = stylizer.stylize(grained(flat, 8.0), tile=("fast", 64)).std(axis=(0, 1))
    assert (averaged < 0.5 * expected).all()


def test_large_pictures_shrink_to_max_size_and_small_ones_do_not_grow(
    stylizer: Stylizer, photo: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="fast_style.stylize")
    assert stylizer.stylize(photo, max_size=20).shape == (15, 20, 3)
    assert "scaled down to 20x15 for max_size" in caplog.text
    assert stylizer.stylize(photo, max_size=23).shape == photo.shape


def test_the_result_may_go_into_an_array_of_the_caller(
    stylizer: Stylizer, photo: np.ndarray
) -> None:
    out = np.zeros_like(photo)
    assert stylizer.stylize(photo, out=out) is out
    np.testing.assert_array_equal(out, stylizer.stylize(photo))
    with pytest.raises(ValueError, match=r"out: expected uint8 \[17, 23, 3\], got uint8 \[5, 5, 3"):
        stylizer.stylize(photo, out=np.zeros((5, 5, 3), np.uint8))


def test_pictures_of_a_list_that_have_one_size_are_computed_together(
    stylizer: Stylizer, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []

    def watched(run: Any) -> Any:
        def call(images: Any, mix: Any) -> Any:
            counts.append(len(images))
            return run(images, mix)

        return call

    monkeypatch.setattr(stylizer, "run", watched(stylizer.run))
    monkeypatch.setattr(stylizer, "run_many", watched(stylizer.run_many))
    others = [np.roll(photo, shift, 0) for shift in range(3)]
    styled = stylizer.stylize([others[0], photo[:16], others[1], others[2]], strength=0.7)
    assert counts == [3, 1]
    for picture, result in zip([others[0], photo[:16]], styled, strict=False):
        assert levels_apart(stylizer.stylize(picture, strength=0.7), result).max() <= 1


@pytest.mark.parametrize("tile", [32, ("fast", 32), "off", "auto"])
def test_tiles_give_the_picture_and_say_how(
    stylizer: Stylizer, tile: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="fast_style.stylize")
    photo = tiny.smooth_picture(40, 70, 4)
    styled = stylizer.stylize(photo, tile=tile, strength=0.9)
    assert levels_apart(styled, stylizer.stylize(photo, strength=0.9)).max() <= 1
    said = {32: "70x40: exact tiles of 32 px", ("fast", 32): "with the statistics of a thumbnail"}
    assert said.get(tile, "") in caplog.text
    assert bool(caplog.text) == (tile in said)


def test_large_pictures_are_tiled_exactly_where_memory_is_short(
    stylizer: Stylizer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="fast_style.stylize")
    photo = tiny.smooth_picture(40, 70, 4)
    expected = stylizer.stylize(photo)
    monkeypatch.setattr("fast_style.stylize.fits_whole", lambda *_, **__: False)
    assert levels_apart(stylizer.stylize(photo), expected).max() <= 1
    assert "exact tiles of 512 px" in caplog.text
