"""Consistency while training: a net that answers small changes of a photo with small ones.

Neighbouring frames of a film differ by noise, compression and small motions. A net that was trained
on photos alone may answer them with other strokes, which flicker. No films are needed to unlearn
it: a photo is disturbed as its next frame might be, and the answers have to agree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from fast_style.steady import RADIUS

NOISE = 2.0
"""Standard deviation of the noise, in levels of 255."""

SHIFTS = (0.25, 4.0)
"""Photos are shifted by at most so many pixels along each axis, from and to: fractions of a pixel
as in slow pans, and up to the stride of the nets."""

STILL = 1.5
"""Below so many levels of smoothed change a place of a shifted photo looks as if it stood still."""


def consistency_loss(
    stylize: Callable[[tf.Tensor], tf.Tensor],
    photos: tf.Tensor,
    styled: tf.Tensor,
    seed: tf.Tensor,
    place: tuple[Any, Any] | None = None,
) -> tf.Tensor:
    """Returns how much the answer changes where the photo does not, or moves otherwise than it.

    With x'[p] = x[p + d] + z[p], of each picture's pixels p with p + d inside,

        (S(x')[p] - S(x)[p])^2        where x stands still: the mean over 7x7 pixels and all
                                      channels of |x[p + d] - x[p]| is below `STILL`
        (S(x')[p] - S(x)[p + d])^2    elsewhere

    Each kind is averaged by itself, because still places are few in most photos and flicker most.
    The result is the mean over pictures of (w_s m_s + w_m m_m) / (w_s + w_m), with m the mean over
    a kind's n pixels and the channels, w = n / (n + P / 100), and P the number of pixels p with
    p + d inside: a kind of next to no pixels hardly counts.

    The noise z is normal with a deviation of `NOISE`; the shift d is the same for all pictures,
    uniform in -r..r along each axis, with the logarithm of r uniform between those of `SHIFTS`.
    Between pixels pictures are interpolated linearly; what a shift brings in from outside is
    mirrored. Stability training (Zheng et al., 2016, eq. 3) has the noise and squared distance;
    with a motion and noise on single pictures it is the compound regularization of Wang et al.
    (2020, "Consistent Video Style Transfer via Compound Regularization"), whose motions are smooth
    fields of flow instead of one shift. That an answer has to stay where it is when its smooth
    surroundings move unseen is ours: there, strokes that move along are what flickers. The gradient
    goes through both answers.

    Args:
      stylize: The net: [N, H, W, 3] float32 -> float32, same shape.
      photos: [N, H, W, 3], any number type, RGB 0..255; H and W above the largest shift plus 1.
      styled: [N, H, W, 3] float32, what the net made of them.
      seed: [2] int32 or int64; decides noise and shift.
      place: Of photos that are a part of a batch: the first one's place in it, and its size. The
        noise is then their part of the batch's.

    Returns:
      Scalar float32, at least 0, in squared levels.
    """
    pictures = tf.cast(photos, tf.float32)
    shift = draw_shift(seed)
    moved = shifted(pictures, shift)
    answer = stylize(moved + _noise(tf.shape(pictures), seed, place))
    still = stands_still(pictures, moved)
    inside = _inside(tf.shape(pictures), shift)
    loss, weight = 0.0, 0.0
    for places, wanted in ((still, styled), (1.0 - still, shifted(styled, shift))):
        error = tf.reduce_mean(tf.square(answer - wanted), -1, keepdims=True)
        places = inside * places
        count = tf.reduce_sum(places, [1, 2, 3])
        divisor = count + 0.01 * tf.reduce_sum(inside)
        loss += tf.reduce_sum(places * error, [1, 2, 3]) / divisor
        weight += count / divisor
    return tf.reduce_mean(loss / weight)


def draw_shift(seed: tf.Tensor) -> tf.Tensor:
    """Returns a shift, [2] float32 in pixels, down and to the right; see `consistency_loss`.

    Args:
      seed: [2] int32 or int64.
    """
    least, most = SHIFTS
    drawn = tf.random.stateless_uniform([3], seed, -1.0, 1.0)
    reach = least * tf.pow(most / least, 0.5 * (drawn[2] + 1.0))
    return drawn[:2] * reach


def shifted(pictures: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    """Returns x[p + d], interpolated linearly between pixels and mirrored at the edge.

    Args:
      pictures: [N, H, W, 3] float32.
      shift: [2] float32, at most the largest of `SHIFTS` along each axis.
    """
    margin = int(SHIFTS[1]) + 1
    wider = tf.pad(pictures, [[0, 0], [margin, margin], [margin, margin], [0, 0]], "REFLECT")
    whole = tf.floor(shift)
    down, right = tf.unstack(shift - whole)
    start = tf.cast(whole, tf.int32) + margin

    def at(below: int, beside: int) -> tf.Tensor:
        corner = tf.concat([[0], start + [below, beside], [0]], 0)
        return tf.ensure_shape(tf.slice(wider, corner, tf.shape(pictures)), pictures.shape)

    above = (1.0 - right) * at(0, 0) + right * at(0, 1)
    return (1.0 - down) * above + down * ((1.0 - right) * at(1, 0) + right * at(1, 1))


def stands_still(before: tf.Tensor, after: tf.Tensor) -> tf.Tensor:
    """Returns 1 where the mean change over 7x7 pixels and all channels is below `STILL`, else 0.

    Args:
      before: [N, H, W, 3] float32, 0..255.
      after: The same.

    Returns:
      [N, H, W, 1] float32.
    """
    change = tf.reduce_mean(tf.abs(after - before), -1, keepdims=True)
    pad = [RADIUS, RADIUS]
    wider = tf.pad(change, [[0, 0], pad, pad, [0, 0]], "REFLECT")
    return tf.cast(tf.nn.avg_pool2d(wider, 2 * RADIUS + 1, 1, "VALID") < STILL, tf.float32)


def _noise(size: tf.Tensor, seed: tf.Tensor, place: tuple[Any, Any] | None) -> tf.Tensor:
    first, batch = (0, size[0]) if place is None else place
    whole = tf.random.stateless_normal(tf.concat([[batch], size[1:]], 0), seed, stddev=NOISE)
    return whole[first : first + size[0]]


def _inside(size: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    """Returns 1 for pixels p with p + shift inside the picture, else 0: [H, W, 1] float32."""

    def along(axis: int) -> tf.Tensor:
        there = tf.range(tf.cast(size[axis], tf.float32)) + shift[axis - 1]
        return (there >= 0.0) & (there <= tf.cast(size[axis] - 1, tf.float32))

    return tf.expand_dims(tf.cast(along(1)[:, None] & along(2), tf.float32), -1)
