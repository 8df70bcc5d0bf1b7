"""What training changes, and one step of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from fast_style import objective as tags
from fast_style.checkpoints import FIRST_MOMENT, SECOND_MOMENT, STEP, tensor_problems
from fast_style.errors import ModelError
from fast_style.objective import Objective
from fast_style.transform_net import transform

# Adam as in Kingma & Ba (2015) with TensorFlow's defaults of 2016.
_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8


class TrainState(tf.Module):
    """Everything that training changes: weights, Adam's moments, and the step."""

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        """Starts at step 0.

        Args:
          weights: {name: float32 array}.
        """
        super().__init__(name="train_state")
        self.weights = {
            name: tf.Variable(tf.constant(value), name=name) for name, value in weights.items()
        }
        self.first = {name: tf.Variable(tf.zeros_like(v)) for name, v in self.weights.items()}
        self.second = {name: tf.Variable(tf.zeros_like(v)) for name, v in self.weights.items()}
        self.step = tf.Variable(tf.constant(0, tf.int64))

    def tensors(self) -> dict[str, tf.Variable]:
        """Returns what a checkpoint holds, but for the step."""
        return {
            **self.weights,
            **{f"{name}/{FIRST_MOMENT}": value for name, value in self.first.items()},
            **{f"{name}/{SECOND_MOMENT}": value for name, value in self.second.items()},
        }

    def restore(self, source: Path, tensors: Mapping[str, np.ndarray]) -> None:
        """Takes over a checkpoint's values; all or nothing.

        Raises:
          ModelError: If a tensor is missing, unexpected or of another shape; all are named.
        """
        mine = {**self.tensors(), STEP: self.step}
        shapes = {name: np.shape(value) for name, value in mine.items()}
        # The 2016 implementation also kept powers of Adam's decay rates, which the step implies.
        found = {name: value for name, value in tensors.items() if not name.startswith("beta")}
        problems = tensor_problems(shapes, found)
        if problems:
            raise ModelError(
                f"{source}: cannot resume from it, its tensors do not fit this run: "
                f"{'; '.join(problems)}; use init_from to start from its weights alone"
            )
        for name, value in mine.items():
            value.assign(tensors[name])

    def apply_adam(
        self, gradients: Mapping[str, tf.Tensor], learning_rate: float
    ) -> list[tf.Operation]:
        """Updates weights and moments, and counts the step; for use inside a graph.

        Returns:
          The operations that do it.
        """
        power = tf.cast(self.step.assign_add(1), tf.float32)
        beta_1_power, beta_2_power = tf.pow(_BETA_1, power), tf.pow(_BETA_2, power)
        return [
            tf.raw_ops.ResourceApplyAdam(
                var=self.weights[name].handle,
                m=self.first[name].handle,
                v=self.second[name].handle,
                beta1_power=beta_1_power,
                beta2_power=beta_2_power,
                lr=learning_rate,
                beta1=_BETA_1,
                beta2=_BETA_2,
                epsilon=_EPSILON,
                grad=gradient,
            )
            for name, gradient in gradients.items()
        ]


def make_train_step(
    state: TrainState,
    objective: Objective,
    *,
    arch: str,
    precision: str,
    learning_rate: float,
    batch_size: int,
    image_size: int,
) -> Any:
    """Returns the compiled step: (photos, style weights) -> (losses, styled pictures).

    Photos are [batch_size, image_size, image_size, 3] uint8, style weights [batch_size, S] float32.
    A step whose loss or gradient is not finite changes nothing; its losses tell.
    """
    styles = len(objective.style_weights)

    @tf.function(
        input_signature=[
            tf.TensorSpec([batch_size, image_size, image_size, 3], tf.uint8),
            tf.TensorSpec([batch_size, styles], tf.float32),
        ],
        autograph=False,
    )
    def train_step(photos: tf.Tensor, style_weights: tf.Tensor):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(state.weights)
            styled = transform(arch, state.weights, photos, style_weights, dtype=precision)
            losses = objective.score(styled, photos, style_weights)
        gradients: dict[str, Any] = tape.gradient(losses[tags.TOTAL], state.weights)
        norm = tf.linalg.global_norm(list(gradients.values()))

        def update() -> tf.Operation:
            with tf.control_dependencies(state.apply_adam(gradients, learning_rate)):
                return tf.no_op()

        finite = tf.math.is_finite(losses[tags.TOTAL]) & tf.math.is_finite(norm)
        tf.cond(finite, update, tf.no_op)
        return {**losses, tags.GRADIENT_NORM: norm}, styled

    return train_step


def make_score(state: TrainState, objective: Objective, *, arch: str, precision: str) -> Any:
    """Returns a compiled function (photo [1, H, W, 3] uint8, style weights [1, S]) -> losses."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([1, None, None, 3], tf.uint8),
            tf.TensorSpec([1, len(objective.style_weights)], tf.float32),
        ],
        autograph=False,
    )
    def score(photos: tf.Tensor, style_weights: tf.Tensor):
        styled = transform(arch, state.weights, photos, style_weights, dtype=precision)
        return objective.score(styled, photos, style_weights)

    return score


def style_choice(seed: int, step: int, batch_size: int, styles: int) -> np.ndarray:
    """Returns which style each picture of a step is trained for: a pure function of its arguments.

    Returns:
      [batch_size, styles] float32, one 1 per row.
    """
    rng = np.random.default_rng([seed, step, 0x5717E])
    return np.eye(styles, dtype=np.float32)[rng.integers(styles, size=batch_size)]
