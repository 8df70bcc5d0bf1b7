"""What the server counts, in the text format of Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from fast_style.serving_queue import WorkQueue

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, float("inf"))


class Metrics:
    """Counters, histograms and gauges of one server, in a registry of their own."""

    def __init__(self, queue: WorkQueue) -> None:
        """Registers them; the gauges look at the queue whenever they are asked."""
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "fast_style_requests",
            "Requests that were answered.",
            ["path", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "fast_style_request_seconds",
            "Time from a request's header to the end of its answer.",
            ["path"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._stages = Histogram(
            "fast_style_stage_seconds",
            "Time that a picture took to check, to decode, in the net, and to encode.",
            ["stage"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._pixels = Counter(
            "fast_style_pixels", "Pixels of results.", ["model"], registry=self._registry
        )
        gauges = {
            "queue_depth": ("Requests that wait.", lambda: queue.waiting),
            "working": ("Requests that are worked on.", lambda: queue.working),
            "upload_bytes": ("Bytes of uploads that are held.", lambda: queue.held_bytes),
        }
        for name, (what, value) in gauges.items():
            Gauge(f"fast_style_{name}", what, registry=self._registry).set_function(value)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Counts a request.

        Args:
          path: The route's, one of a few: each is a time series of its own.
          status: Of HTTP.
          seconds: How long it took.
        """
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def stage(self, stage: str, seconds: float) -> None:
        """Counts a stage of the work: 'check' before a wait, 'decode', 'net' or 'encode'."""
        self._stages.labels(stage).observe(seconds)

    def finished(self, model: str, pixels: int) -> None:
        """Counts a result."""
        self._pixels.labels(model).inc(pixels)

    def text(self) -> bytes:
        """Returns all of it, as `CONTENT_TYPE` says."""
        return generate_latest(self._registry)
