from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

STYLES = Path(__file__).parents[1] / "data" / "styles"
NAMES = (
    "candy",
    "cubist",
    "denoised_starry",
    "feathers",
    "mosaic",
    "scream",
    "udnie",
    "wave",
)


@pytest.fixture(scope="module")
def paint() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(STYLES))
        yield importlib.import_module("paint")
        for name in [n for n in sys.modules if n == "paint" or n.split(".")[0] == "painters"]:
            del sys.modules[name]


def contrast_at_scales(picture: np.ndarray) -> list[float]:
    """Returns the mean step between neighbours, in levels, of ever coarser halvings."""
    grey = picture.astype(np.float64).mean(axis=-1)
    steps = []
    while min(grey.shape) >= 16:
        steps.append(float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey)).mean()))
        rows, columns = (side // 2 * 2 for side in grey.shape)
        grey = grey[:rows, :columns].reshape(rows // 2, 2, columns // 2, 2).mean(axis=(1, 3))
    return steps


def test_the_table_of_painters_holds_the_eight_styles(paint):
    assert sorted(paint.PAINTERS) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_painter_repeats_itself_for_a_seed_and_only_for_that(paint, name):
    first = paint.paint(name, 96, 3)
    assert first.dtype == np.uint8
    assert sorted(first.shape) == [3, 77, 96]
    np.testing.assert_array_equal(first, paint.paint(name, 96, 3))
    assert np.abs(first.astype(int) - paint.paint(name, 96, 4)).mean() > 2


@pytest.mark.parametrize("name", NAMES)
def test_style_picture_is_large_colourful_and_rich_at_every_scale(name):
    path = STYLES / f"{name}.jpg"
    assert path.stat().st_size < 900_001
    with Image.open(path) as image:
        assert image.format == "JPEG" and image.mode == "RGB"
        picture = np.asarray(image)
    assert min(picture.shape[:2]) >= 1024
    # A grey picture has no spread between its channels; a flat one none within them.
    assert np.ptp(picture.astype(int), axis=-1).mean() > 25
    assert picture.std(axis=(0, 1)).min() > 30
    # From single bristles to the composition: no octave is smooth.
    assert min(contrast_at_scales(picture)) > 8
    # No large flat area: hardly any 32 px tile is of one tone.
    grey = picture.mean(axis=-1)[:1024, :1024].reshape(32, 32, 32, 32)
    assert (grey.std(axis=(1, 3)) < 4).mean() < 0.02


def test_command_writes_named_pictures_into_a_folder(paint, tmp_path, capsys):
    assert paint.main(["wave", "--size", "96", "-o", str(tmp_path / "new")]) == 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["wave.jpg"]
    assert "wave.jpg" in capsys.readouterr().out
    with Image.open(tmp_path / "new" / "wave.jpg") as image:
        assert image.size == (96, 77)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["monalisa"], "no picture 'monalisa'; choose among candy"),
        (["--size", "5"], "--size must be at least 64, got 5"),
        (["--seed", "-1"], "--seed must be at least 0, got -1"),
    ],
)
def test_command_refuses_what_it_cannot_paint(paint, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        paint.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
