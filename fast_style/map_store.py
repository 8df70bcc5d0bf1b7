"""Feature maps too large for memory, kept in files.

Plain reads and writes, not memory maps: pages of a mapped file count as memory of the process.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fast_style.errors import FastStyleError
from fast_style.files import refusal

_RESERVE = 256 * 2**20  # Bytes of the disk that are left to others.


class MapStore:
    """A private folder of feature maps; use `open_store`."""

    def __init__(self, folder: Path) -> None:
        """Takes a folder that exists and is empty."""
        self._folder = folder
        self._maps: list[StoredMap] = []

    def create(self, height: int, width: int, channels: int, dtype: np.dtype) -> StoredMap:
        """Returns a map whose values are not written yet."""
        path = self._folder / f"{len(self._maps)}.map"
        self._maps.append(StoredMap(path, (height, width, channels), dtype))
        return self._maps[-1]

    def close(self) -> None:
        """Deletes every map and the folder."""
        for stored in self._maps:
            stored.delete()
        shutil.rmtree(self._folder, ignore_errors=True)


class StoredMap:
    """One feature map, [H, W, C], row after row in a file."""

    def __init__(self, path: Path, shape: tuple[int, int, int], dtype: np.dtype) -> None:
        """Creates the file.

        Args:
          path: Where; must not exist.
          shape: Height, width and channels.
          dtype: Type of the values.
        """
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self._path = path
        self._row = shape[1] * shape[2] * self.dtype.itemsize
        self._position = shape[2] * self.dtype.itemsize
        with _disk_errors():
            self._file = open(path, "x+b", buffering=0)
        # Where a file may lose its name while it is open, nothing is left of it even by a kill.
        with contextlib.suppress(OSError):
            path.unlink()

    def read(self, rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
        """Returns a rectangle, [rows, columns, C].

        Args:
          rows: First row, and one after the last.
          columns: The same.
        """
        height, width = rows[1] - rows[0], columns[1] - columns[0]
        values = np.empty((height, width, self.shape[2]), self.dtype)
        views = values.view(np.uint8).reshape(height, -1)
        offset = columns[0] * self._position
        with _disk_errors():
            for row, view in zip(range(*rows), views, strict=True):
                self._file.seek(row * self._row + offset)
                if self._file.readinto(view.data) != view.nbytes:
                    raise OSError("a temporary file is shorter than it was")
        return values

    def write(self, top: int, left: int, values: np.ndarray) -> None:
        """Writes a rectangle.

        Args:
          top: Its first row.
          left: Its first column.
          values: [rows, columns, C] of the map's type.
        """
        views = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)
        offset = left * self._position
        with _disk_errors():
            for row, view in enumerate(views, top):
                self._file.seek(row * self._row + offset)
                if self._file.write(view.data) != view.nbytes:
                    raise OSError("no space left on the device")

    def delete(self) -> None:
        """Removes the file; doing so twice is no error."""
        self._file.close()
        self._path.unlink(missing_ok=True)


@contextlib.contextmanager
def open_store(needed: int) -> Iterator[MapStore]:
    """Gives a store in a private temporary folder, which is removed at the end in any case.

    Args:
      needed: Bytes that its maps will take up at most.

    Raises:
      FastStyleError: If the disk has too little room, or refuses.
    """
    with _disk_errors():
        place = Path(tempfile.gettempdir())
        free = shutil.disk_usage(place).free
    if needed + _RESERVE > free:
        raise FastStyleError(
            f"{place}: exact tiling needs {_gigabytes(needed + _RESERVE)} of temporary disk space, "
            f"and {_gigabytes(free)} are free; set TMPDIR to a larger disk, use fast tiling or "
            "give a smaller picture"
        )
    with _disk_errors():
        folder = Path(tempfile.mkdtemp(prefix="fast_style-"))
    store = MapStore(folder)
    try:
        yield store
    finally:
        store.close()


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FastStyleError(
            f"{tempfile.gettempdir()}: cannot keep temporary data here ({refusal(error)}); "
            "free some space, or set TMPDIR to another folder"
        ) from error
