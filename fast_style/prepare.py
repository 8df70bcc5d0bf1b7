"""Photos decoded and scaled once, for hardware that trains faster than JPEGs can be decoded.

A prepared folder mirrors the photo folder. Each photo is a raw RGB picture (binary PPM, `P6`) whose
short side is what training would scale it to, so that reading it is little more than copying: no
decoding, no resizing, and everything that reads photos reads these. `prepared.json` says what it is
and whether it is complete.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fast_style.data import find_photos
from fast_style.errors import DataError, ImageError
from fast_style.files import atomic_path, check_folder, remove_partial_paths
from fast_style.images import load_scaled, printable

INDEX_FILE = "prepared.json"
_FORMAT = "fast-style prepared photos"


@dataclass
class Prepared:
    """What `prepare_photos` did.

    Attributes:
      folder: The prepared folder.
      photos: Number of photos in it.
      written: How many of them were not there before.
      total_bytes: Their size on disk.
      skipped: {photo: why it could not be read}.
    """

    folder: Path
    photos: int = 0
    written: int = 0
    total_bytes: int = 0
    skipped: dict[Path, str] = field(default_factory=dict)


def prepare_photos(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    size: int = 256,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Decodes and scales every photo of a folder once, and writes it where training reads it fast.

    A photo's file is its path within the folder and `.ppm`. One that is there already, and not
    older than its photo, is kept: a call that was interrupted goes on where it stopped. Training
    visits the prepared photos in the order in which it would visit the others, unless one could
    not be read.

    Args:
      source: The photo folder, searched as training does.
      target: The prepared folder; created if missing.
      size: Short side in px: the largest `image_size` that the folder serves.
      workers: Decoding threads; none takes one per processor.
      progress: Is told how many photos are done, and of how many.

    Returns:
      What was done.

    Raises:
      DataError: If there are no photos, none can be read, the folders lie within each other, or the
        target was prepared at another size.
      FastStyleError: If the target cannot be written.
      ValueError: If `size` is below 1.
    """
    if size < 1:
        raise ValueError(f"expected a size of at least 1 pixel, got {size}")
    root, folder = Path(source), Path(target)
    photos = find_photos(root, advice="name a folder of photos")
    inner, outer = folder.resolve(), root.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise DataError(
            f"{printable(folder)}: lies within the photo folder, or the other way round, so that "
            "photos would be found twice; choose a folder beside it"
        )
    check_folder(folder)
    before = _read_index(folder)
    if before is not None and before["size"] != size:
        raise DataError(
            f"{printable(folder)}: prepared with --size {before['size']}, not {size}; "
            "choose another folder, or remove this one"
        )
    for place in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        remove_partial_paths(place)  # Of a run that was killed.
    wanted = {_prepared_path(folder, path.relative_to(root)) for path in photos}
    if strangers := sorted(set(folder.rglob("*.ppm")) - wanted):
        raise DataError(
            f"{printable(folder)}: holds {len(strangers)} pictures that are not of "
            f"{printable(root)}, such as {printable(strangers[0].relative_to(folder))}; choose "
            "another folder, or remove this one"
        )
    _write_index(folder, size, 0, complete=False)
    result = Prepared(folder)
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        jobs = {
            pool.submit(_prepare, path, _prepared_path(folder, path.relative_to(root)), size): path
            for path in photos
        }
        try:
            for done, job in enumerate(as_completed(jobs), start=1):
                try:
                    bytes_there, is_new = job.result()
                except ImageError as error:
                    result.skipped[jobs[job]] = str(error)
                else:
                    result.photos += 1
                    result.written += is_new
                    result.total_bytes += bytes_there
                if progress is not None:
                    progress(done, len(photos))
        except BaseException:  # An interrupt, a full disk: what has not begun need not begin.
            pool.shutdown(cancel_futures=True)
            raise
    if not result.photos:
        reason = next(iter(result.skipped.values()))
        raise DataError(
            f"{printable(root)}: none of its {len(photos)} photos can be read; {reason}"
        )
    _write_index(folder, size, result.photos, complete=True)
    return result


def check_prepared(folder: str | os.PathLike[str], image_size: int) -> None:
    """Checks that a folder, if it is a prepared one, has what a run needs.

    Args:
      folder: Any photo folder; others than prepared ones always pass.
      image_size: Side of the run's crops in px.

    Raises:
      DataError: If its photos are smaller, or it was not prepared to the end.
    """
    index = _read_index(Path(folder))
    if index is None:
        return
    if not index["complete"]:
        raise DataError(
            f"{printable(folder)}: its preparation was interrupted; run the same "
            "`python -m fast_style prepare` again to finish it"
        )
    if index["size"] < image_size:
        raise DataError(
            f"{printable(folder)}: its photos are prepared for an image_size of up to "
            f"{index['size']}, and this run has {image_size}; prepare them again with "
            f"--size {image_size}, or name the original folder"
        )


def _prepared_path(folder: Path, inside: Path) -> Path:
    return folder / inside.with_name(f"{inside.name}.ppm")


def _prepare(photo: Path, target: Path, size: int) -> tuple[int, bool]:
    """Writes one photo unless it is there, and returns its bytes and whether it was written."""
    try:
        there = target.stat()
        if there.st_mtime >= photo.stat().st_mtime:
            return there.st_size, False
    except OSError:
        pass  # Not there yet; whether the photo is, reading it will tell.
    pixels = load_scaled(photo, size)
    height, width = pixels.shape[:2]
    content = b"P6 %d %d 255\n" % (width, height) + np.ascontiguousarray(pixels).tobytes()
    with atomic_path(target) as aside:
        aside.write_bytes(content)
    return len(content), True


def _write_index(folder: Path, size: int, photos: int, *, complete: bool) -> None:
    index = {"format": _FORMAT, "size": size, "photos": photos, "complete": complete}
    with atomic_path(folder / INDEX_FILE) as aside:
        aside.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def _read_index(folder: Path) -> dict[str, Any] | None:
    """Reads `prepared.json`; none if the folder has none.

    Raises:
      DataError: If it is damaged.
    """
    path = folder / INDEX_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return None
    except UnicodeDecodeError:
        text = ""
    try:
        index = json.loads(text)
        valid = index["format"] == _FORMAT and isinstance(index["complete"], bool)
        if valid and type(index["size"]) is int:
            return index
    except (ValueError, TypeError, KeyError):
        pass
    raise DataError(
        f"{printable(path)}: not what `python -m fast_style prepare` writes; remove this file and "
        "prepare the folder again, or, if it holds ordinary photos, only remove the file"
    )
