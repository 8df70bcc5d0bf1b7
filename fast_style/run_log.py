"""How log records reach a person or a program: as lines, or as one JSON object per line."""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import math
import sys
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

from fast_style.errors import FastStyleError
from fast_style.terminal import say, turn_away

_log = logging.getLogger(__name__)
_OURS = logging.getLogger("fast_style")
_PICTURES = logging.getLogger("fast_style.stylize")


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON.

    Keys are `time` (ISO 8601, UTC), `level`, `event` (`message` for records that name none),
    `message`, and the record's own fields. What is not a finite number becomes null.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line, without its end."""
        time = datetime.datetime.fromtimestamp(record.created, datetime.timezone.utc)
        told = {
            "time": time.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", "message"),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        return json.dumps(_finite(told), default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _Lines(logging.Handler):
    """Writes records above a progress bar: to the error stream, or as JSON to the output.

    How large pictures are done is told too, but the same only once: a film has many frames.
    """

    def __init__(self, as_json: bool) -> None:
        super().__init__(logging.INFO)
        self._as_json = as_json
        self._least = logging.INFO if as_json else logging.WARNING
        self._told: set[str] = set()
        if as_json:
            self.setFormatter(JsonFormatter())

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= self._least:
            return True
        message = record.getMessage()
        if record.name != _PICTURES.name or message in self._told:
            return False
        self._told.add(message)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stdout if self._as_json else sys.stderr
        try:
            tqdm.write(self.format(record), file=stream)
            stream.flush()
        except OSError:
            turn_away(stream)


@contextlib.contextmanager
def log_messages(*, as_json: bool) -> Iterator[None]:
    """Shows log records for the block.

    Args:
      as_json: Every event from level INFO on goes to the standard output, a JSON object a line;
        otherwise warnings, and how large pictures are done, go to the error stream, as lines.
    """
    handler = _Lines(as_json)
    root = logging.getLogger()
    before = _OURS.level, _PICTURES.level
    root.addHandler(handler)
    _OURS.setLevel(logging.INFO if as_json else logging.WARNING)
    _PICTURES.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        _OURS.setLevel(before[0])
        _PICTURES.setLevel(before[1])


def report_error(error: FastStyleError, *, as_json: bool) -> None:
    """Shows what ended a command: on the error stream, and as the last event of a JSON log."""
    say(f"error: {error}")
    if as_json:
        fields = {"exit_code": error.exit_code}
        _log.error("%s", error, extra={"event": "error", "fields": fields})
