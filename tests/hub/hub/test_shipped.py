"""The shipped models, listed without loading them, and each one loaded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import clever_hub
from clever_hub.errors import ModelFormatError
from clever_hub.hub import shipped


@pytest.fixture
def one_model(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that ships the tiny model alone."""
    monkeypatch.setattr(shipped, "ZOO", model_folder.parent)
    return model_folder


def test_a_model_at_a_glance(one_model: Path) -> None:
    (info,) = clever_hub.list_models()
    assert (info.name, info.backbone) == ("clever-tiny", "vit_tiny_patch16_224")
    assert (info.invariant_dim, info.equivariant_dim, info.image_size) == (19, 5, 32)
    assert (info.data, info.license) == ("none, random weights", "apache-2.0")
    assert info.size_bytes == (one_model / "model.safetensors").stat().st_size
    assert info.origin == "not recorded"
    assert info.figures == {}, "nothing was measured"


def test_figures_are_those_of_the_evaluation(one_model: Path) -> None:
    figures = {"knn": {"upright": {"full": {"top1": {"mean": 15.2, "std": None}}}}}
    (one_model / "evaluation.json").write_text(json.dumps({"figures": figures, "baselines": {}}))
    found = clever_hub.list_models()[0].figures
    assert found == figures
    assert shipped.means(found) == {("knn", "upright", "full", "top1"): 15.2}


@pytest.mark.parametrize("content", [{}, {"figures": None}, {"figures": {"knn": 5}}])
def test_an_evaluation_without_figures_has_no_means(one_model: Path, content: object) -> None:
    (one_model / "evaluation.json").write_text(json.dumps(content))
    assert shipped.means(clever_hub.list_models()[0].figures) == {}


@pytest.mark.parametrize("text", ["[1]", "{", "[" * 100_000], ids=["list", "half", "deep"])
def test_a_damaged_evaluation_is_named(one_model: Path, text: str) -> None:
    (one_model / "evaluation.json").write_text(text)
    with pytest.raises(ModelFormatError, match=r"evaluation\.json"):
        clever_hub.list_models()


def test_missing_weights_are_named(one_model: Path) -> None:
    (one_model / "model.safetensors").unlink()
    with pytest.raises(ModelFormatError, match=r"model\.safetensors is missing"):
        clever_hub.list_models()


@pytest.mark.parametrize("name", shipped.model_names())
def test_every_shipped_model_embeds_photos(name: str, photos: dict[str, Path]) -> None:
    info = next(info for info in clever_hub.list_models() if info.name == name)
    embeddings = clever_hub.from_pretrained(name).encode(photos.values(), normalize=True)
    assert embeddings.invariant.shape == (4, info.invariant_dim)
    assert embeddings.equivariant.shape == (4, info.equivariant_dim)
    assert np.isfinite(embeddings.full).all()
    likeness = embeddings.invariant @ embeddings.invariant.T
    assert likeness[~np.eye(4, dtype=bool)].max() < 0.99, "different photos, same vector"
