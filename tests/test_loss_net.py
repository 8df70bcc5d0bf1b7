from __future__ import annotations

import collections
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nets
import numpy as np
import pytest
import reference
import tensorflow as tf
import weight_files
from weight_files import FORMATS, Weights

from fast_style import winograd
from fast_style.errors import ConfigError, WeightsError
from fast_style.loss_models import LOSS_MODELS, MINI
from fast_style.loss_net import (
    LossNetwork,
    build_loss_network,
)
from fast_style.loss_weights import weights_sha256

SHARED = Path(__file__).parents[2] / "shared"
STYLE_LAYERS = tuple(
    f"vgg_16/{layer}"
    for layer in ("conv1/conv1_2", "conv2/conv2_2", "conv3/conv3_3", "conv4/conv4_3")
)
CONTENT_LAYERS = ("vgg_16/conv3/conv3_3",)


@pytest.fixture(autouse=True)
def _without_tf_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    """TF-Slim reaches for tf_keras by itself, which the project does not install."""
    monkeypatch.setitem(sys.modules, "tf_keras", None)


@pytest.fixture(scope="module")
def vgg_16() -> dict[str, np.ndarray]:
    return weight_files.random_vgg("vgg_16", "conv4_3")


@pytest.fixture(scope="module")
def vgg_16_file(vgg_16: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return weight_files.save_safetensors(
        tmp_path_factory.mktemp("w") / "vgg_16.safetensors", vgg_16
    )


@pytest.fixture(scope="module")
def network(vgg_16_file: Path) -> LossNetwork:
    return build_loss_network("vgg_16", vgg_16_file, STYLE_LAYERS)


def pictures(height: int = 33, width: int = 47, count: int = 2) -> np.ndarray:
    rng = np.random.default_rng(7)
    return rng.uniform(0, 255, (count, height, width, 3)).astype(np.float32)


def expected_vgg(
    name: str,
    weights: Weights,
    images: np.ndarray,
    pool: Callable[..., np.ndarray] = np.max,
) -> dict[str, np.ndarray]:
    """VGG in float64: 3x3 convolutions padded by zeros, ReLU, 2x2 pooling that drops odd edges."""
    x = images.astype(np.float64) - reference.MEANS
    features: dict[str, np.ndarray] = {}
    for layer in [key.removesuffix("/weights") for key in weights if key.endswith("/weights")]:
        if layer.endswith("_1") and features:
            n, height, width, channels = x.shape
            x = x[:, : height // 2 * 2, : width // 2 * 2]
            x = pool(x.reshape(n, height // 2, 2, width // 2, 2, channels), axis=(2, 4))
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        kernel = weights[f"{layer}/weights"].astype(np.float64)
        x = reference.relu(reference.convolve(padded, kernel) + weights[f"{layer}/biases"])
        features[layer] = x
    return features


def assert_close(actual: tf.Tensor, expected: np.ndarray, tolerance: float) -> None:
    """Compares the norm of the difference with the norm of what was expected."""
    values = tf.cast(actual, tf.float64).numpy()
    assert values.shape == expected.shape
    assert np.linalg.norm(values - expected) <= tolerance * np.linalg.norm(expected)


# Float32 against float64 through at most 14 convolutions; observed below 3e-6.
EXACT = 1e-5


@pytest.mark.parametrize("size", [(32, 32, 2), (33, 47, 1)])
def test_vgg_16_equals_plain_convolutions(
    size: tuple[int, int, int], network: LossNetwork, vgg_16: Weights
) -> None:
    images = pictures(*size)
    expected = expected_vgg("vgg_16", vgg_16, images)
    features = network(tf.constant(images))
    assert tuple(features) == STYLE_LAYERS
    for layer, values in features.items():
        assert values.dtype == tf.float32
        assert_close(values, expected[layer], EXACT)


def test_average_pooling_replaces_every_max_pooling(vgg_16_file: Path, vgg_16: Weights) -> None:
    images = pictures(count=1)
    averaging = build_loss_network("vgg_16", vgg_16_file, STYLE_LAYERS, pooling="avg")
    expected = expected_vgg("vgg_16", vgg_16, images, np.mean)
    for layer, values in averaging(tf.constant(images)).items():
        assert_close(values, expected[layer], EXACT)


def test_all_formats_give_identical_features_of_vgg_16(
    network: LossNetwork, vgg_16: Weights, tmp_path: Path
) -> None:
    images = tf.constant(pictures(count=1))
    expected = network(images)
    for name, save in FORMATS.values():
        file = save(tmp_path / name, vgg_16)
        features = build_loss_network("vgg_16", file, STYLE_LAYERS)(images)
        for layer in STYLE_LAYERS:
            np.testing.assert_array_equal(features[layer], expected[layer], err_msg=name)


def test_public_formats_give_the_features_of_vgg_19_down_to_its_last_block(tmp_path: Path) -> None:
    weights = weight_files.random_vgg("vgg_19", "conv5_2", seed=1)
    layers = ["vgg_19/conv3/conv3_4", "vgg_19/conv5/conv5_2"]
    images = pictures(count=1)
    expected = expected_vgg("vgg_19", weights, images)
    first = None
    for kind in ("TF-Slim V2", "Keras", "MatConvNet"):
        name, save = FORMATS[kind]
        network = build_loss_network("vgg_19", save(tmp_path / name, weights), layers)
        features = network(tf.constant(images))
        for layer in layers:
            assert_close(features[layer], expected[layer], EXACT)
        first = first or features
        np.testing.assert_array_equal(features[layers[1]], first[layers[1]], err_msg=name)


def test_bfloat16_stays_close_to_float32(
    network: LossNetwork, vgg_16_file: Path, vgg_16: Weights
) -> None:
    images = pictures()
    brain = build_loss_network("vgg_16", vgg_16_file, STYLE_LAYERS, dtype="bfloat16")
    expected = network(tf.constant(images))
    for layer, values in brain(tf.constant(images)).items():
        assert values.dtype == tf.bfloat16
        # Eight bits of mantissa round by up to 2^-9 at each of ten layers; observed 0.007.
        assert_close(values, expected[layer].numpy().astype(np.float64), 0.012)


def test_a_traced_network_equals_the_eager_one_and_keeps_static_shapes(
    network: LossNetwork,
) -> None:
    images = tf.constant(pictures())
    shapes = {}

    @tf.function
    def traced(x: tf.Tensor) -> dict[str, tf.Tensor]:
        features = network(x)
        shapes.update({layer: values.shape for layer, values in features.items()})
        return features

    features = traced(images)
    assert shapes["vgg_16/conv3/conv3_3"] == (2, 8, 11, 256)
    for layer, values in network(images).items():
        np.testing.assert_allclose(features[layer], values, rtol=1e-5, atol=1e-3)


def test_one_trace_serves_all_sizes(vgg_16_file: Path) -> None:
    network = build_loss_network("vgg_16", vgg_16_file, ["vgg_16/conv2/conv2_1"])
    spec = tf.TensorSpec((None, None, None, 3), tf.float32)
    traced = tf.function(network, input_signature=[spec])
    for height, width in ((32, 32), (33, 47), (64, 21)):
        (features,) = traced(tf.constant(pictures(height, width, 1))).values()
        assert features.shape == (1, height // 2, width // 2, 128)


@pytest.mark.parametrize("eager", [True, False])
def test_gradient_equals_finite_differences(eager: bool, network: LossNetwork) -> None:
    images = pictures(32, 32, 1)
    direction = np.random.default_rng(1).standard_normal(images.shape).astype(np.float32)

    def loss(x: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(network(x, CONTENT_LAYERS)[CONTENT_LAYERS[0]])

    def gradient(x: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(x)
        return tape.gradient(value, x)

    slope = (gradient if eager else tf.function(gradient))(tf.constant(images))
    assert np.isfinite(slope).all()
    step = 0.05
    ahead, behind = (float(loss(tf.constant(images + sign * step * direction))) for sign in (1, -1))
    # ReLU and max pooling have kinks, which a step of 0.05 levels rarely crosses.
    expected = (ahead - behind) / (2 * step)
    assert float(tf.reduce_sum(slope * direction)) == pytest.approx(expected, rel=0.02)


def test_gradient_reaches_the_pictures_through_bfloat16(vgg_16_file: Path) -> None:
    network = build_loss_network("vgg_16", vgg_16_file, CONTENT_LAYERS, dtype="bfloat16")
    images = tf.constant(pictures(32, 32, 1))
    with tf.GradientTape() as tape:
        tape.watch(images)
        value = tf.reduce_mean(tf.cast(network(images)[CONTENT_LAYERS[0]], tf.float32))
    slope: Any = tape.gradient(value, images)
    assert slope.dtype == tf.float32
    assert np.isfinite(slope).all()
    assert np.abs(slope).max() > 0


def operations(function: Any) -> collections.Counter[str]:
    """Counts the operations of a concrete function and of all that it calls."""
    return collections.Counter(node.op for node in nets.operations(function.graph))


def test_a_subset_of_layers_computes_only_down_to_its_deepest(network: LossNetwork) -> None:
    spec = tf.TensorSpec((None, None, None, 3), tf.float32)
    subset = tf.function(lambda x: network(x, ["vgg_16/conv2/conv2_2"]))
    counted = operations(subset.get_concrete_function(spec))
    assert counted["Conv2D"] == 4
    assert counted["MaxPool"] == 1


def test_a_subset_gives_the_same_features_as_all_layers(network: LossNetwork) -> None:
    images = tf.constant(pictures())
    subset = network(images, CONTENT_LAYERS)
    assert tuple(subset) == CONTENT_LAYERS
    np.testing.assert_array_equal(subset[CONTENT_LAYERS[0]], network(images)[CONTENT_LAYERS[0]])


def test_weights_get_no_gradient(network: LossNetwork) -> None:
    images = tf.constant(pictures(32, 32, 1))
    inside = network._features.__self__  # type: ignore[attr-defined]
    weights = list(inside._weights.values())
    assert len(weights) == 20
    with tf.GradientTape() as tape:
        tape.watch(weights)
        value = tf.reduce_sum(network(images, CONTENT_LAYERS)[CONTENT_LAYERS[0]])
    assert tape.gradient(value, weights) == [None] * len(weights)


def test_weights_deeper_than_the_deepest_layer_are_not_needed(tmp_path: Path) -> None:
    shallow = weight_files.random_vgg("vgg_16", "conv1_2")
    file = weight_files.save_npz(tmp_path / "a.npz", shallow)
    network = build_loss_network("vgg_16", file, ["vgg_16/conv1/conv1_2"])
    assert network(tf.constant(pictures()))["vgg_16/conv1/conv1_2"].shape == (2, 33, 47, 64)


def test_whole_numbers_are_taken_as_pictures_too(network: LossNetwork) -> None:
    images = pictures().astype(np.uint8)
    from_bytes = network(tf.constant(images), CONTENT_LAYERS)[CONTENT_LAYERS[0]]
    from_floats = network(tf.constant(images, tf.float32), CONTENT_LAYERS)[CONTENT_LAYERS[0]]
    np.testing.assert_array_equal(from_bytes, from_floats)


def test_layers_may_be_named_without_the_network(vgg_16_file: Path, network: LossNetwork) -> None:
    images = tf.constant(pictures())
    short = build_loss_network("vgg_16", vgg_16_file, ["conv3/conv3_3"])
    np.testing.assert_array_equal(
        short(images)["conv3/conv3_3"], network(images)["vgg_16/conv3/conv3_3"]
    )


def test_a_network_knows_where_its_weights_came_from(vgg_16_file: Path) -> None:
    asked = vgg_16_file.with_suffix(".ckpt")
    network = build_loss_network("vgg_16", asked, CONTENT_LAYERS, dtype="bfloat16", pooling="avg")
    assert network.name == "vgg_16"
    assert network.layers == CONTENT_LAYERS
    assert network.weights_file == vgg_16_file
    assert network.sha256 == weights_sha256(vgg_16_file)
    assert (network.dtype, network.pooling) == ("bfloat16", "avg")


def test_building_leaves_tensorflow_and_tf_slim_as_they_were(vgg_16_file: Path) -> None:
    from tf_slim.layers import utils
    from tf_slim.ops import arg_scope

    before = (utils.constant_value, dict(arg_scope.current_arg_scope()))
    build_loss_network("vgg_16", vgg_16_file, CONTENT_LAYERS)
    assert (utils.constant_value, dict(arg_scope.current_arg_scope())) == before
    assert tf.executing_eagerly()
    assert not tf.compat.v1.get_collection(tf.compat.v1.GraphKeys.GLOBAL_VARIABLES)


def test_building_warns_of_nothing(vgg_16_file: Path, recwarn: pytest.WarningsRecorder) -> None:
    build_loss_network("vgg_16", vgg_16_file, CONTENT_LAYERS)
    assert [str(warning.message) for warning in recwarn] == []


# What is wrong with the request.


def test_an_unknown_network_suggests_a_known_one(vgg_16_file: Path) -> None:
    with pytest.raises(ConfigError, match="unknown network 'vgg16'; did you mean 'vgg_16'?"):
        build_loss_network("vgg16", vgg_16_file, CONTENT_LAYERS)


def test_unknown_layers_are_reported_together_with_suggestions(vgg_16_file: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        build_loss_network(
            "vgg_16", vgg_16_file, ["vgg_16/conv3/conv3_4", *CONTENT_LAYERS, "no such thing"]
        )
    first, second = caught.value.problems
    assert "unknown layer 'vgg_16/conv3/conv3_4'; did you mean 'vgg_16/conv3/conv3_" in first
    assert "unknown layer 'no such thing'; known are vgg_16/conv1/conv1_1, vgg_16/conv1" in second


def test_fully_connected_layers_are_not_offered(vgg_16_file: Path) -> None:
    with pytest.raises(ConfigError, match="unknown layer 'vgg_16/fc6'"):
        build_loss_network("vgg_16", vgg_16_file, ["vgg_16/fc6"])


def test_average_pooling_is_refused_outside_the_vggs(vgg_16_file: Path) -> None:
    with pytest.raises(ConfigError, match="'avg' is for the VGGs; alexnet_v2 keeps its own"):
        build_loss_network("alexnet_v2", vgg_16_file, ["conv1"], pooling="avg")


@pytest.mark.parametrize(
    "wrong", [{"dtype": "float16"}, {"pooling": "min"}, {"layers": ()}], ids=str
)
def test_wrong_choices_are_a_value_error(wrong: Mapping[str, Any], vgg_16_file: Path) -> None:
    arguments = {"layers": CONTENT_LAYERS, **wrong}
    with pytest.raises(ValueError, match="expected dtype of"):
        build_loss_network("vgg_16", vgg_16_file, **arguments)


def test_layers_the_network_was_not_built_for_are_a_value_error(network: LossNetwork) -> None:
    with pytest.raises(ValueError, match="built for .* not for"):
        network(tf.constant(pictures()), ["vgg_16/conv1/conv1_1"])


@pytest.mark.parametrize("shape", [(33, 47, 3), (1, 33, 47, 4)])
def test_pictures_of_a_wrong_shape_are_a_value_error(
    shape: tuple[int, ...], network: LossNetwork
) -> None:
    with pytest.raises(ValueError, match=r"images must be \[N, H, W, 3\]"):
        network(tf.zeros(shape))


# What is wrong with the file.


def test_a_missing_layer_names_layer_and_file(vgg_16_file: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        build_loss_network("vgg_16", vgg_16_file, ["vgg_16/conv5/conv5_2"])
    message = str(caught.value)
    assert str(vgg_16_file) in message
    assert "no weights for layer vgg_16/conv5/conv5_1 and 1 more" in message


def test_a_missing_bias_is_a_missing_layer(tmp_path: Path) -> None:
    weights = weight_files.random_vgg("vgg_16", "conv1_1")
    del weights["vgg_16/conv1/conv1_1/biases"]
    file = weight_files.save_npz(tmp_path / "a.npz", weights)
    with pytest.raises(WeightsError, match=r"'vgg_16/conv1/conv1_1/biases' is not in the file"):
        build_loss_network("vgg_16", file, ["vgg_16/conv1/conv1_1"])


def test_a_wrong_shape_says_both_shapes(tmp_path: Path) -> None:
    weights = weight_files.random_vgg("vgg_16", "conv1_1")
    weights["vgg_16/conv1/conv1_1/weights"] = np.zeros((5, 5, 3, 64), np.float32)
    file = weight_files.save_npz(tmp_path / "a.npz", weights)
    with pytest.raises(WeightsError, match=r"\(5, 5, 3, 64\), but vgg_16 needs \(3, 3, 3, 64\)"):
        build_loss_network("vgg_16", file, ["vgg_16/conv1/conv1_1"])


def test_the_weights_of_another_network_are_missing_layers(vgg_16_file: Path) -> None:
    with pytest.raises(WeightsError, match="no weights for layer vgg_19/conv1/conv1_1"):
        build_loss_network("vgg_19", vgg_16_file, ["vgg_19/conv1/conv1_1"])


def test_a_missing_file_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="python -m fast_style fetch vgg_16"):
        build_loss_network("vgg_16", tmp_path / "vgg_16.ckpt", CONTENT_LAYERS)


def test_excluded_scopes_that_no_layer_needs_change_nothing(vgg_16_file: Path) -> None:
    build_loss_network("vgg_16", vgg_16_file, CONTENT_LAYERS, exclude_scopes="vgg_16/fc, vgg_16/x")


def test_excluding_a_needed_scope_is_an_error(vgg_16_file: Path) -> None:
    with pytest.raises(
        WeightsError, match="needs 'vgg_16/conv3/conv3_1/weights', which checkpoint"
    ):
        build_loss_network(
            "vgg_16", vgg_16_file, CONTENT_LAYERS, exclude_scopes="vgg_16/fc,vgg_16/conv3"
        )


# The other networks of TF-Slim, against NumPy, with TF-Slim's variable names typed out.


def random_weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    weights = {}
    for name, shape in shapes.items():
        values = rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]) if len(shape) > 1 else 1)
        if name.endswith(("gamma", "moving_variance")):
            values = rng.uniform(0.5, 2.0, shape)
        weights[name] = values.astype(np.float32)
    return weights


def batch_norm_shapes(scope: str, channels: int, *, gamma: bool) -> dict[str, tuple[int, ...]]:
    names = ("beta", "moving_mean", "moving_variance", *(("gamma",) if gamma else ()))
    return {f"{scope}/{name}": (channels,) for name in names}


def batch_norm(x: np.ndarray, weights: Weights, scope: str, epsilon: float) -> np.ndarray:
    w = {key: np.asarray(value, np.float64) for key, value in weights.items()}
    scaled = (x - w[f"{scope}/moving_mean"]) / np.sqrt(w[f"{scope}/moving_variance"] + epsilon)
    return scaled * w.get(f"{scope}/gamma", 1.0) + w[f"{scope}/beta"]


def pad_same(x: np.ndarray, kernel: int, stride: int, value: float = 0.0) -> np.ndarray:
    """TensorFlow's SAME: the odd pixel of padding goes after."""
    widths = [(0, 0)]
    for side in x.shape[1:3]:
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        widths.append((total // 2, total - total // 2))
    return np.pad(x, (*widths, (0, 0)), constant_values=value)


def max_pool_3x3_by_2(x: np.ndarray) -> np.ndarray:
    x = pad_same(x, 3, 2, -np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))  # pyright: ignore
    return windows[:, ::2, ::2].max(axis=(-2, -1))


@pytest.mark.parametrize("switch", ["0", "1"])
def test_resnet_v1_equals_its_formula(
    switch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(winograd.SWITCH, switch)
    unit = "resnet_v1_50/block1/unit_1/bottleneck_v1"
    kernels = {
        "resnet_v1_50/conv1": (7, 7, 3, 64),
        f"{unit}/shortcut": (1, 1, 64, 256),
        f"{unit}/conv1": (1, 1, 64, 64),
        f"{unit}/conv2": (3, 3, 64, 64),
        f"{unit}/conv3": (1, 1, 64, 256),
    }
    shapes: dict[str, tuple[int, ...]] = {}
    for scope, shape in kernels.items():
        shapes[f"{scope}/weights"] = shape
        shapes |= batch_norm_shapes(f"{scope}/BatchNorm", shape[-1], gamma=True)
    weights = random_weights(shapes)

    def layer(x: np.ndarray, scope: str, stride: int = 1) -> np.ndarray:
        kernel = weights[f"{scope}/weights"].astype(np.float64)
        border = kernel.shape[0] // 2
        x = np.pad(x, ((0, 0), (border, border), (border, border), (0, 0)))
        x = reference.convolve(x, kernel, stride)
        return batch_norm(x, weights, f"{scope}/BatchNorm", 1e-5)

    images = pictures()
    x = images.astype(np.float64) - reference.MEANS
    conv1 = reference.relu(layer(x, "resnet_v1_50/conv1", 2))
    x = max_pool_3x3_by_2(conv1)
    y = reference.relu(layer(x, f"{unit}/conv1"))
    y = reference.relu(layer(y, f"{unit}/conv2"))
    expected = reference.relu(layer(x, f"{unit}/shortcut") + layer(y, f"{unit}/conv3"))

    file = weight_files.save_v2(tmp_path / "resnet_v1_50.ckpt", weights)
    network = build_loss_network("resnet_v1_50", file, ["resnet_v1_50/conv1", unit])
    features = network(tf.constant(images))
    assert_close(features["resnet_v1_50/conv1"], conv1, EXACT)
    assert_close(features[unit], expected, EXACT)
    brain = build_loss_network("resnet_v1_50", file, [unit], dtype="bfloat16")
    # The same rounding at four layers, with statistics kept in float32; observed 0.006.
    assert_close(brain(tf.constant(images))[unit], expected, 0.012)


@pytest.mark.parametrize("switch", ["0", "1"])
def test_resnet_v2_normalises_before_it_convolves(
    switch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(winograd.SWITCH, switch)
    unit = "resnet_v2_50/block1/unit_1/bottleneck_v2"
    weights = random_weights(
        {
            "resnet_v2_50/conv1/weights": (7, 7, 3, 64),
            "resnet_v2_50/conv1/biases": (64,),
            **batch_norm_shapes(f"{unit}/preact", 64, gamma=True),
            f"{unit}/shortcut/weights": (1, 1, 64, 256),
            f"{unit}/shortcut/biases": (256,),
        }
    )
    images = pictures()
    x = np.pad(images.astype(np.float64) / 127.5 - 1, ((0, 0), (3, 3), (3, 3), (0, 0)))
    x = reference.convolve(x, weights["resnet_v2_50/conv1/weights"], 2)
    x = max_pool_3x3_by_2(x + weights["resnet_v2_50/conv1/biases"])
    x = reference.relu(batch_norm(x, weights, f"{unit}/preact", 1e-5))
    expected = x @ weights[f"{unit}/shortcut/weights"][0, 0] + weights[f"{unit}/shortcut/biases"]

    file = weight_files.save_v2(tmp_path / "resnet_v2_50.ckpt", weights)
    network = build_loss_network("resnet_v2_50", file, [f"{unit}/shortcut"])
    assert_close(network(tf.constant(images))[f"{unit}/shortcut"], expected, EXACT)


def test_inception_v2_equals_its_formula(tmp_path: Path) -> None:
    weights = random_weights(
        {
            "InceptionV2/Conv2d_1a_7x7/depthwise_weights": (7, 7, 3, 8),
            "InceptionV2/Conv2d_1a_7x7/pointwise_weights": (1, 1, 24, 64),
            "InceptionV2/Conv2d_1a_7x7/biases": (64,),
            "InceptionV2/Conv2d_2b_1x1/weights": (1, 1, 64, 64),
            **batch_norm_shapes("InceptionV2/Conv2d_2b_1x1/BatchNorm", 64, gamma=False),
        }
    )
    images = pictures()
    x = images.astype(np.float64) / 127.5 - 1
    depthwise = weights["InceptionV2/Conv2d_1a_7x7/depthwise_weights"].astype(np.float64)
    pointwise = weights["InceptionV2/Conv2d_1a_7x7/pointwise_weights"].reshape(3, 8, 64)
    kernel = np.einsum("hwcm,cmo->hwco", depthwise, pointwise)
    x = reference.convolve(pad_same(x, 7, 2), kernel, 2)
    x = max_pool_3x3_by_2(reference.relu(x + weights["InceptionV2/Conv2d_1a_7x7/biases"]))
    x = x @ weights["InceptionV2/Conv2d_2b_1x1/weights"][0, 0].astype(np.float64)
    scope = "InceptionV2/Conv2d_2b_1x1/BatchNorm"
    expected = reference.relu(batch_norm(x, weights, scope, 1e-3))

    file = weight_files.save_v2(tmp_path / "inception_v2.ckpt", weights)
    layers = ["Conv2d_2b_1x1", "inception_v2/Conv2d_2b_1x1", "InceptionV2/Conv2d_2b_1x1"]
    features = build_loss_network("inception_v2", file, layers)(tf.constant(images))
    for layer in layers:
        assert_close(features[layer], expected, EXACT)


@pytest.mark.parametrize("name", ["alexnet_v2", "overfeat"])
def test_networks_with_an_11x11_first_layer_equal_their_formula(name: str, tmp_path: Path) -> None:
    weights = random_weights(
        {f"{name}/conv1/weights": (11, 11, 3, 64), f"{name}/conv1/biases": (64,)}
    )
    images = pictures()
    x = images.astype(np.float64) - reference.MEANS
    x = reference.convolve(x, weights[f"{name}/conv1/weights"], 4)
    expected = reference.relu(x + weights[f"{name}/conv1/biases"])
    file = weight_files.save_v2(tmp_path / f"{name}.ckpt", weights)
    network = build_loss_network(name, file, [f"{name}/conv1"])
    assert_close(network(tf.constant(images))[f"{name}/conv1"], expected, EXACT)


def test_every_network_of_the_table_exists_in_tf_slim() -> None:
    from tf_slim import nets

    modules = {
        "vgg": nets.vgg,
        "alexnet": nets.alexnet,
        "overfeat": nets.overfeat,
        "inception": nets.inception,
        "resnet_v1": nets.resnet_v1,
        "resnet_v2": nets.resnet_v2,
    }
    names = [name for name in LOSS_MODELS if name != MINI]
    assert len(names) == 16
    for name in names:
        assert any(name.startswith(k) and callable(getattr(m, name, 0)) for k, m in modules.items())


# With the real weights.


@pytest.mark.shared
def test_real_weights_give_finite_content_and_style_losses() -> None:
    file = SHARED / "pretrained" / "vgg_16.ckpt"
    network = build_loss_network("vgg_16", file, STYLE_LAYERS, exclude_scopes="vgg_16/fc")
    photo, other = (tf.constant(pictures(64, 48, 1)), tf.constant(pictures(64, 48, 1)[:, ::-1]))
    ours, theirs = network(photo), network(other)
    for layer in STYLE_LAYERS:
        content = np.mean((ours[layer] - theirs[layer]) ** 2)
        grams = [reference.gram(features[layer].numpy()[0]) for features in (ours, theirs)]
        style = np.mean((grams[0] - grams[1]) ** 2)
        assert np.isfinite(content) and content > 0
        assert np.isfinite(style) and style > 0


@pytest.mark.shared
def test_real_shallow_weights_serve_shallow_layers_only() -> None:
    file = SHARED / "pretrained" / "vgg_19_conv1-conv3.ckpt"
    network = build_loss_network("vgg_19", file, ["vgg_19/conv3/conv3_4"])
    features = network(tf.constant(pictures(64, 48, 1)))["vgg_19/conv3/conv3_4"]
    assert np.isfinite(features).all()
    with pytest.raises(WeightsError, match="no weights for layer vgg_19/conv4/conv4_1"):
        build_loss_network("vgg_19", file, ["vgg_19/conv4/conv4_1"])
