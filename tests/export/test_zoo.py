"""Shipping keeps what the model computes, at half the size, and drops figures of other weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import clever_hub
from clever_export.zoo import ship
from clever_hub import zoo
from clever_hub.config import ModelConfig, PreprocessingConfig
from clever_hub.pins import read_pins
from clever_hub.torch_model import CleverModel


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder as a run writes it."""
    config = ModelConfig(
        name="clever-resnet10",
        architecture="resnet10t",
        num_features=512,
        invariant_dim=409,
        preprocessing=PreprocessingConfig(32, 32),
        provenance={"method": "clever-dino"},
    )
    return CleverModel(config).save_pretrained(tmp_path_factory.mktemp("run"))


def test_shipped_model_gives_the_vectors_of_the_run(
    trained: Path, tmp_path: Path, photos: dict[str, Path]
) -> None:
    shipped = ship(trained, tmp_path / "zoo", hardware="2 CPU cores")
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
    assert provenance == {"method": "clever-dino", "hardware": "2 CPU cores"}
    assert "on 2 CPU cores" not in (shipped / "README.md").read_text()  # no epochs, no such line


def test_shipping_pins_what_was_shipped(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo, "ZOO", tmp_path)
    ship(trained)
    model = clever_hub.from_pretrained("clever-resnet10")
    assert model.source is not None
    assert model.source.kind == "zoo"
    ship(trained, tmp_path.parent / "elsewhere" / "clever-other")
    assert list(read_pins(tmp_path)) == ["clever-resnet10"]


def test_figures_of_other_weights_do_not_stay(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text("{}")
    ship(trained, tmp_path)
    assert not (tmp_path / "evaluation.json").exists()
