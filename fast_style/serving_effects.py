"""Strength and colours as TensorFlow graphs, for files that are served: see `effects`."""

from __future__ import annotations

import tensorflow as tf

from fast_style.colour import LUMA
from fast_style.effects import MAX_GAIN


def recoloured(styled: tf.Tensor, photo: tf.Tensor) -> tf.Tensor:
    """Does `effects.recolour`: the photo's colours, the style's brightness.

    Args:
      styled: [H, W, 3] float32 in 0..255.
      photo: The same shape and range.

    Returns:
      The same shape and range.
    """
    shift = tf.reduce_sum((styled - photo) * LUMA, -1, keepdims=True)
    return tf.clip_by_value(photo + shift, 0.0, 255.0)


def weakened(styled: tf.Tensor, photo: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Does `effects.weaken`: an average whose contrast does not fade to grey.

    Args:
      styled: [H, W, 3] float32 in 0..255.
      photo: The same shape and range.
      strength: Scalar float32; clipped to 0..1. At 0 and 1 the result is exactly one of the two.

    Returns:
      The same shape and range.
    """
    strength = tf.clip_by_value(strength, 0.0, 1.0)

    def centred(picture: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        mean = tf.reduce_mean(picture, [0, 1])
        return mean, picture - mean

    def variance(deviation: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.reduce_mean(tf.square(deviation), [0, 1]))

    def average() -> tf.Tensor:
        (mean_s, rest_s), (mean_p, rest_p) = centred(styled), centred(photo)
        mean = strength * mean_s + (1.0 - strength) * mean_p
        rest = strength * rest_s + (1.0 - strength) * rest_p
        mixed = variance(rest)
        wanted = strength * tf.sqrt(variance(rest_s))
        wanted += (1.0 - strength) * tf.sqrt(variance(rest_p))
        gain = tf.minimum(tf.math.divide_no_nan(wanted, tf.sqrt(mixed)), MAX_GAIN)
        gain = tf.where(mixed > 1e-6, gain, 1.0)
        return tf.clip_by_value(rest * gain + mean, 0.0, 255.0)

    return tf.case(
        [(strength <= 0.0, lambda: photo), (strength >= 1.0, lambda: styled)], default=average
    )
