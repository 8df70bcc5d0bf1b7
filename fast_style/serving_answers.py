"""How requests are refused, counted and logged."""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import secrets
import time
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fast_style.checks import plain
from fast_style.serving_access import Access
from fast_style.serving_limits import CROWDED, RequestError
from fast_style.serving_metrics import Metrics

_log = logging.getLogger(__name__)
_CROWD_SECONDS = 5


def observe(app: FastAPI, metrics: Metrics, access: Access) -> None:
    """Has an application refuse in JSON, `{"error": sentence}`, and count and log every request.

    Handlers may add to the log's fields through `request.state.told`, a dictionary.

    Args:
      app: The application.
      metrics: What counts.
      access: Who may ask.
    """
    app.state.turned_away = functools.partial(_turned_away, metrics)
    app.add_middleware(_Observed, metrics=metrics, access=access)
    app.add_exception_handler(RequestError, _refusal)
    app.add_exception_handler(HTTPException, _http_refusal)
    app.add_exception_handler(RequestValidationError, _invalid)


def wants_json(accept: str) -> bool:
    """Whether a request's Accept names JSON, and no kind of picture that it would rather have."""
    weights = {"application/json": 0.0}
    for part in accept.lower().split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        given = [each[2:] for each in parameters if re.fullmatch(r"q=[01](\.\d{0,3})?", each)]
        weights[kind] = float(given[0]) if given else 1.0
    pictures = [weight for kind, weight in weights.items() if kind.startswith("image/")]
    return 0.0 < weights["application/json"] >= max(pictures, default=0.0)


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return _refused(error, request.state.told)


def _refused(error: RequestError, told: dict[str, Any]) -> Response:
    headers = None if error.retry_after is None else {"retry-after": str(error.retry_after)}
    told["error"] = str(error)
    return JSONResponse({"error": str(error)}, error.status, headers)


async def _http_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    sentences = {
        404: "there is nothing at this address; see /docs",
        405: f"{request.method} is not possible at this address; see /docs",
    }
    sentence = sentences.get(error.status_code, str(error.detail))
    return JSONResponse({"error": sentence}, error.status_code, error.headers)


async def _invalid(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "this request is not as /docs describes"}, 422)


class _Observed:
    """Counts and logs every request, and answers for what failed unexpectedly.

    Each has a name, in the log and in its answer's X-Request-Id. HEAD is answered as GET is, but
    for the body.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, access: Access) -> None:
        self._app = app
        self._metrics = metrics
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        told: dict[str, Any] = {}
        name, method = secrets.token_hex(6), scope["method"]
        seen = {**scope, "state": {**scope.get("state", {}), "told": told}}
        if method == "HEAD":
            seen["method"] = "GET"
        status, sent = 0, 0

        async def observing(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), (b"x-request-id", name.encode())]
                message = {**message, "headers": headers}
            elif method == "HEAD":
                message = {**message, "body": b""}
            sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._answer(seen, receive, observing)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            _log.exception("%s %s failed, request %s", method, plain(scope["path"]), name)
            told["error"] = f"{type(error).__name__}: {error}"
            if not status:
                failure = JSONResponse({"error": "the server failed; its log says why"}, 500)
                await failure(seen, receive, observing)
        finally:
            fields = {
                "request": name,
                "client": (scope.get("client") or ("unknown",))[0],
                "method": method,
                "path": getattr(seen.get("route"), "path", "other"),
                "status": status,
                "answer_bytes": sent,
            }
            _note(self._metrics, fields | told, time.perf_counter() - began)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if CROWDED in scope["state"]:
                raise RequestError(
                    503,
                    f"the server has too many connections; try again in {_CROWD_SECONDS} seconds",
                    retry_after=_CROWD_SECONDS,
                )
            self._access.check(scope["method"], Headers(scope=scope))
        except RequestError as error:
            await _refused(error, scope["state"]["told"])(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _turned_away(metrics: Metrics, client: str, status: int, sentence: str) -> None:
    """Counts and logs what was refused before it was a request."""
    fields = {
        "request": secrets.token_hex(6),
        "client": client,
        "method": "none",
        "path": "other",
        "status": status,
        "answer_bytes": 0,
        "error": sentence,
    }
    _note(metrics, fields, 0.0)


def _note(metrics: Metrics, fields: dict[str, Any], seconds: float) -> None:
    """Counts and logs a request; one that the server failed is a warning, which all can see."""
    metrics.answered(fields["path"], fields["status"], seconds)
    milliseconds = round(1000 * seconds, 1)
    _log.log(
        logging.WARNING if fields["status"] >= 500 else logging.INFO,
        "%s %s %d in %.0f ms, request %s from %s%s",
        *(fields[key] for key in ("method", "path", "status")),
        milliseconds,
        *(fields[key] for key in ("request", "client")),
        f": {fields['error']}" if "error" in fields else "",
        extra={"event": "request", "fields": {**fields, "milliseconds": milliseconds}},
    )
