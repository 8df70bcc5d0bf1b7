"""How much memory there is, and how much a picture needs."""

from __future__ import annotations

import os
import re
from pathlib import Path

WHOLE_BYTES_PER_PIXEL = 700
"""Peak memory of stylizing a whole picture, per pixel, by a net of width 1.

Measured from 1 to 4 megapixels: johnson 590 to 670, slim2016 570 to 660, in either precision (the
norms work in float32 in both)."""

_UNKNOWN = 2 * 2**30
_MAX_WHOLE_PIXELS = 40 * 10**6  # Maps of more than 2^31 values are beyond some kernels.


def available_memory() -> int:
    """Returns how many bytes this process could still take without harming others."""
    limits = [_from_meminfo() or _from_sysconf() or _UNKNOWN]
    # A container's own limit may be far below what the machine has.
    limit, used = (_number(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit is not None and used is not None:
        limits.append(max(limit - used, 0))
    return min(limits)


def fits_whole(height: int, width: int, *, channels: float = 1.0) -> bool:
    """Whether a picture can be stylized whole in half of the available memory.

    Args:
      height: Of the picture, in pixels.
      width: Of the picture.
      channels: The net's `width`: its channels, as a multiple of the usual.
    """
    pixels = height * width * max(channels, 1.0)
    return pixels <= _MAX_WHOLE_PIXELS and pixels * WHOLE_BYTES_PER_PIXEL <= available_memory() // 2


def _from_meminfo() -> int | None:
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _from_sysconf() -> int | None:
    """Half of the memory that is there, on systems that do not say what is available."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return None


def _number(path: str) -> int | None:
    try:
        text = Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
