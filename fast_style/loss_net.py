"""Frozen loss networks: pictures to {layer: features}.

TF-Slim's networks come from `slim_net`, the distilled one from `mini_net`; all are used alike.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import tensorflow as tf

from fast_style import hardware
from fast_style.errors import ConfigError
from fast_style.loss_models import LOSS_MODELS, MINI, VGG_BLOCKS
from fast_style.loss_weights import resolve_weights_file, weights_sha256
from fast_style.mini_net import MiniNetwork
from fast_style.slim_net import SlimNetwork

DTYPES = ("float32", "bfloat16")
POOLINGS = ("max", "avg")


class LossNetwork:
    """A network: pictures in, features of chosen layers out.

    Those of `build_loss_network` are frozen, immutable and safe to share; distillation's follows
    the weights that it is learning.

    Attributes:
      name: One of `loss_models.LOSS_MODELS`, such as 'vgg_16'.
      layers: The layers it was built for, as they were asked for.
      channels: {layer: number of channels that style losses divide by}, for layers where it is not
        that of the features; see `mini_net`.
      metrics: {layer: [C, C] float32, what losses are to multiply its features by}, for layers of
        distilled networks; see `mini_net`.
      weights_file: The file its weights came from; `Path()` if they are in no file yet.
      dtype: 'float32' or 'bfloat16': what it computes in, and returns.
      pooling: 'max' or 'avg'.
    """

    def __init__(
        self,
        name: str,
        endpoints: Mapping[str, str],
        features: Callable[[tf.Tensor, Sequence[str]], Sequence[tf.Tensor]],
        *,
        channels: Mapping[str, int],
        metrics: Mapping[str, tf.Tensor],
        weights_file: Path,
        dtype: str,
        pooling: str,
    ) -> None:
        """Keeps its parts; see `build_loss_network` for what they mean."""
        self.name = name
        self.layers = tuple(endpoints)
        self.channels = dict(channels)
        self.metrics = dict(metrics)
        self.weights_file = weights_file
        self.dtype = dtype
        self.pooling = pooling
        self._endpoints = dict(endpoints)
        self._features = features
        self._functions: dict[tuple[tuple[str, ...], bool], Any] = {}

    def __call__(
        self, images: tf.Tensor, layers: Sequence[str] | None = None
    ) -> dict[str, tf.Tensor]:
        """Computes features, down to the deepest of the layers asked for and no further.

        Works eagerly and inside a `tf.function`, and is differentiable with respect to `images`.
        The network's own preprocessing happens here, in float32.

        Args:
          images: [N, H, W, 3] RGB 0..255, of any number type. N, H and W may be unknown while
            tracing. From 32 px a side; networks that do not pad need more for their deepest
            convolutions: alexnet_v2 35 px, overfeat 55 px, inception_v3 75 px.
          layers: Some of `self.layers`; none means all of them.

        Returns:
          Layer to [N, H', W', C] features of type `self.dtype`, after the ReLU where there is one.

        Raises:
          ValueError: If `images` is not [N, H, W, 3] or `layers` names a layer that it was not
            built for.
        """
        wanted = self.layers if layers is None else tuple(layers)
        if unknown := [layer for layer in wanted if layer not in self._endpoints]:
            raise ValueError(f"this network was built for {self.layers}, not for {unknown}")
        images = tf.cast(images, tf.float32)
        if not images.shape.is_compatible_with((None, None, None, 3)):
            raise ValueError(f"images must be [N, H, W, 3], got {images.shape}")
        function = self._function(wanted)
        if tf.executing_eagerly():
            # One trace serves all sizes; inside a trace the caller's static shape is kept.
            spec = tf.TensorSpec((None, None, None, 3), tf.float32)
            function = function.get_concrete_function(spec)
        return dict(zip(wanted, function(images), strict=True))

    @functools.cached_property
    def sha256(self) -> str:
        """The SHA-256 of the weights file, read again at first use."""
        return weights_sha256(self.weights_file)

    def _function(self, layers: tuple[str, ...]) -> Any:
        """Returns images to features as one function, so that gradient tapes see through it."""
        key = (layers, hardware.is_portable())
        if key not in self._functions:
            endpoints = [self._endpoints[layer] for layer in layers]

            @tf.function(autograph=False)
            def features(images: tf.Tensor) -> list[tf.Tensor]:
                return list(self._features(images, endpoints))

            self._functions[key] = features
        return self._functions[key]


def build_loss_network(
    name: str,
    weights_file: str | Path,
    layers: Sequence[str],
    *,
    dtype: Literal["float32", "bfloat16"] = "float32",
    pooling: Literal["max", "avg"] = "max",
    exclude_scopes: str = "",
    key: str = "loss_model_file",
) -> LossNetwork:
    """Builds a frozen loss network and fills it with weights from a file.

    Args:
      name: One of `loss_models.LOSS_MODELS`.
      weights_file: A file that `fast_style.loss_weights` reads. If it does not exist, one of the
        same stem in another format is taken. Networks other than vgg_16 and vgg_19 need TF-Slim's
        variable names. Only what the layers depend on has to be in it.
      layers: TF-Slim's endpoint names, such as 'vgg_16/conv3/conv3_3', with or without the
        network's name before the first slash. Convolutions are tapped after their ReLU.
      dtype: What to compute in. The preprocessing, and batch normalisation's statistics, stay
        float32.
      pooling: 'avg' replaces the max pooling between VGG's blocks by averaging, as Gatys et al.
        (2015) suggest for smoother pictures. Only for the VGGs.
      exclude_scopes: Comma-separated beginnings of variable names that must not be taken from the
        file, such as 'vgg_16/fc'; an error if a layer needs one of them.
      key: What the configuration calls `weights_file`, for messages.

    Returns:
      The network; layers keep the names and the order they were asked for in.

    Raises:
      ConfigError: If the network, a layer or the pooling is unknown.
      WeightsError: If the file is missing or damaged, or lacks a weight that a layer needs. No
        weight is ever left random.
      ValueError: If `dtype` or `pooling` is none of the choices, or `layers` is empty.
    """
    if name not in LOSS_MODELS:
        raise ConfigError("loss network", [f"loss_model: {_unknown('network', name, LOSS_MODELS)}"])
    if dtype not in DTYPES or pooling not in POOLINGS or not layers:
        raise ValueError(
            f"expected dtype of {DTYPES}, pooling of {POOLINGS} and at least one layer, "
            f"got {dtype!r}, {pooling!r}, {list(layers)!r}"
        )
    if pooling == "avg" and name not in VGG_BLOCKS:
        raise ConfigError(
            "loss network", [f"pooling: 'avg' is for the VGGs; {name} keeps its own pooling"]
        )
    network: MiniNetwork | SlimNetwork
    if name == MINI:
        file = resolve_weights_file(weights_file, name, key=key)
        network = MiniNetwork(file, dtype=dtype, key=key)
        endpoints = _resolve_layers(name, network.prefixes, layers, network.layers)
    else:
        network = SlimNetwork(name, dtype=dtype, pooling=pooling)
        endpoints = _resolve_layers(name, network.prefixes, layers, network.layers)
        file = resolve_weights_file(weights_file, name, key=key)
        network.load(file, tuple(endpoints.values()), exclude_scopes, key=key)
    distilled = network if isinstance(network, MiniNetwork) else None
    return LossNetwork(
        name,
        endpoints,
        network.features,
        channels={} if distilled is None else _by_layer(endpoints, distilled.channels),
        metrics={} if distilled is None else _by_layer(endpoints, distilled.metrics),
        weights_file=file,
        dtype=dtype,
        pooling=pooling,
    )


def _by_layer(endpoints: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, Any]:
    return {layer: values[end] for layer, end in endpoints.items()}


def _resolve_layers(
    name: str, prefixes: Sequence[str], layers: Sequence[str], endpoints: Sequence[str]
) -> dict[str, str]:
    """Maps layers as asked for to short endpoint names, reporting all unknown ones together."""
    resolved = {}
    problems = []
    for layer in layers:
        short = layer
        for prefix in prefixes:
            short = short.removeprefix(prefix)
        if short in endpoints:
            resolved[layer] = short
        else:
            known = [f"{name}/{endpoint}" for endpoint in endpoints]
            problems.append(_unknown("layer", layer, known))
    if problems:
        raise ConfigError(f"loss network {name}", problems)
    return resolved


def _unknown(kind: str, given: str, known: Sequence[str]) -> str:
    """Says that a name is unknown, with the nearest known ones, or else some of them."""
    if near := difflib.get_close_matches(given, known, n=1):
        hint = f"did you mean {near[0]!r}?"
    else:
        hint = f"known are {', '.join(known[:20])}{', ...' if len(known) > 20 else ''}"
    return f"unknown {kind} {given!r}; {hint}"
