"""Stylizer: a trained model that turns pictures of any size into styled ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import tensorflow as tf

from fast_style.checkpoints import Model, load_model
from fast_style.hardware import resolve_precision
from fast_style.layers import pad_image
from fast_style.transform_net import MIN_SIZE, Weights, transform


class Stylizer:
    """A loaded model. It is traced once, and that one graph serves pictures of every size.

    Attributes:
      model: What was loaded: architecture, style names, metadata.
      precision: 'float32' or 'bfloat16', what it computes in.
    """

    def __init__(self, model: Model, *, precision: str = "auto") -> None:
        """Prepares a model.

        Args:
          model: From `load_model`.
          precision: 'float32', 'bfloat16', or 'auto' for what suits the hardware. In bfloat16
            pictures differ from float32 ones by about a level on average.
        """
        self.model = model
        self.precision = resolve_precision(precision)
        self.run = make_stylize_function(model, self.precision, batch_size=1)

    @overload
    def stylize(
        self, image: np.ndarray, *, style_weights: Sequence[float] | None = None
    ) -> np.ndarray: ...

    @overload
    def stylize(
        self, image: list[np.ndarray], *, style_weights: Sequence[float] | None = None
    ) -> list[np.ndarray]: ...

    def stylize(
        self,
        image: np.ndarray | list[np.ndarray],
        *,
        style_weights: Sequence[float] | None = None,
    ) -> np.ndarray | list[np.ndarray]:
        """Stylizes one picture, or each of a list.

        Args:
          image: uint8 [H, W, 3] RGB of any size from 1x1, or a list of such.
          style_weights: How much of each of the model's styles, usually with sum 1; none takes
            the first style.

        Returns:
          uint8 [H, W, 3] of the same size, or a list of such.

        Raises:
          TypeError: If a picture is not a uint8 array.
          ValueError: If its shape is not [H, W, 3], or style_weights do not fit the model.
        """
        names = self.model.style_names
        if style_weights is None:
            style_weights = [1.0] + [0.0] * (len(names) - 1)
        self.check_style_weights(style_weights)
        mix = tf.constant([list(style_weights)], tf.float32)
        if isinstance(image, list):
            return [self._one(picture, mix) for picture in image]
        return self._one(image, mix)

    def _one(self, image: np.ndarray, mix: tf.Tensor) -> np.ndarray:
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
            kind = getattr(image, "dtype", type(image).__name__)
            raise TypeError(f"image: expected a NumPy array of uint8, got {kind}")
        if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ValueError(f"image: expected shape [H, W, 3], got {list(image.shape)}")
        return self.run(tf.constant(image[None]), mix)[0].numpy()

    def check_style_weights(self, style_weights: Sequence[float]) -> None:
        """Checks that there is one finite number per style.

        Raises:
          ValueError: If not.
        """
        names = self.model.style_names
        try:
            with np.errstate(over="ignore"):  # Too large for the net is as bad as infinite.
                given = np.asarray(style_weights, np.float64).astype(np.float32)
        except (TypeError, ValueError):  # Text, or lists of unequal length.
            given = np.array(np.nan)
        if given.shape != (len(names),) or not np.isfinite(given).all():
            raise ValueError(
                f"expected {len(names)} finite numbers, for {', '.join(names)}, got {style_weights}"
            )


def load(path: str | os.PathLike[str], *, precision: str = "auto") -> Stylizer:
    """Loads a trained model.

    Args:
      path: A run's folder, a `.safetensors` file, or a checkpoint.
      precision: 'float32', 'bfloat16' or 'auto'.

    Raises:
      ModelError: If there is no model, or it is damaged.
    """
    return Stylizer(load_model(path), precision=precision)


def make_stylize_function(model: Model, precision: str, *, batch_size: int | None = None) -> Any:
    """Returns the compiled net: (uint8 [N, H, W, 3], float32 [N, S]) -> uint8 [N, H, W, 3].

    Weights are constants of the graph, so that what depends on them alone is computed once.

    Args:
      model: The net.
      precision: 'float32' or 'bfloat16'.
      batch_size: N, if it is always the same: traced and computed faster than any number.

    Raises:
      ValueError: If `precision` is not 'float32' or 'bfloat16'.
    """
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision: expected float32 or bfloat16, got {precision!r}")

    @tf.function(
        input_signature=[
            tf.TensorSpec([batch_size, None, None, 3], tf.uint8, name="images"),
            tf.TensorSpec([batch_size, len(model.style_names)], tf.float32, name="style_weights"),
        ],
        autograph=False,
    )
    def run(images: tf.Tensor, style_weights: tf.Tensor) -> tf.Tensor:
        weights = {name: tf.constant(value) for name, value in model.weights.items()}
        return stylize_batch(model.arch, weights, images, style_weights, precision)

    return run


def stylize_batch(
    arch: str,
    weights: Weights,
    images: tf.Tensor,
    style_weights: tf.Tensor,
    precision: str,
) -> tf.Tensor:
    """Stylizes whole pictures of any size, as a user gets them.

    Args:
      arch: A key of `transform_net.ARCHITECTURES`.
      weights: The net's.
      images: uint8 [N, H, W, 3], H and W at least 1.
      style_weights: [N, S] float32.
      precision: 'float32' or 'bfloat16'.

    Returns:
      uint8 [N, H, W, 3].
    """
    shape = tf.shape(images)
    # Pictures below the net's least size are reflected up to it, and cut back afterwards.
    missing = tf.maximum(MIN_SIZE - shape[1:3], 0)
    enlarged = pad_image(images, 0, (missing[0], missing[1]))
    styled = transform(arch, weights, enlarged, style_weights, dtype=precision)
    styled = styled[:, : shape[1], : shape[2]]
    return tf.ensure_shape(tf.cast(tf.round(styled), tf.uint8), images.shape)
