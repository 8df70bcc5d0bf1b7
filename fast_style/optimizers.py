"""How weights follow their gradients: Adam, and Muon for the kernels inside a net.

Both move a weight by about the learning rate in root mean square, whatever the length of its
gradient, so one learning rate serves both. Everything here is for use inside a graph.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

# Adam as in Kingma & Ba (2015) with TensorFlow's defaults of 2016.
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8

# Muon as in Jordan et al. (2024), "Muon: An optimizer for hidden layers in neural networks".
MOMENTUM = 0.95
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_LEAST_NORM = 1e-30  # So that zeros are not divided by zero.


@dataclass(frozen=True)
class Slot:
    """A weight and what is kept of its gradients, variables of one shape.

    Attributes:
      weight: The weight.
      first: Running mean of its gradients.
      second: Running mean of their squares, with `BETA_2`.
    """

    weight: tf.Variable
    first: tf.Variable
    second: tf.Variable


def beta_powers(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns Adam's decay rates to the power of a step's number, from 1, a float32 scalar."""
    return tf.pow(BETA_1, step), tf.pow(BETA_2, step)


def adam(
    slot: Slot, gradient: tf.Tensor, rate: Any, powers: tuple[tf.Tensor, tf.Tensor]
) -> tf.Operation:
    """Returns the update of a weight by Adam.

    Args:
      slot: The weight.
      gradient: Of the weight's shape.
      rate: The learning rate, a number or a scalar tensor.
      powers: `beta_powers` of this step, the same for all weights.
    """
    return tf.raw_ops.ResourceApplyAdam(
        var=slot.weight.handle,
        m=slot.first.handle,
        v=slot.second.handle,
        beta1_power=powers[0],
        beta2_power=powers[1],
        lr=rate,
        beta1=BETA_1,
        beta2=BETA_2,
        epsilon=EPSILON,
        grad=gradient,
    )


def muon(slot: Slot, gradient: tf.Tensor, rate: Any) -> tf.Operation:
    """Returns the update of a convolution's kernel by Muon.

    The mean of gradients, with Nesterov's look ahead, is a matrix [inputs of one output, outputs];
    the kernel moves along the nearest matrix with orthonormal columns. So directions that few
    pictures ask for are learned as fast as those that all do, where Adam, which looks at each
    number alone, follows the few that dominate.

    Args:
      slot: A kernel [height, width, inputs, outputs]. The mean of squared gradients is kept too,
        for those who ask what is usual.
      gradient: Of the kernel's shape.
      rate: The learning rate, a number or a scalar tensor.
    """
    first = MOMENTUM * _read(slot.first) + (1.0 - MOMENTUM) * gradient
    second = BETA_2 * _read(slot.second) + (1.0 - BETA_2) * tf.square(gradient)
    ahead = MOMENTUM * first + (1.0 - MOMENTUM) * gradient
    outputs = gradient.shape[-1]
    inputs = gradient.shape.num_elements() // outputs
    # Orthonormal columns have a root mean square of 1 / sqrt(the larger side).
    moved = math.sqrt(max(inputs, outputs)) * orthogonalized(tf.reshape(ahead, [inputs, outputs]))
    weight = _read(slot.weight) - rate * tf.reshape(moved, gradient.shape)
    return tf.group(
        _write(slot.first, first), _write(slot.second, second), _write(slot.weight, weight)
    )


def orthogonalized(matrix: tf.Tensor) -> tf.Tensor:
    """Returns about the nearest matrix with orthonormal columns, or rows where there are fewer.

    Newton-Schulz iterations X <- aX + bX X'X + cX (X'X)^2 with the coefficients of Jordan et al.,
    which bring singular values from 0.001 of the matrix's norm or more to between 0.68 and 1.14 and
    leave singular vectors alone; exactness would not be worth its price. As X keeps its singular
    vectors, all X'X commute, and the large X is multiplied only once, with the product of all
    polynomials.

    Args:
      matrix: [R, C] float32. Zeros give zeros.

    Returns:
      [R, C] float32.
    """
    rows, columns = matrix.shape
    assert rows is not None and columns is not None
    if rows < columns:
        return tf.transpose(orthogonalized(tf.transpose(matrix)))
    a, b, c = _QUINTIC
    x = matrix / tf.maximum(tf.norm(matrix), _LEAST_NORM)
    one = tf.eye(columns)
    gram, product = tf.matmul(x, x, transpose_a=True), one
    for _ in range(_ITERATIONS):
        factor = a * one + b * gram + c * tf.matmul(gram, gram)
        product = tf.matmul(product, factor)
        gram = tf.matmul(factor, tf.matmul(gram, factor))
    return tf.matmul(x, product)


# By the handles, which are those of the device that computes: a variable of several devices takes
# an assignment for a part of what all of them together are to do.


def _read(variable: tf.Variable) -> tf.Tensor:
    value = tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=tf.float32)
    return tf.ensure_shape(value, variable.shape)


def _write(variable: tf.Variable, value: tf.Tensor) -> tf.Operation:
    return tf.raw_ops.AssignVariableOp(resource=variable.handle, value=value)
