"""Errors that are shown to a person as one clear sentence, without a traceback."""

from __future__ import annotations

from collections.abc import Sequence


def first_few(names: Sequence[str], most: int) -> str:
    """Returns so many names at most for a message: 'a, b and 3 more'."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


class FastStyleError(Exception):
    """What went wrong, the value received, and what to do, in a sentence for the user.

    The command line prints the message and exits with `exit_code`.
    """

    exit_code = 1


class ConfigError(FastStyleError):
    """A run was described wrongly: a key, a value, or a file that the description names."""

    exit_code = 2

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        """Collects every problem of one source.

        Args:
          source: Where the problems are, such as 'conf/mosaic.yml'.
          problems: One line each, such as "batch_size: expected ..., got 0".
        """
        self.source = source
        self.problems = tuple(problems)
        count = f"{len(self.problems)} problem{'s' if len(self.problems) != 1 else ''}"
        super().__init__("\n".join([f"{source}: {count}", *(f"  {p}" for p in self.problems)]))


class UsageError(FastStyleError):
    """An option of the command line has a value that makes no sense."""

    exit_code = 2


class ImageError(FastStyleError):
    """A picture could not be read or written."""


class DataError(FastStyleError):
    """A photo folder cannot feed a run."""

    exit_code = 2


class WeightsError(FastStyleError):
    """A weights file is missing, damaged, or does not fit the network."""

    exit_code = 2


class ModelError(FastStyleError):
    """A trained model is missing, damaged, or of another architecture."""

    exit_code = 2
