"""How a run is asked to stop: the first signal ends it in good order, the second at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # The last is not there on every system.


class StopRequest:
    """Whether a run was asked to stop, and by which signal.

    A run that is in the middle of something defers requests and asks `requested` when it can stop.
    Anywhere else a request raises KeyboardInterrupt.
    """

    def __init__(self) -> None:
        """Nobody has asked yet."""
        self.signal: signal.Signals | None = None
        self._deferring = False

    @property
    def requested(self) -> bool:
        """Whether somebody asked."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """128 and the number of the signal, as shells report it: 130 for Ctrl-C, 143 for SIGTERM.

        A KeyboardInterrupt that no signal of ours explains counts as Ctrl-C.
        """
        return 128 + (self.signal or signal.SIGINT)

    def ask(self, number: int) -> None:
        """Asks the run to stop.

        Raises:
          KeyboardInterrupt: If it does not defer requests at the moment.
        """
        self.signal = signal.Signals(number)
        if not self._deferring:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def deferred(self, defer: bool = True) -> Iterator[None]:
        """Defers requests for the block; with False, lets them interrupt it."""
        before, self._deferring = self._deferring, defer
        try:
            yield
        finally:
            self._deferring = before


@contextlib.contextmanager
def stop_on_signals(tell: Callable[[signal.Signals], None]) -> Iterator[StopRequest]:
    """Turns the first SIGINT, SIGTERM or SIGHUP of the block into a request to stop.

    From then on these signals end the process at once, by the system's own hand, whatever it is
    doing. Signals that the process was started to ignore (`nohup`) stay ignored. Outside the main
    thread, where Python takes no handlers, nothing is changed.

    Args:
      tell: Called with the first signal, from the handler: it must not print through Python's
        streams, which may be in use.

    Yields:
      The request.
    """
    request = StopRequest()

    def handle(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        tell(signal.Signals(number))
        request.ask(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        known = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
        # None: a handler that was not set from Python, which could not be put back.
        before = {
            number: current
            for number in known
            if (current := signal.getsignal(number)) not in (signal.SIG_IGN, None)
        }
    try:
        for number in before:
            signal.signal(number, handle)
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
