"""The model card says what the folder's files say, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from clever_export.card import make_card, write_card
from clever_hub.config import ModelConfig, PreprocessingConfig
from clever_hub.errors import ModelFormatError
from clever_hub.files import write_json


def _parts(full: float, split: bool = True) -> dict[str, Any]:
    names = ("full", "invariant", "equivariant") if split else ("full",)
    return {name: {"top1": {"mean": full + i, "std": 0.5}} for i, name in enumerate(names)}


def _evaluation() -> dict[str, Any]:
    rotation = {"same_centred": 0.7, "different_centred": 0.01, "gap_centred": 0.69}
    figures = {
        "knn": {"plain": _parts(17.25), "upright": _parts(15), "rotated": _parts(9)},
        "invariance": {
            "rotation": {
                "full": {name: {"mean": value, "std": None} for name, value in rotation.items()}
            }
        },
    }
    pixels = {"knn": {"upright": _parts(4, split=False), "rotated": _parts(2, split=False)}}
    photos = {"train": {"photos": 10_000}, "validation": {"photos": 5_000}}
    return {
        "schema_version": 1,
        "model": {"name": "clever-tiny"},
        "figures": figures,
        "baselines": {"pixels": {"model": {"name": "pixels"}, "figures": pixels}},
        "protocols": {"knn": {"command": "clever-hub evaluate clever-tiny", "data": photos}},
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder with a config and figures; a card needs no weights."""
    config = ModelConfig(
        name="clever-tiny",
        architecture="resnet18",
        num_features=512,
        invariant_dim=409,
        preprocessing=PreprocessingConfig(64, 64),
        provenance={"method": "clever-vicreg", "data": "Some Photos", "epochs": 3.5, "hours": 2},
        data_terms="For research.",
    )
    write_json(tmp_path / "config.json", config.to_dict())
    write_json(tmp_path / "evaluation.json", _evaluation())
    return tmp_path


def test_front_matter_reads_back_with_the_hubs_own_parser(folder: Path) -> None:
    card = ModelCard.load(write_card(folder))
    assert card.data.license == "apache-2.0"
    assert card.data.pipeline_tag == "image-feature-extraction"
    results = {(r.dataset_name, r.metric_name): r.metric_value for r in card.data.eval_results}
    assert results["Some Photos", "k-NN top-1 (k 20), full, whole photo"] == 17.25
    assert len(results) == 9


def test_figures_stand_beside_the_baselines_and_name_their_command(folder: Path) -> None:
    text = make_card(folder)
    assert "| this model | invariant | 18.2 ± 0.5 | 16.0 ± 0.5 | 10.0 ± 0.5 |" in text
    assert "| raw pixels | full | – | 4.0 ± 0.5 | 2.0 ± 0.5 |" in text
    assert "| this model | full | 0.700 | 0.010 | 0.690 |" in text
    assert "`clever-hub evaluate clever-tiny` (10,000 training and 5,000 validation photos)" in text


def test_same_inputs_give_the_same_bytes(folder: Path) -> None:
    def written() -> list[bytes]:
        write_card(folder)
        return [(folder / name).read_bytes() for name in ("README.md", "figures.png")]

    assert written() == written()


def test_snippets_name_only_readers_whose_files_are_there(folder: Path) -> None:
    assert 'backend="onnx"' not in make_card(folder)
    (folder / "model.onnx").write_bytes(b"graph")
    assert 'backend="onnx"' in make_card(folder)


def test_without_figures_the_card_says_so(folder: Path) -> None:
    (folder / "evaluation.json").unlink()
    text = write_card(folder).read_text(encoding="utf-8")
    assert "Nothing has been measured yet" in text
    assert not (folder / "figures.png").exists()


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"schema_version": 99})])
def test_an_evaluation_of_another_kind_is_refused(folder: Path, content: str) -> None:
    (folder / "evaluation.json").write_text(content)
    with pytest.raises(ModelFormatError, match=r"evaluation\.json"):
        make_card(folder)
