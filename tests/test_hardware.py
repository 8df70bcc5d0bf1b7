from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf

from fast_style import hardware


def pretend(
    monkeypatch: pytest.MonkeyPatch,
    *,
    flags: str = "",
    gpus: int = 0,
    details: dict[str, object] | None = None,
    model: str = "A Processor",
) -> None:
    """Makes the machine look like another one."""
    monkeypatch.setattr(hardware, "_cpu_info", lambda: {"flags": flags, "model name": model})
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [f"{kind}:0"] * gpus)
    monkeypatch.setattr(
        tf.config.experimental, "get_device_details", lambda device: dict(details or {})
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_chosen_precision_is_kept_whatever_the_hardware(
    monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    pretend(monkeypatch, flags="amx_bf16" if precision == "float32" else "sse2")
    assert hardware.resolve_precision(precision) == precision


def test_an_unknown_precision_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="expected auto, float32 or bfloat16, got 'half'"):
        hardware.resolve_precision("half")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu sse2 avx512f amx_bf16 amx_tile", "bfloat16"),
        ("fpu avx512f avx512_bf16", "bfloat16"),
        ("fpu sse2 avx2 avx512f avx512_vnni", "float32"),
        ("amx_bf16_not_really", "float32"),
        ("", "float32"),
    ],
)
def test_auto_takes_bfloat16_on_processors_that_multiply_it(
    monkeypatch: pytest.MonkeyPatch, flags: str, expected: str
) -> None:
    pretend(monkeypatch, flags=flags)
    assert hardware.resolve_precision("auto") == expected


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        ({"compute_capability": (9, 0)}, "bfloat16"),
        ({"compute_capability": (8, 0)}, "bfloat16"),
        ({"compute_capability": (7, 5)}, "float32"),
        ({"device_name": "of a maker who does not say"}, "float32"),
    ],
)
def test_auto_goes_by_the_gpu_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, details: dict[str, object], expected: str
) -> None:
    other_way = "sse2" if expected == "bfloat16" else "amx_bf16"
    pretend(monkeypatch, flags=other_way, gpus=1, details=details)
    assert hardware.resolve_precision("auto") == expected


def test_processors_multiply_slowly_or_in_halves_or_neither(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for flags, gpus, slowly, in_halves in (
        ("sse2 avx2 fma", 0, True, False),
        ("sse2 avx2", 0, True, False),
        ("sse2 avx2", 1, False, False),
        ("sse2 avx2 avx512f", 0, False, False),
        ("sse2 avx512f", 0, False, False),
        ("sse2 avx512f avx512_bf16", 0, False, True),
        ("sse2 avx512f avx512_bf16", 1, False, False),
        ("sse2 avx512f avx512_bf16 amx_bf16", 0, False, False),
        ("asimd", 0, False, False),
        ("", 0, False, False),
    ):
        pretend(monkeypatch, flags=flags, gpus=gpus)
        assert hardware.multiplies_slowly() == slowly, flags
        assert hardware.multiplies_in_halves() == in_halves, flags


def test_the_device_is_named_for_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, flags="avx512_bf16", model="Some Xeon")
    assert hardware.describe_device() == "CPU (Some Xeon, avx512_bf16)"
    pretend(monkeypatch, flags="sse2", model="Some Core")
    assert hardware.describe_device() == "CPU (Some Core)"
    pretend(monkeypatch, gpus=2, details={"device_name": "Some GPU"})
    assert hardware.describe_device() == "2 x Some GPU"


@pytest.fixture
def cpuinfo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Replaces /proc/cpuinfo by a text, or by nothing."""
    hardware._cpu_info.cache_clear()
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(hardware, "Path", lambda name: path)
    yield path
    hardware._cpu_info.cache_clear()


def test_flags_are_those_of_the_first_processor(cpuinfo: Path) -> None:
    cpuinfo.write_text(
        "processor\t: 0\nmodel name\t: Some Xeon: the second\nflags\t\t: fpu amx_bf16\n\n"
        "processor\t: 1\nflags\t\t: sse2\n"
    )
    assert hardware._cpu_flags() == {"fpu", "amx_bf16"}
    assert hardware._cpu_info()["model name"] == "Some Xeon: the second"


def test_a_system_without_cpuinfo_computes_in_float32(
    cpuinfo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not cpuinfo.exists()
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    assert hardware.resolve_precision("auto") == "float32"
    assert hardware.describe_device().startswith("CPU (")
