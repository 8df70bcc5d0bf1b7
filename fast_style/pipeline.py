"""Many pictures from file to file, so that the net does not wait for reading and writing."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from fast_style.effects import bare_share
from fast_style.errors import FastStyleError
from fast_style.images import keeps_alpha, write_image
from fast_style.jobs import Job
from fast_style.opening import DEFAULT_MAX_PIXELS, printable, reason_of
from fast_style.photo import Photo, read_photo

_log = logging.getLogger(__name__)

Stylize = Callable[[list[np.ndarray]], list[np.ndarray]]
"""Turns pictures into styled ones: [H, W, 3], uint8 or uint16 and as they came."""

PIXELS_IN_FLIGHT = 48_000_000
"""Decoded at a time in all, besides what the net works on: about 0.3 GB of input and output."""

_BATCH_PIXELS = 1_000_000
_BATCH = 8


@dataclass(frozen=True)
class Outcome:
    """What became of one picture.

    Attributes:
      job: Which.
      notes: What was left out of the result.
      bare_share: Of the result, see `effects.bare_share`; 0 if it was not asked for.
      error: Why there is no result; none if there is.
    """

    job: Job
    notes: tuple[str, ...] = ()
    bare_share: float = 0.0
    error: FastStyleError | None = None


def run_jobs(
    jobs: Sequence[Job],
    stylize: Stylize,
    *,
    quality: int = 95,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    measure_bare: bool = False,
    ahead: int | None = None,
) -> Generator[Outcome, None, None]:
    """Reads, stylizes and writes pictures; a bad one does not stop the others.

    The caller's thread runs the net. Meanwhile some threads decode the next pictures and others
    encode the last ones; memory stays bounded, because only so many pictures, and only so many
    pixels, are on their way. Small pictures of one size that wait together are stylized together.

    Closing the iterator (`contextlib.closing`) or an exception in it, Ctrl-C included, ends the
    threads after what they are at; what is not finished leaves no file.

    Args:
      jobs: What to do.
      stylize: The net.
      quality: As for `images.write_image`.
      max_pixels: As for `photo.read_photo`.
      measure_bare: Whether outcomes are to have a `bare_share`.
      ahead: How many pictures are decoded ahead, and how many wait to be written; none takes what
        suits the number of processors.

    Yields:
      An outcome per job, in their order, once it is done.
    """
    ahead = ahead or max(2, min(8, os.cpu_count() or 1))
    budget = _Budget(PIXELS_IN_FLIGHT)
    reading: deque[_Reading] = deque()
    writing: deque[tuple[Job, Future[Outcome]]] = deque()
    with ThreadPoolExecutor(ahead) as readers, ThreadPoolExecutor(ahead) as writers:
        try:
            waiting = deque(enumerate(jobs))
            while waiting or reading or writing:
                while waiting and len(reading) < ahead:
                    ticket, job = waiting.popleft()
                    future = readers.submit(_read, ticket, job, budget, max_pixels)
                    reading.append((ticket, job, future))
                for ticket, job, photo, result in _stylized(reading, stylize):
                    future = writers.submit(
                        _write, ticket, job, photo, result, quality, measure_bare, budget
                    )
                    writing.append((job, future))
                while writing and (
                    writing[0][1].done() or len(writing) > ahead or not (waiting or reading)
                ):
                    yield writing.popleft()[1].result()
        except BaseException:
            budget.close()
            for *_, future in (*reading, *writing):
                future.cancel()
            raise


_Reading = tuple[int, Job, "Future[Photo | FastStyleError]"]
_Styled = tuple[int, Job, "Photo | None", "np.ndarray | FastStyleError"]


def _stylized(reading: deque[_Reading], stylize: Stylize) -> Iterator[_Styled]:
    """Takes the next picture, and what can be stylized with it, and yields the results."""
    if not reading:
        return
    batch: list[tuple[int, Job, Photo]] = []
    while reading and len(batch) < _BATCH:
        ticket, job, future = reading[0]
        if batch and not future.done():
            break
        photo = future.result()
        if isinstance(photo, FastStyleError):
            if batch:
                break  # Its turn comes when the batch is done: outcomes keep their order.
            reading.popleft()
            yield ticket, job, None, photo
            return
        if batch and not _go_together(batch, photo):
            break
        reading.popleft()
        batch.append((ticket, job, photo))
    pictures = [photo.pixels for _, _, photo in batch]
    results = _run_net(pictures, stylize, batch[0][1])
    if len(batch) > 1 and any(isinstance(result, FastStyleError) for result in results):
        results = [_run_net([p.pixels], stylize, job)[0] for _, job, p in batch]
    for (ticket, job, photo), result in zip(batch, results, strict=True):
        yield ticket, job, photo, result


def _go_together(batch: list[tuple[int, Job, Photo]], photo: Photo) -> bool:
    first = batch[0][2].pixels
    return (
        first.shape == photo.pixels.shape
        and first.dtype == photo.pixels.dtype
        and (len(batch) + 1) * first.shape[0] * first.shape[1] <= _BATCH_PIXELS
    )


def _run_net(
    pictures: list[np.ndarray], stylize: Stylize, job: Job
) -> Sequence[np.ndarray | FastStyleError]:
    try:
        return stylize(pictures)
    except Exception as error:
        return [as_failure(job, error)] * len(pictures)


def _read(ticket: int, job: Job, budget: _Budget, max_pixels: int) -> Photo | FastStyleError:
    try:
        return read_photo(
            job.source,
            max_pixels=max_pixels,
            reserve=lambda pixels: budget.take(ticket, pixels),
        )
    except Exception as error:
        budget.give_back(ticket)
        return as_failure(job, error)


def _write(
    ticket: int,
    job: Job,
    photo: Photo | None,
    result: np.ndarray | FastStyleError,
    quality: int,
    measure_bare: bool,
    budget: _Budget,
) -> Outcome:
    try:
        if photo is None or isinstance(result, FastStyleError):
            assert isinstance(result, FastStyleError)
            return Outcome(job, error=result)
        write_image(job.target, result, quality=quality, extras=photo.extras)
        bare = 0.0
        if measure_bare:
            with contextlib.suppress(MemoryError):
                kept = photo.extras.alpha if keeps_alpha(job.target) else None
                bare = bare_share(photo.pixels, result, kept)
        return Outcome(job, photo.notes, bare)
    except Exception as error:
        return Outcome(job, error=as_failure(job, error))
    finally:
        budget.give_back(ticket)


def as_failure(job: Job, error: Exception) -> FastStyleError:
    """Returns the sentence for whatever went wrong with one file."""
    if isinstance(error, FastStyleError):
        return error
    name = printable(job.source)
    # TensorFlow has an error of its own for what Python calls a MemoryError.
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return FastStyleError(f"{name}: too little memory to stylize it; make it smaller")
    _log.debug("%s", name, exc_info=error)
    return FastStyleError(
        f"{name}: could not be stylized ({type(error).__name__}: {reason_of(error)}); "
        "please report this as a bug"
    )


class _Stopped(BaseException):
    """Ends a thread that waits for its turn when everything ends."""


class _Budget:
    """How many pixels may be decoded at a time, handed out in the order of the tickets.

    Were it first come, first served, the second picture could take what the first one needs, and
    the net, which waits for the first, would never free it. A picture larger than the whole budget
    goes alone.
    """

    def __init__(self, pixels: int) -> None:
        self._free = self._all = pixels
        self._taken: dict[int, int] = {}
        self._next = 0
        self._closed = False
        self._changed = threading.Condition()

    def take(self, ticket: int, pixels: int) -> None:
        """Waits for the ticket's turn and until its pixels fit."""
        pixels = min(pixels, self._all)
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or (self._next == ticket and pixels <= self._free)
            )
            if self._closed:
                raise _Stopped
            self._free -= pixels
            self._taken[ticket] = pixels
            self._next = ticket + 1
            self._changed.notify_all()

    def give_back(self, ticket: int) -> None:
        """Frees what a ticket has taken; one that never had its turn passes it on."""
        with self._changed:
            if ticket not in self._taken:
                self._changed.wait_for(lambda: self._closed or self._next >= ticket)
                self._next = max(self._next, ticket + 1)
            self._free += self._taken.pop(ticket, 0)
            self._changed.notify_all()

    def close(self) -> None:
        """Lets everybody who waits go, without anything."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
