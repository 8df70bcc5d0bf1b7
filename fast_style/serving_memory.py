"""Memory that goes back to the system between requests, instead of staying for the largest one."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable


def prefer_system_allocator() -> None:
    """Has TensorFlow take memory from the C library; counts only before TensorFlow is imported.

    oneDNN's operations have a pool of their own otherwise, which never shrinks: it holds about
    0.3 GB for good after a picture of one megapixel, and more after larger ones.
    """
    os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")


def give_back() -> None:
    """Returns to the system what was freed; glibc keeps it otherwise. Elsewhere does nothing."""
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, TypeError, AttributeError):  # Windows has no such handle, other libcs no trim.
        return None
