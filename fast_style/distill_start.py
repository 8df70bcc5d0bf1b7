"""Where distillation starts: the teacher with most of its channels cut away, refitted by layer.

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
    seed: int = 0,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Cuts a VGG down to fewer channels.

    Features are scaled to a mean square of about 1, so that one learning rate suits every layer.

    Args:
      kernels: {layer: [3, 3, C_in, C]} of the teacher, from shallow to deep.
      biases: {layer: [C]}.
      widths: {layer: channels to keep}.
      taps: Layers whose teacher's features are wanted.
      pictures: [N, H, W, 3] float32 RGB 0..255 to fit to.
      seed: Decides which pixels are fitted to.

    Returns:
      The variables of a mini network, and {tap: Q [C, c]}.
    """
    rng = np.random.default_rng(seed)
    variables, maps = {}, {}
    own = input_pixels(tf.constant(pictures), "float32")
    teacher = own * PIXEL_SCALE
    block = ""
    for layer, kernel in kernels.items():
        if block and layer.split("/")[0] != block:
            own, teacher = next_block(own), next_block(teacher)
        block = layer.split("/")[0]
        before = convolve_linear(teacher, kernel, biases[layer])
        teacher = tf.nn.relu(before)
        sample = _sample(rng, tuple(teacher.shape.as_list()[:3]))
        truth = tf.gather_nd(before, sample).numpy()
        features = np.maximum(truth, 0.0)
        moments = features.T.astype(np.float64) @ features / len(features)
        chosen = informative_channels(moments, widths[layer])
        scale = float(np.sqrt(np.mean(np.diag(moments)[chosen])))
        solved = least_squares(_patches(own, sample), truth[:, chosen] / scale, rectified=True)
        shape = (3, 3, own.shape[3], len(chosen))
        variables[variable(layer, "weights")] = solved[:-1].reshape(shape).astype(np.float32)
        variables[variable(layer, "biases")] = solved[-1].astype(np.float32)
        own = convolve(variables, layer, own)
        if layer in taps:
            reached = tf.gather_nd(own, sample).numpy()
            maps[layer] = least_squares(reached, features, rectified=False).T.astype(np.float32)
    return variables, maps


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
