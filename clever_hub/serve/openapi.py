"""The OpenAPI description at ``/openapi.json``."""

from __future__ import annotations

from typing import Any

import clever_hub
from clever_hub.jobs.relation import COLORS
from clever_hub.serve.relations import most_to_orient
from clever_hub.serve.service import Service

_ERROR = {"$ref": "#/components/schemas/Error"}
_ERRORS = {
    "400": "A field is missing, unknown or wrong, or an image cannot be read.",
    "401": "The key is missing or wrong.",
    "404": "There is no such model.",
    "408": "The body did not arrive in time.",
    "413": "The body or an image is too large.",
    "415": "The body is neither JSON nor multipart.",
    "500": "The server failed.",
    "503": "The server is full; Retry-After says when to come back.",
}
_NUMBER, _TEXT, _TRUTH = {"type": "number"}, {"type": "string"}, {"type": "boolean"}
_WHOLE, _UNKNOWN = {"type": "integer"}, {"type": ["number", "null"]}


def description(service: Service) -> dict[str, Any]:
    """Describe a server.

    Args:
        service: The server; its models and limits are named.

    Returns:
        An OpenAPI 3.1 document.
    """
    secured = service.settings.api_key is not None
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "clever-hub serve",
            "version": clever_hub.__version__,
            "description": "Images in, an invariant and an equivariant embedding out.",
        },
        "paths": {
            "/v1/embeddings": _post(
                "Embed images.",
                _embeddings_fields(service),
                _embeddings_answer(),
            ),
            "/v1/relate": _post(
                "How the second of two photos was made from the first; for models with heads.",
                _relate_fields(service),
                _relation(),
            ),
            "/v1/orient": _post(
                "By how much photos are turned; for models with heads.",
                _fields(service, most_to_orient(service.settings)),
                _orientations(),
            ),
            "/v1/models": {"get": _get("The models.", _list_of(_model()))},
            "/v1/models/{name}": {
                "get": {
                    **_get("A model.", _model()),
                    "parameters": [
                        {"name": "name", "in": "path", "required": True, "schema": _TEXT}
                    ],
                }
            },
            "/healthz": {"get": _open("The process runs.")},
            "/readyz": {"get": _open("Every model has answered within the last second.")},
            "/metrics": {"get": _text("Figures for Prometheus.")},
            "/openapi.json": {"get": _get("This description.", {"type": "object"})},
        },
        "components": {
            "schemas": {"Error": _error()},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}] if secured else [],
    }


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    properties = required | (optional or {})
    return {"type": "object", "required": list(required), "properties": properties}


def _list_of(entry: dict[str, Any]) -> dict[str, Any]:
    return _object({"object": {"const": "list"}, "data": {"type": "array", "items": entry}})


def _picture() -> dict[str, Any]:
    text = {
        "type": "string",
        "description": "Base64 of an image file, a data URI, or, where allowed, an address.",
    }
    return {"oneOf": [text, _object({"image": text})]}


def _model_field(service: Service) -> dict[str, Any]:
    names = [name for served in service.served.values() for name in served.parts()]
    return {
        "type": ["string", "null"],
        "enum": [*names, None],
        "description": "NAME is the whole embedding, NAME:invariant and NAME:equivariant its "
        "parts. May be left out where one model is served.",
    }


def _relate_fields(service: Service) -> dict[str, Any]:
    fields = _fields(service, 2)
    fields["properties"]["pixels"] = {
        "type": ["boolean", "null"],
        "description": "Whether to lay the second image onto the first by keypoints, which is "
        "nearly exact where they match. Left out, it does where the server has OpenCV.",
    }
    return fields


def _fields(service: Service, most: int) -> dict[str, Any]:
    several = {"type": "array", "items": _picture(), "minItems": 1, "maxItems": most}
    fields = {"model": _model_field(service), "user": {"type": ["string", "null"]}}
    return _object({"input": {"oneOf": [several, _picture()]}}, fields)


def _embeddings_fields(service: Service) -> dict[str, Any]:
    fields = _fields(service, service.settings.max_inputs)
    fields["properties"] |= {
        "encoding_format": {"enum": ["float", "base64", None], "default": "float"},
        "dimensions": {
            "type": ["integer", "null"],
            "minimum": 1,
            "description": "Only the first entries. The models are not trained for it.",
        },
        "normalize": {
            "type": ["boolean", "null"],
            "default": False,
            "description": "Unit vectors.",
        },
        "modality": {"enum": ["image", None]},
    }
    return fields


def _embeddings_answer() -> dict[str, Any]:
    vector = {"oneOf": [{"type": "array", "items": _NUMBER}, _TEXT]}
    entry = _object({"object": _TEXT, "index": _WHOLE, "embedding": vector})
    answer = _list_of(entry)
    answer["properties"] |= {"model": _TEXT, "usage": {"type": "object"}}
    return answer


def _relation() -> dict[str, Any]:
    """The fields of ``clever_hub.Relation.to_dict``."""
    unknown = "Null is unknown."
    names = (
        *("same", "angle", "mirrored_probability", "zoom", "shift_x", "shift_y", "stretch"),
        *COLORS,
    )
    fields: dict[str, Any] = {name: {**_UNKNOWN, "description": unknown} for name in names}
    fields["angle"]["description"] = "Degrees counter-clockwise from the first to the second."
    fields["same"]["description"] = "Probability that both show the same photo."
    error = "Two thirds of such values are wrong by less. Null is unknown."
    for name in ("angle", "zoom", "shift", *COLORS):
        fields[f"{name}_error"] = {**_UNKNOWN, "description": error}
    for name in ("mirrored", "recolored"):
        fields[name] = {"type": ["boolean", "null"], "description": unknown}
    fields["by"] = {"enum": ["model", "pixels"], "description": "What all but `same` comes from."}
    return _object({"object": {"const": "relation"}, "model": _TEXT, **fields})


def _orientations() -> dict[str, Any]:
    entry = _object(
        {
            "object": {"const": "orientation"},
            "index": _WHOLE,
            "angle": {**_NUMBER, "description": "Degrees counter-clockwise from upright."},
            "quarter": {"enum": [0, 90, 180, 270]},
            "confidence": {**_NUMBER, "description": "Probability of the quarter turn."},
        }
    )
    answer = _list_of(entry)
    answer["properties"] |= {"model": _TEXT}
    return answer


def _model() -> dict[str, Any]:
    return _object(
        {
            "id": _TEXT,
            "object": {"const": "model"},
            "created": _WHOLE,
            "owned_by": _TEXT,
            "part": {"enum": ["full", "invariant", "equivariant"]},
            "dimensions": _WHOLE,
            "image_size": _WHOLE,
            "mean": {
                "type": "array",
                "items": _WHOLE,
                "description": "The mean colour: red, green, blue, from 0 to 255.",
            },
            "backbone": _TEXT,
            "data": _TEXT,
            "license": _TEXT,
            "weights_sha256": {"type": ["string", "null"]},
            "heads": _TRUTH,
            "max_inputs": {**_WHOLE, "description": "Images that one request may have."},
        }
    )


def _error() -> dict[str, Any]:
    text = {"type": ["string", "null"]}
    return _object(
        {"error": _object({"message": _TEXT, "type": _TEXT, "param": text, "code": text})}
    )


def _content(schema: dict[str, Any], kind: str = "application/json") -> dict[str, Any]:
    return {kind: {"schema": schema}}


def _answers(schema: dict[str, Any], errors: tuple[str, ...]) -> dict[str, Any]:
    good = {"200": {"description": "The answer.", "content": _content(schema)}}
    bad = {code: {"description": _ERRORS[code], "content": _content(_ERROR)} for code in errors}
    return good | bad


def _post(summary: str, fields: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    files = {**fields, "properties": dict(fields["properties"])}
    file = {"type": "string", "contentMediaType": "image/*"}
    files["properties"]["input"] = {"type": "array", "items": file}
    content = _content(fields) | _content(files, "multipart/form-data")
    return {
        "post": {
            "summary": summary,
            "requestBody": {"required": True, "content": content},
            "responses": _answers(answer, tuple(_ERRORS)),
        }
    }


def _get(summary: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"summary": summary, "responses": _answers(schema, ("401",))}


def _open(summary: str) -> dict[str, Any]:
    answers = _answers(_object({"status": _TEXT}), ("503",))
    return {"summary": summary, "responses": answers, "security": []}


def _text(summary: str) -> dict[str, Any]:
    good = {"200": {"description": "The answer.", "content": _content(_TEXT, "text/plain")}}
    return {"summary": summary, "responses": good}
