"""How much memory there is, how much a picture needs, and what can be given back."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from pathlib import Path

WHOLE_BYTES_PER_PIXEL = 700
"""Peak memory of stylizing a whole picture, per pixel, by a net of width 1.

Measured from 1 to 4 megapixels: johnson 590 to 670, slim2016 570 to 660, in either precision (the
norms work in float32 in both)."""

_LIBRARY = "libtensorflow"
_LEAST_BYTES = 2**20  # Smaller parts of a library are not worth a system call.
_MADV_DONTNEED = 4

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


def release_library_pages() -> int:
    """Gives pages of TensorFlow's libraries back to the system, on Linux.

    Its import runs through most of 0.6 GB of libraries, to register operations and to look up
    symbols, and half of that stays in memory for nothing. Pages that are needed again are mapped
    again from the system's cache, which takes microseconds. Parts that were written to stay.

    Returns:
      How many bytes were given back; 0 where this is not possible.
    """
    if not sys.platform.startswith("linux"):
        return 0
    try:
        with open("/proc/self/smaps", encoding="utf-8", errors="replace") as file:
            parts = _untouched_parts(file.read(), _LIBRARY)
        advise = ctypes.CDLL(None, use_errno=True).madvise
    except (OSError, AttributeError):
        return 0
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return sum(
        resident for start, end, resident in parts if not advise(start, end - start, _MADV_DONTNEED)
    )


def _untouched_parts(smaps: str, library: str) -> list[tuple[int, int, int]]:
    """Finds read-only parts of a library that are as in its file: (start, end, resident bytes)."""
    parts = []
    for text in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", smaps, flags=re.MULTILINE):
        head = re.match(r"([0-9a-f]+)-([0-9a-f]+) r-[x-]p .*/(.*)", text)
        sizes = {name: int(kb) for name, kb in re.findall(r"^(\w+): +(\d+) kB$", text, re.M)}
        if head and head[3].startswith(library) and sizes.get("Anonymous") == 0:
            resident = sizes.get("Rss", 0) * 1024
            if resident >= _LEAST_BYTES:
                parts.append((int(head[1], 16), int(head[2], 16), resident))
    return parts


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
