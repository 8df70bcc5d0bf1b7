"""What a request asks for: its picture's bytes and its parameters, however they were sent."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from fast_style.checks import closest, show
from fast_style.jobs import FORMATS
from fast_style.serving_limits import MULTIPART_ROOM, Limits, RequestError, size_text
from fast_style.stylize_options import StylizeOptions

PARAMETERS = (
    *("model", "style", "style_weights", "strength", "preserve_color", "stroke_scale"),
    *("grain", "max_size", "format"),
)
"""Names of the parameters, in a query, a form or an object of JSON."""

RAW_TYPES = ("image/", "application/octet-stream")
_MULTIPART = "multipart/form-data"
_JSON = "application/json"
_PICTURE = "image"
_LONGEST_VALUE = 10_000
_LONGEST_NUMBER = 60
_FLAGS = {"true": True, "1": True, "on": True, "false": False, "0": False, "off": False}
_IMAGE_IN_JSON = re.compile(rb'"image"\s*:\s*"([^"]*)')  # Base64 holds no quotes, not even escaped.
_DATA_URL = re.compile(rb"\Adata:[\w.+/-]*;base64,")
_WAYS = "send multipart/form-data, application/json or the picture itself (image/...)"


@dataclass(frozen=True)
class Order:
    """A request that was understood.

    Attributes:
      picture: The file's bytes.
      model: Its name; none is the first.
      style: Its name; none is the model's first.
      form: A key of `FORMATS`; none is that of the picture.
      options: How to stylize.
    """

    picture: bytes
    model: str | None
    style: str | None
    form: str | None
    options: StylizeOptions


def check_declared(content_type: str, length: str | None, limits: Limits) -> None:
    """Refuses by its header what need not be read.

    Args:
      content_type: Of the request; may be empty.
      length: Its Content-Length, if there is one.
      limits: The server's.

    Raises:
      RequestError: 413 or 415.
    """
    kind = _kind(content_type)
    if kind not in (_MULTIPART, _JSON) and not kind.startswith(RAW_TYPES):
        received = f"'{kind[:60]}'" if kind else "no Content-Type"
        raise RequestError(415, f"Content-Type: got {received}; {_WAYS}")
    if length is not None and length.isdecimal() and len(length) < 20:
        check_length(int(length), content_type, limits)


def check_length(length: int, content_type: str, limits: Limits) -> None:
    """Refuses a body of more bytes than its kind may have.

    Raises:
      RequestError: 413.
    """
    kind = _kind(content_type)
    allowed = limits.max_upload_bytes
    if kind == _JSON:
        allowed = limits.max_body_bytes
    elif kind == _MULTIPART:
        allowed += MULTIPART_ROOM
    if length > allowed:
        raise _too_large(length, limits)


async def read_body(
    chunks: AsyncIterator[bytes], content_type: str, limits: Limits, hold: Callable[[int], None]
) -> bytes:
    """Reads a request's body.

    Args:
      chunks: It, in parts.
      content_type: Its kind, which decides its length.
      limits: The server's.
      hold: Called with the length of each part before it is kept.

    Raises:
      RequestError: 413, or what `hold` raises.
    """
    body = bytearray()
    async for chunk in chunks:
        check_length(len(body) + len(chunk), content_type, limits)
        hold(len(chunk))
        body += chunk
    return bytes(body)


def parse_order(
    body: bytes, content_type: str, query: Iterable[tuple[str, str]], limits: Limits
) -> Order:
    """Understands a request.

    Args:
      body: All of it.
      content_type: Its header.
      query: Parameters of the address; those of a form or an object count besides.
      limits: The server's.

    Raises:
      RequestError: 400, 413, 415 or 422.
    """
    kind = _kind(content_type)
    given: dict[str, Any] = {}
    _add(given, query)
    if kind == _MULTIPART:
        picture, rest = _from_form(body, content_type)
    elif kind == _JSON:
        picture, rest = _from_json(body)
    else:
        picture, rest = body, []
    _add(given, rest)
    if not picture:
        raise RequestError(400, "image: there is no picture in this request; " + _WAYS)
    if len(picture) > limits.max_upload_bytes:
        raise _too_large(len(picture), limits)
    return _order(picture, given)


def _kind(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _too_large(length: int, limits: Limits) -> RequestError:
    return RequestError(
        413,
        f"image: expected at most {size_text(limits.max_upload_bytes)}, "
        f"got {size_text(length)} or more; send a smaller file",
    )


def _add(given: dict[str, Any], more: Iterable[tuple[str, Any]]) -> None:
    for name, value in more:
        _check_known(name)
        if name in given:
            raise _given_twice(name)
        if isinstance(value, str) and len(value) > _LONGEST_VALUE:
            raise RequestError(
                422,
                f"{name}: expected at most {_LONGEST_VALUE:,} characters, got {len(value):,}; "
                "send a shorter value",
            )
        if value is not None and value != "":  # A field of a form that was left empty.
            given[name] = value


def _check_known(name: str) -> None:
    if name not in PARAMETERS:
        hint = closest(name, PARAMETERS)
        advice = f"did you mean '{hint}'?" if hint else f"known are {', '.join(PARAMETERS)}"
        raise RequestError(422, f"{show(name)}: unknown parameter; {advice}")


def _given_twice(name: str) -> RequestError:
    return RequestError(422, f"{name}: given twice; keep one")


def _from_json(body: bytes) -> tuple[bytes, list[tuple[str, Any]]]:
    """Takes an object apart.

    Python needs up to a hundred times the memory of many small values. So the picture is cut out
    first, and what is left must be as short as parameters are.
    """
    found = _IMAGE_IN_JSON.search(body)
    start, end = found.span(1) if found else (0, 0)
    rest = body[:start] + body[end:]
    if len(rest) > MULTIPART_ROOM:
        raise RequestError(
            413,
            f"body: expected at most {size_text(MULTIPART_ROOM)} beside the text of the image, "
            f"got {size_text(len(rest))}; send parameters alone",
        )
    content = _loaded(rest)
    if not isinstance(content, Mapping):
        raise RequestError(422, f"body: expected an object of JSON, got {show(content)}")
    content = dict(content)
    text = content.pop(_PICTURE, "")
    if not isinstance(text, str):
        raise RequestError(422, f"image: expected a picture file in base64, got {show(text)}")
    picture = _from_base64(text.encode("utf-8", "replace") or body[start:end])
    return picture, list(content.items())


def _loaded(data: bytes) -> Any:
    try:
        return json.loads(data, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, "body: this is not valid JSON; send an object") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Makes an object of JSON; Python's own keeps the last of two equal keys."""
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise RequestError(422, f"{show(name)}: given twice; keep one")
        result[name] = value
    return result


def _from_base64(text: bytes) -> bytes:
    """Reads base64 as it stands in JSON, with escapes and line breaks."""
    if b"\\" in text:  # Some libraries write '\/' for '/', or '\u002b' for '+'.
        text = _loaded(b'"' + text + b'"').encode("utf-8", "replace")
    text = _DATA_URL.sub(b"", text, count=1)  # Browsers hand out files as data URLs.
    try:
        return base64.b64decode(text.translate(None, b" \t\r\n"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(400, "image: this is not valid base64; encode the file anew") from error


def _from_form(body: bytes, content_type: str) -> tuple[bytes, list[tuple[str, str]]]:
    """Takes a form apart in memory; the usual parsers write pictures to temporary files."""
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    parts: dict[str, bytearray] = {}
    headers: dict[bytes, bytes] = {}
    name, value = bytearray(), bytearray()
    done = False

    def end_header() -> None:
        headers[bytes(name).lower()] = bytes(value)
        name.clear()
        value.clear()

    def end_headers() -> None:
        described = parse_options_header(headers.pop(b"content-disposition", b""))[1]
        headers.clear()
        part = described.get(b"name", b"").decode("utf-8", "replace")
        # Now, not when all is read: a large form has room for a million parts.
        if part != _PICTURE:
            _check_known(part)
        if part in parts:
            raise _given_twice(part)
        parts[part] = bytearray()

    def part_data(data: bytes, start: int, stop: int) -> None:
        next(reversed(parts.values())).extend(data[start:stop])

    def end() -> None:
        nonlocal done
        done = True

    try:
        if boundary is None:
            raise FormParserError("no boundary")
        parser = MultipartParser(
            boundary,
            {
                "on_header_field": lambda data, start, stop: name.extend(data[start:stop]),
                "on_header_value": lambda data, start, stop: value.extend(data[start:stop]),
                "on_header_end": end_header,
                "on_headers_finished": end_headers,
                "on_part_data": part_data,
                "on_end": end,
            },
        )
        parser.write(body)
        parser.finalize()
        if not done:
            raise FormParserError("no end")
    except FormParserError as error:
        raise RequestError(
            400, "body: this form is damaged or cut short; send it again as multipart/form-data"
        ) from error
    picture = bytes(parts.pop(_PICTURE, b""))
    return picture, [(part, data.decode("utf-8", "replace")) for part, data in parts.items()]


def _order(picture: bytes, given: Mapping[str, Any]) -> Order:
    form = _word(given, "format")
    if form is not None:
        form = {"jpeg": "jpg", "tif": "tiff"}.get(form, form)
        if form not in FORMATS:
            raise RequestError(
                422, f"format: expected one of {', '.join(FORMATS)}, got {show(form)}"
            )
    style = _word(given, "style")
    weights = _weights(given)
    if style is not None and weights is not None:
        raise RequestError(422, "style: given beside style_weights; keep one of them")
    strength = _number(given, "strength", float, 1.0)
    stroke_scale = _number(given, "stroke_scale", float, 1.0)
    grain = _number(given, "grain", float, 0.0)
    max_size = _number(given, "max_size", int, None)
    try:
        options = StylizeOptions(
            style_weights=weights,
            strength=strength,
            preserve_color=_flag(given, "preserve_color"),
            stroke_scale=stroke_scale,
            grain=grain,
            max_size=max_size,
        )
    except ValueError as error:
        raise RequestError(422, str(error)) from error
    return Order(picture, _word(given, "model"), style, form, options)


def _word(given: Mapping[str, Any], name: str) -> str | None:
    value = given.get(name)
    if value is not None and not isinstance(value, str):
        raise RequestError(422, f"{name}: expected a name, got {show(value)}")
    return value


def _number(given: Mapping[str, Any], name: str, kind: type, default: Any) -> Any:
    """Reads a number; its range is left to `StylizeOptions`."""
    value = given.get(name, default)
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return _read(value, kind)
    elif value is None or isinstance(value, float):
        return value
    elif isinstance(value, int) and not isinstance(value, bool) and value.bit_length() <= 64:
        return value
    words = "a number" if kind is float else "a whole number of at least 1"
    raise RequestError(422, f"{name}: expected {words}, got {show(value)}")


def _read(text: str, kind: type) -> Any:
    """Reads a number; Python's own way takes '1_0' and the digits of other scripts too."""
    text = text.strip()
    if len(text) > _LONGEST_NUMBER or not text.isascii() or "_" in text:
        raise ValueError
    return kind(text)


def _weights(given: Mapping[str, Any]) -> list[float] | None:
    """Reads '0.7,0.3' or a list of JSON; that they fit the model is checked by whoever has it."""
    value = given.get("style_weights")
    if value is None:
        return None
    parts = value.split(",") if isinstance(value, str) else value
    try:
        if not isinstance(parts, list) or any(isinstance(part, bool) for part in parts):
            raise TypeError
        return [_read(part, float) if isinstance(part, str) else float(part) for part in parts]
    except (TypeError, ValueError, OverflowError) as error:
        raise RequestError(
            422,
            "style_weights: expected numbers with commas between, such as 0.7,0.3, "
            f"got {show(value)}",
        ) from error


def _flag(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name, False)
    if isinstance(value, str):
        value = _FLAGS.get(value.lower(), value)
    if not isinstance(value, bool):
        raise RequestError(422, f"{name}: expected true or false, got {show(value)}")
    return value
