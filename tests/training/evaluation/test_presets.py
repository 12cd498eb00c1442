"""The paper's transfer data sets: their names, splits and column layouts, on local photos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from clever_hub.errors import DataError
from clever_training.data.labelled import load_labelled, take_apart
from clever_training.evaluation.data import Splits, load_splits
from clever_training.evaluation.presets import PRESETS, expand

NAMES = datasets.ClassLabel(names=["astronaut", "chelsea", "coffee", "rocket"])
SPECIES = datasets.ClassLabel(names=["thing", "animal"])


def rows(splits: Splits, image: str, **labels: Any) -> datasets.Dataset:
    """The validation photos with other column names; each label a function of the class."""
    photos = splits.validation
    files = [photos.table[row][photos.image_column]["bytes"] for row in photos.indices]
    content: dict[str, Any] = {image: [{"bytes": file, "path": None} for file in files]}
    kinds: dict[str, Any] = {image: datasets.Image()}
    for name, (kind, of) in labels.items():
        content[name] = [of(int(label)) for label in photos.labels]
        kinds[name] = kind
    return datasets.Dataset.from_dict(content, datasets.Features(kinds))


def same(label: int) -> int:
    return label


# The columns of each data set on the Hub, and of CIFAR-100, whose names are the odd ones out.
LAYOUTS = {
    "cub-200": {
        "image": "image",
        "bboxes": (datasets.Value("int64"), lambda _: 7),
        "label": (NAMES, same),
    },
    "flowers-102": {"image": "image", "label": (NAMES, same)},
    "food-101": {"image": "image", "label": (NAMES, same)},
    "oxford-pets": {
        "image": "image",
        "label": (NAMES, same),
        "image_id": (datasets.Value("string"), str),
        "label_cat_dog": (SPECIES, lambda label: int(label == 1)),
    },
    "cifar-100": {
        "image": "img",
        "fine_label": (NAMES, same),
        "coarse_label": (SPECIES, lambda label: int(label == 1)),
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_gives_the_same_photos_and_labels(
    layout: str, splits: Splits, tmp_path: Path
) -> None:
    rows(splits, **LAYOUTS[layout]).to_parquet(tmp_path / "a.parquet")  # type: ignore[arg-type]
    loaded = load_labelled(str(tmp_path / "a.parquet"), "train")
    assert loaded.classes == splits.validation.classes
    assert loaded.labels.tolist() == splits.validation.labels.tolist()
    np.testing.assert_array_equal(np.asarray(loaded[5]), np.asarray(splits.validation[5]))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_asks_for_its_two_splits(
    preset: str, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def load(repository: str, *, split: str) -> datasets.Dataset:
        asked.append((repository, split))
        return rows(splits, **LAYOUTS[preset])  # type: ignore[arg-type]

    monkeypatch.setattr(datasets, "load_dataset", load)
    loaded = load_splits(preset)
    assert len(loaded.train) == len(loaded.validation) == 24
    (train, fitted), (validation, asked_with) = asked
    assert train == validation
    assert train.count("/") == 1
    assert fitted.startswith("train")
    assert asked_with in ("test", "validation")


def test_a_folder_goes_before_a_preset_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("food-101").mkdir()
    assert expand("food-101") == "food-101"


def test_a_mistyped_preset_is_corrected() -> None:
    with pytest.raises(DataError, match="Did you mean 'flowers-102'"):
        load_splits("flower-102")
    assert expand("user/flower-102") == "user/flower-102"


def test_columns_can_be_named(splits: Splits, tmp_path: Path) -> None:
    table = rows(splits, "photo", subject=(NAMES, same), species=(SPECIES, lambda i: int(i == 1)))
    for split in ("train", "validation"):
        table.to_parquet(tmp_path / f"{split}.parquet")
    assert load_splits(f"{tmp_path}?label=species").train.classes == ("thing", "animal")
    path = f"{tmp_path / 'train.parquet'}?image=photo&label=subject"
    loaded = load_splits(f"{path},{path}").validation
    assert loaded.classes == splits.validation.classes
    assert loaded.image_column == "photo"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?label=specie", "no column 'specie'. Did you mean 'species'"),
        ("?labels=species", r"expected \?image=COLUMN&label=COLUMN"),
        ("?", r"expected \?image=COLUMN&label=COLUMN"),
    ],
)
def test_a_wrong_column_is_named(splits: Splits, tmp_path: Path, query: str, message: str) -> None:
    rows(splits, "photo", species=(SPECIES, lambda _: 0)).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=message):
        load_labelled(f"{tmp_path / 'a.parquet'}{query}", "train")


def test_a_file_with_a_question_mark_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "what?").mkdir()
    assert take_apart(str(tmp_path / "what?")).name == str(tmp_path / "what?")
