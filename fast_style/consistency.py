"""Consistency while training: a net that answers small changes of a photo with small ones.

Neighbouring frames of a film differ by noise, compression and small motions. A net that was trained
on photos alone may answer them with other strokes, which flicker. No films are needed to unlearn
it: a photo is disturbed as its next frame might be, and the answers have to agree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

NOISE = 4.0
"""Standard deviation of the noise, in levels of 255."""

LARGEST_SHIFT = 4
"""Photos are shifted by at most so many pixels along each axis: the stride of the nets."""


def consistency_loss(
    stylize: Callable[[tf.Tensor], tf.Tensor],
    photos: tf.Tensor,
    styled: tf.Tensor,
    seed: tf.Tensor,
    place: tuple[Any, Any] | None = None,
) -> tf.Tensor:
    """Returns how far the answer to disturbed photos is from the disturbed answer.

    The mean over pictures, pixels p with p + d inside, and channels of (S(x')[p] - S(x)[p + d])^2,
    where x'[p] = x[p + d] + z[p]. The noise z is normal with a deviation of `NOISE`, the shift d is
    uniform in -`LARGEST_SHIFT`..`LARGEST_SHIFT` along each axis and the same for all pictures; what
    it brings in from outside is mirrored. Stability training (Zheng et al., 2016, eq. 3) has the
    noise and squared distance; with a motion and noise on single pictures it is the compound
    regularization of Wang et al. (2020, "Consistent Video Style Transfer via Compound
    Regularization"), whose motions are smooth fields of flow instead of one shift. The gradient
    goes through both answers.

    Args:
      stylize: The net: [N, H, W, 3] float32 -> float32, same shape.
      photos: [N, H, W, 3], any number type, RGB 0..255; H and W above `LARGEST_SHIFT`.
      styled: [N, H, W, 3] float32, what the net made of them.
      seed: [2] int32 or int64; decides noise and shift.
      place: Of photos that are a part of a batch: the first one's place in it, and its size. The
        noise is then their part of the batch's.

    Returns:
      Scalar float32, at least 0, in squared levels.
    """
    disturbed, shift = disturb(photos, seed, place)
    return shifted_difference(styled, stylize(disturbed), shift)


def disturb(
    photos: tf.Tensor, seed: tf.Tensor, place: tuple[Any, Any] | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Shifts photos and adds noise, as `consistency_loss` describes.

    Args:
      photos: [N, H, W, 3], any number type.
      seed: [2] int32 or int64.
      place: See there.

    Returns:
      [N, H, W, 3] float32, not clipped, and the shift d: [2] int32, down and to the right.
    """
    margin = LARGEST_SHIFT
    shift = tf.random.stateless_uniform([2], seed, -margin, margin + 1, tf.int32)
    pictures = tf.cast(photos, tf.float32)
    wider = tf.pad(pictures, [[0, 0], [margin, margin], [margin, margin], [0, 0]], "REFLECT")
    start = tf.concat([[0], shift + margin, [0]], 0)
    shifted = tf.ensure_shape(tf.slice(wider, start, tf.shape(photos)), photos.shape)
    size = tf.shape(photos)
    first, batch = (0, size[0]) if place is None else place
    whole = tf.random.stateless_normal(tf.concat([[batch], size[1:]], 0), seed, stddev=NOISE)
    return shifted + whole[first : first + size[0]], shift


def shifted_difference(styled: tf.Tensor, disturbed: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    """Returns the mean of (disturbed[p] - styled[p + shift])^2 over the pixels that both have.

    Args:
      styled: [N, H, W, 3] float32.
      disturbed: The same shape.
      shift: [2] int32, less than H and W.

    Returns:
      Scalar float32.
    """
    size = tf.shape(styled)
    shared = tf.concat([size[:1], size[1:3] - tf.abs(shift), size[3:]], 0)
    ahead, behind = tf.maximum(shift, 0), tf.maximum(-shift, 0)
    one = tf.slice(disturbed, tf.concat([[0], behind, [0]], 0), shared)
    other = tf.slice(styled, tf.concat([[0], ahead, [0]], 0), shared)
    return tf.reduce_mean(tf.square(one - other))
