from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import nets
import numpy as np
import pytest
import tensorflow as tf
import tiny

from fast_style import map_store, tiling
from fast_style.checkpoints import Model
from fast_style.errors import FastStyleError
from fast_style.map_store import open_store
from fast_style.resample import levels
from fast_style.stages import Grid, net_stages, reflected
from fast_style.stylize import Stylizer
from fast_style.stylize_options import Tile
from fast_style.tiling import ChannelStatistics, TiledNet, parts
from fast_style.transform_net import ARCHITECTURES

MODELS = {"johnson": nets.johnson(3), "slim2016": nets.slim2016()}


def mix_of(model: Model) -> np.ndarray:
    """Something of every style."""
    weights = np.arange(len(model.style_names), 0, -1, dtype=np.float32)
    return weights / weights.sum()


@pytest.fixture(scope="module")
def stylizers() -> dict[str, Stylizer]:
    return {arch: Stylizer(model, precision="float32") for arch, model in MODELS.items()}


def in_tiles(stylizer: Stylizer, picture: np.ndarray, tile: int, how: str = "exact") -> np.ndarray:
    """Float32 levels; the fast way with the picture itself for a thumbnail."""
    net, result = stylizer._tiled, np.full(picture.shape, np.nan, np.float32)

    def sink(top: int, left: int, values: np.ndarray) -> None:
        place = result[top : top + values.shape[0], left : left + values.shape[1]]
        assert np.isnan(place).all()  # Every pixel once.
        place[:] = values

    mix = mix_of(stylizer.model)
    if how == "exact":
        net.exact(picture, mix, sink, tile=tile)
    else:
        net.fast(picture, picture, mix, sink, tile=tile)
    assert not np.isnan(result).any()
    return result


def whole(stylizer: Stylizer, picture: np.ndarray) -> np.ndarray:
    return stylizer.run(levels(picture)[None], mix_of(stylizer.model)[None]).numpy()[0]


@pytest.mark.parametrize("how", ["exact", "fast"])
@pytest.mark.parametrize(
    ("arch", "height", "width", "tile"),
    [
        ("johnson", 67, 93, 32),
        ("johnson", 1, 50, 32),
        ("johnson", 44, 131, 40),
        ("johnson", 97, 18, 36),
        ("slim2016", 43, 70, 32),
        ("slim2016", 1, 49, 32),
    ],
)
def test_tiles_equal_the_whole_picture(
    stylizers: dict[str, Stylizer], arch: str, height: int, width: int, tile: int, how: str
) -> None:
    picture = tiny.smooth_picture(height, width, 1)
    expected = whole(stylizers[arch], picture)
    assert expected.std() > 20
    # Sums in another order: float32 noise, passed through norms and on a scale of 255.
    np.testing.assert_allclose(
        in_tiles(stylizers[arch], picture, tile, how), expected, rtol=0, atol=0.1
    )


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_bfloat16_tiles_are_as_close_to_the_whole_as_bfloat16_is(arch: str) -> None:
    stylizer = Stylizer(MODELS[arch], precision="bfloat16")
    picture = tiny.smooth_picture(43, 70, 1)
    apart = in_tiles(stylizer, picture, 32) - whole(stylizer, picture)
    # 40 dB: the noise of 8 bits is drawn anew where sums round otherwise.
    assert np.sqrt(np.square(apart).mean()) < 2.55


def test_tiles_of_16_bits_are_those_of_the_same_picture_in_8(
    stylizers: dict[str, Stylizer],
) -> None:
    picture = tiny.smooth_picture(40, 50, 1)
    deep = picture.astype(np.uint16) * 257
    stylizer = stylizers["johnson"]
    np.testing.assert_allclose(
        in_tiles(stylizer, deep, 32), in_tiles(stylizer, picture, 32), rtol=0, atol=0.05
    )


def test_statistics_of_a_thumbnail_leave_no_seams(stylizers: dict[str, Stylizer]) -> None:
    stylizer = stylizers["johnson"]
    picture, thumbnail = tiny.smooth_picture(90, 90, 1), tiny.smooth_picture(31, 31, 1)
    results = []
    for tile in (32, 48, 200):
        result = np.empty(picture.shape, np.float32)

        def sink(top: int, left: int, values: np.ndarray, result: np.ndarray = result) -> None:
            result[top : top + values.shape[0], left : left + values.shape[1]] = values

        stylizer._tiled.fast(picture, thumbnail, mix_of(stylizer.model), sink, tile=tile)
        results.append(result)
    for result in results[:2]:
        np.testing.assert_allclose(result, results[2], rtol=0, atol=0.05)


def test_graphs_serve_every_size(stylizers: dict[str, Stylizer]) -> None:
    net = stylizers["johnson"]._tiled
    for size in (50, 61):
        in_tiles(stylizers["johnson"], tiny.smooth_picture(size, size, 0), 32)
    # Three passes down, two for each of five blocks, two and the pixels up; those of the fast way.
    passes = [run for step, run in net._graphs._passes.items() if step.gives != "pixels"]
    assert len(passes) == 3 + 2 * 5 + 2
    assert all(run.experimental_get_tracing_count() == 1 for run in net._graphs._passes.values())


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_stages_size_and_sources_agree_with_its_convolution(arch: str) -> None:
    net = net_stages(arch)
    for size in (16, 17, 18, 19, 30):
        grid = Grid(len(net.source_positions(size)))
        for element in net.elements:
            if element in net.front or element in net.tail:
                stage: Any = element
                after = grid.after(stage)
                sources = stage.sources(0, after.size, grid.read_size(stage))
                assert len(sources) == (after.size - 1) * stage.stride + stage.taps
                assert sources.min() >= 0
                assert sources.max() < grid.read_size(stage)
                grid = after
        assert grid.phases
        assert 2 * grid.size >= net.crop + size


def test_reflection_is_numpys() -> None:
    for size in (1, 2, 5):
        expected = np.pad(np.arange(size), 13, mode="reflect")
        np.testing.assert_array_equal(reflected(np.arange(-13, size + 13), size), expected)


def test_statistics_of_parts_are_those_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(1e4, [1.0, 10.0], (1000, 2))
    statistics = ChannelStatistics()
    for part in np.split(values, [1, 300, 301, 700]):
        statistics.add(len(part), part.mean(0), part.var(0))
    np.testing.assert_allclose(statistics.mean, values.mean(0), rtol=1e-12)
    np.testing.assert_allclose(statistics.variance, values.var(0), rtol=1e-9)


def test_parts_cover_a_range_in_about_equal_pieces() -> None:
    assert parts(3, 13, 4) == [(3, 6), (6, 9), (9, 13)]
    assert parts(0, 5, 100) == [(0, 5)]


# --- temporary files -----------------------------------------------------------------------------


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder where temporary files go."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("dtype", [np.float32, tf.bfloat16.as_numpy_dtype])
def test_a_stored_map_gives_back_what_was_written(temporary: Path, dtype: Any) -> None:
    values = np.random.default_rng(0).normal(size=(7, 9, 5)).astype(dtype)
    with open_store(10**4) as store:
        stored = store.create(7, 9, 5, np.dtype(dtype))
        for rows in parts(0, 7, 3):
            for columns in parts(0, 9, 4):
                stored.write(rows[0], columns[0], values[slice(*rows), slice(*columns)])
        np.testing.assert_array_equal(stored.read((1, 6), (2, 9)), values[1:6, 2:9])
        assert list(temporary.iterdir())
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_no_more_disk_is_used_than_was_asked_for_and_none_is_kept(
    stylizers: dict[str, Stylizer],
    arch: str,
    temporary: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes, maps = [], set()
    write = map_store.StoredMap.write

    def watched(self: map_store.StoredMap, *arguments: Any) -> None:
        write(self, *arguments)
        maps.add(self)
        # Open files have no names, so that a kill leaves nothing behind.
        opened = [one._file for one in maps if not one._file.closed]
        sizes.append(sum(os.fstat(file.fileno()).st_size for file in opened))

    monkeypatch.setattr(map_store.StoredMap, "write", watched)
    in_tiles(stylizers[arch], tiny.smooth_picture(40, 50, 0), 32)
    assert max(sizes) == stylizers[arch].temporary_bytes(40, 50)
    assert not list(temporary.iterdir())


def test_a_disk_that_is_too_small_is_named_before_any_work(
    stylizers: dict[str, Stylizer], temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(temporary)._replace(free=300 * 10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    picture = np.broadcast_to(np.arange(9000)[:, None].astype(np.uint8), (9000, 9000, 3))
    expected = (
        r"exact tiling needs 1\.6 GB of temporary disk space, and 0\.3 GB are free; set TMPDIR"
    )
    with pytest.raises(FastStyleError, match=expected):
        stylizers["johnson"].stylize(picture, tile=512)
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("tile", [32, ("fast", 32)])
@pytest.mark.parametrize("stroke_scale", [1.0, 0.8])
def test_work_ends_before_the_tile_at_which_it_is_told_to(
    stylizers: dict[str, Stylizer], temporary: Path, tile: Tile, stroke_scale: float
) -> None:
    class Enough(Exception):
        pass

    calls = []

    def third() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Enough

    picture = tiny.smooth_picture(80, 90, 0)
    with pytest.raises(Enough):
        stylizers["johnson"].stylize(
            picture, tile=tile, stroke_scale=stroke_scale, before_tile=third
        )
    assert len(calls) == 3
    assert not list(temporary.iterdir())


def test_a_disk_that_fills_up_is_reported_and_cleaned(
    stylizers: dict[str, Stylizer], temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: map_store.StoredMap, *arguments: Any) -> None:
        with map_store._disk_errors():
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(map_store.StoredMap, "write", full)
    with pytest.raises(FastStyleError, match=r"No space left on device.*free some space"):
        stylizers["johnson"].stylize(tiny.smooth_picture(40, 50, 0), tile=32)
    assert not list(temporary.iterdir())


def test_the_estimate_counts_maps_at_a_quarter_of_the_resolution() -> None:
    model = nets.johnson()
    depth = model.weights["conv3/weight"].shape[-1]
    side = (64 + 20) // 4
    for precision, size in (("float32", 4), ("bfloat16", 2)):
        assert TiledNet(model, precision).temporary_bytes(64, 64) == 4 * side * side * depth * size


def test_every_architecture_has_stages() -> None:
    for arch in ARCHITECTURES:
        assert len(net_stages(arch).elements) == 11
    with pytest.raises(ValueError, match="arch: expected one of johnson, slim2016, got 'vgg'"):
        tiling.TiledNet(Model("vgg", 1.0, ("a",), {}, {}), "float32")
