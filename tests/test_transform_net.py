from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import reference
import tensorflow as tf

from fast_style import config, transform_net

SIZES = [(16, 16), (17, 23), (18, 30), (33, 20), (35, 19)]


def photos(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth random pictures, uint8: noise alone would hide errors of position."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (count, height // 4 + 2, width // 4 + 2, 3))
    fine = reference.enlarge(coarse, 4)[:, :height, :width]
    return np.clip(fine + rng.normal(0, 10, fine.shape), 0, 255).astype(np.uint8)


def perturbed(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Scales and offsets away from their initial 1 and 0; pictures that are not grey."""
    rng = np.random.default_rng(5)
    weights = {
        name: (value + 0.1 * rng.standard_normal(value.shape)).astype(np.float32)
        if value.ndim == 2
        else value
        for name, value in weights.items()
    }
    return {**weights, "out/weight": 10.0 * weights["out/weight"]}


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected - expected.mean()))


def test_every_architecture_is_a_choice_of_the_config() -> None:
    assert config.ARCHITECTURES == tuple(transform_net.ARCHITECTURES)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_slim2016_equals_the_independent_implementation(height: int, width: int) -> None:
    weights = transform_net.init_weights("slim2016", seed=3)
    images = photos(1, height, width)
    got = transform_net.transform("slim2016", weights, tf.constant(images), tf.ones([1, 1]))
    assert relative_error(got.numpy(), reference.slim2016(weights, images)) < 1e-4


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_johnson_equals_the_independent_implementation(height: int, width: int) -> None:
    weights = perturbed(transform_net.init_weights("johnson", width=0.25, styles=3, seed=3))
    images = photos(2, height, width)
    style_weights = np.array([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0]], np.float32)
    got = transform_net.transform(
        "johnson", weights, tf.constant(images), tf.constant(style_weights)
    )
    expected = reference.johnson(weights, images, style_weights.astype(np.float64))
    assert relative_error(got.numpy(), expected) < 1e-4


def test_slim2016_has_the_ancestors_weights() -> None:
    weights = transform_net.init_weights("slim2016")
    assert len(weights) == 16
    assert sum(value.size for value in weights.values()) == 1_674_432
    assert transform_net.weight_count("slim2016") == 1_674_432
    kernel = weights["res3/residual/conv/weight"]
    assert abs(kernel).max() <= 0.2  # truncated at two deviations of 0.1
    assert 0.085 < kernel.std() < 0.09  # whose deviation is 0.88 of the full normal's


def test_fresh_slim2016_keeps_the_photo_in_its_residual_sum() -> None:
    weights = transform_net.init_weights("slim2016")
    x = np.random.default_rng(0).random((1, 24, 24, 128))
    kernels = [weights[f"res1/residual/{name}/weight"] for name in ("conv", "conv_1")]
    branch = reference.reflect_convolve(
        reference.relu(reference.reflect_convolve(x, kernels[0])), kernels[1]
    )
    assert 0.1 < branch.std() / x.std() < 1.5


@pytest.mark.parametrize("arch", transform_net.ARCHITECTURES)
def test_a_batch_equals_its_pictures_one_by_one(arch: str) -> None:
    width = 0.25 if arch == "johnson" else 1.0
    weights = transform_net.init_weights(arch, width=width)
    images = photos(2, 17, 23)
    batch = transform_net.transform(arch, weights, tf.constant(images), tf.ones([2, 1]))
    for index in range(2):
        one = transform_net.transform(
            arch, weights, tf.constant(images[index : index + 1]), tf.ones([1, 1])
        )
        # Sums in another order: float32 noise on a scale of 255, passed through the norms.
        np.testing.assert_allclose(batch[index], one[0], atol=0.02)


@pytest.mark.parametrize("arch", transform_net.ARCHITECTURES)
def test_bfloat16_is_close_to_float32(arch: str) -> None:
    width = 0.5 if arch == "johnson" else 1.0
    weights = transform_net.init_weights(arch, width=width)
    images = tf.constant(photos(1, 40, 36))
    wide, narrow = (
        transform_net.transform(arch, weights, images, tf.ones([1, 1]), dtype=dtype).numpy()
        for dtype in ("float32", "bfloat16")
    )
    # bfloat16 keeps 8 bits: 0.2 to 0.4 % a layer, over about 20 layers.
    assert 0 < relative_error(narrow, wide) < 0.08


@pytest.mark.parametrize("arch", transform_net.ARCHITECTURES)
def test_one_trace_serves_all_sizes_and_keeps_them(arch: str) -> None:
    weights = transform_net.init_weights(arch, width=0.25 if arch == "johnson" else 1.0)
    traces = []

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)])
    def run(images: tf.Tensor) -> tf.Tensor:
        traces.append(1)
        return transform_net.transform(arch, weights, images, tf.ones([tf.shape(images)[0], 1]))

    for height, width in SIZES:
        assert run(tf.constant(photos(1, height, width))).shape == (1, height, width, 3)
    assert len(traces) == 1


def test_fresh_pictures_are_nearly_grey() -> None:
    images = tf.constant(photos(2, 64, 64))
    weights = transform_net.init_weights("johnson", seed=3)
    styled = transform_net.transform("johnson", weights, images, tf.ones([2, 1])).numpy()
    assert 1.0 < styled.std() < 20.0
    assert abs(styled.mean() - 127.5) < 10.0
    louder = {**weights, "out/weight": 10.0 * weights["out/weight"]}
    styled = transform_net.transform("johnson", louder, images, tf.ones([2, 1])).numpy()
    assert styled.std() > 50.0


def test_fresh_weights_depend_on_the_seed_alone() -> None:
    one, same, other = (
        transform_net.init_weights("johnson", width=0.25, seed=s) for s in (1, 1, 2)
    )
    for name in one:
        np.testing.assert_array_equal(one[name], same[name])
    assert not np.array_equal(one["conv1/weight"], other["conv1/weight"])
    assert not np.array_equal(one["res1/conv1/weight"], one["res2/conv1/weight"])


def test_unknown_arch_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="expected one of johnson, slim2016, got 'unet'"):
        transform_net.transform("unet", {}, tf.zeros([1, 16, 16, 3]), tf.ones([1, 1]))


def test_slim2016_refuses_what_it_cannot_hold() -> None:
    with pytest.raises(ValueError, match="one style, got width 1.0 and 2 styles"):
        transform_net.init_weights("slim2016", styles=2)


def test_every_johnson_weight_gets_a_finite_gradient() -> None:
    weights = {
        name: tf.Variable(tf.constant(value))
        for name, value in transform_net.init_weights("johnson", width=0.25, styles=2).items()
    }
    style_weights = tf.constant([[0.5, 0.5]])
    with tf.GradientTape() as tape:
        styled = transform_net.transform(
            "johnson", weights, tf.constant(photos(1, 20, 24)), style_weights
        )
        loss = tf.reduce_mean(tf.square(styled - 100.0))
    for name, gradient in tape.gradient(loss, weights).items():
        assert gradient is not None, name
        values = np.asarray(gradient)
        assert np.isfinite(values).all(), name
        assert np.abs(values).max() > 0, name


def plain_johnson(weights: dict[str, tf.Tensor], images: np.ndarray) -> tf.Tensor:
    """One style, whole enlarged maps, and nothing but TensorFlow's own gradients."""

    def norm(x: tf.Tensor, name: str) -> tf.Tensor:
        mean, variance = tf.nn.moments(x, [1, 2], keepdims=True)
        unit = (x - mean) * tf.math.rsqrt(variance + 1e-5)
        return unit * weights[f"{name}/scale"][0] + weights[f"{name}/offset"][0]

    def convolved(x: tf.Tensor, name: str, stride: int = 1, border: int = 1) -> tf.Tensor:
        sides = [border, border]
        padded = tf.pad(x, [[0, 0], sides, sides, [0, 0]], "REFLECT") if border else x
        return tf.nn.conv2d(padded, weights[f"{name}/weight"], stride, "VALID")

    height, width = images.shape[1:3]
    borders = ((0, 0), (14, 14 + -height % 4), (14, 14 + -width % 4), (0, 0))
    x = tf.constant(np.pad(images - np.float32(reference.MEANS), borders, mode="reflect"))
    for name, stride, border in (("conv1", 1, 0), ("conv2", 2, 1), ("conv3", 2, 1)):
        x = tf.nn.relu(norm(convolved(x, name, stride, border), name))
    for block in range(1, 6):
        first, second = f"res{block}/conv1", f"res{block}/conv2"
        x += norm(convolved(tf.nn.relu(norm(convolved(x, first), first)), second), second)
    for name in ("up1", "up2"):
        x = tf.repeat(tf.repeat(x, 2, axis=1), 2, axis=2)
        x = tf.nn.relu(norm(convolved(x, name), name))
    x = convolved(x, "out", border=4) + weights["out/bias"][0]
    return x[:, 10 : 10 + height, 10 : 10 + width]


def test_gradients_of_johnson_equal_those_of_the_plain_formulation() -> None:
    values = perturbed(transform_net.init_weights("johnson", width=0.25, seed=3))
    values["out/weight"] *= 0.1  # Far from where `tanh_pixels` departs from tanh's slope.
    weights = {name: tf.constant(value) for name, value in values.items()}
    images = photos(2, 17, 23).astype(np.float32)
    wish = tf.constant(photos(2, 17, 23, seed=1).astype(np.float32))

    def gradients(forward: Callable[[], tf.Tensor]) -> dict[str, np.ndarray]:
        with tf.GradientTape() as tape:
            tape.watch(weights)
            loss = tf.reduce_mean(tf.square(forward() - wish))
        return {k: np.asarray(v) for k, v in tape.gradient(loss, weights).items()}

    got = gradients(
        lambda: transform_net.transform("johnson", weights, tf.constant(images), tf.ones([2, 1]))
    )
    expected = gradients(lambda: (tf.tanh(plain_johnson(weights, images)) + 1.0) * 127.5)
    # Offsets in front of another norm have a gradient of zero, of which only rounding is left.
    least = 1e-3 * max(np.linalg.norm(value) for value in expected.values())
    for name, value in expected.items():
        error = np.linalg.norm(got[name] - value)
        assert error <= 1e-4 * max(np.linalg.norm(value), least), name
