"""Random weights of loss networks, and writers of the public formats that hold them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import numpy as np
import safetensors.numpy
import scipy.io
import tensorflow as tf

Weights = Mapping[str, np.ndarray]

WIDTHS = (64, 128, 256, 512, 512)
CONVOLUTIONS = {"vgg_16": (2, 2, 3, 3, 3), "vgg_19": (2, 2, 4, 4, 4)}


def vgg_layers(network: str, deepest: str) -> list[str]:
    """'conv1_1' to `deepest`."""
    layers = [
        f"conv{block}_{i}"
        for block, count in enumerate(CONVOLUTIONS[network], 1)
        for i in range(1, count + 1)
    ]
    return layers[: layers.index(deepest) + 1]


def scope_of(network: str, layer: str) -> str:
    return f"{network}/{layer.split('_')[0]}/{layer}"


def random_vgg(network: str, deepest: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights under TF-Slim's names, scaled so that features neither grow nor vanish."""
    rng = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {}
    channels = 3
    for layer in vgg_layers(network, deepest):
        width = WIDTHS[int(layer[4]) - 1]
        scale = np.float32(np.sqrt(2 / (9 * channels)))
        kernel = rng.standard_normal((3, 3, channels, width), np.float32) * scale
        weights[f"{scope_of(network, layer)}/weights"] = kernel
        weights[f"{scope_of(network, layer)}/biases"] = rng.standard_normal(width, np.float32)
        channels = width
    return weights


def _layers_of(weights: Weights, *, bgr: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    layers = {}
    for name, kernel in weights.items():
        if name.endswith("/weights"):
            layer = name.split("/")[-2]
            if bgr and layer == "conv1_1":
                kernel = kernel[:, :, ::-1]
            layers[layer] = (kernel, weights[name.replace("/weights", "/biases")])
    return layers


def _save_checkpoint(path: Path, weights: Weights, version: int) -> Path:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        slots = {
            name: tf.compat.v1.get_variable(
                name, value.shape, initializer=tf.compat.v1.zeros_initializer(), use_resource=False
            )
            for name, value in weights.items()
        }
        for name, value in weights.items():
            slots[name].load(value, session)
        saver = tf.compat.v1.train.Saver(slots, write_version=version)
        saver.save(session, str(path), write_meta_graph=False, write_state=False)
    return path


def save_v1(path: Path, weights: Weights) -> Path:
    return _save_checkpoint(path, weights, tf.compat.v1.train.SaverDef.V1)


def save_v2(path: Path, weights: Weights) -> Path:
    return _save_checkpoint(path, weights, tf.compat.v1.train.SaverDef.V2)


def save_npz(path: Path, weights: Weights) -> Path:
    np.savez(path, **weights)  # pyright: ignore[reportArgumentType]  # Arrays, not allow_pickle.
    return path


def save_safetensors(path: Path, weights: Weights) -> Path:
    safetensors.numpy.save_file(dict(weights), path)
    return path


def save_keras(
    path: Path, weights: Weights, names: str = "{0}/{0}_W_1:0 {0}/{0}_b_1:0", *, numbered=False
) -> Path:
    """Writes BGR kernels; `names` places the kernel and the bias of a layer."""
    with h5py.File(path, "w") as file:
        for number, (layer, pair) in enumerate(_layers_of(weights, bgr=True).items()):
            keras_name = f"block{layer[4]}_conv{layer[6]}"
            if numbered:
                keras_name = f"conv2d_{number}" if number else "conv2d"
            for name, value in zip(names.split(), pair, strict=True):
                file[name.format(keras_name)] = value
        file.create_dataset("block9_note/ignored", data=np.zeros((2, 2)))
    return path


def save_matconvnet(
    path: Path, weights: Weights, *, bgr: bool = False, old_release: bool = False
) -> Path:
    """Writes [width, height, in, out] kernels, RGB as published or BGR as Caffe's."""
    mean = np.array([123.68, 116.779, 103.939])
    average = np.broadcast_to(mean[::-1] if bgr else mean, (4, 4, 3))
    layers = []
    for layer, (kernel, bias) in _layers_of(weights, bgr=bgr).items():
        turned = kernel.transpose(1, 0, 2, 3)
        if old_release:
            entry = {"filters": turned, "biases": bias[None]}
        else:
            pair = np.empty(2, object)
            pair[:] = [turned, bias[:, None]]
            entry = {"weights": pair}
        layers += [{"name": layer, "type": "conv", **entry}, {"name": "relu", "type": "relu"}]
    cell = np.empty(len(layers), object)
    cell[:] = layers
    normalization = {"averageImage": average}
    extra = (
        {"normalization": normalization}
        if old_release
        else {"meta": {"normalization": normalization}}
    )
    scipy.io.savemat(path, {"layers": cell, **extra})
    return path


FORMATS: dict[str, tuple[str, Callable[[Path, Weights], Path]]] = {
    "TF-Slim V1": ("v1.ckpt", save_v1),
    "TF-Slim V2": ("v2.ckpt", save_v2),
    "Keras": ("notop.h5", save_keras),
    "MatConvNet": ("verydeep.mat", save_matconvnet),
    "npz": ("weights.npz", save_npz),
    "safetensors": ("weights.safetensors", save_safetensors),
}
