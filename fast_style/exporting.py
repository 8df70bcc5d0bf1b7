"""Files for other runtimes, each checked against the native net before it is put in its place."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from fast_style.checkpoints import Model
from fast_style.checks import plain_name
from fast_style.errors import FastStyleError
from fast_style.export_formats import DEFAULT_FORMAT, FORMATS
from fast_style.files import atomic_path, make_folder, refusal
from fast_style.lite_export import import_litert, tflite_runner, write_tflite
from fast_style.onnx_export import import_onnx, import_onnxruntime, onnx_runner, write_onnx
from fast_style.parity import Parity, ParityCheck, Signature, Tolerance
from fast_style.provenance import package_versions
from fast_style.saved_model import saved_model_signatures, write_saved_model

_FLOAT32 = Tolerance(levels=1)
# Rounding to 8 bits of precision at every map, with random weights as with trained ones.
_BFLOAT16 = Tolerance(psnr=30.0)


@dataclass(frozen=True, kw_only=True)
class Exported:
    """One file, or folder, that was made.

    Attributes:
      kind: 'savedmodel', 'tflite float16', 'tflite int8' or 'onnx'.
      path: Where it is, or would be if it had passed.
      bytes: Its size.
      parity: How it compares with the native net.
    """

    kind: str
    path: Path
    bytes: int
    parity: Parity


@dataclass(frozen=True, kw_only=True)
class Export:
    """All that was made of a model.

    Attributes:
      files: In the order of the formats asked for.
      report: The JSON file with the same figures.
      native_milliseconds: Of the native float32 net, for comparison.
    """

    files: tuple[Exported, ...]
    report: Path
    native_milliseconds: float


def export_model(
    model: Model,
    root: str | os.PathLike[str],
    *,
    name: str,
    formats: Sequence[str] = (DEFAULT_FORMAT,),
    precision: str = "float32",
    version: int | None = None,
    photo: np.ndarray | None = None,
) -> Export:
    """Writes a model for other runtimes, and compares each file with the native float32 net.

    `root`/NAME/VERSION/ is a SavedModel, `root`/NAME.onnx, `root`/NAME_float16.tflite and
    `root`/NAME_int8.tflite are what they say, `root`/NAME.card.json says how the model was made,
    and `root`/NAME.parity.json holds the comparison. A file is written aside, compared, and
    renamed; one beyond its tolerance is removed, and what was in its place before stays.

    Args:
      model: The trained net.
      root: Where to write.
      name: Of the model; names files and a folder, see `checks.plain_name`.
      formats: Any of `export_formats.FORMATS`.
      precision: 'float32' or 'bfloat16', of the SavedModel.
      version: Of the SavedModel; none takes the first number above those that are there.
      photo: uint8 [H, W, 3] to compare on; none takes `parity.PHOTO`.

    Raises:
      FastStyleError: If a package is not installed, the version is taken, or a file cannot be
        written. Files beyond their tolerance are no error here: see `Exported.parity`.
      ValueError: If a format or the precision is unknown, or `name` is no plain file name.
    """
    problems: list[str] = []
    plain_name("name", name, problems)
    if problems:
        raise ValueError(problems[0])
    if unknown := [name for name in formats if name not in FORMATS]:
        raise ValueError(f"formats: expected any of {', '.join(FORMATS)}, got {unknown[0]!r}")
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision: expected float32 or bfloat16, got {precision!r}")
    if "onnx" in formats:
        import_onnx()
        import_onnxruntime()
    if "tflite" in formats:
        import_litert()
    folder = Path(root)
    versions = folder / name
    target = versions / str(_free_version(versions, version)) if "savedmodel" in formats else None
    card = _card(model)
    check = ParityCheck(model, photo)
    files: list[Exported] = []
    for kind in dict.fromkeys(formats):
        if target is not None and kind == "savedmodel":
            files.append(_saved_model(model, target, name, precision, card, check))
        elif kind == "onnx":
            files.append(_onnx(model, folder / f"{name}.onnx", card, check))
        elif kind == "tflite":
            files.append(_tflite(model, folder / f"{name}_float16.tflite", "float16", check))
            files.append(_tflite(model, folder / f"{name}_int8.tflite", "int8", check))
    report = folder / f"{name}.parity.json"
    _write_json(folder / f"{name}.card.json", card)
    _write_json(
        report,
        {
            "model": name,
            "versions": package_versions(),
            "native_milliseconds": check.milliseconds,
            "files": [
                {
                    "kind": file.kind,
                    "path": file.path.relative_to(folder).as_posix(),
                    "bytes": file.bytes,
                    **file.parity.as_json(),
                }
                for file in files
            ],
        },
    )
    return Export(files=tuple(files), report=report, native_milliseconds=check.milliseconds)


def _saved_model(
    model: Model,
    target: Path,
    name: str,
    precision: str,
    card: dict[str, Any],
    check: ParityCheck,
) -> Exported:
    with _new_folder(target) as aside:
        write_saved_model(model, aside.path, name=name, precision=precision, card=card)
        size = sum(path.stat().st_size for path in aside.path.rglob("*") if path.is_file())
        tolerance = _FLOAT32 if precision == "float32" else _BFLOAT16
        parity = check.measure(saved_model_signatures(aside.path), tolerance, precision=precision)
        aside.keep = parity.passed
    return Exported(kind="savedmodel", path=target, bytes=size, parity=parity)


def _onnx(model: Model, target: Path, card: dict[str, Any], check: ParityCheck) -> Exported:
    with _new_file(target) as aside:
        write_onnx(model, aside.path, card=card)
        size = aside.path.stat().st_size
        run = Signature(run=onnx_runner(aside.path), mixes=len(model.style_names) > 1)
        parity = check.measure([run], _FLOAT32)
        aside.keep = parity.passed
    return Exported(kind="onnx", path=target, bytes=size, parity=parity)


def _tflite(model: Model, target: Path, storage: Any, check: ParityCheck) -> Exported:
    with _new_file(target) as aside:
        write_tflite(model, aside.path, storage=storage)
        size = aside.path.stat().st_size
        tolerance = Tolerance(psnr=40.0 if storage == "float16" else 30.0)
        run = Signature(run=tflite_runner(aside.path), mixes=len(model.style_names) > 1)
        parity = check.measure([run], tolerance)
        aside.keep = parity.passed
    return Exported(kind=f"tflite {storage}", path=target, bytes=size, parity=parity)


def _card(model: Model) -> dict[str, Any]:
    """How a model was made: what the header of its file says."""
    return {
        "arch": model.arch,
        "width": model.width,
        "style_names": list(model.style_names),
        "metadata": dict(model.metadata),
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_path(path) as aside:
        aside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


# --- where files go ------------------------------------------------------------------------------


def _free_version(folder: Path, version: int | None) -> int:
    """Returns the version to write.

    Raises:
      FastStyleError: If the one asked for is there, or `folder` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise FastStyleError(f"{folder}: is a file, not a folder; choose another place with -o")
    taken = [
        int(path.name)
        for path in (folder.iterdir() if folder.exists() else ())
        if re.fullmatch("[0-9]+", path.name)
    ]
    if version is None:
        return max(taken, default=0) + 1
    if version in taken:
        raise FastStyleError(
            f"{folder / str(version)}: already exists; leave out --version for the next free number"
        )
    return version


@dataclass
class _Aside:
    """A temporary place; `keep` says whether it takes its target's place."""

    path: Path
    keep: bool = False


@contextlib.contextmanager
def _new_folder(target: Path) -> Iterator[_Aside]:
    """Gives a place for a folder that is not there yet.

    Its temporary name is no number, so that TensorFlow Serving, which watches the folder above,
    does not take it for a version.
    """
    target = target.absolute()
    existed = target.parent.exists()
    make_folder(target.parent)
    aside = _Aside(target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial"))
    try:
        with _refusals_told(target):
            yield aside
            if aside.keep:
                aside.path.rename(target)
    finally:
        shutil.rmtree(aside.path, ignore_errors=True)
        if not existed:
            with contextlib.suppress(OSError):
                target.parent.rmdir()  # Unless something is in it.


@contextlib.contextmanager
def _new_file(target: Path) -> Iterator[_Aside]:
    """Gives a place for a file, which then replaces what is at `target`."""
    make_folder(target.parent)
    aside = _Aside(target.with_name(f".{target.stem[:40]}.{secrets.token_hex(4)}.partial"))
    try:
        with _refusals_told(target):
            yield aside
            if aside.keep:
                aside.path.replace(target)
    finally:
        with contextlib.suppress(OSError):
            aside.path.unlink(missing_ok=True)


@contextlib.contextmanager
def _refusals_told(target: Path) -> Iterator[None]:
    """Turns what the system or TensorFlow refuses into a sentence."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        raise FastStyleError(
            f"{target}: cannot write this ({refusal(error)}); "
            "choose another place, free some space or change its permissions"
        ) from error
