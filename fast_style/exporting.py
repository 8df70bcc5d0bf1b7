"""Files for other runtimes, each checked against the native net before it is put in its place."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import tensorflow as tf

from fast_style.checkpoints import Model
from fast_style.checks import plain_name
from fast_style.errors import FastStyleError
from fast_style.export_formats import DEFAULT_FORMAT, FORMATS
from fast_style.files import atomic_path, cannot_write, check_file, remove_partial_paths
from fast_style.lite_export import Storage, import_litert, tflite_runner, write_tflite
from fast_style.loss_weights import weights_sha256
from fast_style.onnx_export import import_onnx, import_onnxruntime, onnx_runner, write_onnx
from fast_style.parity import PHOTO, Parity, ParityCheck, Signature, Tolerance
from fast_style.provenance import file_sha256, package_versions
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
      precision: What it computes in: 'float32', 'bfloat16' or 'int8'.
      bytes: Its size.
      parity: How it compares with the native net.
    """

    kind: str
    path: Path
    precision: str
    bytes: int
    parity: Parity

    @property
    def report(self) -> Path:
        """The JSON file beside it that says how the model was made and how the file compares."""
        return _report_of(self.path)


@dataclass(frozen=True, kw_only=True)
class Export:
    """All that was made of a model.

    Attributes:
      files: In the order of the formats asked for.
      failures: The JSON file with reports of those that were not kept; none if all were.
      native_milliseconds: Of the native float32 net, for comparison.
    """

    files: tuple[Exported, ...]
    failures: Path | None
    native_milliseconds: float


@dataclass(frozen=True, kw_only=True)
class _Recipe:
    """How one file comes about.

    Attributes:
      kind: See `Exported`.
      target: Where it goes.
      write: Writes it to a path.
      load: Loads it from there.
      tolerance: How far it may be from the native net.
      precision: See `Exported`.
    """

    kind: str
    target: Path
    write: Callable[[Path], None]
    load: Callable[[Path], list[Signature]]
    tolerance: Tolerance
    precision: str


class _BeyondTolerance(Exception):
    """Keeps a file from taking its place."""

    def __init__(self, made: Exported) -> None:
        self.made = made
        super().__init__()


def export_model(
    model: Model,
    root: str | os.PathLike[str],
    *,
    name: str,
    formats: Sequence[str] = (DEFAULT_FORMAT,),
    precision: str = "float32",
    version: int | None = None,
    photo: str | os.PathLike[str] | None = None,
) -> Export:
    """Writes a model for other runtimes, and compares each file with the native float32 net.

    `root`/NAME/VERSION/ is a SavedModel, `root`/NAME.onnx, `root`/NAME_float16.tflite and
    `root`/NAME_int8.tflite are what they say. A file is written aside, compared, and renamed; then
    PATH.json beside it says how the model was made and holds the comparison. A file beyond its
    tolerance is removed, and what was in its place before stays, its report too; what would have
    been reported goes to `root`/NAME.failed.json, which an export that succeeds removes.

    Args:
      model: The trained net.
      root: Where to write.
      name: Of the model; names files and a folder, see `checks.plain_name`.
      formats: Any of `export_formats.FORMATS`.
      precision: 'float32' or 'bfloat16', of the SavedModel.
      version: Of the SavedModel; none takes the first number above those that are there.
      photo: A picture file to compare on; none takes `parity.PHOTO`.

    Raises:
      FastStyleError: If a package is not installed, the version is taken, the photo cannot be
        read, or a file cannot be written. Files beyond their tolerance are no error here: see
        `Exported.parity`.
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
    recipes = _recipes(model, folder, formats, name, version, precision)
    failures = folder / f"{name}.failed.json"
    for path in (recipe.target for recipe in recipes):
        check_file(path)
        check_file(_report_of(path))
    check_file(failures)
    for recipe in recipes:
        # A killed export may have been at another version.
        stem = "*" if recipe.kind == "savedmodel" else recipe.target.stem
        remove_partial_paths(recipe.target.parent, stem)
    description = _description(model, name)
    check = ParityCheck(model, PHOTO if photo is None else Path(photo))
    new = [place for place in (folder / name, folder) if not place.exists()]
    files, failed = [], []
    try:
        for recipe in recipes:
            made = _made(recipe, check)
            report = {**_report(made, folder, check), **description}
            files.append(made)
            if made.parity.passed:
                _write_json(made.report, report)
            else:
                failed.append(report)
        if failed:
            _write_json(failures, {"files": failed})
        else:
            failures.unlink(missing_ok=True)
    finally:
        for place in new:
            _remove_if_empty(place)
    return Export(
        files=tuple(files),
        failures=failures if failed else None,
        native_milliseconds=check.milliseconds,
    )


def _report_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _report(made: Exported, folder: Path, check: ParityCheck) -> dict[str, Any]:
    """What was compared, and what came of it."""
    kept = made.parity.passed
    return {
        "kind": made.kind,
        "path": made.path.relative_to(folder).as_posix() if kept else None,
        "sha256": file_sha256(made.path) if kept and made.path.is_file() else None,
        "bytes": made.bytes,
        "precision": made.precision,
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "photo": check.photo.name,
        "native_milliseconds": check.milliseconds,
        **made.parity.as_json(),
    }


def _description(model: Model, name: str) -> dict[str, Any]:
    """What all reports say of a model; of one that was read from no file, no hash."""
    read = model.source != Path()
    return {
        "model": {
            "name": name,
            "source": str(model.source) if read else None,
            "sha256": weights_sha256(model.source) if read else None,
        },
        "card": _card(model),
        "versions": package_versions(),
    }


def _made(recipe: _Recipe, check: ParityCheck) -> Exported:
    """Writes a file aside, and lets it take its place if it gives the right pictures."""
    try:
        with atomic_path(recipe.target) as aside:
            try:
                recipe.write(aside)
            except tf.errors.OpError as error:
                raise cannot_write(recipe.target, error, what="folder") from error
            parity = check.measure(recipe.load(aside), recipe.tolerance, precision=recipe.precision)
            made = Exported(
                kind=recipe.kind,
                path=recipe.target,
                precision=recipe.precision,
                bytes=_bytes_of(aside),
                parity=parity,
            )
            if not parity.passed:
                raise _BeyondTolerance(made)
    except _BeyondTolerance as beyond:
        return beyond.made
    return made


def _recipes(
    model: Model,
    folder: Path,
    formats: Sequence[str],
    name: str,
    version: int | None,
    precision: str,
) -> list[_Recipe]:
    """Returns how each file comes about, in the order of the formats.

    Raises:
      FastStyleError: If the version is taken.
    """
    card = _card(model)
    several = len(model.style_names) > 1

    def saved_model() -> _Recipe:
        versions = folder / name
        return _Recipe(
            kind="savedmodel",
            target=versions / str(_free_version(versions, version)),
            write=lambda path: write_saved_model(
                model, path, name=name, precision=precision, card=card
            ),
            load=lambda path: saved_model_signatures(path),
            tolerance=_FLOAT32 if precision == "float32" else _BFLOAT16,
            precision=precision,
        )

    def onnx() -> _Recipe:
        return _Recipe(
            kind="onnx",
            target=folder / f"{name}.onnx",
            write=lambda path: write_onnx(model, path, card=card),
            load=lambda path: [Signature(run=onnx_runner(path), mixes=several)],
            tolerance=_FLOAT32,
            precision="float32",
        )

    def tflite(storage: Storage, precision: str, psnr: float) -> _Recipe:
        return _Recipe(
            kind=f"tflite {storage}",
            target=folder / f"{name}_{storage}.tflite",
            write=lambda path: write_tflite(model, path, storage=storage),
            load=lambda path: [Signature(run=tflite_runner(path), mixes=several)],
            tolerance=Tolerance(psnr=psnr),
            precision=precision,
        )

    recipes = {
        "savedmodel": lambda: [saved_model()],
        "tflite": lambda: [tflite("float16", "float32", 40.0), tflite("int8", "int8", 30.0)],
        "onnx": lambda: [onnx()],
    }
    return [recipe for format in dict.fromkeys(formats) for recipe in recipes[format]()]


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


def _bytes_of(path: Path) -> int:
    """The size of a file, or of all files in a folder."""
    inside = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in inside if file.is_file())


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
