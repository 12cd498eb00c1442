"""What a run leaves behind: a model, with the heads that it was trained with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import clever_hub
from clever_hub.config import ModelConfig
from clever_hub.hub.origin import labels_of, origin, without_labels
from clever_training.model.backbones import start_backbone
from clever_training.objectives.transformation import TransformationHead
from clever_training.recipe.schema import Recipe
from clever_training.run.model_folder import DataFacts, model_config
from clever_training.run.pretrain import pretrain
from clever_training.run.state import RunState
from tests.training.data.test_teacher import write_teacher

Make = Callable[..., Recipe]


def test_the_transformation_head_is_part_of_the_model(
    photo_folder: Path, tiny_recipe: Make, tmp_path: Path, photos: dict[str, Path]
) -> None:
    recipe = tiny_recipe(
        "vicreg", method__transformation_weight=1.0, views__rotation=120.0, run__epochs=1
    )
    pretrain(recipe, str(photo_folder), tmp_path, progress=False)
    model = clever_hub.from_pretrained(tmp_path / "model")
    assert model.heads.config.rotation == 120
    assert model.heads.config.photos == 48
    assert model.heads.config.calibration is None
    assert model.relate(photos["coffee"], photos["chelsea"]).same is None
    # The file is the head of the state, and numpy evaluates it as torch does.
    head = TransformationHead(model.config.equivariant_dim, recipe.method.transformation_dim)
    state = load_file(tmp_path / "state.safetensors")
    found = {
        k.split("transformation.", 1)[1]: v for k, v in state.items() if ".transformation." in k
    }
    head.load_state_dict(found)
    both = model.encode(photos.values()).equivariant
    with torch.no_grad():
        out = head(torch.from_numpy(np.stack([both, both[::-1]])), [(0, 1)])[0]
    values = model.heads.pairs(both, both[::-1])
    np.testing.assert_allclose(values.logit, out[:, 14], atol=1e-5)
    expected = out[:, 4:8] * head.unit.scale[4:8] + head.unit.center[4:8]
    np.testing.assert_allclose(values.crop, expected, atol=1e-5)


def test_a_run_without_the_term_has_no_heads(
    photo_folder: Path, tiny_recipe: Make, tmp_path: Path
) -> None:
    pretrain(tiny_recipe(run__epochs=1), str(photo_folder), tmp_path, progress=False)
    assert not clever_hub.from_pretrained(tmp_path / "model").has_heads
    assert not (tmp_path / "model" / "heads.safetensors").exists()


def test_a_teacher_is_told_by_name_with_what_it_was_trained_on(
    tiny_recipe: Make, tmp_path: Path
) -> None:
    folder = write_teacher(tmp_path / "teacher")
    config = json.loads((folder / "config.json").read_text())
    config["provenance"] = {"data": "ImageNet-1k, with labels", "photos": 1_281_167}
    (folder / "config.json").write_text(json.dumps(config))

    def told(teacher: str) -> ModelConfig:
        recipe = tiny_recipe(method={"name": "clever-distill", "teacher": teacher})
        return model_config(recipe, RunState(), 96, 1, DataFacts("photos", 48))

    student = told(str(folder))
    known = {"name": "clever-teacher", "data": "ImageNet-1k, with labels"}
    assert student.provenance["teacher"] == known
    assert str(tmp_path) not in json.dumps(student.to_dict()), "where a folder lies is published"
    assert origin(student).startswith(
        "distilled from clever-teacher, which was trained with ImageNet's labels"
    )
    assert told("timm:resnet18.a1_in1k").provenance["teacher"] == {"name": "timm:resnet18.a1_in1k"}
    shutil.rmtree(folder)
    assert told(str(folder)).provenance["teacher"] == {"name": "teacher"}, "it may go meanwhile"


def test_terms_of_the_start_hold_for_what_is_made_of_it(tiny_recipe: Make, tmp_path: Path) -> None:
    folder = write_teacher(tmp_path / "start")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config |= {"license": "cc-by-nc-4.0", "data_terms": "For research alone."}
    config["provenance"] = {"imported": {"source": "https://example.org/w.pth"}}
    path.write_text(json.dumps(config))
    _, start = start_backbone(config["architecture"], config["model_args"], 0.0, str(folder))
    recipe = tiny_recipe(data_terms="Ours.")
    made = model_config(recipe, RunState(start=start), 96, 1, DataFacts("photos", 48))
    assert made.license == "cc-by-nc-4.0"
    assert made.data_terms == "For research alone. Ours."
    assert made.provenance["start"]["imported"]["source"] == "https://example.org/w.pth"
    alone = model_config(recipe, RunState(), 96, 1, DataFacts("photos", 48))
    assert (alone.license, alone.data_terms) == ("apache-2.0", "Ours.")


def test_terms_of_a_teacher_are_told_of(tiny_recipe: Make, tmp_path: Path) -> None:
    folder = write_teacher(tmp_path / "teacher")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    terms = {"license": "cc-by-nc-4.0", "data_terms": "For research alone."}
    path.write_text(json.dumps(config | terms))

    def told(teacher: str, start: dict[str, str] | None = None) -> ModelConfig:
        method = {"name": "clever-distill", "teacher": teacher}
        recipe = tiny_recipe(method=method, data_terms="Ours.")
        return model_config(recipe, RunState(start=start), 96, 1, DataFacts("photos", 48))

    student = told(str(folder))
    assert student.provenance["teacher"] == {"name": "clever-teacher", **terms}
    assert student.data_terms == "For research alone. Ours."
    assert told(str(folder), {"init": "a", **terms}).data_terms == student.data_terms
    stage = {"init": "a", "data_terms": student.data_terms}  # of the stage before, joined already
    assert told(str(folder), stage).data_terms == student.data_terms
    timm = told("timm:convnextv2_atto.fcmae_ft_in1k")
    assert timm.provenance["teacher"]["license"] == "cc-by-nc-4.0"
    assert timm.data_terms == "Ours."


def test_terms_of_a_teacher_on_the_hub_are_those_of_what_was_downloaded(
    tiny_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_teacher(tmp_path / "teacher")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"data_terms": "Theirs."}))
    asked: dict[str, object] = {}

    def cached(name: str, **options: object) -> tuple[Path, None]:
        asked.update(options, name=name)
        return folder, None

    monkeypatch.setattr("clever_training.run.model_folder.resolve", cached)
    recipe = tiny_recipe(method={"name": "clever-distill", "teacher": "user/name"})
    student = model_config(recipe, RunState(), 96, 1, DataFacts("photos", 48))
    assert student.provenance["teacher"] == {"name": "user/name", "data_terms": "Theirs."}
    assert student.data_terms == "Theirs."
    assert (asked["name"], asked["local_files_only"]) == ("user/name", True)


def test_labels_behind_a_teacher_are_told_of(tiny_recipe: Make, tmp_path: Path) -> None:
    folder = write_teacher(tmp_path / "teacher")
    config = json.loads((folder / "config.json").read_text())
    config["provenance"] = {
        "method": "clever-plus-vicreg",
        "data": "photos",
        "start": {"init": "lite", "name": "lite", "data": "ImageNet-1k, with labels"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    recipe = tiny_recipe(method={"name": "clever-distill", "teacher": str(folder)})
    student = model_config(recipe, RunState(), 96, 1, DataFacts("photos", 48))
    assert labels_of(student) == "ImageNet's labels"
    assert not without_labels(student)
    assert "trained on photos, and before that with ImageNet's labels" in origin(student)


def test_a_tag_of_timm_is_no_part_of_the_architecture(tiny_recipe: Make) -> None:
    recipe = tiny_recipe(backbone__architecture="resnet18.a1_in1k")
    made = model_config(recipe, RunState(), 512, 1, DataFacts("photos", 48))
    assert made.architecture == "resnet18"


@pytest.mark.parametrize(("probability", "turns"), [(0.0, 0.0), (0.5, 120.0)])
def test_heads_know_no_turns_that_were_not_made(
    photo_folder: Path, tiny_recipe: Make, tmp_path: Path, probability: float, turns: float
) -> None:
    recipe = tiny_recipe(
        "vicreg",
        method__transformation_weight=1.0,
        views__rotation=120.0,
        views__rotation_probability=probability,
        run__max_steps=1,
    )
    pretrain(recipe, str(photo_folder), tmp_path, progress=False)
    assert clever_hub.from_pretrained(tmp_path / "model").heads.config.rotation == turns


@pytest.mark.parametrize("strategy", ["baug", "caug"])
def test_heads_know_the_turns_of_views_of_ones_own(
    strategy: str,
    photo_folder: Path,
    tiny_recipe: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "turning.py").write_text(
        "def augment(image, size, rng, view):\n"
        "    return image[:size, :size], {'angle': -30.0 if view else 20.0}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    recipe = tiny_recipe(
        "vicreg",
        method__transformation_weight=1.0,
        views__strategy=strategy,
        views__aug="turning:augment",
        run__max_steps=1,
    )
    for _ in range(2):  # the second time it is complete
        pretrain(recipe, str(photo_folder), tmp_path / "run", progress=False)
        model = clever_hub.from_pretrained(tmp_path / "run" / "model")
        assert model.heads.config.rotation == 30


def test_a_run_may_be_made_by_another_thread(
    photo_folder: Path, tiny_recipe: Make, tmp_path: Path
) -> None:
    recipe = tiny_recipe(run__max_steps=1)
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(pretrain, recipe, str(photo_folder), tmp_path, progress=False)
    assert (made.result() / "model.safetensors").is_file()
