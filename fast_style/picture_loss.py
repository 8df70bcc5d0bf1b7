"""The loss of one picture, whose pixels are the variable, and its gradient.

Published systems write content and style losses with the same sums of squares and different
divisors, thousands of times apart. With F the features [H, W, C] of a layer, P the number of pixels
(height * width) of the picture, and sums over all entries:

| normalization | Gram matrix G | style loss of a layer | content loss of a layer |
|---|---|---|---|
| slim2016 | F'F / (H W C) | sum (dG)^2 / (H W C) | sum (dF)^2 / (H W C) |
| keras | F'F | sum (dG)^2 / (4 * 3^2 * P^2) | sum (dF)^2 |
| tf2 | F'F / (H W) | sum (dG)^2 / C^2 | sum (dF)^2 / (H W C) |
| matconvnet | F'F / (H W C) | sum (dG)^2 / C^2 | sum (dF)^2 / (H W C) |

slim2016 is what training uses (see `losses`); keras, tf2 and matconvnet are the published
walk-throughs of optimization with Keras's VGG19, TensorFlow 2's VGG19, and MatConvNet's VGG19 under
TensorFlow 1 (there written 2 * l2_loss(dG) / size(G), l2_loss being half a sum of squares).

Each layer's loss has a weight: unless told otherwise 1 for slim2016, and 1 / number of the layers
for the others. Styles are blended by weighting their style losses.

Total variation is taken on pixels 0..255, dx and dy being differences to the right and lower
neighbours of each channel:

| form | formula |
|---|---|
| squared | sum dx^2 / (2 count(dx)) + sum dy^2 / (2 count(dy)), as training |
| power | sum (dx^2 + dy^2)^1.25 over the pixels that have both neighbours, as keras |
| l2 | 2 (l2_loss(dy) / count(dy) + l2_loss(dx) / count(dx)), as matconvnet: twice 'squared' |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from fast_style import objective as tags
from fast_style.loss_net import LossNetwork
from fast_style.losses import (
    content_layer_losses,
    style_layer_losses,
    total_variation_loss,
)
from fast_style.objective import Objective

Evaluation = Callable[[np.ndarray], tuple[dict[str, float], np.ndarray]]
"""float32 [H, W, 3] RGB 0..255 to ({tag: loss term}, gradient of the total, of that shape)."""


@dataclass(frozen=True)
class _Normalization:
    """One row of the table above.

    Attributes:
      gram: What F'F is divided by, of the feature shape (H, W, C).
      style: What sum (dG)^2 is divided by, of the feature shape and P.
      content: What sum (dF)^2 is divided by, of the feature shape.
      averages: Whether layers weigh 1 / their number by default, and not 1.
    """

    gram: Callable[[int, int, int], float]
    style: Callable[[int, int, int, int], float]
    content: Callable[[int, int, int], float]
    averages: bool


def _size(h: int, w: int, c: int) -> float:
    return float(h * w * c)


NORMALIZATIONS = {
    "slim2016": _Normalization(_size, lambda h, w, c, p: _size(h, w, c), _size, False),
    "keras": _Normalization(
        lambda h, w, c: 1.0, lambda h, w, c, p: 36.0 * p**2, lambda h, w, c: 1.0, True
    ),
    "tf2": _Normalization(
        lambda h, w, c: float(h * w), lambda h, w, c, p: float(c**2), _size, True
    ),
    "matconvnet": _Normalization(_size, lambda h, w, c, p: float(c**2), _size, True),
}


def default_layer_weights(normalization: str, layers: Sequence[str]) -> dict[str, float]:
    """Returns {layer: weight} as the module's docstring says."""
    averages = NORMALIZATIONS[normalization].averages
    return dict.fromkeys(layers, 1.0 / len(layers) if averages else 1.0)


@dataclass(frozen=True)
class PictureLoss:
    """The loss of a picture, but for its photo.

    Attributes:
      network: The frozen loss network.
      normalization: A row of the module's table.
      content_layers: {layer: weight}.
      style_layers: {layer: weight}.
      target_grams: {style layer: [S, C, C] float32} in slim2016's normalization, one per style.
      blend: [S], how much of each style.
      content_weight: Weight of the content loss.
      style_weight: Weight of the style loss.
      tv_weight: Weight of the total variation loss.
      tv_form: A key of `TV_FORMS`.
    """

    network: LossNetwork
    normalization: str
    content_layers: Mapping[str, float]
    style_layers: Mapping[str, float]
    target_grams: Mapping[str, np.ndarray]
    blend: Sequence[float]
    content_weight: float
    style_weight: float
    tv_weight: float
    tv_form: str = "squared"

    def terms(
        self, picture: tf.Tensor, photo_features: Mapping[str, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        """Returns every term of the loss, under the tags that training uses.

        Args:
          picture: [1, H, W, 3] float32 RGB 0..255, of a shape that is known while tracing.
          photo_features: {content layer: features of the photo, of the same size}.

        Returns:
          {tag: scalar float32}; `losses/*` are unweighted but for the layers' own weights and
          the blend of styles.
        """
        layers = tuple(dict.fromkeys((*self.content_layers, *self.style_layers)))
        features = self.network(picture, layers)
        height, width, _ = _shape(picture)
        divisors = NORMALIZATIONS[self.normalization]
        # Both losses come from `losses`, in slim2016's normalization; the factors turn them into
        # this one's.
        content = content_layer_losses(features, photo_features, self.network.metrics)
        targets = {
            layer: tf.convert_to_tensor(self.target_grams[layer]) for layer in self.style_layers
        }
        style = style_layer_losses(features, targets, self.network.channels, self.network.metrics)
        terms: dict[str, tf.Tensor] = {}
        for layer in self.content_layers:
            shape = self._teacher_shape(layer, features[layer])
            factor = _size(*shape) / divisors.content(*shape)
            terms[tags.CONTENT_LAYER + layer] = content[layer] * factor
        for layer in self.style_layers:
            shape = self._teacher_shape(layer, features[layer])
            count = _size(*shape)
            factor = (
                count
                * (count / divisors.gram(*shape)) ** 2
                / divisors.style(*shape, height * width)
            )
            blended = tf.reduce_sum(style[layer] * self.blend)
            terms[tags.STYLE_LAYER + layer] = blended * factor
        terms[tags.CONTENT] = _weighted_sum(terms, tags.CONTENT_LAYER, self.content_layers)
        terms[tags.STYLE] = _weighted_sum(terms, tags.STYLE_LAYER, self.style_layers)
        terms[tags.VARIATION] = tv_loss(picture, self.tv_form)
        terms[tags.WEIGHTED_CONTENT] = self.content_weight * terms[tags.CONTENT]
        terms[tags.WEIGHTED_STYLE] = self.style_weight * terms[tags.STYLE]
        terms[tags.WEIGHTED_VARIATION] = self.tv_weight * terms[tags.VARIATION]
        terms[tags.TOTAL] = tf.add_n(
            [
                terms[tags.WEIGHTED_CONTENT],
                terms[tags.WEIGHTED_STYLE],
                terms[tags.WEIGHTED_VARIATION],
            ]
        )
        return terms

    def _teacher_shape(self, layer: str, features: tf.Tensor) -> tuple[int, int, int]:
        """Returns H, W and C of the features that these stand for."""
        height, width, channels = _shape(features)
        return height, width, self.network.channels.get(layer, channels)


def _shape(features: tf.Tensor) -> tuple[int, int, int]:
    """Returns H, W and C, which are known: each size of picture has a trace of its own."""
    _, height, width, channels = features.shape.as_list()
    assert height is not None and width is not None and channels is not None
    return height, width, channels


def _weighted_sum(
    terms: Mapping[str, tf.Tensor], prefix: str, weights: Mapping[str, float]
) -> tf.Tensor:
    return tf.add_n([weight * terms[prefix + layer] for layer, weight in weights.items()])


def _power_variation(picture: tf.Tensor) -> tf.Tensor:
    corner = picture[:, :-1, :-1]
    squares = tf.square(picture[:, :-1, 1:] - corner) + tf.square(picture[:, 1:, :-1] - corner)
    return tf.reduce_sum(tf.pow(squares, 1.25))


TV_FORMS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "squared": total_variation_loss,
    "power": _power_variation,
    "l2": lambda picture: 2.0 * total_variation_loss(picture),
}


def tv_loss(picture: tf.Tensor, form: str) -> tf.Tensor:
    """Returns the total variation of a picture in one of the module's forms.

    Args:
      picture: [1, H, W, 3] float32 RGB 0..255; H and W at least 2.
      form: A key of `TV_FORMS`.
    """
    return TV_FORMS[form](picture)


class Evaluator:
    """Evaluates losses of one network, and their gradients.

    Photos, styles and weights are inputs of the compiled function. It is traced once for each size
    of picture, unless losses differ in their layers, normalization or form of total variation.
    """

    def __init__(self, network: LossNetwork) -> None:
        """Prepares for losses of `network`; nothing is traced yet."""

        @tf.function(autograph=False)
        def evaluate(
            form: tuple[Any, ...],
            numbers: Mapping[str, Any],
            picture: tf.Tensor,
            photo_features: Mapping[str, tf.Tensor],
        ):
            normalization, content_layers, style_layers, tv_form = form
            loss = PictureLoss(
                network=network,
                normalization=normalization,
                content_layers=dict(content_layers),
                style_layers=dict(style_layers),
                tv_form=tv_form,
                **numbers,
            )
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(picture)
                terms = loss.terms(picture[None], photo_features)
            return terms, tape.gradient(terms[tags.TOTAL], picture)

        self._network = network
        self._evaluate = evaluate

    def evaluation(self, loss: PictureLoss, photo_features: Mapping[str, tf.Tensor]) -> Evaluation:
        """Returns a loss and its gradient as a function of pictures of a photo's size.

        Args:
          loss: A loss of this network.
          photo_features: {content layer: features of the photo}.

        Raises:
          ValueError: If the loss is of another network.
        """
        if loss.network is not self._network:
            raise ValueError("this evaluator is for losses of another network")
        form = (
            loss.normalization,
            tuple(loss.content_layers.items()),
            tuple(loss.style_layers.items()),
            loss.tv_form,
        )
        numbers = {
            "target_grams": {
                layer: tf.constant(loss.target_grams[layer]) for layer in loss.style_layers
            },
            **{
                name: tf.constant(getattr(loss, name), tf.float32)
                for name in ("blend", "content_weight", "style_weight", "tv_weight")
            },
        }

        def evaluation(picture: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
            terms, gradient = self._evaluate(form, numbers, tf.constant(picture), photo_features)
            return {tag: float(value) for tag, value in terms.items()}, gradient.numpy()

        return evaluation


def make_evaluation(loss: PictureLoss, photo: np.ndarray) -> Evaluation:
    """Returns a loss and its gradient as a function of pictures of a photo's size.

    The photo's features and the style's Gram matrices are computed beforehand: an evaluation is
    one pass through the loss network and back.

    Args:
      loss: The loss.
      photo: [H, W, 3] uint8.
    """
    features = loss.network(tf.constant(photo[None]), tuple(loss.content_layers))
    return Evaluator(loss.network).evaluation(loss, features)


def picture_loss_of(objective: Objective, style: int = 0) -> PictureLoss:
    """Returns the loss that training has for one photo of one style.

    Its terms equal those of `Objective.score` for a batch of one.

    Args:
      objective: The loss of a training run.
      style: Which of its styles.
    """
    return PictureLoss(
        network=objective.network,
        normalization="slim2016",
        content_layers=dict.fromkeys(objective.content_layers, 1.0),
        style_layers=dict.fromkeys(objective.target_grams, 1.0),
        target_grams={
            layer: grams[style : style + 1] for layer, grams in objective.target_grams.items()
        },
        blend=(1.0,),
        content_weight=objective.content_weight,
        style_weight=float(objective.style_weights[style]),
        tv_weight=objective.tv_weight,
    )
