"""TF-Slim's networks as frozen functions: pictures to features.

Every network is built once in a private graph. That graph is kept as a description in which each
variable is an empty slot. A call imports the part of it that the wanted layers depend on into a
`tf.function` and fills the slots with the weights of a file, behind a stop_gradient. So nothing
runs deeper than the deepest layer, no weight is trained or random, weights nobody needs are never
read, and nobody outside this module meets a scope, a collection or a session.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import re
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from fast_style import winograd
from fast_style.errors import WeightsError, first_few
from fast_style.layers import conv, widens
from fast_style.loss_models import MEAN_RGB, VGG_BLOCKS
from fast_style.loss_weights import read_weights

# Parts of a classifier: they need a fixed picture size, or have lost the picture's plane.
_CLASSIFIER = re.compile(
    r"(fc\d|dropout|logits|predictions|prelogits|auxlogits|avgpool|global_pool)", re.IGNORECASE
)

# Batch normalisation keeps these in float32 whatever the network computes in.
_STATISTICS = ("beta", "gamma", "moving_mean", "moving_variance")

_IMAGES = "images"

# TF-Slim keeps its argument scopes in one list for the whole process.
_SLIM_LOCK = threading.Lock()


def _subtract_mean(images: tf.Tensor) -> tf.Tensor:
    return images - tf.constant(MEAN_RGB, tf.float32)


def _scale_to_one(images: tf.Tensor) -> tf.Tensor:
    return images / 127.5 - 1.0


@dataclass(frozen=True)
class _Recipe:
    """How to build one network with TF-Slim, and how its published weights were fed.

    Attributes:
      module: Its module in tf_slim.nets.
      scope: The variable scope, first part of all variable names.
      arg_scope: The function in `module` that returns its default arguments.
      arguments: What to pass to it besides the pictures.
      preprocess: [N, H, W, 3] float32 RGB 0..255 to what the network was trained on.
    """

    module: str
    scope: str
    arg_scope: str
    arguments: Mapping[str, Any]
    preprocess: Callable[[tf.Tensor], tf.Tensor]


def _plain(module: str, name: str) -> _Recipe:
    arguments = {"spatial_squeeze": False}
    return _Recipe(module, name, f"{module}_arg_scope", arguments, _subtract_mean)


def _inception(version: int) -> _Recipe:
    name = f"inception_v{version}"
    arguments = {"spatial_squeeze": False}
    return _Recipe(name, f"InceptionV{version}", f"{name}_arg_scope", arguments, _scale_to_one)


def _resnet(version: int, depth: int) -> _Recipe:
    # TF-Slim's published v2 checkpoints were trained with Inception's preprocessing, v1 with VGG's.
    module = f"resnet_v{version}"
    preprocess = _subtract_mean if version == 1 else _scale_to_one
    arguments = {"num_classes": None, "global_pool": False}
    return _Recipe(module, f"{module}_{depth}", "resnet_arg_scope", arguments, preprocess)


def _recipe(name: str) -> _Recipe:
    family, *numbers = name.split("_v")
    if family == "inception":
        return _inception(int(numbers[0]))
    if family == "resnet":
        version, depth = numbers[0].split("_")
        return _resnet(int(version), int(depth))
    if name == "alexnet_v2":
        arguments = {"spatial_squeeze": False}
        return _Recipe("alexnet", name, "alexnet_v2_arg_scope", arguments, _subtract_mean)
    return _plain("vgg" if name in VGG_BLOCKS else name, name)


@dataclass(frozen=True)
class _Graph:
    """A network whose variables are placeholders.

    Attributes:
      nodes: Node name to node, in the order they were built in.
      endpoints: Short layer name, without the network's name, to tensor name.
      versions: What the graph format needs to be read back.
    """

    nodes: Mapping[str, Any]
    endpoints: Mapping[str, str]
    versions: Any

    def part(self, endpoints: Iterable[str]) -> tuple[Any, dict[str, Any]]:
        """Returns the graph that these endpoints need, and its variables' nodes by name."""
        needed: set[str] = set()
        waiting = [self.endpoints[name] for name in endpoints]
        while waiting:
            node_name = waiting.pop().lstrip("^").split(":")[0]
            if node_name not in needed:
                needed.add(node_name)
                waiting.extend(self.nodes[node_name].input)
        graph = tf.compat.v1.GraphDef(versions=self.versions)
        graph.node.extend(node for name, node in self.nodes.items() if name in needed)
        variables = {
            node.name: node
            for node in graph.node
            if node.op == "Placeholder" and node.name != _IMAGES
        }
        return graph, variables


class SlimNetwork:
    """One of TF-Slim's networks, and the names of its layers.

    Attributes:
      name: TF-Slim's name.
      layers: Its layers from shallow to deep, without the network's name.
      prefixes: What may stand before a layer's name.
    """

    def __init__(self, name: str, *, dtype: str, pooling: str) -> None:
        """Builds the graph.

        Args:
          name: TF-Slim's name, such as 'vgg_16'.
          dtype: What it computes in.
          pooling: 'max' or, for the VGGs, 'avg'.
        """
        recipe = _recipe(name)
        self.name = name
        self._graph = _build_graph(name, dtype, pooling)
        self._preprocess = recipe.preprocess
        self._dtype = dtype
        self._weights: dict[str, tf.Tensor] = {}
        self._points: dict[str, tf.Tensor] = {}  # Kernels in float32 for `winograd`.
        self.layers = tuple(self._graph.endpoints)
        self.prefixes = (f"{name}/", f"{recipe.scope}/")

    def load(self, file: Path, layers: Sequence[str], exclude_scopes: str, *, key: str) -> None:
        """Reads the weights that these layers depend on.

        Args:
          file: Where they are.
          layers: Some of `layers`.
          exclude_scopes: Comma-separated beginnings of names not to be taken from the file.
          key: What the configuration calls the file, for messages.

        Raises:
          WeightsError: If the file is damaged, or lacks one of them.
        """
        _, variables = self._graph.part(layers)
        self._weights = _load(self.name, file, variables, exclude_scopes, key)
        self._points = {}

    def features(self, images: tf.Tensor, layers: Sequence[str]) -> list[tf.Tensor]:
        """Computes features; to be called inside a `tf.function`.

        Args:
          images: [N, H, W, 3] float32 RGB 0..255.
          layers: Some of those that weights were read for.
        """
        graph, variables = self._graph.part(layers)
        # Weights are captured rather than embedded: as fast, and tracing does not copy them.
        known = {f"{name}:0": tf.stop_gradient(self._weights[name]) for name in variables}
        known[f"{_IMAGES}:0"] = tf.cast(self._preprocess(images), self._dtype)
        outputs = [self._graph.endpoints[layer] for layer in layers]
        read = dict.fromkeys(outputs)
        read.update((_tensor(name), None) for node in graph.node for name in node.input)
        waiting: dict[str, Any] = {}
        for node in graph.node:
            if options := self._replaced(node):
                self._import(graph.versions, waiting, known, read)
                x, kernel = (known[_tensor(name)] for name in node.input)
                points = functools.partial(self._kernel_points, node.input[1])
                with tf.name_scope(self.name):
                    known[f"{node.name}:0"] = conv(x, kernel, *options, points)
            elif node.op != "Placeholder":
                waiting[node.name] = node
        self._import(graph.versions, waiting, known, read)
        return [known[name] for name in outputs]

    def _import(
        self,
        versions: Any,
        nodes: dict[str, Any],
        known: dict[str, tf.Tensor],
        read: Iterable[str],
    ) -> None:
        """Adds nodes to the graph that is being traced, and empties `nodes`.

        Args:
          versions: The graph format's.
          nodes: Name to node, in the order they were built in.
          known: Tensors by name; what these nodes give is added.
          read: Names of all tensors that anything reads.
        """
        if not nodes:
            return
        part = tf.compat.v1.GraphDef(versions=versions)
        part.node.extend(nodes.values())
        needed = {_tensor(name) for node in nodes.values() for name in node.input}
        given = {name: known[name] for name in needed if name in known}
        made = [name for name in read if name.split(":")[0] in nodes]
        results = tf.graph_util.import_graph_def(part, given, made, name=self.name)
        known.update(zip(made, results, strict=True))
        nodes.clear()

    def _replaced(self, node: Any) -> tuple[int, Any] | None:
        """Returns the stride and the padding of what `conv` does in another way than the graph."""
        if node.op != "Conv2D" or {*node.attr["dilations"].list.i} - {1}:
            return None
        _, rows, columns, _ = node.attr["strides"].list.i
        padding = node.attr["padding"].s.decode()
        weight = self._weights.get(node.input[1].removesuffix("/read"))
        if weight is None or rows != columns or padding not in ("SAME", "VALID"):
            return None
        by_winograd = rows == 1 and winograd.pays(weight.dtype, weight.shape)
        return (rows, padding) if by_winograd or widens(weight.dtype) else None

    def _kernel_points(self, read: str) -> tf.Tensor:
        """Returns a kernel for `winograd`, by the name of what reads its variable."""
        name = read.removesuffix("/read")
        if name not in self._points:
            with tf.init_scope():
                kernel = tf.cast(self._weights[name], tf.float32)
                self._points[name] = winograd.transform_kernel(kernel)
        return tf.stop_gradient(self._points[name])


def _tensor(name: str) -> str:
    """Completes what a node calls its input: 'x' is 'x:0'."""
    return name if ":" in name else f"{name}:0"


@functools.cache
def _build_graph(name: str, dtype: str, pooling: str = "max") -> _Graph:
    """Builds a network with TF-Slim in a graph of its own, classifier included.

    Kept for the next network of the same kind: it takes a second or more for the deep ones, is
    never changed, and is small without weights.
    """
    recipe = _recipe(name)
    module = importlib.import_module(f"tf_slim.nets.{recipe.module}")
    from tf_slim.ops.arg_scope import arg_scope

    defaults = _inference_arguments(getattr(module, recipe.arg_scope)())
    graph = tf.Graph()
    with _SLIM_LOCK, graph.as_default(), warnings.catch_warnings():
        # TF-Slim calls layers in a way that TensorFlow would rather not see.
        warnings.filterwarnings("ignore", ".*layer.apply.*", UserWarning)
        images = tf.compat.v1.placeholder(dtype, (None, None, None, 3), name=_IMAGES)
        with (
            tf.compat.v1.variable_scope("", use_resource=False, custom_getter=_keep_statistics),
            arg_scope(defaults),
            _known_inference(),
        ):
            _, collected = getattr(module, name)(images, is_training=False, **recipe.arguments)
    description = graph.as_graph_def()
    nodes = {node.name: node for node in description.node}
    for node in nodes.values():
        # Parts are imported apart: no node may name another than those it reads.
        node.attr.pop("_class", None)
        assert not any(name.startswith("^") for name in node.input), node
        if node.op == "VariableV2":
            _clear(node, "Placeholder", ("dtype", "shape"))
        elif node.op == "MaxPool" and pooling == "avg":
            _clear(node, "AvgPool", ("T", "data_format", "ksize", "padding", "strides"))
    endpoints = {
        key.removeprefix(f"{recipe.scope}/"): tensor.name
        for key, tensor in collected.items()
        if not _CLASSIFIER.search(key)
    }
    return _Graph(nodes, endpoints, description.versions)


def _inference_arguments(defaults: Mapping[Any, Mapping[str, Any]]) -> dict[Any, dict[str, Any]]:
    """Makes TF-Slim's batch normalisation plain arithmetic on its four variables.

    By default it goes through a Keras layer that today's TensorFlow no longer ships. With nowhere
    to collect updates and without fusing it computes x * scale + offset itself, which also costs
    less to differentiate than the fused operation.
    """
    plain = {"updates_collections": None, "fused": False}
    arguments = {}
    for function, values in defaults.items():
        values = dict(values)
        if values.get("normalizer_params") is not None:
            values["normalizer_params"] = {**values["normalizer_params"], **plain}
        if "updates_collections" in values:
            values.update(plain)
        arguments[function] = values
    return arguments


@contextlib.contextmanager
def _known_inference() -> Iterator[None]:
    """Lets TF-Slim's batch normalisation see that it is not training, while the block runs.

    Its helper that tells a constant from a tensor looks for a class that TensorFlow has moved, and
    fails. Here `is_training` is always a plain False, which needs no telling.
    """
    from tf_slim.layers import utils

    original = utils.constant_value
    utils.constant_value = lambda value, dtype=None: value
    try:
        yield
    finally:
        utils.constant_value = original


def _keep_statistics(getter: Callable[..., Any], name: str, *args: Any, **kwargs: Any) -> Any:
    """Makes batch normalisation's variables float32 in a bfloat16 network."""
    if name.rsplit("/", 1)[-1] in _STATISTICS:
        kwargs["dtype"] = tf.float32
    return getter(name, *args, **kwargs)


def _clear(node: Any, op: str, attributes: Sequence[str]) -> None:
    """Turns a node into another operation that shares some of its attributes."""
    node.op = op
    for attribute in set(node.attr) - set(attributes):
        del node.attr[attribute]


def _load(
    name: str, file: Path, variables: Mapping[str, Any], exclude_scopes: str, key: str
) -> dict[str, tf.Tensor]:
    """Reads the weights of some variables as constants, or says what is wrong with the file."""
    excluded = tuple(scope.strip() for scope in exclude_scopes.split(",") if scope.strip())
    if forbidden := [variable for variable in variables if variable.startswith(excluded)]:
        raise WeightsError(
            f"{file}: a chosen layer needs {forbidden[0]!r}, which checkpoint_exclude_scopes "
            f"{exclude_scopes!r} excludes; choose shallower layers or exclude less"
        )
    values = read_weights(file, name, key=key)
    if missing := [variable for variable in variables if variable not in values]:
        layers = list(dict.fromkeys(_layer_of(variable) for variable in missing))
        raise WeightsError(
            f"{file}: no weights for layer {first_few(layers, 1)} "
            f"({missing[0]!r} is not in the file); choose shallower layers or another {key}"
        )
    weights = {}
    with tf.init_scope():
        for variable, node in variables.items():
            value = values[variable]
            shape = tuple(dim.size for dim in node.attr["shape"].shape.dim)
            if value.shape != shape:
                raise WeightsError(
                    f"{file}: {variable!r} has shape {value.shape}, but {name} needs {shape}; "
                    "these are the weights of another network"
                )
            dtype = tf.dtypes.as_dtype(node.attr["dtype"].type)
            weights[variable] = tf.constant(value.astype(dtype.as_numpy_dtype))
    return weights


def _layer_of(variable: str) -> str:
    """Returns the layer a variable belongs to: 'a/conv1/BatchNorm/beta' to 'a/conv1'."""
    return variable.rsplit("/", 1)[0].removesuffix("/BatchNorm")
