"""Files that are never half-written: written aside, flushed to disk, then renamed."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from fast_style.errors import FastStyleError


def fsync_path(path: str | os.PathLike[str]) -> None:
    """Flushes a file or a folder's entries to disk, so that it survives a power cut."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # A folder cannot be opened on some systems; its entries flush by themselves.
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
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
            f"{folder}: cannot create this folder ({_reason(error)}); "
            "choose another place or change its permissions"
        ) from error
    return folder


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path beside `path`, which takes its place when the block succeeds.

    The temporary name keeps the suffix, because image and weights writers choose their format by
    it. On any failure the temporary file is removed and what was at `path` before is untouched.

    Raises:
      FastStyleError: If the folder cannot be created or the file cannot be written.
    """
    target = Path(path)
    make_folder(target.parent)
    aside = target.with_name(f".{target.stem[:80]}.{secrets.token_hex(4)}.partial{target.suffix}")
    try:
        yield aside
        fsync_path(aside)
        os.replace(aside, target)
        fsync_path(target.parent)
    except OSError as error:
        # Only the system's refusals become a sentence; an image encoder's OSError has no errno.
        if error.errno is None:
            raise
        raise FastStyleError(
            f"{target}: cannot write this file ({_reason(error)}); "
            "choose another place, free some space or change its permissions"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
