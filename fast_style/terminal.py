"""What the commands share: arguments, progress, and how a person is told.

TensorFlow is imported by what needs it.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from fast_style.errors import UsageError
from fast_style.onednn import prefer_onednn

INTERRUPTED = 130
"""Exit code of what a person stopped: 128 + SIGINT, as shells report it."""

_WIDE_BAR = "{percentage:3.0f}% |{bar:12}| {n_fmt}/{total_fmt} {postfix[0]}"
_TIMED_BAR = "{percentage:3.0f}% |{bar:12}| {postfix[0]}"
_NARROW_BAR = "{n_fmt}/{total_fmt} {postfix[0]}"  # Text says more than a bar in 80 columns.
_WIDE = 100  # columns


def import_tensorflow() -> None:
    """Imports TensorFlow and finds its devices without its start-up notes, which would bury ours.

    They come from C++, before any level set in Python counts, so the error stream itself is
    turned away meanwhile. Whoever wants them sets TF_CPP_MIN_LOG_LEVEL.
    """
    prefer_onednn()
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


def tell_signal(
    number: signal.Signals, doing: str = "stopping as soon as the work is saved"
) -> None:
    """Says that a signal was understood, as `stop_on_signals` wants it told."""
    # Not through Python's stream, which this may have interrupted; a bar has no end of line.
    text = f"{number.name}: {doing}; once more stops at once\n"
    with contextlib.suppress(OSError):
        os.write(2, (("\n" if sys.stderr.isatty() else "") + text).encode())


def turn_away(stream: TextIO) -> None:
    """Sends a stream nowhere from now on: whoever read it has gone, or its disk is full."""
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), stream.fileno())


def outliving_output(tell: Callable[..., None]) -> Callable[..., None]:
    """A run of hours does not end because nobody reads what it prints, or its log is full."""

    @functools.wraps(tell)
    def told(*arguments: Any) -> None:
        try:
            tell(*arguments)
        except OSError:
            turn_away(sys.stdout)

    return told


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
      UsageError: If it is something else.
    """
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(
            f"{option}: expected numbers with commas between, such as 0.7,0.3, got {text!r}"
        ) from error


# --- arguments -----------------------------------------------------------------------------------


def positive(text: str) -> int:
    """Reads a whole number of at least 1, as the `type` of an argument.

    Raises:
      ArgumentTypeError: If it is something else.
    """
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return value


def percentage(text: str) -> int:
    """Reads a whole number of 1 to 100, as the `type` of an argument.

    Raises:
      ArgumentTypeError: If it is something else.
    """
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 1 <= value <= 100:
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 to 100, got {text!r}")
    return value


def share(text: str) -> float:
    """Reads a number of 0 to 1, as the `type` of an argument.

    Raises:
      ArgumentTypeError: If it is something else.
    """
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"expected a number of 0 to 1, got {text!r}")
    return value


def overrides_argument(parser: argparse.ArgumentParser) -> None:
    """Declares --set, which collects `overrides`."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="override a key of the file; may be repeated",
    )


def fresh_argument(parser: argparse.ArgumentParser) -> None:
    """Declares --fresh."""
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="start over; a run that is already there is renamed, not deleted",
    )


def dry_run_argument(parser: argparse.ArgumentParser) -> None:
    """Declares --dry-run."""
    parser.add_argument(
        "--dry-run", action="store_true", help="print the resolved configuration and stop"
    )


def precision_argument(
    parser: argparse.ArgumentParser, *, default: str = "auto", why: str = "what suits this machine"
) -> None:
    """Declares --precision of a model.

    Args:
      parser: The command's.
      default: What it computes in otherwise.
      why: The reason, for the help.
    """
    parser.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        default=default,
        help=f"what the model computes in (default: {default}, {why})",
    )


# --- reports -------------------------------------------------------------------------------------


class Progress:
    """Work in steps: a bar on a terminal, a line per report elsewhere (files, CI, `| tee`).

    Both end in the time left. That of lines does not count the first step, which holds the tracing.
    """

    _formats = (_WIDE_BAR, _NARROW_BAR)

    def __init__(
        self,
        total: int,
        unit: str = "step",
        *,
        start: int = 0,
        parts: int = 1,
        costs: Sequence[tuple[float, float]] = (),
        lines: TextIO | None = None,
    ) -> None:
        """Shows the bar.

        Args:
          total: Units in all.
          unit: What a line counts.
          start: Units done before.
          parts: Steps in a unit; the bar counts these.
          costs: Up to which share of all steps one takes how long, in any unit; none: all alike.
          lines: Where lines go; none is the standard output.
        """
        self._total = total
        self._unit = unit
        self._parts = parts
        self._costs = costs or ((1.0, 1.0),)
        self._lines = lines
        self._done = start * parts  # Steps, as all below.
        self._timed_from: tuple[int, float] | None = None
        self._bar: Any = None
        columns = shutil.get_terminal_size((0, 0)).columns
        # Some terminals do not know their size; a bar in no columns would be nothing at all.
        if sys.stderr.isatty() and columns > 0:
            self._bar = tqdm(
                total=total * parts,
                initial=self._done,
                dynamic_ncols=True,
                bar_format=self._formats[0 if columns >= _WIDE else 1],
                # A list, for the `postfix[0]` of the format.
                postfix=["tracing the graph"],  # pyright: ignore[reportArgumentType]
            )

    def move(self, done: int) -> None:
        """Takes note that so many steps are done, those before the start included."""
        self._done = done
        if self._timed_from is None:
            self._timed_from = done, time.monotonic()
        if self._bar is not None:
            self._bar.update(done - self._bar.n)

    def describe(self, text: str) -> None:
        """Puts text beside the bar; elsewhere does nothing."""
        if self._bar is not None:
            self._bar.postfix[0] = _shortened(text)
            self._bar.refresh()

    def tell(self, text: str) -> None:
        """Reports the work done so far: beside the bar, or as a line."""
        if self._bar is not None:
            self.describe(text + self._time_left())
            return
        print(f"{self._count()}  {text}{self._time_left()}", file=self._lines, flush=True)

    def _count(self) -> str:
        return f"{self._unit} {self._done // self._parts}/{self._total}"

    def _time_left(self) -> str:
        if self._timed_from is None or self._done <= self._timed_from[0]:
            return ""
        first, began = self._timed_from
        done = self._work(self._done)
        pace = (time.monotonic() - began) / (done - self._work(first))
        return f"  {duration(pace * (self._work(self._total * self._parts) - done))} left"

    def _work(self, steps: int) -> float:
        """Returns how long the first steps take, in the unit of `costs`."""
        work, begin = 0.0, 0
        for share, cost in self._costs:
            end = round(share * self._total * self._parts)
            work += cost * max(0, min(steps, end) - begin)
            begin = end
        return work

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.close()


class TimedProgress(Progress):
    """Steps until a time is over: the bar shows the time, a line counts steps."""

    _formats = (_TIMED_BAR, "{postfix[0]}")

    def __init__(self, seconds: float, *, spent: float = 0.0) -> None:
        """Shows the bar.

        Args:
          seconds: How long it takes in all.
          spent: What of it is over. The rest begins now.
        """
        self._spent, self._began, self._steps = spent, time.monotonic(), 0
        super().__init__(round(seconds), start=min(round(spent), round(seconds)))

    def move(self, done: int) -> None:
        """Takes note that so many steps are done, those before the start included."""
        self._steps = done
        spent = self._spent + time.monotonic() - self._began
        super().move(min(round(spent), self._total))

    def describe(self, text: str) -> None:
        """Puts text beside the bar, after the number of steps; elsewhere does nothing."""
        super().describe(f"{self._count()} {text}")

    def _count(self) -> str:
        return f"step {self._steps}"

    def _time_left(self) -> str:
        return f"  {duration(self._total - self._done)} left"


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Prints a column of labels and one of what they are."""
    for label, value in facts:
        print(f"{label + ':':<14} {value}")
    sys.stdout.flush()


@outliving_output
def tell_start(facts: Iterable[tuple[str, object]], notes: Iterable[str]) -> None:
    """Prints what a run is, and what a person should know of it."""
    print_facts(facts)
    for note in notes:
        print(f"note: {note}")
    sys.stdout.flush()


def _shortened(text: str) -> str:
    """Makes a report fit beside a bar: 1,234,567 becomes 1.23M, and gaps close."""

    def short(match: re.Match[str]) -> str:
        value = float(match[0].replace(",", ""))
        return f"{value / 1e6:.3g}M" if value >= 999_500 else f"{value / 1e3:.3g}k"

    text = re.sub(r"\d{1,3}(,\d{3})+", short, text)
    return re.sub(r" +", " ", text).replace("images/s", "img/s")


def loss_number(value: float) -> str:
    """Whole numbers from a hundred on, four digits below: recipes differ by powers of ten."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"


def terms_line(losses: Mapping[str, float]) -> str:
    """Returns the weighted terms that there are, and their total.

    Args:
      losses: {tag of `objective`: value}.
    """
    from fast_style import objective as tags

    return "  ".join(
        f"{name} {loss_number(losses[tag])}"
        for name, tag in (
            ("content", tags.WEIGHTED_CONTENT),
            ("style", tags.WEIGHTED_STYLE),
            ("tv", tags.WEIGHTED_VARIATION),
            ("grid", tags.WEIGHTED_GRID),
            ("border", tags.WEIGHTED_BORDER),
            ("consistency", tags.WEIGHTED_CONSISTENCY),
            ("total", tags.TOTAL),
        )
        if tag in losses
    )


def report_skipped(skipped: Mapping[Path, str]) -> None:
    """Says which photos were left out, if any.

    Args:
      skipped: {photo: why it could not be read}.
    """
    if not skipped:
        return
    count = "1 photo" if len(skipped) == 1 else f"{len(skipped)} photos"
    say(f"{count} could not be read and {'was' if len(skipped) == 1 else 'were'} left out:")
    for path, reason in sorted(skipped.items()):
        say(f"  {reason if str(path) in reason else f'{path}: {reason}'}")
