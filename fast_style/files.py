"""Files and folders that are never half-written: written aside, flushed to disk, then renamed."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from fast_style.errors import FastStyleError

# Where what comes along is: beside the package in a clone, inside it once installed.
_BUNDLED_IN = (Path(__file__).parents[1], Path(__file__).parent)


def find_bundled(path: Path) -> Path | None:
    """Returns the file that comes along with the project as this relative path, if there is one."""
    found = (folder / path for folder in _BUNDLED_IN)
    return next((file for file in found if not path.is_absolute() and file.is_file()), None)


def safe_label(name: str) -> str:
    """Returns a name as a part of a file's name.

    Model files are passed around, so what `checks.plain_name` refuses is replaced.
    """
    safe = re.sub(r"[^\w .,+()-]", "_", name)[:50]
    safe = safe.encode()[:100].decode(errors="ignore")
    return re.sub(r"^\W+|[^\w)+]+$", "", safe) or "styled"


def fsync_path(path: str | os.PathLike[str]) -> None:
    """Flushes a file or a folder's entries to disk, so that it survives a power cut.

    Raises:
      OSError: If the disk is full or broken, which some systems only notice now.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # A folder cannot be opened on some systems; its entries flush by themselves.
        return
    try:
        os.fsync(descriptor)
    except OSError as error:  # Some file systems do not offer it; that is no failure.
        if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            raise
    finally:
        os.close(descriptor)


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Creates a folder and its parents where missing.

    Raises:
      FastStyleError: If it cannot be created, or a file is in its place.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FastStyleError(
            f"{folder}: cannot create this folder ({refusal(error)}); "
            "choose another place or change its permissions"
        ) from error
    return folder


def check_folder(path: str | os.PathLike[str]) -> None:
    """Finds out whether `make_folder` would succeed and files could be written, writing nothing.

    Raises:
      FastStyleError: If a file is in the folder's place or above it, or writing is not permitted.
    """
    folder = Path(path).absolute()
    for place in (folder, *folder.parents):
        if os.path.lexists(place):
            break
    if not place.is_dir():
        reason = f"{place} is not a folder"
    elif not os.access(place, os.W_OK | os.X_OK):
        reason = f"no permission to write in {place}"
    else:
        return
    raise FastStyleError(
        f"{path}: cannot write to this folder ({reason}); "
        "choose another place or change its permissions"
    )


def check_file(path: str | os.PathLike[str]) -> None:
    """Finds out whether `atomic_path` could put a file here, writing nothing.

    Raises:
      FastStyleError: If a folder is in its place, or `check_folder` refuses the one above.
    """
    target = Path(path)
    check_folder(target.parent)
    if target.is_dir():
        raise cannot_write(target, IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)))


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path beside `path`, which takes its place when the block succeeds.

    The block writes a file or a folder there. The temporary name keeps the suffix, because image
    and weights writers choose their format by it. On any failure what was written is removed and
    what was at `path` before is untouched.

    Raises:
      FastStyleError: If the folder above cannot be created, the file cannot be written, or `path`
        is a folder that holds something.
    """
    target = Path(path)
    make_folder(target.parent)
    # Cut, because names have at most 255 bytes and a character up to 4.
    stem = target.stem[:40]
    aside = target.with_name(f".{stem}.{secrets.token_hex(4)}.partial{target.suffix}")
    try:
        yield aside
        for inside in aside.rglob("*") if aside.is_dir() else ():
            fsync_path(inside)
        fsync_path(aside)
        os.replace(aside, target)
        fsync_path(target.parent)
    except OSError as error:
        # Only the system's refusals become a sentence; an image encoder's OSError has no errno.
        if error.errno is None:
            raise
        raise cannot_write(target, error, what="folder" if aside.is_dir() else "file") from error
    finally:
        _discard(aside)


def partial_paths(folder: Path, stem: str = "*") -> list[Path]:
    """Lists what `atomic_path` left in a folder when its process was killed.

    Files that another process is writing at the moment look the same.

    Args:
      folder: Where to look, not below.
      stem: Of the files' names, without the suffix; anything by default.
    """
    pattern = f".{stem if stem == '*' else glob.escape(stem[:40])}.{'[0-9a-f]' * 8}.partial*"
    return sorted(folder.glob(pattern))


def remove_partial_paths(folder: Path, stem: str = "*") -> None:
    """Removes what `partial_paths` lists, folders too; best effort."""
    for path in partial_paths(folder, stem):
        _discard(path)


def _discard(path: Path) -> None:
    """Removes a file or a folder with all in it, if it is there and that is permitted."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def cannot_write(path: Path, error: Exception, *, what: str = "file") -> FastStyleError:
    """Returns a sentence for what the system or TensorFlow refused.

    Args:
      path: What was to be written.
      error: See `refusal`.
      what: 'file' or 'folder'.
    """
    return FastStyleError(
        f"{path}: cannot write this {what} ({refusal(error)}); "
        "choose another place, free some space or change its permissions"
    )


def refusal(error: Exception) -> str:
    """Returns why the system refused, in its own words: 'No space left on device'.

    Args:
      error: An OSError, or TensorFlow's error for one, whose message also names its internals.
    """
    words = getattr(error, "strerror", None) or getattr(error, "message", None) or str(error)
    return re.sub(r"\{\{.*?\}\} ?| \[Op:\w+\]", "", words).rsplit("; ", 1)[-1].strip()
