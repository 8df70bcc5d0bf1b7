"""What the machine is good at: devices, and whether bfloat16 is fast on them."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import tensorflow as tf

# Instructions that multiply bfloat16 natively: Intel's matrix tiles, and AVX-512's dot product
# (Intel and AMD). Without either, bfloat16 is slower than float32.
_BFLOAT16_CPU_FLAGS = ("amx_bf16", "avx512_bf16")
_BFLOAT16_GPU_CAPABILITY = (8, 0)  # NVIDIA Ampere

_portable = contextvars.ContextVar("portable", default=False)


def resolve_precision(precision: str) -> Literal["float32", "bfloat16"]:
    """Turns 'auto' into 'bfloat16' where the hardware multiplies it faster, else 'float32'.

    Args:
      precision: 'auto', 'float32' or 'bfloat16'.

    Raises:
      ValueError: If it is none of these.
    """
    if precision == "float32" or precision == "bfloat16":
        return precision
    if precision != "auto":
        raise ValueError(f"precision: expected auto, float32 or bfloat16, got {precision!r}")
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        capability = details.get("compute_capability", (0, 0))
        return "bfloat16" if capability >= _BFLOAT16_GPU_CAPABILITY else "float32"
    return "bfloat16" if set(_BFLOAT16_CPU_FLAGS) & _cpu_flags() else "float32"


def multiplies_slowly() -> bool:
    """Whether float32 is computed by an x86 processor of half the usual vectors' width or less.

    That is one without AVX-512, and no GPU beside it: 16 multiplications and additions a cycle of a
    core at most, from memory no slower than others'. False for processors of other families, which
    nobody measured, and for those that do not say what they are.
    """
    flags = _cpu_flags()
    return (
        "sse2" in flags
        and not any(flag.startswith("avx512") for flag in flags)
        and not tf.config.list_physical_devices("GPU")
    )


def multiplies_in_halves() -> bool:
    """Whether float32 is computed by an AMD processor with AVX-512, or one like it, and no GPU.

    That is one with AVX-512's bfloat16 and without matrix tiles. One was measured that takes two
    cycles for a vector. Newer ones of AMD and Intel's Cooper Lake, which take one, fall under this
    too, and were not.
    """
    flags = _cpu_flags()
    return (
        "avx512_bf16" in flags
        and "amx_bf16" not in flags
        and not tf.config.list_physical_devices("GPU")
    )


def emulates_bfloat16() -> bool:
    """Whether gradients of bfloat16 convolutions take ten times as long as the same in float32.

    oneDNN's need AVX-512; without it TensorFlow falls back on code of its own, which is as fast
    forward. Other processors than those of `multiplies_slowly` were not looked at.
    """
    return multiplies_slowly()


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """Has what is traced in the block be as the formulas say: for other machines, and for XLA.

    Elsewhere some operations are replaced by what this machine computes faster. The block governs
    what this thread traces there for the first time, or computes eagerly. Traces from before stay
    as they are, and replicas trace in threads of their own: enter it inside what they run.
    """
    token = _portable.set(True)
    try:
        yield
    finally:
        _portable.reset(token)


def is_portable() -> bool:
    """Whether this is inside of `portable`: what a trace that is kept for reuse depends on."""
    return _portable.get()


def describe_device() -> str:
    """Returns the device that TensorFlow computes on, for a person."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        return f"{len(gpus)} x {details.get('device_name', 'GPU')}"
    flags = [flag for flag in _BFLOAT16_CPU_FLAGS if flag in _cpu_flags()]
    model = _cpu_info().get("model name", platform.processor() or platform.machine())
    return f"CPU ({model}{', ' + flags[0] if flags else ''})"


def describe_devices(workers: int, local: int) -> str:
    """Returns what computes a run, for a person.

    Args:
      workers: Number of processes.
      local: Number of devices that each of them uses.
    """
    device = describe_device()
    if local > 1 and not tf.config.list_physical_devices("GPU"):
        device = f"{local} parts of a {device}"
    return device if workers == 1 else f"{workers} workers, each with {device}"


@functools.cache
def _cpu_info() -> dict[str, str]:
    """The first processor's entries of /proc/cpuinfo; empty where there is no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _cpu_flags() -> set[str]:
    return set(_cpu_info().get("flags", "").split())
