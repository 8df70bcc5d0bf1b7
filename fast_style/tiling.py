"""Pictures too large for memory: the net on tiles, with norms that know the whole picture.

Two ways. *Exact*: the statistics of every norm are gathered over all tiles before the norm is
applied, pass by pass, so that the result is that of the whole picture. *Fast*: the statistics come
from a thumbnail, and every tile is computed in one go. In both, a tile is computed from as much of
its surroundings as it depends on, so neighbours agree and there are no seams.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from fast_style.checkpoints import Model
from fast_style.map_store import MapStore, StoredMap, open_store
from fast_style.resample import levels
from fast_style.stages import (
    Element,
    Grid,
    Residual,
    Stage,
    channels,
    net_stages,
    plan_axis,
    scale_and_offset,
)
from fast_style.tile_graphs import Pass, TileGraphs, measured

Range = tuple[int, int]
Sink = Callable[[int, int, np.ndarray], None]
"""Takes finished pixels: (top, left, float32 [h, w, 3] in 0..255)."""

BeforeTile = Callable[[], object]
"""Called before each tile of each pass; what it raises ends the work."""


@dataclass
class ChannelStatistics:
    """Mean and variance of each channel of a map that is seen part by part.

    Parts are combined as in Chan et al. (1979), in float64.
    """

    count: int = 0
    mean: Any = 0.0
    squares: Any = 0.0  # Sum of squared differences from the mean.

    def add(self, count: int, mean: np.ndarray, variance: np.ndarray) -> None:
        """Adds a part.

        Args:
          count: Its pixels.
          mean: [C].
          variance: [C], biased.
        """
        total = self.count + count
        delta = mean.astype(np.float64) - self.mean
        self.mean = self.mean + delta * (count / total)
        self.squares = (
            self.squares
            + variance.astype(np.float64) * count
            + np.square(delta) * (self.count * count / total)
        )
        self.count = total

    @property
    def variance(self) -> np.ndarray:
        """[C] float64, biased."""
        return self.squares / self.count


@dataclass(frozen=True)
class _Source:
    """A map that is read part by part.

    Attributes:
      kind: 'picture'; 'map', as stored; 'pending', to be finished by a norm and a ReLU that were
        not applied before it was stored; 'sum', of a map and a pending one.
      grids: Its axes.
      read: (rows, columns) -> what is stored of that part.
      pending: The stage whose norm and ReLU are pending.
      maps: The stored maps it reads.
    """

    kind: Literal["picture", "map", "pending", "sum"]
    grids: tuple[Grid, Grid]
    read: Callable[[Range, Range], list[np.ndarray]]
    pending: Stage | None = None
    maps: tuple[StoredMap, ...] = ()


@dataclass
class _Picture:
    """One picture on its way through the net: its axes, its mix of styles and known norms."""

    source: _Source
    mix: np.ndarray
    before_tile: BeforeTile
    norms: dict[Stage, tuple[np.ndarray, ...]] = field(default_factory=dict)


class TiledNet:
    """A model that works on tiles. Its graphs are traced when first used, once for all sizes."""

    def __init__(self, model: Model, precision: str) -> None:
        """Prepares a model.

        Args:
          model: From `load_model`.
          precision: 'float32' or 'bfloat16', the type of features, also of those in files.
        """
        self._net = net_stages(model.arch)
        self._weights = model.weights
        self._dtype = tf.as_dtype(precision)
        self._graphs = TileGraphs(self._net, self._weights, self._dtype)

    def exact(
        self,
        image: np.ndarray,
        mix: np.ndarray,
        sink: Sink,
        *,
        tile: int,
        before_tile: BeforeTile = lambda: None,
    ) -> None:
        """Stylizes a picture as the whole net would, to the rounding.

        Maps at a quarter of the resolution are kept in temporary files, at most four at a time.

        Args:
          image: uint8 or uint16 [H, W, 3].
          mix: [S] float32, how much of each style.
          sink: Is given every tile, in any order.
          tile: Side of a tile in pixels.
          before_tile: Called before each tile of each pass; what it raises ends the work.

        Raises:
          FastStyleError: If the disk has too little room.
        """
        with open_store(self.temporary_bytes(*image.shape[:2])) as store:
            self._exact(self._picture(image, mix, before_tile), image.shape, sink, tile, store)

    def temporary_bytes(self, height: int, width: int) -> int:
        """Returns how much disk space `exact` needs for a picture of that size."""
        area = 1
        for size in (height, width):
            grid = Grid(len(self._net.source_positions(size)))
            for stage in self._net.front:
                grid = grid.after(stage)
            area *= grid.size
        maps = 4 if self._block_passes(self._net.blocks[0])[1:] else 2
        depth = channels(self._net.front[-1], self._weights)
        return maps * area * depth * self._dtype.size

    def _exact(
        self,
        picture: _Picture,
        shape: tuple[int, ...],
        sink: Sink,
        tile: int,
        store: MapStore,
    ) -> None:
        net = self._net
        front, tail = net.front, net.tail
        for index in range(len(front) - 1):
            self._measure(picture, picture.source, front[: index + 1], tile)
        stored = self._store(picture, picture.source, front, tile, store)
        source = self._mapped("pending", picture, stored, front[-1])
        for block in net.blocks:
            source = self._block(picture, source, block, tile, store)
        for index, stage in enumerate(tail):
            if stage.norm == "instance":
                self._measure(picture, source, tail[: index + 1], tile)
        self._pixels(picture, source, tail, sink, tile, shape)

    def fast(
        self,
        image: np.ndarray,
        thumbnail: np.ndarray,
        mix: np.ndarray,
        sink: Sink,
        *,
        tile: int,
        before_tile: BeforeTile = lambda: None,
    ) -> None:
        """Stylizes a picture tile by tile with the norms' statistics of a thumbnail.

        Args:
          image: uint8 or uint16 [H, W, 3].
          thumbnail: The same picture, small enough to be computed whole.
          mix: [S] float32, how much of each style.
          sink: Is given every tile, in any order.
          tile: Side of a tile in pixels.
          before_tile: Called before each tile; what it raises ends the work.
        """
        elements = self._net.elements
        small = self._picture(thumbnail, mix, before_tile)
        ends = [grid.size for grid in _after(small.source.grids, elements)]
        plans = [
            plan_axis(g, elements, 0, end) for g, end in zip(small.source.grids, ends, strict=True)
        ]
        stages = self._graphs.normed(elements)
        affine = [scale_and_offset(stage, self._weights, small.mix) for stage in stages]
        (pixels,) = small.source.read(plans[0][:2], plans[1][:2])
        found = self._graphs.of_thumbnail()(pixels[None], _takes(*plans), affine)
        picture = self._picture(image, mix, before_tile)
        for stage, (mean, variance) in zip(stages, found, strict=True):
            self._set_norm(picture, stage, mean.numpy(), variance.numpy())
        self._pixels(picture, picture.source, elements, sink, tile, image.shape)

    # --- one picture ---

    def _picture(self, image: np.ndarray, mix: np.ndarray, before_tile: BeforeTile) -> _Picture:
        axes = [self._net.source_positions(size) for size in image.shape[:2]]

        def read(rows: Range, columns: Range) -> list[np.ndarray]:
            part = _crop(image, axes[0][slice(*rows)], axes[1][slice(*columns)])
            return [levels(part)]

        grids = (Grid(len(axes[0])), Grid(len(axes[1])))
        source = _Source("picture", grids, read)
        picture = _Picture(source, np.asarray(mix, np.float32), before_tile)
        for stage in self._net.tail:
            if stage.norm == "bias":
                self._set_norm(picture, stage, 0.0, None)
        return picture

    def _set_norm(
        self, picture: _Picture, stage: Stage, mean: Any, variance: np.ndarray | None
    ) -> None:
        """Notes a norm as (mean, gain, offset); one without a variance is an offset alone."""
        scale, offset = scale_and_offset(stage, self._weights, picture.mix)
        if variance is not None:
            scale = scale / np.sqrt(variance + self._net.epsilon)
        mean = np.broadcast_to(np.asarray(mean, np.float32), scale.shape)
        picture.norms[stage] = (mean, scale.astype(np.float32), offset)

    # --- passes ---

    def _measure(
        self, picture: _Picture, source: _Source, elements: tuple[Element, ...], tile: int
    ) -> None:
        """Gathers the statistics of the last stage's norm."""
        self._gather(picture, source, elements, tile, "statistics")

    def _store(
        self,
        picture: _Picture,
        source: _Source,
        elements: tuple[Element, ...],
        tile: int,
        store: MapStore,
        *,
        keep: bool = False,
    ) -> list[StoredMap]:
        """Stores the output, and on request the source; gathers the output's statistics."""
        depth = channels(self._net.front[-1], self._weights)
        ends = [grid.size for grid in _after(source.grids, elements)]
        dtype = np.dtype(self._dtype.as_numpy_dtype)
        maps = [store.create(ends[0], ends[1], depth, dtype) for _ in range(1 + keep)]
        self._gather(picture, source, elements, tile, "map", maps)
        return maps

    def _gather(
        self,
        picture: _Picture,
        source: _Source,
        elements: tuple[Element, ...],
        tile: int,
        gives: Literal["statistics", "map"],
        maps: Sequence[StoredMap] = (),
    ) -> None:
        step = Pass(source.kind, source.pending, elements, gives, keep=len(maps) > 1)
        last = elements[-1]
        statistics = ChannelStatistics()
        grids = _after(source.grids, elements)
        for rows, columns, outputs in self._tiles(
            step, picture, source, [(0, grid.size) for grid in grids], tile
        ):
            for stored, values in zip(maps, outputs, strict=False):
                stored.write(rows[0], columns[0], values.numpy()[0])
            if measured(last):
                pixels = (rows[1] - rows[0]) * (columns[1] - columns[0])
                mean, variance = outputs[-2:]
                statistics.add(
                    pixels * (4 if grids[0].phases else 1), mean.numpy(), variance.numpy()
                )
        if measured(last):
            assert isinstance(last, Stage)
            self._set_norm(picture, last, statistics.mean, statistics.variance)

    def _block_passes(self, block: Residual) -> list[tuple[Element, ...]]:
        """Splits a block where a norm needs statistics; one without norms is one pass."""
        if any(measured(stage) for stage in block.stages):
            return [(stage,) for stage in block.stages]
        return [(block,)]

    def _block(
        self, picture: _Picture, source: _Source, block: Residual, tile: int, store: MapStore
    ) -> _Source:
        """Computes a residual block and returns the map behind it; deletes the one before it."""
        first, *others = self._block_passes(block)
        output, *kept = self._store(picture, source, first, tile, store, keep=bool(others))
        for stored in source.maps:
            stored.delete()
        if not others:
            return self._mapped("map", picture, [output])
        for stage, elements in zip(block.stages, others, strict=False):
            pending = self._mapped("pending", picture, [output], stage)
            (output,) = self._store(picture, pending, elements, tile, store)
            pending.maps[0].delete()
        return self._mapped("sum", picture, [*kept, output], block.stages[-1])

    def _mapped(
        self,
        kind: Literal["map", "pending", "sum"],
        picture: _Picture,
        maps: Sequence[StoredMap],
        pending: Stage | None = None,
    ) -> _Source:
        """Returns stored maps at a quarter of the resolution as a source."""

        def read(rows: Range, columns: Range) -> list[np.ndarray]:
            return [stored.read(rows, columns) for stored in maps]

        grids = _after(picture.source.grids, self._net.front)
        return _Source(kind, grids, read, pending, tuple(maps))

    def _pixels(
        self,
        picture: _Picture,
        source: _Source,
        elements: tuple[Element, ...],
        sink: Sink,
        tile: int,
        shape: tuple[int, ...],
    ) -> None:
        """Computes the pixels and passes them on."""
        step = Pass(source.kind, source.pending, elements, "pixels")
        crop = self._net.crop
        areas = [(crop // 2, -(-(crop + size) // 2)) for size in shape[:2]]
        for rows, columns, (pixels,) in self._tiles(step, picture, source, areas, tile):
            top, left = 2 * rows[0] - crop, 2 * columns[0] - crop
            inside = pixels.numpy()[
                0, max(-top, 0) : shape[0] - top, max(-left, 0) : shape[1] - left
            ]
            sink(max(top, 0), max(left, 0), inside)

    def _tiles(
        self,
        step: Pass,
        picture: _Picture,
        source: _Source,
        areas: Sequence[Range],
        tile: int,
    ) -> Iterator[tuple[Range, Range, list[Any]]]:
        """Runs a pass: yields the rows, the columns and the outputs of every tile."""
        run = self._graphs.of(step)
        norms = [picture.norms[stage] for stage in self._graphs.needed(step)]
        scale = _after(source.grids, step.elements)[0].scale
        side = max(round(tile / scale), 1)
        axes = [
            [(part, plan_axis(grid, step.elements, *part)) for part in parts(*area, side)]
            for grid, area in zip(source.grids, areas, strict=True)
        ]
        for (rows, down), (columns, across) in itertools.product(*axes):
            picture.before_tile()
            values = source.read(down[:2], across[:2])
            takes = _takes(down, across)
            if step.keep:
                takes.append((_within(rows, down), _within(columns, across)))
            yield rows, columns, run([value[None] for value in values], takes, norms)


def parts(start: int, stop: int, side: int) -> list[Range]:
    """Cuts a range into as few parts as possible, none longer than `side`, about equally long."""
    count = -(-(stop - start) // side)
    edges = [start + (stop - start) * i // count for i in range(count + 1)]
    return list(zip(edges[:-1], edges[1:], strict=True))


def _after(grids: tuple[Grid, Grid], elements: Sequence[Element]) -> tuple[Grid, Grid]:
    for element in elements:
        grids = (grids[0].after(element), grids[1].after(element))
    return grids


def _takes(
    rows: tuple[int, int, list[np.ndarray]], columns: tuple[int, int, list[np.ndarray]]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs the plans of both axes."""
    return [
        (row.astype(np.int32), column.astype(np.int32))
        for row, column in zip(rows[2], columns[2], strict=True)
    ]


def _within(wanted: Range, plan: tuple[int, int, list[np.ndarray]]) -> np.ndarray:
    return np.arange(*wanted, dtype=np.int32) - np.int32(plan[0])


def _crop(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Returns the given rows and columns, touching only the rectangle that holds them."""
    top, left = rows.min(), columns.min()
    part = image[top : rows.max() + 1, left : columns.max() + 1]
    return part.take(rows - top, axis=0).take(columns - left, axis=1)
