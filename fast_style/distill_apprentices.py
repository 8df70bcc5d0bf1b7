"""Apprentices: nets that learn a style from the loss network in the making, and show it the result.

What a transform net makes of a photo is unlike any picture whose pixels were optimized: it repeats
itself, and it finds other ways to please a network that sees less than its teacher. So a few nets
train all the time with the losses that the network reports just then, each a style of its own, for
some tens to hundreds of steps, and distillation looks at their answers to photos they are learning.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from fast_style.distill_compare import ARCH, STYLE_WEIGHTS, WIDTH
from fast_style.distill_data import Scene, Studio, log_uniform
from fast_style.distill_file import MAP
from fast_style.loss_models import MINI
from fast_style.loss_net import LossNetwork
from fast_style.losses import gram_matrix
from fast_style.mini_net import mini_features, variable
from fast_style.objective import Objective
from fast_style.train_state import StepSettings, TrainState, make_train_step
from fast_style.transform_net import init_weights

_LIVES = (40.0, 800.0)  # Steps that a net learns, from and to.
_PRACTICE = 2  # Steps that a net takes whenever it is its turn.


class Apprentices:
    """A few nets in training. What they show depends on the seed and the network's past alone."""

    def __init__(
        self,
        studio: Studio,
        network: LossNetwork,
        *,
        content_layer: str,
        count: int,
        answers: int,
        size: int,
        seed: int,
        precision: str,
    ) -> None:
        """Takes on the nets.

        Args:
          studio: Where photos and style pictures come from.
          network: What they learn from, see `network_in_the_making`.
          content_layer: Where it compares contents.
          count: How many nets there are; each gets its turn.
          answers: How many photos one of them stylizes in each step.
          size: Side of the pictures in px.
          seed: Decides everything.
          precision: What the nets compute in.
        """
        self._studio, self._seed, self._answers = studio, seed, answers
        self._desks = [
            _Desk(network, content_layer, answers, size, precision) for _ in range(count)
        ]
        for index in range(count):
            self._begin(index, np.random.default_rng([seed, 3, index]))

    def state(self) -> dict[str, np.ndarray]:
        """Returns what has to be kept so as to go on later; `restore` is the way back."""
        return {
            f"apprentices/{index}/{name}": np.asarray(value)
            for index, desk in enumerate(self._desks)
            for name, value in desk.variables().items()
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Goes on from a kept state."""
        for index, desk in enumerate(self._desks):
            for name, value in desk.variables().items():
                value.assign(state[f"apprentices/{index}/{name}"])

    def join(self, step: int, scene: Scene) -> Scene:
        """Adds the answers of one net to a scene, after that has learned a little more.

        Args:
          step: From 0.
          scene: What else the step looks at.

        Returns:
          The scene, with as many more `styled`, `photos`, `styles`, all the one that the net
          learns, and `style_weights`; or as it was, if the net broke and another takes its place.
        """
        if not self._desks:
            return scene
        index = step % len(self._desks)
        desk = self._desks[index]
        rng = np.random.default_rng([self._seed, 4, step])
        for _ in range(_PRACTICE - 1):
            desk.practise(self._photos(rng))
        photos = self._photos(rng)
        styled = desk.practise(photos)
        if not np.isfinite(styled).all() or not desk.state.is_finite():
            self._begin(index, rng)
            return scene
        styles = np.repeat(desk.style.numpy(), self._answers, axis=0)
        weights = np.repeat(desk.weight.numpy(), self._answers)
        shown = dataclasses.replace(
            scene,
            styled=np.concatenate([scene.styled, styled]),
            photos=np.concatenate([scene.photos, photos]),
            styles=np.concatenate([scene.styles, styles]),
            style_weights=np.concatenate([scene.style_weights, weights]),
        )
        if int(desk.left) <= 0:
            self._begin(index, rng)
        return shown

    def _photos(self, rng: np.random.Generator) -> np.ndarray:
        return np.stack([self._studio.photo(rng) for _ in range(self._answers)])

    def _begin(self, index: int, rng: np.random.Generator) -> None:
        """Replaces a net by a new one with another style."""
        self._desks[index].begin(
            init_weights(ARCH, width=WIDTH, seed=int(rng.integers(2**31))),
            self._studio.style(rng),
            weight=log_uniform(*STYLE_WEIGHTS, rng),
            steps=int(log_uniform(*_LIVES, rng)),
        )


class _Desk:
    """A net, what it learns, and the compiled step that it learns by."""

    def __init__(
        self, network: LossNetwork, content_layer: str, batch: int, size: int, precision: str
    ) -> None:
        self.state = TrainState(init_weights(ARCH, width=WIDTH))
        self.style = tf.Variable(tf.zeros([1, size, size, 3]))
        self.weight = tf.Variable(tf.zeros([1]))
        self.left = tf.Variable(tf.constant(0))
        self._step = make_train_step(
            self.state,
            _LiveObjective(network, (content_layer,), self.style, self.weight),
            StepSettings(
                arch=ARCH,
                precision=precision,
                image_size=size,
                learning_rate=1e-3,
                optimizer="muon",
                warmup_steps=20,
                gradient_clip=1.5,
            ),
            batch_size=batch,
        )

    def variables(self) -> dict[str, tf.Variable]:
        return {
            **self.state.tensors(),
            "step": self.state.step,
            "style": self.style,
            "weight": self.weight,
            "left": self.left,
        }

    def begin(
        self, weights: Mapping[str, np.ndarray], style: np.ndarray, *, weight: float, steps: int
    ) -> None:
        self.state.restart(weights)
        self.state.step.assign(0)
        self.style.assign(style[None])
        self.weight.assign([weight])
        self.left.assign(steps)

    def practise(self, photos: np.ndarray) -> np.ndarray:
        """Takes a step; returns what the net made of the photos before it."""
        self.left.assign_sub(1)
        _, styled, _ = self._step(tf.constant(photos, tf.uint8), tf.ones([len(photos), 1]))
        return styled.numpy()


@dataclass(frozen=True)
class _LiveObjective:
    """`Objective` for one style and a loss network that is learning itself."""

    network: LossNetwork
    content_layers: tuple[str, ...]
    style: tf.Variable
    style_weights: tf.Variable

    def score(
        self, styled: tf.Tensor, photos: tf.Tensor, style_weights: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        features = self.network(self.style)
        return Objective(
            network=self.network,
            content_layers=self.content_layers,
            target_grams={layer: gram_matrix(value) for layer, value in features.items()},
            style_weights=self.style_weights,
            content_weight=1.0,
            tv_weight=0.0,
        ).score(styled, photos, style_weights)


def network_in_the_making(
    state: TrainState, taps: Sequence[str], scales: Mapping[str, float], dtype: str
) -> LossNetwork:
    """Returns the network that is being distilled: its guess at the teacher's features.

    Unlike others, it is not frozen: its weights are read anew at each use, and it has no file.

    Args:
      state: See `distill_step.make_distill_step`.
      taps: Such as 'conv3/conv3_3'.
      scales: {tap: root mean square of the teacher's features}.
      dtype: What it computes in.
    """

    def features(images: tf.Tensor, layers: Sequence[str]) -> list[tf.Tensor]:
        found = mini_features(state.weights, images, layers, dtype)
        return [
            tf.tensordot(
                own,
                tf.cast(state.weights[variable(tap, MAP)] * scales[tap], own.dtype),
                [[3], [1]],
            )
            for tap, own in found.items()
        ]

    return LossNetwork(
        MINI,
        {tap: tap for tap in taps},
        features,
        channels={},
        metrics={},
        weights_file=Path(),
        dtype=dtype,
        pooling="max",
    )
