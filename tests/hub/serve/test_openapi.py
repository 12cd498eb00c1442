"""The description at ``/openapi.json`` says what the server does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import clever_hub
from tests.hub.serve.conftest import NAME, Open


def _schemas(client: TestClient, path: str) -> tuple[Any, Any]:
    """What a route takes and what it gives, of a request in JSON."""
    (route,) = client.get("/openapi.json").json()["paths"][path].values()
    asked = route.get("requestBody", {}).get("content", {}).get("application/json", {})
    return asked.get("schema"), route["responses"]["200"]["content"]["application/json"]["schema"]


@pytest.mark.parametrize(
    ("path", "options", "most"),
    [
        ("/v1/embeddings", {"max_inputs": 20}, 20),
        ("/v1/relate", {"max_inputs": 20}, 2),
        ("/v1/orient", {"max_inputs": 20}, 20),
        ("/v1/orient", {"max_queue": 20, "max_inputs": 20}, 5),
        ("/v1/orient", {"max_queue": 2, "max_inputs": 2}, 1),
    ],
)
def test_the_most_inputs_are_named(
    opened: Open, path: str, options: dict[str, int], most: int
) -> None:
    asked, _ = _schemas(opened(**options), path)
    assert asked["properties"]["input"]["oneOf"][0]["maxItems"] == most


def _pairs(answer: Any, schema: Any) -> Iterator[tuple[dict[str, Any], Any]]:
    """Every object of an answer with its schema."""
    if schema.get("type") == "array":
        for entry in answer:
            yield from _pairs(entry, schema["items"])
    elif "properties" in schema:
        yield answer, schema
        for name, value in answer.items():
            yield from _pairs(value, schema["properties"].get(name, {}))


_TYPES: dict[str, tuple[type, ...]] = {
    "array": (list,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "object": (dict,),
    "string": (str,),
    "null": (type(None),),
}


def _fits(value: object, schema: dict[str, Any]) -> bool:
    """Whether a value has the type, or is one of the values, that its schema names."""
    if "const" in schema:
        return bool(value == schema["const"])
    if "enum" in schema:
        return value in schema["enum"]
    if "oneOf" in schema:
        return any(_fits(value, one) for one in schema["oneOf"])
    kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    return any(type(value) in _TYPES[kind] for kind in kinds)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/relate", "/v1/orient", "/v1/models"])
def test_all_that_an_answer_has_is_described(
    opened: Open, headed: Path, photos: dict[str, Path], path: str
) -> None:
    model = clever_hub.from_pretrained(headed, backend="onnx", threads=1)
    client = opened({NAME: model})
    asked, given = _schemas(client, path)
    files = [("input", photos["rocket"].read_bytes())] * 2
    answer = client.post(path, files=files) if asked else client.get(path)
    assert answer.status_code == 200, answer.text
    found = list(_pairs(answer.json(), given))
    expected = {"/v1/relate": 1, "/v1/models": 4}.get(path, 3)  # the model and its two parts
    assert len(found) == expected
    for entry, schema in found:
        assert entry.keys() <= schema["properties"].keys()
        assert set(schema["required"]) <= entry.keys()
        for name, value in entry.items():
            assert _fits(value, schema["properties"][name]), (name, value)
