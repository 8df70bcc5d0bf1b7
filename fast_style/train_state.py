"""What training changes, and one step of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from fast_style import hardware
from fast_style import objective as tags
from fast_style.checkpoints import FIRST_MOMENT, SECOND_MOMENT, STEP, tensor_problems
from fast_style.consistency import consistency_loss
from fast_style.errors import ModelError
from fast_style.learning_rate import learning_rate_at
from fast_style.losses import border_loss, grid_loss
from fast_style.objective import Scorer
from fast_style.optimizers import BETA_2, Slot, adam, beta_powers, muon
from fast_style.replicas import Replicas
from fast_style.transform_net import architecture, transform

_STEPS_BEFORE_CLIPPING = 10  # So many are needed to know what is usual.


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
        # The share of the run that is over, where steps do not tell. No checkpoint has it.
        self.passed = tf.Variable(tf.constant(0.0))

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

    def restart(self, weights: Mapping[str, np.ndarray]) -> None:
        """Takes over weights, and forgets the moments."""
        for name, value in self.weights.items():
            value.assign(weights[name])
            self.first[name].assign(tf.zeros_like(value))
            self.second[name].assign(tf.zeros_like(value))

    def is_finite(self) -> bool:
        """Whether every weight and moment is a finite number."""
        return all(np.isfinite(value.numpy()).all() for value in self.tensors().values())

    def usual_norms(self) -> tf.Tensor:
        """Returns the root mean square of each weight's gradient norms so far, [W] float32.

        From Adam's second moments without their bias; 0 before the first step.
        """
        sums = tf.stack([tf.reduce_sum(self.second[name]) for name in self.weights])
        seen = 1.0 - tf.pow(BETA_2, tf.cast(tf.maximum(self.step, 1), tf.float32))
        return tf.sqrt(sums / seen)

    def count_step(self) -> tf.Tensor:
        """Counts a step, and returns how many there are now; for use inside a graph."""
        # By the handle, which is that of the device that computes: `assign_add` takes its value
        # for a part of what all devices together are to add.
        one = tf.constant(1, tf.int64)
        with tf.control_dependencies(
            [tf.raw_ops.AssignAddVariableOp(resource=self.step.handle, value=one)]
        ):
            return tf.raw_ops.ReadVariableOp(resource=self.step.handle, dtype=tf.int64)

    def update(
        self,
        gradients: Mapping[str, tf.Tensor],
        learning_rates: Mapping[str, Any],
        by_muon: Collection[str] = (),
    ) -> list[tf.Operation]:
        """Updates weights and moments, and counts the step; for use inside a graph.

        Args:
          gradients: {weight name: gradient}.
          learning_rates: {weight name: learning rate}, numbers or scalar tensors.
          by_muon: The weights that Muon updates; Adam does the others.

        Returns:
          The operations that do it.
        """
        powers = beta_powers(tf.cast(self.count_step(), tf.float32))
        done = []
        for name, gradient in gradients.items():
            slot = Slot(self.weights[name], self.first[name], self.second[name])
            if name in by_muon:
                done.append(muon(slot, gradient, learning_rates[name]))
            else:
                done.append(adam(slot, gradient, learning_rates[name], powers))
        return done


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """How a training step computes and learns; most are keys of a run's configuration.

    Attributes:
      arch: The transform net's architecture.
      precision: What the nets compute in.
      image_size: Side of the photos in px.
      learning_rate: At its highest; see `learning_rate_at`.
      norm_learning_rate: The same for what each style has of its own; none: `learning_rate`.
      optimizer: 'adam', or 'muon': the kernels that the architecture names are updated by Muon,
        the rest by Adam.
      warmup_steps: See `learning_rate_at`.
      learning_rate_schedule: See `learning_rate_at`.
      decay_steps: See `learning_rate_at`; none: the learning rate falls with `TrainState.passed`.
      gradient_clip: Longest gradient of each weight, in multiples of what is usual; none: no limit.
      consistency_weight: Weight of the consistency loss; 0: it is not computed.
      grid_weight: Weight of the grid loss; 0: it is not computed.
      border_weight: Weight of the border loss; 0: it is not computed.
      seed: Of the consistency loss's noise.
      xla: Compile everything but the update of the weights with XLA.
    """

    arch: str
    precision: str
    image_size: int
    learning_rate: float
    norm_learning_rate: float | None = None
    optimizer: str = "adam"
    warmup_steps: int = 0
    learning_rate_schedule: str = "constant"
    decay_steps: int | None = None
    gradient_clip: float | None = None
    consistency_weight: float = 0.0
    grid_weight: float = 0.0
    border_weight: float = 0.0
    seed: int = 0
    xla: bool = False


def make_train_step(
    state: TrainState,
    objective: Scorer,
    settings: StepSettings,
    *,
    batch_size: int,
) -> Any:
    """Returns the compiled step: (photos, style weights) -> (losses, styled pictures, gradients).

    Photos are [batch_size, image_size, image_size, 3] uint8, style weights [batch_size, S] float32.
    Of the gradients it returns half the squared norm for each weight, [W] in the order of
    `state.weights`. A step whose loss or gradient is not finite is counted and changes nothing
    else; its losses tell.

    With `gradient_clip`, the gradient of each weight is shortened to that many times its usual
    norm where it is longer. Adam's second moment, a mean over a thousand steps, does not see an
    outlier coming: one photo whose gradient is ten times the usual moves the weights ten times as
    far, again and again while the first moment remembers it, and a net can take hundreds of steps
    to recover. The norm reported is that before.

    With `consistency_weight`, the loss has the consistency of the net's answers as one more term,
    whose noise is a function of `seed` and the step; with `grid_weight`, what `losses.grid_loss`
    says of them; with `border_weight`, what `losses.border_loss` says of them and the photos.
    Without, the terms are not computed.

    With `xla`, everything but the update of the weights is compiled by XLA, whose noise for the
    consistency loss is another.
    """
    styles = np.shape(objective.style_weights)[0]
    side = settings.image_size
    compute, learn = _computation(state, objective, settings), _learning(state, settings)

    @tf.function(
        input_signature=[
            tf.TensorSpec([batch_size, side, side, 3], tf.uint8),
            tf.TensorSpec([batch_size, styles], tf.float32),
        ],
        autograph=False,
    )
    def train_step(photos: tf.Tensor, style_weights: tf.Tensor):
        losses, styled, gradients = compute(photos, style_weights)
        reported, halves = learn(losses, gradients)
        return {**losses, **reported}, styled, halves

    return train_step


def make_replicated_step(
    replicas: Replicas,
    state: TrainState,
    objective: Scorer,
    settings: StepSettings,
) -> Any:
    """Returns `make_train_step`'s step for several devices: each computes its share of a batch.

    Losses and gradients are the means over all devices, before anything else is done with them, so
    that a step is that of one device with the whole batch, but for the order of sums.

    Args:
      replicas: The devices.
      state: Created in their scope.
      objective: As for one device.
      settings: As for one device.

    Returns:
      (photos, style weights, word) -> (losses, styled pictures, gradients, words). Photos and style
      weights are this process's rows of the batch; the styled pictures are those of its first
      device. Of a word, one float32 from each process, all processes get all, [processes].
    """
    styles = np.shape(objective.style_weights)[0]
    side = settings.image_size
    compute, learn = _computation(state, objective, settings), _learning(state, settings)
    rows, size = len(replicas.rows), replicas.cluster.size
    share = rows // replicas.local

    def one(photos: tf.Tensor, style_weights: tf.Tensor, word: tf.Tensor):
        first = replicas.place() * share
        losses, styled, gradients = compute(
            photos[first : first + share],
            style_weights[first : first + share],
            (replicas.rows.start + first, share * replicas.count),
        )
        words = word * tf.one_hot(replicas.cluster.index, size)
        # One transfer for everything: what many small ones cost is waiting.
        parts = [*gradients.values(), *losses.values(), words]
        shapes = [part.shape for part in parts]
        total = tf.distribute.get_replica_context().all_reduce(
            tf.distribute.ReduceOp.SUM, tf.concat([tf.reshape(part, [-1]) for part in parts], 0)
        )
        *sums, words = [
            tf.reshape(part, shape)
            for part, shape in zip(
                tf.split(total, [shape.num_elements() for shape in shapes]), shapes, strict=True
            )
        ]
        means = [part / replicas.count for part in sums]
        gradients = dict(zip(gradients, means, strict=False))
        losses = dict(zip(losses, means[len(gradients) :], strict=True))
        reported, halves = learn(losses, gradients)
        return {**losses, **reported}, styled, halves, words / replicas.local

    @tf.function(
        input_signature=[
            tf.TensorSpec([rows, side, side, 3], tf.uint8),
            tf.TensorSpec([rows, styles], tf.float32),
            tf.TensorSpec([], tf.float32),
        ],
        autograph=False,
    )
    def train_step(photos: tf.Tensor, style_weights: tf.Tensor, word: tf.Tensor):
        return replicas.first(replicas.strategy.run(one, args=(photos, style_weights, word)))

    return train_step


def _computation(state: TrainState, objective: Scorer, settings: StepSettings) -> Any:
    """Returns the first half of a step, for use inside a graph.

    (photos, style weights, place) -> (losses, styled pictures, gradients). The place is that of the
    photos in the batch and the size of the whole batch, for what is drawn at random; none: they are
    the batch.
    """

    def compute(photos: tf.Tensor, style_weights: tf.Tensor, place: Any = None):
        def stylize(pictures: tf.Tensor) -> tf.Tensor:
            return transform(
                settings.arch, state.weights, pictures, style_weights, dtype=settings.precision
            )

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(state.weights)
            styled = stylize(photos)
            losses = objective.score(styled, photos, style_weights)

            def add(tag: str, weighted_tag: str, weight: float, term: tf.Tensor) -> None:
                losses[tag] = term
                losses[weighted_tag] = weight * term
                losses[tags.TOTAL] += losses[weighted_tag]

            if weight := settings.consistency_weight:
                drawn = tf.stack([tf.constant(settings.seed % 2**63, tf.int64), state.step])
                term = consistency_loss(stylize, photos, styled, drawn, place)
                add(tags.CONSISTENCY, tags.WEIGHTED_CONSISTENCY, weight, term)
            if weight := settings.grid_weight:
                add(tags.GRID, tags.WEIGHTED_GRID, weight, grid_loss(styled))
            if weight := settings.border_weight:
                add(tags.BORDER, tags.WEIGHTED_BORDER, weight, border_loss(styled, photos))
        gradients: dict[str, Any] = tape.gradient(losses[tags.TOTAL], state.weights)
        return losses, styled, gradients

    if settings.xla:

        def compiled(photos: tf.Tensor, style_weights: tf.Tensor, place: Any = None):
            with hardware.portable():  # XLA chooses how to convolve.
                return compute(photos, style_weights, place)

        return tf.function(compiled, autograph=False, jit_compile=True)
    return compute


def _learning(state: TrainState, settings: StepSettings) -> Any:
    """Returns the second half of a step, for use inside a graph.

    (losses, gradients) -> (learning rate and norm of all gradients by tag, half the squared norm of
    each gradient); changes the state.
    """
    net, gradient_clip = architecture(settings.arch), settings.gradient_clip
    muons = settings.optimizer == "muon"
    by_muon = [name for name in state.weights if muons and net.inner_kernel(name)]
    # By whether each style has its own.
    peaks = {False: settings.learning_rate, True: settings.learning_rate}
    if settings.norm_learning_rate is not None:
        peaks[True] = settings.norm_learning_rate

    def learn(losses: Mapping[str, tf.Tensor], gradients: Mapping[str, tf.Tensor]):
        halves = tf.stack([tf.nn.l2_loss(gradient) for gradient in gradients.values()])
        norm = tf.sqrt(2.0 * tf.reduce_sum(halves))
        now = {
            of_style: learning_rate_at(
                state.step,
                peak=peak,
                warmup_steps=settings.warmup_steps,
                decay_steps=settings.decay_steps,
                passed=state.passed if settings.decay_steps is None else None,
                schedule=settings.learning_rate_schedule,
            )
            for of_style, peak in peaks.items()
        }
        rates = {name: now[net.of_style(name)] * net.learning_rate(name) for name in state.weights}

        def update() -> tf.Operation:
            applied = gradients if gradient_clip is None else clipped(gradient_clip)
            with tf.control_dependencies(state.update(applied, rates, by_muon)):
                return tf.no_op()

        def clipped(multiple: float) -> dict[str, tf.Tensor]:
            limits = multiple * state.usual_norms()
            known = (limits > 0.0) & (state.step >= _STEPS_BEFORE_CLIPPING)
            longest = tf.where(known, limits, float("inf"))
            scales = tf.minimum(1.0, longest / tf.sqrt(2.0 * halves))
            return {
                name: scale * gradient
                for scale, (name, gradient) in zip(
                    tf.unstack(scales), gradients.items(), strict=True
                )
            }

        def skip() -> tf.Operation:
            with tf.control_dependencies([state.count_step()]):
                return tf.no_op()

        finite = tf.math.is_finite(losses[tags.TOTAL]) & tf.math.is_finite(norm)
        tf.cond(finite, update, skip)
        return {tags.LEARNING_RATE: now[False], tags.GRADIENT_NORM: norm}, halves

    return learn


def make_score(state: TrainState, objective: Scorer, *, arch: str, precision: str) -> Any:
    """Returns a compiled function (photo [1, H, W, 3] uint8, style weights [1, S]) -> losses."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([1, None, None, 3], tf.uint8),
            tf.TensorSpec([1, np.shape(objective.style_weights)[0]], tf.float32),
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
