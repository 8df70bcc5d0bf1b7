"""Where time goes inside a compiled function, from TensorFlow's own trace of operations."""

from __future__ import annotations

import collections
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

_KINDS = (
    ("convolutions", r"Conv2D"),
    ("norms", r"FusedBatchNorm"),
    ("matrix products", r"MatMul|Einsum"),
    ("ReLU and pooling", r"Relu|MaxPool|AvgPool"),
    ("layout (pad, split, concat, slice)", r"Gather|Split|Concat|Slice|Pad|Space|Depth|Transpose"),
    ("sums of gradients", r"AddN"),
    ("Adam", r"ResourceApplyAdam|L2Loss"),
)
_CALLS = r"Execut|Call|__inference|^(_?If|_?While|Run)"


def breakdown(function: Callable[[], object], repetitions: int) -> dict[str, float]:
    """Sums an operation's time by part of the step (the loss network or the rest) and by kind.

    Operations run side by side, so that the sum may exceed the time of a step.

    Args:
      function: What to run; it must not return before its work is done.
      repetitions: How often.

    Returns:
      {'part: kind': milliseconds per run}, largest first, and the share that is no convolution.
    """
    sums: collections.defaultdict[str, float] = collections.defaultdict(float)
    for label, seconds in operation_times(function, repetitions).items():
        name, _, kind = label.rpartition(":")
        if not name or re.search(_CALLS, name.split("/")[-1]) or re.search(_CALLS, kind):
            continue
        part = "loss network" if "vgg_16" in name else "net and losses"
        group = next((g for g, pattern in _KINDS if re.search(pattern, kind)), "elementwise")
        sums[f"{part}: {group}"] += 1e3 * seconds
    total = sum(sums.values())
    other = sum(value for key, value in sums.items() if not key.endswith("convolutions"))
    result = {
        key: round(value, 2) for key, value in sorted(sums.items(), key=lambda item: -item[1])
    }
    return result | {"share of other operations than convolutions": round(other / total, 4)}


def operation_times(function: Callable[[], object], repetitions: int) -> dict[str, float]:
    """Runs a function under TensorFlow's profiler.

    Args:
      function: What to run; it must not return before its work is done.
      repetitions: How often.

    Returns:
      {'operation type:node name': seconds per run}, in which operations that wait for others to
      finish (calls, conditions) are left out.
    """
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as folder:
        options = tf.profiler.experimental.ProfilerOptions(host_tracer_level=2)
        with tf.profiler.experimental.Profile(folder, options):
            for _ in range(repetitions):
                function()
        space = xplane_pb2.XSpace()
        (trace,) = Path(folder).rglob("*.xplane.pb")
        space.ParseFromString(trace.read_bytes())
    totals: collections.Counter[str] = collections.Counter()
    for plane in space.planes:
        names = {key: value.name for key, value in plane.event_metadata.items()}
        stats = {key: value.name for key, value in plane.stat_metadata.items()}
        for line in plane.lines:
            for event in line.events:
                label = names[event.metadata_id]
                for stat in event.stats:
                    if stats[stat.metadata_id] in ("tf_op", "long_name"):
                        label = stat.str_value or stats.get(stat.ref_value, label)
                totals[label] += event.duration_ps / 1e12 / repetitions
    return dict(totals)
