"""Loads a server: many clients, hostile uploads, and a SIGTERM under load.

    python benchmarks/serve_load.py --model models/candy

The server is a process of its own. Three lines are printed. The first is of requests of many sizes,
with several settings: errors, wrong pictures (any pixel differs from what the model gives in this
process), latency and memory. Memory is that of the server: at its start, after one picture of each
size ("before"), and 2 seconds after the last request. The second line is of hostile uploads, while
one client goes on asking for pictures: what they were answered, and when. The third is of a SIGTERM
while all clients wait. A client that is told to come back (503) waits as long as it is told.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import http.client
import io
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import numpy as np
from PIL import Image

from fast_style.images import read_image
from fast_style.serving_memory import prefer_system_allocator

SIZES = (64, 97, 128, 256, 333, 512, 768, 1024)
SETTINGS: tuple[dict[str, Any], ...] = ({}, {"strength": 0.5}, {"preserve_color": True})
UPLOAD_SECONDS = 5


@dataclass(frozen=True)
class Order:
    """A picture with its settings, and what the model makes of it."""

    data: bytes
    query: str
    expected: np.ndarray


@dataclass
class Server:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    port: int

    def memory(self) -> float:
        """Resident megabytes (Linux)."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return round(int(line.split()[1]) / 1000, 1)
        raise RuntimeError("no VmRSS")


def main() -> int:
    """Runs the three, and fails if one of them does."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--hostile", type=int, default=50)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), metavar="PX")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    orders = _orders(options.model, options.sizes, options.seed)
    with _server(options.model) as server:
        good = _load(server, orders, options)
        good = _hostile(server, orders, options.hostile) and good
        good = _stop(server, orders, options.clients) and good
    return 0 if good else 1


# --- the three -----------------------------------------------------------------------------------


def _load(server: Server, orders: dict[int, list[Order]], options: argparse.Namespace) -> bool:
    at_start = server.memory()
    for of_size in orders.values():
        _asked(server.port, of_size[0])
    time.sleep(2)
    before = server.memory()
    rng = np.random.default_rng(options.seed)
    chosen = [
        orders[int(size)][int(rng.integers(len(SETTINGS)))]
        for size in rng.choice(options.sizes, options.requests)
    ]
    began = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(options.clients) as pool:
        outcomes = list(pool.map(lambda order: _outcome(server.port, order), chosen))
    wall = time.perf_counter() - began
    time.sleep(2)
    after = server.memory()
    seconds = [outcome["seconds"] for outcome in outcomes]
    errors = [outcome["error"] for outcome in outcomes if outcome["error"]]
    wrong = sum(outcome["difference"] > 0 for outcome in outcomes)
    p50, p95 = np.percentile(seconds, [50, 95])
    common.emit(
        "serve_load",
        f"{options.requests} requests from {options.clients} clients",
        {
            "errors": len(errors),
            "first_errors": errors[:3],
            "wrong_pictures": wrong,
            "largest_difference_levels": max(outcome["difference"] for outcome in outcomes),
            "told_to_come_back": sum(outcome["retries"] for outcome in outcomes),
            "p50_seconds": round(float(p50), 3),
            "p95_seconds": round(float(p95), 3),
            "slowest_seconds": round(max(seconds), 3),
            "pictures_per_second": round(len(seconds) / wall, 2),
            "memory_at_start_mb": at_start,
            "memory_before_mb": before,
            "memory_after_mb": after,
        },
        sizes=options.sizes,
    )
    return not errors and not wrong and after < 1.15 * before


def _hostile(server: Server, orders: dict[int, list[Order]], count: int) -> bool:
    order = orders[min(orders)][0]
    kinds = _attacks(order.data)
    stopped = threading.Event()
    good: list[dict[str, Any]] = []

    def ask_on() -> None:
        while not stopped.is_set():
            good.append(_outcome(server.port, order))

    other = threading.Thread(target=ask_on)
    other.start()
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    answers: dict[str, set[str]] = {name: set() for name in kinds}
    names = [list(kinds)[i % len(kinds)] for i in range(count)]

    def attack(name: str) -> None:
        began = time.perf_counter()
        answers[name].add(kinds[name](server.port))
        seconds[name].append(time.perf_counter() - began)

    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        list(pool.map(attack, names))
    stopped.set()
    other.join()
    spoiled = sum(bool(one["error"]) or one["difference"] > 0 for one in good)
    common.emit(
        "serve_load",
        f"{count} hostile uploads from 10 clients",
        {
            "answers": {name: sorted(found) for name, found in answers.items()},
            "slowest_seconds": {name: round(max(s), 3) for name, s in seconds.items() if s},
            "pictures_meanwhile": len(good),
            "spoiled_meanwhile": spoiled,
            "memory_mb": server.memory(),
        },
        upload_seconds=UPLOAD_SECONDS,
    )
    refused = all(code.startswith("4") for found in answers.values() for code in found)
    return refused and not spoiled and bool(good)


def _stop(server: Server, orders: dict[int, list[Order]], clients: int) -> bool:
    order = orders[sorted(orders)[len(orders) // 2]][0]
    sent = threading.Barrier(clients + 1)
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        waiting = [pool.submit(_outcome, server.port, order, sent.wait) for _ in range(clients)]
        sent.wait(60)
        began = time.perf_counter()
        server.process.terminate()
        outcomes = [one.result() for one in waiting]
    code = server.process.wait(120)
    lost = [one["error"] for one in outcomes if one["error"]]
    wrong = sum(one["difference"] > 0 for one in outcomes)
    common.emit(
        "serve_load",
        f"SIGTERM while {clients} clients wait",
        {
            "answered": clients - len(lost),
            "lost": len(lost),
            "first_errors": lost[:3],
            "wrong_pictures": wrong,
            "seconds_to_exit": round(time.perf_counter() - began, 2),
            "exit_code": code,
        },
    )
    return not lost and not wrong and code == 0


# --- clients -------------------------------------------------------------------------------------


def _outcome(
    port: int, order: Order, when_sent: Callable[[], object] = lambda: None
) -> dict[str, Any]:
    began = time.perf_counter()
    outcome = {"seconds": 0.0, "error": "", "difference": 0, "retries": 0}
    try:
        content, outcome["retries"] = _asked(port, order, when_sent)
        outcome["seconds"] = time.perf_counter() - began
        result = read_image(content).astype(int)
        if result.shape != order.expected.shape:
            raise RuntimeError(f"a picture of {result.shape}, not {order.expected.shape}")
        outcome["difference"] = int(np.abs(result - order.expected).max())
    except Exception as error:
        outcome["error"] = f"{type(error).__name__}: {error}"
    return outcome


def _asked(
    port: int, order: Order, when_sent: Callable[[], object] = lambda: None
) -> tuple[bytes, int]:
    """Returns the result, and how many times the server said to come back."""
    for retries in range(1000):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        with contextlib.closing(connection):
            headers = {"content-type": "image/png"}
            connection.request("POST", f"/v1/stylize?{order.query}", order.data, headers)
            when_sent()
            answer = connection.getresponse()
            content = answer.read()
        if answer.status == 200:
            return content, retries
        if answer.status != 503:
            raise RuntimeError(f"{answer.status} {content[:200]!r}")
        time.sleep(int(answer.headers["retry-after"]))
    raise RuntimeError("always busy")


def _attacks(picture: bytes) -> dict[str, Callable[[int], str]]:
    """Returns {kind: what sends it to a port and returns the status that came back}."""

    def sends(data: bytes, kind: str = "image/png") -> Callable[[int], str]:
        return lambda port: _status(port, _header(len(data), kind), data)

    def slow_body(port: int) -> str:
        return _status(port, _header(len(picture)), picture[:-100], drip=picture[-100:])

    return {
        "truncated": sends(picture[: len(picture) // 2]),
        "bomb": sends(_bomb()),
        "wrong type": sends(b"%PDF-1.7 no picture", "application/pdf"),
        "text as a picture": sends(b"no picture at all", "image/jpeg"),
        "many objects in JSON": sends(
            b'{"image": "AAAA", "strength": [' + b"{}," * 10**7 + b"{}]}", "application/json"
        ),
        "many parts in a form": sends(
            b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n\r\n' * 500_000,
            "multipart/form-data; boundary=b",
        ),
        "200 MB": sends(bytes(200 * 10**6)),
        "slow loris": slow_body,
    }


def _header(length: int, kind: str = "image/png") -> bytes:
    return (
        "POST /v1/stylize HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
        f"content-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
    ).encode()


def _status(port: int, header: bytes, body: bytes, drip: bytes = b"") -> str:
    """Sends all of it whether or not it is wanted, then a byte every 0.3 seconds."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:

        def send() -> None:
            with contextlib.suppress(OSError):
                client.sendall(header)
                client.sendall(body)
                for byte in drip:
                    time.sleep(0.3)
                    client.sendall(bytes([byte]))

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        try:
            return client.recv(65536).decode("latin-1").split(" ")[1]
        except OSError as error:
            return f"{type(error).__name__}"
        except IndexError:
            return "closed without an answer"


# --- what is asked for ---------------------------------------------------------------------------


def _orders(model: str, sizes: list[int], seed: int) -> dict[int, list[Order]]:
    """Returns {size: a picture for each of the settings}, all different."""
    prefer_system_allocator()
    import fast_style

    stylizer = fast_style.load(model)
    photos = iter(common.random_photos(len(sizes) * len(SETTINGS), max(sizes), seed))
    orders: dict[int, list[Order]] = {}
    for size in sizes:
        orders[size] = []
        for settings in SETTINGS:
            photo = next(photos)[: size * 3 // 4, :size]
            file = io.BytesIO()
            Image.fromarray(photo).save(file, "PNG")
            query = "&".join(f"{name}={str(value).lower()}" for name, value in settings.items())
            expected = stylizer.stylize(np.ascontiguousarray(photo), **settings).astype(int)
            orders[size].append(Order(file.getvalue(), query, expected))
    return orders


def _bomb() -> bytes:
    """A PNG of 100 megapixels in some 100 KB: more than the server takes."""
    file = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(file, "PNG")
    return file.getvalue()


@contextlib.contextmanager
def _server(model: str) -> Iterator[Server]:
    process = subprocess.Popen(
        [sys.executable, "-m", "fast_style", "serve", "--model", model, "--port", "0"]
        + ["--upload-timeout", str(UPLOAD_SECONDS), "--log-json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        port = int(json.loads(process.stdout.readline())["url"].rpartition(":")[2])
        # Its log is not looked at, but a full pipe would stop it.
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield Server(process, port)
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
