"""The convolutions of a compiled function, one by one: the time that they alone would take."""

from __future__ import annotations

import collections
import json
from typing import Any

import numpy as np
import tensorflow as tf
from common import Times, interleaved, wait

_DIRECTIONS = {
    "Conv2D": "forward",
    "Conv2DBackpropInput": "input gradient",
    "Conv2DBackpropFilter": "weight gradient",
}


def find_convolutions(function: Any) -> collections.Counter[tuple[str, str]]:
    """Counts the different convolutions of a concrete function.

    Returns:
      {(operation, its attributes and shapes as JSON): how many}.
    """
    found: collections.Counter[tuple[str, str]] = collections.Counter()
    graphs, seen = [function.graph], set()
    while graphs:
        graph = graphs.pop()
        if id(graph) in seen:
            continue
        seen.add(id(graph))
        for op in _needed(graph):
            if op.type in ("PartitionedCall", "StatefulPartitionedCall"):
                name = op.get_attr("f").name
                graphs.append(function.graph._get_function(name).graph)
            elif op.type in _DIRECTIONS:
                found[op.type, json.dumps(_description(op))] += 1
    return found


def _needed(graph: Any) -> list[Any]:
    """Returns the operations that a graph's results need; others stay in it but never run."""
    waiting = [tensor.op for tensor in graph.outputs] + list(graph.control_outputs)
    needed: dict[str, Any] = {}
    while waiting:
        op = waiting.pop()
        if op.name not in needed:
            needed[op.name] = op
            waiting += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
    return list(needed.values())


def _description(op: Any) -> dict[str, Any]:
    def sizes(tensor: Any) -> list[int]:
        # Gradients take one of their sizes as numbers.
        if tensor.dtype == tf.int32:
            value = tf.get_static_value(tensor)
            return [int(n) for n in (op.outputs[0].shape if value is None else value)]
        return [int(n) for n in tensor.shape]

    return {
        "inputs": [sizes(tensor) for tensor in op.inputs],
        "dtype": op.get_attr("T").name,
        "strides": list(op.get_attr("strides")),
        "padding": op.get_attr("padding").decode(),
    }


def time_convolutions(function: Any, *, rounds: int) -> dict[str, Any]:
    """Times every different convolution of a concrete function, and sums them up.

    Returns:
      {'seconds' and 'cpu_seconds': sums, 'tflop': arithmetic, and one sum per direction}.
    """
    found = find_convolutions(function)
    times = interleaved({key: _runner(*key) for key in found}, rounds=rounds)  # type: ignore
    sums: collections.defaultdict[str, float] = collections.defaultdict(float)
    for (operation, description), count in found.items():
        measured: Times = times[operation, description]  # type: ignore[index]
        cpu = float(np.median(measured.cpu))
        sums["seconds"] += count * measured.median
        sums["cpu_seconds"] += count * cpu
        sums[_DIRECTIONS[operation]] += count * measured.median
        sums["tflop"] += count * _tflop(operation, json.loads(description))
    return {name: round(value, 5) for name, value in sums.items()}


def _runner(operation: str, description: str) -> Any:
    made = json.loads(description)
    options = {"strides": made["strides"], "padding": made["padding"]}
    first, second, *rest = (
        tf.cast(tf.random.stateless_normal(shape, (7, i)), made["dtype"])
        for i, shape in enumerate(made["inputs"])
    )

    @tf.function(autograph=False)
    def run(first: tf.Tensor, second: tf.Tensor, *rest: tf.Tensor) -> tf.Tensor:
        if operation == "Conv2D":
            y = tf.raw_ops.Conv2D(input=first, filter=second, **options)
        elif operation == "Conv2DBackpropInput":
            y = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=made["inputs"][0], filter=second, out_backprop=rest[0], **options
            )
        else:
            y = tf.raw_ops.Conv2DBackpropFilter(
                input=first, filter_sizes=made["inputs"][1], out_backprop=rest[0], **options
            )
        return y[0, 0, 0, :1]  # All of it is computed; only this is waited for and fetched.

    return lambda: wait(run(first, second, *rest))


def _tflop(operation: str, made: dict[str, Any]) -> float:
    image, kernel, *gradient = made["inputs"]
    if gradient:
        pixels = float(np.prod(gradient[0][:3]))
    else:
        lost = [0, 0] if made["padding"] == "SAME" else [n - 1 for n in kernel[:2]]
        sides = [
            -(-(side - less) // stride)
            for side, less, stride in zip(image[1:3], lost, made["strides"][1:3], strict=True)
        ]
        pixels = float(image[0] * np.prod(sides))
    return 2.0 * pixels * float(np.prod(kernel)) / 1e12
