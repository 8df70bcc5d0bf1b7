"""Reads MATLAB's .mat files of level 5, the ones that MatConvNet's weights come in.

Written from The MathWorks' "MAT-File Format" for files that strangers made: sizes are compared with
the bytes that are there before anything is allocated, and nothing in a file is run.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_HEADER_BYTES = 128
_MOST_BYTES = 1 << 30  # Of one variable, unpacked: VGG19 with all its layers has half of it.
# Weights hardly shrink; what does so much more than text is made to fill memory.
_MOST_PACKED = 100
_SMALL_BYTES = 1 << 24  # Unpacked whatever the ratio.
_DEEPEST = 12  # MatConvNet's files nest 4 deep.

_MATRIX, _COMPRESSED = 14, 15
# Data types of numbers, by their code.
_TYPES = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
_CELL, _STRUCT, _CHAR = 1, 2, 4
_NUMBERS = range(6, 16)  # Classes double to uint64.
_COMPLEX = 0x0800  # Among an array's flags.
_CHARACTERS = {2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32", 1: "latin-1"}


class MatError(ValueError):
    """The file is damaged, or of another kind; the message says in what way."""


def read_mat(path: Path, names: Collection[str]) -> dict[str, Any]:
    """Reads variables of a file.

    Args:
      path: A MAT-file of level 5 (MATLAB 5 to 7, `save -v6` and `-v7`).
      names: Which variables.

    Returns:
      {name: value}, without names that the file does not have. A value is an array of the stored
      numbers' type and shape, text, a list (cells, in column order), a dict (a structure), or a
      list of dicts (an array of structures).

    Raises:
      MatError: If it cannot be read.
      OSError: If the system refuses.
    """
    data = path.read_bytes()
    if len(data) < _HEADER_BYTES:
        raise MatError("shorter than its header")
    orders = {b"IM": "<", b"MI": ">"}
    order = orders.get(data[126:128])
    (version,) = struct.unpack(f"{order or '<'}H", data[124:126])
    if version == 0x0200:
        raise MatError("MATLAB 7.3's format; save it with -v7")
    if order is None or version != 0x0100:
        raise MatError("its header is damaged")
    found = {}
    reader = _Reader(memoryview(data)[_HEADER_BYTES:], order)
    while reader.left:
        kind, content = reader.element()
        if kind == _COMPRESSED:
            inside = _Reader(memoryview(_unpacked(content)), order)
            kind, content = inside.element()
        if kind == _MATRIX:
            name, read = _array(content, order, 0)
            if name in names:
                found[name] = read()
    return found


def _unpacked(packed: memoryview) -> bytes:
    most = min(_MOST_BYTES, max(_SMALL_BYTES, _MOST_PACKED * len(packed)))
    unpacking = zlib.decompressobj()
    try:
        data = unpacking.decompress(packed, most)
    except zlib.error as error:
        raise MatError(f"packed data are damaged: {error}") from error
    if unpacking.unconsumed_tail:
        raise MatError(f"packed data have more than {most:,} bytes")
    return data


@dataclass
class _Reader:
    """Goes through the elements of a piece of data."""

    data: memoryview
    order: str
    at: int = 0

    @property
    def left(self) -> int:
        """Bytes that are still to be read; what cannot be a tag is padding."""
        rest = len(self.data) - self.at
        return rest if rest >= 8 else 0

    def element(self) -> tuple[int, memoryview]:
        """Returns the next element's type and content, and goes on behind it."""
        if not self.left:
            raise MatError("it ends in the middle of a value")
        kind, length = struct.unpack_from(f"{self.order}II", self.data, self.at)
        start = self.at + 8
        if kind >> 16:  # Up to 4 bytes, which are in the tag itself.
            kind, length, start = kind & 0xFFFF, kind >> 16, self.at + 4
            if length > 4:
                raise MatError("a value is longer than its tag allows")
            self.at += 8
        else:
            # Only packed values are not padded to 8 bytes.
            self.at = start + (length if kind == _COMPRESSED else -(-length // 8) * 8)
        if start + length > len(self.data):
            raise MatError("it is cut short")
        return kind, self.data[start : start + length]

    def numbers(self) -> np.ndarray:
        """Returns the next element as numbers, without a copy."""
        kind, content = self.element()
        if kind not in _TYPES:
            raise MatError(f"numbers of the unknown type {kind}")
        dtype = np.dtype(_TYPES[kind]).newbyteorder(self.order)  # pyright: ignore[reportArgumentType]
        if len(content) % dtype.itemsize:
            raise MatError("numbers are cut in half")
        return np.frombuffer(content, dtype)


def _array(content: memoryview, order: str, depth: int) -> tuple[str, Callable[[], Any]]:
    """Returns an array's name, and what reads its value."""
    if depth > _DEEPEST:
        raise MatError(f"nested deeper than {_DEEPEST} levels")
    if not content:  # An empty cell.
        return "", lambda: np.zeros((0, 0))
    reader = _Reader(content, order)
    flags = reader.numbers()
    if flags.size < 1:
        raise MatError("an array without flags")
    kind, is_complex = int(flags[0]) & 0xFF, bool(int(flags[0]) & _COMPLEX)
    shape = tuple(int(side) for side in reader.numbers())
    if len(shape) < 2 or len(shape) > 32 or min(shape) < 0:
        raise MatError(f"an array of the shape {list(shape[:8])}")
    count = 1
    for side in shape:
        count *= side
    name = bytes(reader.element()[1]).decode("latin-1")

    def read() -> Any:
        if kind == _CELL:
            return _cells(reader, count, depth)
        if kind == _STRUCT:
            return _structures(reader, count, depth)
        if kind == _CHAR:
            return _text(reader)
        if kind in _NUMBERS and not is_complex:
            values = reader.numbers()
            if values.size != count:
                raise MatError(f"{values.size} numbers in an array of {count}")
            return values.reshape(shape, order="F")
        raise MatError(f"values of the class {kind}{', complex' if is_complex else ''}")

    return name, read


def _value(reader: _Reader, depth: int) -> Any:
    kind, content = reader.element()
    if kind != _MATRIX:
        raise MatError(f"an element of the type {kind} where an array should be")
    return _array(content, reader.order, depth + 1)[1]()


def _cells(reader: _Reader, count: int, depth: int) -> list[Any]:
    _check_count(reader, count)
    return [_value(reader, depth) for _ in range(count)]


def _structures(reader: _Reader, count: int, depth: int) -> dict[str, Any] | list[dict[str, Any]]:
    lengths = reader.numbers()
    length = int(lengths[0]) if lengths.size == 1 else 0
    names = bytes(reader.element()[1])
    if length < 1 or len(names) % length:
        raise MatError("a structure without names")
    fields = [
        names[at : at + length].partition(b"\0")[0].decode("latin-1")
        for at in range(0, len(names), length)
    ]
    _check_count(reader, count * max(1, len(fields)))
    found = [{field: _value(reader, depth) for field in fields} for _ in range(count)]
    return found[0] if count == 1 else found


def _check_count(reader: _Reader, count: int) -> None:
    """Refuses more values than there are bytes for: each has a tag at least."""
    if count * 8 > len(reader.data):
        raise MatError(f"{count} values in {len(reader.data)} bytes")


def _text(reader: _Reader) -> str:
    kind, content = reader.element()
    encoding = _CHARACTERS.get(kind)
    if encoding is None:
        raise MatError(f"text of the unknown type {kind}")
    if encoding.startswith("utf-") and encoding != "utf-8":
        encoding += "-le" if reader.order == "<" else "-be"
    return bytes(content).decode(encoding, errors="replace")
