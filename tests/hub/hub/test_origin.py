"""How a model came about is told as its provenance has it, labels included."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from clever_hub.config import ModelConfig, PreprocessingConfig
from clever_hub.hub.origin import labels_of, origin, stages, without_labels
from clever_hub.hub.shipped import ZOO

_TEACHER = {"recipe": {"method": {"teacher": {"model": "efficientnet-lite2", "size": 160}}}}
_OF_LITE2 = "distilled from EfficientNet-Lite2, which was trained with ImageNet's labels"
_OF_ITSELF = "adapted from EfficientNet-Lite0, which was trained with ImageNet's labels"
_LITE = {"init": "efficientnet-lite0", "name": "efficientnet-lite0"}


def _model(**provenance: Any) -> ModelConfig:
    return ModelConfig(
        name="clever-mine",
        architecture="resnet18",
        num_features=512,
        invariant_dim=409,
        preprocessing=PreprocessingConfig(64, 64),
        provenance=provenance,
    )


@pytest.mark.parametrize(
    ("provenance", "told", "labels"),
    [
        ({}, "not recorded", None),
        (
            {"method": "clever-plus-distill", "epochs": 2, "hours": 0.52, **_TEACHER},
            f"{_OF_LITE2}; 2 epochs, 0.5 hours",
            "ImageNet's labels",
        ),
        (
            {"method": "clever-plus-distill", "start": _LITE, "teacher": dict(_LITE)},
            f"{_OF_ITSELF}, with itself as the teacher",
            "ImageNet's labels",
        ),
        (
            {"method": "clever-plus-distill", "teacher": "Some Network (224 px), without labels"},
            "distilled from Some Network",
            None,
        ),
        (
            {"method": "distill", "start": {"init": "clever-x", "name": "clever-x"}, **_TEACHER},
            f"{_OF_LITE2}; it started from clever-x",
            "ImageNet's labels",
        ),
        (
            {"method": "clever-vicreg", "start": {"init": "random"}},
            "trained without labels from random weights by CLeVER over VICReg",
            None,
        ),
        (
            {"method": "dino", "start": {"init": "timm", "name": "resnet18.a1_in1k"}},
            "trained without labels from timm's resnet18.a1_in1k by DINO",
            None,
        ),
        (
            {"imported": {}, "method": "imported", "data": "ImageNet-1k, with labels"},
            "published weights, unchanged; trained with ImageNet's labels",
            "ImageNet's labels",
        ),
        (
            {"imported": {}, "method": "imported", "data": "ImageNet-1k, without labels"},
            "published weights, unchanged; trained on ImageNet-1k, without labels",
            None,
        ),
        ({"method": "a way of mine"}, "trained by a way of mine", None),
    ],
)
def test_one_line_says_where_the_weights_come_from(
    provenance: dict[str, Any], told: str, labels: str | None
) -> None:
    config = _model(**provenance)
    assert origin(config) == told
    assert labels_of(config) == labels


def test_a_split_is_no_training_and_tells_what_was_split() -> None:
    before = {"method": "imported", "imported": {}, "data": "ImageNet-1k, with labels"}
    config = _model(
        method="split",
        data="photos",
        split={"photos": {"fitted": 1200}},
        start={"init": "lite", "name": "lite", "provenance": before},
    )
    assert origin(config) == (
        "lite, which was trained with ImageNet's labels, split in closed form by an orthogonal "
        "projection, fitted to 1,200 photos; nothing was trained"
    )
    assert labels_of(config) == "ImageNet's labels"


def test_a_split_keeps_the_stages_the_teacher_and_the_labels_of_what_was_split() -> None:
    """The last stage of what was split is in the ``provenance`` of the start."""
    first = {"name": "lite", "epochs": 5, "hours": 1.0, "start": {"init": "random"}}
    before = {"method": "distill", "epochs": 7, "hours": 2.0, "start": first}
    before["teacher"] = {"name": "big", "labels": "ImageNet-1k"}
    start = {"init": "lite", "name": "lite", "provenance": before}
    config = _model(method="split", split={}, start=start)
    assert origin(config).endswith("; nothing was trained; before that 12 epochs, 3.0 hours in all")
    assert "7 epochs, 2 hours, by distillation, teacher big" in stages(config)[2]
    assert labels_of(config) == "ImageNet-1k's labels"


_DINO = {"method": "dino", "start": {"init": "random"}}


@pytest.mark.parametrize(
    ("provenance", "known"),
    [
        ({}, False),
        (_DINO, True),
        ({"method": "clever-simclr", "start": {"name": "clever-mine", **_DINO}}, True),
        ({"method": "split", "split": {}, "start": {"name": "x", "provenance": _DINO}}, True),
        ({"method": "split", "split": {}, "start": {"name": "x"}}, False),
        ({"method": "dino", "start": {"init": "timm", "name": "resnet18.a1_in1k"}}, False),
        ({"method": "a way of mine"}, False),
        ({"method": "distill", "teacher": "Some Network, without labels"}, True),
        ({"method": "distill", "teacher": "Some Network"}, False),
        ({"method": "distill", **_TEACHER}, False),
    ],
)
def test_without_labels_is_said_only_where_every_stage_tells(
    provenance: dict[str, Any], known: bool
) -> None:
    assert without_labels(_model(**provenance)) is known


def test_stages_of_one_model_are_counted_and_listed_the_first_one_first() -> None:
    first = {"name": "clever-mine", "epochs": 5, "hours": 1.0, "start": {"init": "random"}}
    second = {"name": "clever-mine", "epochs": 7, "hours": 2.0, "weights_sha256": "ab" * 32}
    config = _model(method="clever-simclr", epochs=8, hours=3, start=second | {"start": first})
    assert origin(config) == (
        "trained without labels from random weights in 3 stages, the last by CLeVER over SimCLR; "
        "20 epochs, 6.0 hours in all"
    )
    assert stages(config) == [
        "random weights",
        "5 epochs, 1 hours",
        "7 epochs, 2 hours, weights abababababab…",
        "8 epochs, 3 hours, by CLeVER over SimCLR",
    ]


def test_labels_of_a_teacher_in_an_earlier_stage_are_not_forgotten() -> None:
    first = {"name": "clever-mine", "method": "distill", "teacher": {"name": "efficientnet-lite0"}}
    config = _model(method="clever-simclr", start={**first, "start": {"init": "random"}})
    assert origin(config) == (
        "trained from random weights in 2 stages, the last by CLeVER over SimCLR, an earlier one "
        "distilled from EfficientNet-Lite0, which was trained with ImageNet's labels"
    )
    assert labels_of(config) == "ImageNet's labels"


def test_the_last_stages_that_had_the_same_teacher_are_counted() -> None:
    first = {"name": "clever-mine", "method": "clever-simclr", "start": {"init": "random"}}
    other = {"name": "clever-mine", "teacher": {"name": "b"}, "start": first}
    second = {"name": "clever-mine", "teacher": {"name": "a"}, "start": other}
    for start, told in ((second, "the last 2 of 4"), (other, "the last of 3")):
        config = _model(method="clever-distill", teacher={"name": "a"}, start=start)
        assert origin(config) == f"distilled from a, in {told} stages"


def test_a_tag_is_no_other_model_for_one_that_ships_without() -> None:
    stage = {"name": "clever-mine.distill", "epochs": 1.5, "hours": 0.5}
    start = {**stage, "start": {**stage, "start": _LITE}}
    config = _model(method="clever-plus-distill", teacher=dict(_LITE), epochs=1, start=start)
    assert (
        origin(config)
        == f"{_OF_ITSELF}, with itself as the teacher, in 3 stages; 4 epochs, 1.0 hours in all"
    )
    tagged = _model(method="simclr", start={"name": "clever-mine", "start": {"init": "random"}})
    named = replace(tagged, name="clever-mine.more")
    assert origin(named) == "trained without labels from clever-mine by SimCLR"


def test_of_a_teacher_in_a_folder_only_the_name_is_told() -> None:
    method = {"teacher": {"model": "/home/me/runs/teacher/model"}}
    told = origin(_model(method="distill", recipe={"method": method}))
    assert told == "distilled from teacher"


@pytest.mark.parametrize(
    "provenance",
    [
        {"method": ["a", "list"], "start": "text", "teacher": 3, "recipe": []},
        {"method": "split", "split": [], "start": {"name": {}}},
        {"method": "distill", "recipe": {"method": {"teacher": []}}, "epochs": "many"},
    ],
)
def test_a_strangers_provenance_is_told_as_far_as_it_makes_sense(
    provenance: dict[str, Any],
) -> None:
    config = _model(**provenance)
    assert origin(config)
    assert stages(config)
    assert labels_of(config) is None


def test_a_chain_without_end_ends() -> None:
    start: dict[str, Any] = {"name": "clever-mine", "epochs": 1}
    start["start"] = start
    assert len(stages(_model(method="dino", start=start))) == 100


def test_what_was_trained_further_names_what_it_began_with() -> None:
    shipped = ModelConfig.load(ZOO / "clever-resnet18")
    start = {**shipped.provenance, "name": shipped.name, "weights_sha256": "0" * 64}
    tuned = replace(shipped, provenance={"start": start})
    said = "trained further, by a method that is not recorded, from clever-resnet18, which was "
    assert origin(tuned).startswith(said + "distilled from EfficientNet-Lite2")
    assert origin(tuned).endswith("; before that 72.2 epochs, 9.1 hours in all")
    assert stages(tuned)[-1].startswith(said)
    assert not without_labels(tuned)


def test_what_was_fine_tuned_names_the_labels_and_what_it_began_with() -> None:
    shipped = ModelConfig.load(ZOO / "clever-resnet18")
    start = {**shipped.provenance, "name": shipped.name, "weights_sha256": "0" * 64}
    made = {"method": "finetune", "loss": "cross-entropy", "data": "lab", "classes": 5, "epochs": 3}
    tuned = replace(shipped, provenance={**made, "start": start})
    assert origin(tuned).startswith(
        "fine-tuned for 3 epochs with lab's labels (cross-entropy, 5 classes), from "
        "clever-resnet18, which was distilled from EfficientNet-Lite2"
    )
    assert origin(tuned).endswith("; before that 72.2 epochs, 9.1 hours in all")
    assert stages(tuned)[-1] == "3 epochs, by fine-tuning with labels"
    assert labels_of(tuned) == "lab's labels and ImageNet-1k's labels"
    again = replace(shipped, provenance={**made, "start": {**tuned.provenance, "name": "mine"}})
    assert "from mine, which was trained with lab's labels" in origin(again)


def test_labels_of_a_fine_tuned_start_stay_known() -> None:
    start = {"name": "clever-tuned", "method": "finetune", "data": "lab", "epochs": 3}
    config = _model(method="dino", recipe={}, start=start)
    assert labels_of(config) == "lab's labels"
    assert not without_labels(config)
    assert origin(config) == (
        "trained from clever-tuned, which was trained with lab's labels by DINO; 3 epochs"
    )
