"""A folder of photos to training batches, in an order that only the seed decides."""

from __future__ import annotations

import collections
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import numpy as np

from fast_style.errors import DataError, ImageError
from fast_style.images import load_training_crop, printable
from fast_style.opening import INPUT_SUFFIXES
from fast_style.samples import names_samples, sample_photos

_log = logging.getLogger(__name__)

_WHAT_TO_SET = "set `dataset:` in the config; any folder of photos will do"
_MOST_WARNINGS = 20
_ORDER, _CROP = 1, 2  # Keep the random streams of one seed apart.


def find_photos(folder: str | os.PathLike[str], *, advice: str = _WHAT_TO_SET) -> tuple[Path, ...]:
    """Lists the pictures in a folder and the folders below it.

    Files count by their ending (`opening.INPUT_SUFFIXES`, in any case); they are not opened. Names
    that start with a dot are skipped. Linked folders are entered, each real folder once.

    Args:
      folder: Where to search; or `samples.SAMPLES`, the photos that come with libraries.
      advice: Ends the message of an error: what whoever named the folder can do.

    Returns:
      The paths, each below `folder`, sorted by their '/'-separated path within it, character by
      character: the same on every system.

    Raises:
      DataError: If the folder is missing, not a folder, unreadable, or holds no picture.
    """
    if names_samples(os.fspath(folder)):
        return sample_photos()
    root, name = Path(folder), printable(folder)
    if not os.path.exists(root):
        raise DataError(f"{name}: no such folder of photos; {advice}")
    if not os.path.isdir(root):
        raise DataError(f"{name}: this is a file, not a folder of photos; {advice}")
    photos: list[str] = []
    others = 0
    seen: set[tuple[int, int]] = set()
    waiting = [""]  # Folders to search, as '/'-separated paths below the root, last one first.
    while waiting:
        inside = waiting.pop()
        try:
            status = os.stat(root / inside)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(root / inside) as listing:
                entries = sorted(listing, key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            reason = error.strerror or str(error)
            if not inside:
                message = f"{name}: cannot list this folder ({reason}); {advice}"
                raise DataError(message) from error
            _log.warning("%s: folder left out (%s)", printable(root / inside), reason)
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = f"{inside}/{entry.name}" if inside else entry.name
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError:  # A link that leads back to itself.
                continue
            if is_folder:
                waiting.append(path)
            elif is_file and entry.name.lower().endswith(INPUT_SUFFIXES):
                photos.append(path)
            else:
                others += 1
    if not photos:
        found = f"none of its {others} files is a picture" if others else "it is empty"
        raise DataError(f"{name}: no photos in this folder ({found}); {advice}")
    return tuple(root / path for path in sorted(photos))


def photo_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Returns the order in which an epoch visits the photos.

    The order sorts 64-bit numbers drawn from PCG64, seeded by NumPy's SeedSequence. NumPy promises
    these never to change, unlike its own shuffling, so a run can be resumed on another version.

    Args:
      count: Number of photos.
      seed: Of the run, at least 0.
      epoch: From 0.

    Returns:
      [count] int64, a permutation of 0..count-1.
    """
    return np.argsort(_random_bits(count, seed, _ORDER, epoch), kind="stable")


def photo_places(count: int, seed: int, first: int, length: int) -> list[int]:
    """Returns which photos a stretch of the stream shows, before unreadable ones are replaced.

    Args:
      count: Number of photos.
      seed: Of the run.
      first: Place in the stream, from 0.
      length: Number of places.

    Returns:
      Positions in the list of photos.
    """
    places = (divmod(place, count) for place in range(first, first + length))
    return [int(photo_order(count, seed, epoch)[index]) for epoch, index in places]


def check_enough(paths: Sequence[Path], batch_size: int) -> None:
    """Checks that the photos fill a batch.

    Raises:
      DataError: If they do not.
    """
    if len(paths) < batch_size:
        raise DataError(
            f"{_amount(paths)}: fewer than batch_size {batch_size}; add photos or lower batch_size"
        )


def read_crops(paths: Sequence[Path], size: int, *, limit: int) -> list[np.ndarray]:
    """Reads the centre crops of photos, as training sees them, for scoring.

    Args:
      paths: Photos; those that cannot be read are left out with a warning in the log.
      size: Side of the crops in px.
      limit: Of more photos, so many are taken, evenly spread.

    Returns:
      uint8 [size, size, 3] each.

    Raises:
      DataError: If none can be read.
    """
    count = min(limit, len(paths))
    crops = []
    for index in range(count):
        path = paths[index * len(paths) // count]
        try:
            crops.append(load_training_crop(path, size))
        except ImageError as error:
            _log.warning("held-out photo left out: %s", error)
    if not crops:
        raise DataError(f"{_amount(paths)}: none can be read; replace them or name another folder")
    return crops


class PhotoStream:
    """Photos as batches, decoded ahead by threads, in a reproducible and resumable order.

    Iterating yields uint8 arrays [batch_size, image_size, image_size, 3], forever or to
    `stop_step`; with `rows`, those rows of each. The batch of a step depends on nothing but the
    arguments and the step: place p = step * batch_size + i of the stream shows photo
    `photo_order(n, seed, p // n)[p % n]` of n, and its crop and flip are drawn from (seed, p). A
    stream with `start_step=k` therefore continues one that was stopped after k batches.

    A photo that cannot be read is replaced by one from half an epoch later (or the first after it
    that can be read), again the same in every run; it is logged, and listed in `skipped`.

    Use it as a context manager, or call `close`, so that its threads end. It is to be iterated by
    one thread, once.

    Attributes:
      skipped: Path and reason of every photo found unreadable so far, which includes those of
        batches that are decoded but not yet fetched.
      waited_seconds: How long fetching has waited for batches in all.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        image_size: int,
        batch_size: int,
        seed: int = 0,
        random_crop: bool = False,
        random_flip: bool = False,
        start_step: int = 0,
        stop_step: int | None = None,
        rows: range | None = None,
        skipped: dict[Path, str] | None = None,
        workers: int | None = None,
        prefetch_batches: int = 4,
    ) -> None:
        """Checks the arguments; nothing is read before the first batch or `with`.

        Args:
          paths: The photos. Their order is part of the seed: pass them as `find_photos` does.
          image_size: Side of the square crops in pixels; the short side of a photo is scaled to it.
          batch_size: Photos per batch.
          seed: At least 0; decides order, crops and flips.
          random_crop: Crops anywhere along the long side instead of in the centre.
          random_flip: Mirrors every other photo left to right, at random.
          start_step: The step of the first batch.
          stop_step: The step at which to end, exclusive; None never ends.
          rows: Which photos of each batch are read and given, of 0..batch_size - 1; None reads all.
          skipped: What an earlier stream of these photos found unreadable; this one adds to it.
          workers: Decoding threads; None takes 2, or 1 where there is one processor.
          prefetch_batches: Batches decoded ahead; bounds the memory used.

        Raises:
          DataError: If there are fewer photos than one batch needs.
          ValueError: If a number is out of range.
        """
        for name, value, least in (
            ("image_size", image_size, 1),
            ("batch_size", batch_size, 1),
            ("seed", seed, 0),
            ("start_step", start_step, 0),
            ("stop_step", start_step if stop_step is None else stop_step, start_step),
            ("workers", 1 if workers is None else workers, 1),
            ("prefetch_batches", prefetch_batches, 1),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        self._paths = tuple(paths)
        check_enough(self._paths, batch_size)
        self.skipped: dict[Path, str] = {} if skipped is None else skipped
        self.waited_seconds = 0.0
        self._image_size = image_size
        self._batch_size = batch_size
        self._rows = range(batch_size) if rows is None else rows
        self._seed = seed
        self._random_crop = random_crop
        self._random_flip = random_flip
        self._next_step = start_step
        self._stop_step = math.inf if stop_step is None else stop_step
        self._workers = min(2, _processors()) if workers is None else workers
        self._prefetch_batches = prefetch_batches
        self._batches: collections.deque[list[Future[np.ndarray]]] = collections.deque()
        self._orders: dict[int, np.ndarray] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._closed = False
        self._stopping = threading.Event()
        self._skip_lock = threading.Lock()

    def __enter__(self) -> PhotoStream:
        """Starts decoding."""
        self._fill()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Ends decoding, see `close`."""
        self.close()

    def __iter__(self) -> PhotoStream:
        """Returns itself: a stream is iterated once."""
        return self

    def __next__(self) -> np.ndarray:
        """Returns the next step's batch, or its `rows`: uint8 [N, image_size, image_size, 3].

        Raises:
          DataError: If no photo can be read at all. The stream is then closed.
          ValueError: If the stream is closed.
        """
        if self._closed:
            raise ValueError("this PhotoStream is closed")
        try:
            self._fill()
            if not self._batches:
                raise StopIteration
            start = time.perf_counter()
            batch = np.stack([future.result() for future in self._batches[0]])
            self.waited_seconds += time.perf_counter() - start
            self._batches.popleft()
            self._fill()
            return batch
        except StopIteration:
            raise
        except BaseException:  # An interrupt too must not leave threads behind.
            self.close()
            raise

    def close(self) -> None:
        """Drops what was decoded ahead and waits for the threads to end; may be called again."""
        self._closed = True
        self._stopping.set()
        self._batches.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _fill(self) -> None:
        """Hands the threads their work, up to `prefetch_batches` ahead of the consumer."""
        if self._closed:
            raise ValueError("this PhotoStream is closed")
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="photos")
        while len(self._batches) < self._prefetch_batches and self._next_step < self._stop_step:
            first = self._next_step * self._batch_size
            self._batches.append([self._pool.submit(self._job(first + i)) for i in self._rows])
            self._next_step += 1

    def _job(self, place: int) -> Callable[[], np.ndarray]:
        """Returns what decodes the photo at a place of the stream."""
        epoch, index = divmod(place, len(self._paths))
        if epoch not in self._orders:
            # Places only grow, so the epochs before are over.
            self._orders = {epoch: photo_order(len(self._paths), self._seed, epoch)}
        order = self._orders[epoch]
        return lambda: self._photo(place, order, index)

    def _photo(self, place: int, order: np.ndarray, index: int) -> np.ndarray:
        """Reads the photo at `order[index]`, or its replacement; runs in the threads."""
        down, across, mirror = _random_bits(3, self._seed, _CROP, place) / 2.0**64
        offset = (float(down), float(across)) if self._random_crop else (0.5, 0.5)
        flip = self._random_flip and mirror < 0.5
        count = len(order)
        # From half an epoch away, because a neighbour would show up twice in the same batch.
        elsewhere = index + count // 2
        for candidate in (index, *range(elsewhere, elsewhere + count)):
            if self._stopping.is_set():
                raise RuntimeError("the PhotoStream was closed while reading")
            path = self._paths[order[candidate % count]]
            if path in self.skipped:
                continue
            try:
                return load_training_crop(path, self._image_size, offset=offset, flip=flip)
            except ImageError as error:
                self._skip(path, str(error))
        example = next(iter(self.skipped.values()))
        raise DataError(f"{_amount(self._paths)}: none can be read; for example, {example}")

    def _skip(self, path: Path, reason: str) -> None:
        with self._skip_lock:
            if path in self.skipped:  # Two threads tried it at once.
                return
            self.skipped[path] = reason
            if len(self.skipped) <= _MOST_WARNINGS:
                _log.warning("photo skipped: %s", reason)
            if len(self.skipped) == _MOST_WARNINGS:
                _log.warning("%d photos skipped so far; no more are named here", _MOST_WARNINGS)


def _random_bits(count: int, seed: int, *key: int) -> np.ndarray:
    """Returns [count] uint64 that depend on seed and key alone, whatever the version of NumPy."""
    return np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)).random_raw(count)


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _amount(paths: Sequence[Path]) -> str:
    if not paths:
        return "0 photos"
    folder = printable(os.path.commonpath([path.parent for path in paths]))
    return f"{len(paths)} photo{'' if len(paths) == 1 else 's'} in {folder}"
