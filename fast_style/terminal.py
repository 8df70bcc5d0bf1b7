"""What the commands share in talking to a person."""

from __future__ import annotations

import os
import sys

from tqdm import tqdm

from fast_style.errors import FastStyleError


def import_tensorflow() -> None:
    """Imports TensorFlow and finds its devices without its start-up notes, which would bury ours.

    They come from C++, before any level set in Python counts, so the error stream itself is
    turned away meanwhile. Whoever wants them sets TF_CPP_MIN_LOG_LEVEL.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        import tensorflow as tf

        tf.config.list_physical_devices()
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def say(text: str) -> None:
    """Writes a line to the error stream, above a progress bar if there is one."""
    tqdm.write(text, file=sys.stderr)


def duration(seconds: float) -> str:
    """Returns a time span for a person: '41s', '3m 05s', '2h 07m'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"


def numbers(option: str, text: str | None) -> list[float] | None:
    """Reads an option's '0.7,0.3'; none stays none.

    Raises:
      FastStyleError: If it is something else.
    """
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise FastStyleError(
            f"{option}: expected numbers with commas between, such as 0.7,0.3, got {text!r}"
        ) from error
