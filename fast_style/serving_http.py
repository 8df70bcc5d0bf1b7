"""HTTP on a socket, by uvicorn: time-outs for headers, and a shutdown that loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import http
import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol

from fast_style.errors import FastStyleError
from fast_style.serving_limits import CROWDED, Limits

_BACKLOG = 256
_MAX_CONNECTIONS = 512
_LAST_SECONDS = 1.0
"""For a request that was sent before a client could know of the shutdown."""

_LEAVE_SECONDS = 30.0
"""For the last bytes of an answer to be fetched once the connection is to be closed."""


def bind(host: str, port: int) -> socket.socket:
    """Takes a port; nobody can connect before `listen`.

    Args:
      host: A name or an address, of IPv4 or IPv6.
      port: 0 takes any free one.

    Raises:
      FastStyleError: If it cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except BaseException:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:
        raise _cannot_listen(host, port, error) from error
    return listener


def _cannot_listen(host: str, port: int, error: Exception) -> FastStyleError:
    reason = getattr(error, "strerror", None) or "not a host's name"
    return FastStyleError(
        f"{host}:{port}: cannot listen there ({reason}); choose another --host or --port"
    )


def serve_on(
    listener: socket.socket, app: Any, limits: Limits, announce: Callable[[], object]
) -> None:
    """Serves until SIGINT or SIGTERM, and then finishes what was accepted.

    A second SIGINT ends it at once. Outside the main thread no signal is handled.

    Args:
      listener: From `bind`.
      app: An ASGI application.
      limits: The time-outs.
      announce: Called when clients can connect, and signals end the server as they should.

    Raises:
      FastStyleError: If another server took the port since `bind`: two can, until one listens.
    """
    server = make_server(app, limits)
    with _signals_end(server):
        try:
            listener.listen(_BACKLOG)
        except OSError as error:
            host, port = listener.getsockname()[:2]
            raise _cannot_listen(host, port, error) from error
        announce()
        server.run(sockets=[listener])


def make_server(app: Any, limits: Limits) -> uvicorn.Server:
    """Returns uvicorn's server; setting its `should_exit` ends it as SIGTERM does.

    Args:
      app: From `create_app`; others are not told of what is refused before it is a request.
      limits: The time-outs.
    """

    class Protocol(_Connection):
        header_seconds = limits.header_seconds
        turned_away = staticmethod(app.state.turned_away)

    return _Server(
        uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="on",
            backlog=_BACKLOG,
            timeout_graceful_shutdown=round(
                limits.header_seconds + limits.upload_seconds + limits.work_seconds + _LEAVE_SECONDS
            ),
        )
    )


@contextlib.contextmanager
def _signals_end(server: uvicorn.Server) -> Iterator[None]:
    """Ends the server by signals that come before its own handlers are there, or after them.

    uvicorn raises those that it caught again when it is done, which would end the process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, server.handle_exit) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Server(uvicorn.Server):
    """Takes, before it stops listening, the connections that the system has accepted for it.

    Closing the listener would reset them, although their clients are connected and may have sent
    their requests.
    """

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        taken: list[socket.socket] = []
        for listener in sockets or []:
            with contextlib.suppress(OSError):  # No more of them.
                while True:
                    taken.append(listener.accept()[0])
        for server in self.servers:
            server.close()
        for connection in taken:
            connection.setblocking(False)
            with contextlib.suppress(OSError):  # Gone already.
                await loop.connect_accepted_socket(self._protocol, connection)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        make: Any = self.config.http_protocol_class
        return make(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )


class _Connection(H11Protocol):
    """A connection that is closed if a header, or the rest of a refused body, takes too long.

    uvicorn has a time-out for silence between requests alone. Whenever bytes arrive while no
    request is being answered, they are a header or such a rest, and one clock runs until the next
    whole header.

    What uvicorn itself would refuse in plain text is refused in JSON. A connection too many is
    marked, for the application to refuse its request.

    Attributes:
      header_seconds: For a header or a rest.
      turned_away: Told of what was refused: (client, status, sentence).
    """

    header_seconds: float
    turned_away: Callable[[str, int, str], object]

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > _MAX_CONNECTIONS:
            self.app_state = {**self.app_state, CROWDED: True}
            self._is_last = True
        self._start_clock()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_answering():
            self._stop_clock()
        else:
            self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "this is not a request of HTTP/1.1 that can be read; see /docs")

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():  # It waits for a client that may never fetch the rest.
            self._leave()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._leave()

    def shutdown(self) -> None:
        self._is_last = True
        if self._is_answering():
            self._end_after_this()
        elif not self.transport.is_closing():
            # A request may be on its way: it is served, and is the last.
            self._stop_clock()
            self._clock = self.loop.call_later(min(self.header_seconds, _LAST_SECONDS), self._close)

    def handle_events(self) -> None:
        super().handle_events()
        if self._is_last and self._is_answering():
            self._end_after_this()

    _is_last = False

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _end_after_this(self) -> None:
        self.cycle.keep_alive = False
        if CLOSE_HEADER not in self.headers:
            self.headers.append(CLOSE_HEADER)  # As if the client had asked: then it is told.

    def _start_clock(self) -> None:
        if self._clock is None:
            self._clock = self.loop.call_later(self.header_seconds, self._close)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _close(self) -> None:
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._refuse(408, "the header of this request did not arrive in time; try again")
        self.transport.close()
        self._leave()

    def _refuse(self, status: int, sentence: str) -> None:
        """Answers what is no request, unless an answer is on its way, and hangs up."""
        if not (self._is_answering() and self.cycle.response_started):
            body = json.dumps({"error": sentence}).encode()
            header = (
                f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\n"
                "content-type: application/json\r\nconnection: close\r\n"
                f"content-length: {len(body)}\r\n\r\n"
            )
            self.transport.write(header.encode() + body)
            self.turned_away(self.client[0] if self.client else "unknown", status, sentence)
        self.transport.close()

    def _leave(self) -> None:
        self._stop_clock()
        self._clock = self.loop.call_later(_LEAVE_SECONDS, self.transport.abort)
