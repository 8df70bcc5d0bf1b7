"""How /docs describes a request for a styled picture, which is taken apart by hand."""

from __future__ import annotations

from typing import Any

from fast_style.jobs import FORMATS
from fast_style.stylize_options import MAX_STYLE_WEIGHT, MOST_GRAIN, STROKE_SCALES

_FIELDS: dict[str, dict[str, Any]] = {
    "model": {"type": "string", "description": "A name of /v1/models; the first is the default."},
    "style": {"type": "string", "description": "One of the model's styles, else its first."},
    "style_weights": {
        "type": "string",
        "description": "Instead of style: a mix, one number per style of the model, from "
        f"{-MAX_STYLE_WEIGHT} to {MAX_STYLE_WEIGHT}, such as 0.7,0.3. In JSON it may be a list.",
    },
    "strength": {
        "type": "number",
        "minimum": 0,
        "maximum": 1,
        "default": 1,
        "description": "0 is the photo, 1 the full style.",
    },
    "preserve_color": {
        "type": "boolean",
        "default": False,
        "description": "Keep the photo's colours and take only brightness from the style.",
    },
    "stroke_scale": {
        "type": "number",
        "minimum": STROKE_SCALES[0],
        "maximum": STROKE_SCALES[1],
        "default": 1,
        "description": "Larger or smaller strokes.",
    },
    "grain": {
        "type": "number",
        "minimum": 0,
        "maximum": MOST_GRAIN,
        "default": 0,
        "description": "Levels of noise on what the net sees, so that flat parts get strokes too.",
    },
    "max_size": {
        "type": "integer",
        "minimum": 1,
        "description": "Long side of the result at most, in pixels.",
    },
    "format": {
        "type": "string",
        "enum": list(FORMATS),
        "description": "Of the result; else that of the picture.",
    },
}
_BINARY = {"type": "string", "format": "binary"}
_BASE64 = {"type": "string", "format": "byte", "description": "The file in base64."}


def _with_image(image: dict[str, Any]) -> dict[str, Any]:
    return {
        "schema": {
            "type": "object",
            "required": ["image"],
            "properties": {"image": image, **_FIELDS},
        }
    }


def _error(description: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"error": {"type": "string"}}}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


STYLIZE_OPENAPI: dict[str, Any] = {
    "parameters": [
        {
            "in": "query",
            "name": name,
            "required": False,
            "description": schema["description"],
            "schema": {key: value for key, value in schema.items() if key != "description"},
        }
        for name, schema in _FIELDS.items()
    ],
    "requestBody": {
        "required": True,
        "description": "Parameters may stand in the query too, but each only once.",
        "content": {
            "multipart/form-data": _with_image(_BINARY),
            "application/json": _with_image(_BASE64),
            "image/*": {"schema": _BINARY},
        },
    },
    "responses": {
        "200": {
            "description": "The styled picture; with `Accept: application/json`, in base64.",
            "content": {
                "image/*": {"schema": _BINARY},
                "application/json": {
                    "schema": {
                        "type": "object",
                        "properties": {
                            "image": _BASE64,
                            "format": _FIELDS["format"],
                            "model": {"type": "string"},
                        },
                    }
                },
            },
        },
        "400": _error("The picture or the request is damaged."),
        "404": _error("There is no such model."),
        "408": _error("The upload took too long."),
        "413": _error("The file is too large, or has too many pixels."),
        "415": _error("This is not a picture, or not a type of request that is taken."),
        "422": _error("A parameter is unknown or out of range."),
        "503": _error("The queue is full; Retry-After says when to try again."),
        "504": _error("The picture took too long."),
    },
}
"""What FastAPI cannot see in the handler's arguments."""
