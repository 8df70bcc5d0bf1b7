"""The HTTP service: pictures in, styled pictures out, and a page to try it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from PIL import Image, UnidentifiedImageError
from starlette.requests import ClientDisconnect

from fast_style.checks import closest, plain, show
from fast_style.errors import ImageError
from fast_style.images import encode_image
from fast_style.jobs import FORMATS
from fast_style.photo import Photo, read_photo
from fast_style.resample import size_within
from fast_style.serving_access import Access
from fast_style.serving_answers import observe, wants_json
from fast_style.serving_body import Order, check_declared, parse_order, read_body
from fast_style.serving_limits import Limits, RequestError
from fast_style.serving_metrics import CONTENT_TYPE, Metrics
from fast_style.serving_openapi import STYLIZE_OPENAPI
from fast_style.serving_pages import add_pages
from fast_style.serving_queue import Abandoned, Stage, WorkQueue
from fast_style.stylize import Stylizer
from fast_style.stylize_options import MAX_STYLE_WEIGHT

_FORM_OF = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "TIFF": "tiff", "GIF": "png"}
_TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp", "tiff": "image/tiff"}
_CLIENT_GONE = 499


def named(models: Sequence[Stylizer]) -> dict[str, Stylizer]:
    """Returns models by their labels; the second 'candy' is 'candy-2'."""
    result: dict[str, Stylizer] = {}
    for model in models:
        label, number = model.model.label, 1
        while (name := label if number == 1 else f"{label}-{number}") in result:
            number += 1
        result[name] = model
    return result


def create_app(
    models: Mapping[str, Stylizer], limits: Limits | None = None, access: Access | None = None
) -> FastAPI:
    """Returns the ASGI application.

    Args:
      models: {name: model}, at least one; the first is the default.
      limits: What it takes.
      access: Who may ask; by default programs, and pages of the server's own address.
    """
    access = access or Access()
    service = _Service(models, limits or Limits())

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await service.queue.close()

    app = FastAPI(
        title="fast-style",
        version="1",
        description="Stylizes pictures with trained models.",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own load scripts from elsewhere.
        redoc_url=None,
        redirect_slashes=False,  # To whatever host the request named.
    )
    if access.origins:  # Their pages could send pictures, but not read the answers.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=sorted(access.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["content-type"],
            expose_headers=["retry-after", "x-model", "x-request-id"],
        )
    observe(app, service.metrics, access)

    @app.post("/v1/stylize", openapi_extra=STYLIZE_OPENAPI, response_class=Response)
    async def stylize(request: Request) -> Response:
        """Stylizes a picture."""
        return await service.stylize(request)

    @app.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        """Lists the models and their styles; the first is the default."""
        return service.describe()

    @app.get("/healthz")
    async def health() -> dict[str, str]:
        """Says that the server is up."""
        return {"status": "ok"}

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Counts of requests, latencies and the queue, for Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    add_pages(app)
    return app


class _Service:
    """What all requests share."""

    def __init__(self, models: Mapping[str, Stylizer], limits: Limits) -> None:
        self.models = dict(models)
        self.limits = limits
        self.queue = WorkQueue(limits)
        self.metrics = Metrics(self.queue)

    def describe(self) -> dict[str, Any]:
        models = [
            {
                "name": name,
                "styles": list(model.model.style_names),
                "arch": model.model.arch,
                "width": model.model.width,
                "precision": model.precision,
            }
            for name, model in self.models.items()
        ]
        limits = {
            "max_upload_bytes": self.limits.max_upload_bytes,
            "max_pixels": self.limits.max_pixels,
        }
        return {"default": models[0]["name"], "models": models, "limits": limits}

    async def stylize(self, request: Request) -> Response:
        self.queue.check_room()
        with contextlib.ExitStack() as held:
            hold = held.enter_context(self.queue.holding())
            try:
                order = await self._received(request, hold)
            except ClientDisconnect:
                return Response(status_code=_CLIENT_GONE)
            return await self._fulfil(order, request, held)

    async def _received(self, request: Request, hold: Callable[[int], None]) -> Order:
        kind = request.headers.get("content-type", "")
        check_declared(kind, request.headers.get("content-length"), self.limits)
        seconds = self.limits.upload_seconds
        try:
            body = await asyncio.wait_for(
                read_body(request.stream(), kind, self.limits, hold), seconds
            )
        except asyncio.TimeoutError as error:
            raise RequestError(
                408,
                f"the upload was not complete after {seconds:g} seconds; "
                "send a smaller file, or use a faster connection",
            ) from error
        query = request.query_params.multi_items()
        return await self.queue.beside(lambda: parse_order(body, kind, query, self.limits))

    async def _fulfil(self, order: Order, request: Request, held: contextlib.ExitStack) -> Response:
        name, model = self._model(order.model)
        mix = _style_weights(name, model, order)
        told: dict[str, Any] = request.state.told
        told |= {"model": name, "upload_bytes": len(order.picture)}

        def timed(stage: str, function: Callable[[], Any]) -> Callable[[], Any]:
            def run() -> Any:
                began = time.perf_counter()
                result = function()
                seconds = time.perf_counter() - began
                self.metrics.stage(stage, seconds)
                told[f"{stage}_ms"] = round(1000 * seconds, 1)
                return result

            return run

        def net(photo: Photo, go_on: Callable[[], None]) -> np.ndarray:
            return model.stylize(
                photo.pixels,
                style_weights=mix,
                strength=order.options.strength,
                preserve_color=order.options.preserve_color,
                stroke_scale=order.options.stroke_scale,
                grain=order.options.grain,
                max_size=order.options.max_size,
                tile="auto",
                before_tile=go_on,
            )

        asked = time.perf_counter()

        def check() -> None:
            """Decodes the picture and forgets it, which takes little beside the net.

            Whoever sent a damaged one hears it at once, and those who wait hold no pixels.
            """
            nonlocal asked
            timed("check", lambda: self._decoded(order))()
            asked = time.perf_counter()

        async def work(
            codec: Stage, compute: Stage, go_on: Callable[[], None]
        ) -> tuple[bytes, str]:
            told["waited_ms"] = round(1000 * (time.perf_counter() - asked), 1)
            photo = await codec(timed("decode", lambda: self._decoded(order)))
            form = order.form or _FORM_OF.get(photo.form, "jpg")
            styled = await compute(timed("net", lambda: net(photo, go_on)))
            told["pixels"] = styled.shape[0] * styled.shape[1]
            return await codec(timed("encode", lambda: _encoded(styled, form, photo))), form

        async def is_wanted() -> bool:
            return not await request.is_disconnected()

        try:
            data, form = await self.queue.run(check, work, is_wanted, held)
        except Abandoned:
            return Response(status_code=_CLIENT_GONE)
        self.metrics.finished(name, told["pixels"])
        headers = {"x-content-type-options": "nosniff", "x-model": name.encode().decode("latin-1")}
        headers["cache-control"] = "no-store"
        if wants_json(", ".join(request.headers.getlist("accept"))):
            text = await self.queue.beside(lambda: base64.b64encode(data).decode("ascii"))
            return JSONResponse({"image": text, "format": form, "model": name}, headers=headers)
        return Response(data, media_type=_TYPES[form], headers=headers)

    def _model(self, name: str | None) -> tuple[str, Stylizer]:
        if name is None:
            name = next(iter(self.models))
        if name not in self.models:
            hint = closest(name, self.models)
            advice = f"did you mean '{hint}'?" if hint else "GET /v1/models lists them"
            raise RequestError(404, f"model: there is no {show(name)} here; {advice}")
        return name, self.models[name]

    def _decoded(self, order: Order) -> Photo:
        try:
            photo = read_photo(order.picture, max_pixels=self.limits.max_pixels)
        except ImageError as error:
            cause = error.__cause__
            if isinstance(cause, Image.DecompressionBombError | MemoryError):
                raise RequestError(
                    413,
                    f"image: has more than the {self.limits.max_pixels:,} pixels that this server "
                    "takes; make it smaller",
                ) from error
            status = 415 if isinstance(cause, UnidentifiedImageError) else 400
            sentence = str(error).removeprefix("picture given as bytes: ")
            raise RequestError(status, f"image: {sentence}") from error
        height, width = photo.pixels.shape[:2]
        if order.options.max_size is not None:
            height, width = size_within(height, width, order.options.max_size)
        seen = round(height * width / order.options.stroke_scale**2)
        if seen > self.limits.max_pixels:
            raise RequestError(
                413,
                f"image: with stroke_scale {order.options.stroke_scale:g} it has {seen:,} pixels "
                f"for the net, and this server takes {self.limits.max_pixels:,}; set max_size",
            )
        return photo


def _encoded(styled: np.ndarray, form: str, photo: Photo) -> bytes:
    try:
        return encode_image(styled, FORMATS[form][0], extras=photo.extras)
    except ImageError as error:
        raise RequestError(422, f"format: {error}") from error


def _style_weights(name: str, model: Stylizer, order: Order) -> list[float] | None:
    names = model.model.style_names
    weights = order.options.style_weights
    if weights is not None:
        try:
            if len(weights) != len(names):
                raise ValueError
            model.check_style_weights(weights)
        except ValueError as error:
            raise RequestError(
                422,
                f"style_weights: {show(name)} takes {len(names)} numbers from "
                f"{-MAX_STYLE_WEIGHT} to {MAX_STYLE_WEIGHT}, for {', '.join(names)}; "
                f"got {len(weights)}: {plain(weights)}",
            ) from error
        return list(weights)
    if order.style is None:
        return None
    try:
        return model.one_style(order.style)
    except ValueError as error:
        raise RequestError(
            422,
            f"style: {show(name)} has {', '.join(names)}, got {show(order.style)}; "
            "name one of them",
        ) from error
