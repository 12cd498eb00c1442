"""Shipping keeps what the model computes, at half the size, and drops figures of other weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import clever_hub
from clever_export.publish_check import check_folder
from clever_export.zoo import main, ship
from clever_hub.backends.torch import CleverModel
from clever_hub.config import ModelConfig, PreprocessingConfig
from clever_hub.errors import ModelFormatError
from clever_hub.files import write_json
from clever_hub.hub import shipped as zoo
from clever_hub.hub.pins import read_pins
from clever_hub.weights import sha256_of


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder as a run writes it."""
    config = ModelConfig(
        name="clever-tiny",
        architecture="test_resnet",
        num_features=96,
        invariant_dim=76,
        preprocessing=PreprocessingConfig(32, 32),
        provenance={
            "method": "clever-dino",
            "recipe": {"method": {"teacher": {"model": "/home/me/runs/teacher/model"}}},
        },
    )
    return CleverModel(config).save_pretrained(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def shipped(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is shipped of it."""
    return ship(trained, tmp_path_factory.mktemp("zoo") / "clever-tiny", hardware="2 CPU cores")


@pytest.fixture
def graph_once(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporting takes seconds, and the same weights give the same graph."""

    def copied(folder: Path) -> Path:
        return Path(shutil.copy(shipped / "model.onnx", folder))

    monkeypatch.setattr("clever_export.package.export_onnx", copied)
    monkeypatch.setattr("clever_export.verify.BATCH_SIZES", (2,))


def test_shipped_model_gives_the_vectors_of_the_run(
    trained: Path, shipped: Path, photos: dict[str, Path]
) -> None:
    before, after = (
        clever_hub.from_pretrained(f).encode(photos.values()) for f in (trained, shipped)
    )
    np.testing.assert_allclose(
        after.full, before.full, rtol=0, atol=5e-3 * np.abs(before.full).max()
    )
    graph = clever_hub.from_pretrained(shipped, backend="onnx").encode(photos.values())
    np.testing.assert_allclose(graph.full, after.full, rtol=0, atol=1e-4)
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (trained, shipped)]
    assert sizes[1] < 0.55 * sizes[0]
    provenance = ModelConfig.load(shipped).provenance
    assert provenance == {
        "method": "clever-dino",
        "hardware": "2 CPU cores",
        "recipe": {"method": {"teacher": {"model": "teacher"}}},
    }, "no folder of the machine that trained it"
    assert "distilled from teacher, on 2 CPU cores.\n" in (shipped / "README.md").read_text()


@pytest.mark.usefixtures("graph_once")
def test_shipping_pins_what_was_shipped(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo, "ZOO", tmp_path)
    ship(trained)
    model = clever_hub.from_pretrained("clever-tiny")
    assert model.source is not None
    assert model.source.kind == "zoo"
    ship(trained, tmp_path.parent / "elsewhere" / "clever-other")
    assert list(read_pins(tmp_path)) == ["clever-tiny"]


@pytest.mark.usefixtures("graph_once")
def test_figures_stay_with_their_weights(trained: Path, tmp_path: Path) -> None:
    evaluation = tmp_path / "evaluation.json"
    evaluation.write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    ship(trained, tmp_path)
    assert not evaluation.exists()
    digest = sha256_of(tmp_path / "model.safetensors")
    model = {"name": "clever-tiny", "weights_sha256": digest}
    content = {"schema_version": 1, "model": model, "figures": {}, "protocols": {}}
    write_json(evaluation, content)
    ship(trained, tmp_path)
    assert json.loads(evaluation.read_text()) == content
    # A copy that was measured elsewhere brings its figures.
    copy = ship(tmp_path, tmp_path / "elsewhere")
    assert sha256_of(copy / "model.safetensors") == digest
    assert (copy / "evaluation.json").is_file()
    assert (tmp_path / "notes.txt").exists(), "what is no model file is left alone"


@pytest.mark.usefixtures("graph_once")
def test_nothing_is_replaced_where_readers_differ(
    trained: Path, shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(shipped, tmp_path / "clever-tiny")
    folder = tmp_path / "clever-tiny"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr("clever_export.verify.TOLERANCE", -1.0)
    with pytest.raises(ModelFormatError, match="not shipped, its readers differ:\n  clever_hub"):
        ship(trained, folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.usefixtures("graph_once")
def test_one_command_ships_verified_and_pinned(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(zoo, "ZOO", tmp_path)
    main([str(trained), "--hardware", "2 CPU cores"])
    folder = tmp_path / "clever-tiny"
    assert capsys.readouterr().out.endswith(f"{folder}\n")
    assert json.loads((folder / "verify.json").read_text())["green"]
    check_folder(folder)
    (folder / "README.md").write_text("edited")
    with pytest.raises(ModelFormatError, match="Install clever-hub again"):
        clever_hub.from_pretrained("clever-tiny")
    main(["clever-tiny", "--card"])
    clever_hub.from_pretrained("clever-tiny")
    (folder / "README.md").write_text("edited")
    main(["--pin"])
    clever_hub.from_pretrained("clever-tiny")
    with pytest.raises(SystemExit, match="1"):
        main(["clever-nothing", "--card"])
    assert "neither a model folder nor a shipped model" in capsys.readouterr().err


@pytest.mark.parametrize("name", zoo.model_names())
def test_every_shipped_model_could_be_published_as_it_is(name: str) -> None:
    """Green, with the card of its figures, and with copies of this version's remote code."""
    check_folder(zoo.ZOO / name)


def test_matrices_of_the_shipped_heads_are_stored_in_float16() -> None:
    found = 0
    for path in zoo.ZOO.glob("*/heads.safetensors"):
        found += 1
        for name, tensor in load_file(path).items():
            assert tensor.dtype == (np.float16 if tensor.ndim > 1 else np.float32), (path, name)
    assert found == 4


def test_heads_that_float16_cannot_hold_are_refused(tmp_path: Path) -> None:
    source = zoo.ZOO / "clever-vit-tiny"
    copy = tmp_path / "heads"
    shutil.copytree(source, copy)
    tensors = load_file(copy / "heads.safetensors")
    name = next(name for name, tensor in tensors.items() if tensor.ndim > 1)
    tensors[name] = np.full(tensors[name].shape, 1e6, np.float32)
    save_file(tensors, copy / "heads.safetensors")
    with pytest.raises(ModelFormatError, match=f"{name}: .* that float16 can hold"):
        ship(copy, tmp_path / "shipped")
    assert not (tmp_path / "shipped").exists()
