"""What a styled picture is scored by: the weighted sum of content, style and variation losses.

Training and validation score batches with `Objective`. Optimization of one picture's pixels scores
with `picture_loss`, which gives the same terms for the loss of a training run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from fast_style.loss_net import LossNetwork
from fast_style.losses import (
    content_layer_losses,
    gram_matrix,
    style_layer_losses,
    total_variation_loss,
)

TOTAL = "total_loss"
CONTENT = "losses/content_loss"
STYLE = "losses/style_loss"
VARIATION = "losses/regularizer_loss"
WEIGHTED_CONTENT = "weighted_losses/weighted_content_loss"
WEIGHTED_STYLE = "weighted_losses/weighted_style_loss"
WEIGHTED_VARIATION = "weighted_losses/weighted_regularizer_loss"
# Of training steps alone, not of held-out photos, and only where the terms weigh something.
CONSISTENCY = "losses/consistency_loss"
WEIGHTED_CONSISTENCY = "weighted_losses/weighted_consistency_loss"
GRID = "losses/grid_loss"
WEIGHTED_GRID = "weighted_losses/weighted_grid_loss"
BORDER = "losses/border_loss"
WEIGHTED_BORDER = "weighted_losses/weighted_border_loss"
STYLE_LAYER = "style_losses/"
CONTENT_LAYER = "content_losses/"
GRADIENT_NORM = "gradient_norm"
LEARNING_RATE = "learning_rate"


class Scorer(Protocol):
    """What a training step needs of a loss; `Objective` is the usual one."""

    @property
    def style_weights(self) -> Any:
        """[S] float32, the weight of each style's loss."""

    def score(
        self, styled: tf.Tensor, photos: tf.Tensor, style_weights: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """See `Objective.score`."""
        ...


@dataclass(frozen=True)
class Objective:
    """The loss of one run.

    Attributes:
      network: The frozen loss network.
      content_layers: Layers compared with the photo's.
      target_grams: {style layer: [S, C, C] float32}, one Gram matrix per style: arrays, or what
        TensorFlow takes for them.
      style_weights: [S] float32, likewise: the weight of each style's loss.
      content_weight: Weight of the content loss.
      tv_weight: Weight of the total variation loss.
    """

    network: LossNetwork
    content_layers: tuple[str, ...]
    target_grams: Mapping[str, Any]
    style_weights: Any
    content_weight: float
    tv_weight: float

    def score(
        self, styled: tf.Tensor, photos: tf.Tensor, style_weights: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Returns every term of the loss, under its TensorBoard tag.

        total = sum over styles of weight * style + content_weight * content + tv_weight * TV.

        Args:
          styled: [N, H, W, 3] float32 RGB 0..255.
          photos: [N, H, W, 3], any type, RGB 0..255.
          style_weights: [N, S] float32: which style each picture is of; rows sum to 1.

        Returns:
          {tag: scalar float32}: `total_loss`, the unweighted and weighted terms, and each layer's
          unweighted share.
        """
        targets = self.content_targets(photos)
        features = self.network(
            styled, tuple(dict.fromkeys((*self.content_layers, *self.target_grams)))
        )
        grams = {
            layer: tf.einsum("ns,sij->nij", style_weights, tf.convert_to_tensor(gram))
            for layer, gram in self.target_grams.items()
        }
        metrics = self.network.metrics
        content = content_layer_losses(features, targets, metrics)
        shares = style_layer_losses(features, grams, self.network.channels, metrics)
        per_picture = tf.add_n(list(shares.values()))
        # What weighs nothing is reported, but its gradient is not computed.
        varied = styled if self.tv_weight else tf.stop_gradient(styled)
        picture_weights = tf.linalg.matvec(style_weights, tf.convert_to_tensor(self.style_weights))
        terms = {
            CONTENT: tf.add_n(list(content.values())),
            STYLE: tf.reduce_sum(per_picture),
            VARIATION: total_variation_loss(varied),
            WEIGHTED_STYLE: tf.reduce_sum(per_picture * picture_weights),
        }
        terms[WEIGHTED_CONTENT] = self.content_weight * terms[CONTENT]
        terms[WEIGHTED_VARIATION] = self.tv_weight * terms[VARIATION]
        terms[TOTAL] = tf.add_n(
            [terms[WEIGHTED_CONTENT], terms[WEIGHTED_STYLE], terms[WEIGHTED_VARIATION]]
        )
        terms |= {f"{STYLE_LAYER}{layer}": tf.reduce_sum(share) for layer, share in shares.items()}
        terms |= {f"{CONTENT_LAYER}{layer}": value for layer, value in content.items()}
        return terms

    def content_targets(self, photos: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the features that content is compared with, without a gradient.

        The loss network is run no deeper than the deepest content layer.

        Args:
          photos: [N, H, W, 3], any type, RGB 0..255.

        Returns:
          {content layer: [N, H', W', C]} of the network's type.
        """
        features = self.network(photos, self.content_layers)
        return {name: tf.stop_gradient(value) for name, value in features.items()}


def style_grams(
    network: LossNetwork, style_layers: Sequence[str], pictures: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns the style targets: the Gram matrices of style pictures, one picture at a time.

    Args:
      network: The loss network.
      style_layers: Layers whose Gram matrices are wanted.
      pictures: uint8 [H, W, 3] each, sizes may differ.

    Returns:
      {layer: [S, C, C] float32}.
    """
    per_picture = []
    for picture in pictures:
        features = network(tf.constant(picture[None]), tuple(style_layers))
        per_picture.append(
            {
                layer: gram_matrix(value, network.metrics.get(layer))[0]
                for layer, value in features.items()
            }
        )
    return {
        layer: np.stack([grams[layer].numpy() for grams in per_picture]) for layer in style_layers
    }
