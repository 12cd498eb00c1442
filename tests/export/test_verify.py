"""``verify`` is green on a sound folder and names the reader that differs on another."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from clever_export import verify as module
from clever_export.verify import verify
from clever_hub.cli.app import app
from clever_hub.errors import DataError
from clever_hub.hub import shipped as zoo
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


def test_a_reader_that_raises_is_reported_and_the_others_are_compared(
    complete: Path,
    photos: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> module.Vectors:
        raise IndexError("index 7 is out of bounds [1]")

    opened = module.readers(complete)
    sound = opened["clever_hub torch"]
    found = {"sound": sound, "broken": broken, "last": sound}
    monkeypatch.setattr(module, "readers", lambda _: found)
    report = tmp_path / "report.json"
    arguments = ["verify", str(complete), str(photos["chelsea"]), "-o", str(report)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    words = "broken fails: IndexError: index 7 is out of bounds [1]"
    assert words in result.output
    assert "broken cannot read it: this folder should not be published" in result.output
    content = json.loads(report.read_text())
    assert not content["green"]
    for entry in content["readers"]:
        assert bool(entry["max_abs"]) == (entry["reader"] != "broken")
        assert ("error" in entry) == (entry["reader"] == "broken")
    found = {"broken": broken, "sound": sound}
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "broken cannot compute embeddings: IndexError" in result.output


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("preprocessor_config.json", "transformers cannot read the folder"),
        ("model.safetensors", "The file is corrupt or incomplete"),
    ],
)
def test_a_file_that_was_cut_is_named(
    name: str, words: str, complete: Path, photos: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(complete, tmp_path / "cut"))
    (folder / name).write_bytes((folder / name).read_bytes()[:20])
    result = CliRunner().invoke(app, ["verify", str(folder), str(photos["chelsea"])])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), "no traceback"
    assert words in " ".join(result.output.split())
    assert name in result.output


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
    with pytest.raises(DataError, match="--output"):
        verify(complete, report=tmp_path / "file" / "report.json")


def test_what_is_not_a_number_is_never_green() -> None:
    for bad in ({"invariant": 0.0, "equivariant": float("nan")}, {"invariant": float("nan")}):
        assert not module.Agreement("x", 1, bad, bad).green
        assert not module.Agreement("x", 1, bad, bad, exact=False).green
    fine = {"invariant": 0.0, "equivariant": 1e-4}
    assert module.Agreement("x", 1, fine, fine).green


def test_without_torch_the_other_readers_are_compared(
    complete: Path, photos: dict[str, Path], without_torch: Path, tmp_path: Path
) -> None:
    program = without_torch / "clever-hub"
    report = tmp_path / "report.json"
    command = [program, "verify", complete, photos["chelsea"], "--report", report]
    result = subprocess.run(list(map(str, command)), check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "difference from clever_hub onnx" in result.stdout
    assert "Not compared: timm (torch, timm not installed)" in result.stdout
    readers = {entry["reader"] for entry in json.loads(report.read_text())["readers"]}
    assert readers == {"clever_hub onnx", "onnxruntime"}


def test_readers_that_a_folder_has_no_files_for_are_named(
    complete: Path, photos: dict[str, Path], tmp_path: Path
) -> None:
    """A folder fresh from training has one kind of reader; that they agree says little."""
    for name in ("config.json", "model.safetensors"):
        shutil.copy(complete / name, tmp_path)
    result = CliRunner().invoke(app, ["verify", str(tmp_path), str(photos["chelsea"])])
    assert result.exit_code == 0, result.output
    for line in (
        "Not compared: clever_hub onnx (no model.onnx in the folder)",
        "Not compared: transformers (no preprocessor_config.json in the folder)",
        f"Wrote {tmp_path / 'verify.json'}",
    ):
        assert line in result.output


def test_the_report_on_a_shipped_model_is_not_written_into_the_package(
    photos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = zoo.ZOO / "clever-resnet18"
    before = sorted(path.name for path in shipped.iterdir())
    result = CliRunner().invoke(app, ["verify", "clever-resnet18", str(photos["chelsea"])])
    assert result.exit_code == 0, result.output
    assert "clever-resnet18: difference from clever_hub torch" in result.output
    assert json.loads((tmp_path / "clever-resnet18-verify.json").read_text())["green"]
    assert sorted(path.name for path in shipped.iterdir()) == before


def test_every_step_is_reported_to_its_end(complete: Path, photos: dict[str, Path]) -> None:
    steps: list[tuple[str, int, int]] = []
    agreements = verify(complete, photos.values(), progress=lambda *step: steps.append(step))
    assert steps[0] == ("opening the readers", 0, 0)
    assert [done for _, done, _ in steps[1:]] == list(range(len(agreements) + 1))
    assert {total for _, _, total in steps[1:]} == {len(agreements) + 1}


def test_export_never_writes_over_a_folder(complete: Path) -> None:
    result = CliRunner().invoke(app, ["export", str(complete), "--out", str(complete)])
    assert result.exit_code == 1
    assert "is there already" in " ".join(result.output.split())
