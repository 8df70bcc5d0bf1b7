"""The command `serve`: its arguments and messages."""

from __future__ import annotations

import argparse
import importlib.util
import logging

from fast_style.errors import FastStyleError
from fast_style.serving_access import access_on, is_loopback, is_origin
from fast_style.serving_limits import DEFAULT_MAX_PIXELS, DEFAULT_MAX_UPLOAD, Limits
from fast_style.serving_memory import give_back, prefer_system_allocator
from fast_style.terminal import import_tensorflow, positive, precision_argument, say

_log = logging.getLogger(__name__)
_NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
_MEGABYTE = 10**6


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what `serve` takes."""
    parser.add_argument(
        "--model",
        required=True,
        nargs="+",
        action="extend",
        metavar="PATH",
        help="runs' folders, .safetensors files or checkpoints; the first is the default",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: %(default)s, this machine alone)",
    )
    parser.add_argument(
        "--port", type=_port, default=8000, help="0 takes any free one (default: %(default)s)"
    )
    parser.add_argument(
        "--max-upload",
        type=positive,
        default=DEFAULT_MAX_UPLOAD // _MEGABYTE,
        metavar="MB",
        help="largest picture file (default: %(default)s)",
    )
    parser.add_argument(
        "--max-pixels",
        type=positive,
        default=DEFAULT_MAX_PIXELS,
        metavar="N",
        help="refuse pictures of more pixels before they are decoded "
        f"(default: {DEFAULT_MAX_PIXELS:,})",
    )
    parser.add_argument(
        "--queue",
        type=positive,
        default=Limits().max_queue,
        metavar="N",
        help="requests that may wait; more are told to come back (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        type=positive,
        default=round(Limits().work_seconds),
        metavar="SECONDS",
        help="for a picture, waiting included (default: %(default)s)",
    )
    parser.add_argument(
        "--upload-timeout",
        type=positive,
        default=round(Limits().upload_seconds),
        metavar="SECONDS",
        help="for a picture to arrive (default: %(default)s)",
    )
    parser.add_argument(
        "--allow-origin",
        type=_origin,
        nargs="+",
        action="extend",
        default=[],
        metavar="ORIGIN",
        help="pages from elsewhere that may send pictures, such as https://my.site; the server "
        "may be called by their names, too, as a proxy does",
    )
    precision_argument(parser)
    parser.add_argument(
        "--log-json",
        action="store_true",
        help="write one JSON object a line to the standard output, and nothing else",
    )


def run_serve(options: argparse.Namespace) -> int:
    """Serves until it is told to stop, and finishes what it has accepted.

    Raises:
      FastStyleError: If a package or a model is missing, or the port is taken.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise FastStyleError(
            f"serve needs {', '.join(missing)}; pip install 'fast-style[serve]' brings them"
        )
    limits = Limits(
        max_upload_bytes=options.max_upload * _MEGABYTE,
        max_pixels=options.max_pixels,
        max_queue=options.queue,
        work_seconds=options.timeout,
        upload_seconds=options.upload_timeout,
        max_held_bytes=max(Limits().max_held_bytes, 4 * options.max_upload * _MEGABYTE),
    )
    from fast_style.serving_http import bind, serve_on

    with bind(options.host, options.port) as listener:
        prefer_system_allocator()
        import_tensorflow()
        from fast_style.serving import create_app, named
        from fast_style.stylize import load

        models = named([load(path, precision=options.precision) for path in options.model])
        for model in models.values():  # Traced before the first request, which would wait for it.
            model.warm_up()
        give_back()
        host, port = listener.getsockname()[:2]

        def announce() -> None:
            _tell(options.log_json, host, port, list(models))

        access = access_on(host, options.host, frozenset(options.allow_origin))
        serve_on(listener, create_app(models, limits, access), limits, announce)
    _log.info("stopped", extra={"event": "end", "fields": {}})
    return 0


def _tell(as_json: bool, host: str, port: int, names: list[str]) -> None:
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    _log.info(
        "serving on %s",
        address,
        extra={"event": "start", "fields": {"models": names, "url": address}},
    )
    if as_json:
        return
    print(f"serving {', '.join(names)} on {address} (Ctrl-C stops)", flush=True)
    if not is_loopback(host):
        say("note: other machines can reach this, and nobody is asked for a password")


def _port(text: str) -> int:
    if not text.isdecimal() or len(text) > 5 or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected a port of 0 to 65535, got {text!r}")
    return int(text)


def _origin(text: str) -> str:
    if not is_origin(text):
        raise argparse.ArgumentTypeError(
            f"expected an address as far as its port, such as https://my.site, got {text!r}"
        )
    return text
