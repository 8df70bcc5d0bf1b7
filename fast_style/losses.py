"""Losses of style transfer: tensors to named, unweighted scalars.

All are computed in float32 whatever the type of the features, and normalized as in the 2016
TensorFlow-Slim implementation, on which the weights of its configuration files depend. Taps are
after ReLU. One product is in the features' own type: differences of features by their metric, which
adds less than 1e-3 of the loss in bfloat16.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from fast_style.layers import conv

GRID_PERIOD = 4
"""Pixels after which what a net makes of a flat photo repeats: 2 for each halving of the sides."""

_GRID_WINDOW = 32  # pixels at least; grids differ from place to place, as photos do
_BORDER_LINES = 8  # pixels from the border that lines lie in
_BORDER_INSIDE = 24  # pixels from the border to which what they are compared with reaches


def gram_matrix(features: tf.Tensor, metric: tf.Tensor | None = None) -> tf.Tensor:
    """Returns the channel correlations of each feature map.

    G[n, i, j] = sum over (y, x) of F[n, y, x, i] * F[n, y, x, j] / (H * W * C), as in
    Johnson et al. (2016), eq. 3. Gatys et al. (2015) do not divide here.

    Args:
      features: [N, H, W, C] float32 or bfloat16, any range. H and W may be unknown while tracing.
      metric: [C, C] float32, what features are to be multiplied by. As the Gram matrix of F M is
        M' G M, the features themselves need not be.

    Returns:
      [N, C, C] float32, symmetric and positive semi-definite up to rounding, summed in float32.

    Raises:
      ValueError: If `features` is not rank 4.
    """
    if features.shape.rank != 4:
        raise ValueError(f"features: expected shape [N, H, W, C], got {features.shape}")
    channels = features.shape[3]
    shape = tf.shape(features)
    size = tf.cast(tf.reduce_prod(shape[1:]), tf.float32)

    @tf.custom_gradient
    def gram(features: tf.Tensor) -> Any:
        flat = tf.reshape(features, [shape[0], -1, channels])
        flat = tf.ensure_shape(flat, [features.shape[0], None, channels])

        def gradient(dy: tf.Tensor) -> tf.Tensor:
            # G is symmetric in F: one product where the general rule makes two. It is as exact as
            # the features' own type, which the result is cast to anyway.
            symmetric = (dy + tf.linalg.matrix_transpose(dy)) / size
            return tf.reshape(tf.matmul(flat, tf.cast(symmetric, features.dtype)), shape)

        exact = tf.cast(flat, tf.float32)
        # One by one: as a batch, these tall products take up to three times as long on CPUs.
        if exact.shape[0] is None:
            return tf.matmul(exact, exact, transpose_a=True) / size, gradient
        grams = [tf.matmul(one, one, transpose_a=True) for one in tf.unstack(exact)]
        return tf.stack(grams) / size, gradient

    if metric is None:
        return gram(features)
    return tf.matmul(metric, tf.matmul(gram(features), metric), transpose_a=True)


def style_layer_losses(
    features: Mapping[str, tf.Tensor],
    target_grams: Mapping[str, tf.Tensor],
    channels: Mapping[str, int] | None = None,
    metrics: Mapping[str, tf.Tensor] | None = None,
) -> dict[str, tf.Tensor]:
    """Returns each picture's share of the style loss of each layer.

    ||G[n] - G_style||^2 / (N * H * W * C); the sum of the shares is the layer's loss. It is divided
    by the number of *features*, not of Gram entries (C^2), as the 2016 TensorFlow-Slim
    implementation does. Relative to the mean-squared Gram error a layer carries C / (H * W), so
    VGG16's four style layers weigh 1 : 8 : 64 : 512 at any size, and a style weight needs x4 when
    the picture's side doubles.

    Args:
      features: {layer: [N, H, W, C]} of the styled pictures.
      target_grams: {layer: [1 or N, C, C] float32} of the style; its layers are the ones scored.
      channels: {layer: C to divide by} where it is not that of the features, as for features that
        stand for those of a wider network.
      metrics: {layer: what its features are to be multiplied by}, see `gram_matrix`.

    Returns:
      {layer: [N] float32, at least 0}.
    """
    losses = {}
    for layer, target in target_grams.items():
        difference = gram_matrix(features[layer], (metrics or {}).get(layer)) - target
        shape = tf.shape(features[layer])
        if channels and layer in channels:
            shape = tf.concat([shape[:3], [channels[layer]]], 0)
        count = tf.cast(tf.reduce_prod(shape), tf.float32)
        losses[layer] = tf.reduce_sum(tf.square(difference), [1, 2]) / count
    return losses


def content_layer_losses(
    features: Mapping[str, tf.Tensor],
    target_features: Mapping[str, tf.Tensor],
    metrics: Mapping[str, tf.Tensor] | None = None,
) -> dict[str, tf.Tensor]:
    """Returns the content loss of each layer: sum of (F - F_photo)^2 / (N * H * W * C).

    Johnson et al. (2016), eq. 2.

    Args:
      features: {layer: [N, H, W, C]} of the styled pictures.
      target_features: The same of the photos; its layers are the ones scored.
      metrics: {layer: [C, C] float32, what its features are to be multiplied by}.

    Returns:
      {layer: scalar float32, at least 0}.
    """
    losses = {}
    for layer, target in target_features.items():
        metric = (metrics or {}).get(layer)
        if metric is None:
            losses[layer] = _mean_squared_difference(features[layer], target)
        else:
            difference = features[layer] - target
            moved = tf.cast(conv(difference, metric[None, None]), tf.float32)
            losses[layer] = tf.nn.l2_loss(moved) / (tf.cast(tf.size(moved), tf.float32) / 2.0)
    return losses


@tf.custom_gradient
def _mean_squared_difference(x: tf.Tensor, target: tf.Tensor) -> Any:
    """Returns mean((x - target)^2), float32, in as few passes over the features as there can be."""
    difference = tf.cast(x, tf.float32) - tf.cast(target, tf.float32)
    half_count = tf.cast(tf.size(x), tf.float32) / 2.0

    def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        dx = difference * (dy / half_count)
        return tf.cast(dx, x.dtype), tf.cast(-dx, target.dtype)

    return tf.nn.l2_loss(difference) / half_count, gradient


def total_variation_loss(images: tf.Tensor) -> tf.Tensor:
    """Returns how much neighbouring pixels differ.

    sum of dx^2 / (2 * count(dx)) + sum of dy^2 / (2 * count(dy)), where dx and dy are differences
    to the right and lower neighbours and counts include images and channels.

    Args:
      images: [N, H, W, 3] float32 0..255; H and W at least 2.

    Returns:
      Scalar float32: 0 for flat pictures, blind to brightness.
    """
    # Rows as lines of numbers: slices of three channels each would be copied one by one.
    shape, channels = tf.shape(images), int(images.shape[3])  # type: ignore[arg-type]
    lines = tf.reshape(images, [shape[0], shape[1], -1])
    dx = lines[:, :, channels:] - lines[:, :, :-channels]
    dy = lines[:, 1:] - lines[:, :-1]
    return (tf.reduce_mean(tf.square(dx)) + tf.reduce_mean(tf.square(dy))) / 2.0


def grid_loss(images: tf.Tensor) -> tf.Tensor:
    """Returns how strong patterns are that repeat every 4 (or 2) pixels, as a net's own do.

    The nets halve the sides twice and double them twice. What they make of a flat photo therefore
    repeats every 4 pixels, and no other texture comes from nothing: style losses ask for texture
    where a photo has none, and get this one, a grid. Pictures have next to nothing of that kind.

    With z the picture without its means over 4x4 pixels, cut into equal windows of 32 pixels a side
    or more (smaller pictures: one) from the top left, it is the mean over windows, phases and
    channels of (p - mean of p over the phases)^2, where p[a, b] is the mean of a window's pixels
    z[4 i + a, 4 j + b]. What is left over below and to the right, less than 4 pixels for each
    window, does not count.

    A pattern of period 4, 2 or 1 counts with its variance, one of 8, 12... with the part of it that
    repeats every 4. Brightness and even slopes do not count, and other texture hardly, as a
    window's i and j average it away: of noise, one part in the number of a window's repeats
    remains, 1/64 to 1/225.

    Args:
      images: [N, H, W, 3] float32 0..255; H and W at least 8.

    Returns:
      Scalar float32, in squared levels.
    """
    fine = images[:, 2:-1, 2:-1] - tf.nn.avg_pool2d(images, GRID_PERIOD, 1, "VALID")
    shape = tf.shape(fine)
    windows = [tf.maximum(shape[axis] // _GRID_WINDOW, 1) for axis in (1, 2)]
    repeats = [shape[axis + 1] // (GRID_PERIOD * windows[axis]) for axis in (0, 1)]
    height, width = (GRID_PERIOD * r * w for r, w in zip(repeats, windows, strict=True))
    folded = tf.reshape(
        fine[:, :height, :width],
        [
            shape[0],
            *(windows[0], repeats[0], GRID_PERIOD),
            *(windows[1], repeats[1], GRID_PERIOD),
            shape[3],
        ],
    )
    phases = tf.reduce_mean(folded, [2, 5])
    return tf.reduce_mean(tf.math.reduce_variance(phases, [2, 4]))


def border_loss(styled: tf.Tensor, photos: tf.Tensor) -> tf.Tensor:
    """Returns how far pictures are, along their borders, from differing from inside as photos do.

    Loss networks pad with zeros, which makes features near a picture's border unlike those inside.
    Style losses reward a net for painting against it: lines along the borders, the same in every
    picture.

    With r[k] the mean colour of the k-th row or column from a border, k = 0 at the border itself,
    and R the mean of r[8] to r[23], it is the mean over pictures, borders, k = 0 to 7 and channels
    of the square of (r[k] - R) of the styled picture less that of the photo. What a style makes of
    one photo's border counts, too; but only what is the same in every photo adds up in training.

    Args:
      styled: [N, H, W, 3] float32 0..255; H and W at least 24.
      photos: [N, H, W, 3], any number type, 0..255.

    Returns:
      Scalar float32, in squared levels.
    """
    ours, theirs = (_border_steps(tf.cast(pictures, tf.float32)) for pictures in (styled, photos))
    return tf.reduce_mean(tf.square(ours - theirs))


def _border_steps(images: tf.Tensor) -> tf.Tensor:
    """Returns how the outermost rows and columns differ from those further inside, [4 N, 8, 3]."""
    steps = []
    for along in (2, 1):
        means = tf.reduce_mean(images, along)
        for from_border in (means, means[:, ::-1]):
            inside = from_border[:, _BORDER_LINES:_BORDER_INSIDE]
            inside = tf.reduce_mean(inside, 1, keepdims=True)
            steps.append(from_border[:, :_BORDER_LINES] - inside)
    return tf.concat(steps, 0)
