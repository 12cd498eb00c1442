"""``from_pretrained``: its overloads spell every keyword, so that a type checker finds typos."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, get_overloads

import pytest

import clever_hub
from clever_hub.backends import onnx, torch
from clever_hub.errors import ConfigError
from clever_hub.pretrained import from_pretrained

if TYPE_CHECKING:
    # mypy reports an unused "ignore": each of these lines must be an error.
    clever_hub.from_pretrained("a", devcie="cpu")  # type: ignore[call-overload]
    clever_hub.from_pretrained("a", providers=[])  # type: ignore[call-overload]
    clever_hub.from_pretrained("a", backend="onnx", thread=2)  # type: ignore[call-overload]
    clever_hub.from_pretrained("a", backend="onnx", device=1)  # type: ignore[call-overload]
    # And these must not.
    clever_hub.from_pretrained("a", device="cpu", dtype="bfloat16", token=False)
    clever_hub.from_pretrained("a", backend="onnx", threads=2, providers=["CPUExecutionProvider"])


def _keywords(function: object) -> dict[str, inspect._ParameterKind]:
    parameters = inspect.signature(function).parameters  # type: ignore[arg-type]
    return {name: parameter.kind for name, parameter in parameters.items()}


def test_overloads_spell_what_the_function_and_its_backends_take() -> None:
    common = set(_keywords(from_pretrained)) - {"backend_options"}
    for overloaded in get_overloads(from_pretrained):
        assert inspect.Parameter.VAR_KEYWORD not in _keywords(overloaded).values()
    found = [set(_keywords(overloaded)) for overloaded in get_overloads(from_pretrained)]
    own = {"folder", "source", "device", "dtype", "options"}
    extra = [set(_keywords(backend.load)) - own for backend in (torch, onnx)]
    assert found == [common | extra[0], common | extra[1], common | (extra[0] & extra[1])]
    assert extra[1] == {"providers", "threads", "tensorrt", "precision", "calibration"}


def test_a_misspelt_keyword_is_refused_when_it_runs(model_folder: Path) -> None:
    with pytest.raises(ConfigError, match="devcie"):
        from_pretrained(model_folder, devcie="cpu")  # type: ignore[call-overload]
