"""vgg_mini: a narrow network that reports the losses of the VGG it was distilled from.

It has the teacher's convolutions and poolings with a fraction of their channels. For each layer
that losses look at, distillation also learns a linear map Q from its c channels to the C channels
of the teacher, so that with features as rows F_teacher ~ F Q'. What the teacher's losses ask for
are only lengths, and those can be had without going back to C channels. With A = Q'Q:

    ||dF_teacher||^2 ~ tr(dF A dF')        ||dG_teacher||^2 ~ tr(A dG A dG)

So the file holds a *metric* for each such layer: M, [c, c], with M M' = A c / C, by which features
are to be multiplied. Losses of the product F M then come out on the teacher's scale by the formulas
of `losses`: content losses and Gram matrices as they are, since both divide by the number of
channels once; style losses divided by the teacher's number of channels, which the file says too.
`losses` multiplies where that is least work: differences of features, and Gram matrices.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import tensorflow as tf

from fast_style.errors import WeightsError
from fast_style.layers import conv
from fast_style.loss_models import BUNDLED, MEAN_RGB, MINI, VGG_BLOCKS, vgg_convolutions
from fast_style.loss_weights import read_weights

PIXEL_SCALE = 64.0
"""What pixels are divided by, so that kernels of the first layer are no smaller than others."""

TEACHER = "teacher"
"""The key of the file's header that names the teacher."""

_CONVOLUTION = re.compile(rf"{MINI}/(conv(\d)/conv\2_(\d))/weights")


class MiniNetwork:
    """A distilled network, read from its file.

    Attributes:
      layers: The layers that have a metric, from shallow to deep, such as 'conv3/conv3_3'.
      channels: {layer: number of the teacher's channels}.
      metrics: {layer: M, [c, c] float32}.
      prefixes: What may stand before a layer's name: the network's own name and the teacher's.
    """

    def __init__(self, file: Path, *, dtype: str, key: str = "loss_model_file") -> None:
        """Reads the whole file.

        Args:
          file: A file that `python -m fast_style distill` wrote.
          dtype: What to compute in.
          key: What the configuration calls the file, for messages.

        Raises:
          WeightsError: If it is damaged, or no such file.
        """
        values, self.layers, teacher = read_mini(file, key=key)
        self.channels = {
            layer: int(values[variable(layer, "channels")][0]) for layer in self.layers
        }
        self.prefixes = tuple(f"{name}/" for name in (MINI, teacher) if name)
        self._dtype = dtype
        with tf.init_scope():
            self._weights = {name: tf.constant(value) for name, value in values.items()}
        self.metrics = {layer: self._weights[variable(layer, "metric")] for layer in self.layers}

    def features(self, images: tf.Tensor, layers: Sequence[str]) -> list[tf.Tensor]:
        """Computes features, not yet multiplied by their metrics.

        Args:
          images: [N, H, W, 3] float32 RGB 0..255.
          layers: Some of `layers`.

        Returns:
          [N, H', W', c] each, in the type it computes in.
        """
        return list(mini_features(self._weights, images, layers, self._dtype).values())


def read_mini(file: Path, *, key: str) -> tuple[dict[str, np.ndarray], tuple[str, ...], str]:
    """Reads and checks a distilled network.

    Args:
      file: A file that `python -m fast_style distill` wrote.
      key: What the configuration calls the file, for messages.

    Returns:
      Its variables, the layers that have a metric, from shallow to deep, and the teacher's name;
      empty if the file does not say.

    Raises:
      WeightsError: If it is missing, damaged, or no such file.
    """
    values = dict(read_weights(file, MINI, key=key))
    order = convolutions(values)
    layers = tuple(layer for layer in order if variable(layer, "metric") in values)
    if not layers:
        raise WeightsError(
            f"{file}: no distilled loss network; point {key} at one that "
            f"`python -m fast_style distill` made, or at {BUNDLED}, which comes along"
        )
    teacher = _teacher(file)
    _check(file, values, order, layers, teacher)
    return values, layers, teacher


def _check(
    file: Path,
    values: Mapping[str, np.ndarray],
    order: Sequence[str],
    taps: Sequence[str],
    teacher: str,
) -> None:
    """Raises a WeightsError unless the file holds the variables that the network needs alone.

    Its convolutions are the teacher's from the first one on, where the teacher is known; otherwise
    none may be missing between two of them.
    """
    if teacher in VGG_BLOCKS:
        known = [f"{name.split('_')[0]}/{name}" for name in vgg_convolutions(teacher)]
    else:
        deepest = {layer.split("/")[0]: int(layer.split("_")[1]) for layer in order}
        known = [
            f"{block}/{block}_{i}"
            for block in (f"conv{number}" for number in range(1, len(deepest) + 1))
            for i in range(1, 1 + deepest.get(block, 1))
        ]
    if missing := [layer for layer in known[: len(order)] if layer not in order]:
        raise _misfit(file, f"convolution {missing[0]} is missing")
    expected: dict[str, tuple[int, ...]] = {}
    inputs = 3
    for layer in order:
        kernel = values[variable(layer, "weights")]
        own = kernel.shape[-1] if kernel.ndim else 0
        expected[variable(layer, "weights")] = (3, 3, inputs, own)
        expected[variable(layer, "biases")] = (own,)
        if layer in taps:
            expected[variable(layer, "metric")] = (own, own)
            expected[variable(layer, "channels")] = (1,)
        inputs = own
    for name, shape in expected.items():
        if name not in values or values[name].shape != shape:
            got = f"has shape {values[name].shape}" if name in values else "is missing"
            raise _misfit(file, f"{name!r} {got}, expected {shape}")
    if unexpected := [name for name in values if name not in expected]:
        raise _misfit(file, f"{unexpected[0]!r} is none of its variables")
    for name in (variable(layer, "channels") for layer in taps):
        if (count := float(values[name][0])) < 1.0 or not count.is_integer():
            raise _misfit(file, f"{name!r} is {count:g}, expected a whole number of at least 1")


def _misfit(file: Path, reason: str) -> WeightsError:
    return WeightsError(
        f"{file}: damaged, or not a loss network of this version ({reason}); copy it again"
    )


def _teacher(file: Path) -> str:
    """Returns the teacher's name from the file's header; empty if it does not say."""
    try:
        with safetensors.safe_open(str(file), framework="np") as archive:
            return (archive.metadata() or {}).get(TEACHER, "")
    except Exception:  # Another format, which has no header.
        return ""


def convolutions(names: Iterable[str]) -> tuple[str, ...]:
    """Lists a network's convolutions from shallow to deep, such as 'conv1/conv1_2'.

    Args:
      names: The names of its variables.
    """
    found = [match[1] for name in names if (match := _CONVOLUTION.fullmatch(name))]
    return tuple(sorted(found))


def mini_features(
    weights: Mapping[str, Any], images: tf.Tensor, layers: Sequence[str], dtype: str
) -> dict[str, tf.Tensor]:
    """Computes features down to the deepest layer asked for, before any metric.

    Args:
      weights: {variable name: float32 tensor or variable}, see `variable`.
      images: [N, H, W, 3] float32 RGB 0..255.
      layers: Such as 'conv3/conv3_3'.
      dtype: What to compute in.

    Returns:
      {layer: [N, H', W', c] of `dtype`}, after ReLU.
    """
    order = convolutions(tuple(weights))
    deepest = max(order.index(layer) for layer in layers)
    x = input_pixels(images, dtype)
    found, block = {}, order[0].split("/")[0]
    for layer in order[: deepest + 1]:
        if layer.split("/")[0] != block:
            block = layer.split("/")[0]
            x = next_block(x)
        found[layer] = x = convolve(weights, layer, x)
    return {layer: found[layer] for layer in layers}


def input_pixels(images: tf.Tensor, dtype: str) -> tf.Tensor:
    """Returns what the first convolution reads."""
    return tf.cast((images - tf.constant(MEAN_RGB, tf.float32)) / PIXEL_SCALE, dtype)


def convolve(weights: Mapping[str, Any], layer: str, x: tf.Tensor) -> tf.Tensor:
    """Applies one convolution and its ReLU."""
    bias = tf.cast(weights[variable(layer, "biases")], x.dtype)
    x = conv(x, weights[variable(layer, "weights")], padding="SAME")
    return tf.nn.relu(tf.nn.bias_add(x, bias))


def next_block(x: tf.Tensor) -> tf.Tensor:
    """Halves height and width, as the VGGs do between their blocks."""
    return tf.nn.max_pool2d(x, 2, 2, "VALID")


def variable(layer: str, kind: str) -> str:
    """Names a variable of a layer: kind is 'weights', 'biases', 'metric' or 'channels'."""
    return f"{MINI}/{layer}/{kind}"


def metric(teacher_map: np.ndarray) -> np.ndarray:
    """Returns M, [c, c] float32, with M M' = Q'Q c / C.

    Args:
      teacher_map: Q, [C, c].
    """
    exact = teacher_map.astype(np.float64)
    channels, own = exact.shape
    values, vectors = np.linalg.eigh(exact.T @ exact * (own / channels))
    return (vectors * np.sqrt(np.maximum(values, 0.0))).astype(np.float32)
