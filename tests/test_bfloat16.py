"""bfloat16 on processors that do not multiply it: through float32, rounded as by those that do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import reference
import tensorflow as tf
import weight_files
from nets import operations, random_map

from fast_style import hardware, layers, winograd
from fast_style.checkpoints import Model
from fast_style.loss_models import BUNDLED
from fast_style.loss_net import build_loss_network
from fast_style.objective import Objective
from fast_style.saved_model import write_saved_model
from fast_style.train_state import StepSettings, TrainState, make_train_step
from fast_style.transform_net import init_weights, transform


def pretend(monkeypatch: pytest.MonkeyPatch, *, emulated: bool) -> None:
    """Makes this a processor that lacks instructions for bfloat16, or one that has them."""
    monkeypatch.setattr(hardware, "emulates_bfloat16", lambda: emulated)


def convolution_types(function: Callable[..., Any], *signature: tf.TensorSpec) -> list[tf.DType]:
    """Traces a function and lists what each of its convolutions computes in."""
    traced = tf.function(function, autograph=False).get_concrete_function(*signature)
    nodes = [node for node in operations(traced.graph) if node.op.startswith("Conv2D")]
    return [tf.dtypes.as_dtype(node.attr["T"].type) for node in nodes]


def rounded(x: np.ndarray) -> np.ndarray:
    return tf.cast(tf.cast(x, tf.bfloat16), tf.float32).numpy()


@pytest.mark.parametrize("switch", ["0", "1"])
@pytest.mark.parametrize(
    ("size", "stride", "padding"), [(3, 1, "VALID"), (3, 1, "SAME"), (9, 2, "VALID")]
)
def test_factors_and_sum_are_rounded_once(
    monkeypatch: pytest.MonkeyPatch,
    switch: str,
    size: int,
    stride: int,
    padding: Literal["VALID", "SAME"],
) -> None:
    pretend(monkeypatch, emulated=True)
    monkeypatch.setenv(winograd.SWITCH, switch)
    x, kernel = random_map(2, 13, 15, 8), random_map(size, size, 8, 6, seed=1)
    border = 1 if padding == "SAME" else 0
    padded = np.pad(rounded(x), ((0, 0), (border, border), (border, border), (0, 0)))
    exact = reference.convolve(padded.astype(np.float64), rounded(kernel), stride)
    weight = rounded(random_map(*exact.shape, seed=2))
    maps, kernel = tf.cast(x, tf.bfloat16), tf.constant(kernel)
    with tf.GradientTape() as tape:
        tape.watch([maps, kernel])
        y = layers.conv(maps, kernel, stride, padding)
        product = tf.reduce_sum(tf.cast(y, tf.float32) * weight)
    assert y.dtype == tf.bfloat16
    # Half a unit in the last of 8 places; and float32's own rounding, which may tip the balance.
    np.testing.assert_allclose(tf.cast(y, tf.float32), exact, rtol=2**-8, atol=1e-4)
    found: Any = tape.gradient(product, [maps, kernel])
    assert [gradient.dtype for gradient in found] == [tf.bfloat16, tf.float32]
    with tf.GradientTape() as tape:
        wide, wide_kernel = tf.constant(rounded(x)), tf.constant(rounded(kernel.numpy()))
        tape.watch([wide, wide_kernel])
        product = tf.reduce_sum(tf.nn.conv2d(wide, wide_kernel, stride, padding) * weight)
    plain: Any = tape.gradient(product, [wide, wide_kernel])
    for got, expected in zip(found, plain, strict=True):
        np.testing.assert_allclose(tf.cast(got, tf.float32), expected, rtol=2**-8, atol=1e-4)


@pytest.mark.parametrize("arch", ["johnson", "slim2016"])
def test_nets_convolve_in_what_the_processor_multiplies(
    monkeypatch: pytest.MonkeyPatch, arch: str
) -> None:
    weights = init_weights(arch, width=0.25 if arch == "johnson" else 1.0)

    def gradients(images: tf.Tensor) -> Any:
        values = {name: tf.constant(value) for name, value in weights.items()}
        with tf.GradientTape() as tape:
            tape.watch(values)
            styled = transform(arch, values, images, tf.ones([1, 1]), dtype="bfloat16")
        return tape.gradient(styled, values)

    spec = tf.TensorSpec([1, 32, 32, 3])
    pretend(monkeypatch, emulated=False)
    native = convolution_types(gradients, spec)
    assert set(native) == {tf.dtypes.bfloat16}
    pretend(monkeypatch, emulated=True)
    assert convolution_types(gradients, spec) == [tf.dtypes.float32] * len(native)
    with hardware.portable():
        assert convolution_types(gradients, spec) == native


@pytest.mark.parametrize("switch", ["0", "1"])
def test_loss_networks_convolve_in_what_the_processor_multiplies(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, switch: str
) -> None:
    monkeypatch.setenv(winograd.SWITCH, switch)
    weights = weight_files.random_vgg("vgg_16", "conv2_2")
    file = weight_files.save_safetensors(tmp_path / "vgg_16.safetensors", weights)
    layer = "vgg_16/conv2/conv2_2"
    images = np.random.default_rng(0).uniform(0, 255, (1, 34, 41, 3)).astype(np.float32)
    spec = tf.TensorSpec([None, None, None, 3])
    features = []
    for emulated in (False, True):
        pretend(monkeypatch, emulated=emulated)
        network = build_loss_network("vgg_16", file, [layer], dtype="bfloat16")
        found = network(tf.constant(images))[layer]
        assert found.dtype == tf.bfloat16
        features.append(tf.cast(found, tf.float32).numpy())
        types = convolution_types(lambda images, net=network: net(images), spec)
        by_winograd = emulated and switch == "1"
        expected = tf.float32 if emulated else tf.bfloat16
        assert set(types) == (set() if by_winograd else {expected})
        with hardware.portable():
            types = convolution_types(lambda images, net=network: net(images), spec)
        assert set(types) == {tf.bfloat16}
    np.testing.assert_allclose(features[1], features[0], atol=0.01 * features[0].max())
    assert features[0].max() > 0


@pytest.mark.parametrize("xla", [False, True])
def test_a_step_convolves_in_what_the_processor_multiplies_and_leaves_it_to_xla(
    monkeypatch: pytest.MonkeyPatch, xla: bool
) -> None:
    pretend(monkeypatch, emulated=True)
    layer = "vgg_mini/conv2/conv2_2"
    objective = Objective(
        network=build_loss_network("vgg_mini", BUNDLED, [layer], dtype="bfloat16"),
        content_layers=(layer,),
        target_grams={layer: np.zeros([1, 96, 96], np.float32)},
        style_weights=np.ones([1], np.float32),
        content_weight=1.0,
        tv_weight=0.0,
    )
    settings = StepSettings(
        arch="johnson", precision="bfloat16", learning_rate=1e-3, image_size=32, xla=xla
    )
    state = TrainState(init_weights("johnson", width=0.25))
    step = make_train_step(state, objective, settings, batch_size=1)
    types = convolution_types(
        lambda photos, mix: step(photos, mix)[0],
        tf.TensorSpec([1, 32, 32, 3], tf.uint8),
        tf.TensorSpec([1, 1]),
    )
    assert set(types) == {tf.bfloat16 if xla else tf.float32}


def test_a_saved_model_keeps_bfloat16_for_the_machine_that_serves(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretend(monkeypatch, emulated=True)
    model = Model("johnson", 0.25, ("random",), init_weights("johnson", width=0.25))
    write_saved_model(model, tmp_path / "saved", name="random", precision="bfloat16", card={})
    graph = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"].graph
    nodes = [node for node in operations(graph) if node.op == "Conv2D"]
    assert nodes and {node.attr["T"].type for node in nodes} == {tf.bfloat16.as_datatype_enum}
