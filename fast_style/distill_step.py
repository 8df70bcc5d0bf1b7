"""One step of distillation: how far a mini network is from its teacher, and an update of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from fast_style.distill_data import Scene
from fast_style.errors import FastStyleError
from fast_style.learning_rate import learning_rate_at
from fast_style.loss_net import LossNetwork
from fast_style.losses import gram_matrix
from fast_style.mini_net import mini_features, variable
from fast_style.train_state import TrainState

FEATURES = "features"
GRAMS = "grams"
DIFFERENCES = "differences"
TOTAL = "total"

_WARM_UP = 100  # steps
_LAST_RATE = 0.02  # Of the first.
_RAMP = 0.1  # Of all steps.
_FLOOR = 0.01
_GRADIENT = "gradient"


def make_distill_step(
    state: TrainState,
    teacher: LossNetwork,
    taps: Sequence[str],
    scales: Mapping[str, float],
    *,
    content_tap: str,
    learning_rate: float,
    gram_weight: float,
    steps: int,
    dtype: str,
) -> Callable[[Scene], tuple[dict[str, float], np.ndarray]]:
    """Returns the function that takes a step.

    With T the teacher's features of a layer divided by their scale s, F those of the mini network
    and Q its map, both Gram matrices and features count relative to their size, picture by picture:

        features     ||T - F Q'||^2 / (||T||^2 / 2 + mean ||T||^2 / 2)
        grams        ||G_T - G||^2 / ||G_T||^2, where G = Q G_F Q' is the Gram matrix of F Q'
        differences  ||D_T - D||^2 / (||D_T||^2 + 0.01 ||G_T(style)||^2), where D = G(styled) -
                     G(style), whose length is the teacher's style loss; the hundredth keeps
                     pictures that have their style already from counting more than all others
        total        features + r gram_weight (grams + differences)

    Each is a mean over pictures, or pairs of a picture and its style, and a sum over layers; r
    rises from 0 to 1 over the first tenth of the steps. The learning rate is warmed up over 100
    steps and falls to a fiftieth along a cosine; a gradient longer than 1 is shortened to 1.

    What the styled pictures of the studio are optimized for, the mini network's verdict, is the
    teacher's loss of each as that network sees it, with H W C the size of the teacher's features:

        w sum over layers ||s^2 D||^2 / (H W C) + ||s (F - F_photo) Q'||^2 / (H W C), of content_tap

    Args:
      state: `mini_net` variables and, under 'map', Q of each tap, from features to the teacher's
        divided by their scale.
      teacher: The teacher, built for the taps by their full names.
      taps: Such as 'conv3/conv3_3'.
      scales: {tap: root mean square of the teacher's features}.
      content_tap: Where pictures of the studio are compared with their photos.
      learning_rate: Adam's, the highest of a warm-up and a cosine decay.
      gram_weight: Weight of the grams and differences beside the features.
      steps: Of the whole run.
      dtype: What the mini network computes in.

    Returns:
      A function of a scene that updates the state and returns the losses, and the gradient of the
      verdict by the scene's styled pictures. It raises a FastStyleError that names the step and the
      terms if a loss, or the gradient of their total, is not finite; the state is then of no use.
    """

    @tf.function(autograph=False, reduce_retracing=True)
    def step(
        styled: tf.Tensor,
        styles: tf.Tensor,
        others: tf.Tensor,
        photos: tf.Tensor,
        style_weights: tf.Tensor,
    ):
        count = tf.shape(styled)[0]
        names = dict(zip(taps, teacher.layers, strict=True))
        pictures = tf.concat([styled, styles, others], 0)
        truth = teacher(pictures)
        kept = {layer: tf.stop_gradient(value) for layer, value in state.weights.items()}
        photo_features = mini_features(kept, photos, [content_tap], dtype)[content_tap]
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(state.weights)
            tape.watch(styled)
            all_pictures = tf.concat([styled, styles, others], 0)
            features = mini_features(state.weights, all_pictures, taps, dtype)
            losses: dict[str, Any] = {FEATURES: 0.0, GRAMS: 0.0, DIFFERENCES: 0.0}
            verdict = tf.zeros([])
            for tap in taps:
                scale = scales[tap]
                exact = tf.cast(truth[names[tap]], tf.float32) / scale
                to_teacher = int(features[tap].shape[3]) / int(exact.shape[3])  # type: ignore[arg-type]
                teacher_map = state.weights[variable(tap, "map")]
                own = features[tap]
                guess = tf.cast(
                    tf.tensordot(own, tf.cast(teacher_map, own.dtype), [[3], [1]]), tf.float32
                )
                error = tf.reduce_mean(tf.square(guess - exact), [1, 2, 3])
                power = tf.reduce_mean(tf.square(exact), [1, 2, 3])
                near = error / (0.5 * power + 0.5 * tf.reduce_mean(power))
                losses[FEATURES] += tf.reduce_mean(near)
                # Divided by the same number of channels, c; the ratio is all that counts.
                own_gram = gram_matrix(own)
                exact_gram = gram_matrix(exact) / to_teacher
                guess_gram = tf.matmul(
                    tf.matmul(teacher_map, own_gram), teacher_map, transpose_b=True
                )
                wrong = _squares(guess_gram - exact_gram)
                losses[GRAMS] += tf.reduce_mean(wrong / _squares(exact_gram))
                difference = exact_gram[:count] - exact_gram[count : 2 * count]
                guessed = guess_gram[:count] - guess_gram[count : 2 * count]
                floor = _FLOOR * _squares(exact_gram[count : 2 * count])
                losses[DIFFERENCES] += tf.reduce_mean(
                    _squares(guessed - difference) / (_squares(difference) + floor)
                )
                # What the studio's pictures are optimized for, on the teacher's scale.
                size = tf.cast(tf.size(own[0]), tf.float32)
                apart = tf.stop_gradient(guess_gram[count : 2 * count]) - guess_gram[:count]
                gram_scale = scale**2 * to_teacher
                style = _squares(apart) * gram_scale**2 / (size / to_teacher)
                verdict += tf.reduce_sum(style * style_weights)
                if tap == content_tap:
                    delta = tf.cast(own[:count] - photo_features, tf.float32)
                    moved = tf.tensordot(delta, teacher_map, [[3], [1]]) * scale
                    verdict += tf.reduce_sum(tf.reduce_mean(tf.square(moved), [1, 2, 3]))
            ramp = tf.minimum(1.0, tf.cast(state.step, tf.float32) / (_RAMP * steps))
            losses[TOTAL] = losses[FEATURES] + gram_weight * ramp * (
                losses[GRAMS] + losses[DIFFERENCES]
            )
        gradients: dict[str, Any] = tape.gradient(losses[TOTAL], state.weights)
        picture_gradient = tape.gradient(verdict, styled)
        norm = tf.linalg.global_norm(list(gradients.values()))
        gradients = {
            name: gradient * tf.minimum(1.0, 1.0 / norm) for name, gradient in gradients.items()
        }
        rate = learning_rate_at(
            state.step,
            peak=learning_rate,
            warmup_steps=_WARM_UP,
            decay_steps=steps,
            last=_LAST_RATE,
        )
        with tf.control_dependencies(state.update(gradients, dict.fromkeys(gradients, rate))):
            found = {tag: tf.identity(value) for tag, value in (losses | {_GRADIENT: norm}).items()}
            return found, picture_gradient

    def take(scene: Scene) -> tuple[dict[str, float], np.ndarray]:
        found, gradient = step(
            *map(
                tf.constant,
                (scene.styled, scene.styles, scene.others, scene.photos, scene.style_weights),
            )
        )
        losses = {tag: float(value) for tag, value in found.items()}
        if broken := [tag for tag, value in losses.items() if not np.isfinite(value)]:
            raise FastStyleError(
                f"step {int(state.step)}: not a finite number: {', '.join(broken)}; distillation "
                "stopped and nothing since the last checkpoint was saved. Start over with --fresh "
                "and a lower learning_rate; or set precision: float32, and the same command goes "
                "on from the last checkpoint, if there is one"
            )
        del losses[_GRADIENT]
        return losses, gradient.numpy()

    return take


def _squares(matrices: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.square(matrices), [1, 2])
