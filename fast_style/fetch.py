"""Downloads what a run needs: loss-network weights and photo sets, from a table of public files."""

from __future__ import annotations

import contextlib
import difflib
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fast_style.download import Progress, download, hash_file, partial_path, require_space
from fast_style.errors import FastStyleError
from fast_style.files import fsync_path, make_folder
from fast_style.unzip import unzip

logger = logging.getLogger(__name__)

_MARKER_NAME = ".fetched.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Asset:
    """One public file, and where it goes.

    Attributes:
      name: What a user types after `fetch`.
      urls: The same file in several places, tried in order.
      size_bytes: Size of the download, for the check of free disk; `checksum` decides.
      algorithm: Of the checksum, a name that hashlib knows.
      checksum: As published with the file, lower-case hexadecimal.
      kind: 'file' is kept as it is; 'zip' is unpacked into a folder.
      destination: The file or folder, relative to the root, with '/' between its parts.
      unpacked_limit_bytes: Largest sum of a zip's unpacked sizes.
    """

    name: str
    urls: tuple[str, ...]
    size_bytes: int
    algorithm: str = "md5"
    checksum: str
    kind: Literal["file", "zip"]
    destination: str
    unpacked_limit_bytes: int = 0


_KERAS_BUCKET = "https://storage.googleapis.com/tensorflow/keras-applications"
_KERAS_RELEASE = "https://github.com/fchollet/deep-learning-models/releases/download/v0.1"

ASSETS: Mapping[str, Asset] = {
    asset.name: asset
    for asset in (
        # Convolutions only: 59 MB instead of the 528 MB of TF-Slim's archive, same numbers.
        Asset(
            name="vgg_16",
            urls=(
                f"{_KERAS_BUCKET}/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
                f"{_KERAS_RELEASE}/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
            ),
            size_bytes=59_000_000,
            checksum="6d6bbae143d832006294945121d1f1fc",
            kind="file",
            destination="pretrained/vgg_16.h5",
        ),
        Asset(
            name="vgg_19",
            urls=(
                f"{_KERAS_BUCKET}/vgg19/vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
                f"{_KERAS_RELEASE}/vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
            ),
            size_bytes=81_000_000,
            checksum="253f8cb515780f3b799900260a226db6",
            kind="file",
            destination="pretrained/vgg_19.h5",
        ),
        Asset(
            name="coco2014",
            urls=(
                "http://images.cocodataset.org/zips/train2014.zip",
                "https://s3.amazonaws.com/images.cocodataset.org/zips/train2014.zip",
            ),
            size_bytes=13_600_000_000,
            checksum="0da8c0bd3d6becc4dcb32757491aca88",
            kind="zip",
            destination="data/train2014",
            unpacked_limit_bytes=20_000_000_000,
        ),
        Asset(
            name="coco2017val",
            urls=(
                "http://images.cocodataset.org/zips/val2017.zip",
                "https://s3.amazonaws.com/images.cocodataset.org/zips/val2017.zip",
            ),
            size_bytes=820_000_000,
            checksum="442b8da7639aecaf257c1dceb8ba8c80",
            kind="zip",
            destination="data/val2017",
            unpacked_limit_bytes=1_500_000_000,
        ),
    )
}


def fetch(
    name: str,
    *,
    root: str | os.PathLike[str] = ".",
    assets: Mapping[str, Asset] = ASSETS,
    progress: Progress | None = None,
    timeout_seconds: float = 30.0,
    attempts: int = 5,
    sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """Makes sure that a public file or photo set is on this disk, and returns where.

    What is there and right is not downloaded again. A stopped download continues. A photo set's
    archive may also be put in place by hand, as FOLDER.zip; it is removed once it is unpacked.

    Args:
      name: A key of `assets`.
      root: Folder that destinations are relative to.
      assets: What can be fetched.
      progress: Told how far it is; see `Progress`.
      timeout_seconds: Longest silence of a server before it is asked again.
      attempts: Tries in a row that bring nothing new before a URL is given up.
      sleep: Waits between two tries.

    Returns:
      The file, or the folder of photos.

    Raises:
      FastStyleError: If the name is unknown, the disk too small, the server unreachable, the bytes
        wrong, the archive unsafe, something else is at the destination, or another process is
        fetching the same. Nothing is then at the destination that was not there before.
      KeyboardInterrupt: If stopped by the user; its message says that fetching again continues.
    """
    asset = assets.get(name)
    if asset is None:
        close = difflib.get_close_matches(name, assets, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise FastStyleError(
            f"'{name}': nothing to fetch by this name; {hint}There are: {', '.join(assets)}"
        )
    progress = progress or _silent
    destination = Path(root) / asset.destination
    if _is_there(asset, destination, progress):
        return destination
    make_folder(destination.parent)
    try:
        with _only_process(name, destination.with_name(f".{destination.name}.lock")):
            # Another process may have brought it while this one came to the lock.
            if not _is_there(asset, destination, progress):
                _bring(asset, destination, progress, timeout_seconds, attempts, sleep)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"{name}: stopped; fetch it again to continue from what is already here"
        ) from None
    return destination


def _bring(
    asset: Asset,
    destination: Path,
    progress: Progress,
    timeout_seconds: float,
    attempts: int,
    sleep: Callable[[float], None],
) -> None:
    """Downloads an asset, and unpacks it if it is an archive."""
    zipped = asset.kind == "zip"
    target = destination.with_name(destination.name + ".zip") if zipped else destination
    if not (zipped and _has_right_bytes(asset, target, progress)):
        partial = partial_path(target)
        have = partial.stat().st_size if partial.exists() else 0
        # Photos do not shrink in a zip, so unpacking needs about the archive's size again.
        needed = asset.size_bytes * (2 if zipped else 1) - have
        require_space(asset.name, destination.parent, needed)
        download(
            asset.name,
            asset.urls,
            target,
            algorithm=asset.algorithm,
            checksum=asset.checksum,
            progress=progress,
            timeout_seconds=timeout_seconds,
            attempts=attempts,
            sleep=sleep,
        )
    if zipped:
        _unpack(asset, target, destination, progress)
        with contextlib.suppress(OSError):
            target.unlink()


def _unpack(asset: Asset, archive: Path, folder: Path, progress: Progress) -> None:
    """Unpacks aside, marks the result as whole, then renames it to `folder`."""
    aside = folder.with_name(f".{folder.name}.unpacking")
    # Left over from a process that was killed; the lock says that nobody is in it.
    shutil.rmtree(aside, ignore_errors=True)
    try:
        unzip(archive, aside, limit_bytes=asset.unpacked_limit_bytes, progress=progress)
        marker = {"name": asset.name, asset.algorithm: asset.checksum, "files": _count_files(aside)}
        (aside / _MARKER_NAME).write_text(json.dumps(marker), encoding="utf-8")
        fsync_path(aside / _MARKER_NAME)
        if folder.exists():  # Empty, or it would not have come this far; Windows wants it gone.
            folder.rmdir()
        os.replace(aside, folder)
        fsync_path(folder.parent)
    except OSError as error:
        raise FastStyleError(
            f"{folder}: cannot put the unpacked photos here ({error.strerror or error}); "
            "free some space or change the permissions, then run the same again"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _is_there(asset: Asset, destination: Path, progress: Progress) -> bool:
    """Tells whether the destination is already right; something else there is an error."""
    if asset.kind == "file":
        return _has_right_bytes(asset, destination, progress)
    if not destination.exists():
        return False
    if not destination.is_dir():
        raise FastStyleError(f"{destination}: this is not a folder; move it away and run again")
    if not any(destination.iterdir()):
        return False
    try:
        marker = json.loads((destination / _MARKER_NAME).read_text(encoding="utf-8"))
        right, expected = marker[asset.algorithm] == asset.checksum, int(marker["files"])
    except (OSError, ValueError, TypeError, KeyError):
        raise FastStyleError(
            f"{destination}: this folder was not unpacked by fetch; train on it as it is, "
            f"or move it away to fetch {asset.name}"
        ) from None
    found = _count_files(destination)
    if not right or found < expected:
        problem = f"has {found} of {expected} files" if right else "is another version"
        raise FastStyleError(
            f"{destination}: this copy of {asset.name} {problem}; delete the folder and run again"
        )
    return True


def _has_right_bytes(asset: Asset, path: Path, progress: Progress) -> bool:
    """Tells whether a file is there; with other bytes it is the user's to move, so an error."""
    if not path.exists():
        return False
    found = hash_file(path, asset.algorithm, progress)
    if found != asset.checksum:
        raise FastStyleError(
            f"{path}: this is not {asset.name} (expected {asset.algorithm.upper()} "
            f"{asset.checksum}, got {found}); delete it or move it away and run again"
        )
    return True


def _count_files(folder: Path) -> int:
    names = (name for _, _, files in os.walk(folder) for name in files)
    return sum(name != _MARKER_NAME for name in names)


def _silent(done_bytes: int, total_bytes: int | None, stage: str) -> None:
    del done_bytes, total_bytes, stage


@contextlib.contextmanager
def _only_process(name: str, path: Path) -> Iterator[None]:
    """Keeps other processes out of the block.

    The system's own file lock ends with its process however that dies, so a file that was left
    behind keeps nobody out; the process id inside is for the message only.
    """
    descriptor = _open_locked(name, path)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _open_locked(name: str, path: Path) -> int:
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise FastStyleError(
                f"{path.parent}: cannot write into this folder ({error.strerror or error}); "
                "choose another place or change its permissions"
            ) from error
        if not _try_lock(descriptor):
            owner = os.read(descriptor, 32).decode(errors="replace") or "unknown"
            os.close(descriptor)
            raise FastStyleError(
                f"{name}: another process (id {owner}) is fetching it; wait until it is done"
            )
        # Its last holder may have removed the file between our opening and locking it.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        os.close(descriptor)


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        os.lseek(descriptor, 1024, os.SEEK_SET)  # Beyond the process id, which others may read.
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            logger.warning("files cannot be locked here (%s); fetch one thing at a time", error)
        return True
