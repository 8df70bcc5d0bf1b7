"""An OpenAPI description as one page of HTML that needs no script and nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

_EXAMPLES = (
    (
        "The picture itself",
        "curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' \\\n"
        "  'http://{host}/v1/stylize?strength=0.8' -o styled.jpg",
    ),
    (
        "A form",
        "curl -F image=@photo.jpg -F max_size=1024 http://{host}/v1/stylize -o styled.jpg",
    ),
    (
        "JSON in, JSON out",
        """echo "{{\\"image\\": \\"$(base64 -w0 photo.jpg)\\", \\"strength\\": 0.8}}" |\n"""
        "  curl -d @- -H 'Content-Type: application/json' -H 'Accept: application/json' \\\n"
        "  http://{host}/v1/stylize",
    ),
)


def docs_page(description: Mapping[str, Any], *, host: str) -> str:
    """Returns the page.

    Args:
      description: Of OpenAPI 3, without references to schemas in `requestBody`.
      host: Of the server, with its port, for the examples.
    """
    title = escape(description["info"]["title"])
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f'<title>{title}: API</title>\n<link rel="icon" href="data:,">',
        '<link rel="stylesheet" href="page.css">\n</head>\n<body>\n<main class="docs">',
        f"<h1>{title}: API</h1>",
        f'<p class="lead">{escape(description["info"].get("description", ""))} For programs: '
        '<a href="openapi.json">openapi.json</a>. To try it: <a href=".">the page</a>.</p>',
    ]
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            parts += _operation(method, path, operation)
    parts.append("<h2>Examples</h2>")
    for what, command in _EXAMPLES:
        text = escape(command.format(host=host), quote=False)
        parts.append(f'<h3>{what}</h3>\n<pre tabindex="0"><code>{text}</code></pre>')
    parts.append("</main>\n</body>\n</html>\n")
    return "\n".join(parts)


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterable[str]:
    yield f"<h2><code>{method.upper()} {escape(path)}</code></h2>"
    yield f"<p>{escape(operation.get('description', operation.get('summary', '')))}</p>"
    body = operation.get("requestBody")
    if body is not None:
        kinds = ", ".join(f"<code>{escape(kind)}</code>" for kind in body["content"])
        yield f"<p>Takes {kinds}. {escape(body.get('description', ''))}</p>"
        yield from _table(
            "Of a form or an object",
            ("Name", "Type", "Meaning"),
            (
                (
                    f"<code>{escape(name)}</code>",
                    _type(schema),
                    escape(schema.get("description", "")),
                )
                for name, schema in _properties(body)
            ),
        )
    yield from _table(
        "Answers",
        ("Status", "Meaning", "Type"),
        (
            (
                escape(status),
                escape(answer.get("description", "")),
                ", ".join(map(escape, answer.get("content", {}))),
            )
            for status, answer in sorted(operation.get("responses", {}).items())
        ),
    )


def _properties(body: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    for content in body["content"].values():
        properties = content["schema"].get("properties")
        if properties:
            return properties.items()
    return ()


def _type(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        text = ", ".join(map(str, schema["enum"]))
    else:
        text = "file" if schema.get("format") == "binary" else schema.get("type", "")
        if "minimum" in schema:
            most = schema.get("maximum")
            text += f", {schema['minimum']} {'or more' if most is None else f'to {most}'}"
    if "default" in schema:
        text += f"; {str(schema['default']).lower()} unless given"
    return escape(text)


def _table(caption: str, head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterable[str]:
    """Returns a table; its cells are HTML already."""
    cells = "".join(f'<th scope="col">{name}</th>' for name in head)
    yield '<div class="wide" tabindex="0" role="region" aria-label="' + caption + '">'
    yield f"<table>\n<caption>{caption}</caption>\n<tr>{cells}</tr>"
    for row in rows:
        yield "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>"
    yield "</table>\n</div>"
