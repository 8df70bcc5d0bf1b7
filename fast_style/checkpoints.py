"""Training checkpoints and model files: the only module that knows their names and contents.

A checkpoint is TensorFlow's V2 format with the names of the 2016 TensorFlow-Slim implementation:
each weight under its own name, its Adam moments under `<name>/Adam` and `<name>/Adam_1`, the step
under `global_step`. What describes the run rides along as a JSON string. Checkpoints of that
implementation, V1 or V2, are therefore read by the same code.

A model file (`model.safetensors`) holds the transform net alone, in 16-bit floats, with all that
is known about it in its header.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import tensorflow as tf

from fast_style.config import START
from fast_style.errors import FastStyleError, ModelError, first_few
from fast_style.files import (
    atomic_path,
    find_bundled,
    fsync_path,
    make_folder,
    partial_paths,
    refusal,
    safe_label,
)
from fast_style.transform_net import ARCHITECTURES, architecture

CHECKPOINT_STEM = "fast-style-model.ckpt"
MODEL_FILE = "model.safetensors"
STEP = "global_step"
RUN = "fast_style/run"
FIRST_MOMENT = "Adam"
SECOND_MOMENT = "Adam_1"

_FORMAT = "fast-style"
_DATA_SUFFIX = ".data-00000-of-00001"
_PARTIAL = ".partial-"
_WIDEST = 64.0  # Far beyond what a configuration may ask for: more is damage.


@dataclass(frozen=True)
class Model:
    """A trained transform net.

    Attributes:
      arch: A key of `ARCHITECTURES`.
      width: Its channel multiplier.
      style_names: One name per style, in the order of style weights.
      weights: {name: float32 array}.
      metadata: How it was made: the resolved configuration, hashes, versions; empty for
        checkpoints of the 2016 implementation, which say nothing.
      source: The file it was read from.
    """

    arch: str
    width: float
    style_names: tuple[str, ...]
    weights: Mapping[str, np.ndarray]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    source: Path = Path()

    @property
    def label(self) -> str:
        """A short name for files made with the model: the run's, else the file's."""
        name = self.metadata.get("config", {}).get("naming")
        if not name:
            name = self.source.name.split(".")[0]
            if name in (MODEL_FILE.split(".")[0], CHECKPOINT_STEM.split(".")[0]):
                name = self.source.resolve().parent.name
        return safe_label(str(name))


# --- training checkpoints ------------------------------------------------------------------------


def checkpoint_path(folder: Path, step: int) -> Path:
    """Returns the prefix of the checkpoint of a step."""
    return folder / f"{CHECKPOINT_STEM}-{step}"


def save_checkpoint(
    folder: Path,
    step: int,
    tensors: Mapping[str, Any],
    run: Mapping[str, Any],
    *,
    keep: int,
    spare: int | None = None,
) -> Path:
    """Writes a checkpoint aside, renames it into place, and removes the oldest beyond `keep`.

    The index is renamed last: a checkpoint exists when its index does.

    Args:
      folder: The run's folder; created if missing.
      step: Steps done.
      tensors: {name: tensor or array} without the step.
      run: JSON-able description of the run, returned by `read_checkpoint`.
      keep: How many of the newest checkpoints remain, at least 1.
      spare: A step whose checkpoint remains however old it is.

    Returns:
      The checkpoint's prefix.

    Raises:
      FastStyleError: If it cannot be written; earlier checkpoints are then untouched.
    """
    make_folder(folder)
    target = checkpoint_path(folder, step)
    aside = folder / f"{_PARTIAL}{target.name}"
    names = [*tensors, STEP, RUN]
    values = [
        *(tf.convert_to_tensor(value) for value in tensors.values()),
        tf.constant(step, tf.int64),
        tf.constant(json.dumps(run)),
    ]
    try:
        tf.raw_ops.SaveV2(
            prefix=str(aside),
            tensor_names=names,
            shape_and_slices=[""] * len(names),
            tensors=values,
        )
        for suffix in (_DATA_SUFFIX, ".index"):
            written = Path(f"{aside}{suffix}")
            fsync_path(written)
            os.replace(written, f"{target}{suffix}")
        fsync_path(folder)
    except (tf.errors.OpError, OSError) as error:
        raise FastStyleError(
            f"{target}: cannot write this checkpoint ({refusal(error)}); free some space or change "
            "permissions, then start again to resume from the one before"
        ) from error
    finally:
        remove_partial_files(folder)
    until_now = [found for found in _numbered_checkpoints(folder) if found[0] <= step]
    for number, old in until_now[:-keep]:
        if number == spare:
            continue
        for suffix in (".index", _DATA_SUFFIX):
            with contextlib.suppress(OSError):
                Path(f"{old}{suffix}").unlink(missing_ok=True)
    return target


def remove_partial_files(folder: Path, stems: Iterable[str] | None = None) -> None:
    """Removes what interrupted writes left behind.

    Args:
      folder: Where; a run's own folder, which nobody else writes to.
      stems: In a folder that is shared, the files that are ours; none removes all there are.
    """
    if stems is None:
        without_index = [
            data
            for data in folder.glob(f"{CHECKPOINT_STEM}-*{_DATA_SUFFIX}")
            if not data.with_name(data.name.removesuffix(_DATA_SUFFIX) + ".index").exists()
        ]
        leftovers = [*folder.glob(f"{_PARTIAL}*"), *without_index, *partial_paths(folder)]
    else:
        leftovers = [path for stem in stems for path in partial_paths(folder, stem)]
    for leftover in leftovers:
        with contextlib.suppress(OSError):
            leftover.unlink()


def newest_checkpoint(folder: Path) -> Path | None:
    """Returns the prefix of the checkpoint with the most steps, or none.

    `fast-style-model.ckpt-done`, which the 2016 implementation writes at the end, says how many it
    has in itself: a run that went on from there has more.
    """
    numbered = _numbered_checkpoints(folder)
    done = folder / f"{CHECKPOINT_STEM}-done"
    if not (done.is_file() or Path(f"{done}.index").is_file()):
        return numbered[-1][1] if numbered else None
    if not numbered:
        return done
    try:
        steps = read_checkpoint(done)[0].get(STEP)
    except ModelError:
        steps = None  # Damaged: whoever reads it next is told.
    return numbered[-1][1] if steps is not None and steps < numbered[-1][0] else done


def read_newest_checkpoint(
    folder: Path,
) -> tuple[Path, dict[str, np.ndarray], dict[str, Any], list[Path]] | None:
    """Reads the newest checkpoint that is whole and holds finite numbers alone.

    Returns:
      Its prefix, tensors and description, and the prefixes of newer ones that are damaged; none if
      the folder has no checkpoint.

    Raises:
      ModelError: If all are damaged.
    """
    newest = newest_checkpoint(folder)
    if newest is None:
        return None
    numbered = [path for _, path in reversed(_numbered_checkpoints(folder))]
    damaged: list[Path] = []
    for prefix in dict.fromkeys([newest, *numbered]):
        try:
            tensors, run = read_checkpoint(prefix)
        except ModelError:
            damaged.append(prefix)
            continue
        if all(_is_finite(value) for value in tensors.values()):
            return prefix, tensors, run, damaged
        damaged.append(prefix)
    names = ", ".join(f"{prefix.name} is damaged" for prefix in damaged)
    raise ModelError(f"{folder}: {names}, and there is no other; start over with --fresh")


def put_out_of_the_way(prefix: Path) -> None:
    """Renames a damaged checkpoint, so that nobody takes it for the newest; best effort."""
    for suffix in (".index", _DATA_SUFFIX, ""):
        with contextlib.suppress(OSError):
            os.replace(f"{prefix}{suffix}", prefix.with_name(f"damaged-{prefix.name}{suffix}"))


def _numbered_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Complete checkpoints by ascending step; V1 ones are a file without a suffix."""
    found = []
    pattern = re.compile(re.escape(CHECKPOINT_STEM) + r"-(\d+)(\.index)?")
    for path in folder.glob(f"{CHECKPOINT_STEM}-*"):
        match = pattern.fullmatch(path.name)
        if match:
            found.append((int(match[1]), path.with_name(f"{CHECKPOINT_STEM}-{match[1]}")))
    return sorted(set(found))


def read_checkpoint(prefix: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads a checkpoint of either format.

    Args:
      prefix: Its path without suffix (V2), or the file itself (V1).

    Returns:
      {name: array}, and the description of the run (empty if it has none).

    Raises:
      ModelError: If it is damaged or no checkpoint.
    """
    try:
        with _without_wildcards(prefix) as readable:
            reader = tf.train.load_checkpoint(str(readable))
            tensors = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
        described = tensors.pop(RUN, None)
        run = json.loads(described) if described is not None else {}
        if not isinstance(run, dict):
            raise TypeError(f"{RUN} is a {type(run).__name__}")
    # A cut data file is an IndexError, a damaged description a ValueError or TypeError, a damaged
    # size a MemoryError where memory is limited.
    except (
        *(tf.errors.OpError, LookupError, RuntimeError, OSError),
        *(TypeError, ValueError, MemoryError),
    ) as error:
        raise ModelError(
            f"{prefix}: cannot be read as a TensorFlow checkpoint; it is damaged or something "
            "else: use an earlier checkpoint or train again"
        ) from error
    return {name: np.asarray(value) for name, value in tensors.items()}, run


@contextlib.contextmanager
def _without_wildcards(prefix: Path) -> Iterator[Path]:
    """Gives a path to the same checkpoint that TensorFlow cannot take for a pattern."""
    if not re.search(r"[*?\[\\]", str(prefix)):
        yield prefix
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / "checkpoint"
        for file in prefix.parent.glob(f"{glob.escape(prefix.name)}*"):
            os.symlink(file.resolve(), f"{link}{file.name.removeprefix(prefix.name)}")
        yield link


# --- model files ---------------------------------------------------------------------------------


def save_model(path: Path, model: Model) -> None:
    """Writes `model.safetensors`: 16-bit weights, everything else in the header.

    Args:
      path: The file; replaced in one step.
      model: What to write; `metadata` must be JSON-able.

    Raises:
      FastStyleError: If the file cannot be written, or a weight does not fit 16 bits.
    """
    tensors = {}
    for name, value in model.weights.items():
        with np.errstate(over="ignore"):  # Told below, with the name.
            half = np.asarray(value, np.float32).astype(np.float16)
        if not np.isfinite(half).all():
            raise FastStyleError(
                f"{path}: weight {name} has values up to {np.abs(value).max():.3g}, which do not "
                "fit 16-bit floats; the training has diverged, so use an earlier checkpoint"
            )
        tensors[name] = np.ascontiguousarray(half)
    header = {
        "format": _FORMAT,
        "arch": model.arch,
        "width": repr(model.width),
        "style_names": json.dumps(model.style_names),
        "metadata": json.dumps(model.metadata),
    }
    # Written by us: safetensors' own writer reports a full disk in a way that nobody expects.
    packed = safetensors.numpy.save(tensors, metadata=header)
    with atomic_path(path) as aside:
        aside.write_bytes(packed)


def load_model(path: str | os.PathLike[str]) -> Model:
    """Reads a trained net from any of the places it lives in.

    Args:
      path: A run's folder (its model file, else its newest checkpoint), a `.safetensors` file, a
        checkpoint's prefix or index, or a V1 checkpoint of the 2016 implementation. `START` stands
        for the file that comes along with the project, wherever one works.

    Raises:
      ModelError: If there is no model, or it is damaged, or of an unknown architecture.
    """
    place = Path(path)
    if place.is_dir():
        if (place / MODEL_FILE).is_file():
            return _load_model_file(place / MODEL_FILE)
        newest = newest_checkpoint(place)
        if newest is None:
            raise ModelError(
                f"{place}: no {MODEL_FILE} and no {CHECKPOINT_STEM}-* in this folder; "
                "give the folder of a training run, or a model file"
            )
        return _load_checkpoint_model(newest)
    if place.suffix == ".safetensors":
        if not place.is_file():
            bundled = find_bundled(place) if place == Path(START) else None
            if bundled is None:
                raise _missing(place)
            place = bundled
        return _load_model_file(place)
    place = place.with_name(re.sub(r"(?<=.)\.(index|meta|data-\d+-of-\d+)$", "", place.name))
    if not place.is_file() and not Path(f"{place}.index").is_file():
        raise _missing(place)
    return _load_checkpoint_model(place)


def _missing(place: Path) -> ModelError:
    return ModelError(
        f"{place}: no such model; give the folder of a training run (such as models/candy), "
        "a .safetensors file or a checkpoint"
    )


def _load_model_file(path: Path) -> Model:
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            if header.get("format") != _FORMAT:
                raise ModelError(
                    f"{path}: a safetensors file, but not a fast-style model (its header does not "
                    f"say format: {_FORMAT}); give the {MODEL_FILE} that train.py wrote"
                )
            weights = {name: file.get_tensor(name) for name in file.keys()}
    except ModelError:
        raise
    # AttributeError: what it raises for number types that NumPy lacks.
    except (safetensors.SafetensorError, OSError, AttributeError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path}: cannot be read as a safetensors file ({refusal(error)}); it is damaged or "
            "something else: fetch or train it again"
        ) from error
    try:
        arch, width = header["arch"], float(header["width"])
        names, metadata = json.loads(header["style_names"]), json.loads(header["metadata"])
    except (KeyError, ValueError, RecursionError) as error:
        raise _damaged(path, f"its header is incomplete or cannot be read: {error}") from error
    return _checked_model(path, arch, width, names, weights, metadata)


def _load_checkpoint_model(prefix: Path) -> Model:
    tensors, run = read_checkpoint(prefix)
    config = run.get("config", {})
    if not isinstance(config, dict):
        raise _damaged(prefix, "its configuration is not a table")
    names = run.get("style_names") or [prefix.parent.name or "style"]
    weights = {name: value for name, value in tensors.items() if not _is_state(name)}
    arch, width = config.get("arch", "slim2016"), config.get("width", 1.0)
    return _checked_model(prefix, arch, width, names, weights, run)


def _is_state(name: str) -> bool:
    """Whether a tensor of a checkpoint is training state: a step, Adam's moments and powers."""
    last = name.rsplit("/", 1)[-1]
    return name == STEP or last in (FIRST_MOMENT, SECOND_MOMENT) or last.startswith("beta")


def _checked_model(
    source: Path,
    arch: Any,
    width: Any,
    style_names: Any,
    weights: Mapping[str, np.ndarray],
    metadata: Any,
) -> Model:
    """Builds a model from what a file says, of which nothing is taken for granted.

    Raises:
      ModelError: If any of it is not as `Model` describes it.
    """
    if arch not in tuple(ARCHITECTURES):
        raise ModelError(
            f"{source}: made for arch {arch!r}, and this version knows "
            f"{', '.join(ARCHITECTURES)}; update fast-style"
        )
    if not isinstance(width, int | float) or not 0 < width <= _WIDEST:
        raise _damaged(source, f"its width is {width!r}")
    named = isinstance(style_names, list) and all(isinstance(name, str) for name in style_names)
    if not named or not style_names:
        raise _damaged(source, f"its style names are {style_names!r}")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("config", {}), dict):
        raise _damaged(source, "its metadata is not a table")
    try:
        wanted = architecture(arch).shapes(float(width), len(style_names))
    except ValueError as error:
        raise _damaged(source, str(error)) from error
    _check_weights(source, arch, wanted, weights)
    floats = {name: np.asarray(weights[name], np.float32) for name in wanted}
    return Model(arch, float(width), tuple(style_names), floats, metadata, source)


def _damaged(source: Path, what: str) -> ModelError:
    return ModelError(f"{source}: the file is damaged ({what}); fetch or train it again")


def tensor_problems(
    wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, np.ndarray]
) -> list[str]:
    """Names what is missing, unexpected or of another shape among named tensors.

    Args:
      wanted: {name: shape}.
      found: {name: array}.

    Returns:
      One phrase per kind of problem; empty if they agree.
    """
    return [
        *_listed("missing", (name for name in wanted if name not in found)),
        *_listed("unexpected", (name for name in found if name not in wanted)),
        *_listed(
            "of another shape",
            (
                f"{name} {list(found[name].shape)} instead of {list(shape)}"
                for name, shape in wanted.items()
                if name in found and tuple(found[name].shape) != tuple(shape)
            ),
        ),
    ]


def _check_weights(
    source: Path,
    arch: str,
    wanted: Mapping[str, tuple[int, ...]],
    weights: Mapping[str, np.ndarray],
) -> None:
    """Names every weight that is missing, unexpected, of another shape, or not a number.

    Raises:
      ModelError: If there is any.
    """
    problems = tensor_problems(wanted, weights)
    if problems:
        raise ModelError(
            f"{source}: does not hold the weights of arch {arch}: {'; '.join(problems)}; "
            "give a model of this tool, or a checkpoint of the same architecture"
        )
    broken = [name for name in wanted if not _is_finite(weights[name])]
    if broken:
        raise ModelError(
            f"{source}: {_listed('weights', broken)[0]} hold values that are not finite numbers; "
            "the training has diverged or the file is damaged, so use an earlier checkpoint or "
            "train again"
        )


def _is_finite(weight: np.ndarray) -> bool:
    try:
        return bool(np.isfinite(weight).all())
    except TypeError:  # Text.
        return False


def _listed(what: str, names: Iterable[str]) -> list[str]:
    found = list(names)
    if not found:
        return []
    # Damaged files have names of any length.
    short = [name if len(name) <= 120 else f"{name[:117]}..." for name in found]
    return [f"{len(found)} {what} ({first_few(short, 3)})"]
