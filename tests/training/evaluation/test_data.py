"""Labelled photos come from parquet files and image folders, and wrong data is named."""

from __future__ import annotations

import hashlib
import shutil
import unicodedata
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from clever_hub.errors import DataError
from clever_training.data.labelled import (
    LabelledPhotos,
    load_labelled,
    positions_of_every_class,
    stratified_positions,
)
from clever_training.evaluation.data import Splits, load_splits, said_of


def test_a_folder_with_both_splits_and_two_files_are_the_same_data(
    photo_folder: Path, splits: Splits
) -> None:
    both = load_splits(f"{photo_folder / 'train.parquet'},{photo_folder / 'validation.parquet'}")
    assert [len(split) for split in both] == [60, 24]
    assert [split.fingerprint for split in both] == [split.fingerprint for split in splits]
    assert both.train.classes == ("astronaut", "chelsea", "coffee", "rocket")
    assert both.train[3].size == (64, 64)


def test_an_image_folder_gives_the_photos_and_labels_of_the_parquet_file(
    tmp_path: Path, splits: Splits
) -> None:
    for split, photos in zip(("train", "val"), splits, strict=True):
        for position in range(len(photos)):
            name = photos.classes[photos.labels[position]]
            (tmp_path / split / name).mkdir(parents=True, exist_ok=True)
            photos[position].save(tmp_path / split / name / f"{position:03}.png")
    loaded = load_splits(str(tmp_path)).validation
    order = np.lexsort((np.arange(24), splits.validation.labels))  # by class, then by file name
    assert loaded.labels.tolist() == splits.validation.labels[order].tolist()
    expected = np.asarray(splits.validation[int(order[10])])
    np.testing.assert_array_equal(np.asarray(loaded[10]), expected)


def test_a_class_may_be_called_train(tmp_path: Path, splits: Splits) -> None:
    for name in ("train", "car", "test"):
        (tmp_path / name).mkdir()
        splits.train[0].save(tmp_path / name / "test-1.png")
    loaded = load_labelled(str(tmp_path), "train")
    assert loaded.classes == ("car", "test", "train")
    assert len(loaded) == 3


def test_a_named_column_that_holds_no_images_is_refused(photo_folder: Path) -> None:
    name = f"{photo_folder / 'train.parquet'}?image=label"
    with pytest.raises(DataError, match="expected images in the column 'label', got ClassLabel"):
        load_labelled(name, "train")


@pytest.fixture
def two_columns(tmp_path: Path, splits: Splits) -> Path:
    """A table with another column of images beside the usual one."""
    rows = splits.train.table.select(range(8)).to_dict()
    rows["back"] = rows["image"][::-1]
    kinds = {"image": datasets.Image(), "back": datasets.Image()}
    features = datasets.Features({**splits.train.table.features, **kinds})
    path = tmp_path / "two.parquet"
    datasets.Dataset.from_dict(rows, features).to_parquet(path)
    return path


def test_another_image_column_is_other_data_and_the_usual_one_is_not(two_columns: Path) -> None:
    found, image, back = (
        load_labelled(f"{two_columns}{column}", "train")
        for column in ("", "?image=image", "?image=back")
    )
    assert (found.image_column, back.image_column) == ("image", "back")
    digest = hashlib.sha256(found.fingerprint.encode())
    digest.update(np.arange(8, dtype="<i8").tobytes())
    assert found.subset_id() == image.subset_id() == digest.hexdigest(), "what is kept stays valid"
    assert back.subset_id() != found.subset_id()
    assert back.stratified(4).subset_id() != found.stratified(4).subset_id()


def test_the_fingerprint_follows_the_content_not_the_name(
    photo_folder: Path, tmp_path: Path, splits: Splits
) -> None:
    shutil.copy(photo_folder / "train.parquet", tmp_path / "moved.parquet")
    assert load_labelled(str(tmp_path / "moved.parquet"), "train").fingerprint == (
        splits.train.fingerprint
    )
    assert splits.train.fingerprint != splits.validation.fingerprint
    half = splits.train.stratified(30)
    assert half.fingerprint == splits.train.fingerprint
    assert half.subset_id() != splits.train.subset_id()


def test_a_stratified_subset_keeps_the_shares_and_depends_on_the_seed_alone() -> None:
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    chosen = stratified_positions(labels, 50, seed=1)
    assert np.bincount(labels[chosen]).tolist() == [30, 15, 5]
    assert len(set(chosen.tolist())) == 50
    np.testing.assert_array_equal(chosen, stratified_positions(labels, 50, seed=1))
    assert not np.array_equal(chosen, stratified_positions(labels, 50, seed=2))


def test_a_subset_that_does_not_divide_evenly_still_has_the_size_asked_for() -> None:
    labels = np.repeat(np.arange(7), 10)
    assert np.bincount(labels[stratified_positions(labels, 23, seed=0)]).tolist().count(4) == 2


def test_a_subset_of_a_subset_keeps_the_rows_of_the_whole(splits: Splits) -> None:
    inner = splits.train.stratified(20, seed=3).stratified(8, seed=4)
    whole = splits.train
    for position, row in enumerate(inner.indices):
        assert inner.labels[position] == whole.labels[row]
        np.testing.assert_array_equal(np.asarray(inner[position]), np.asarray(whole[int(row)]))


@pytest.mark.parametrize(
    ("specification", "says"),
    [
        ("a,b,c", "expected TRAIN,VALIDATION"),
        ("/nowhere/train.parquet,/nowhere/val.parquet", "no such file or folder"),
    ],
)
def test_a_specification_that_leads_nowhere_is_refused(specification: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        load_splits(specification)


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "notes.txt").write_text("no photo")
    with pytest.raises(DataError, match=r"train: expected parquet files or images"):
        load_labelled(str(tmp_path / "train"), "train")


def test_images_without_class_folders_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="one sub-folder per class"):
        load_labelled(str(tmp_path), "train")


def draw(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)


def test_folders_within_a_class_are_no_classes(tmp_path: Path) -> None:
    for split in ("train", "val"):
        names = ("cat/front/a", "cat/back/a", "dog/front/a", "dog/back/old/a", "dog/b")
        draw(*(tmp_path / split / f"{name}.png" for name in names))
    for photos in load_splits(str(tmp_path)):
        assert photos.classes == ("cat", "dog")
        assert photos.labels.tolist() == [0, 0, 1, 1, 1]
    two = f"{tmp_path / 'train'},{tmp_path / 'val'}"
    assert load_splits(two).train.classes == ("cat", "dog")


def test_images_beside_the_folders_of_classes_are_refused_by_name(tmp_path: Path) -> None:
    draw(tmp_path / "cat" / "a.png", tmp_path / "dog" / "a.png", tmp_path / "stray.png")
    with pytest.raises(DataError, match=r"got stray\.png beside the folders cat, dog\. Move"):
        load_labelled(str(tmp_path), "train")


def test_splits_are_not_taken_for_classes(tmp_path: Path) -> None:
    draw(*(tmp_path / name for name in ("train/cat/a.png", "train/dog/a.png", "val/cat/a.png")))
    with pytest.raises(DataError, match=r"folders of several: train, val\. Name one of them"):
        load_labelled(str(tmp_path), "train")


@pytest.mark.parametrize(
    ("names", "such"),
    [
        (("train", "validation"), "train.parquet"),
        (("Train-0", "Train-1", "test-0"), r"Train\*.parquet"),
        (("train/0", "train/1", "val/0"), "train"),
    ],
)
def test_tables_of_several_splits_are_not_read_as_one(
    names: tuple[str, ...], such: str, tmp_path: Path, photo_folder: Path
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(photo_folder / "validation.parquet", tmp_path / f"{name}.parquet")
    says = rf"expected one split, got files of several: .* such as {tmp_path}/{such}$"
    with pytest.raises(DataError, match=says):
        load_labelled(str(tmp_path), "train")
    with pytest.raises(DataError, match=says):
        load_splits(f"{tmp_path},{photo_folder / 'validation.parquet'}")


def test_tables_of_one_split_are_read_together(tmp_path: Path, photo_folder: Path) -> None:
    for name in ("train-0", "train-1"):
        shutil.copy(photo_folder / "validation.parquet", tmp_path / f"{name}.parquet")
    assert len(load_labelled(str(tmp_path), "train")) == 48


def test_what_classes_one_split_alone_has_is_said(tmp_path: Path) -> None:
    for number in range(9):
        draw(tmp_path / "train" / f"c{number}" / "a.png")
    draw(tmp_path / "val" / "c0" / "a.png", tmp_path / "val" / "c9" / "a.png")
    for number in (1, 2, 3, 4, 5, 6, 7):
        draw(tmp_path / "val" / f"c{number}" / "a.png")
    with pytest.raises(DataError, match=r"same classes .* this alone has c9, that alone c8"):
        load_splits(str(tmp_path))


def test_validation_photos_may_be_of_some_classes(tmp_path: Path) -> None:
    draw(*(tmp_path / "train" / name / "a.png" for name in ("ant", "bee", "cat")))
    draw(*(tmp_path / "val" / name / "a.png" for name in ("bee", "cat")))
    validation = load_splits(str(tmp_path)).validation
    assert validation.classes == ("ant", "bee", "cat")
    assert validation.labels.tolist() == [1, 2]


def test_classes_are_the_same_in_another_order(tmp_path: Path) -> None:
    for split, names in (("train", ["a", "b"]), ("validation", ["b", "a", "unused"])):
        kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=names)}
        image = Image.new("RGB", (8, 8))
        rows = {"image": [image, image], "label": [0, 1]}
        table = datasets.Dataset.from_dict(rows, datasets.Features(kinds))
        table.to_parquet(tmp_path / f"{split}.parquet")
    splits = load_splits(str(tmp_path))
    assert splits.validation.classes == ("a", "b")
    assert splits.validation.labels.tolist() == [1, 0]


def test_names_of_classes_are_the_same_however_their_accents_are_written(tmp_path: Path) -> None:
    draw(*(tmp_path / "train" / name / "a.png" for name in ("caf\u00e9", "th\u00e9")))
    draw(*(tmp_path / "val" / name / "a.png" for name in ("cafe\u0301", "the\u0301")))
    assert [photos.classes for photos in load_splits(str(tmp_path))] == [
        ("caf\u00e9", "th\u00e9")
    ] * 2


def test_of_classes_without_splits_a_fifth_of_each_is_set_aside(tmp_path: Path) -> None:
    counts = {"ant": 10, "bee": 23, "caf\u00e9": 2, "dog": 1}
    for name, count in counts.items():
        draw(*(tmp_path / "photos" / name / "sub" / f"{n}.png" for n in range(count)))
    splits = load_splits(f"{tmp_path / 'photos'}/")
    train, validation = splits
    assert np.bincount(validation.labels, minlength=4).tolist() == [2, 5, 1, 0]
    assert np.bincount(train.labels).tolist() == [8, 18, 1, 1]
    assert sorted([*train.indices, *validation.indices]) == list(range(36))
    assert train.classes == validation.classes == tuple(counts)
    assert train.subset_id() != validation.subset_id()
    assert validation[0].size == (8, 8)
    assert validation.describe()["name"] == f"{tmp_path / 'photos'} (a fifth of each class)"
    assert train.describe()["name"] == f"{tmp_path / 'photos'} (four fifths of each class)"
    said = said_of(splits)
    assert said is not None
    assert "8 of 36 photos. Classes: ant, bee, caf\u00e9, dog" in said


def names_of(photos: LabelledPhotos, folder: Path) -> set[str]:
    paths = (photos.table[int(row)]["image"]["path"] for row in photos.indices)
    return {Path(path).relative_to(folder).as_posix() for path in paths}


def test_what_is_set_aside_depends_on_names_alone(tmp_path: Path) -> None:
    for place, accented in (("here", "caf\u00e9"), ("there", "cafe\u0301")):
        draw(
            *(tmp_path / place / name / f"{n}.png" for name in ("ant", accented) for n in range(9))
        )
    here, there = (load_splits(str(tmp_path / place)) for place in ("here", "there"))
    aside = names_of(here.validation, tmp_path / "here")
    assert len(aside) == 4
    assert aside == {
        unicodedata.normalize("NFC", name)
        for name in names_of(there.validation, tmp_path / "there")
    }
    draw(tmp_path / "here" / "ant" / "9.png")
    more = names_of(load_splits(str(tmp_path / "here")).validation, tmp_path / "here")
    assert len(more & aside) >= 3


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("train/ant/1", "train/bee/1"), r"folder validation or val .*, found train\. .*val/CLASS"),
        (("seg_train/ant/1", "seg_test/ant/1"), r"got seg_test, seg_train, .* Name both"),
        (("Train/ant/1", "Test/ant/1"), r"got Test, Train, .* Name both"),
        (("ant/1", "bee/1"), r"got one of each class\. Bring more"),
        (("1", "2"), "one sub-folder per class"),
    ],
)
def test_folders_that_cannot_be_divided_are_refused(
    names: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    draw(*(tmp_path / f"{name}.png" for name in names))
    with pytest.raises(DataError, match=says):
        load_splits(str(tmp_path))


def test_classes_may_be_called_like_splits(tmp_path: Path) -> None:
    draw(
        *(
            tmp_path / name / f"{n}.png"
            for name in ("bullet train", "road test", "car")
            for n in "12"
        )
    )
    assert len(load_splits(str(tmp_path)).train.classes) == 3


def test_a_single_file_is_refused_as_two_are(tmp_path: Path, photo_folder: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("photo,label")
    said = []
    for specification in (str(path), f"{path},{path}"):
        with pytest.raises(
            DataError, match=r"list\.csv: expected a parquet file or a folder"
        ) as no:
            load_splits(specification)
        said.append(str(no.value))
    assert said[0] == said[1]
    with pytest.raises(DataError, match="expected two files, TRAIN,VALIDATION"):
        load_splits(str(photo_folder / "train.parquet"))


def test_an_unreadable_row_is_named(tmp_path: Path) -> None:
    rows = {"image": [{"bytes": b"no image", "path": None}], "label": [0]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    datasets.Dataset.from_dict(rows, features).to_parquet(tmp_path / "broken.parquet")
    with pytest.raises(DataError, match=r"broken\.parquet: row 0"):
        load_labelled(str(tmp_path / "broken.parquet"), "train")[0]


def test_data_without_labels_or_images_names_its_columns(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"words": ["a"]}).to_parquet(tmp_path / "text.parquet")
    with pytest.raises(DataError, match=r"column of images, got columns \['words'\]"):
        load_labelled(str(tmp_path / "text.parquet"), "train")


def test_the_photo_of_a_rare_class_is_drawn_anew_with_each_seed() -> None:
    labels = np.array([0] * 900 + [1 + i // 10 for i in range(100)])
    drawn = [positions_of_every_class(labels, 11, seed) for seed in range(6)]
    for one, seed in zip(drawn, range(6), strict=True):
        assert set(labels[one]) == set(range(11))
        assert np.array_equal(one, positions_of_every_class(labels, 11, seed))
    rare = [tuple(one[labels[one] > 0]) for one in drawn]
    assert len(set(rare)) == 6
