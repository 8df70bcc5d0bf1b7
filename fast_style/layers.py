"""Building blocks of the transform nets, each with a gradient that is cheap on a CPU.

Feature maps are [N, H, W, C] in float32 or bfloat16. Two layouts of an enlarged map occur: the
plain one, [N, 2H, 2W, C], and the *phase* layout, [N, H, W, 4C], in which the channels hold the
four pixels of each 2x2 block as (row, column, channel): what `tf.nn.depth_to_space` spreads out.
Convolutions run several times faster over few pixels with many channels, so maps stay in the
phase layout for as long as possible.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import tensorflow as tf

from fast_style import hardware, winograd


def reflect_indices(size: tf.Tensor, before: int, after: tf.Tensor | int) -> tf.Tensor:
    """Returns the source index of each position of an axis padded by reflection.

    Unlike `tf.pad`, the padding may be wider than the axis: the reflection then goes back and
    forth, with period 2 * (size - 1), as NumPy's `np.pad(mode="reflect")` does.

    Args:
      size: Scalar int32, the axis's length, at least 1.
      before: Positions added at the low end.
      after: Positions added at the high end; may be a scalar tensor.

    Returns:
      [before + size + after] int32 with values in 0..size-1.
    """
    period = tf.maximum(2 * (size - 1), 1)
    position = tf.math.floormod(tf.range(-before, size + after), period)
    return tf.minimum(position, period - position) if _is_wide(size) else tf.zeros_like(position)


def _is_wide(size: tf.Tensor) -> bool:
    """Whether an axis may hold more than one pixel; False only where that is known."""
    value = tf.get_static_value(size)
    return value is None or int(value) > 1


def pad_image(
    images: tf.Tensor, before: int, after: tuple[tf.Tensor | int, tf.Tensor | int]
) -> tf.Tensor:
    """Pads pictures by reflection; for network inputs, where no gradient has to be fast.

    Rows are copied whole and only the columns of the border pixel by pixel, which for three
    channels is the slow way.

    Args:
      images: [N, H, W, C], any type.
      before: Pixels added at the top and at the left.
      after: Pixels added at the bottom and at the right.

    Returns:
      [N, before + H + after[0], before + W + after[1], C], same type.
    """
    shape = tf.shape(images)
    rows = reflect_indices(shape[1], before, after[0])
    columns = reflect_indices(shape[2], before, after[1])
    left = tf.gather(images, columns[:before], axis=2)
    right = tf.gather(images, columns[before + shape[2] :], axis=2)
    return tf.gather(tf.concat([left, images, right], axis=2), rows, axis=1)


def crop_image(
    images: tf.Tensor, top: int, left: int, height: tf.Tensor, width: tf.Tensor
) -> tf.Tensor:
    """Cuts a rectangle out of pictures.

    As if each row were one long line of numbers: TensorFlow copies slices run by run, and runs of
    three channels are short.

    Args:
      images: [N, H, W, C], any type.
      top: First row that stays.
      left: First column that stays.
      height: Rows that stay.
      width: Columns that stay.

    Returns:
      [N, height, width, C], same type.
    """
    shape, channels = tf.shape(images), _size(images, 3)
    lines = tf.reshape(images, [shape[0], shape[1], shape[2] * channels])
    lines = lines[:, top : top + height, left * channels : (left + width) * channels]
    return tf.reshape(lines, [shape[0], height, width, channels])


def pad(x: tf.Tensor, size: int, mode: str = "reflect", high: bool = True) -> tf.Tensor:
    """Pads height and width by mirroring.

    The gradient adds the border back onto the pixels it mirrors by slices, several times faster
    than the gradient of `tf.pad`.

    Args:
      x: [N, H, W, C]; H and W at least 2 * size + 2.
      size: Pixels added at each side.
      mode: 'reflect' mirrors around the outermost pixel, 'symmetric' repeats it (with size 1 that
        is edge replication).
      high: Whether to pad at the bottom and right too.

    Returns:
      [N, H + size, W + size, C], or [N, H + 2 * size, W + 2 * size, C] if `high`.
    """
    skip = {"reflect": 1, "symmetric": 0}[mode]

    @tf.custom_gradient
    def mirrored(x: tf.Tensor) -> Any:
        count, height, width, channels = tf.unstack(tf.shape(x))
        # Where each pixel comes from: cheap to pad. Gathering whole pixels then passes over the map
        # once, several times faster than padding it by `tf.pad`.
        sides = [size, size if high else 0]
        numbers = tf.reshape(tf.range(height * width), [height, width])
        sources = tf.pad(numbers, [sides, sides], "REFLECT" if skip else "SYMMETRIC")
        flat = tf.reshape(x, [count, height * width, channels])
        y = tf.gather(flat, sources, axis=1)
        added = 2 * size if high else size
        y.set_shape([x.shape[0], *(n and n + added for n in x.shape[1:3]), x.shape[3]])

        def gradient(dy: tf.Tensor) -> tf.Tensor:
            return _unmirror(_unmirror(dy, 1, size, skip, high), 2, size, skip, high)

        return y, gradient

    return mirrored(x)


def _unmirror(dy: tf.Tensor, axis: int, size: int, skip: int, high: bool) -> tf.Tensor:
    """The transpose of padding one axis: the border, added onto the pixels that it mirrors."""

    def turned(border: tf.Tensor) -> tf.Tensor:
        return border if size == 1 else tf.reverse(border, [axis])

    end = [size, skip, size]  # The border, what it leaves out, what it mirrors.
    sizes = [*end, -1, *end[::-1]] if high else [*end, -1]
    border, edge, mirrored, *rest = tf.split(dy, sizes, axis)
    parts = [edge, mirrored + turned(border), rest[0]]
    if high:
        parts += [rest[1] + turned(rest[3]), rest[2]]
    return tf.concat(parts, axis)


def _size(x: tf.Tensor, axis: int) -> int:
    """The length of an axis that is known while tracing."""
    size = x.shape[axis]
    assert size is not None
    return int(size)


def conv(
    x: tf.Tensor,
    kernel: tf.Tensor,
    stride: int = 1,
    padding: Literal["VALID", "SAME"] = "VALID",
    points: Callable[[], tf.Tensor] | None = None,
) -> tf.Tensor:
    """Convolves, without padding unless told otherwise, the way that is fastest on this machine.

    That may be by `winograd`. On x86 processors without AVX-512, what is bfloat16 goes through
    float32, with the rounding of those that multiply it: of both factors and of the sum.

    Args:
      x: [N, H, W, C].
      kernel: [k, k, C, D] float32; cast to the type of `x`.
      stride: Step in both directions.
      padding: 'SAME' puts zeros around, as TensorFlow does.
      points: Gives what `winograd.transform_kernel` makes of the kernel in float32, for kernels
        that do not change; without it, that is computed in every call.

    Returns:
      [N, (H - k) // stride + 1, (W - k) // stride + 1, D] in the type of `x`; with 'SAME',
      [N, ceil(H / stride), ceil(W / stride), D].
    """
    if widens(x.dtype):
        return _in_float32(lambda x, kernel: conv(x, kernel, stride, padding, points), x, kernel)
    if stride == 1 and winograd.pays(x.dtype, kernel.shape):
        transformed = points() if points else winograd.transform_kernel(kernel)
        return winograd.convolve(x, transformed, same=padding == "SAME")
    return tf.nn.conv2d(x, tf.cast(kernel, x.dtype), stride, padding)


def widens(dtype: tf.DType) -> bool:
    """Whether `conv` goes through float32 for maps of that type."""
    return dtype == tf.bfloat16 and hardware.emulates_bfloat16() and not hardware.is_portable()


def _in_float32(
    operation: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], x: tf.Tensor, kernel: tf.Tensor
) -> tf.Tensor:
    """Applies an operation to a map and a kernel, rounded to the map's type but in float32."""
    rounded = tf.cast(tf.cast(kernel, x.dtype), tf.float32)
    return tf.cast(operation(tf.cast(x, tf.float32), rounded), x.dtype)


def reflect_conv(x: tf.Tensor, kernel: tf.Tensor, stride: int = 1) -> tf.Tensor:
    """Convolves after reflecting k // 2 pixels at every side, so that stride 1 keeps the size."""
    return conv(pad(x, _size(kernel, 0) // 2), kernel, stride)


def instance_norm(
    x: tf.Tensor,
    scale: tf.Tensor | None = None,
    offset: tf.Tensor | None = None,
    *,
    epsilon: float,
    relu: bool = False,
) -> tf.Tensor:
    """Normalizes each channel of each picture over its pixels.

    y = scale * (x - mean) / sqrt(variance + epsilon) + offset, with the biased variance, as in
    Ulyanov et al. (2016) and, with a scale and an offset per style, Dumoulin et al. (2017).
    Statistics are float32 whatever the type of `x`.

    Instance norm is batch norm of one picture, for which TensorFlow has one operation in each
    direction. Put together from its parts, forward and backward take some twenty passes over the
    map, half of them in float32, and several times as long.

    Args:
      x: [N, H, W, C] float32 or bfloat16.
      scale: [N, C] float32; none is 1.
      offset: [N, C] float32; none is 0.
      epsilon: Added to the variance, in squared units of `x`.
      relu: Whether to set what is negative to 0 at the end, which costs next to nothing here.

    Returns:
      Same shape and type as `x`.
    """
    flat_shape = [tf.shape(x)[0], _size(x, -1)]
    scale = tf.ones(flat_shape) if scale is None else scale
    offset = tf.zeros(flat_shape) if offset is None else offset
    if x.shape[0] is None:

        def one(picture: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
            x, scale, offset = (part[None] for part in picture)
            return _normalized(x, scale, offset, epsilon, relu)[0]

        return tf.map_fn(one, (x, scale, offset), fn_output_signature=x.dtype)
    return _normalized(x, scale, offset, epsilon, relu)


def _normalized(
    x: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, epsilon: float, relu: bool
) -> tf.Tensor:
    """Does `instance_norm` for a known number of pictures."""
    count = _size(x, 0)
    options = {"epsilon": epsilon, "data_format": "NHWC", "is_training": True}

    @tf.custom_gradient
    def normalize(x: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor) -> Any:
        nothing = tf.zeros([0])
        # Parts of the first axis share their memory with the whole.
        ones, scales = tf.split(x, count), tf.unstack(scale, count)
        normed = [
            tf.raw_ops.FusedBatchNormV3(
                x=one,
                scale=one_scale,
                offset=one_offset,
                mean=nothing,
                variance=nothing,
                exponential_avg_factor=1.0,
                **options,
            )
            for one, one_scale, one_offset in zip(
                ones, scales, tf.unstack(offset, count), strict=True
            )
        ]
        # Right behind each norm, where TensorFlow makes one operation of both.
        y = tf.concat([tf.nn.relu(n.y) if relu else n.y for n in normed], 0)

        def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            if relu:
                dy = tf.raw_ops.ReluGrad(gradients=dy, features=y)
            back = [
                tf.raw_ops.FusedBatchNormGradV3(
                    y_backprop=one_dy,
                    x=one,
                    scale=one_scale,
                    reserve_space_1=n.reserve_space_1,
                    reserve_space_2=n.reserve_space_2,
                    reserve_space_3=n.reserve_space_3,
                    **options,
                )
                for one_dy, one, one_scale, n in zip(
                    tf.split(dy, count), ones, scales, normed, strict=True
                )
            ]
            return (
                tf.concat([b.x_backprop for b in back], 0),
                tf.stack([b.scale_backprop for b in back]),
                tf.stack([b.offset_backprop for b in back]),
            )

        return y, gradient

    return normalize(x, scale, offset)


def moments(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns each channel's mean and biased variance over all pixels of all pictures.

    Args:
      x: [N, H, W, C] float32 or bfloat16.

    Returns:
      Mean and variance, [C] float32.
    """
    wide = tf.cast(x, tf.float32)
    mean = tf.reduce_mean(wide, [0, 1, 2])
    return mean, tf.reduce_mean(tf.math.squared_difference(wide, mean), [0, 1, 2])


def normalize(x: tf.Tensor, mean: tf.Tensor, gain: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """Normalizes with statistics that are known: (x - mean) * gain + offset, for inference.

    With gain = scale / sqrt(variance + epsilon) this is `instance_norm` of the map that the
    statistics are of, to the rounding. It is one operation, of batch norm with variance 1, which
    TensorFlow joins with a ReLU that follows; put together from its parts it takes five passes over
    the map, four of them in float32.

    Args:
      x: [N, H, W, C] float32 or bfloat16.
      mean: [C] float32.
      gain: [C] float32.
      offset: [C] float32.

    Returns:
      Same shape and type as `x`.
    """
    return tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=gain,
        offset=offset,
        mean=mean,
        variance=tf.ones_like(mean),
        epsilon=0.0,
        data_format="NHWC",
        is_training=False,
    ).y


@tf.custom_gradient
def tanh_pixels(x: tf.Tensor) -> Any:
    """Maps any number to a pixel: (tanh(x) + 1) * 127.5.

    Only the gradient departs from the formula, and only for saturated pixels (below 6 or above
    249) that the loss wants back: tanh's own slope there is as good as zero, exactly zero from
    |x| = 3.5 on in bfloat16 and from 8 in float32, so a patch that once turned black or white would
    stay so for ever. Its slope is then taken to be at least 0.1. A pixel that the loss pushes
    further out has tanh's own slope, and a gradient of zero stays zero, so the minima are the same.

    Args:
      x: Float32, any shape.

    Returns:
      Float32 of the same shape in 0..255.
    """
    t = tf.tanh(x)

    def gradient(dy: tf.Tensor) -> tf.Tensor:
        slope = 1.0 - tf.square(t)
        # Descent subtracts dy: where dy and t have one sign, it moves t towards the middle.
        inwards = dy * t > 0.0
        return dy * 127.5 * tf.where(inwards, tf.maximum(slope, 0.1), slope)

    return (t + 1.0) * 127.5, gradient


def in_phases(operation: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor) -> tf.Tensor:
    """Applies a per-channel operation to a map in the phase layout.

    Args:
      operation: Maps [N, H, W', C] to the same shape, blind to where pixels are.
      x: [N, H, W, 4C].

    Returns:
      [N, H, W, 4C]: the operation over all pixels of the enlarged map. Only shapes change on the
      way: (W, row, column) becomes one axis.
    """
    shape = tf.shape(x)
    flat = tf.reshape(x, [shape[0], shape[1], 4 * shape[2], _size(x, -1) // 4])
    return tf.ensure_shape(tf.reshape(operation(flat), shape), x.shape)


def nearest_x2_conv(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Enlarges a map by nearest neighbour x2 and convolves it by 3x3, reflecting at the sides.

    Enlarged rows 2m and 2m + 1 both hold row m. A window of two rows, m - 1 and m, therefore holds
    all that output rows 2m - 1 and 2m see, with weights (w0 + w1, w2) and (w0, w1 + w2). So a 2x2
    convolution over the small map gives four output pixels per window: 16 multiplications in place
    of 36. Its windows begin one pixel outside, which is cut off while the pixels are spread out.

    Args:
      x: [N, H, W, C].
      kernel: [3, 3, C, D] float32; cast to the type of `x`.

    Returns:
      [N, 2H, 2W, D] in the type of `x`.
    """
    return _spread_windows(_window_conv(pad(x, 1, "symmetric"), fold_nearest_x2_windows(kernel)))


def _window_conv(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Does `conv` for 2x2 kernels, of which oneDNN's weight gradient takes four times too long.

    That was measured with AVX2 in float32, 456 and 381 ms of a batch; as the products of matrices
    that it is, 134 and 101 ms. With AVX-512 both take as long (both gradients of two such layers 54
    and 59 ms, and 53 and 64 ms). In bfloat16 it was the other way round.

    Args:
      x: [N, H, W, C].
      kernel: [2, 2, C, D] float32.

    Returns:
      [N, H - 1, W - 1, D] in the type of `x`.
    """
    if widens(x.dtype):
        return _in_float32(_window_conv, x, kernel)
    if not winograd.wanted(x.dtype):
        return conv(x, kernel)
    channels, depth = _size(kernel, 2), _size(kernel, 3)

    @tf.custom_gradient
    def convolved(x: tf.Tensor, kernel: tf.Tensor) -> Any:
        def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            options = {"strides": [1, 1, 1, 1], "padding": "VALID"}
            dx = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(x), filter=kernel, out_backprop=dy, **options
            )
            height, width = tf.unstack(tf.shape(dy)[1:3])
            pixels = tf.reshape(dy, [-1, depth])
            products = [
                tf.matmul(
                    tf.reshape(x[:, i : i + height, j : j + width], [-1, channels]),
                    pixels,
                    transpose_a=True,
                )
                for i in (0, 1)
                for j in (0, 1)
            ]
            return tf.ensure_shape(dx, x.shape), tf.reshape(tf.stack(products), kernel.shape)

        return conv(x, kernel), gradient

    return convolved(x, kernel)


def fold_nearest_x2_windows(kernel: tf.Tensor) -> tf.Tensor:
    """Folds a 3x3 kernel behind nearest-neighbour x2 as `nearest_x2_conv` describes.

    Args:
      kernel: [3, 3, C, D].

    Returns:
      [2, 2, C, 4D], for a map padded by edge replication; its output is in the phase layout and
      begins and ends one pixel outside the picture.
    """
    rows = tf.stack(
        [
            tf.stack([kernel[0] + kernel[1], kernel[2]]),
            tf.stack([kernel[0], kernel[1] + kernel[2]]),
        ]
    )
    return _fold_columns(rows, lambda a, b, c, z: ([a + b, c], [a, b + c]))


def _spread_windows(windows: tf.Tensor) -> tf.Tensor:
    """Does `depth_to_space(windows, 2)[:, 1:-1, 1:-1]` in one pass, and its gradient in two.

    Args:
      windows: [N, H + 1, W + 1, 4D] in the phase layout.

    Returns:
      [N, 2H, 2W, D].
    """
    depth = _size(windows, 3) // 4

    @tf.custom_gradient
    def spread(windows: tf.Tensor) -> Any:
        shape = tf.shape(windows)
        height, width = 2 * (shape[1] - 1), 2 * (shape[2] - 1)
        row, column = tf.range(1, height + 1)[:, None], tf.range(1, width + 1)[None, :]
        sources = 4 * ((row // 2) * shape[2] + column // 2) + 2 * (row % 2) + column % 2
        pixels = tf.reshape(windows, [shape[0], 4 * shape[1] * shape[2], depth])
        pixels = tf.gather(pixels, tf.reshape(sources, [-1]), axis=1)

        def gradient(dy: tf.Tensor) -> tf.Tensor:
            return tf.nn.space_to_depth(tf.pad(dy, [[0, 0], [1, 1], [1, 1], [0, 0]]), 2)

        y = tf.reshape(pixels, [shape[0], height, width, depth])
        sides = (n and 2 * (n - 1) for n in windows.shape[1:3])
        y.set_shape([windows.shape[0], *sides, depth])
        return y, gradient

    return spread(windows)


def fold_nearest_x2(kernel: tf.Tensor) -> tf.Tensor:
    """Folds nearest-neighbour x2 followed by a 3x3 convolution into one kernel on the small map.

    Enlarged rows 2m and 2m + 1 both hold row m, so an even output row sees rows (m - 1, m) with
    weights (w0, w1 + w2) and an odd one rows (m, m + 1) with (w0 + w1, w2). The result has a tap
    for m - 1, m and m + 1 and gives all four phases at once.

    Args:
      kernel: [3, 3, C, D].

    Returns:
      [3, 3, C, 4D], for a map padded by edge replication; its output is in the phase layout.
    """
    zero = tf.zeros_like(kernel[0])
    w0, w1, w2 = kernel[0], kernel[1], kernel[2]
    rows = tf.stack([tf.stack([w0, w1 + w2, zero]), tf.stack([zero, w0 + w1, w2])])
    return _fold_columns(rows, lambda a, b, c, z: ([a, b + c, z], [z, a + b, c]))


def fold_nearest_x4_stride_2(kernel: tf.Tensor) -> tf.Tensor:
    """Folds nearest-neighbour x4 followed by 3x3 with stride 2 into one kernel on the small map.

    An even output row 2m sees rows (m - 1, m) with weights (w0, w1 + w2), an odd one only row m
    with w0 + w1 + w2. Sixteen multiplications in place of 36, and no map of sixteen-fold size.

    Args:
      kernel: [3, 3, C, D].

    Returns:
      [2, 2, C, 4D], for a map padded by edge replication at the low sides only; its output is in
      the phase layout.
    """
    zero = tf.zeros_like(kernel[0])
    w0, w1, w2 = kernel[0], kernel[1], kernel[2]
    rows = tf.stack([tf.stack([w0, w1 + w2]), tf.stack([zero, w0 + w1 + w2])])
    return _fold_columns(rows, lambda a, b, c, z: ([a, b + c], [z, a + b + c]))


def _fold_columns(rows: tf.Tensor, fold: Callable[..., tuple[list, list]]) -> tf.Tensor:
    """Folds columns as rows were folded: [2, k, 3, C, D] to [k, k, C, 4D]."""
    c0, c1, c2 = rows[:, :, 0], rows[:, :, 1], rows[:, :, 2]
    even, odd = fold(c0, c1, c2, tf.zeros_like(c0))
    both = tf.stack([tf.stack(even, 2), tf.stack(odd, 2)])  # column phase, row phase, k, k, C, D
    taps, channels, depth = _size(both, 2), _size(both, 4), _size(both, 5)
    return tf.reshape(tf.transpose(both, [2, 3, 4, 1, 0, 5]), [taps, taps, channels, 4 * depth])


def phase_kernel_9x9(kernel: tf.Tensor) -> tf.Tensor:
    """Rearranges a 9x9 kernel so that it maps the phase layout to the phase layout.

    Output pixel 2i + a sees input pixels 2j + b through tap t = 2(j - i) + b - a + 4, so j - i
    spans -2..2: a 5x5 kernel from 4C to 4D channels, with zeros where t leaves 0..8.

    Args:
      kernel: [9, 9, C, D].

    Returns:
      [5, 5, 4C, 4D].
    """
    channels, depth = _size(kernel, 2), _size(kernel, 3)
    blocks = []
    for a in (0, 1):
        for c in (0, 1):
            moved = tf.pad(kernel, [[a, 1 - a], [c, 1 - c], [0, 0], [0, 0]])
            split = tf.reshape(moved, [5, 2, 5, 2, channels, depth])
            block = tf.transpose(split, [0, 2, 1, 3, 4, 5])
            blocks.append(tf.reshape(block, [5, 5, 4 * channels, depth]))
    return tf.concat(blocks, axis=3)
