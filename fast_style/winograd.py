"""3x3 convolutions by Winograd's minimal filtering, with a quarter of the multiplications.

F(4x4, 3x3) of Lavin and Gray (2015): a tile of 6x6 pixels and a 3x3 kernel are both carried over to
36 points, where the convolution is a product of [tiles, C] and [C, D] matrices for each point, and
what comes out is carried back to 4x4 pixels: Y = A' [(G k G') * (B' x B)] A. That is 36
multiplications where the plain sum has 144. The points on each axis are 0, +-1, +-3/2 and infinity:
with 3/2 in place of the usual 2 rounding is half as large (largest error 1.5e-5 of the result's
deviation in float32 over 128 channels, in place of 3.1e-5).

It pays where multiplications are what takes the time: see `pays`. All is made of TensorFlow's own
operations; the functions below stay functions in the graph, so that a net of fifty such
convolutions is traced in no more time than one.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from fast_style.hardware import is_portable, multiplies_in_halves, multiplies_slowly

SWITCH = "FAST_STYLE_WINOGRAD"
"""An environment variable: '0' convolves plainly, '1' does not, whatever the processor and however
few the channels; what is not float32, and what has to be `portable`, stays plain with both."""

_TILE = 4  # Pixels of a tile's side that come out; two more go in.
_POINTS = 6

# Channels in times channels out, from which on it pays.
_LEAST_WORK_SLOW = 48 * 96
_LEAST_WORK_HALVES = 128 * 128

# Rows are the points 0, 1, -1, 3/2, -3/2 and infinity.
_KERNEL = np.array(
    [
        [4 / 9, 0, 0],
        [-2 / 5, -2 / 5, -2 / 5],
        [-2 / 5, 2 / 5, -2 / 5],
        [8 / 45, 4 / 15, 2 / 5],
        [8 / 45, -4 / 15, 2 / 5],
        [0, 0, 1],
    ]
)


def wanted(dtype: tf.DType) -> bool:
    """Whether maps of that type are to be convolved with fewer multiplications at all."""
    return dtype == tf.float32 and not is_portable() and _least_work() is not None


def _least_work() -> int | None:
    """From which product of channels on maps go this way, on this processor; None: from none on."""
    switch = os.environ.get(SWITCH, "")
    if switch in ("0", "1"):
        return 0 if switch == "1" else None
    if multiplies_slowly():
        return _LEAST_WORK_SLOW
    return _LEAST_WORK_HALVES if multiplies_in_halves() else None


def pays(dtype: tf.DType, kernel: tf.TensorShape | Sequence[int | None]) -> bool:
    """Whether `convolve` is the faster way, for a convolution with stride 1.

    It moves several times as much memory, so it pays where a processor multiplies slowly for what
    its memory delivers, and the more so the more channels there are. Plain time by this one's, on
    two cores with AVX2, forward, to the input, to the kernel: 64 to 64 channels 0.8 to 1.4 (first
    two), 48 to 96 1.3, 1.2 and 2.3, 128 to 128 1.7, 1.6 and 3.6, 512 to 512 3.4, 2.8 and 4.2.
    On two cores of an AMD EPYC with avx512_bf16: 64 to 128 0.9, 0.9 and 1.5, 128 to 128 1.3, 1.1
    and 1.8, 128 to 256 1.5, 1.5 and 2.0, 512 to 512 2.2, 1.8 and 2.5. What has AVX-512
    otherwise was not measured and stays plain, and GPUs have such algorithms in their own library.

    Args:
      dtype: Of the maps.
      kernel: The kernel's shape.
    """
    height, width, channels, depth = kernel
    if (height, width) != (3, 3) or channels is None or depth is None or not wanted(dtype):
        return False
    least = _least_work()
    return least is not None and channels * depth >= least


def transform_kernel(kernel: tf.Tensor) -> tf.Tensor:
    """Carries a kernel over to the points.

    Args:
      kernel: [3, 3, C, D] float32.

    Returns:
      [36, C, D] float32. Differentiable.
    """
    both = tf.constant(np.kron(_KERNEL, _KERNEL), tf.float32)
    shape = tf.shape(kernel)
    points = tf.matmul(both, tf.reshape(kernel, [9, -1]))
    points = tf.reshape(points, [_POINTS**2, shape[2], shape[3]])
    points.set_shape([_POINTS**2, *kernel.shape[2:]])
    return points


def convolve(x: tf.Tensor, points: tf.Tensor, *, same: bool = False) -> tf.Tensor:
    """Convolves with a kernel that `transform_kernel` carried over, with stride 1.

    Differentiable with respect to both (once; more was not tried). In a graph, a gradient that is
    not asked for is not computed.

    Args:
      x: [N, H, W, C] float32.
      points: [36, C, D] float32.
      same: Whether zeros are put around `x` so that the size stays.

    Returns:
      [N, H - 2, W - 2, D] float32, or [N, H, W, D] if `same`.
    """
    forward, spread, to_input, to_points = _functions(same)

    @tf.custom_gradient
    def convolved(x: tf.Tensor, points: tf.Tensor) -> Any:
        # Unseen by tapes: a persistent one would keep all that is computed on the way.
        y = forward(tf.stop_gradient(x), tf.stop_gradient(points))
        sides = x.shape[1:3] if same else [n and n - 2 for n in x.shape[1:3]]
        y.set_shape([x.shape[0], *sides, points.shape[2]])

        def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            products = spread(dy)
            dx = to_input(products, points, tf.shape(dy))
            dx.set_shape(x.shape)
            return dx, tf.ensure_shape(to_points(products, x), points.shape)

        return y, gradient

    return convolved(x, points)


@functools.cache
def _functions(same: bool) -> tuple[Any, Any, Any, Any]:
    """Builds what `convolve` calls, forward and backward, for maps of any size.

    The 36 matrices of a map travel as one list. TensorFlow keeps these calls as they are
    (`_noinline`), and runs each as a graph of its own.
    """
    border = 1 if same else 0
    maps = tf.TensorSpec([None, None, None, None], tf.float32)
    matrices = tf.TensorSpec([_POINTS**2, None, None], tf.float32)
    products = [tf.TensorSpec([None, None], tf.float32)] * _POINTS**2

    def function(*signature: Any) -> Any:
        attributes = {"_noinline": True}
        return tf.function(
            input_signature=signature, autograph=False, experimental_attributes=attributes
        )

    @function(maps, matrices)
    def winograd_forward(x: tf.Tensor, points: tf.Tensor) -> tf.Tensor:
        count, height, width = tf.unstack(tf.shape(x)[:3])
        height, width = height + 2 * border - 2, width + 2 * border - 2
        tiles = _to_tiles(x, border)
        products = [
            tf.matmul(tile, point)
            for tile, point in zip(tiles, tf.unstack(points, _POINTS**2), strict=True)
        ]
        return _to_pixels(products, count, height, width)

    @function(maps)
    def winograd_spread(dy: tf.Tensor) -> list[tf.Tensor]:
        return _from_pixels(dy)

    @function(products, matrices, tf.TensorSpec([4], tf.int32))
    def winograd_input_gradient(
        products: list[tf.Tensor], points: tf.Tensor, shape: tf.Tensor
    ) -> tf.Tensor:
        tiles = [
            tf.matmul(product, point, transpose_b=True)
            for product, point in zip(products, tf.unstack(points, _POINTS**2), strict=True)
        ]
        return _from_tiles(tiles, border, *tf.unstack(shape[:3]))

    @function(products, maps)
    def winograd_kernel_gradient(products: list[tf.Tensor], x: tf.Tensor) -> tf.Tensor:
        # Carried over once more: keeping what went forward would keep over twice the map.
        tiles = _to_tiles(x, border)
        return tf.stack(
            [
                tf.matmul(tile, product, transpose_a=True)
                for tile, product in zip(tiles, products, strict=True)
            ]
        )

    return winograd_forward, winograd_spread, winograd_input_gradient, winograd_kernel_gradient


# --- maps to matrices and back; each with its transpose ------------------------------------------
#
# Written for few operations in the graph: tracing takes a millisecond for each.


def _tiles_for(size: tf.Tensor) -> tf.Tensor:
    """How many tiles give an axis of that length."""
    return (size + _TILE - 1) // _TILE


class _Numbers:
    """What the points are multiplied by, as constants of the graph being traced."""

    def __init__(self) -> None:
        self.point = tf.constant(1.5)
        self.square = tf.constant(2.25)


def _to_tiles(x: tf.Tensor, border: int) -> list[tf.Tensor]:
    """[N, H, W, C] to B' x B of all tiles: 36 matrices [tiles, C]."""
    numbers = _Numbers()
    count, height, width, channels = tf.unstack(tf.shape(x))
    rows = _tiles_for(height + 2 * border - 2)
    columns = _tiles_for(width + 2 * border - 2)
    # A tile reads two positions of the next one, so there is one more at the end.
    added = [
        [0, 0],
        [border, _TILE * (rows + 1) - height - border],
        [border, _TILE * (columns + 1) - width - border],
        [0, 0],
    ]
    grouped = tf.reshape(
        tf.pad(x, added), [count, rows + 1, _TILE, _TILE * (columns + 1), channels]
    )
    size = tf.stack([count, rows, 1, _TILE * (columns + 1), channels])
    starts = [tf.constant([0, i // _TILE, i % _TILE, 0, 0]) for i in range(_POINTS)]
    lines = _to_points([tf.slice(grouped, start, size) for start in starts], numbers)
    grouped_shape = tf.stack([count * rows, columns + 1, _TILE, channels])
    size = tf.stack([count * rows, columns, 1, channels])
    starts = [tf.constant([0, i // _TILE, i % _TILE, 0]) for i in range(_POINTS)]
    flat = tf.stack([-1, channels])
    tiles = []
    for line in lines:
        line = tf.reshape(line, grouped_shape)
        tiles += _to_points([tf.slice(line, start, size) for start in starts], numbers)
    return [tf.reshape(tile, flat) for tile in tiles]


def _from_tiles(
    tiles: Sequence[tf.Tensor], border: int, count: tf.Tensor, height: tf.Tensor, width: tf.Tensor
) -> tf.Tensor:
    """The transpose of `_to_tiles`; height and width are those of the convolution's output."""
    numbers = _Numbers()
    rows, columns, channels = _tiles_for(height), _tiles_for(width), tf.shape(tiles[0])[1]
    after = tf.constant([[0, 0], [0, 1], [0, 0]])
    before = tf.constant([[0, 0], [1, 0], [0, 0]])

    def joined(parts: Sequence[tf.Tensor]) -> tf.Tensor:
        """Adds the two last of each tile's six positions onto the two first of the next one's.

        From six [M, tiles, n] to [M, tiles + 1, 4, n].
        """
        own = [tf.pad(part, after) for part in parts[:_TILE]]
        handed_on = [tf.pad(part, before) for part in parts[_TILE:]]
        return tf.stack([own[0] + handed_on[0], own[1] + handed_on[1], *own[2:]], 2)

    shape = tf.stack([count * rows, columns, channels])
    tiles = [tf.reshape(tile, shape) for tile in tiles]
    shape = tf.stack([count, rows, _TILE * (columns + 1) * channels])
    lines = [
        tf.reshape(joined(_from_points(tiles[i : i + _POINTS], numbers)), shape)
        for i in range(0, _POINTS**2, _POINTS)
    ]
    x = tf.reshape(
        joined(_from_points(lines, numbers)),
        [count, _TILE * (rows + 1), _TILE * (columns + 1), channels],
    )
    size = [count, height + 2 - 2 * border, width + 2 - 2 * border, channels]
    return tf.slice(x, [0, border, border, 0], size)


def _to_pixels(
    products: Sequence[tf.Tensor], count: tf.Tensor, height: tf.Tensor, width: tf.Tensor
) -> tf.Tensor:
    """36 matrices [tiles, D] to A' m A of all tiles: [N, H, W, D]."""
    numbers = _Numbers()
    rows, columns, depth = _tiles_for(height), _tiles_for(width), tf.shape(products[0])[1]
    lines = [
        tf.stack(_points_to_four(products[i : i + _POINTS], numbers), 1)
        for i in range(0, _POINTS**2, _POINTS)
    ]
    shape = tf.stack([count, rows, _TILE * columns, depth])
    lines = [tf.reshape(line, shape) for line in lines]
    pixels = tf.stack(_points_to_four(lines, numbers), 2)
    pixels = tf.reshape(pixels, [count, _TILE * rows, _TILE * columns, depth])
    return tf.slice(pixels, [0, 0, 0, 0], [count, height, width, depth])


def _from_pixels(dy: tf.Tensor) -> list[tf.Tensor]:
    """The transpose of `_to_pixels`."""
    numbers = _Numbers()
    count, height, width, depth = tf.unstack(tf.shape(dy))
    rows, columns = _tiles_for(height), _tiles_for(width)
    added = [[0, 0], [0, _TILE * rows - height], [0, _TILE * columns - width], [0, 0]]
    grouped = tf.reshape(tf.pad(dy, added), [count, rows, _TILE, _TILE * columns, depth])
    lines = _four_to_points(tf.split(grouped, _TILE, 2), numbers)
    shape = tf.stack([count * rows * columns, _TILE, depth])
    flat = tf.stack([-1, depth])
    products = []
    for line in lines:
        products += _four_to_points(tf.split(tf.reshape(line, shape), _TILE, 1), numbers)
    return [tf.reshape(product, flat) for product in products]


# --- one axis: B', A' and their transposes, written out ------------------------------------------


def _to_points(x: Sequence[tf.Tensor], by: _Numbers) -> list[tf.Tensor]:
    """B' of six positions: products of (t - q) over all finite points q but the row's own."""
    x0, x1, x2, x3, x4, x5 = x
    bend = x3 - x1
    even_1, odd_1 = x4 - by.square * x2, x3 - by.square * x1
    even_2, odd_2 = x4 - x2, by.point * bend
    return [
        by.square * (x0 - x2) + even_2,
        even_1 + odd_1,
        even_1 - odd_1,
        even_2 + odd_2,
        even_2 - odd_2,
        (x5 - x3) - by.square * bend,
    ]


def _from_points(v: Sequence[tf.Tensor], by: _Numbers) -> list[tf.Tensor]:
    """B, the transpose of `_to_points`."""
    v0, v1, v2, v3, v4, v5 = v
    sum_1, difference_1 = v1 + v2, v1 - v2
    sum_2, difference_2 = v0 + v3 + v4, by.point * (v3 - v4)
    first, last = by.square * v0, by.square * (v5 - difference_1)
    return [
        first,
        last - difference_2,
        -(by.square * sum_1 + sum_2 + first),
        (difference_1 - v5) + (difference_2 - by.square * v5),
        sum_1 + sum_2,
        v5,
    ]


def _points_to_four(m: Sequence[tf.Tensor], by: _Numbers) -> list[tf.Tensor]:
    """A': powers 0 to 3 of the points."""
    m0, m1, m2, m3, m4, m5 = m
    sum_1, difference_1, sum_2, difference_2 = m1 + m2, m1 - m2, m3 + m4, by.point * (m3 - m4)
    return [
        m0 + sum_1 + sum_2,
        difference_1 + difference_2,
        sum_1 + by.square * sum_2,
        difference_1 + by.square * difference_2 + m5,
    ]


def _four_to_points(y: Sequence[tf.Tensor], by: _Numbers) -> list[tf.Tensor]:
    """A, the transpose of `_points_to_four`."""
    y0, y1, y2, y3 = y
    even_1, odd_1 = y0 + y2, y1 + y3
    even_2, odd_2 = y0 + by.square * y2, by.point * (y1 + by.square * y3)
    return [y0, even_1 + odd_1, even_1 - odd_1, even_2 + odd_2, even_2 - odd_2, y3]
