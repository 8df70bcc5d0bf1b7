"""Downloads one file over HTTP so that a cut connection costs nothing and wrong bytes never stay.

The bytes collect in a hidden `.NAME.partial` beside the target, with the server's version of the
file (ETag or Last-Modified) in a small JSON file next to it. A later call asks only for the rest.
The checksum decides; then the partial file is renamed to the target.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import logging
import os
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from email.message import Message
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import urlsplit

from fast_style.errors import FastStyleError
from fast_style.files import fsync_path, make_folder

logger = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
# The server is busy or broken for the moment; every other refusal would only be repeated.
_PASSING_STATUSES = {408, 425, 429, 500, 502, 503, 504}


class Progress(Protocol):
    """Hears how far a long task is; the library itself prints nothing."""

    def __call__(self, done_bytes: int, total_bytes: int | None, stage: str) -> None:
        """Called after every chunk.

        Args:
          done_bytes: Bytes behind us in this stage. Falls back when a download must start over.
          total_bytes: Bytes of the whole stage, or None where the server does not say.
          stage: 'check' (reading what is on disk), 'download' or 'unpack'.
        """


class _InterruptedTransferError(Exception):
    """The transfer ended early in a way that HTTP itself does not call an error."""


class _RefusedError(Exception):
    """The server answers, and asking again would bring the same answer."""


def download(
    name: str,
    urls: Sequence[str],
    target: Path,
    *,
    algorithm: str,
    checksum: str,
    progress: Progress,
    timeout_seconds: float,
    attempts: int,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Downloads `target` from the first of `urls` that gives the right bytes.

    Args:
      name: What is being fetched, to begin error messages with.
      urls: The same file in several places, tried in order.
      target: Where the file appears once it is whole and its checksum is right.
      algorithm: A name that hashlib knows, such as 'md5'.
      checksum: Expected digest in lower-case hexadecimal.
      progress: Told after each chunk.
      timeout_seconds: Longest silence of the server, at least once per attempt.
      attempts: Tries in a row that bring nothing new before a URL is given up.
      sleep: Waits between two tries; the pause doubles from 0.5 s up to 30 s.

    Raises:
      FastStyleError: If no URL gives the file. A good beginning stays for the next call; wrong
        bytes are removed.
    """
    failures: list[str] = []
    with contextlib.closing(_Partial(target, algorithm, progress)) as partial:
        # A finished download that was stopped just before its renaming needs no server.
        if partial.digest() == checksum:
            return partial.finish()
        for url in urls:
            failure = _receive(url, partial, progress, timeout_seconds, attempts, sleep)
            if failure is None and partial.spliced and partial.digest() != checksum:
                # The beginning, from an earlier run or another mirror, may be what is wrong.
                logger.info("%s: the joined parts do not fit, starting over", name)
                partial.restart()
                failure = _receive(url, partial, progress, timeout_seconds, attempts, sleep)
            if failure is None:
                if partial.digest() == checksum:
                    return partial.finish()
                failure = (
                    f"{url} sent wrong bytes (expected {algorithm.upper()} {checksum}, "
                    f"got {partial.digest()}; they were removed)"
                )
                partial.restart()
            failures.append(failure)
            logger.info("%s: %s", name, failure)
    raise FastStyleError(
        f"{name}: {'; '.join(failures)}; try again later, or download it by hand, save it as "
        f"{target} ({algorithm.upper()} {checksum}) and run the same again"
    )


def partial_path(target: Path) -> Path:
    """Where the bytes of `target` collect until it is whole."""
    return target.with_name(f".{target.name}.partial")


def hash_file(path: Path, algorithm: str, progress: Progress) -> str:
    """Returns a file's digest in lower-case hexadecimal, reading it in chunks.

    Raises:
      FastStyleError: If the file cannot be read.
    """
    digest = hashlib.new(algorithm, usedforsecurity=False)
    try:
        with open(path, "rb") as file:
            _feed(digest, file, os.fstat(file.fileno()).st_size, progress)
    except OSError as error:
        raise FastStyleError(
            f"{path}: cannot read this file ({error.strerror or error}); "
            "change its permissions, or remove it and run the same again"
        ) from error
    return digest.hexdigest()


def require_space(name: str, folder: Path, needed_bytes: int) -> None:
    """Makes sure that a disk has room before anything is written to it.

    Args:
      name: What needs the room, to begin the message with.
      folder: An existing folder on that disk.
      needed_bytes: How much is still to be written.

    Raises:
      FastStyleError: If less is free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise FastStyleError(
            f"{name}: needs {format_bytes(needed_bytes)} on the disk of {folder.resolve()}, where "
            f"{format_bytes(free)} are free; free some space and run the same again"
        )


def format_bytes(count: int) -> str:
    """Writes a size as people do: '59 MB', '13.5 GB' (decimal units)."""
    size = float(count)
    for unit in ("bytes", "kB", "MB"):
        if size < 999.5:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


class _Partial:
    """The bytes received so far, their running checksum, and which version they belong to."""

    def __init__(self, target: Path, algorithm: str, progress: Progress) -> None:
        self._target = target
        self.path = partial_path(target)
        self._notes_path = self.path.with_name(self.path.name + ".json")
        self._algorithm = algorithm
        self._hash = hashlib.new(algorithm, usedforsecurity=False)
        self.size = 0
        self.spliced = False
        make_folder(target.parent)
        with self._explained():
            self._file = open(self.path, "a+b")
            self._file.seek(0)
            size = os.fstat(self._file.fileno()).st_size
            self.size = _feed(self._hash, self._file, size, progress)
        self._notes = self._read_notes()

    def digest(self) -> str:
        return self._hash.hexdigest()

    def validator(self, url: str) -> str | None:
        """What the same server called this version of the file, if it did."""
        value = self._notes.get("validator") if self._notes.get("url") == url else None
        return value if isinstance(value, str) else None

    def remember(self, url: str, validator: str | None) -> None:
        notes = {"url": url, "validator": validator}
        if notes != self._notes:
            self._notes = notes
            with self._explained():
                self._notes_path.write_text(json.dumps(notes), encoding="utf-8")

    def append(self, chunk: bytes) -> None:
        with self._explained():
            self._file.write(chunk)
            self._file.flush()
        self._hash.update(chunk)
        self.size += len(chunk)

    def restart(self) -> None:
        with self._explained():
            self._file.truncate(0)
        self._hash = hashlib.new(self._algorithm, usedforsecurity=False)
        self.size = 0
        self.spliced = False

    def finish(self) -> None:
        with self._explained():
            self._file.close()
            fsync_path(self.path)
            os.replace(self.path, self._target)
            fsync_path(self._target.parent)
            self._notes_path.unlink(missing_ok=True)

    def close(self) -> None:
        """Closes the file, and removes it if it holds nothing worth resuming."""
        with contextlib.suppress(OSError):
            self._file.close()
        if self.size == 0:
            for path in (self.path, self._notes_path):
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)

    def _read_notes(self) -> dict[str, object]:
        try:
            notes = json.loads(self._notes_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}  # Without notes the checksum alone tells whether the parts fit.
        return notes if isinstance(notes, dict) else {}

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise FastStyleError(
                f"{self.path}: cannot write this file ({error.strerror or error}); free some space "
                "or change its permissions, then run the same again: it continues where it stopped"
            ) from error


def _feed(digest: hashlib._Hash, file: BinaryIO, total: int, progress: Progress) -> int:
    done = 0
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
        done += len(chunk)
        progress(done, total, "check")
    return done


def _receive(
    url: str,
    partial: _Partial,
    progress: Progress,
    timeout_seconds: float,
    attempts: int,
    sleep: Callable[[float], None],
) -> str | None:
    """Fills `partial` from one URL, and returns why that failed, or None."""
    began_at = furthest = partial.size
    fruitless = 0
    while True:
        try:
            return _transfer(url, partial, progress, timeout_seconds)
        except _RefusedError as error:
            return f"{url} {error}"
        except _InterruptedTransferError as error:
            reason = str(error)
        except urllib.error.HTTPError as error:
            error.close()
            reason = f"answered {error.code} {error.reason}"
            if error.code == 416:
                # There is nothing after what we have, and what we have is not right.
                partial.restart()
            elif error.code not in _PASSING_STATUSES:
                return f"{url} {reason}"
        except (OSError, http.client.HTTPException) as error:
            reason, lasting = _explain(error, url, partial, timeout_seconds)
            # In the middle of a download, even a vanished host is most likely a lost network.
            if lasting and furthest == began_at:
                return f"{url} {reason}"
        # Only getting further than ever counts: a server without ranges begins anew every time.
        fruitless = 0 if partial.size > furthest else fruitless + 1
        furthest = max(furthest, partial.size)
        if fruitless >= attempts:
            return f"{url} {reason} (tried {attempts} times in a row)"
        pause = min(_FIRST_PAUSE_SECONDS * 2 ** max(fruitless - 1, 0), _LONGEST_PAUSE_SECONDS)
        logger.info("%s %s; trying again in %.1f s", url, reason, pause)
        sleep(pause)


def _transfer(url: str, partial: _Partial, progress: Progress, timeout_seconds: float) -> None:
    """Makes one request for the bytes that are missing, and appends what arrives."""
    headers = {"User-Agent": "fast-style", "Accept-Encoding": "identity"}
    start = partial.size
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator := partial.validator(url):
            headers["If-Range"] = validator
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=timeout_seconds) as response:
        if response.headers.get_content_type() == "text/html":
            # Before anything is thrown away: a hotel's login page must not cost 12 GB.
            raise _RefusedError("sent a web page, not the file (a network's login page?)")
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdigit() else None
        if start and response.status == 206:
            total = _total_of_part(response.headers, start, total, partial)
            partial.spliced = True
        else:
            partial.restart()
        partial.remember(url, _strong_validator(response.headers))
        progress(partial.size, total, "download")
        while chunk := response.read1(CHUNK_BYTES):
            partial.append(chunk)
            progress(partial.size, total, "download")
    if total is not None and partial.size < total:
        raise _InterruptedTransferError(
            f"cut the connection at {format_bytes(partial.size)} of {format_bytes(total)}"
        )


def _total_of_part(
    headers: Message, start: int, length: int | None, partial: _Partial
) -> int | None:
    """Reads the whole file's size from a 206 answer, which must begin where we stopped."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", "").strip())
    if match is None or int(match[1]) != start:
        partial.restart()
        raise _InterruptedTransferError("sent another part of the file than was asked for")
    if match[2] != "*":
        return int(match[2])
    return None if length is None else start + length


def _strong_validator(headers: Message) -> str | None:
    etag = headers.get("ETag", "")
    # A weak tag promises the same meaning, not the same bytes; If-Range may not use it.
    return etag if etag.startswith('"') else headers.get("Last-Modified")


def _explain(
    error: OSError | http.client.HTTPException, url: str, partial: _Partial, timeout_seconds: float
) -> tuple[str, bool]:
    """Returns what happened, as what the URL did, and whether trying again is pointless."""
    cause: object = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, socket.gaierror):
        host = urlsplit(url).hostname
        return f"cannot be reached: the host '{host}' is unknown (is there a network?)", True
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"cannot be trusted ({cause.verify_message})", True
    if isinstance(cause, TimeoutError):
        return f"did not answer within {timeout_seconds:g} seconds", False
    if isinstance(cause, ConnectionRefusedError):
        return "refused the connection", False
    if isinstance(cause, (ConnectionError, http.client.HTTPException)):
        return f"cut the connection at {format_bytes(partial.size)}", False
    return f"cannot be reached ({cause})", False
