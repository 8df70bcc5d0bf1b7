"""The graphs that tiles run through: what is computed of each tile in one pass over a picture.

A graph is traced when first used, once for all sizes, and knows its weights as constants.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import tensorflow as tf

from fast_style.layers import moments, normalize, tanh_pixels
from fast_style.stages import (
    Element,
    NetStages,
    Residual,
    Stage,
    apply_elements,
    channels,
    finish,
    take,
)
from fast_style.transform_net import RGB_MEANS, Weights


@dataclass(frozen=True)
class Pass:
    """What is computed of every tile.

    Attributes:
      kind: Of the source.
      pending: Of the source.
      elements: From the source to what is computed.
      gives: The output: its statistics, the map (and its statistics, if it has a norm), or pixels.
      keep: Whether the source's own part is given too, in the second place.
    """

    kind: str
    pending: Stage | None
    elements: tuple[Element, ...]
    gives: Literal["statistics", "map", "pixels"]
    keep: bool = False


class TileGraphs:
    """The compiled passes of one net."""

    def __init__(self, net: NetStages, weights: Weights, dtype: tf.DType) -> None:
        """Traces nothing yet.

        Args:
          net: Its stages.
          weights: Its weights.
          dtype: Of features.
        """
        self._net = net
        self._weights = weights
        self._dtype = dtype
        self._passes: dict[Pass, Any] = {}
        self._survey: Any = None

    def of(self, step: Pass) -> Any:
        """Returns the compiled pass: (values, takes, norms) -> outputs."""
        if step not in self._passes:
            self._passes[step] = self._traced(step)
        return self._passes[step]

    def of_thumbnail(self) -> Any:
        """Returns the compiled (picture, takes, scales and offsets) -> means and variances."""
        if self._survey is None:
            self._survey = self._traced_survey()
        return self._survey

    def needed(self, step: Pass) -> list[Stage]:
        """The stages whose norms a pass applies, in order."""
        pending = [step.pending] if step.pending is not None else []
        stages = self.normed(step.elements, biased=step.gives == "pixels")
        if step.gives != "pixels" and measured(step.elements[-1]):
            stages = stages[:-1]
        return pending + stages

    def normed(self, elements: Sequence[Element], *, biased: bool = False) -> list[Stage]:
        """The stages with an instance norm, or also those with a bias, in order."""
        stages = itertools.chain.from_iterable(
            element.stages if isinstance(element, Residual) else (element,) for element in elements
        )
        return [stage for stage in stages if stage.norm == "instance" or (biased and stage.norm)]

    def _traced(self, step: Pass) -> Any:
        needed = self.needed(step)
        count = 1 + (step.kind == "sum")
        depth = channels(self._net.front[-1], self._weights)
        value = (
            tf.TensorSpec([1, None, None, 3], tf.float32)
            if step.kind == "picture"
            else tf.TensorSpec([1, None, None, depth], self._dtype)
        )
        index = tf.TensorSpec([None], tf.int32)
        signature = [
            [value] * count,
            [(index, index)] * (_convolutions(step.elements) + step.keep),
            [self._vectors(stage, 3) for stage in needed],
        ]

        @tf.function(input_signature=signature, autograph=False)
        def run(values: list, takes: list, norms: list) -> list:
            weights = {name: tf.constant(value) for name, value in self._weights.items()}
            known = dict(zip(needed, norms, strict=True))

            def norm(x: tf.Tensor, stage: Stage) -> tf.Tensor:
                return normalize(x, *known[stage])

            x = values[0]
            if step.kind == "picture":
                x = tf.cast(x - RGB_MEANS, self._dtype)
            if step.pending is not None:
                pending = finish(values[-1], step.pending, norm)
                x = x + pending if step.kind == "sum" else pending
            y = apply_elements(x, step.elements, weights, takes, norm)
            last = step.elements[-1]
            if step.gives == "pixels":
                assert isinstance(last, Stage)
                return [tanh_pixels(tf.nn.depth_to_space(finish(y, last, norm), 2))]
            outputs = [y] if step.gives == "map" else []
            if step.keep:
                outputs.append(take(x, takes[-1]))
            if measured(last):
                outputs += _plain_moments(y, last, weights)
            return outputs

        return run

    def _traced_survey(self) -> Any:
        elements = self._net.elements
        stages = self.normed(elements)
        index = tf.TensorSpec([None], tf.int32)
        signature = [
            tf.TensorSpec([1, None, None, 3], tf.float32),
            [(index, index)] * _convolutions(elements),
            [self._vectors(stage, 2) for stage in stages],
        ]

        @tf.function(input_signature=signature, autograph=False)
        def run(pixels: tf.Tensor, takes: list, affine: list) -> list:
            weights = {name: tf.constant(value) for name, value in self._weights.items()}
            known = dict(zip(stages, affine, strict=True))
            found = []

            def norm(x: tf.Tensor, stage: Stage) -> tf.Tensor:
                mean, variance = moments(x)
                found.append((mean, variance))
                scale, offset = known[stage]
                gain = scale * tf.math.rsqrt(variance + self._net.epsilon)
                return normalize(x, mean, gain, offset)

            x = tf.cast(pixels - RGB_MEANS, self._dtype)
            y = apply_elements(x, elements, weights, takes, norm)
            if measured(elements[-1]):
                found.append(_plain_moments(y, elements[-1], weights))
            return found

        return run

    def _vectors(self, stage: Stage, count: int) -> tuple[tf.TensorSpec, ...]:
        return (tf.TensorSpec([channels(stage, self._weights)], tf.float32),) * count


def measured(element: Element) -> bool:
    """Whether the element leaves a norm whose statistics have to be gathered."""
    return isinstance(element, Stage) and element.norm == "instance"


def _convolutions(elements: Sequence[Element]) -> int:
    """How many positions to take `plan_axis` gives: one per convolution, one more per block."""
    return sum(len(e.stages) + 1 if isinstance(e, Residual) else 1 for e in elements)


def _plain_moments(y: tf.Tensor, element: Element, weights: Weights) -> tuple[tf.Tensor, ...]:
    """The moments of a map in either layout."""
    assert isinstance(element, Stage)
    return moments(tf.reshape(y, [1, 1, -1, channels(element, weights)]))
