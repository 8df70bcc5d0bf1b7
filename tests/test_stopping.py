from __future__ import annotations

import signal
import threading

import pytest

from fast_style.stopping import StopRequest, stop_on_signals

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers():
    """Whatever started the tests may ignore signals; each test begins with the usual handlers."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in SIGNALS[1:]:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_the_first_signal_is_a_request_with_the_shells_exit_code(
    number: signal.Signals, code: int
) -> None:
    told = []
    with stop_on_signals(told.append) as stop, stop.deferred():
        assert not stop.requested
        signal.raise_signal(number)
        assert stop.requested
    assert told == [number]
    assert stop.exit_code == code


def test_after_the_first_signal_the_system_ends_the_process_at_once() -> None:
    with stop_on_signals(lambda number: None) as stop, stop.deferred():
        signal.raise_signal(signal.SIGTERM)
        assert [signal.getsignal(number) for number in SIGNALS] == [signal.SIG_DFL] * 3
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_request_that_is_not_deferred_interrupts() -> None:
    with stop_on_signals(lambda number: None) as stop:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert stop.exit_code == 143


def test_waiting_can_be_interrupted_amid_what_cannot() -> None:
    stop = StopRequest()
    with stop.deferred():
        with stop.deferred(False), pytest.raises(KeyboardInterrupt):
            stop.ask(signal.SIGINT)
        stop.ask(signal.SIGTERM)  # Deferred again.
    assert stop.signal == signal.SIGTERM


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # As under nohup.
    with stop_on_signals(lambda number: None) as stop:
        signal.raise_signal(signal.SIGHUP)
        assert not stop.requested
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_other_threads_leave_signals_alone() -> None:
    found = []

    def inside() -> None:
        with stop_on_signals(lambda number: None):
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]


def test_an_interruption_without_a_signal_counts_as_ctrl_c() -> None:
    assert StopRequest().exit_code == 130
