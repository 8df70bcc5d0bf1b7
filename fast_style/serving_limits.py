"""What the server takes, how long it waits, and how it refuses."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

DEFAULT_MAX_UPLOAD = 32 * 10**6
DEFAULT_MAX_PIXELS = 24 * 10**6
"""About 80 of the 120 seconds that `work_seconds` gives, on two cores with a net of width 1."""

MULTIPART_ROOM = 64 * 1024
"""Bytes of a request beside its picture: parameters, multipart headers."""

CROWDED = "crowded"
"""In the state of a request's scope: it came by a connection too many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Limits of the server; all are positive.

    Attributes:
      max_upload_bytes: Of a picture file.
      max_pixels: Of a decoded picture, H * W, and of what the net sees of it.
      max_queue: Requests that wait while others are worked on; more are refused.
      max_working: Requests that hold decoded pixels at a time: one in the net, and one that is
        decoded or encoded meanwhile.
      max_held_bytes: Of all uploads together that are arriving or waiting.
      header_seconds: For a request's header to arrive, and for what is left of a refused request.
      upload_seconds: For a request's body to arrive.
      work_seconds: From the end of the upload to the result, waiting included.
    """

    max_upload_bytes: int = DEFAULT_MAX_UPLOAD
    max_pixels: int = DEFAULT_MAX_PIXELS
    max_queue: int = 32
    max_working: int = 2
    max_held_bytes: int = 512 * 10**6
    header_seconds: float = 10.0
    upload_seconds: float = 60.0
    work_seconds: float = 120.0

    def __post_init__(self) -> None:
        """Checks that there is something to wait for.

        Raises:
          ValueError: If a limit is not a positive number.
        """
        for each in fields(self):
            value = getattr(self, each.name)
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{each.name}: expected a positive number, got {value!r}")

    @property
    def max_body_bytes(self) -> int:
        """Of a whole request: base64 takes 4 bytes for 3."""
        return math.ceil(self.max_upload_bytes / 3) * 4 + MULTIPART_ROOM


class RequestError(Exception):
    """A request that is refused, with a sentence for whoever sent it."""

    def __init__(self, status: int, message: str, *, retry_after: int | None = None) -> None:
        """Says why.

        Args:
          status: Of HTTP, 400 to 599.
          message: What was wrong, what was received, what to do.
          retry_after: Seconds after which it is worth trying again.
        """
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


def size_text(count: int) -> str:
    """Returns a number of bytes for a person: '32 MB'."""
    return f"{count / 1e6:.3g} MB" if count >= 10**6 else f"{count:,} bytes"
