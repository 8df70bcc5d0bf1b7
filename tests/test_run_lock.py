from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fast_style import run_lock
from fast_style.errors import FastStyleError
from fast_style.run_lock import RunLock

ROOT = Path(__file__).resolve().parents[1]
HOLD = (
    "import sys, time; from pathlib import Path; from fast_style.run_lock import RunLock\n"
    "with RunLock(Path(sys.argv[1])):\n"
    "    print('held', flush=True)\n"
    "    time.sleep(60)"
)


def test_a_second_run_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "candy"
    who = f"process {os.getpid()} on {socket.gethostname()}"
    with RunLock(folder):
        with pytest.raises(FastStyleError) as caught:
            with RunLock(folder):
                pass
    assert str(caught.value) == (
        f"{folder}: {who} is training in this folder; wait for it to end, stop it, or choose "
        "another 'naming'"
    )
    assert caught.value.exit_code == 1


def test_a_lock_leaves_nothing_and_can_be_taken_again(tmp_path: Path) -> None:
    for _ in range(2):
        with RunLock(tmp_path / "candy"):
            assert [path.name for path in tmp_path.iterdir()] == [".candy.lock"]
        assert list(tmp_path.iterdir()) == []


def test_runs_in_other_folders_do_not_meet(tmp_path: Path) -> None:
    with RunLock(tmp_path / "candy"), RunLock(tmp_path / "wave"):
        assert len(list(tmp_path.iterdir())) == 2


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "candy"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(FastStyleError, match=f"process {process.pid} on "):
        with RunLock(folder):
            pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert RunLock(folder).path.is_file()  # It could not clean up.
    with RunLock(folder):
        pass


def test_a_lock_whose_file_was_removed_meanwhile_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, take = RunLock(tmp_path / "candy"), run_lock._lock
    removed = []

    def take_late(descriptor: int) -> None:
        if not removed:  # Another run ends between our opening the file and locking it.
            removed.append(lock.path)
            lock.path.unlink()
        take(descriptor)

    monkeypatch.setattr(run_lock, "_lock", take_late)
    with lock:
        monkeypatch.undo()
        with pytest.raises(FastStyleError, match="is training"):
            with RunLock(tmp_path / "candy"):
                pass


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_is_used_with_a_warning(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(run_lock, "_lock", refuse)
    with caplog.at_level(logging.WARNING), RunLock(tmp_path / "candy"):
        pass
    assert caplog.messages == [
        f"{tmp_path}/candy: cannot be locked ({os.strerror(number)}); make sure that no other run "
        "writes there"
    ]


def test_a_holder_that_says_nothing_readable_is_another_process(tmp_path: Path) -> None:
    with RunLock(tmp_path / "candy") as lock:
        lock.path.write_bytes(b"\xff{")
        with pytest.raises(FastStyleError, match="candy: another process is training"):
            with RunLock(tmp_path / "candy"):
                pass
