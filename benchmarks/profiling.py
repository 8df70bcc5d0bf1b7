"""Where time goes inside a compiled function: TensorFlow's own trace, summed by part and kind."""

from __future__ import annotations

import collections
import tempfile
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf


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
