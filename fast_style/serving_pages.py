"""The page at `/` and the description at `/docs`; neither loads anything from elsewhere."""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response

from fast_style.serving_docs import docs_page

_PAGE_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_PAGE_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' blob: data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}


def add_pages(app: FastAPI) -> None:
    """Adds them to an application; its description must be complete when it is first asked for."""
    for path, (name, kind) in _PAGE_FILES.items():
        app.add_api_route(path, _file(name, kind), include_in_schema=False)

    async def docs(request: Request) -> Response:
        page = docs_page(app.openapi(), host=request.headers.get("host", "localhost"))
        return Response(page, media_type="text/html; charset=utf-8", headers=_PAGE_HEADERS)

    app.add_api_route("/docs", docs, include_in_schema=False)


def _file(name: str, kind: str) -> Callable[[], Any]:
    content = (importlib.resources.files("fast_style") / "page" / name).read_bytes()

    async def send() -> Response:
        return Response(content, media_type=kind, headers=_PAGE_HEADERS)

    return send
