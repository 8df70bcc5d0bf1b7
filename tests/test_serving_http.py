"""The service behind real sockets: slow clients, and stopping."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hostile
import nets
import numpy as np
import pytest
from PIL import Image

from fast_style import cli, cli_serve
from fast_style.checkpoints import save_model
from fast_style.errors import FastStyleError
from fast_style.images import read_image
from fast_style.serving_limits import Limits
from fast_style.stylize import Stylizer

if not all(map(find_spec, ("fastapi", "uvicorn", "python_multipart", "prometheus_client"))):
    pytest.skip("the service needs the extra 'serve'", allow_module_level=True)

from fast_style import serving_http
from fast_style.serving import create_app, named
from fast_style.serving_http import bind, make_server, serve_on

REPOSITORY = Path(__file__).resolve().parents[1]
PNG = hostile.encoded(Image.fromarray(hostile.picture()), "PNG")
QUICK = Limits(header_seconds=0.4, upload_seconds=0.6, max_upload_bytes=10**6)


@contextlib.contextmanager
def serving() -> Iterator[tuple[Any, int]]:
    """Runs a server with short time-outs; gives it and its port."""
    app = create_app(named([Stylizer(nets.johnson(), precision="float32")]), QUICK)
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        server = make_server(app, QUICK)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield server, port
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


def until_closed(port: int) -> None:
    """Returns when nobody listens there any more."""
    with contextlib.suppress(ConnectionRefusedError):
        while True:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            time.sleep(0.01)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Of a server with short time-outs."""
    with serving() as (_, port):
        yield port


def post(port: int, data: bytes, path: str = "/v1/stylize") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request("POST", path, data, {"content-type": "image/png"})
        answer = connection.getresponse()
        return answer.status, answer.read()


@contextlib.contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        yield client


def header(length: int, more: str = "") -> bytes:
    return (
        "POST /v1/stylize HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/png\r\n"
        f"content-length: {length}\r\n{more}\r\n"
    ).encode()


def received(client: socket.socket) -> bytes:
    """All until the server closes the connection."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while more := client.recv(65536):
            data += more
    return data


def drip(client: socket.socket, data: bytes) -> None:
    """Sends a byte every 50 ms for as long as somebody listens."""
    with contextlib.suppress(OSError):
        for byte in data:
            client.sendall(bytes([byte]))
            time.sleep(0.05)


def test_a_body_that_drips_is_a_408_after_its_time(port: int) -> None:
    with connected(port) as client:
        began = time.monotonic()
        client.sendall(header(1000))
        threading.Thread(target=drip, args=(client, bytes(100)), daemon=True).start()
        answer = received(client)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"the upload was not complete after 0.6 seconds" in answer
        # Then the rest of the body has the time of a header.
        assert time.monotonic() - began < 8
    assert post(port, PNG)[0] == 200


def test_a_header_that_drips_is_a_408_and_silence_is_hung_up_on(port: int) -> None:
    with connected(port) as slow, connected(port) as silent:
        threading.Thread(target=drip, args=(slow, header(1000)), daemon=True).start()
        began = time.monotonic()
        answer = received(slow)
        assert received(silent) == b""
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"].startswith("the header")
        assert time.monotonic() - began < 8


def test_many_slow_clients_keep_nobody_from_being_served(port: int) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(connected(port)).sendall(header(1000) + b"x")
        assert post(port, PNG)[0] == 200


def test_200_megabytes_are_refused_at_once_and_the_answer_arrives(port: int) -> None:
    with connected(port) as client:
        client.sendall(header(200_000_000))
        assert client.recv(65536).startswith(b"HTTP/1.1 413 ")
    with connected(port) as client:  # One that does not say how much is coming.
        head = header(0).replace(b"content-length: 0", b"transfer-encoding: chunked")
        client.sendall(head)
        with contextlib.suppress(OSError):
            for _ in range(40):
                client.sendall(b"10000\r\n" + bytes(0x10000) + b"\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_requests_that_are_no_http_are_refused(port: int) -> None:
    for rubbish in (b"\x16\x03\x01\x02\0\x01\0\r\n\r\n", b"GET / HTTP/1.1\r\n: :\r\n\r\n"):
        with connected(port) as client:
            client.sendall(rubbish)
            answer = received(client)
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert b"content-type: application/json" in answer
            assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"].startswith("this is not")
    assert 'requests_total{path="other",status="400"}' in urlopen(port, "/metrics")
    with connected(port) as client:
        client.sendall(b"GET / HTTP/1.1\r\n" + b"x: " + bytes(200_000).replace(b"\0", b"y"))
        assert received(client).split(b" ")[1] in (b"400", b"431")


def test_a_body_that_is_no_http_ends_its_request_and_no_other(port: int) -> None:
    with connected(port) as client:
        head = header(0).replace(b"content-length: 0", b"transfer-encoding: chunked")
        client.sendall(head + b"5\r\nhello\r\nno length\r\n")
        assert received(client).startswith(b"HTTP/1.1 400 ")
    assert post(port, PNG)[0] == 200


def test_a_connection_too_many_is_told_to_come_back_in_json(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving_http, "_MAX_CONNECTIONS", 2)
    with serving() as (server, port):
        with connected(port), connected(port):
            while len(server.server_state.connections) < 2:
                time.sleep(0.01)
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            with contextlib.closing(connection):
                connection.request("POST", "/v1/stylize", PNG, {"content-type": "image/png"})
                answer = connection.getresponse()
                assert (answer.status, answer.headers["retry-after"]) == (503, "5")
                assert answer.headers["connection"] == "close"
                assert json.load(answer)["error"].startswith("the server has too many connections")
        while server.server_state.connections:
            time.sleep(0.01)
        assert post(port, PNG)[0] == 200
        assert 'requests_total{path="other",status="503"} 1.0' in urlopen(port, "/metrics")


def test_a_client_that_leaves_is_forgotten(port: int) -> None:
    for _ in range(5):
        with connected(port) as client:
            client.sendall(header(len(PNG)) + PNG[:-10])
    deadline = time.monotonic() + 20
    metrics = ""
    while "fast_style_upload_bytes 0.0" not in metrics and time.monotonic() < deadline:
        metrics = urlopen(port, "/metrics")
    assert "fast_style_upload_bytes 0.0" in metrics
    assert post(port, PNG)[0] == 200


def urlopen(port: int, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", path)
        return connection.getresponse().read().decode()


def test_a_port_that_is_taken_is_one_sentence(port: int) -> None:
    with pytest.raises(FastStyleError, match=rf"127\.0\.0\.1:{port}: cannot listen there \(.*use"):
        bind("127.0.0.1", port)
    with pytest.raises(FastStyleError, match="cannot listen there .*choose another --host"):
        bind("no host\0", 0)


def test_a_port_that_another_server_takes_meanwhile_is_one_sentence() -> None:
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with bind("127.0.0.1", port) as second:
            first.listen()
            with pytest.raises(FastStyleError, match=rf"127\.0\.0\.1:{port}: cannot listen there"):
                serve_on(second, create_app({}), QUICK, lambda: None)


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    save_model(tmp_path / "candy.safetensors", nets.johnson())
    return tmp_path / "candy.safetensors"


def command(*arguments: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "fast_style", "serve", *map(str, arguments)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
        | {"TF_NUM_INTRAOP_THREADS": "1"},
    )


def test_sigterm_under_load_loses_no_accepted_request(model_file: Path) -> None:
    """Every client whose connection was taken gets its picture; later ones are not let in."""
    large = np.tile(hostile.picture(), (12, 12, 1))
    data = hostile.encoded(Image.fromarray(large), "PNG")
    server = command("--model", model_file, "--port", 0, "--log-json", "--precision", "float32")
    try:
        assert server.stdout is not None
        start = json.loads(server.stdout.readline())
        assert (start["event"], start["models"]) == ("start", ["candy"])
        port = int(start["url"].rpartition(":")[2])
        with concurrent.futures.ThreadPoolExecutor(13) as pool:
            clients = [pool.submit(post, port, data) for _ in range(12)]
            with connected(port) as late:
                # Accepted, but its body is still on its way when the signal comes.
                late.sendall(header(len(PNG), "connection: close\r\n") + PNG[:50])
                while not any(client.done() for client in clients):
                    time.sleep(0.01)
                server.send_signal(signal.SIGTERM)
                time.sleep(0.2)
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port), timeout=5)
                late.sendall(PNG[50:])
                assert received(late).startswith(b"HTTP/1.1 200 ")
            for client in clients:
                status, picture = client.result()
                assert status == 200
                assert read_image(picture).shape == large.shape
        rest, errors = server.communicate(timeout=30)
    finally:
        server.kill()
        server.communicate()
    assert server.returncode == 0
    events = [json.loads(line) for line in rest.splitlines()]
    assert [event["event"] for event in events] == ["request"] * 13 + ["end"]
    assert {event["status"] for event in events[:-1]} == {200}
    assert errors == ""


def test_a_request_on_an_idle_connection_is_served_even_as_the_server_ends() -> None:
    """Its client cannot know yet; the answer tells it that the connection ends."""
    with serving() as (server, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            server.should_exit = True
            until_closed(port)
            connection.request("POST", "/v1/stylize", PNG, {"content-type": "image/png"})
            answer = connection.getresponse()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert read_image(answer.read()).shape == (hostile.HEIGHT, hostile.WIDTH, 3)


def test_connections_that_nobody_looked_at_yet_are_served_as_the_server_ends() -> None:
    """They wait in the system's queue, and would be reset if that were closed."""
    with serving() as (server, port), contextlib.ExitStack() as stack:
        listener = server.servers[0].sockets[0]
        blind = threading.Event()

        def look_away() -> None:
            asyncio.get_running_loop().remove_reader(listener.fileno())
            blind.set()

        server.servers[0].get_loop().call_soon_threadsafe(look_away)
        assert blind.wait(20)
        clients = [stack.enter_context(connected(port)) for _ in range(5)]
        for client in clients:
            client.sendall(header(len(PNG)) + PNG)
        server.should_exit = True
        for client in clients:
            assert received(client).startswith(b"HTTP/1.1 200 ")


def test_a_missing_model_is_one_sentence_and_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "0")  # Not for the tests after this one.
    assert cli.main(["serve", "--model", str(tmp_path / "none"), "--port", "0"]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("error: ") and len(errors.splitlines()) == 1


def test_a_missing_package_is_named_with_what_brings_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        cli_serve.importlib.util,
        "find_spec",
        lambda name: None if name == "uvicorn" else find_spec(name),
    )
    assert cli.main(["serve", "--model", "candy"]) == 1
    assert capsys.readouterr().err == (
        "error: serve needs uvicorn; pip install 'fast-style[serve]' brings them\n"
    )
