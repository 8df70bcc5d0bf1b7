"""The transform nets from plain operations, for one picture: what converters understand.

No loops over pictures and no fused norms; each step follows the sequence of `stages`. It is slower
than `transform_net` where that runs.
"""

from __future__ import annotations

import tensorflow as tf

from fast_style.checkpoints import Model
from fast_style.layers import fold_nearest_x2, fold_nearest_x4_stride_2
from fast_style.stages import NetStages, Residual, Stage, net_stages
from fast_style.transform_net import MIN_SIZE, RGB_MEANS


def plain_stylize(
    model: Model, images: tf.Tensor, style_weights: tf.Tensor | None = None
) -> tf.Tensor:
    """Stylizes one picture of any size.

    Args:
      model: The trained net.
      images: uint8 [1, H, W, 3].
      style_weights: [1, S] float32; none takes the first style.

    Returns:
      uint8 [1, H, W, 3].
    """
    net = net_stages(model.arch)
    height, width = tf.shape(images)[1], tf.shape(images)[2]
    x = tf.gather(images, _source_positions(net, height), axis=1)
    x = tf.gather(x, _source_positions(net, width), axis=2)
    x = tf.cast(x, tf.float32) - RGB_MEANS
    for element in net.elements:
        if isinstance(element, Residual):
            y = x
            for stage in element.stages:
                y = _stage(model, net, stage, y, style_weights)
            x += y
        else:
            x = _stage(model, net, element, x, style_weights)
    x = x[:, net.crop : net.crop + height, net.crop : net.crop + width]
    pixels = tf.cast(tf.round((tf.tanh(x) + 1.0) * 127.5), tf.uint8)
    return tf.ensure_shape(pixels, images.shape)


def _source_positions(net: NetStages, size: tf.Tensor) -> tf.Tensor:
    """The pixel at each position of an axis of the first map: `NetStages.source_positions`."""
    enlarged = tf.maximum(size, MIN_SIZE)
    last = enlarged + net.border + tf.math.floormod(-enlarged, net.multiple)
    return _reflected(_reflected(tf.range(-net.border, last), enlarged), size)


def _reflected(positions: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """`stages.reflected`: with a period of 1, for one pixel, all positions become 0."""
    period = tf.maximum(2 * (size - 1), 1)
    around = tf.math.floormod(positions, period)
    return tf.minimum(around, period - around)


def _stage(
    model: Model, net: NetStages, stage: Stage, x: tf.Tensor, style_weights: tf.Tensor | None
) -> tf.Tensor:
    """Computes a stage that reads and gives the plain form."""
    kernel = tf.constant(model.weights[stage.weight])
    # The 9x9 kernel at the end stays as it is: its phases take five times the space in the file.
    enlarges = stage.fold is fold_nearest_x4_stride_2
    if enlarges:
        kernel = fold_nearest_x4_stride_2(kernel)
    elif stage.fold is fold_nearest_x2:
        # Not folded: once the phases of a folded kernel are rounded to 16 or 8 bits, they no longer
        # add up to the same, and flat parts come out as a checkerboard that the norms enlarge.
        x = tf.image.resize(x, 2 * tf.shape(x)[1:3], "nearest")
    if stage.low or stage.high:
        sides = [[0, 0], [stage.low, stage.high], [stage.low, stage.high], [0, 0]]
        x = tf.pad(x, sides, "REFLECT" if stage.mirror == "reflect" else "SYMMETRIC")
    x = tf.nn.conv2d(x, kernel, stage.stride if stage.reads == "plain" else 1, "VALID")
    if enlarges:
        x = tf.nn.depth_to_space(x, 2)

    def of_styles(name: str) -> tf.Tensor:
        value = model.weights[f"{stage.prefix}/{name}"]
        if style_weights is None:
            return tf.constant(value[0])
        return tf.matmul(style_weights, tf.constant(value))[0]

    if stage.norm == "bias":
        x += of_styles("bias")
    elif stage.norm == "instance":
        x -= tf.reduce_mean(x, [1, 2], keepdims=True)
        gain = tf.math.rsqrt(tf.reduce_mean(tf.square(x), [1, 2], keepdims=True) + net.epsilon)
        if stage.prefix is not None:
            gain *= of_styles("scale")
        x *= gain
        if stage.prefix is not None:
            x += of_styles("offset")
    return tf.nn.relu(x) if stage.relu else x
