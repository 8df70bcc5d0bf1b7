"""Where distillation starts: a teacher cut down and refitted by layer, or an earlier network.

A random narrow network would have to learn for days what the teacher knows. So each layer keeps the
teacher's channels from which the others can be told best, and its kernel is the one that computes
them best from the layer before, as narrow and wrong as that already is: a least-squares problem of
its own (He, Zhang and Sun, 2017, "Channel pruning for accelerating very deep neural networks").
What a ReLU cuts off need not be told: where the teacher's feature is 0, any negative number will do
(Zhang et al., 2016, "Accelerating very deep convolutional networks for classification and
detection"), so targets follow the fit there, for a few rounds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from fast_style.mini_net import PIXEL_SCALE, convolve, input_pixels, next_block, variable

_RIDGE = 1e-5  # Of the mean of the diagonal.
_ROUNDS = 6
_SAMPLES = 60_000  # Pixels that a layer is fitted to.


def informative_channels(second_moments: np.ndarray, count: int) -> np.ndarray:
    """Chooses the channels from which the others can be told best by linear regression.

    Greedily: each time the channel that explains most of what is left of all of them.

    Args:
      second_moments: [C, C], the mean of f f' over pixels.
      count: How many to choose, at most C.

    Returns:
      [count] indices, ascending.
    """
    left = second_moments.astype(np.float64).copy()
    floor = 1e-9 * np.trace(left) / len(left)
    chosen: list[int] = []
    for _ in range(count):
        energy = np.diag(left).copy()
        gain = np.square(left).sum(axis=0) / np.maximum(energy, floor)
        gain[energy <= floor] = -1.0
        gain[chosen] = -2.0
        best = int(np.argmax(gain))
        chosen.append(best)
        if left[best, best] > floor:
            left -= np.outer(left[:, best], left[best]) / left[best, best]
    return np.sort(np.array(chosen))


def least_squares(inputs: np.ndarray, targets: np.ndarray, *, rectified: bool) -> np.ndarray:
    """Returns W, [K, C], for which inputs @ W is nearest to the targets.

    Args:
      inputs: [M, K].
      targets: [M, C].
      rectified: Whether negative targets stand for any negative number.
    """
    exact = inputs.astype(np.float64)
    normal = exact.T @ exact
    normal[np.diag_indices_from(normal)] += _RIDGE * np.trace(normal) / len(normal)
    inverse = np.linalg.inv(normal)
    wanted = targets.astype(np.float64)
    found = inverse @ (exact.T @ wanted)
    for _ in range(_ROUNDS if rectified else 0):
        reached = np.where(targets > 0.0, wanted, np.minimum(exact @ found, 0.0))
        found = inverse @ (exact.T @ reached)
    return found


def pruned(
    kernels: Mapping[str, np.ndarray],
    biases: Mapping[str, np.ndarray],
    widths: Mapping[str, int],
    taps: Collection[str],
    pictures: np.ndarray,
    *,
    before: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Cuts a VGG down to fewer channels, or gives a network that was cut down more of them.

    Features are scaled to a mean square of about 1, so that one learning rate suits every layer.
    The features of a network that is there stay what they were: its new channels are those of the
    teacher from which most of what the old ones leave untold can be told, and its old channels do
    not look at new ones before them.

    Args:
      kernels: {layer: [3, 3, C_in, C]} of the teacher, from shallow to deep.
      biases: {layer: [C]}.
      widths: {layer: channels to have}.
      taps: Layers whose teacher's features are wanted.
      pictures: [N, H, W, 3] float32 RGB 0..255 to fit to.
      before: The variables of a network to go on from, with at most `widths` channels.
      seed: Decides which pixels are fitted to.

    Returns:
      The variables of a mini network, and {tap: Q [C, c]}, which are always fitted.
    """
    rng = np.random.default_rng(seed)
    variables: dict[str, np.ndarray] = {}
    maps = {}
    own = input_pixels(tf.constant(pictures), "float32")
    teacher = own * PIXEL_SCALE
    block = ""
    for layer, kernel in kernels.items():
        if block and layer.split("/")[0] != block:
            own, teacher = next_block(own), next_block(teacher)
        block = layer.split("/")[0]
        linear = convolve_linear(teacher, kernel, biases[layer])
        teacher = tf.nn.relu(linear)
        sample = _sample(rng, tuple(teacher.shape.as_list()[:3]))
        truth = tf.gather_nd(linear, sample).numpy()
        features = np.maximum(truth, 0.0)
        patches = _patches(own, sample)
        inputs = (patches.shape[1] - 1) // 9
        weights, bias = _kept(before or {}, layer, inputs)
        if new := widths[layer] - len(bias):
            solved = np.concatenate([weights.reshape(9 * inputs, len(bias)), bias[None]])
            untold = features
            if len(bias):
                told = np.maximum(patches @ solved, 0.0)
                untold = features - told @ least_squares(told, features, rectified=False)
            moments = untold.T.astype(np.float64) @ untold / len(untold)
            chosen = informative_channels(moments, new)
            scale = float(np.sqrt(np.mean(np.square(features[:, chosen], dtype=np.float64))))
            more = least_squares(patches, truth[:, chosen] / scale, rectified=True)
            solved = np.concatenate([solved, more], axis=1).astype(np.float32)
            weights, bias = solved[:-1].reshape(3, 3, inputs, -1), solved[-1]
        variables[variable(layer, "weights")], variables[variable(layer, "biases")] = weights, bias
        own = convolve(variables, layer, own)
        if layer in taps:
            reached = tf.gather_nd(own, sample).numpy()
            maps[layer] = least_squares(reached, features, rectified=False).T.astype(np.float32)
    return variables, maps


def _kept(
    before: Mapping[str, np.ndarray], layer: str, inputs: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a layer's kernel and bias, with zeros for inputs that it had not."""
    if variable(layer, "weights") not in before:
        return np.zeros((3, 3, inputs, 0), np.float32), np.zeros(0, np.float32)
    kernel = before[variable(layer, "weights")].astype(np.float32)
    missing = inputs - kernel.shape[2]
    return (
        np.pad(kernel, [(0, 0), (0, 0), (0, missing), (0, 0)]),
        before[variable(layer, "biases")].astype(np.float32),
    )


def convolve_linear(x: tf.Tensor, kernel: np.ndarray, bias: np.ndarray) -> tf.Tensor:
    """Returns what a layer of a VGG computes before its ReLU."""
    return tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "SAME"), tf.constant(bias))


def _sample(rng: np.random.Generator, shape: tuple[Any, ...]) -> np.ndarray:
    """Returns places (picture, y, x), [M, 3]."""
    count = min(_SAMPLES, int(np.prod(shape)))
    places = rng.choice(int(np.prod(shape)), count, replace=False)
    return np.stack(np.unravel_index(np.sort(places), shape), axis=1)


def _patches(x: tf.Tensor, places: np.ndarray) -> np.ndarray:
    """Returns what a 3x3 kernel and a bias see at some places, [M, 9 C + 1]."""
    padded = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
    columns = [
        tf.gather_nd(padded, places + np.array([0, down, across])).numpy()
        for down in range(3)
        for across in range(3)
    ]
    return np.concatenate([*columns, np.ones((len(places), 1), np.float32)], axis=1)
