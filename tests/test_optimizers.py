"""Muon against an independent float64 NumPy formulation, and its properties."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from fast_style.optimizers import orthogonalized
from fast_style.train_state import TrainState
from fast_style.transform_net import architecture, init_weights

SHAPES = [(72, 8), (8, 8), (12, 40), (1, 6)]


def newton_schulz(matrix: np.ndarray) -> np.ndarray:
    """The iteration as it is published, on the whole matrix, in float64."""
    x = matrix.astype(np.float64)
    x = x / np.linalg.norm(x)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


def polar(matrix: np.ndarray) -> np.ndarray:
    """The nearest matrix with orthonormal rows or columns."""
    left, _, right = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    return left @ right


@pytest.mark.parametrize("shape", SHAPES)
def test_orthogonalized_is_the_published_iteration(shape: tuple[int, int]) -> None:
    matrix = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    found = orthogonalized(tf.constant(matrix)).numpy()
    np.testing.assert_allclose(found, newton_schulz(matrix), rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_orthogonalized_keeps_singular_vectors_and_evens_out_singular_values(scale: float) -> None:
    rng = np.random.default_rng(1)
    left, _ = np.linalg.qr(rng.standard_normal((90, 12)))
    right, _ = np.linalg.qr(rng.standard_normal((12, 12)))
    values = scale * np.geomspace(1.0, 0.01, 12)
    found = orthogonalized(tf.constant((left * values) @ right.T, tf.float32)).numpy()
    seen = left.T @ found @ right  # Diagonal, if the singular vectors are the same.
    assert np.abs(seen - np.diag(np.diag(seen))).max() < 0.01
    assert 0.65 < np.diag(seen).min() <= np.diag(seen).max() < 1.2


def test_nothing_comes_of_no_gradient() -> None:
    np.testing.assert_array_equal(orthogonalized(tf.zeros([9, 4])).numpy(), np.zeros([9, 4]))


def test_muon_equals_the_formula_in_float64() -> None:
    """Jordan et al. (2024): momentum, Nesterov's look ahead, and the same length every time."""
    rng = np.random.default_rng(0)
    start = rng.standard_normal((3, 3, 4, 8)).astype(np.float32)
    gradients = [rng.standard_normal(start.shape).astype(np.float32) * s for s in (1.0, 100.0, 0.1)]
    state = TrainState({"w": start})

    @tf.function(input_signature=[tf.TensorSpec(start.shape, tf.float32)], autograph=False)
    def update(gradient: tf.Tensor) -> tf.Tensor:
        with tf.control_dependencies(state.update({"w": gradient}, {"w": 0.01}, ["w"])):
            return tf.constant(0)

    weight = start.astype(np.float64)
    first, second = np.zeros_like(weight), np.zeros_like(weight)
    for step, gradient in enumerate(gradients, start=1):
        update(tf.constant(gradient))
        gradient = gradient.astype(np.float64)
        first = 0.95 * first + 0.05 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        ahead = (0.95 * first + 0.05 * gradient).reshape(36, 8)
        weight = weight - 0.01 * np.sqrt(36) * newton_schulz(ahead).reshape(start.shape)
        np.testing.assert_allclose(state.weights["w"].numpy(), weight, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(state.first["w"].numpy(), first, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(state.second["w"].numpy(), second, rtol=1e-5)
        assert int(state.step.numpy()) == step


def test_muon_moves_a_kernel_by_about_the_learning_rate() -> None:
    for shape in ((3, 3, 16, 16), (9, 9, 3, 32), (3, 3, 2, 64)):
        state = TrainState({"w": np.zeros(shape, np.float32)})
        gradient = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
        state.update({"w": tf.constant(gradient)}, {"w": 0.5}, ["w"])
        moved = np.sqrt(np.mean(np.square(state.weights["w"].numpy())))
        assert 0.4 < moved < 0.6, shape


def test_the_nearest_orthonormal_matrix_points_the_same_way() -> None:
    matrix = np.random.default_rng(3).standard_normal((72, 8)).astype(np.float32)
    found, nearest = orthogonalized(tf.constant(matrix)).numpy(), polar(matrix)
    likeness = np.sum(found * nearest) / np.linalg.norm(found) / np.linalg.norm(nearest)
    assert likeness > 0.97


@pytest.mark.parametrize(
    ("arch", "others"),
    [("johnson", {"out/weight"}), ("slim2016", {"deconv3/conv/weight"})],
)
def test_muon_is_for_all_kernels_but_the_last(arch: str, others: set[str]) -> None:
    weights = init_weights(arch, width=1.0)
    kernels = {name for name, value in weights.items() if value.ndim == 4}
    chosen = {name for name in weights if architecture(arch).inner_kernel(name)}
    assert chosen == kernels - others
