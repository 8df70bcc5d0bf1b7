"""Who is worked on and who waits: a bounded queue in front of one net and a few decoders."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from fast_style.serving_limits import Limits, RequestError
from fast_style.serving_memory import give_back

_IDLE_SECONDS = 0.5
"""How long nothing is worked on before memory is given back: not between two of many pictures."""

_T = TypeVar("_T")

Stage = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a function in a thread: `await stage(function)`."""

Work = Callable[[Stage, Stage, Callable[[], None]], Awaitable[_T]]
"""Called with what runs functions in a codec's thread and in the net's, and with what raises
`Abandoned`, in any thread, once nobody waits for the result."""


class Abandoned(Exception):
    """Nobody waits for this result any more."""


class WorkQueue:
    """Lets few requests work and some wait, and refuses the others.

    The net has one thread, because TensorFlow uses all processors for one picture. Pictures are
    decoded and encoded by a few others meanwhile.

    Attributes:
      waiting: Requests in the queue.
      working: Requests that are worked on.
      held_bytes: Of uploads that are arriving, wait or are worked on.
    """

    def __init__(self, limits: Limits) -> None:
        """Starts no thread yet."""
        self.waiting = 0
        self.working = 0
        self.held_bytes = 0
        self._limits = limits
        self._places = asyncio.Semaphore(limits.max_working)
        self._net = ThreadPoolExecutor(1, thread_name_prefix="net")
        self._codecs = ThreadPoolExecutor(limits.max_working, thread_name_prefix="codec")
        self._tasks: set[asyncio.Task[Any]] = set()
        self._usual_seconds = 1.0
        self._rest: asyncio.TimerHandle | None = None

    def check_room(self) -> None:
        """Refuses a request that could not even wait.

        Raises:
          RequestError: 503, with the seconds after which there should be room.
        """
        if self.waiting + self.working >= self._limits.max_queue + self._limits.max_working:
            raise self._busy()

    @contextlib.contextmanager
    def holding(self) -> Iterator[Callable[[int], None]]:
        """Counts the bytes of one upload for as long as the block keeps them.

        Yields:
          What to call with the number of bytes to be kept besides; it raises a RequestError, 503,
          where all uploads together would become too large.
        """
        held = 0

        def hold(count: int) -> None:
            nonlocal held
            if self.held_bytes + count > self._limits.max_held_bytes:
                raise self._busy()
            held += count
            self.held_bytes += count

        try:
            yield hold
        finally:
            self.held_bytes -= held

    async def beside(self, function: Callable[[], _T]) -> _T:
        """Runs something short in a codec's thread, outside of the queue."""
        return await asyncio.get_running_loop().run_in_executor(self._codecs, function)

    async def run(
        self,
        check: Callable[[], object],
        work: Work[_T],
        is_wanted: Callable[[], Awaitable[bool]],
        held: contextlib.ExitStack,
    ) -> _T:
        """Waits for a place and works.

        Args:
          check: Run in a codec's thread before the wait, if there is one; what it raises ends the
            request, which then need not wait for others to hear about its own fault.
          work: Called when the place is there.
          is_wanted: Asked before that.
          held: What the work needs, such as `holding`. It is closed when the work has ended, which
            may be long after the request was given up.

        Raises:
          RequestError: 503 if the queue is full; 504 if it took too long. A stage that has begun
            keeps its place until it ends, or asks whether it is wanted; no other stage begins.
          Abandoned: If it is not wanted any more.
        """
        self.check_room()
        given_up = asyncio.Event()
        self.waiting += 1  # Here, not in the task, which starts later: others may ask meanwhile.
        task = asyncio.create_task(self._placed(check, work, is_wanted, given_up))
        self._tasks.add(task)
        kept = held.pop_all()
        task.add_done_callback(lambda task: self._ended(task, kept))
        # A task of its own, which `wait` leaves alone: cancelling it would free the place of a
        # thread that still computes.
        try:
            await asyncio.wait({task}, timeout=self._limits.work_seconds)
        finally:
            given_up.set()
        if not task.done():
            raise RequestError(
                504,
                f"the picture was not finished within {self._limits.work_seconds:g} seconds; "
                "send a smaller one, or set max_size",
            )
        return task.result()

    def _ended(self, task: asyncio.Task[Any], kept: contextlib.ExitStack) -> None:
        self._tasks.discard(task)
        kept.close()
        if not task.cancelled():
            task.exception()  # Looked at: nobody may be left to ask for it.

    async def _placed(
        self,
        check: Callable[[], object],
        work: Work[_T],
        is_wanted: Callable[[], Awaitable[bool]],
        given_up: asyncio.Event,
    ) -> _T:
        loop = asyncio.get_running_loop()

        def go_on() -> None:
            if given_up.is_set():
                raise Abandoned

        def stage(pool: ThreadPoolExecutor) -> Stage:
            async def run(function: Callable[[], Any]) -> Any:
                go_on()
                return await loop.run_in_executor(pool, function)

            return run

        try:
            if self._places.locked():
                await stage(self._codecs)(check)
            await self._place_or_end(given_up)
        finally:
            self.waiting -= 1
        self.working += 1
        began = loop.time()
        try:
            go_on()
            if not await is_wanted():
                raise Abandoned
            result = await work(stage(self._codecs), stage(self._net), go_on)
            self._usual_seconds += 0.2 * (loop.time() - began - self._usual_seconds)
            return result
        finally:
            self.working -= 1
            self._places.release()
            if self._rest is not None:
                self._rest.cancel()
            self._rest = loop.call_later(_IDLE_SECONDS, self._rest_now)

    def _rest_now(self) -> None:
        if not self.working and not self.waiting:
            self._codecs.submit(give_back)

    async def _place_or_end(self, given_up: asyncio.Event) -> None:
        """Waits for a place, or until nobody wants it any more; has one only in the first case."""
        place = asyncio.create_task(self._places.acquire())
        end = asyncio.create_task(given_up.wait())
        try:
            await asyncio.wait({place, end}, return_when=asyncio.FIRST_COMPLETED)
            if not place.done():
                raise Abandoned
        finally:
            end.cancel()
            if not place.done():
                place.cancel()

    def _busy(self) -> RequestError:
        each = self._usual_seconds / self._limits.max_working
        seconds = min(max(math.ceil(each * (self.waiting + 1)), 1), 60)
        return RequestError(
            503,
            f"the server is busy with {self.working} pictures, and {self.waiting} wait; "
            f"try again in {seconds} seconds",
            retry_after=seconds,
        )

    async def close(self) -> None:
        """Waits for what is in progress, and ends the threads."""
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        if self._rest is not None:
            self._rest.cancel()
        self._net.shutdown()
        self._codecs.shutdown()
