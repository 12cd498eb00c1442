"""A graph from a stranger reads nothing outside of its folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

import clever_hub
from clever_hub.errors import ModelFormatError

Exported = Callable[..., Path]


@pytest.mark.parametrize("place", ["../{}", "{parent}/{}", "sub/../../{}"])
def test_a_graph_cannot_lead_out_of_its_folder(
    place: str, exported: Exported, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(exported("test_resnet"), folder)
    (folder / "sub").mkdir()
    shutil.copy(folder / "model.safetensors", tmp_path / "secret")
    graph = onnx.load(folder / "model.onnx", load_external_data=False)
    entries = [entry for tensor in graph.graph.initializer for entry in tensor.external_data]
    for entry in (entry for entry in entries if entry.key == "location"):
        entry.value = place.format("secret", parent=tmp_path)
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(ModelFormatError, match=r"model\.onnx: ONNX Runtime .* cannot load it"):
        clever_hub.from_pretrained(folder, backend="onnx")
