"""Loads a server: many clients, pictures of many sizes; errors, latency, memory.

    python benchmarks/serve_load.py --model models/candy

The server is a process of its own. Some requests go first, so that "before" is the memory of a server
that has worked. A client that is told to come back (503) waits as long as it is told. Every result is
decoded, and one of each size is compared with what the first request of that size returned.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import http.client
import io
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import common
import numpy as np
from PIL import Image

from fast_style.images import read_image

SIZES = (64, 128, 256, 512, 1024)


def main() -> int:
    """Starts a server, loads it, stops it, and prints one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), metavar="PX")
    parser.add_argument("--warmup", type=int, default=2, help="rounds over all sizes before")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    pictures = {size: _encoded(size, options.seed) for size in options.sizes}
    sizes = np.random.default_rng(options.seed).choice(options.sizes, options.requests)

    server = subprocess.Popen(
        [sys.executable, "-m", "fast_style", "serve"]
        + ["--model", options.model, "--port", "0", "--log-json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    try:
        port = int(json.loads(server.stdout.readline())["url"].rpartition(":")[2])
        # Its log is not looked at, but a full pipe would stop it.
        threading.Thread(target=server.stdout.read, daemon=True).start()
        for _ in range(options.warmup):
            expected = {size: _post(port, data)[0] for size, data in pictures.items()}
        before = _memory(server.pid)

        def one(size: int) -> tuple[float, str | None, int]:
            began = time.perf_counter()
            try:
                result, retries = _post(port, pictures[size])
                shape = read_image(result).shape
            except Exception as error:
                return time.perf_counter() - began, f"{type(error).__name__}: {error}", 0
            wrong = shape != (size * 3 // 4, size, 3) or result != expected[size]
            return time.perf_counter() - began, "wrong picture" if wrong else None, retries

        began = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(options.clients) as pool:
            outcomes = list(pool.map(one, map(int, sizes)))
        wall = time.perf_counter() - began
        time.sleep(2)
        after = _memory(server.pid)
    finally:
        server.terminate()
        code = server.wait(60)
    seconds = [outcome[0] for outcome in outcomes]
    errors = [outcome[1] for outcome in outcomes if outcome[1] is not None]
    p50, p95 = np.percentile(seconds, [50, 95])
    common.emit(
        "serve_load",
        f"{options.requests} requests from {options.clients} clients",
        {
            "errors": len(errors),
            "first_errors": errors[:3],
            "told_to_come_back": sum(outcome[2] for outcome in outcomes),
            "p50_seconds": round(float(p50), 3),
            "p95_seconds": round(float(p95), 3),
            "pictures_per_second": round(len(seconds) / wall, 2),
            "memory_before_mb": before,
            "memory_after_mb": after,
            "exit_code": code,
        },
        sizes=options.sizes,
    )
    return 1 if errors or code else 0


def _encoded(size: int, seed: int) -> bytes:
    photo = common.random_photos(1, size, seed)[0][: size * 3 // 4]
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "PNG")
    return file.getvalue()


def _post(port: int, data: bytes) -> tuple[bytes, int]:
    """Returns the result, and how many times the server said to come back."""
    for retries in range(1000):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        try:
            connection.request("POST", "/v1/stylize", data, {"content-type": "image/png"})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status == 200:
            return content, retries
        if answer.status != 503:
            raise RuntimeError(f"{answer.status} {content[:200]!r}")
        time.sleep(int(answer.headers["retry-after"]))
    raise RuntimeError("always busy")


def _memory(process: int) -> float:
    """Resident megabytes of a process (Linux)."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return round(int(line.split()[1]) / 1000, 1)
    raise RuntimeError("no VmRSS")


if __name__ == "__main__":
    sys.exit(main())
