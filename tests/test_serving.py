"""The service in one process, without sockets."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import re
import threading
import time
from importlib.util import find_spec
from typing import Any

import hostile
import nets
import numpy as np
import pytest
from PIL import Image

from fast_style.images import read_image
from fast_style.photo import read_photo
from fast_style.serving_limits import Limits
from fast_style.serving_memory import give_back
from fast_style.stylize import Stylizer

if not all(map(find_spec, ("fastapi", "python_multipart", "prometheus_client", "httpx"))):
    pytest.skip("the service needs the extra 'serve', its tests httpx", allow_module_level=True)

import httpx
from fastapi import FastAPI

from fast_style import serving, serving_queue
from fast_style.serving import create_app, named
from fast_style.serving_access import Access, access_on, is_origin
from fast_style.serving_answers import wants_json
from fast_style.serving_body import PARAMETERS

LIMITS = Limits(max_upload_bytes=300_000, max_pixels=200_000)


@pytest.fixture(scope="module")
def models() -> dict[str, Stylizer]:
    """A model of one style, and one of three."""
    return named(
        [
            Stylizer(nets.johnson(), precision="float32"),
            Stylizer(nets.johnson(3, naming="trio"), precision="float32"),
        ]
    )


@pytest.fixture
def app(models: dict[str, Stylizer]) -> FastAPI:
    return create_app(models, LIMITS)


def client(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server")


def ask(app: FastAPI, method: str, path: str, **request: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        async with client(app) as sender:
            return await sender.request(method, path, **request)

    return asyncio.run(send())


def post(app: FastAPI, data: bytes, kind: str = "image/png", **query: Any) -> httpx.Response:
    headers = {"content-type": kind}
    return ask(app, "POST", "/v1/stylize", content=data, headers=headers, params=query)


def png(seed: int = 0) -> bytes:
    return hostile.encoded(Image.fromarray(hostile.picture(seed)), "PNG")


def refusal(answer: httpx.Response) -> str:
    """The sentence of a refusal, which is all that it says."""
    assert answer.headers["content-type"] == "application/json"
    content = answer.json()
    assert list(content) == ["error"]
    sentence = content["error"]
    assert "\n" not in sentence and "Traceback" not in sentence and 10 < len(sentence) < 300
    return sentence


# --- good requests -------------------------------------------------------------------------------


def test_raw_bytes_forms_and_base64_give_the_picture_that_the_model_gives(
    app: FastAPI, models: dict[str, Stylizer]
) -> None:
    expected = models["candy"].stylize(hostile.picture(), strength=0.5, preserve_color=True)
    given = {"model": "candy", "strength": 0.5, "preserve_color": True}
    raw = post(app, png(), strength="0.5", preserve_color="true")
    form = ask(app, "POST", "/v1/stylize", files={"image": ("a.png", png())}, data=given)
    body = {"image": base64.b64encode(png()).decode(), **given}
    encoded = ask(app, "POST", "/v1/stylize", json=body)
    escaped = json.dumps(body | {"image": base64.encodebytes(png()).decode()}).replace("/", "\\/")
    lines = post(app, escaped.replace("+", "\\u002b").encode(), "application/json")
    body["image"] = "data:image/png;base64," + body["image"]
    address = ask(app, "POST", "/v1/stylize", json=body)
    for answer in (raw, form, encoded, lines, address):
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        assert answer.headers["x-model"] == "candy"
        np.testing.assert_array_equal(read_image(answer.content), expected)


def test_base64_comes_back_where_json_is_accepted(app: FastAPI) -> None:
    headers = {"content-type": "image/png", "accept": "application/json"}
    answer = ask(app, "POST", "/v1/stylize", content=png(), headers=headers)
    content = answer.json()
    assert (content["format"], content["model"]) == ("png", "candy")
    assert base64.b64decode(content["image"]) == post(app, png()).content


@pytest.mark.parametrize(
    ("accept", "is_wanted"),
    [
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("application/json, text/plain, */*", True),
        ("text/html, application/json;q=0.5", True),
        ("image/png;q=0.4, application/json;q=0.5", True),
        ("image/*, application/json;q=0.5", False),
        ("application/json;q=0", False),
        ("application/json; q=0.000, */*", False),
        ("application/jsonp", False),
        ("application/json-patch+json", False),
        ("*/*", False),
        ("", False),
        (";q=, ,;", False),
    ],
)
def test_accept_is_taken_at_its_word(accept: str, is_wanted: bool) -> None:
    assert wants_json(accept) == is_wanted


@pytest.mark.parametrize(
    ("sent", "asked", "kind"),
    [
        ("JPEG", None, "image/jpeg"),
        ("PNG", None, "image/png"),
        ("WEBP", None, "image/webp"),
        ("TIFF", None, "image/tiff"),
        ("GIF", None, "image/png"),
        ("BMP", None, "image/jpeg"),
        ("PNG", "jpg", "image/jpeg"),
        ("PNG", "jpeg", "image/jpeg"),
        ("JPEG", "webp", "image/webp"),
        ("JPEG", "tiff", "image/tiff"),
    ],
)
def test_formats_in_and_out(app: FastAPI, sent: str, asked: str | None, kind: str) -> None:
    data = hostile.encoded(Image.fromarray(hostile.picture()), sent)
    query = {} if asked is None else {"format": asked}
    answer = post(app, data, "application/octet-stream", **query)
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    result = Image.open(io.BytesIO(answer.content))
    assert Image.MIME[result.format or ""] == kind
    assert result.size == (hostile.WIDTH, hostile.HEIGHT)


def test_pictures_are_upright_and_keep_transparency_and_depth(app: FastAPI) -> None:
    exif = Image.Exif()
    exif[274] = 6
    turned = hostile.encoded(Image.fromarray(hostile.picture()), "JPEG", exif=exif.tobytes())
    assert Image.open(io.BytesIO(post(app, turned, "image/jpeg").content)).size == (17, 23)
    deep = post(app, hostile.deep_png(4)).content
    assert (deep[24], deep[25]) == (16, 6)  # Bits a channel; RGBA.


def test_the_model_and_the_style_can_be_chosen(app: FastAPI, models: dict[str, Stylizer]) -> None:
    expected = models["trio"].stylize(hostile.picture(), style_weights=[0, 1, 0])
    answer = post(app, png(), model="trio", style="glass")
    np.testing.assert_array_equal(read_image(answer.content), expected)


def test_styles_can_be_mixed_in_strokes_of_another_size(
    app: FastAPI, models: dict[str, Stylizer]
) -> None:
    expected = models["trio"].stylize(
        hostile.picture(), style_weights=[0.25, 0, 0.75], stroke_scale=1.5, grain=4
    )
    asked = {"stroke_scale": "1.5", "grain": "4"}
    answer = post(app, png(), model="trio", style_weights="0.25, 0,0.75", **asked)
    np.testing.assert_array_equal(read_image(answer.content), expected)
    body = {"image": base64.b64encode(png()).decode(), "model": "trio"}
    body |= {"stroke_scale": 1.5, "grain": 4}
    answer = ask(app, "POST", "/v1/stylize", json=body | {"style_weights": [0.25, 0, 0.75]})
    np.testing.assert_array_equal(read_image(answer.content), expected)


@pytest.mark.parametrize("name", PARAMETERS)
def test_an_empty_value_is_none_at_all(app: FastAPI, name: str) -> None:
    body = {"image": base64.b64encode(png()).decode(), name: ""}
    form = {"files": {"image": ("a.png", png())}, "data": {name: ""}}
    for request in ({**raw(png()), "params": {name: ""}}, {"json": body}, form):
        answer = ask(app, "POST", "/v1/stylize", **request)
        assert answer.content == post(app, png()).content


def test_max_size_and_strength_0_give_the_smaller_photo(app: FastAPI) -> None:
    answer = post(app, png(), max_size="11", strength="0")
    assert read_image(answer.content).shape == (8, 11, 3)


def test_models_are_listed_and_equal_names_numbered(models: dict[str, Stylizer]) -> None:
    candy = models["candy"]
    told = ask(create_app(named([candy, candy, models["trio"]])), "GET", "/v1/models").json()
    assert told["default"] == "candy"
    assert [model["name"] for model in told["models"]] == ["candy", "candy-2", "trio"]
    assert told["models"][2]["styles"] == ["waves", "glass", "ink"]


def test_the_description_is_complete_and_readable_without_the_internet(app: FastAPI) -> None:
    description = ask(app, "GET", "/openapi.json").json()
    operation = description["paths"]["/v1/stylize"]["post"]
    in_query = {parameter["name"] for parameter in operation["parameters"]}
    in_form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert in_query == set(in_form) - {"image"} == set(PARAMETERS)
    assert {"application/json", "image/*"} <= set(operation["requestBody"]["content"])
    assert {"200", "400", "404", "408", "413", "415", "422", "503", "504"} <= set(
        operation["responses"]
    )
    page = ask(app, "GET", "/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "<script" not in page.text
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    assert set(addresses) == {"data:,", "page.css", "openapi.json", "."}
    for name in (*PARAMETERS, *description["paths"], "0.5 to 4", "http://server/v1/stylize"):
        assert name in page.text


def test_health_and_metrics_answer(app: FastAPI) -> None:
    assert ask(app, "GET", "/healthz").json() == {"status": "ok"}
    post(app, png())
    post(app, b"no picture")
    text = ask(app, "GET", "/metrics").text
    assert 'fast_style_requests_total{path="/v1/stylize",status="200"} 1.0' in text
    assert 'fast_style_requests_total{path="/v1/stylize",status="415"} 1.0' in text
    assert 'fast_style_request_seconds_bucket{le="0.01",path="/v1/stylize"}' in text
    assert 'fast_style_stage_seconds_count{stage="net"} 1.0' in text
    assert f'fast_style_pixels_total{{model="candy"}} {17 * 23}.0' in text
    assert "fast_style_queue_depth 0.0" in text
    assert "fast_style_upload_bytes 0.0" in text


def test_the_page_names_all_its_controls_and_loads_nothing_from_elsewhere(app: FastAPI) -> None:
    page = ask(app, "GET", "/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    texts = [page.text] + [ask(app, "GET", f"/page.{end}").text for end in ("css", "js")]
    for text in texts:
        assert not re.search(r"https?:|//\w+\.", text)
    controls = re.findall(r'<(?:input|select)[^>]* id="([\w-]+)"', page.text)
    assert len(controls) == 6
    for control in controls:
        assert (
            f'for="{control}"' in page.text
            or f'<label class="check"><input type="checkbox" id="{control}"' in page.text
        )  # noqa: E501
    assert 'aria-live="polite"' in page.text
    wanted = re.findall(r'"([\w-]+)"', texts[2].split("].map")[0].split("[", 1)[1])
    assert len(wanted) > 10
    for name in wanted:
        assert f'id="{name}"' in page.text


def test_every_request_is_logged_with_what_it_took(
    app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "fast_style"):
        post(app, png())
        post(app, png(), strength="2")
    fields = [record.__dict__["fields"] for record in caplog.records]
    good, bad = fields
    assert (good["path"], good["status"], good["model"]) == ("/v1/stylize", 200, "candy")
    assert {"decode_ms", "net_ms", "encode_ms", "waited_ms", "milliseconds"} <= set(good)
    assert (good["pixels"], good["upload_bytes"]) == (17 * 23, len(png()))
    assert bad["status"] == 422 and bad["error"].startswith("strength: ")
    assert good["client"] == bad["client"] == "127.0.0.1"
    assert good["request"] != bad["request"]


def test_answers_name_their_request_and_failures_are_warnings(
    models: dict[str, Stylizer], caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(models, Limits(max_held_bytes=len(PNG) - 1))
    with caplog.at_level(logging.WARNING, "fast_style"):
        assert "x-request-id" in ask(app, "GET", "/healthz").headers
        answer = post(app, PNG)
    (record,) = caplog.records
    name = answer.headers["x-request-id"]
    assert record.getMessage().startswith("POST /v1/stylize 503 in ")
    assert f"ms, request {name} from 127.0.0.1: the server is busy" in record.getMessage()


def test_head_is_answered_wherever_get_is(app: FastAPI) -> None:
    for path in ("/", "/page.js", "/docs", "/openapi.json", "/healthz", "/metrics", "/v1/models"):
        answer = ask(app, "HEAD", path)
        assert (answer.status_code, answer.content) == (200, b"")
        assert int(answer.headers["content-length"]) > 10
    assert ask(app, "HEAD", "/v1/stylize").status_code == 405


# --- hostile requests ----------------------------------------------------------------------------

PNG = png()
JPEG = hostile.encoded(Image.fromarray(hostile.picture()).resize((300, 200)), "JPEG")


def raw(data: bytes, kind: str = "image/png", **query: str) -> dict[str, Any]:
    return {"content": data, "headers": {"content-type": kind.encode("latin-1")}, "params": query}


def text(content: str) -> dict[str, Any]:
    return raw(content.encode(), "application/json")


def form(body: bytes, kind: str = "multipart/form-data; boundary=b") -> dict[str, Any]:
    return raw(body, kind)


def part(name: str, data: bytes) -> bytes:
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode()
    return head + data + b"\r\n"


IN_JSON = base64.b64encode(PNG).decode()
MANY = "1," * 50_000 + "1"
HOSTILE: dict[str, tuple[int, dict[str, Any]]] = {
    # The picture.
    "nothing": (400, raw(b"")),
    "cut JPEG": (400, raw(JPEG[:3000])),
    "JPEG's first bytes": (415, raw(JPEG[:3])),
    "cut PNG": (400, raw(PNG[: len(PNG) // 2])),
    "cut WebP": (400, raw(hostile.animation("WEBP")[:-900])),
    "cut TIFF": (400, raw(hostile.encoded(Image.fromarray(hostile.picture()), "TIFF")[:600])),
    "PNG with a broken chunk": (415, raw(PNG.replace(b"IDAT", b"IDAX"))),
    "only zeros": (415, raw(bytes(1000))),
    "text as PNG": (415, raw(b"dear diary")),
    "HTML as JPEG": (415, raw(b"<!doctype html><p>no", "image/jpeg")),
    "SVG": (415, raw(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml")),
    "PDF": (415, raw(b"%PDF-1.7 ...", "image/jpeg")),
    "PostScript": (415, raw(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")),
    "ZIP": (415, raw(b"PK\x03\x04" + bytes(100), "image/png")),
    "HEIC": (415, raw(b"\0\0\0\x18ftypheic" + bytes(100), "image/heic")),
    "bomb": (413, raw(hostile.bomb())),
    "larger bomb": (413, raw(hostile.png(2**31 - 1, 2**31 - 1, 8, 2, b"\0"))),
    "GIF that claims 65535 x 65535": (415, raw(b"GIF89a" + b"\xff\xff\xff\xff" + bytes(50))),
    "too many bytes": (413, raw(PNG + bytes(300_000))),
    "too many bytes in base64": (413, text(f'{{"image": "{"A" * 410_000}"}}')),
    "too many bytes in a form": (413, form(part("image", bytes(310_000)) + b"--b--\r\n")),
    "far too many bytes in a form": (413, form(part("image", bytes(400_000)) + b"--b--\r\n")),
    # How it is sent.
    "no type": (415, {"content": PNG}),
    "text/plain": (415, raw(PNG, "text/plain")),
    "a form of addresses": (415, {"data": {"image": "abc"}}),
    "a type that is no type": (415, raw(PNG, "\xff;;;=")),
    "JSON that is none": (400, text("{")),
    "JSON of bytes": (400, raw(b"\xff\xfe\x00\xd8", "application/json")),
    "JSON a million deep": (400, text("[" * 60_000)),
    "JSON of many small objects": (
        413,
        text(f'{{"image":"AAAA","strength":[{"{}," * 99_999}{{}}]}}'),
    ),
    "JSON of many spaces": (413, text(f'{{"image":"AAAA"{" " * 100_000}}}')),
    "half a character in an image": (400, text('{"image": "AAAA\\ud800"}')),
    "an image cut off by an escaped quote": (400, text('{"image": "AAAA\\"AAAA"}')),
    "an image within a parameter": (
        422,
        text(f'{{"style": {{"image": "{IN_JSON}"}}, "image": ""}}'),
    ),
    "a list": (422, text("[1, 2]")),
    "a number": (422, text("7")),
    "no image": (400, text('{"strength": 1}')),
    "an image that is a number": (422, text('{"image": 7}')),
    "wrong base64": (400, text('{"image": "@@@@"}')),
    "base64 cut short": (400, text(f'{{"image": "{IN_JSON[:41]}"}}')),
    "base64 of text": (415, text('{"image": "aGVsbG8gd29ybGQ="}')),
    "a number of 5000 digits": (400, text(f'{{"image": "AAAA", "max_size": {"9" * 5000}}}')),
    "no boundary": (400, form(part("image", PNG), "multipart/form-data")),
    "a boundary of 500 bytes": (400, form(b"", f"multipart/form-data; boundary={'b' * 500}")),
    "an empty form": (400, form(b"--b--\r\n")),
    "a form cut short": (400, form(part("image", PNG)[:-50])),
    "a form of rubbish": (400, form(bytes(range(256)))),
    "a form of endless headers": (400, form(b"--b\r\n" + b"X: y\r\n" * 9000)),
    "two pictures": (422, form(part("image", PNG) + part("image", PNG) + b"--b--\r\n")),
    "a form of many parts": (422, form(part("x", b"") * 3000 + b"a form that ends in rubbish")),
    "a form of one parameter, often": (422, form(part("style", b"") * 3000 + b"rubbish")),
    "a value of 90,000 letters": (422, form(part("model", b"x" * 90_000) + b"--b--\r\n")),
    "a part without a name": (422, form(b"--b\r\nA: b\r\n\r\nx\r\n--b--\r\n")),
    # Parameters.
    "unknown model": (404, raw(PNG, model="candyy")),
    "a path as model": (404, raw(PNG, model="../../etc/passwd")),
    "unknown style": (422, raw(PNG, style="waes")),
    "unknown parameter": (422, raw(PNG, strenght="1")),
    "a parameter twice": (422, {**raw(PNG), "params": [("strength", "1"), ("strength", "0")]}),
    "a key of JSON twice": (422, text(f'{{"image": "{IN_JSON}", "strength": 1, "strength": 0}}')),
    "two images of JSON": (422, text(f'{{"image": "{IN_JSON}", "image": "{IN_JSON}"}}')),
    "strength of 1_0": (422, raw(PNG, strength="0_1")),
    "strength in other digits": (422, raw(PNG, strength="\u0661")),
    "strength of 70 digits": (422, raw(PNG, strength=f"0.{'1' * 70}")),
    "a mix of 70 digits": (422, raw(PNG, style_weights=f"0.{'1' * 70}")),
    "strength of 2": (422, raw(PNG, strength="2")),
    "strength of nan": (422, raw(PNG, strength="nan")),
    "strength as a word": (422, raw(PNG, strength="full")),
    "strength as true": (422, text(f'{{"image": "{IN_JSON}", "strength": true}}')),
    "strength as NaN": (422, text(f'{{"image": "{IN_JSON}", "strength": NaN}}')),
    "a style and a mix": (422, raw(PNG, style="candy", style_weights="1")),
    "a mix of two for one style": (422, raw(PNG, style_weights="0.5,0.5")),
    "a mix of words": (422, raw(PNG, style_weights="much,more")),
    "a mix of truths": (422, text(f'{{"image": "{IN_JSON}", "style_weights": [true]}}')),
    "a mix that is a number": (422, text(f'{{"image": "{IN_JSON}", "style_weights": 1}}')),
    "an infinite mix": (422, raw(PNG, style_weights="inf")),
    "a mix beyond all measure": (422, raw(PNG, style_weights="1e38")),
    "a mix of 50,000 numbers": (413, text(f'{{"image": "{IN_JSON}", "style_weights": [{MANY}]}}')),
    "stroke_scale of 9": (422, raw(PNG, stroke_scale="9")),
    "grain of 33": (422, raw(PNG, grain="33")),
    "stroke_scale of nan": (422, raw(PNG, stroke_scale="nan")),
    "max_size of 0": (422, raw(PNG, max_size="0")),
    "max_size of 1.5": (422, raw(PNG, max_size="1.5")),
    "max_size of 80 digits": (422, text(f'{{"image": "{IN_JSON}", "max_size": -{"9" * 80}}}')),
    "preserve_color maybe": (422, raw(PNG, preserve_color="maybe")),
    "format gif": (422, raw(PNG, format="gif")),
    "format as a list": (422, text(f'{{"image": "{IN_JSON}", "format": []}}')),
    "line breaks in a name": (404, raw(PNG, model="a\r\nx: y" * 100)),
}


def test_hostile_requests_are_refused_in_one_sentence_and_harm_nothing(app: FastAPI) -> None:
    expected = post(app, PNG).content
    wrong = {}

    async def send_all() -> None:
        async with client(app) as sender:
            for name, (status, request) in HOSTILE.items():
                answer = await asyncio.wait_for(sender.post("/v1/stylize", **request), 5)
                refusal(answer)
                if answer.status_code != status:
                    wrong[name] = (status, answer.status_code, answer.text)
            assert (await sender.post("/v1/stylize", **raw(PNG))).content == expected

    asyncio.run(send_all())
    assert len(HOSTILE) >= 50
    assert not wrong


def test_refusals_say_what_was_received_and_what_to_do(app: FastAPI) -> None:
    def sentence(**request: Any) -> str:
        return refusal(ask(app, "POST", "/v1/stylize", **request))

    assert sentence(**raw(PNG, strenght="1")) == (
        "'strenght': unknown parameter; did you mean 'strength'?"
    )
    assert sentence(**raw(PNG, model="cand")) == (
        "model: there is no 'cand' here; did you mean 'candy'?"
    )
    assert sentence(**raw(hostile.bomb())) == (
        "image: has more than the 200,000 pixels that this server takes; make it smaller"
    )
    assert sentence(**raw(PNG, strength="2")) == (
        "strength: expected a number from 0 to 1, got 2.0"
    )
    assert sentence(**raw(bytes(310_000))) == (
        "image: expected at most 300,000 bytes, got 310,000 bytes or more; send a smaller file"
    )
    assert sentence(**raw(b"hello")).startswith("image: not a readable picture (it holds text)")


def test_other_addresses_and_methods_are_refused_in_json(app: FastAPI) -> None:
    assert ask(app, "GET", "/v1/nothing").status_code == 404
    refusal(ask(app, "GET", "/v1/nothing"))
    assert ask(app, "GET", "/v1/stylize").status_code == 405
    refusal(ask(app, "GET", "/v1/stylize"))


def test_addresses_are_never_redirected_to_the_host_that_was_named(app: FastAPI) -> None:
    for path in ("/v1/models/", "/docs/", "/healthz/"):
        answer = ask(app, "GET", path, headers={"host": "evil.example"})
        assert answer.status_code == 404
        refusal(answer)
    for host in ("[", "[::1", "a b", ""):
        assert ask(app, "GET", "/docs", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("localhost", True),
        ("LOCALHOST:8000", True),
        ("127.0.0.1:8000", True),
        ("[::1]:8000", True),
        ("desk", True),
        ("my.site", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example:8000", False),
        ("evil.example@localhost", False),
        ("[::1", False),
        ("10.0.0.1", False),
    ],
)
def test_a_server_for_this_machine_answers_under_its_names_alone(
    models: dict[str, Stylizer], host: str, is_ours: bool
) -> None:
    access = access_on("127.0.1.1", "desk", frozenset({"https://my.site"}))
    app = create_app(models, LIMITS, access)
    answer = ask(app, "GET", "/openapi.json", headers={"host": host})
    if is_ours:
        assert answer.status_code == 200
    else:
        assert answer.status_code == 421
        assert refusal(answer).startswith("Host: this server answers as localhost, not as '")
    open_to_all = create_app(models, LIMITS, access_on("0.0.0.0", "0.0.0.0", frozenset()))
    assert ask(open_to_all, "GET", "/healthz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://server"}, 200),
        ({"origin": "null", "sec-fetch-site": "same-origin"}, 200),
        ({"origin": "https://my.site", "sec-fetch-site": "cross-site"}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "http://server.evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"origin": "http://server:81", "sec-fetch-site": "same-site"}, 403),
    ],
)
def test_pages_from_elsewhere_send_pictures_only_if_they_may(
    models: dict[str, Stylizer], headers: dict[str, str], status: int
) -> None:
    origins = frozenset({"https://my.site"})
    app = create_app(models, LIMITS, Access(origins=origins))
    headers = {"content-type": "image/png", **headers}
    answer = ask(app, "POST", "/v1/stylize", content=PNG, headers=headers)
    assert answer.status_code == status
    if status == 403:
        assert "--allow-origin" in refusal(answer)
    readable = answer.headers.get("access-control-allow-origin")
    assert readable == ("https://my.site" if "my.site" in headers.get("origin", "") else None)
    assert ask(app, "GET", "/healthz", headers=headers).status_code == 200


def test_an_unexpected_failure_is_a_500_and_logged(
    app: FastAPI,
    models: dict[str, Stylizer],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ArithmeticError("secret")

    with monkeypatch.context() as patch:
        patch.setattr(models["candy"], "stylize", fail)
        answer = post(app, PNG)
    assert answer.status_code == 500
    assert "secret" not in refusal(answer)
    assert "ArithmeticError" in caplog.text
    assert post(app, PNG).status_code == 200


# --- the queue -----------------------------------------------------------------------------------


class Gate:
    """Holds the net until it is opened, and notes how many pictures went in."""

    def __init__(self, model: Stylizer, patch: pytest.MonkeyPatch) -> None:
        """Closes it."""
        self.open = threading.Event()
        self.count = 0
        stylize = model.stylize

        def held(*arguments: Any, **keywords: Any) -> Any:
            self.count += 1
            assert self.open.wait(20)
            return stylize(*arguments, **keywords)

        patch.setattr(model, "stylize", held)


@pytest.fixture
def gate(models: dict[str, Stylizer], monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(models["candy"], monkeypatch)


async def until(
    sender: httpx.AsyncClient, *, waiting: int, working: int, held: int | None = None
) -> None:
    """Returns as soon as the metrics say so."""
    lines = [f"fast_style_queue_depth {waiting}.0", f"fast_style_working {working}.0"]
    if held is not None:
        lines.append(f"fast_style_upload_bytes {held}.0")
    for _ in range(500):
        metrics = (await sender.get("/metrics")).text
        if all(line in metrics for line in lines):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"never {lines}: {metrics}")


def test_a_full_queue_answers_503_with_retry_after_and_loses_nobody(
    models: dict[str, Stylizer], gate: Gate
) -> None:
    app = create_app(models, Limits(max_queue=3, max_working=2))

    async def scene() -> None:
        async with client(app) as sender:
            accepted = [
                asyncio.create_task(sender.post("/v1/stylize", **raw(PNG))) for _ in range(5)
            ]
            await until(sender, waiting=3, working=2)
            refused = await sender.post("/v1/stylize", **raw(PNG))
            assert refused.status_code == 503
            assert 1 <= int(refused.headers["retry-after"]) <= 60
            assert refusal(refused).startswith("the server is busy with 2 pictures, and 3 wait")
            assert (await sender.get("/healthz")).status_code == 200
            gate.open.set()
            answers = await asyncio.gather(*accepted)
            assert [answer.status_code for answer in answers] == [200] * 5
            assert (await sender.post("/v1/stylize", **raw(PNG))).status_code == 200

    asyncio.run(scene())


def test_a_bad_picture_is_refused_while_others_wait(
    models: dict[str, Stylizer], gate: Gate
) -> None:
    app = create_app(models, Limits(max_queue=3, max_working=1))

    async def scene() -> None:
        async with client(app) as sender:
            good = [asyncio.create_task(sender.post("/v1/stylize", **raw(PNG))) for _ in range(3)]
            await until(sender, waiting=2, working=1)
            for bad, status in ((JPEG[:3000], 400), (hostile.bomb(), 413), (b"text", 415)):
                answer = await asyncio.wait_for(sender.post("/v1/stylize", **raw(bad)), 5)
                assert answer.status_code == status
            await until(sender, waiting=2, working=1)
            gate.open.set()
            assert [answer.status_code for answer in await asyncio.gather(*good)] == [200] * 3

    asyncio.run(scene())


def test_only_a_picture_that_waits_is_decoded_for_a_check(
    models: dict[str, Stylizer],
    gate: Gate,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def slowly(*arguments: Any, **keywords: Any) -> Any:
        time.sleep(0.3)
        return read_photo(*arguments, **keywords)

    monkeypatch.setattr(serving, "read_photo", slowly)
    app = create_app(models, Limits(max_working=1))

    async def scene() -> None:
        async with client(app) as sender:
            first = asyncio.create_task(sender.post("/v1/stylize", **raw(PNG)))
            await until(sender, waiting=0, working=1)
            second = asyncio.create_task(sender.post("/v1/stylize", **raw(PNG)))
            await until(sender, waiting=1, working=1)
            gate.open.set()
            await asyncio.gather(first, second)

    with caplog.at_level(logging.INFO, "fast_style"):
        asyncio.run(scene())
    told = [record.__dict__["fields"] for record in caplog.records]
    at_once, waited = (fields for fields in told if fields["path"] == "/v1/stylize")
    assert "check_ms" not in at_once and waited["check_ms"] >= 300
    assert at_once["waited_ms"] < 300
    assert waited["waited_ms"] + waited["check_ms"] + waited["decode_ms"] < waited["milliseconds"]


def test_memory_is_given_back_once_when_nothing_is_worked_on(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(serving_queue, "give_back", lambda: calls.append(1))
    monkeypatch.setattr(serving_queue, "_IDLE_SECONDS", 0.05)

    async def scene() -> None:
        async with client(app) as sender:
            answers = [sender.post("/v1/stylize", **raw(PNG)) for _ in range(4)]
            await asyncio.gather(*answers)
            for _ in range(500):
                if calls:
                    break
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)

    asyncio.run(scene())
    assert calls == [1]
    give_back()  # The real one, wherever this runs.


def test_uploads_that_together_are_too_large_are_told_to_come_back(
    models: dict[str, Stylizer],
) -> None:
    app = create_app(models, Limits(max_held_bytes=len(PNG) - 1))
    answer = post(app, PNG)
    assert answer.status_code == 503 and "retry-after" in answer.headers
    assert "fast_style_upload_bytes 0.0" in ask(app, "GET", "/metrics").text


def test_what_takes_too_long_is_a_504_and_what_waited_for_it_is_never_begun(
    models: dict[str, Stylizer], gate: Gate
) -> None:
    app = create_app(models, Limits(max_working=1, work_seconds=0.3))

    async def scene() -> None:
        async with client(app) as sender:
            posts = [asyncio.create_task(sender.post("/v1/stylize", **raw(PNG))) for _ in range(2)]
            for answer in await asyncio.gather(*posts):
                assert answer.status_code == 504
                assert "not finished within 0.3 seconds" in refusal(answer)
            # Its thread cannot be stopped, and uses the upload.
            await until(sender, waiting=0, working=1, held=len(PNG))
            gate.open.set()
            await until(sender, waiting=0, working=0, held=0)
            assert (await sender.post("/v1/stylize", **raw(PNG))).status_code == 200
            assert gate.count == 2

    asyncio.run(scene())


def test_a_large_picture_that_nobody_waits_for_ends_at_its_next_tile(
    models: dict[str, Stylizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    stylize = models["candy"].stylize
    tiles = []

    def in_tiles(image: np.ndarray, *, before_tile: Any, **options: Any) -> np.ndarray:
        def slowly() -> None:
            tiles.append(1)
            time.sleep(0.05)
            before_tile()

        options["tile"] = 32
        return stylize(image, before_tile=slowly, **options)

    monkeypatch.setattr(models["candy"], "stylize", in_tiles)
    app = create_app(models, Limits(work_seconds=0.5))

    async def scene() -> None:
        async with app.router.lifespan_context(app), client(app) as sender:
            assert (await sender.post("/v1/stylize", **raw(JPEG))).status_code == 504
            await until(sender, waiting=0, working=0)

    asyncio.run(scene())
    assert 0 < len(tiles) < 50  # Of about a thousand.


def test_strokes_that_enlarge_a_picture_count_as_its_pixels(models: dict[str, Stylizer]) -> None:
    app = create_app(models, Limits(max_pixels=17 * 23))
    answer = post(app, PNG, stroke_scale="0.5")
    assert answer.status_code == 413
    assert refusal(answer) == (
        "image: with stroke_scale 0.5 it has 1,564 pixels for the net, and this server takes 391; "
        "set max_size"
    )
    assert post(app, PNG, stroke_scale="0.5", max_size="11").status_code == 200


def test_origins_are_as_browsers_send_them() -> None:
    assert all(map(is_origin, ("https://my.site", "http://127.0.0.1:81", "http://[::1]:81")))
    wrong = ("my.site", "https://My.site", "https://my.site/", "ftp://my.site", "*", "null", "")
    assert not any(map(is_origin, wrong))


@pytest.mark.parametrize("name", ["max_queue", "max_pixels", "upload_seconds"])
def test_limits_are_positive(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected a positive number, got 0"):
        Limits(**{name: 0})
