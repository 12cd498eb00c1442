"""What is damaged is not exported, and the message names the user's folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clever_hub.cli.app import app

Exported = Callable[..., Path]


@pytest.fixture
def folder(exported: Exported, tmp_path: Path) -> Path:
    """A model with its graph, to be damaged."""
    return Path(shutil.copytree(exported("test_resnet"), tmp_path / "model"))


def refused(folder: Path, *options: str) -> str:
    """What export says when it refuses and leaves nothing behind."""
    there = set(folder.parent.iterdir())
    result = CliRunner().invoke(app, ["export", str(folder), *options])
    assert result.exit_code == 1, result.output
    assert set(folder.parent.iterdir()) == there
    return result.output.replace("\n", "")


@pytest.mark.parametrize("kind", [["-o"], ["--precision", "fp16", "-o"], ["--triton"]])
def test_weights_that_have_changed_since_the_graph_are_refused(
    kind: list[str], folder: Path, tmp_path: Path
) -> None:
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    (tmp_path / "there").mkdir()
    message = refused(folder, *kind, str(tmp_path / "there" / "out"))
    assert f"{weights}: changed since model.onnx beside it was made" in message
    assert not (tmp_path / "there" / "out" / "clever-test-resnet").exists()
    (folder / "model.onnx").unlink()  # as the message says, if these weights are meant
    command = ["export", str(folder), *kind, str(tmp_path / "again")]
    assert CliRunner().invoke(app, command).exit_code == 0


def test_truncated_weights_are_named_where_they_are(folder: Path, tmp_path: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    message = refused(folder, "-o", str(tmp_path / "out"))
    assert f"{weights}: expected" in message
    assert ".tmp" not in message


def test_figures_of_other_weights_are_named_where_they_are(folder: Path, tmp_path: Path) -> None:
    model = {"weights_sha256": "0" * 64}
    content = {"schema_version": 1, "model": model, "figures": {}, "protocols": {}}
    (folder / "evaluation.json").write_text(json.dumps(content))
    message = refused(folder, "-o", str(tmp_path / "out"))
    assert f"{folder / 'evaluation.json'}: figures of other weights" in message
    assert ".tmp" not in message
