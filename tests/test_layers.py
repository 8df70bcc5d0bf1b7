from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import reference
import tensorflow as tf
from nets import random_map

from fast_style import layers


@pytest.mark.parametrize("mode", ["reflect", "symmetric"])
@pytest.mark.parametrize("size", [1, 4])
def test_pad_mirrors_as_numpy_does(mode: str, size: int) -> None:
    x = random_map(2, 10, 13, 3)
    expected = np.pad(x, ((0, 0), (size, size), (size, size), (0, 0)), mode=mode)  # type: ignore
    np.testing.assert_array_equal(layers.pad(tf.constant(x), size, mode), expected)


@pytest.mark.parametrize("mode", ["reflect", "symmetric"])
@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("high", [True, False])
def test_gradient_of_pad_is_its_transpose(mode: str, size: int, high: bool) -> None:
    # <pad(x), y> = <x, pad^T(y)> for every x and y defines the transpose.
    x, other = random_map(1, 10, 11, 2), random_map(1, 10, 11, 2, seed=1)
    variable = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(variable)
        padded = layers.pad(variable, size, mode, high)
        weight = random_map(*np.shape(padded), seed=2)
        product = tf.reduce_sum(padded * weight)
    gradient = np.asarray(tape.gradient(product, variable), np.float64)
    direct = np.sum(
        layers.pad(tf.constant(other), size, mode, high).numpy() * weight.astype(np.float64)
    )
    np.testing.assert_allclose(np.sum(gradient * other), direct, rtol=1e-5)


@pytest.mark.parametrize(
    ("size", "before", "after"), [(5, 2, 3), (3, 7, 11), (1, 2, 2), (16, 14, 17)]
)
def test_picture_padding_may_be_wider_than_the_picture(size: int, before: int, after: int) -> None:
    x = random_map(1, size, size + 2, 3)
    pads = ((0, 0), (before, after), (before, after), (0, 0))
    padded = layers.pad_image(tf.constant(x), before, (after, after))
    np.testing.assert_array_equal(padded, np.pad(x, pads, mode="reflect"))


def test_instance_norm_equals_the_formula() -> None:
    x, scale, offset = random_map(2, 7, 5, 3), random_map(2, 3, seed=1), random_map(2, 3, seed=2)
    expected = reference.normalize(
        x.astype(np.float64), 1e-5, scale[:, None, None], offset[:, None, None]
    )
    got = layers.instance_norm(
        tf.constant(x), tf.constant(scale), tf.constant(offset), epsilon=1e-5
    )
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_instance_norm_is_blind_to_offset_and_gain_of_a_channel() -> None:
    x = random_map(1, 9, 9, 4)
    changed = x * np.array([0.5, 2.0, 30.0, 4.0], np.float32) + np.array(
        [1, -2, 300, 4], np.float32
    )
    one, other = (layers.instance_norm(tf.constant(v), epsilon=1e-9) for v in (x, changed))
    np.testing.assert_allclose(one, other, atol=1e-3)  # float32 keeps 1e-5 of a mean of 300


def test_instance_norm_of_a_flat_channel_is_its_offset_with_finite_gradient() -> None:
    x = tf.fill([1, 6, 6, 2], 7.0)
    offset = tf.constant([[0.25, -1.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layers.instance_norm(x, tf.ones([1, 2]), offset, epsilon=1e-5)
    np.testing.assert_array_equal(y[0, 3, 3], offset[0])
    assert np.isfinite(tape.gradient(y, x)).all()


def test_gradients_of_instance_norm_equal_those_of_the_plain_formula() -> None:
    inputs = [tf.constant(random_map(2, 5, 6, 3)), tf.constant(random_map(2, 3, seed=1))]
    inputs.append(tf.constant(random_map(2, 3, seed=2)))
    weight = random_map(2, 5, 6, 3, seed=3)

    def plain(x: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
        mean, variance = tf.nn.moments(x, [1, 2], keepdims=True)
        unit = (x - mean) / tf.sqrt(variance + 1e-5)
        return unit * scale[:, None, None] + offset[:, None, None]

    gradients = []
    for norm in (plain, lambda x, s, o: layers.instance_norm(x, s, o, epsilon=1e-5)):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            total = tf.reduce_sum(norm(*inputs) * weight)
        gradients.append(tape.gradient(total, inputs))
    for expected, got in zip(*gradients, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_folded_nearest_x2_equals_enlarging_and_convolving() -> None:
    x, kernel = random_map(1, 5, 7, 3), random_map(3, 3, 3, 4, seed=1)
    folded = layers.fold_nearest_x2(tf.constant(kernel))
    y = layers.conv(layers.pad(tf.constant(x), 1, "symmetric"), folded)
    expected = reference.reflect_convolve(reference.enlarge(x.astype(np.float64), 2), kernel)
    np.testing.assert_allclose(tf.nn.depth_to_space(y, 2), expected, rtol=1e-4, atol=1e-5)


def test_folded_nearest_x4_stride_2_equals_enlarging_and_convolving() -> None:
    x, kernel = random_map(1, 5, 7, 3), random_map(3, 3, 3, 4, seed=1)
    folded = layers.fold_nearest_x4_stride_2(tf.constant(kernel))
    y = layers.conv(layers.pad(tf.constant(x), 1, "symmetric", high=False), folded)
    expected = reference.reflect_convolve(reference.enlarge(x.astype(np.float64), 4), kernel, 2)
    np.testing.assert_allclose(tf.nn.depth_to_space(y, 2), expected, rtol=1e-4, atol=1e-5)


def test_phase_kernel_equals_the_9x9_convolution() -> None:
    x, kernel = random_map(1, 14, 18, 3), random_map(9, 9, 3, 2, seed=1)
    phases = layers.conv(
        tf.nn.space_to_depth(tf.constant(x), 2), layers.phase_kernel_9x9(tf.constant(kernel))
    )
    expected = reference.convolve(x.astype(np.float64), kernel)
    np.testing.assert_allclose(tf.nn.depth_to_space(phases, 2), expected, rtol=1e-4, atol=1e-4)


def test_phases_are_normalized_together() -> None:
    x = random_map(1, 6, 8, 3)
    norm = lambda v: layers.instance_norm(v, epsilon=1e-5)  # noqa: E731 - a value, used twice
    together = layers.in_phases(norm, tf.nn.space_to_depth(tf.constant(x), 2))
    np.testing.assert_allclose(
        tf.nn.depth_to_space(together, 2), norm(tf.constant(x)), rtol=1e-5, atol=1e-5
    )


def test_pixels_are_the_scaled_tanh() -> None:
    x = np.linspace(-12, 12, 97).astype(np.float32)
    expected = (np.tanh(x.astype(np.float64)) + 1) * 127.5
    np.testing.assert_allclose(layers.tanh_pixels(tf.constant(x)), expected, atol=1e-4)


@pytest.mark.parametrize("wish", [-1.0, 1.0])
def test_saturated_pixels_can_come_back_and_all_others_follow_tanh(wish: float) -> None:
    x = tf.constant([-9.5, -3.0, -0.5, 0.0, 0.5, 3.0, 9.5])
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = wish * tf.reduce_sum(layers.tanh_pixels(x))
    gradient = np.asarray(tape.gradient(loss, x)) / 127.5
    slope = 1 - np.tanh(np.asarray(x, np.float64)) ** 2
    # A positive wish makes descent darken: the white end comes back, the black end is left alone.
    floored = np.maximum(slope, 0.1)
    back = np.asarray(x) * wish > 0
    np.testing.assert_allclose(gradient, wish * np.where(back, floored, slope), atol=1e-6)


def gradients_of(
    function: Callable[..., tf.Tensor], inputs: Sequence[np.ndarray], dtype: tf.DType = tf.float32
) -> list[np.ndarray]:
    """Of the sum of the output under fixed random weights, with respect to each input."""
    tensors = [tf.constant(value) for value in inputs]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        y = tf.cast(function(tf.cast(tensors[0], dtype), *tensors[1:]), tf.float32)
        total = tf.reduce_sum(y * random_map(*np.shape(y), seed=9))
    return [np.asarray(gradient) for gradient in tape.gradient(total, tensors)]


def plain_norm_relu(x: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    mean, variance = tf.nn.moments(x, [1, 2], keepdims=True)
    unit = (x - mean) / tf.sqrt(variance + 1e-5)
    return tf.nn.relu(unit * scale[:, None, None] + offset[:, None, None])


def norm_relu(x: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    return layers.instance_norm(x, scale, offset, epsilon=1e-5, relu=True)


@pytest.mark.parametrize(
    # bfloat16 rounds what comes in, the result and its gradient: 0.4 % each.
    ("dtype", "tolerance"),
    [(tf.float32, 1e-4), (tf.bfloat16, 0.02)],
)
def test_norm_and_relu_as_one_equal_the_plain_formula(dtype: tf.DType, tolerance: float) -> None:
    # Exact in bfloat16 and away from the ReLU's corner, where rounding would decide.
    x = np.asarray(tf.cast(tf.cast(random_map(3, 11, 13, 5) + 2.0, tf.bfloat16), tf.float32))
    inputs = [x, random_map(3, 5, seed=1), random_map(3, 5, seed=2)]
    expected = plain_norm_relu(*map(tf.constant, inputs))
    got = norm_relu(tf.constant(x, dtype), *map(tf.constant, inputs[1:]))
    assert got.dtype == dtype
    np.testing.assert_allclose(tf.cast(got, tf.float32), expected, rtol=tolerance, atol=tolerance)
    pairs = zip(
        gradients_of(norm_relu, inputs, dtype), gradients_of(plain_norm_relu, inputs), strict=True
    )
    for one, other in pairs:
        assert np.linalg.norm(one - other) <= tolerance * np.linalg.norm(other)


def test_norm_of_an_unknown_number_of_pictures_equals_that_of_a_known_one() -> None:
    inputs = [random_map(3, 7, 9, 4), random_map(3, 4, seed=1), random_map(3, 4, seed=2)]
    run = tf.function(
        norm_relu,
        input_signature=[tf.TensorSpec([None, None, None, 4])] + 2 * [tf.TensorSpec([None, 4])],
        autograph=False,
    )
    np.testing.assert_allclose(run(*inputs), norm_relu(*map(tf.constant, inputs)), atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(5, 7), (2, 3), (9, 4)])
def test_enlarging_convolution_equals_the_plain_one(height: int, width: int) -> None:
    inputs = [random_map(2, height, width, 3), random_map(3, 3, 3, 4, seed=1)]
    expected = reference.reflect_convolve(
        reference.enlarge(inputs[0].astype(np.float64), 2), inputs[1]
    )
    got = layers.nearest_x2_conv(*map(tf.constant, inputs))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)

    def plain(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        large = tf.repeat(tf.repeat(x, 2, axis=1), 2, axis=2)
        padded = tf.pad(large, [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT")
        return tf.nn.conv2d(padded, kernel, 1, "VALID")

    pairs = zip(
        gradients_of(layers.nearest_x2_conv, inputs), gradients_of(plain, inputs), strict=True
    )
    for one, other in pairs:
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_enlarging_convolution_of_unknown_sizes_equals_that_of_known_ones() -> None:
    x, kernel = random_map(2, 5, 6, 3), random_map(3, 3, 3, 4, seed=1)
    run = tf.function(
        layers.nearest_x2_conv,
        input_signature=[tf.TensorSpec([None, None, None, 3]), tf.TensorSpec([3, 3, 3, 4])],
        autograph=False,
    )
    np.testing.assert_allclose(
        run(x, kernel), layers.nearest_x2_conv(tf.constant(x), tf.constant(kernel)), atol=1e-5
    )


def test_cropping_keeps_the_rectangle_asked_for() -> None:
    x = random_map(2, 9, 11, 3)
    cropped = layers.crop_image(tf.constant(x), 2, 3, tf.constant(5), tf.constant(6))
    np.testing.assert_array_equal(cropped, x[:, 2:7, 3:9])
