"""The 2016 formulation of the training step and of the net, written plainly and in float32.

What the benchmarks compare with. Everything is as a first reading of the papers would have it: the
whole loss network over styled pictures and photos in one batch, its gradient through both halves;
nearest-neighbour x4 and a 3x3 convolution of stride 2; the library's moments and mirror padding;
one Adam update per variable. Nothing here is shared with the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

_MEANS = (123.68, 116.78, 103.94)
_BLOCKS = (2, 2, 3, 3)  # Convolutions of VGG16's blocks, to conv4_3.
_STYLE = ("conv1_2", "conv2_2", "conv3_3", "conv4_3")
_CONTENT = "conv3_3"


def net_weights(seed: int) -> dict[str, np.ndarray]:
    """Returns random kernels of the net, in the order of its layers."""
    rng = np.random.default_rng(seed)
    shapes = {"in": (9, 9, 3, 32), "down1": (3, 3, 32, 64), "down2": (3, 3, 64, 128)}
    shapes |= {f"block{b}_{i}": (3, 3, 128, 128) for b in range(5) for i in range(2)}
    shapes |= {"up1": (3, 3, 128, 64), "up2": (3, 3, 64, 32), "out": (9, 9, 32, 3)}
    return {name: rng.normal(0.0, 0.02, s).astype(np.float32) for name, s in shapes.items()}


def stylize(weights: Mapping[str, Any], photos: tf.Tensor) -> tf.Tensor:
    """The net: [N, H, W, 3] RGB 0..255 to the same, float32; H and W multiples of 4."""

    def convolved(x: tf.Tensor, name: str, stride: int = 1) -> tf.Tensor:
        sides = [int(weights[name].shape[0]) // 2] * 2
        padded = tf.pad(x, [[0, 0], sides, sides, [0, 0]], "REFLECT")
        return tf.nn.conv2d(padded, weights[name], stride, "VALID")

    def normed(x: tf.Tensor) -> tf.Tensor:
        mean, variance = tf.nn.moments(x, [1, 2], keepdims=True)
        return (x - mean) / tf.sqrt(variance + 1e-9)

    def enlarged(x: tf.Tensor, name: str) -> tf.Tensor:
        shape = tf.shape(x)
        large = tf.image.resize(x, [4 * shape[1], 4 * shape[2]], "nearest")
        return tf.nn.relu(normed(convolved(large, name, 2)))

    x = tf.cast(photos, tf.float32) - _MEANS
    x = tf.pad(x, [[0, 0], [10, 10], [10, 10], [0, 0]], "REFLECT")
    x = tf.nn.relu(normed(convolved(x, "in")))
    x = tf.nn.relu(normed(convolved(x, "down1", 2)))
    x = tf.nn.relu(normed(convolved(x, "down2", 2)))
    for block in range(5):
        x += convolved(tf.nn.relu(convolved(x, f"block{block}_0")), f"block{block}_1")
    x = enlarged(enlarged(x, "up1"), "up2")
    x = (tf.tanh(normed(convolved(x, "out"))) + 1.0) * 127.5
    return x[:, 10:-10, 10:-10]


def _vgg16(weights: Mapping[str, Any], images: tf.Tensor) -> dict[str, tf.Tensor]:
    x = images - _MEANS
    features = {}
    for block, count in enumerate(_BLOCKS, start=1):
        for i in range(1, count + 1):
            name = f"vgg_16/conv{block}/conv{block}_{i}"
            x = tf.nn.conv2d(x, weights[f"{name}/weights"], 1, "SAME")
            x = tf.nn.relu(x + weights[f"{name}/biases"])
            features[f"conv{block}_{i}"] = x
        x = tf.nn.max_pool2d(x, 2, 2, "SAME")
    return features


def _gram(features: tf.Tensor) -> tf.Tensor:
    shape = tf.shape(features)
    flat = tf.reshape(features, [shape[0], -1, features.shape[3]])
    size = tf.cast(shape[1] * shape[2] * shape[3], tf.float32)
    return tf.matmul(flat, flat, transpose_a=True) / size


def make_train_step(vgg: Mapping[str, np.ndarray], style: np.ndarray, *, seed: int) -> Any:
    """Returns the compiled step: uint8 photos [N, H, W, 3] to the total loss.

    Args:
      vgg: Weights of VGG16 under TF-Slim's names.
      style: uint8 [H, W, 3], the style picture.
      seed: Of the net's weights.
    """
    loss_weights = {name: tf.constant(value) for name, value in vgg.items()}
    weights = {name: tf.Variable(tf.constant(value)) for name, value in net_weights(seed).items()}
    moments = {
        name: (tf.Variable(tf.zeros_like(w)), tf.Variable(tf.zeros_like(w)))
        for name, w in weights.items()
    }
    step = tf.Variable(tf.zeros([]))
    targets = _vgg16(loss_weights, tf.cast(style[None], tf.float32))
    grams = {name: _gram(targets[name]) for name in _STYLE}

    @tf.function(autograph=False)
    def train_step(photos: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            styled = stylize(weights, photos)
            both = tf.concat([styled, tf.cast(photos, tf.float32)], 0)
            features = _vgg16(loss_weights, both)
            half = {name: tf.split(value, 2) for name, value in features.items()}
            content = tf.reduce_mean(tf.square(half[_CONTENT][0] - half[_CONTENT][1]))
            style_loss = tf.add_n(
                [
                    tf.reduce_sum(tf.square(_gram(half[name][0]) - grams[name]))
                    / tf.cast(tf.size(half[name][0]), tf.float32)
                    for name in _STYLE
                ]
            )
            dx, dy = styled[:, :, 1:] - styled[:, :, :-1], styled[:, 1:] - styled[:, :-1]
            variation = tf.reduce_mean(tf.square(dx)) + tf.reduce_mean(tf.square(dy))
            total = content + 100.0 * style_loss + 0.0 * variation
        gradients: dict[str, Any] = tape.gradient(total, weights)  # type: ignore[assignment]
        step.assign_add(1.0)
        for name, gradient in gradients.items():
            first, second = moments[name]
            first.assign(0.9 * first + 0.1 * gradient)
            second.assign(0.999 * second + 0.001 * tf.square(gradient))
            rate = 1e-3 * tf.sqrt(1.0 - tf.pow(0.999, step)) / (1.0 - tf.pow(0.9, step))
            weights[name].assign_sub(rate * first / (tf.sqrt(second) + 1e-8))
        return total

    return train_step


def make_stylize(*, seed: int) -> Any:
    """Returns the compiled net: uint8 [N, H, W, 3] to uint8, H and W multiples of 4."""
    weights = {name: tf.constant(value) for name, value in net_weights(seed).items()}

    @tf.function(autograph=False)
    def run(photos: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.round(stylize(weights, photos)), tf.uint8)

    return run
