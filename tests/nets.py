"""Small untrained models, whose weights differ between styles and fit 16 bits exactly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from fast_style.checkpoints import Model, save_model
from fast_style.transform_net import init_weights, transform

STYLES = ("waves", "glass", "ink")


def random_map(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal float32 numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def operations(graph: tf.Graph) -> list[Any]:
    """The nodes of a graph and of all functions that it calls."""
    description = graph.as_graph_def()
    bodies = [description.node, *(body.node_def for body in description.library.function)]
    return [node for body in bodies for node in body]


def random_weights(
    arch: str, *, width: float = 1.0, styles: int = 1, seed: int = 0
) -> dict[str, np.ndarray]:
    """Weights of pictures with contrast; scales, offsets and biases away from 1 and 0.

    Fresh ones give nearly grey pictures, which hardly show what is computed wrongly.
    """
    rng = np.random.default_rng(seed)
    weights = {}
    for name, value in init_weights(arch, width=width, styles=styles, seed=seed).items():
        if name == "out/weight":
            value = 10.0 * value
        if value.ndim == 2:
            value = value + 0.3 * rng.standard_normal(value.shape)
        weights[name] = value.astype(np.float16).astype(np.float32)
    return weights


def johnson(styles: int = 1, *, naming: str = "candy") -> Model:
    """The default net, an eighth as wide."""
    weights = random_weights("johnson", width=0.125, styles=styles)
    return Model("johnson", 0.125, STYLES[:styles], weights, {"config": {"naming": naming}})


def slim2016() -> Model:
    """The 2016 net, which has one width."""
    return Model("slim2016", 1.0, STYLES[:1], random_weights("slim2016"))


def stylize_eagerly(model: Model, images: np.ndarray) -> np.ndarray:
    """float32 [N, H, W, 3] of a model of one style, without a graph."""
    weights = {name: tf.constant(value) for name, value in model.weights.items()}
    return transform(model.arch, weights, tf.constant(images), tf.ones([len(images), 1])).numpy()


def rewrite_model(
    path: Path,
    model: Model,
    *,
    header: Mapping[str, str | None] | None = None,
    weights: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Writes a model file and then changes its header and its weights; None leaves one out."""
    save_model(path, model)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    metadata: dict[str, Any] = json.loads(content[8 : 8 + length])["__metadata__"]
    metadata.update(header or {})
    tensors = weights if weights is not None else model.weights
    entries: dict[str, Any] = {"__metadata__": {k: v for k, v in metadata.items() if v is not None}}
    data = b""
    for name, value in tensors.items():
        half = np.ascontiguousarray(value, np.float16)
        entries[name] = {
            "dtype": "F16",
            "shape": list(half.shape),
            "data_offsets": [len(data), len(data) + half.nbytes],
        }
        data += half.tobytes()
    text = json.dumps(entries).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path
