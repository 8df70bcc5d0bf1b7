"""An ONNX file, written node by node from the weights: no converter stands in between.

The graph takes `images`, uint8 [N, H, W, 3], and for models of several styles `style_weights`,
float32 [N, S]; it returns `stylized`, uint8 [N, H, W, 3] of the same size. All is computed in
float32. It walks the sequence of `stages`, as tiles do, so that there is one description of a net.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from fast_style.checkpoints import Model
from fast_style.errors import FastStyleError
from fast_style.layers import (
    fold_nearest_x2,
    fold_nearest_x2_windows,
    fold_nearest_x4_stride_2,
)
from fast_style.stages import NetStages, Residual, Stage, net_stages
from fast_style.transform_net import MIN_SIZE, RGB_MEANS

if TYPE_CHECKING:
    from fast_style.parity import Run

OPSET = 17
_IR_VERSION = 8  # Of the ONNX release that brought opset 17.
_UPSAMPLINGS = (fold_nearest_x2, fold_nearest_x4_stride_2)
_INSTALL = "install it with pip install 'fast-style[onnx]'"


def import_onnx() -> Any:
    """Imports the package `onnx`.

    Raises:
      FastStyleError: If it is not installed.
    """
    try:
        import onnx
        import onnx.helper
        import onnx.numpy_helper
    except ImportError as error:
        raise FastStyleError(f"ONNX files need the package onnx; {_INSTALL}") from error
    return onnx


def import_onnxruntime() -> Any:
    """Imports the package `onnxruntime`.

    Raises:
      FastStyleError: If it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise FastStyleError(f"checking ONNX files needs onnxruntime; {_INSTALL}") from error
    return onnxruntime


def write_onnx(model: Model, path: Path, *, card: dict[str, Any]) -> None:
    """Writes a model as ONNX, opset 17, of any batch size, height and width.

    Args:
      model: The trained net.
      path: The file.
      card: How the model was made, for the file's metadata under `model_card`.

    Raises:
      FastStyleError: If `onnx` is not installed.
      OSError: If the disk refuses.
    """
    onnx = import_onnx()
    helper, kinds = onnx.helper, onnx.TensorProto
    graph = _Graph(onnx)
    stylized = _Net(graph, model).build()
    graph.node("Identity", [stylized], output="stylized")
    inputs = [helper.make_tensor_value_info("images", kinds.UINT8, ["N", "H", "W", 3])]
    if (styles := len(model.style_names)) > 1:
        inputs.append(helper.make_tensor_value_info("style_weights", kinds.FLOAT, ["N", styles]))
    outputs = [helper.make_tensor_value_info("stylized", kinds.UINT8, ["N", "H", "W", 3])]
    made = helper.make_model(
        helper.make_graph(graph.nodes, model.label, inputs, outputs, graph.initializers),
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="fast-style",
    )
    made.ir_version = _IR_VERSION
    helper.set_model_props(made, {"model_card": json.dumps(card)})
    onnx.checker.check_model(made, full_check=True)
    path.write_bytes(made.SerializeToString())


def onnx_runner(path: Path, *, threads: int | None = None) -> Run:
    """Loads an ONNX file into ONNX Runtime.

    Args:
      path: The file.
      threads: To compute with; none takes all cores.

    Raises:
      FastStyleError: If `onnxruntime` is not installed.
    """
    onnxruntime = import_onnxruntime()
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads or 0  # 0 is all.
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    takes_mix = "style_weights" in {entry.name for entry in session.get_inputs()}

    def run(picture: np.ndarray, mix: np.ndarray) -> np.ndarray:
        given = {"style_weights": mix[None]} if takes_mix else {}
        (stylized,) = session.run(["stylized"], {"images": picture[None], **given})
        return np.asarray(stylized)[0]

    return run


class _Graph:
    """Nodes and constants of an ONNX graph; values are known by their names."""

    def __init__(self, onnx: Any) -> None:
        self._onnx = onnx
        self.kinds = onnx.TensorProto
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self._constants: dict[tuple[Any, ...], str] = {}

    def constant(self, value: Any, dtype: type) -> str:
        """Returns the name of a constant; equal ones are stored once."""
        array = np.asarray(value, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"constant_{len(self._constants)}"
            self.initializers.append(self._onnx.numpy_helper.from_array(array, name))
            self._constants[key] = name
        return self._constants[key]

    def integers(self, *values: int) -> str:
        return self.constant(values, np.int64)

    def integer(self, value: int) -> str:
        return self.constant(value, np.int64)

    def floats(self, value: Any) -> str:
        return self.constant(value, np.float32)

    def node(
        self, kind: str, inputs: Sequence[str], *, output: str | None = None, **attributes: Any
    ) -> str:
        """Adds a node and returns the name of its output."""
        output = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(self._onnx.helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def size(self, value: str, axis: int) -> str:
        """The length of an axis, a scalar."""
        return self.node("Gather", [self.node("Shape", [value]), self.integer(axis)], axis=0)


class _Net:
    """Writes a net into a graph; maps are [N, C, H, W]."""

    def __init__(self, graph: _Graph, model: Model) -> None:
        self._graph = graph
        self._model = model
        self._net: NetStages = net_stages(model.arch)

    def build(self) -> str:
        """Returns the name of the stylized pictures, uint8 [N, H, W, 3]."""
        graph, net = self._graph, self._net
        height, width = graph.size("images", 1), graph.size("images", 2)
        pixels = "images"
        for axis, size in ((1, height), (2, width)):
            pixels = graph.node("Gather", [pixels, self._source_positions(size)], axis=axis)
        x = graph.node("Cast", [pixels], to=graph.kinds.FLOAT)
        x = graph.node("Sub", [x, graph.floats(RGB_MEANS)])
        x = graph.node("Transpose", [x], perm=[0, 3, 1, 2])
        for element in net.elements:
            if isinstance(element, Residual):
                y = x
                for stage in element.stages:
                    y = self._stage(stage, y)
                x = graph.node("Add", [x, y])
            else:
                x = self._stage(element, x)
        ends = [
            graph.node(
                "Reshape",
                [graph.node("Add", [size, graph.integer(net.crop)]), graph.integers(1)],
            )
            for size in (height, width)
        ]
        x = graph.node(
            "Slice",
            [
                x,
                graph.integers(net.crop, net.crop),
                graph.node("Concat", ends, axis=0),
                graph.integers(2, 3),
            ],
        )
        x = graph.node("Add", [graph.node("Tanh", [x]), graph.floats(1.0)])
        x = graph.node("Round", [graph.node("Mul", [x, graph.floats(127.5)])])
        return graph.node(
            "Transpose", [graph.node("Cast", [x], to=graph.kinds.UINT8)], perm=[0, 2, 3, 1]
        )

    def _source_positions(self, size: str) -> str:
        """The pixel at each position of an axis of the first map: `NetStages.source_positions`."""
        graph, net = self._graph, self._net
        enlarged = graph.node("Max", [size, graph.integer(MIN_SIZE)])
        excess = graph.node("Mod", [graph.node("Neg", [enlarged]), graph.integer(net.multiple)])
        last = graph.node("Add", [graph.node("Add", [enlarged, excess]), graph.integer(net.border)])
        positions = graph.node("Range", [graph.integer(-net.border), last, graph.integer(1)])
        return self._reflected(self._reflected(positions, enlarged), size)

    def _reflected(self, positions: str, size: str) -> str:
        """`stages.reflected`: with a period of 1, for one pixel, all positions become 0."""
        graph = self._graph
        twice = graph.node("Mul", [graph.node("Sub", [size, graph.integer(1)]), graph.integer(2)])
        period = graph.node("Max", [twice, graph.integer(1)])
        around = graph.node("Mod", [positions, period])
        return graph.node("Min", [around, graph.node("Sub", [period, around])])

    def _stage(self, stage: Stage, x: str) -> str:
        """Writes a stage that reads and gives the plain form."""
        graph = self._graph
        kernel = tf.constant(self._model.weights[stage.weight])
        windows = stage.fold is fold_nearest_x2
        plain = not stage.phases or stage.fold not in _UPSAMPLINGS
        if windows:  # Fewer multiplications than the phases that tiles compute with.
            kernel = fold_nearest_x2_windows(kernel)
        elif not plain:
            assert stage.fold is not None
            kernel = stage.fold(kernel)
        # The 9x9 kernel at the end reads plain maps here: what `stages` regroups for speed and
        # pads by its taps is the same convolution.
        low, high = (stage.low, stage.high)
        if low or high:
            mode = "reflect" if stage.mirror == "reflect" else "edge"
            pads = graph.integers(0, 0, low, low, 0, 0, high, high)
            x = graph.node("Pad", [x, pads], mode=mode)
        stride = stage.stride if plain and stage.reads == "plain" else 1
        weight = graph.floats(tf.transpose(kernel, [3, 2, 0, 1]).numpy())
        x = graph.node("Conv", [x, weight], strides=[stride, stride])
        if not plain:
            x = graph.node("DepthToSpace", [x], blocksize=2, mode="DCR")
        if windows:
            # The windows begin one pixel outside.
            x = graph.node(
                "Slice",
                [x, graph.integers(1, 1), graph.integers(-1, -1), graph.integers(2, 3)],
            )
        x = self._normed(stage, x, channels=int(self._model.weights[stage.weight].shape[-1]))
        return graph.node("Relu", [x]) if stage.relu else x

    def _normed(self, stage: Stage, x: str, channels: int) -> str:
        graph = self._graph
        if stage.norm is None:
            return x
        if stage.norm == "bias":
            return graph.node("Add", [x, self._of_styles(f"{stage.prefix}/bias", columns=True)])
        several = len(self._model.style_names) > 1
        scale = offset = ""
        if stage.prefix is not None and not several:
            scale = self._of_styles(f"{stage.prefix}/scale")
            offset = self._of_styles(f"{stage.prefix}/offset")
        x = graph.node(
            "InstanceNormalization",
            [
                x,
                scale or graph.floats(np.ones(channels)),
                offset or graph.floats(np.zeros(channels)),
            ],
            epsilon=self._net.epsilon,
        )
        if stage.prefix is not None and several:
            scaled = [x, self._of_styles(f"{stage.prefix}/scale", columns=True)]
            shift = self._of_styles(f"{stage.prefix}/offset", columns=True)
            x = graph.node("Add", [graph.node("Mul", scaled), shift])
        return x

    def _of_styles(self, name: str, *, columns: bool = False) -> str:
        """A weight per style as the one of the mix: [C], or [N, C, 1, 1] as columns."""
        graph, value = self._graph, self._model.weights[name]
        if len(value) == 1:
            return graph.floats(value[0][:, None, None] if columns else value[0])
        mixed = graph.node("MatMul", ["style_weights", graph.floats(value)])
        return graph.node("Unsqueeze", [mixed, graph.integers(2, 3)])
