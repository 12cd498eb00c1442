"""Fine-tuning: it learns, stops and goes on as if nothing had been, and transformers loads it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    EvalPrediction,
    TrainerCallback,
)
from typer.testing import CliRunner

import clever_hub
from clever_export.card import make_card
from clever_hub.backends.torch import CleverModel
from clever_hub.cli.app import app
from clever_hub.config import ModelConfig, PreprocessingConfig
from clever_hub.errors import ConfigError, DataError, TrainingError
from clever_hub.files import write_json
from clever_hub.hub.origin import origin
from clever_hub.weights import sha256_of
from clever_training.cli.finetune import summary
from clever_training.data.labelled import LabelledPhotos
from clever_training.evaluation.data import Splits, load_splits
from clever_training.evaluation.models import ModelFeatures, load_extractor
from clever_training.finetune.data import CroppedPhotos, PlainPhotos, collate, semi_supervised
from clever_training.finetune.run import build_network, finetune, provenance
from clever_training.finetune.settings import FinetuneSettings
from clever_training.finetune.trainer import accuracies
from clever_training.runtime.folders import hold
from tests.training.runtime.two_processes import run_in_two

SIDE = 32


@pytest.fixture(scope="module", autouse=True)
def dataset_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    import datasets

    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("datasets")
    datasets.disable_progress_bars()


@pytest.fixture(scope="module")
def splits(tiny_imagenet: Path) -> Splits:
    """Real photos of five classes of Tiny ImageNet, 100 to fit on and 50 to measure on."""
    whole = load_splits(str(tiny_imagenet))
    few = []
    for photos, count in zip(whole, (20, 10), strict=True):
        rows = [np.flatnonzero(photos.labels == label)[:count] for label in range(5)]
        few.append(photos.subset(np.concatenate(rows)))
    return Splits(*few)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = ModelConfig(
        name="clever-tiny",
        architecture="test_resnet",
        num_features=96,
        invariant_dim=76,
        preprocessing=PreprocessingConfig(SIDE, SIDE),
        license="cc0-1.0",
    )
    torch.manual_seed(3)
    return CleverModel(config).save_pretrained(tmp_path_factory.mktemp("tiny"))


class Unreadable(LabelledPhotos):
    """Photos of which the eighth cannot be read."""

    def __getitem__(self, position: int) -> Image.Image:
        if position == 7:
            raise DataError("photos, row 7: truncated")
        return super().__getitem__(position)


def few_epochs(**changes: Any) -> FinetuneSettings:
    options: dict[str, Any] = {"epochs": 3, "batch_size": 25, "lr": 0.01, "precision": "fp32"}
    return FinetuneSettings(**(options | changes))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def tuned(model_folder: Path, splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "tuned"
    return finetune(str(model_folder), splits, out, few_epochs(), command="as typed")


def test_a_few_steps_on_real_photos_lower_the_loss(tuned: Path) -> None:
    content = json.loads((tuned / "finetune.json").read_text())
    losses = [entry["loss"] for entry in content["history"]]
    assert losses[-1] < losses[0]
    assert losses[-1] < np.log(100), "better than not knowing any of the 100 classes"
    assert [entry["epoch"] for entry in content["history"]] == [1, 2, 3]
    figures = content["figures"]["finetune"]["network/100%"]["full"]
    assert figures["top1"]["mean"] == pytest.approx(content["history"][-1]["top1"])
    steps = [entry["step"] for entry in content["train_loss"]]
    assert steps == [4, 8, 12], "an epoch of four steps tells its loss"
    assert figures["top1"]["std"] is None
    record = content["protocols"]["finetune"]
    assert record["command"] == "as typed"
    assert record["data"]["train"]["photos"] == 100
    assert record["environment"]["transformers"]


def test_transformers_loads_the_folder_to_equal_logits(tuned: Path, splits: Splits) -> None:
    assert not (tuned / "state").exists()
    model = AutoModelForImageClassification.from_pretrained(tuned)
    processor = AutoImageProcessor.from_pretrained(tuned)  # type: ignore[no-untyped-call]
    photos = [splits.validation[position] for position in range(50)]
    pixels = processor(photos, return_tensors="pt")["pixel_values"]
    plain = PlainPhotos(splits.validation, PreprocessingConfig(SIDE, SIDE))
    torch.testing.assert_close(
        pixels[7:9], collate([plain[7], plain[8]])["pixel_values"], rtol=0, atol=1e-6
    )
    with torch.no_grad():
        logits = model(pixels).logits
    labels = torch.from_numpy(splits.validation.labels)
    content = json.loads((tuned / "finetune.json").read_text())
    last = content["history"][-1]
    loss = torch.nn.functional.cross_entropy(logits, labels).item()
    assert loss == pytest.approx(last["loss"], abs=1e-4)
    found = accuracies(EvalPrediction(logits.numpy(), labels.numpy()))
    assert found["top1"] == pytest.approx(last["top1"])
    assert model.config.id2label[3] == splits.train.classes[3]
    assert model.config.license == "cc0-1.0"


def test_the_folder_is_exported_for_onnx_runtime(
    tuned: Path, splits: Splits, tmp_path: Path
) -> None:
    out = tmp_path / "tuned-onnx"
    result = CliRunner().invoke(app, ["export", str(tuned), "-o", str(out)])
    assert result.exit_code == 0, result.output
    plain = PlainPhotos(splits.validation, PreprocessingConfig(SIDE, SIDE))
    pixels = collate([plain[position] for position in range(20)])["pixel_values"]
    session = onnxruntime.InferenceSession(str(out / "model.onnx"))
    (found,) = session.run(["logits"], {"pixel_values": pixels.numpy()})
    with torch.no_grad():
        expected = AutoModelForImageClassification.from_pretrained(out)(pixels).logits.numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    assert (out / "finetune.json").read_bytes() == (tuned / "finetune.json").read_bytes()
    config = json.loads((out / "config.json").read_text())
    assert config["id2label"]["3"] == splits.train.classes[3]


def test_the_folder_loads_by_its_own_code(tuned: Path) -> None:
    map_ = json.loads((tuned / "config.json").read_text())["auto_map"]
    for reference in map_.values():
        assert (tuned / f"{reference.partition('.')[0]}.py").is_file()


def test_all_files_have_the_permissions_of_new_files(tuned: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    plain = (tmp_path / "plain").stat().st_mode
    assert {path.name for path in tuned.iterdir() if path.stat().st_mode != plain} == set()


def test_the_figures_of_bf16_are_those_of_the_model_that_is_written(
    model_folder: Path, splits: Splits, tmp_path: Path
) -> None:
    settings = few_epochs(epochs=1, precision="bf16")
    out = finetune(str(model_folder), splits, tmp_path / "out", settings)
    plain = PlainPhotos(splits.validation, PreprocessingConfig(SIDE, SIDE))
    batch = collate([plain[position] for position in range(len(plain))])
    with torch.no_grad():
        found = AutoModelForImageClassification.from_pretrained(out)(**batch)
    (last,) = json.loads((out / "finetune.json").read_text())["history"]
    assert found.loss.item() == pytest.approx(last["loss"], abs=1e-5)
    figures = accuracies(EvalPrediction(found.logits.numpy(), batch["labels"].numpy()))
    assert figures == {key: pytest.approx(last[key]) for key in ("top1", "top5")}


class StopAfter(TrainerCallback):
    """Presses Ctrl-C in the middle of the second epoch."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        if state.global_step == 6:
            raise KeyboardInterrupt


def stopped(model_folder: Path, splits: Splits, out: Path) -> Path:
    """The folder of a run that was stopped in its second epoch."""
    with pytest.raises(KeyboardInterrupt):
        finetune(str(model_folder), splits, out, few_epochs(), callbacks=(StopAfter(),))
    return out


def test_a_stopped_run_goes_on_as_if_nothing_had_been(
    tuned: Path, model_folder: Path, splits: Splits, tmp_path: Path
) -> None:
    out = stopped(model_folder, splits, tmp_path / "out")
    assert not (out / "finetune.json").exists()
    finetune(str(model_folder), splits, out, few_epochs())
    expected, found = weights(tuned), weights(out)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert not all(
        torch.equal(expected[name], value) for name, value in weights(model_folder).items()
    )


def test_stopped_while_the_last_files_are_written_it_goes_on(
    tuned: Path,
    model_folder: Path,
    splits: Splits,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("clever_training.finetune.run.write_text", stop)
        with pytest.raises(KeyboardInterrupt):
            finetune(str(model_folder), splits, out, few_epochs())
    assert (out / "model.safetensors").is_file()
    code = "configuration_clever.py"
    for name in (".tmpabAsF0", ".finetune.0123abcd.tmp.json", code):
        (out / name).write_bytes(b"half")
    (out / "thesis.tex").touch()
    with pytest.raises(TrainingError, match="got other files"):
        finetune(str(model_folder), splits, out, few_epochs())
    (out / "thesis.tex").unlink()
    finetune(str(model_folder), splits, out, few_epochs())
    assert {path.name for path in out.iterdir()} == {path.name for path in tuned.iterdir()}
    expected, found = weights(tuned), weights(out)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert (out / code).read_bytes() == (tuned / code).read_bytes()


def test_a_checkpoint_that_is_not_whole_is_passed_over(
    tuned: Path, model_folder: Path, splits: Splits, tmp_path: Path
) -> None:
    out = stopped(model_folder, splits, tmp_path / "out")
    # As a kill leaves it that comes while the second epoch's is written.
    (out / "state" / "checkpoint-8").mkdir()
    (out / "state" / "checkpoint-8" / "model.safetensors").write_bytes(b"half")
    assert (out / "state" / "checkpoint-4" / "trainer_state.json").is_file()
    finetune(str(model_folder), splits, out, few_epochs())
    expected, found = weights(tuned), weights(out)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_folder_that_another_process_has_just_begun_is_new(
    model_folder: Path, splits: Splits, tmp_path: Path
) -> None:
    (tmp_path / "out" / "state").mkdir(parents=True)
    assert finetune(str(model_folder), splits, tmp_path / "out", few_epochs(epochs=1)).is_dir()


def test_a_finished_run_is_not_repeated_and_another_is_refused(
    tuned: Path, model_folder: Path, splits: Splits
) -> None:
    before = (tuned / "finetune.json").read_bytes()
    finetune(str(model_folder), splits, tuned, few_epochs(workers=1))
    assert (tuned / "finetune.json").read_bytes() == before
    content = json.loads(before)
    content["model"]["views"] = "as an earlier version calls them"
    (tuned / "finetune.json").write_text(json.dumps(content))
    finetune(str(model_folder), splits, tuned, few_epochs(workers=1))
    (tuned / "finetune.json").write_bytes(before)
    with pytest.raises(TrainingError, match="a run with other settings"):
        finetune(str(model_folder), splits, tuned, few_epochs(seed=1))
    with pytest.raises(TrainingError, match="expected a new folder"):
        finetune(str(model_folder), splits, model_folder, few_epochs())


@pytest.mark.parametrize(("split", "workers"), [("train", 1), ("validation", 1), ("train", 0)])
def test_a_photo_that_cannot_be_read_is_named_in_one_line(
    model_folder: Path, splits: Splits, tmp_path: Path, split: str, workers: int
) -> None:
    broken = splits._replace(**{split: Unreadable(**vars(getattr(splits, split)))})
    with pytest.raises(DataError) as raised:
        finetune(str(model_folder), broken, tmp_path / "out", few_epochs(workers=workers))
    assert str(raised.value) == "photos, row 7: truncated"


def test_a_folder_in_which_a_run_goes_on_is_not_taken_over(
    model_folder: Path, splits: Splits, tmp_path: Path
) -> None:
    (tmp_path / "state").mkdir()
    note = tmp_path / "state" / "run.json"
    note.write_text("{}")
    with (tmp_path / "state" / ".lock").open("w") as file:
        hold(file, tmp_path)
        with pytest.raises(TrainingError, match="another process trains in this run folder"):
            finetune(str(model_folder), splits, tmp_path, few_epochs())
    assert note.read_text() == "{}"


def test_of_several_processes_only_the_first_claims_the_folder(
    model_folder: Path, photos: dict[str, Path], tmp_path: Path
) -> None:
    for part in ("train", "val"):
        for name, path in photos.items():
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for number in range(2):
                shutil.copy(path, tmp_path / "data" / part / name / f"{number}{path.suffix}")
    taken, out = tmp_path / "theirs", tmp_path / "out"
    shutil.copytree(model_folder, taken)
    before = {path.name: path.read_bytes() for path in taken.iterdir()}
    arguments = {"model": model_folder, "data": tmp_path / "data", "taken": taken, "out": out}
    call = "tests.training.runtime.distributed_cases:fine_tuned"
    results = run_in_two(call, {key: str(path) for key, path in arguments.items()}, tmp_path)
    assert [code for code, _ in results] == [0, 0], results
    said = [
        [json.loads(line) for line in text.splitlines() if line.startswith('"')]
        for _, text in results
    ]
    assert [len(lines) for lines in said] == [1, 1], said
    assert "expected a new folder" in said[0][0]
    assert "process 0 stopped" in said[1][0]
    assert {path.name: path.read_bytes() for path in taken.iterdir()} == before
    assert (out / "finetune.json").is_file()
    assert not (out / "state").exists()


def test_a_run_without_a_checkpoint_leaves_its_folder_to_another(
    model_folder: Path, splits: Splits, tmp_path: Path
) -> None:
    broken = splits._replace(train=Unreadable(**vars(splits.train)))
    with pytest.raises(DataError, match="row 7"):
        finetune(str(model_folder), broken, tmp_path, few_epochs())
    repaired = splits._replace(train=splits.train.subset(np.arange(8, 100)))
    finetune(str(model_folder), repaired, tmp_path, few_epochs(epochs=1, batch_size=20))
    content = json.loads((tmp_path / "finetune.json").read_text())
    assert content["data"]["train"]["photos"] == 92
    assert content["settings"]["batch_size"] == 20


def test_a_run_with_a_checkpoint_keeps_its_folder(
    model_folder: Path, splits: Splits, tmp_path: Path
) -> None:
    out = stopped(model_folder, splits, tmp_path / "out")
    fewer = splits._replace(train=splits.train.subset(np.arange(8, 100)))
    with pytest.raises(TrainingError, match="a run with other data"):
        finetune(str(model_folder), fewer, out, few_epochs())


def test_a_run_with_other_labels_is_another(
    model_folder: Path, splits: Splits, tmp_path: Path
) -> None:
    out = stopped(model_folder, splits, tmp_path / "out")
    labels = splits.train.labels[::-1].copy()
    for changed in (
        splits._replace(train=replace(splits.train, labels=labels)),
        Splits(*(replace(part, classes=part.classes[::-1]) for part in splits)),
    ):
        with pytest.raises(TrainingError, match=r"a run with other labels\. Give"):
            finetune(str(model_folder), changed, out, few_epochs())
    # A run that an earlier version began does not tell of its labels, and goes on.
    note = out / "state" / "run.json"
    begun = json.loads(note.read_text())
    write_json(note, {key: value for key, value in begun.items() if key != "labels"})
    back = splits._replace(train=replace(splits.train, other_column="back"))
    with pytest.raises(TrainingError, match="other data, or to one that an earlier version began"):
        finetune(str(model_folder), back, out, few_epochs())
    finetune(str(model_folder), splits, out, few_epochs())
    assert json.loads((out / "finetune.json").read_text())["labels"] == begun["labels"]


def test_a_photo_that_is_left_over_is_dropped_where_batch_norm_trains(
    model_folder: Path, splits: Splits, tmp_path: Path
) -> None:
    # 100 photos are three batches of 33 and one; the last feature map is of a single value.
    seen: list[int] = []

    class Steps(TrainerCallback):
        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            seen.append(state.global_step)

    for name, freeze in (("network", False), ("head", True)):
        settings = few_epochs(epochs=1, batch_size=33, freeze=freeze)
        finetune(str(model_folder), splits, tmp_path / name, settings, callbacks=(Steps(),))
    assert seen == [3, 4]


def test_batches_of_one_photo_are_refused_where_batch_norm_needs_more(
    model_folder: Path, splits: Splits, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"got 1\. Take a larger --batch-size"):
        finetune(str(model_folder), splits, tmp_path / "out", few_epochs(batch_size=1))


def test_a_frozen_backbone_stays_to_the_last_bit(
    model_folder: Path, splits: Splits, tmp_path: Path
) -> None:
    settings = few_epochs(freeze=True, head="invariant", epochs=1, share=0.1)
    out = finetune(str(model_folder), splits, tmp_path / "out", settings)
    found = weights(out)
    for name, value in weights(model_folder).items():
        assert torch.equal(found[name], value), name
    assert found["clever_head.weight"].shape == (100, 76)
    content = json.loads((out / "finetune.json").read_text())
    assert list(content["figures"]["finetune"]) == ["head/10%"]
    assert list(content["figures"]["finetune"]["head/10%"]) == ["invariant"]
    assert content["data"]["train"]["photos"] == 10
    assert content["share_of"] == 100


def test_trained_weights_are_not_said_to_be_made_as_before(model_folder: Path) -> None:
    model = clever_hub.from_pretrained(model_folder)
    assert model.source is not None
    before = model.config.provenance
    for freeze in (True, False):
        network = build_network(model, ("a", "b"), FinetuneSettings(freeze=freeze))
        start = {
            **before,
            "name": model.config.name,
            "weights_sha256": model.source.weights_sha256,
        }
        assert network.config.provenance == (before if freeze else {"start": start})


def test_the_card_of_a_fine_tuned_backbone_says_how_it_was_made(
    tuned: Path, model_folder: Path, tmp_path: Path
) -> None:
    """The way that the refusal of a folder with a head recommends."""
    AutoModel.from_pretrained(tuned).save_pretrained(tmp_path / "backbone")
    made = ModelConfig.load(tmp_path / "backbone").provenance
    assert (made["method"], made["photos"], made["classes"]) == ("finetune", 100, 100)
    assert made["start"]["weights_sha256"] == sha256_of(model_folder / "model.safetensors")
    card = make_card(tmp_path / "backbone")
    data = made["data"]
    assert data.endswith("/train.parquet")
    told = f"fine-tuned for 3 epochs with {data}'s labels (cross-entropy, 100 classes), from "
    assert f"**How it came about:** {told}clever-tiny" in card
    assert f"- **Trained on** {data}" in card
    assert "was fine-tuned to tell classes apart" in card
    assert "not recorded" not in card.partition("## Measured")[0].replace(
        "trained on is not recorded", ""
    )


def test_the_summary_says_how_many_photos_a_share_came_to(tmp_path: Path) -> None:
    def said(share: float, photos: int) -> str:
        figures = {"network/x": {"full": {"top1": {"mean": 1.0}, "top5": {"mean": 2.0}}}}
        train = {"photos": photos, "photos_in_all": 74}  # a fifth may have been set aside
        content = {"figures": {"finetune": figures}, "settings": {"share": share}, "share_of": 59}
        write_json(tmp_path / "finetune.json", {**content, "data": {"train": train}})
        return summary(tmp_path / "finetune.json")

    assert "6 training photos (10.2 % of 59, for at least one of each class): " in said(0.01, 6)
    assert "6 training photos: " in said(0.1, 6)
    assert "59 training photos: " in said(1, 59)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("timm/oxford-iiit-pet:train", "timm/oxford-iiit-pet"),
        ("user/birds?label=kind", "user/birds"),
        ("/home/me/birds/train.parquet?label=kind", "birds/train.parquet"),
        ("/home/me/birds (four fifths of each class)", "birds"),
    ],
)
def test_the_provenance_names_photos_without_their_place(
    name: str, told: str, model_folder: Path, splits: Splits
) -> None:
    named = replace(splits.train, photos=replace(splits.train.photos, name=name))
    extractor = ModelFeatures(clever_hub.from_pretrained(model_folder), "tiny")
    assert provenance(extractor, named, FinetuneSettings())["data"] == told


def test_random_weights_are_not_said_to_have_been_trained(
    model_folder: Path, splits: Splits, tmp_path: Path
) -> None:
    config = ModelConfig.load(model_folder)
    trained = replace(config, provenance={"method": "clever-vicreg", "data": "a million photos"})
    CleverModel(trained).save_pretrained(tmp_path / "trained")
    extractor = load_extractor(f"random:{tmp_path / 'trained'}")
    assert isinstance(extractor, ModelFeatures)
    made = provenance(extractor, splits.train, FinetuneSettings())
    assert made["start"] == {"init": "random"}
    told = origin(replace(config, provenance=made))
    assert "from random weights" in told
    assert "million" not in told
    network = build_network(extractor.model, ("a", "b"), FinetuneSettings(freeze=True))
    assert network.config.provenance == {}


def test_crops_follow_seed_epoch_and_photo_alone(splits: Splits) -> None:
    def crop(seed: int, epoch: int, photos: Any = splits.train, at: int = 4) -> torch.Tensor:
        found = CroppedPhotos(photos, PreprocessingConfig(SIDE, SIDE), 0.35, seed)
        found.set_epoch(epoch)
        pixels = collate([found[at]])["pixel_values"][0]
        assert isinstance(pixels, torch.Tensor)
        return pixels

    first = crop(0, 0)
    assert first.shape == (3, SIDE, SIDE)
    assert torch.equal(first, crop(0, 0))
    assert torch.equal(first, crop(0, 0, splits.train.subset(np.array([2, 4])), at=1))
    for other in (crop(1, 0), crop(0, 1)):
        assert not torch.equal(first, other)


def test_a_share_takes_every_class(splits: Splits) -> None:
    chosen = semi_supervised(splits.train, 0.1, seed=0)
    assert np.bincount(chosen.labels)[:5].tolist() == [2] * 5
    assert len(semi_supervised(splits.train, 0.001, seed=0)) == 5
    assert semi_supervised(splits.train, 1.0, seed=0) is splits.train
    other = semi_supervised(splits.train, 0.1, seed=1)
    assert chosen.indices.tolist() != other.indices.tolist()


def test_accuracies_count_ranks() -> None:
    logits = np.array([[3, 2, 1, 0, 0, 0], [0, 1, 2, 3, 4, 5], [1, 1, 1, 1, 1, 1]], np.float32)
    found = accuracies(EvalPrediction(logits, np.array([0, 4, 2])))
    assert found == {"top1": pytest.approx(100 / 3), "top5": pytest.approx(200 / 3)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": "whole"}, "--head: expected one of full"),
        ({"share": 0.0}, "--share: expected more than 0"),
        ({"layer_decay": 1.5}, "--layer-decay: expected in"),
        ({"precision": "fp8"}, "--precision: expected one of auto"),
        ({"seed": -1}, "--seed: expected 0 to 2147483647, got -1"),
    ],
)
def test_wrong_settings_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FinetuneSettings(**change)


def test_what_has_no_weights_or_no_such_part_is_refused(splits: Splits, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no weights to tune"):
        finetune("pixels", splits, tmp_path / "a")
    settings = few_epochs(head="equivariant")
    with pytest.raises(ConfigError, match="no equivariant part"):
        finetune("random:timm:test_resnet", splits, tmp_path / "b", settings)


def test_the_command(model_folder: Path, splits: Splits, tmp_path: Path) -> None:
    import datasets

    for name, photos in zip(("train", "validation"), splits, strict=True):
        table: datasets.Dataset = photos.table.select(photos.indices)
        table.to_parquet(tmp_path / f"{name}.parquet")
    words = ["finetune", str(model_folder), "--data", str(tmp_path), "--out", str(tmp_path / "o")]
    words += ["--epochs", "1", "--freeze", "--head", "equivariant", "--precision", "fp32"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "learning rate 0.01\n" in result.stderr
    assert "head/100%, head on equivariant, 100 training photos: Top-1" in result.stderr
    content = json.loads((tmp_path / "o" / "finetune.json").read_text())
    assert content["protocols"]["finetune"]["command"].endswith(
        "--head equivariant --freeze --epochs 1 --precision fp32"
    )
