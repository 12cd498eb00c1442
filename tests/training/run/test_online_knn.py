"""k-NN while a run goes on: the right figure, at the right time, and no trace in the run."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file

from clever_hub.errors import ConfigError, DataError
from clever_hub.images.preparing import Preprocessor
from clever_training.data.labelled import LabelledPhotos
from clever_training.model.normalization import preprocessing
from clever_training.recipe.schema import Recipe
from clever_training.run.learner import Learner, make_accelerator
from clever_training.run.online_knn import OnlineKnn
from clever_training.run.pretrain import pretrain

Make = Callable[..., Recipe]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Red and blue squares, 30 of each: any network tells them apart."""
    folder, rng = tmp_path_factory.mktemp("labelled"), np.random.default_rng(0)
    for name, channel in (("red", 0), ("blue", 2)):
        (folder / name).mkdir()
        for number in range(30):
            square = rng.integers(0, 60, (32, 32, 3), dtype=np.uint8)
            square[..., channel] += 180
            Image.fromarray(square).save(folder / name / f"{number}.png")
    return folder


def test_it_tells_classes_apart_and_leaves_the_weights_alone(
    labelled: Path, tiny_recipe: Make
) -> None:
    recipe = tiny_recipe("dino")
    learner = Learner(recipe, make_accelerator(recipe))
    learner.prepare()
    before = {name: value.clone() for name, value in learner.clever.state_dict().items()}
    generator = torch.get_rng_state()
    figures = OnlineKnn(str(labelled), recipe).measure(learner)
    assert figures == {"knn": 100.0, "knn_invariant": 100.0, "knn_equivariant": 100.0}
    assert torch.equal(generator, torch.get_rng_state())
    after = learner.clever.state_dict()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert all(module.training for module in learner.clever.modules())


@pytest.mark.parametrize(
    ("room", "decoded"), [(512 * 2**20, 0), (20 * 3 * 24 * 24 + 1, 40), (0, 60)]
)
def test_kept_photos_are_the_same_inputs_and_are_decoded_once(
    room: int, decoded: int, tiny_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit as ``Preprocessor`` makes them of the file, from memory or not."""
    rng = np.random.default_rng(0)
    for number in range(60):
        path = tmp_path / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (37, 50, 3), dtype=np.uint8)).save(path)
    recipe = tiny_recipe(image_size=24)
    knn, plain = OnlineKnn(str(tmp_path), recipe), Preprocessor(preprocessing(recipe))
    monkeypatch.setattr("clever_training.run.online_knn._KEPT_BYTES", room)
    monkeypatch.setattr("clever_training.run.online_knn._BATCH", 7)
    parts = (knn.neighbours, knn.queries)
    expected = [np.stack([plain(photos[place]) for place in range(30)]) for photos in parts]
    opened, read = [], LabelledPhotos.__getitem__

    def counting(photos: LabelledPhotos, place: int) -> Image.Image:
        opened.append(place)
        return read(photos, place)

    monkeypatch.setattr(LabelledPhotos, "__getitem__", counting)
    for count in (60, decoded):
        opened.clear()
        for photos, inputs in zip(parts, expected, strict=True):
            found = list(knn._batches(photos, range(30)))
            assert [len(batch) for batch in found] == [7, 7, 7, 7, 2]
            assert np.array_equal(torch.cat(found).numpy(), inputs)
        # Two threads may each keep the last photo for which there is room.
        assert count - 1 <= len(opened) <= count


def test_the_next_batch_is_prepared_while_the_backbone_has_one(
    labelled: Path, tiny_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clever_training.run.online_knn._BATCH", 4)
    knn = OnlineKnn(str(labelled), tiny_recipe())
    ahead, crop = threading.Event(), knn._cropped

    def watched(photos: LabelledPhotos, place: int) -> NDArray[np.uint8]:
        if place == 7:
            ahead.set()
        return crop(photos, place)

    monkeypatch.setattr(knn, "_cropped", watched)
    batches = knn._batches(knn.neighbours, range(30))
    assert len(next(batches)) == 4
    assert ahead.wait(60), "nobody has asked for the second batch yet"


@pytest.mark.parametrize(("every", "steps"), [(0, [12]), (1, [6, 12]), (2, [12])])
def test_a_run_measures_every_some_epochs_and_is_the_same_run(
    every: int,
    steps: list[int],
    labelled: Path,
    photo_folder: Path,
    tiny_recipe: Make,
    tmp_path: Path,
) -> None:
    recipe = tiny_recipe(run__knn_every_epochs=every)
    pretrain(recipe, str(photo_folder), tmp_path / "a", validation=str(labelled), progress=False)
    lines = [json.loads(line) for line in (tmp_path / "a/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "knn" in line] == steps
    if every == 1:
        pretrain(recipe, str(photo_folder), tmp_path / "b", progress=False)
        a, b = (load_file(tmp_path / run / "state.safetensors") for run in "ab")
        assert [name for name in a if not torch.equal(a[name], b[name])] == []


@pytest.mark.parametrize("files", ["images", "tables"])
def test_the_splits_of_one_folder_are_not_mixed(
    files: str, labelled: Path, tiny_recipe: Make, tmp_path: Path
) -> None:
    for split, start in (("train", 0), ("val", 20)):
        paths = [p for p in sorted(labelled.glob("*/*.png")) if start <= int(p.stem) < start + 20]
        if files == "images":
            for path in paths:
                target = tmp_path / split / path.parent.name / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.hardlink_to(path)
        else:
            labels = [path.parent.name for path in paths]
            rows = {"image": [str(path) for path in paths], "label": labels}
            features = datasets.Features(
                {"image": datasets.Image(), "label": datasets.Value("string")}
            )
            target = tmp_path / f"{split}.parquet"
            datasets.Dataset.from_dict(rows, features=features).to_parquet(target)
    knn = OnlineKnn(str(tmp_path), tiny_recipe())
    assert [len(part) for part in (knn.neighbours, knn.queries)] == [40, 20]
    assert [Path(part.name).stem for part in (knn.neighbours, knn.queries)] == ["train", "val"]


def test_splits_in_folders_of_tables_are_to_be_named(tiny_recipe: Make, tmp_path: Path) -> None:
    for split in ("train", "test"):
        path = tmp_path / "default" / split / "0000.parquet"
        path.parent.mkdir(parents=True)
        datasets.Dataset.from_dict({"image": ["a.png"], "label": [0]}).to_parquet(path)
    with pytest.raises(DataError, match="Or name both: TRAIN,VALIDATION"):
        OnlineKnn(str(tmp_path), tiny_recipe())


def test_too_few_photos_and_missing_ones_are_named(
    labelled: Path, tiny_recipe: Make, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"--validation: .* 10 photos as neighbours.*at least 20"):
        OnlineKnn(str(labelled), tiny_recipe(run__knn_photos=10))
    with pytest.raises(DataError, match="absent"):
        OnlineKnn(str(tmp_path / "absent"), tiny_recipe())
