"""The model card says what the folder's files say, and nothing else."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results

from clever_export.card import make_card, write_card
from clever_export.card_tables import claims
from clever_hub.config import ModelConfig, PreprocessingConfig
from clever_hub.errors import ModelFormatError
from clever_hub.files import write_json

_RECIPE = {
    "views": {
        "strategy": "caug",
        "global_count": 2,
        "global_size": 48,
        "local_count": 0,
        "growth": [],
    },
    "run": {"batch_size": 8, "epochs": 4},
    "optimizer": {"name": "adamw", "lr": 0.01},
}


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
    command = "clever-hub evaluate /home/me/run/model --data ../my/photos --seeds 3"
    return {
        "schema_version": 1,
        "model": {"name": "clever-tiny"},
        "figures": figures,
        "baselines": {"pixels": {"model": {"name": "pixels"}, "figures": pixels}},
        "protocols": {"knn": {"command": command, "data": photos, "seeds": [0, 1, 2]}},
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
        provenance={
            "method": "clever-vicreg",
            "data": "Some Photos",
            "epochs": 3.5,
            "hours": 2,
            "recipe": _RECIPE,
        },
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
    index = card.data.to_dict()["model-index"]
    name, again = model_index_to_eval_results(index)
    assert (name, again) == ("clever-tiny", card.data.eval_results)


def test_figures_stand_beside_the_baselines_and_name_their_command(folder: Path) -> None:
    text = make_card(folder)
    assert "| this model | invariant | 18.2 ± 0.5 | 16.0 ± 0.5 | 10.0 ± 0.5 |" in text
    assert "| raw pixels | full | – | 4.0 ± 0.5 | 2.0 ± 0.5 |" in text
    assert "| this model | full | 0.700 | 0.010 | 0.690 |" in text
    command = "clever-hub evaluate clever-tiny --data photos --seeds 3"
    assert f"# 10,000 training and 5,000 validation photos\n{command}\n" in text
    assert "clever-hub evaluate me/mine --data photos" in make_card(folder, "me/mine")
    assert "/home/me" not in text, "another machine's folders help nobody"


def test_another_model_beside_is_named_with_its_training(folder: Path) -> None:
    content = json.loads((folder / "evaluation.json").read_text())
    pixels = content["baselines"]["pixels"]["figures"]
    trained = {"name": "dino-resnet18", "method": "dino", "epochs": 6.0}
    content["baselines"] |= {
        "dino-resnet18": {"model": trained, "figures": {"knn": {"plain": _parts(8)}}},
        "timm:resnet18": {"model": {"name": "timm:resnet18"}, "figures": pixels},
    }
    write_json(folder / "evaluation.json", content)
    text = make_card(folder)
    assert "whole photo: **17.2 %**; dino-resnet18 (dino, 6 epochs) 8.0 %." in text
    assert "| dino-resnet18 (dino, 6 epochs) | invariant | 9.0 ± 0.5 | – | – |" in text
    assert "| timm:resnet18 | full | – | 4.0 ± 0.5 | 2.0 ± 0.5 |" in text


def _add_protocols(folder: Path) -> None:
    """What the other protocols of docs/evaluation-schema.md write."""
    content = json.loads((folder / "evaluation.json").read_text())
    slices = {"equivariant": 0.31, "invariant_slice": 0.24, "full": 0.35}
    turned = {p: {"ridge_r2": {"mean": v, "std": 0.01}} for p, v in slices.items()}
    content["figures"] |= {
        "linear": {"plain": _parts(20)},
        "robustness": {"upright/original": _parts(21), "rotated/cj+ro": _parts(11)},
        "equivariance": {"rotation": turned, "quarter-turns": _parts(60)},
        "collapse": {"plain": {"full": {"effective_rank": {"mean": 88.5, "std": None}}}},
    }
    content["baselines"]["pixels"]["figures"]["linear"] = {"plain": _parts(5, split=False)}
    photos = {"train": {"photos": 10_000, "classes": 50}, "validation": {"photos": 5_000}}
    content["protocols"]["linear"] = {"command": "clever-hub evaluate x", "data": photos}
    write_json(folder / "evaluation.json", content)


def test_every_protocol_has_a_table_and_no_column_that_was_not_measured(folder: Path) -> None:
    _add_protocols(folder)
    text = make_card(folder)
    assert "| this model | equivariant | 22.0 ± 0.5 |\n" in text
    assert "| raw pixels | full | 5.0 ± 0.5 |\n" in text
    assert "| | part | as it is |\n" in text
    assert "| | part | colours, ±90° |\n" in text
    assert "| | part | rotation, R² | quarter turn, % |\n" in text
    narrow = "invariant, as narrow as the equivariant"
    assert f"| this model | {narrow} | 0.240 ± 0.010 | – |" in text
    assert "| this model | full | 88.5 |\n" in text
    said = "- A linear probe on the full embedding, whole photo: **20.0 %**; raw pixels 5.0 %"
    assert f"{said}; chance 2.0 %.\n" in text


@pytest.mark.parametrize(
    ("other", "verdict"),
    [
        (0.24, "knows more"),
        (0.30, "knows no more and no less"),  # within the spread of the seeds
        (0.5, "less"),
    ],
)
def test_the_card_says_what_the_angle_came_to(folder: Path, other: float, verdict: str) -> None:
    _add_protocols(folder)
    path = folder / "evaluation.json"
    path.write_text(path.read_text().replace("0.24", str(other)))
    said = next(line for line in make_card(folder).splitlines() if "How far a photo" in line)
    assert f"0.310 from the equivariant part, {other:.3f} from" in said
    assert verdict in said


@pytest.mark.parametrize(
    ("own", "other", "verdict"),
    [
        (-0.01, -0.30, "Neither knows it."),
        (0.012, -0.30, "Neither knows it."),
        (0.208, 0.2, "knows no more and no less"),
        (0.22, 0.2, "knows more"),
    ],
)
def test_of_one_seed_a_small_difference_is_none(own: float, other: float, verdict: str) -> None:
    parts = {"equivariant": own, "invariant_slice": other}
    rotation = {part: {"mlp_r2": {"mean": value, "std": None}} for part, value in parts.items()}
    found = claims({"figures": {"equivariance": {"rotation": rotation}}, "protocols": {}})
    assert [verdict in said for said in found] == [True]


def test_a_command_keeps_both_files_without_their_places(folder: Path) -> None:
    path = folder / "evaluation.json"
    content = json.loads(path.read_text())
    for record in content["protocols"].values():
        record["command"] = "clever-hub evaluate mine --data /d/train.parquet,/d/validation.parquet"
    write_json(path, content)
    assert "--data train.parquet,validation.parquet" in make_card(folder)


def test_the_card_of_a_later_stage_says_that_its_start_has_moved_on(folder: Path) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text())
    assert "several stages" not in make_card(folder)
    content["provenance"]["started_from"] = "mine"
    content["provenance"]["start"] = {"name": "mine", "init": "mine", "weights_sha256": "ab" * 32}
    write_json(path, content)
    said = " ".join(make_card(folder).split())
    assert "begins from `mine` as it was before (SHA-256 of its weights abababababab…)" in said


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("ddcl", "SimSiam, trained without labels, makes the **invariant** part"),
        ("ddcl", "so that it can hold what the first part throws away."),
        ("mine:loss", "A baseline, not [CLeVER](https://arxiv.org/abs/2406.00262): An objective"),
        ("clever-vicreg", "VICReg, trained without labels, makes the **invariant** part"),
        ("clever-plus-dino", "the training also predicted, from the equivariant parts"),
        ("dino", "A baseline, not [CLeVER](https://arxiv.org/abs/2406.00262): DINO alone"),
        ("clever-mine:loss", "An objective, trained without labels"),
    ],
)
def test_the_card_says_what_the_method_is(folder: Path, method: str, words: str) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text())
    content["provenance"]["method"] = method
    write_json(path, content)
    text = make_card(folder)
    assert words in " ".join(text.split())
    assert f"`{method}`" in text or f"- **Method** {method}\n" in text
    assert "409" in text.partition("## What it is")[2].partition("## Measured")[0]


def test_words_of_the_tables_are_explained_and_the_datas_terms_are_a_limit(folder: Path) -> None:
    text = " ".join(make_card(folder).split())
    seeds = "over 3 seeds, 0 where nothing is drawn; without it, a figure is of one seed."
    for words in ("*disc mask*", "*After centring*", seeds, "terms of their own. For res"):
        assert words in text


def test_the_cards_commands_write_the_recipe_that_was_trained(folder: Path) -> None:
    """As the shell runs them, but for the training itself."""
    published = make_card(folder, "me/mine")
    assert "hf download me/mine config.json --local-dir .\n" in published
    assert "hf download" not in make_card(folder)
    (found,) = re.findall(r'^python (-c "import json.*?")$', published, re.DOTALL | re.MULTILINE)
    python = [sys.executable, *shlex.split(found)]
    subprocess.run(python, check=True, cwd=folder)
    assert yaml.safe_load((folder / "recipe.yaml").read_text()) == _RECIPE


def test_figures_of_another_size_are_refused(folder: Path) -> None:
    content = _evaluation()
    content["model"]["input_size"] = size = ModelConfig.load(folder).preprocessing.crop_size
    write_json(folder / "evaluation.json", content)
    make_card(folder)
    content["model"]["input_size"] = size + 16
    write_json(folder / "evaluation.json", content)
    with pytest.raises(ModelFormatError, match=rf"photos of {size + 16} pixels.*--image-size"):
        make_card(folder)


def test_figures_of_other_weights_are_refused(folder: Path) -> None:
    content = _evaluation()
    content["model"]["weights_sha256"] = "0" * 64
    write_json(folder / "evaluation.json", content)
    make_card(folder)
    (folder / "model.safetensors").write_bytes(b"others")
    with pytest.raises(ModelFormatError, match=r"evaluation\.json: figures of other weights"):
        make_card(folder)


def test_what_the_training_started_from_is_said(folder: Path) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text())
    assert "Started from" not in make_card(folder)
    content["provenance"] |= {"started_from": "clever-resnet18", "hardware": "2 CPU cores"}
    content["provenance"]["start"] = {"epochs": 3.0, "hours": 1.5, "start": {"init": "random"}}
    write_json(path, content)
    assert "**Started from** clever-resnet18: its training comes on top" in make_card(folder)
    assert "of the above, 3 epochs in 1.5 hours\n" in make_card(folder)
    assert "**Training** 3.5 epochs, 2 hours on 2 CPU cores" in make_card(folder)


def test_nothing_that_a_reader_looks_for_is_missing(folder: Path) -> None:
    content = ModelCard(make_card(folder), ignore_metadata_errors=False).content
    headings = [line for line in content.splitlines() if line.startswith("## ")]
    wanted = ["What it is", "Measured", "Use", "Training", "Limits", "Citation"]
    assert headings == [f"## {name}" for name in wanted]
    assert "![The figures below as bars](figures.png)" in content


def test_same_inputs_give_the_same_bytes(folder: Path) -> None:
    _add_protocols(folder)

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
