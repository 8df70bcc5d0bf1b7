"""TFLite (LiteRT) files: 16-bit weights, or 8-bit ones with dynamic range.

The net is that of `plain_net`, whose operations TFLite all has built in. The graph takes
`images`, uint8 [1, H, W, 3] of any size (resize the input first), and for models of several styles
`style_weights`, float32 [1, S]; it returns `stylized`, uint8 [1, H, W, 3] of the same size.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import tensorflow as tf

from fast_style.checkpoints import Model
from fast_style.errors import FastStyleError
from fast_style.plain_net import plain_stylize

if TYPE_CHECKING:
    from fast_style.parity import Run

Storage = Literal["float16", "int8"]


def write_tflite(model: Model, path: Path, *, storage: Storage) -> None:
    """Writes a model as TFLite, for one picture of any size at a time.

    Args:
      model: The trained net.
      path: The file.
      storage: 'float16' keeps weights as 16-bit floats and computes in float32; 'int8' keeps the
        kernels as 8-bit whole numbers and quantizes maps as they come.

    Raises:
      OSError: If the disk refuses.
    """
    module = tf.Module()
    module.run = lite_function(model)
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [module.run.get_concrete_function()], module
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if storage == "float16":
        converter.target_spec.supported_types = [tf.float16]
    path.write_bytes(converter.convert())


def lite_function(model: Model) -> Any:
    """Returns the compiled net of a file: (uint8 [1, H, W, 3], float32 [1, S]) -> uint8.

    Models of one style take no style weights.
    """
    styles = len(model.style_names)
    images_spec = tf.TensorSpec([1, None, None, 3], tf.uint8, name="images")
    mix_spec = tf.TensorSpec([1, styles], tf.float32, name="style_weights")

    @tf.function(input_signature=[images_spec], autograph=False)
    def one_style(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"stylized": plain_stylize(model, images)}

    @tf.function(input_signature=[images_spec, mix_spec], autograph=False)
    def several_styles(images: tf.Tensor, style_weights: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"stylized": plain_stylize(model, images, style_weights)}

    return one_style if styles == 1 else several_styles


def tflite_runner(path: Path, *, threads: int | None = None) -> Run:
    """Loads a TFLite file into LiteRT.

    Args:
      path: The file.
      threads: To compute with; none takes all cores.

    Raises:
      FastStyleError: If `ai-edge-litert` is not installed.
    """
    interpreter_of = import_litert().Interpreter
    interpreter = interpreter_of(str(path), num_threads=threads or os.cpu_count())
    inputs = {entry["name"].split(":")[0]: entry for entry in interpreter.get_input_details()}
    images = next(entry for entry in inputs.values() if entry["dtype"] == np.uint8)
    others = [entry for entry in inputs.values() if entry is not images]
    output = interpreter.get_output_details()[0]["index"]
    shape: tuple[int, ...] = ()

    def run(picture: np.ndarray, mix: np.ndarray) -> np.ndarray:
        nonlocal shape
        if picture.shape != shape:
            interpreter.resize_tensor_input(images["index"], [1, *picture.shape])
            interpreter.allocate_tensors()
            shape = picture.shape
        interpreter.set_tensor(images["index"], picture[None])
        for entry in others:
            interpreter.set_tensor(entry["index"], mix[None])
        interpreter.invoke()
        return interpreter.get_tensor(output)[0]

    return run


def import_litert() -> Any:
    """Imports LiteRT's interpreter.

    Raises:
      FastStyleError: If it is not installed.
    """
    try:
        from ai_edge_litert import interpreter
    except ImportError as error:
        raise FastStyleError(
            "checking TFLite files needs LiteRT; install it with pip install 'fast-style[tflite]'"
        ) from error
    return interpreter
