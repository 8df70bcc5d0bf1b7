"""One run at a time in a folder: a lock that ends with the process, however it ends."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from fast_style.errors import FastStyleError
from fast_style.files import make_folder, refusal

_log = logging.getLogger(__name__)

_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)


class RunLock:
    """Holds a run's folder for the block, so that a second run there is refused.

    The system's own lock is taken (`flock`, on Windows `LockFile`) on a hidden file beside the
    folder, which says who holds it. It belongs to the open file: when the process dies, by whatever
    cause, it is free, and a file left behind means nothing. NFS carries it between machines where
    its lock service runs. A file system without locks is used without one, with a warning.
    """

    def __init__(self, folder: Path, *, key: str = "naming") -> None:
        """Names the lock; nothing is taken before the block.

        Args:
          folder: The run's folder, which need not exist.
          key: What in the configuration decides it, for messages.
        """
        self._key = key
        self._folder = folder
        self.path = folder.with_name(f".{folder.name}.lock")
        self._descriptor: int | None = None

    def __enter__(self) -> RunLock:
        """Takes the lock.

        Raises:
          FastStyleError: If another process holds it, or the folder above cannot be created.
        """
        make_folder(self.path.parent)
        while True:
            try:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                self._go_without(error)
                return self
            try:
                _lock(descriptor)
            except OSError as error:
                os.close(descriptor)
                if error.errno not in _TAKEN:
                    self._go_without(error)
                    return self
                raise FastStyleError(
                    f"{self._folder}: {self._holder()} is training in this folder; wait for it to "
                    f"end, stop it, or choose another '{self._key}'"
                ) from error
            # Who released the lock in between has removed the file that we hold.
            if _is_file_at(descriptor, self.path):
                break
            os.close(descriptor)
        self._descriptor = descriptor
        who = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        try:
            os.truncate(descriptor, 0)
            os.write(descriptor, who.encode())
        except OSError as error:  # A full disk: the lock holds without a name on it.
            _log.debug("%s: %s", self.path, refusal(error))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Frees the lock and removes its file."""
        if self._descriptor is None:
            return
        try:
            if sys.platform == "win32":  # An open file cannot be removed there.
                os.close(self._descriptor)
                self._descriptor = None
            self.path.unlink(missing_ok=True)
        except OSError as problem:
            _log.debug("%s: %s", self.path, refusal(problem))
        finally:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def _holder(self) -> str:
        """Names who holds the lock, as far as its file tells."""
        try:
            found: Any = json.loads(self.path.read_text(encoding="utf-8"))
            return f"process {int(found['pid'])} on {str(found['host'])[:100]}"
        except (OSError, ValueError, TypeError, KeyError):
            return "another process"

    def _go_without(self, error: OSError) -> None:
        _log.warning(
            "%s: cannot be locked (%s); make sure that no other run writes there",
            self._folder,
            refusal(error),
        )


def _is_file_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError:
        return False


if sys.platform == "win32":
    import msvcrt

    _FAR = 1 << 30  # Locked bytes cannot be read there, and others want to read who holds it.

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
