"""Files for other runtimes: a SavedModel that holds the net and nothing else."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from fast_style.checkpoints import Model
from fast_style.errors import FastStyleError
from fast_style.files import make_folder, refusal
from fast_style.stylize import make_stylize_function

# What TensorFlow puts into the folder of a SavedModel.
_OWN_ENTRIES = ("saved_model.pb", "fingerprint.pb", "variables", "assets", "assets.extra")


def export_saved_model(model: Model, folder: str | os.PathLike[str], *, precision: str) -> Path:
    """Writes a SavedModel with dynamic height, width and batch size.

    Its signature `serving_default` takes `images`, uint8 [N, H, W, 3], and for models of several
    styles `style_weights`, float32 [N, S]; it returns `stylized`, uint8 [N, H, W, 3] of the same
    size. The pixels are those of `Stylizer` at the same precision: both are one function.

    Args:
      model: The trained net.
      folder: Where to write; an earlier SavedModel there is replaced once the new one is whole.
      precision: 'float32' or 'bfloat16'.

    Returns:
      The folder.

    Raises:
      FastStyleError: If the folder holds something else, or cannot be written.
    """
    target = Path(folder)
    _check_replaceable(target)
    serving_default = _serving_function(model, precision)
    module = tf.Module()
    module.serving_default = serving_default
    with _replaced_folder(target.resolve()) as aside:  # Through links, to what they show.
        tf.saved_model.save(module, str(aside), signatures={"serving_default": serving_default})
    return target


def _serving_function(model: Model, precision: str) -> Any:
    """Returns the signature: the compiled net under the names of its inputs and output."""
    run = make_stylize_function(model, precision)
    styles = len(model.style_names)
    images_spec = tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")
    mix_spec = tf.TensorSpec([None, styles], tf.float32, name="style_weights")

    @tf.function(input_signature=[images_spec], autograph=False)
    def one_style(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"stylized": run(images, tf.ones([tf.shape(images)[0], 1]))}

    @tf.function(input_signature=[images_spec, mix_spec], autograph=False)
    def several_styles(images: tf.Tensor, style_weights: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"stylized": run(images, style_weights)}

    return one_style if styles == 1 else several_styles


def _check_replaceable(target: Path) -> None:
    """Refuses to write over anything that is not an earlier export.

    Raises:
      FastStyleError: If `target` is a file, holds other things, or holds this process itself.
    """
    if not target.exists():
        return
    if not target.is_dir():
        raise FastStyleError(f"{target}: is a file, not a folder; choose another place with -o")
    if Path.cwd().is_relative_to(target.resolve()):
        raise FastStyleError(
            f"{target}: is the current folder or holds it; give the export a folder of its own "
            "with -o"
        )
    others = sorted(path.name for path in target.iterdir() if path.name not in _OWN_ENTRIES)
    if others:
        raise FastStyleError(
            f"{target}: already exists and holds other things than a SavedModel ({others[0]}); "
            "choose another folder with -o"
        )


@contextlib.contextmanager
def _replaced_folder(target: Path) -> Iterator[Path]:
    """Gives a temporary folder that takes the place of `target` when the block succeeds."""
    make_folder(target.parent)
    aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    old = target.with_name(f".{target.name}.{secrets.token_hex(4)}.old")
    try:
        yield aside
        if target.exists():
            target.rename(old)
        aside.rename(target)
    except (OSError, tf.errors.OpError) as error:
        raise FastStyleError(
            f"{target}: cannot write this folder ({refusal(error)}); "
            "choose another place, free some space or change its permissions"
        ) from error
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
