from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from fast_style.matlab import MatError, read_mat


def save(path: Path, *, packed: bool = False, **values: Any) -> Path:
    scipy.io.savemat(path, values, do_compression=packed)
    return path


def cell(*values: Any) -> np.ndarray:
    found = np.empty(len(values), object)
    found[:] = values
    return found


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["f4", "f8", "u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_numbers_keep_values_shape_and_type(tmp_path: Path, kind: str, packed: bool) -> None:
    values = np.random.default_rng(0).integers(0, 120, (3, 5, 2, 7)).astype(kind)
    found = read_mat(save(tmp_path / "a.mat", packed=packed, a=values, b=values), ["a"])
    assert found.keys() == {"a"}
    assert found["a"].dtype.kind == values.dtype.kind
    np.testing.assert_array_equal(found["a"], values)


def test_cells_structures_and_text_nest(tmp_path: Path) -> None:
    layers = cell({"name": "conv1_1", "weights": cell(np.eye(3), np.ones(2))}, {"name": "relu"})
    found = read_mat(
        save(tmp_path / "a.mat", layers=layers, meta={"x": {"y": 5.0}}), ["layers", "meta"]
    )
    first, second = found["layers"]
    assert (first["name"], second) == ("conv1_1", {"name": "relu"})
    np.testing.assert_array_equal(first["weights"][0], np.eye(3))
    assert first["weights"][1].size == 2
    assert found["meta"]["x"]["y"].item() == 5.0


def test_an_array_of_structures_is_a_list(tmp_path: Path) -> None:
    values = np.array([("a", 1.0), ("b", 2.0)], [("name", object), ("value", object)])
    found = read_mat(save(tmp_path / "a.mat", a=values), ["a"])["a"]
    assert [item["name"] for item in found] == ["a", "b"]
    assert [item["value"].item() for item in found] == [1.0, 2.0]


def test_a_file_of_the_other_byte_order_is_read(tmp_path: Path) -> None:
    def element(kind: int, data: bytes) -> bytes:
        return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)

    parts = [
        element(6, struct.pack(">II", 6, 0)),
        element(5, struct.pack(">ii", 1, 2)),
        element(1, b"abc"),
        element(9, struct.pack(">dd", 1.5, -2.5)),
    ]
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\1\0MI"
    (tmp_path / "a.mat").write_bytes(header + element(14, b"".join(parts)))
    np.testing.assert_array_equal(read_mat(tmp_path / "a.mat", ["abc"])["abc"], [[1.5, -2.5]])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"MATLAB 5.0", "shorter than its header"),
        (b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM", "MATLAB 7.3's format; save it with -v7"),
        (b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1??", "its header is damaged"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "a.mat").write_bytes(data)
    with pytest.raises(MatError, match=says):
        read_mat(tmp_path / "a.mat", ["a"])


def test_what_unpacks_to_far_more_than_weights_do_is_refused(tmp_path: Path) -> None:
    packed = zlib.compress(bytes(1 << 25), 9)
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM"
    (tmp_path / "a.mat").write_bytes(header + struct.pack("<II", 15, len(packed)) + packed)
    with pytest.raises(MatError, match="packed data have more than 16,777,216 bytes"):
        read_mat(tmp_path / "a.mat", ["a"])


def test_more_cells_than_bytes_are_refused_at_once(tmp_path: Path) -> None:
    path = save(tmp_path / "a.mat", a=cell(1.0, 2.0, 3.0))
    shape, huge = struct.pack("<ii", 1, 3), struct.pack("<ii", 60_000, 30_000)
    assert path.read_bytes().count(shape) == 1
    path.write_bytes(path.read_bytes().replace(shape, huge))
    with pytest.raises(MatError, match="1800000000 values in "):
        read_mat(path, ["a"])


@pytest.mark.parametrize("packed", [False, True])
def test_damage_is_refused_or_read_and_nothing_else(tmp_path: Path, packed: bool) -> None:
    values: Any = {"layers": cell({"name": "c", "w": cell(np.eye(2), 3.0)}), "meta": {"a": "b"}}
    good = save(tmp_path / "a.mat", packed=packed, **values).read_bytes()
    rng, refused = random.Random(0), 0
    for case in range(400):
        data = bytearray(good)
        at = rng.randrange(124, len(data))
        if case % 4:
            data[at : at + 4] = rng.choice([0, 1, 1 << 31, 2**32 - 1, 14, 255]).to_bytes(
                4, "little"
            )
        else:
            del data[at:]
        (tmp_path / "a.mat").write_bytes(data)
        try:
            read_mat(tmp_path / "a.mat", ["layers", "meta"])
        except MatError:
            refused += 1
    assert refused > 100
