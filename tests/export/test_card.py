"""The model card says what the folder's files say, and nothing else."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from PIL import ExifTags, Image
from typer.testing import CliRunner

import clever_hub
from clever_export.card import make_card, write_card
from clever_export.card_tables import ROWS, angle_claim, table
from clever_export.card_text import SNIPPETS
from clever_hub.cli.app import app
from clever_hub.config import ModelConfig, PreprocessingConfig
from clever_hub.errors import ModelFormatError
from clever_hub.files import write_json
from clever_hub.hub.shipped import ZOO
from clever_hub.jobs.heads import HeadsConfig

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
    validation = {"name": "Other Photos", "photos": 5_000}
    photos = {"train": {"photos": 10_000}, "validation": validation}
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
    (result,) = card.data.eval_results
    assert (result.dataset_name, result.metric_value) == ("Other Photos", 17.25)
    index = card.data.to_dict()["model-index"]
    name, again = model_index_to_eval_results(index)
    assert (name, again) == ("clever-tiny", card.data.eval_results)


def test_figures_stand_beside_the_baselines_and_name_their_command(folder: Path) -> None:
    text = make_card(folder)
    assert "| | this model | raw pixels |" in text.replace("|  |", "| |")
    assert "upright photos, invariant part | **18.2 ± 0.5 %** | – |" in text
    assert "±90°, invariant part | **10.0 ± 0.5 %** | 2.0 ± 0.5 % |" in text, "pixels have no parts"
    assert "cosine of photo and turned copy, full embedding | **0.700** | – |" in text
    command = "clever-hub evaluate clever-tiny --data photos --seeds 3"
    assert f"# 10,000 training and 5,000 validation photos\n{command}\n" in text
    assert "clever-hub evaluate me/mine --data photos" in make_card(folder, "me/mine")
    assert "/home/me" not in text, "another machine's folders help nobody"


def test_another_model_beside_is_named_with_its_training(folder: Path) -> None:
    content = json.loads((folder / "evaluation.json").read_text())
    trained = {"name": "dino-resnet18", "method": "dino", "epochs": 6.0}
    content["baselines"] |= {
        "dino-resnet18": {"model": trained, "figures": {"knn": {"plain": _parts(8)}}},
        "timm:resnet18": {"model": {"name": "timm:resnet18"}, "figures": content["figures"]},
    }
    write_json(folder / "evaluation.json", content)
    text = make_card(folder)
    assert "| raw pixels | dino-resnet18 (dino, 6 epochs) | timm:resnet18 |" in text
    assert "invariant part | **18.2 ± 0.5 %** | – | 9.0 ± 0.5 % | 18.2 ± 0.5 % |" in text


def _add_protocols(folder: Path) -> None:
    """What the other protocols of docs/evaluation-schema.md write."""
    content = json.loads((folder / "evaluation.json").read_text())
    slices = {"equivariant": 0.31, "invariant_slice": 0.24, "full": 0.35}
    turned = {p: {"ridge_r2": {"mean": v, "std": 0.01}} for p, v in slices.items()}
    turned["equivariant"]["mlp_degrees"] = {"mean": 16.9, "std": 0.2}
    content["figures"] |= {
        "linear": {"plain": _parts(20)},
        "retrieval": {"rotation": {"invariant": {"mrr": {"mean": 0.9, "std": None}}}},
        "equivariance": {"rotation": turned, "quarter-turns": _parts(60)},
    }
    content["baselines"]["pixels"]["figures"]["linear"] = {"plain": _parts(5, split=False)}
    photos = {"train": {"photos": 10_000, "classes": 50}, "validation": {"photos": 5_000}}
    for protocol in ("linear", "retrieval", "sweeps"):
        command = f"clever-hub evaluate x --protocols {protocol}"
        content["protocols"][protocol] = {"command": command, "data": photos}
    write_json(folder / "evaluation.json", content)


def test_the_six_figures_that_say_most_are_shown_and_the_next_where_one_is_missing(
    folder: Path,
) -> None:
    _add_protocols(folder)
    content = json.loads((folder / "evaluation.json").read_text())
    rows = table(content).splitlines()[2:]
    assert len(rows) == ROWS == 6
    assert (
        "linear probe, upright photos, full embedding | **20.0 ± 0.5 %** | 5.0 ± 0.5 % | 2.0 %"
        in (rows[3])
    )
    assert "1/rank, invariant part | **0.900** | – | – |" in rows[4]
    assert "equivariant part | **16.9 ± 0.2°** | – | 45° |" in rows[5], "chance is named"
    del content["figures"]["linear"]
    assert "which quarter turn, equivariant part | **62.0" in table(content).splitlines()[-1]
    del content["figures"]
    assert table({**content, "figures": {}}) == ""


def test_only_commands_of_what_is_shown_are_named(folder: Path) -> None:
    _add_protocols(folder)
    text = make_card(folder)
    assert "clever-hub evaluate clever-tiny --protocols retrieval\n" in text
    assert "--protocols sweeps" not in text
    assert text.count("# 10,000 training and 5,000 validation photos\n") == 1


def test_a_card_fits_on_a_screen(folder: Path) -> None:
    """As many lines as a card with everything in it may have."""
    _add_protocols(folder)
    for name in ("model.onnx", "modeling_clever.py"):
        (folder / name).write_bytes(b"here")
    assert len(make_card(folder, "me/mine").splitlines()) <= 110


@pytest.mark.parametrize(
    ("other", "verdict"),
    [
        (0.24, "knows more"),
        (0.30, "knows no more and no less"),  # within the spread of the seeds
        (0.5, "knows less"),
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
    assert verdict in angle_claim({"figures": {"equivariance": {"rotation": rotation}}})


@pytest.mark.parametrize(
    ("others", "verdict"),
    [
        ((0.28, 0.38, 0.48), "knows more"),  # in every seed alike
        ((0.48, 0.38, 0.28), "knows no more and no less"),  # the same figures of other seeds
        ((0.32, 0.42, 0.52), "knows less"),
    ],
)
def test_of_several_seeds_the_differences_by_seed_count(
    others: tuple[float, ...], verdict: str
) -> None:
    parts = {"equivariant": (0.3, 0.4, 0.5), "invariant_slice": others}
    rotation = {
        part: {"ridge_r2": {"mean": mean(of), "std": stdev(of), "values": list(of)}}
        for part, of in parts.items()
    }
    assert verdict in angle_claim({"figures": {"equivariance": {"rotation": rotation}}})


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
    assert "--output again --set name=again`\n" in make_card(folder)
    content["provenance"]["start"] = {"name": "mine", "init": "mine", "weights_sha256": "ab" * 32}
    write_json(path, content)
    card = make_card(folder)
    assert "--output again --set name=again --set backbone.init=START`." in card
    assert "was `mine` with the weights abababababab…" in card
    assert "does not ship" not in card
    assert "abababababab…; that does not ship" in make_card(folder, by_name=True)


def test_the_card_of_a_later_stage_names_a_start_that_ships(folder: Path) -> None:
    name = "clever-vit-tiny.ssl"
    digest = hashlib.sha256((ZOO / name / "model.safetensors").read_bytes()).hexdigest()
    path = folder / "config.json"
    content = json.loads(path.read_text())
    content["provenance"]["start"] = {"name": name, "init": name, "weights_sha256": digest}
    write_json(path, content)
    assert f"--set name=again --set backbone.init={name}`\n" in make_card(folder)


def test_a_command_has_the_names_that_options_have_now(folder: Path) -> None:
    path = folder / "evaluation.json"
    content = json.loads(path.read_text())
    for record in content["protocols"].values():
        record["command"] = "clever-hub evaluate mine --data photos --out measured"
    write_json(path, content)
    assert "--data photos --output measured" in make_card(folder)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("ddcl", "The **invariant** part, the first 409 of 512 dimensions, is to stay the same"),
        ("clever-vicreg", "the **equivariant** part, the other 103, may change with it"),
        ("clever-mine:loss", "whose embedding has two parts"),
        ("mine:loss", "A baseline, not [CLeVER](https://arxiv.org/abs/2406.00262): An objective"),
        ("dino", "A baseline, not [CLeVER](https://arxiv.org/abs/2406.00262): DINO alone"),
    ],
)
def test_the_card_says_what_the_method_is(folder: Path, method: str, words: str) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text())
    content["provenance"]["method"] = method
    write_json(path, content)
    assert words in make_card(folder)


def test_figures_of_one_seed_are_said_to_be(folder: Path) -> None:
    path = folder / "evaluation.json"
    content = json.loads(path.read_text())
    content["protocols"]["knn"]["seeds"] = [0]
    write_json(path, content)
    text = make_card(folder)
    assert "Each figure is of one seed." in text
    assert "deviation" not in text


def test_words_of_the_table_are_explained_and_the_datas_terms_stand_with_the_licence(
    folder: Path,
) -> None:
    text = make_card(folder)
    assert "through a round mask" in text
    assert "deviation over 3 seeds; a figure without it does not vary, or is of one seed" in text
    licence = text.partition("## Licence\n")[2].partition("\n\n")[0]
    assert licence.startswith("apache-2.0")
    assert "For research." in licence


def test_the_cards_command_writes_the_recipe_that_was_trained(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the shell runs it, but for the training itself."""
    assert "`clever-hub info me/mine --recipe > recipe.yaml`" in make_card(folder, "me/mine")
    (found,) = re.findall(r"`clever-hub (info FOLDER --recipe) > recipe.yaml`", make_card(folder))
    (folder / "model.safetensors").write_bytes(b"not looked at")
    monkeypatch.chdir(folder.parent)
    arguments = [str(folder) if word == "FOLDER" else word for word in found.split()]
    printed = CliRunner().invoke(app, arguments)
    assert printed.exit_code == 0, printed.output
    assert yaml.safe_load(printed.stdout) == _RECIPE


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


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        ({"last_blocks": 4}, r"last 4 blocks.*--last-blocks"),
        ({"dims": {"full": 2048}}, "2048 full dimensions, the model has 512"),
        ({"dims": {"full": 512, "invariant": 400}}, "400 invariant dimensions, the model has 409"),
    ],
)
def test_figures_of_another_embedding_are_refused(
    measured: dict[str, Any], message: str, folder: Path
) -> None:
    content = _evaluation()
    content["model"] |= {
        "last_blocks": 1,
        "dims": {"full": 512, "invariant": 409, "equivariant": 103},
    }
    write_json(folder / "evaluation.json", content)
    make_card(folder)
    content["model"] |= measured
    write_json(folder / "evaluation.json", content)
    with pytest.raises(ModelFormatError, match=message):
        make_card(folder)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("protocols.knn", 5),
        ("protocols.knn.data", {}),
        ("protocols.knn.command", None),
        ("figures.knn.plain.full.top1.mean", None),
        ("figures.invariance.rotation.full.same_centred", {}),
        ("baselines.pixels", []),
        ("baselines.pixels.figures.knn.upright.full.top1", {"mean": "4"}),
    ],
)
def test_an_evaluation_of_another_shape_is_named_in_one_line(
    place: str, value: object, folder: Path
) -> None:
    content = _evaluation()
    *way, last = place.split(".")
    inside = content
    for key in way:
        inside = inside[key]
    inside[last] = value
    write_json(folder / "evaluation.json", content)
    with pytest.raises(ModelFormatError, match=r"is not as `clever-hub evaluate` writes") as told:
        write_card(folder)
    named = re.findall(r"json: (\S+) is", str(told.value))[0]
    assert place.startswith(named)
    assert "\n" not in str(told.value)


def test_of_a_model_whose_training_is_not_recorded_nothing_is_claimed(folder: Path) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text())
    assert "- self-supervised\n" in make_card(folder)
    assert "Labels were not looked at" in make_card(folder)
    content["provenance"] = {}
    write_json(path, content)
    text = make_card(folder)
    assert "what they were trained for is not recorded" in text
    for claim in ("self-supervised", "Labels were not", "small set", "millions", "is to stay"):
        assert claim not in text


@pytest.mark.parametrize("method", [None, "dino", "clever-dino", "imported"])
def test_of_a_part_of_no_dimensions_nothing_is_said(method: str | None, folder: Path) -> None:
    (folder / "evaluation.json").unlink()
    path = folder / "config.json"
    content = json.loads(path.read_text()) | {"invariant_dim": 512}
    content["provenance"] = {"method": method} if method else {}
    if method == "imported":
        content["provenance"]["imported"] = {}
    write_json(path, content)
    text = make_card(folder)
    for claim in ("**equivariant**", " 0 equivariant", "other 0", "knows a pose", "full[:, :"):
        assert claim not in text
    assert "- **Heads** none; they read an equivariant part, which `clever-hub split`" in text


def test_an_imported_model_that_was_given_heads_says_so(folder: Path) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text())
    content["provenance"] = {"method": "imported", "imported": {"source": "somebody"}}
    content["heads"] = HeadsConfig("0" * 64, 103, 16, 180.0, "photos", 100).to_dict()
    write_json(path, content)
    lines = make_card(folder).splitlines()
    (source,) = [n for n, line in enumerate(lines) if line.startswith("- **Source** somebody")]
    assert lines[source + 1].startswith("- **Heads** for relate and orient")


def test_a_split_model_was_fitted_and_not_trained(folder: Path) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text())
    content["provenance"] = {
        "method": "split",
        "data": "pieces",
        "photos": 200,
        "split": {"photos": {"fitted": 120}},
        "start": {"name": "lite", "provenance": {"method": "dino", "data": "Some Photos"}},
    }
    write_json(path, content)
    text = make_card(folder)
    assert "- **Fitted on** 120 photos: pieces\n" in text
    assert "Trained on" not in text
    assert "- The split was fitted to 120 photos" in text


@pytest.mark.parametrize(
    "given",
    [
        r"--data 'C:\Users\me\photos'",
        r"--data '\\server\me\photos'",
        "--data D:/me/photos",
        "--data=/home/me/photos",
    ],
)
def test_a_command_of_any_system_keeps_its_places_to_itself(given: str, folder: Path) -> None:
    path = folder / "evaluation.json"
    content = json.loads(path.read_text())
    content["protocols"]["knn"]["command"] = f"clever-hub evaluate mine {given} --seeds 3"
    write_json(path, content)
    (line,) = [n for n in make_card(folder).splitlines() if n.startswith("clever-hub evaluate")]
    assert line.replace("=", " ") == "clever-hub evaluate clever-tiny --data photos --seeds 3"


def test_every_accuracy_of_many_classes_has_its_chance() -> None:
    top1 = {"full": {"top1": {"mean": 10.0, "std": None}}}
    data = {"train": {"classes": 50}}
    content = {"figures": {"knn": {"upright": top1}}, "protocols": {"knn": {"data": data}}}
    assert table(content).endswith("through a disc, full embedding | **10.0 %** | 2.0 % |")


def test_the_card_names_no_command_that_an_index_would_have_to_know(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"graph")
    text = "".join(title for title, *_ in SNIPPETS) + make_card(folder)
    assert "extra `torch`" in text
    assert "extra `onnx`" in text
    assert "pip install" not in text


def test_how_it_came_about_is_one_line(folder: Path) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text())
    content["provenance"] |= {"method": "clever-plus-distill", "hardware": "2 CPU cores"}
    content["provenance"]["recipe"] = {
        **_RECIPE,
        "method": {
            "name": "clever-plus-distill",
            "teacher": {"model": "/home/me/efficientnet-lite2"},
        },
    }
    content["provenance"]["start"] = {"init": "random"}
    write_json(path, content)
    text = make_card(folder)
    (line,) = [line for line in text.splitlines() if line.startswith("**How it came about:**")]
    assert line == (
        "**How it came about:** distilled from EfficientNet-Lite2, which was trained with "
        "ImageNet's labels; 3.5 epochs, 2.0 hours, on 2 CPU cores."
    )
    assert "What ImageNet's labels favour is in the weights" in text
    assert "- self-supervised\n" not in text


def test_heads_are_told_with_their_measured_worth(folder: Path) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text())
    (folder / "model.onnx").write_bytes(b"graph")
    assert "- **Heads** none; `clever-hub heads` fits" in make_card(folder)
    assert "clever-hub duplicates photos/ --model FOLDER" in make_card(folder)
    content["heads"] = HeadsConfig("0" * 64, 103, 16, 180.0, "photos", 100).to_dict()
    write_json(path, content)
    text = make_card(folder)
    (line,) = [line for line in text.splitlines() if line.startswith("- **Heads**")]
    assert "of photos turned by up to ±180°" in line
    assert "not calibrated" in line
    assert "clever-hub relate a.jpg b.jpg --model FOLDER" in text


def test_nothing_that_a_reader_looks_for_is_missing(folder: Path) -> None:
    content = ModelCard(make_card(folder), ignore_metadata_errors=False).content
    headings = [line for line in content.splitlines() if line.startswith("## ")]
    wanted = ["Measured", "Use", "Limits", "Licence", "Citation"]
    assert headings == [f"## {name}" for name in wanted]
    assert "![What each part knows, as bars](figures.png)" in content


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


def test_timms_snippet_turns_a_photo_as_the_camera_was_held(
    exported: Callable[..., Path],
    photos: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = make_card(exported("test_resnet"))
    (code,) = re.findall(r"(?ms)^```python\n(import timm\n.*?)```", text)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.open(photos["chelsea"]).resize((131, 77)).save(tmp_path / "photo.jpg", exif=exif)
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(code.replace("local-dir:FOLDER", f"local-dir:{exported('test_resnet')}"), found)
    expected = clever_hub.from_pretrained(exported("test_resnet")).encode("photo.jpg").full
    np.testing.assert_allclose(found["full"].detach().numpy(), expected, rtol=0, atol=1e-4)


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
