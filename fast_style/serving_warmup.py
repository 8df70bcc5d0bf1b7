"""Requests that TensorFlow Serving runs when it loads a model: no client waits for the first one.

They are a TFRecord file of `PredictionLog` messages (tensorflow_serving/apis/prediction_log.proto).
Four nested messages of text and bytes do not justify a dependency on TensorFlow Serving's package:
the few fields are written here, by the numbers that its .proto files give them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

WARMUP_FILE = "tf_serving_warmup_requests"

_LENGTH_DELIMITED = 2  # Wire type of text, bytes and nested messages.


def write_warmup(
    path: Path, name: str, requests: Iterable[tuple[str, Mapping[str, np.ndarray]]]
) -> None:
    """Writes `assets.extra/tf_serving_warmup_requests`.

    Args:
      path: The file.
      name: The model's, under which it is served.
      requests: (signature, {input: array}) each.

    Raises:
      tf.errors.OpError: If the file cannot be written.
    """
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests:
            writer.write(_prediction_log(name, signature, inputs))


def _prediction_log(name: str, signature: str, inputs: Mapping[str, np.ndarray]) -> bytes:
    # ModelSpec: name = 1, signature_name = 3.
    model_spec = _field(1, name.encode()) + _field(3, signature.encode())
    # PredictRequest: model_spec = 1, inputs = 2, a map: entries of key = 1, value = 2.
    request = _field(1, model_spec)
    for key, value in inputs.items():
        tensor = tf.make_tensor_proto(value).SerializeToString()
        request += _field(2, _field(1, key.encode()) + _field(2, tensor))
    # PredictionLog: predict_log = 6; PredictLog: request = 1.
    return _field(6, _field(1, request))


def _field(number: int, content: bytes) -> bytes:
    """One length-delimited field of a protocol buffer."""
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """A whole number in groups of seven bits, lowest first; all but the last have the high bit."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
