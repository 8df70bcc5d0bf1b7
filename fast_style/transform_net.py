"""The transform net: pictures and style weights to styled pictures, in one pass.

A net is a set of named float32 weights and a function of them; who holds the weights (a training
run, a loaded model) is not its business. To add an architecture, write its functions, add a
row to `ARCHITECTURES`, and its name to `config.ARCHITECTURES`, the choices of the key `arch`.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from fast_style.layers import (
    conv,
    crop_image,
    fold_nearest_x4_stride_2,
    in_phases,
    instance_norm,
    nearest_x2_conv,
    pad,
    pad_image,
    phase_kernel_9x9,
    reflect_conv,
    tanh_pixels,
)

RGB_MEANS = (123.68, 116.78, 103.94)
MIN_SIZE = 16  # Smaller pictures leave too few pixels to reflect at a quarter of the resolution.

# Variables while training, constants of the graph when stylizing, arrays in tests.
Weights = Mapping[str, Any]


@dataclass(frozen=True)
class Architecture:
    """One way to build a transform net.

    Attributes:
      shapes: (width, styles) -> {weight name: shape}.
      initial: (name, shape, generator) -> float32 array of that shape.
      forward: (weights, images, style weights, compute type) -> styled images.
      flat_pixel: (weights, style weights [S]) -> float64 [3]: what a picture of one colour becomes,
        whichever it is. The first norm takes the colour out; behind each norm is its offset.
      inner_kernel: Weight name -> whether it is a convolution's kernel other than the last, which
        makes colours. These are what Muon is for.
      of_style: Weight name -> whether each style has its own, [S, channels]: all but kernels.
      learning_rate: Weight name -> factor of the run's learning rate.
    """

    shapes: Callable[[float, int], dict[str, tuple[int, ...]]]
    initial: Callable[[str, tuple[int, ...], np.random.Generator], np.ndarray]
    forward: Callable[[Weights, tf.Tensor, tf.Tensor, tf.DType], tf.Tensor]
    flat_pixel: Callable[[Mapping[str, np.ndarray], np.ndarray], np.ndarray]
    inner_kernel: Callable[[str], bool]
    of_style: Callable[[str], bool]
    learning_rate: Callable[[str], float] = lambda name: 1.0


def init_weights(
    arch: str, *, width: float = 1.0, styles: int = 1, seed: int = 0
) -> dict[str, np.ndarray]:
    """Returns fresh weights of a net.

    Each weight is drawn from a generator of its own, seeded by `seed` and its name, so adding a
    layer changes no other.

    Args:
      arch: A key of `ARCHITECTURES`.
      width: Multiplies the channels of every hidden layer.
      styles: Number of styles the net can hold.
      seed: At least 0.

    Returns:
      {name: float32 array}, in order from input to output.
    """
    net = architecture(arch)
    return {
        name: net.initial(
            name, shape, np.random.default_rng([seed, zlib.crc32(name.encode())])
        ).astype(np.float32)
        for name, shape in net.shapes(width, styles).items()
    }


def transform(
    arch: str,
    weights: Weights,
    images: tf.Tensor,
    style_weights: tf.Tensor,
    *,
    dtype: str = "float32",
) -> tf.Tensor:
    """Stylizes pictures.

    Args:
      arch: A key of `ARCHITECTURES`.
      weights: {name: float32 tensor or variable}, shaped as `init_weights` shapes them.
      images: [N, H, W, 3] RGB 0..255, any number type, H and W at least 16 (both may be unknown
        while tracing).
      style_weights: [N, S] float32: how much of each style; rows usually sum to 1.
      dtype: 'float32' or 'bfloat16', the type of features. Weights, statistics of the norms and
        the result are float32.

    Returns:
      [N, H, W, 3] float32 RGB in 0..255, the size of `images`.

    Raises:
      ValueError: If `arch` is unknown.
    """
    return architecture(arch).forward(weights, images, style_weights, tf.as_dtype(dtype))


def architecture(arch: str) -> Architecture:
    """Returns a row of `ARCHITECTURES`.

    Raises:
      ValueError: If there is none of that name.
    """
    if arch not in ARCHITECTURES:
        raise ValueError(f"arch: expected one of {', '.join(ARCHITECTURES)}, got {arch!r}")
    return ARCHITECTURES[arch]


def weight_count(arch: str, *, width: float = 1.0, styles: int = 1) -> int:
    """Returns the number of weights of a net."""
    return sum(math.prod(shape) for shape in architecture(arch).shapes(width, styles).values())


# --- johnson: Johnson et al. (2016) with conditional instance norm (Dumoulin et al., 2017) -------

BORDER = 10  # Reflected pixels around the picture, cropped at the end.
JOHNSON_EPSILON = 1e-5


def _johnson_shapes(width: float, styles: int) -> dict[str, tuple[int, ...]]:
    c1, c2, c3 = (max(4, 4 * round(channels * width / 4)) for channels in (32, 64, 128))
    layers: list[tuple[str, tuple[int, ...]]] = [
        ("conv1", (9, 9, 3, c1)),
        ("conv2", (3, 3, c1, c2)),
        ("conv3", (3, 3, c2, c3)),
    ]
    for block in range(1, 6):
        layers += [(f"res{block}/conv{i}", (3, 3, c3, c3)) for i in (1, 2)]
    layers += [("up1", (3, 3, c3, c2)), ("up2", (3, 3, c2, c1))]
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in layers:
        shapes[f"{name}/weight"] = shape
        shapes[f"{name}/scale"] = (styles, shape[-1])
        shapes[f"{name}/offset"] = (styles, shape[-1])
    shapes["out/weight"] = (9, 9, c1, 3)
    shapes["out/bias"] = (styles, 3)
    return shapes


def _johnson_initial(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """He et al. (2015): variance 2 / fan-in keeps the scale of activations behind a ReLU.

    The last convolution begins at a tenth of the deviation of unit variance, so that pictures begin
    grey. At unit variance they begin as noise, whose style loss is seven times as large, and
    training spends its first steps on unlearning it (`grey_start` in docs/quality.md).
    """
    if name.endswith("/scale"):
        return np.ones(shape)
    if name.endswith(("/offset", "/bias")):
        return np.zeros(shape)
    gain = 0.01 if name == "out/weight" else 2.0
    return rng.standard_normal(shape) * math.sqrt(gain / math.prod(shape[:-1]))


def _johnson(
    weights: Weights, images: tf.Tensor, style_weights: tf.Tensor, dtype: tf.DType
) -> tf.Tensor:
    def norm(x: tf.Tensor, name: str, relu: bool = False) -> tf.Tensor:
        scale = tf.matmul(style_weights, weights[f"{name}/scale"])
        offset = tf.matmul(style_weights, weights[f"{name}/offset"])
        return instance_norm(x, scale, offset, epsilon=JOHNSON_EPSILON, relu=relu)

    def norm_relu(x: tf.Tensor, name: str) -> tf.Tensor:
        return norm(x, name, relu=True)

    height, width = tf.shape(images)[1], tf.shape(images)[2]
    # Two halvings want multiples of 4; the excess is reflected too, and cropped at the end.
    after = (
        BORDER + 4 + tf.math.floormod(-height, 4),
        BORDER + 4 + tf.math.floormod(-width, 4),
    )
    x = pad_image(tf.cast(images, tf.float32) - RGB_MEANS, BORDER + 4, after)
    x = norm_relu(conv(tf.cast(x, dtype), weights["conv1/weight"]), "conv1")
    x = norm_relu(reflect_conv(x, weights["conv2/weight"], 2), "conv2")
    x = norm_relu(reflect_conv(x, weights["conv3/weight"], 2), "conv3")
    for block in range(1, 6):
        first, second = f"res{block}/conv1", f"res{block}/conv2"
        y = norm_relu(reflect_conv(x, weights[f"{first}/weight"]), first)
        x += norm(reflect_conv(y, weights[f"{second}/weight"]), second)
    for name in ("up1", "up2"):
        x = norm_relu(nearest_x2_conv(x, weights[f"{name}/weight"]), name)
    # The outermost 4 pixels that the 9x9 kernel lacks lie in the border, so it needs no padding.
    x = conv(tf.nn.space_to_depth(x, 2), phase_kernel_9x9(weights["out/weight"]))
    bias = tf.tile(tf.matmul(style_weights, weights["out/bias"]), [1, 4])
    x = tf.nn.depth_to_space(tf.cast(x, tf.float32) + bias[:, None, None, :], 2)
    x = crop_image(x, BORDER - 4, BORDER - 4, height, width)
    return tf.ensure_shape(tanh_pixels(x), images.shape)


def _johnson_flat_pixel(weights: Mapping[str, np.ndarray], mix: np.ndarray) -> np.ndarray:
    features = np.maximum(mix @ weights["up2/offset"].astype(np.float64), 0.0)
    kernel = weights["out/weight"].astype(np.float64).sum((0, 1))
    return (np.tanh(features @ kernel + mix @ weights["out/bias"]) + 1.0) * 127.5


# --- slim2016: the net of fast-neural-style on TensorFlow-Slim (2016), weight for weight ----------

SLIM_EPSILON = 1e-9


def _slim2016_shapes(width: float, styles: int) -> dict[str, tuple[int, ...]]:
    if width != 1.0 or styles != 1:
        raise ValueError(
            f"arch slim2016 has width 1.0 and one style, got width {width} and {styles} styles"
        )
    shapes = {
        "conv1/conv/weight": (9, 9, 3, 32),
        "conv2/conv/weight": (3, 3, 32, 64),
        "conv3/conv/weight": (3, 3, 64, 128),
    }
    for block in range(1, 6):
        for conv_name in ("conv", "conv_1"):
            shapes[f"res{block}/residual/{conv_name}/weight"] = (3, 3, 128, 128)
    shapes["deconv1/conv_transpose/conv/weight"] = (3, 3, 128, 64)
    shapes["deconv2/conv_transpose/conv/weight"] = (3, 3, 64, 32)
    shapes["deconv3/conv/weight"] = (9, 9, 32, 3)
    return shapes


def _slim2016_initial(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A normal of deviation 0.1, redrawn beyond two deviations; a tenth of it in one place.

    The 2016 implementation has the full deviation everywhere. With no norm inside the residual
    blocks, each block's branch is then six times as large as what it is added to, and the sum has
    grown ten-thousandfold after five of them: the photo drowns, entirely so in the 8 bits of
    bfloat16. A tenth in the second convolution of each block keeps the branch below the sum. Only
    where training starts changes, not the net.
    """
    values = rng.standard_normal(shape)
    while (outside := np.abs(values) > 2.0).any():
        values[outside] = rng.standard_normal(int(outside.sum()))
    return (0.01 if name.endswith("conv_1/weight") else 0.1) * values


def _slim2016_learning_rate(name: str) -> float:
    """A tenth inside the residual blocks.

    Adam moves every weight by about the learning rate, whatever its gradient. Where a norm follows
    a convolution that is harmless, the norm takes out any growth. The residual blocks have none:
    at the full rate of 1e-3 their branches outgrow the sum they are added to within fifty steps,
    and the photo is drowned again.
    """
    return 0.1 if name.startswith("res") else 1.0


def _slim2016(
    weights: Weights, images: tf.Tensor, style_weights: tf.Tensor, dtype: tf.DType
) -> tf.Tensor:
    del style_weights  # One style, nothing to blend.

    def norm(x: tf.Tensor) -> tf.Tensor:
        return instance_norm(x, epsilon=SLIM_EPSILON)

    def norm_relu(x: tf.Tensor) -> tf.Tensor:
        return instance_norm(x, epsilon=SLIM_EPSILON, relu=True)

    def upsample(x: tf.Tensor, name: str) -> tf.Tensor:
        kernel = fold_nearest_x4_stride_2(weights[f"{name}/conv_transpose/conv/weight"])
        y = conv(pad(x, 1, "symmetric", high=False), kernel)
        return tf.nn.depth_to_space(in_phases(norm_relu, y), 2)

    height, width = tf.shape(images)[1], tf.shape(images)[2]
    x = pad_image(tf.cast(images, tf.float32) - RGB_MEANS, BORDER, (BORDER, BORDER))
    x = norm_relu(reflect_conv(tf.cast(x, dtype), weights["conv1/conv/weight"]))
    x = norm_relu(reflect_conv(x, weights["conv2/conv/weight"], 2))
    x = norm_relu(reflect_conv(x, weights["conv3/conv/weight"], 2))
    for block in range(1, 6):
        y = tf.nn.relu(reflect_conv(x, weights[f"res{block}/residual/conv/weight"]))
        x += reflect_conv(y, weights[f"res{block}/residual/conv_1/weight"])
    x = upsample(x, "deconv1")
    x = upsample(x, "deconv2")
    x = tf.nn.space_to_depth(pad(x, 4), 2)
    x = tf.nn.depth_to_space(conv(x, phase_kernel_9x9(weights["deconv3/conv/weight"])), 2)
    x = norm(tf.cast(x, tf.float32))
    x = crop_image(x, BORDER, BORDER, height, width)
    return tf.ensure_shape(tanh_pixels(x), images.shape)


ARCHITECTURES: dict[str, Architecture] = {
    "johnson": Architecture(
        _johnson_shapes,
        _johnson_initial,
        _johnson,
        _johnson_flat_pixel,
        lambda name: name.endswith("/weight") and name != "out/weight",
        lambda name: not name.endswith("/weight"),
    ),
    "slim2016": Architecture(
        _slim2016_shapes,
        _slim2016_initial,
        _slim2016,
        lambda weights, mix: np.full(3, 127.5),  # Its last norm, in front of tanh, has no offset.
        lambda name: name != "deconv3/conv/weight",
        lambda name: False,
        _slim2016_learning_rate,
    ),
}
