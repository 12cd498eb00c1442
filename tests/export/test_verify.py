"""``verify`` is green on a sound folder and names the reader that differs on another."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from clever_export import verify as module
from clever_export.verify import verify
from clever_hub.cli.app import app
from clever_hub.errors import DataError
from clever_hub.weights import sha256_of

Exported = Callable[..., Path]


@pytest.fixture(scope="module")
def complete(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder made by the command."""
    out = tmp_path_factory.mktemp("export") / "model"
    result = CliRunner().invoke(app, ["export", str(exported("test_resnet")), "--out", str(out)])
    assert result.exit_code == 0, result.output
    return out


def test_all_readers_agree_on_real_photos(complete: Path, photos: dict[str, Path]) -> None:
    arguments = ["verify", str(complete), *map(str, photos.values())]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    report = json.loads((complete / "verify.json").read_text())
    assert report["green"]
    assert report["images"] == len(photos) + 3
    assert {entry["reader"] for entry in report["readers"]} == {
        *("clever_hub torch", "clever_hub onnx", "onnxruntime", "timm", "transformers")
    }
    for entry in report["readers"]:
        assert max(entry["max_abs"].values()) < 1e-4
        assert min(entry["min_cosine"].values()) > 0.9999


def test_a_reader_that_differs_turns_it_red(
    complete: Path, photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    readers = module.readers

    def one_is_off(folder: Path) -> dict[str, module.Reader]:
        sound = readers(folder)["clever_hub torch"]

        def off(paths: list[Path], size: int) -> module.Vectors:
            vectors = sound(paths, size)
            vectors[0, -1] += np.float32(1e-3)
            return vectors

        return {"sound": sound, "off": off}

    monkeypatch.setattr(module, "readers", one_is_off)
    agreements = verify(complete, photos.values())
    assert {a.reader: a.green for a in agreements} == {"sound": True, "off": False}
    assert not json.loads((complete / "verify.json").read_text())["green"]
    result = CliRunner().invoke(app, ["verify", str(complete), str(photos["chelsea"])])
    assert result.exit_code == 1
    assert "should not be published" in result.output


def test_without_photos_pictures_are_drawn_and_the_report_goes_where_it_is_wanted(
    complete: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    result = CliRunner().invoke(app, ["verify", str(complete), "--report", str(report)])
    assert result.exit_code == 0, result.output
    content = json.loads(report.read_text())
    assert (content["green"], content["images"]) == (True, 4 + 3)
    assert content["weights_sha256"] == sha256_of(complete / "model.safetensors")
    assert content["graph_sha256"] == sha256_of(complete / "model.onnx")


def test_a_report_that_cannot_be_written_names_another_way(complete: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="--report"):
        verify(complete, report=tmp_path / "file" / "report.json")


def test_what_is_not_a_number_is_never_green() -> None:
    for bad in ({"invariant": 0.0, "equivariant": float("nan")}, {"invariant": float("nan")}):
        assert not module.Agreement("x", 1, bad, bad).green
        assert not module.Agreement("x", 1, bad, bad, exact=False).green
    fine = {"invariant": 0.0, "equivariant": 1e-4}
    assert module.Agreement("x", 1, fine, fine).green


def test_export_never_writes_over_a_folder(complete: Path) -> None:
    result = CliRunner().invoke(app, ["export", str(complete), "--out", str(complete)])
    assert result.exit_code == 1
    assert "is there already" in " ".join(result.output.split())
