from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import tensorflow as tf
import weight_files
from nets import operations, random_map, random_weights

from fast_style import hardware, layers, winograd
from fast_style.checkpoints import Model
from fast_style.loss_net import build_loss_network
from fast_style.stylize import Stylizer
from fast_style.transform_net import init_weights, transform

CONV2 = ("conv1/conv1_1", "conv1/conv1_2", "conv2/conv2_1", "conv2/conv2_2")


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the processor, and however few the channels."""
    monkeypatch.setenv(winograd.SWITCH, "1")


def error(got: object, exact: np.ndarray) -> float:
    """The largest difference, in units of the exact numbers' deviation."""
    return float(np.abs(np.asarray(got, np.float64) - exact).max() / exact.std())


@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("size", [(3, 3), (4, 7), (6, 6), (9, 18), (14, 5)])
def test_it_equals_the_sum(size: tuple[int, int], same: bool) -> None:
    x, kernel = random_map(2, *size, 32), random_map(3, 3, 32, 20, seed=1)
    around = ((0, 0), (1, 1), (1, 1), (0, 0)) if same else ((0, 0),) * 4
    exact = reference.convolve(np.pad(x.astype(np.float64), around), kernel.astype(np.float64))
    got = winograd.convolve(
        tf.constant(x), winograd.transform_kernel(tf.constant(kernel)), same=same
    )
    assert got.shape == exact.shape
    assert error(got, exact) < 5e-5  # Of 128 channels 1.5e-5 were observed.


@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("size", [(3, 3), (4, 7), (9, 18)])
def test_its_gradients_are_the_transposes(size: tuple[int, int], same: bool) -> None:
    # For every x' and k': <y(x', k), w> = <x', dx> and <y(x, k'), w> = <k', dk>.
    around = ((0, 0), (1, 1), (1, 1), (0, 0)) if same else ((0, 0),) * 4

    def plain(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        return reference.convolve(np.pad(x.astype(np.float64), around), kernel.astype(np.float64))

    x, kernel = random_map(2, *size, 6), random_map(3, 3, 6, 5, seed=1)
    inputs = [tf.constant(x), tf.constant(kernel)]
    weight = random_map(*plain(x, kernel).shape, seed=2)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        y = winograd.convolve(inputs[0], winograd.transform_kernel(inputs[1]), same=same)
        product = tf.reduce_sum(y * weight)
    dx, dk = (np.asarray(part, np.float64) for part in tape.gradient(product, inputs))
    assert dx.shape == x.shape and dk.shape == kernel.shape
    for seed in range(3, 7):
        other_x, other_kernel = random_map(*x.shape, seed=seed), random_map(3, 3, 6, 5, seed=seed)
        scale = float(np.linalg.norm(weight) * np.linalg.norm(other_x))
        exact = np.sum(plain(other_x, kernel) * weight)
        assert np.sum(other_x * dx) == pytest.approx(exact, abs=1e-5 * scale)
        exact = np.sum(plain(x, other_kernel) * weight)
        assert np.sum(other_kernel * dk) == pytest.approx(exact, abs=1e-5 * scale)


def test_one_trace_serves_all_sizes() -> None:
    points = winograd.transform_kernel(tf.constant(random_map(3, 3, 4, 8)))

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 4])], autograph=False)
    def convolve(x: tf.Tensor) -> tf.Tensor:
        return winograd.convolve(x, points, same=True)

    for size in (5, 16):
        assert convolve(tf.constant(random_map(1, size, size + 1, 4))).shape == (
            1,
            size,
            size + 1,
            8,
        )
    assert convolve.experimental_get_tracing_count() == 1


@pytest.mark.usefixtures("always")
def test_a_net_is_traced_with_one_body_of_operations_for_all_its_convolutions() -> None:
    weights = init_weights("johnson", width=0.25)
    net = tf.function(
        lambda x: transform("johnson", weights, x, tf.ones([1, 1])), autograph=False
    ).get_concrete_function(tf.TensorSpec([1, None, None, 3]))
    graph = net.graph.as_graph_def()
    bodies = [f for f in graph.library.function if "winograd_forward" in f.signature.name]
    calls = [n for n in graph.node if "winograd_forward" in n.attr["f"].func.name]
    assert (len(bodies), len(calls)) == (1, 10)


def test_it_is_used_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(winograd.SWITCH, raising=False)
    slow, in_halves = [True], [False]
    monkeypatch.setattr(winograd, "multiplies_slowly", lambda: slow[0])
    monkeypatch.setattr(winograd, "multiplies_in_halves", lambda: in_halves[0])
    wide = [3, 3, 128, 128]
    assert winograd.pays(tf.float32, wide)
    assert winograd.pays(tf.float32, [3, 3, 48, 96])
    assert not winograd.pays(tf.float32, [3, 3, 16, 32])
    assert not winograd.pays(tf.float32, [5, 5, 128, 128])
    assert not winograd.pays(tf.float32, [3, 3, None, 128])
    assert not winograd.pays(tf.bfloat16, wide)
    with hardware.portable():
        assert not winograd.pays(tf.float32, wide)
    slow[0] = False
    assert not winograd.pays(tf.float32, wide)
    in_halves[0] = True
    assert winograd.pays(tf.float32, wide)
    assert not winograd.pays(tf.float32, [3, 3, 64, 128])
    assert not winograd.pays(tf.bfloat16, wide)
    in_halves[0] = False
    monkeypatch.setenv(winograd.SWITCH, "1")
    assert winograd.pays(tf.float32, [3, 3, 16, 32])
    slow[0] = True
    monkeypatch.setenv(winograd.SWITCH, "0")
    assert not winograd.pays(tf.float32, wide)


def both_ways(
    monkeypatch: pytest.MonkeyPatch, run: Callable[[], list[np.ndarray]]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """What a function gives plainly and by Winograd's algorithm."""
    results = []
    for switch in "01":
        monkeypatch.setenv(winograd.SWITCH, switch)
        results.append(run())
    return list(zip(*results, strict=True))


@pytest.mark.parametrize("arch", ["johnson", "slim2016"])
def test_a_transform_net_and_its_gradients_stay_what_they_were(
    arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    width = {"johnson": 0.5, "slim2016": 1.0}[arch]
    initial = random_weights(arch, width=width)
    photo = np.random.default_rng(0).uniform(0, 255, (2, 37, 50, 3)).astype(np.float32)
    pull = random_map(*photo.shape, seed=1)

    def run() -> list[np.ndarray]:
        weights = {name: tf.constant(value) for name, value in initial.items()}
        with tf.GradientTape() as tape:
            tape.watch(weights)
            styled = transform(arch, weights, tf.constant(photo), tf.ones([2, 1]))
            product = tf.reduce_sum(styled * pull)
        gradients = tape.gradient(product, weights)
        return [styled.numpy(), *(gradients[name].numpy() for name in weights)]

    (plain_picture, picture), *gradients = both_ways(monkeypatch, run)
    assert np.abs(picture - plain_picture).max() < 0.05  # Levels of 255.
    assert any((plain != ours).any() for plain, ours in gradients)
    whole = np.linalg.norm([np.linalg.norm(plain) for plain, _ in gradients])
    for plain, ours in gradients:
        # The last norm of a block takes out any offset: a gradient of nothing but rounding.
        # Rounding carries a few numbers across a ReLU's kink: 2e-3 observed.
        assert np.linalg.norm(ours - plain) <= 5e-3 * np.linalg.norm(plain) + 1e-6 * whole


@pytest.mark.usefixtures("always")
def test_a_loss_network_equals_its_formula(tmp_path: Path) -> None:
    weights = weight_files.random_vgg("vgg_16", "conv2_2")
    file = weight_files.save_safetensors(tmp_path / "vgg_16.safetensors", weights)
    images = np.random.default_rng(0).uniform(0, 255, (2, 34, 41, 3)).astype(np.float32)
    exact = reference.vgg(weights, "vgg_16", CONV2, images)
    # Also a layer that a later part of the graph does not read.
    wanted = ("conv1/conv1_2", "conv2/conv2_2", "pool1", "conv2/conv2_1")
    network = build_loss_network("vgg_16", file, wanted)
    features = network(tf.constant(images))
    for layer in ("conv1/conv1_2", "conv2/conv2_1", "conv2/conv2_2"):
        assert error(features[layer], exact[layer]) < 1e-4, layer
    pooled = tf.nn.max_pool2d(features["conv1/conv1_2"], 2, 2, "VALID")
    np.testing.assert_array_equal(features["pool1"], pooled)
    traced = tf.function(lambda x: network(x), autograph=False).get_concrete_function(
        tf.TensorSpec([None, None, None, 3])
    )
    nodes = operations(traced.graph)
    assert not [node for node in nodes if node.op == "Conv2D"]
    calls = [node for node in nodes if "winograd_forward" in node.attr["f"].func.name]
    assert len(calls) == len(CONV2)


def test_a_persistent_tape_keeps_nothing_of_the_way_forward() -> None:
    points = winograd.transform_kernel(tf.constant(random_map(3, 3, 4, 8)))

    @tf.function(input_signature=[tf.TensorSpec([1, 9, 9, 4])], autograph=False)
    def gradient(x: tf.Tensor) -> Any:
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            y = winograd.convolve(x, points)
        return tape.gradient(y, x)

    functions = gradient.get_concrete_function().graph.as_graph_def().library.function
    names = [function.signature.name for function in functions]
    assert any(name.startswith("__inference_winograd_forward") for name in names)
    assert not [name for name in names if name.startswith("__forward")]


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("arch", ["johnson", "slim2016"])
def test_exact_tiles_stay_within_a_level_of_the_whole(arch: str) -> None:
    width = {"johnson": 0.5, "slim2016": 1.0}[arch]
    stylizer = Stylizer(
        Model(arch, width, ("random",), random_weights(arch, width=width)), precision="float32"
    )
    photo = np.random.default_rng(0).integers(0, 256, (175, 213, 3), np.uint8)
    whole = stylizer.stylize(photo, tile="off").astype(int)
    tiled = stylizer.stylize(photo, tile=96).astype(int)
    assert np.abs(tiled - whole).max() <= 1


@pytest.mark.parametrize("switch", ["0", "1"])
def test_upsampling_has_the_same_gradients_on_every_processor(
    switch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(winograd.SWITCH, switch)
    x, kernel = tf.constant(random_map(2, 5, 7, 6)), tf.constant(random_map(3, 3, 6, 4, seed=1))
    weight = random_map(2, 10, 14, 4, seed=2)

    def gradients(enlarge: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> list[np.ndarray]:
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            product = tf.reduce_sum(enlarge(x, kernel) * weight)
        return [np.asarray(part) for part in tape.gradient(product, [x, kernel])]

    def plain(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        large = tf.repeat(tf.repeat(x, 2, axis=1), 2, axis=2)
        padded = tf.pad(large, [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT")
        return tf.nn.conv2d(padded, kernel, 1, "VALID")

    for got, exact in zip(gradients(layers.nearest_x2_conv), gradients(plain), strict=True):
        np.testing.assert_allclose(got, exact, rtol=1e-4, atol=1e-4)
