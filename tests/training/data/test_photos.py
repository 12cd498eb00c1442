"""Training photos: what is loaded, in which order, and what bad data gets."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from clever_hub.errors import DataError
from clever_training.data.loader import Item, Views, batches, make_loader
from clever_training.data.orders import Order
from clever_training.data.photos import load_photos
from clever_training.data.streaming import open_stream
from clever_training.recipe.schema import Recipe


def test_a_folder_of_images_is_read(photo_folder: Path) -> None:
    photos = load_photos(str(photo_folder))
    assert len(photos) == 48
    assert photos[0].shape == (96, 96, 3)
    assert photos[0].dtype == np.uint8


@pytest.mark.parametrize(
    ("names", "loaded"),
    [
        (("train/a", "car/b", "bus/c"), 3),  # a class that is called as a split is
        (("test/a", "car/b"), 2),
        (("photo", "test-1", "driving test"), 3),
        (("train/a", "train/b", "val/c"), 2),
        (("Training/cat/a", "test/cat/b"), 1),
        (("val/a", "test/b"), 2),
        (("train/a", "val/b", "c"), 3),
    ],
)
def test_names_of_files_and_classes_drop_no_photo(
    names: tuple[str, ...], loaded: int, photos: dict[str, Path], tmp_path: Path
) -> None:
    for name in names:
        path = tmp_path / "photos" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.open(photos["chelsea"]).resize((32, 32)).save(path)
    for note in (".notes.txt", "README.md", "labels.csv"):
        (tmp_path / "photos" / note).write_text("no photo")
    assert len(load_photos(str(tmp_path / "photos"))) == loaded


@pytest.mark.parametrize(
    ("names", "loaded"),
    [
        (("train-0", "train-1", "validation"), 2),
        (("default/train/0000", "default/train/0001", "default/test/0000"), 2),
        (("default/partial-train/0000", "default/partial-test/0000"), 1),
        (("a/0000", "b/retrained"), 2),
        (("training_tables/train-0", "training_tables/test-0"), 1),
        (("trains/0000", "planes/0000", "train/0000"), 3),  # classes
    ],
)
def test_of_tables_told_apart_by_name_or_folder_the_training_part_is_read(
    names: tuple[str, ...], loaded: int, photo_folder: Path, tmp_path: Path
) -> None:
    root = tmp_path / "training"  # where the folder itself lies tells nothing
    rows = {"image": [{"bytes": min(photo_folder.iterdir()).read_bytes(), "path": None}]}
    features = datasets.Features({"image": datasets.Image(decode=False)})
    for name in names:
        path = root / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    assert len(load_photos(str(root))) == len(open_stream(str(root))) == loaded


def test_real_parquet_is_read(tiny_imagenet: Path) -> None:
    photos = load_photos(str(tiny_imagenet / "validation.parquet"))
    assert len(photos) == 5000
    assert photos[4999].shape == (64, 64, 3)


def test_nothing_there_is_an_error(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "absent", tmp_path / "absent.parquet"):
        with pytest.raises(DataError, match=source.name):
            load_photos(str(source))


def test_a_table_without_images_names_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "numbers.parquet"
    datasets.Dataset.from_dict({"a": [1], "b": ["x"]}).to_parquet(path)
    with pytest.raises(DataError, match=r"\['a', 'b'\].*--image-column"):
        load_photos(str(path))


def test_a_column_that_holds_no_images_is_named(tmp_path: Path) -> None:
    path = tmp_path / "numbers.parquet"
    datasets.Dataset.from_dict({"label": [1, 2]}).to_parquet(path)
    with pytest.raises(DataError, match=r"expected images in the column 'label', got Value.*int64"):
        load_photos(str(path), "label")


def test_an_unreadable_row_is_named(photos: dict[str, Path], tmp_path: Path) -> None:
    good = photos["chelsea"].read_bytes()
    rows = [{"bytes": content, "path": None} for content in (good, good[:100], b"")]
    path = tmp_path / "rows.parquet"
    features = datasets.Features({"image": datasets.Image(decode=False)})
    datasets.Dataset.from_dict({"image": rows}, features=features).to_parquet(path)
    table = load_photos(str(path), "image")
    assert table[0].shape[2] == 3
    for row in (1, 2):
        with pytest.raises(DataError, match=rf"rows\.parquet: row {row} cannot be read"):
            table[row]


def test_a_photo_whose_format_needs_a_package_is_named(
    photos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    rows = [{"bytes": content, "path": None} for content in (photos["chelsea"].read_bytes(), heic)]
    path = tmp_path / "rows.parquet"
    features = datasets.Features({"image": datasets.Image(decode=False)})
    datasets.Dataset.from_dict({"image": rows}, features=features).to_parquet(path)
    with pytest.raises(DataError, match=r"rows\.parquet: row 1 cannot be read.*clever-hub\[heic\]"):
        load_photos(str(path))[1]


def test_order_is_a_pure_function_that_can_start_anywhere(
    tiny_recipe: Callable[..., Recipe],
) -> None:
    recipe = tiny_recipe()
    whole = list(Order(recipe, photos=48, start=0, stop=12))
    assert list(Order(recipe, photos=48, start=7, stop=12)) == whole[7:]
    for epoch in (0, 1):
        seen = [key[1] for batch in whole[epoch * 6 : epoch * 6 + 6] for key in batch]
        assert sorted(seen) == list(range(48))
    assert [k[1] for k in whole[0]] != [k[1] for k in whole[6]]


def test_processes_share_each_batch(tiny_recipe: Callable[..., Recipe]) -> None:
    whole = next(iter(Order(tiny_recipe(), 48, 0, 1)))
    shares = [next(iter(Order(tiny_recipe(), 48, 0, 1, rank, 2))) for rank in (0, 1)]
    assert sorted(shares[0] + shares[1], key=str) == sorted(whole, key=str)
    assert [len(share) for share in shares] == [4, 4]


def test_too_few_photos_for_a_batch_are_refused(tiny_recipe: Callable[..., Recipe]) -> None:
    with pytest.raises(
        DataError, match=r"5 photos do not fill a batch of 8.*--set run\.batch_size=N"
    ):
        Order(tiny_recipe(), photos=5, start=0, stop=1)


def test_batches_are_the_same_whoever_loads_them(
    photo_folder: Path, tiny_recipe: Callable[..., Recipe]
) -> None:
    recipe, photos = tiny_recipe(), load_photos(str(photo_folder))
    loaded = [
        list(make_loader(Views(photos, recipe), Order(recipe, 48, 0, 2), workers))
        for workers in (0, 1)
    ]
    for here, there in zip(*loaded, strict=True):
        assert [crop.shape for crop in here.crops] == [(16, 32, 32, 3), (8, 24, 24, 3)]
        assert all(a.equal(b) for a, b in zip(here.crops, there.crops, strict=True))
        assert here.parameters.equal(there.parameters)


def test_photos_are_stacked_view_by_view(
    photo_folder: Path, tiny_recipe: Callable[..., Recipe]
) -> None:
    """Row v·batch + b of a size's crops is view v of photo b: what the losses' reshape expects."""
    recipe, photos = tiny_recipe(), load_photos(str(photo_folder))
    views = Views(photos, recipe)
    order = Order(recipe, 48, 0, 1)
    keys = next(iter(order))
    batch = next(iter(make_loader(views, order, 0)))
    for b, key in enumerate(keys):
        item = views[key]
        assert isinstance(item, Item)
        for v, view in enumerate(item.views[:2]):
            assert np.array_equal(batch.crops[0][v * 8 + b].numpy(), view)


def test_a_batch_is_pinned_as_a_whole_where_there_is_a_gpu(
    photo_folder: Path, tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, photos = tiny_recipe(), load_photos(str(photo_folder))
    views, order = Views(photos, recipe), Order(recipe, 48, 0, 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    batch = next(iter(make_loader(views, order, 0)))
    assert not make_loader(views, order, 0).pin_memory
    # Page-locked memory needs a GPU; copies stand for it.
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert make_loader(views, order, 0).pin_memory
    for clean in (None, torch.ones(8, 4, 4, 3, dtype=torch.uint8)):
        before = replace(batch, clean=clean)
        after = before.pin_memory()
        assert (after.size, after.numbers) == (before.size, before.numbers)
        pairs = [*zip(before.crops, after.crops, strict=True)]
        pairs += [(before.parameters, after.parameters)]
        if clean is None:
            assert after.clean is None
        else:
            assert after.clean is not None
            pairs += [(clean, after.clean)]
        assert all(a.equal(b) and a.data_ptr() != b.data_ptr() for a, b in pairs)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_photo_that_cannot_be_read_ends_in_one_line(
    photo_folder: Path, tiny_recipe: Callable[..., Recipe], tmp_path: Path, workers: int
) -> None:
    folder = shutil.copytree(photo_folder, tmp_path / "photos")
    broken = min(path for path in folder.rglob("*") if path.is_file())
    broken.write_bytes(broken.read_bytes()[:200])
    recipe, photos = tiny_recipe(), load_photos(str(folder))
    order = Order(recipe, len(photos), 0, len(photos) // 8)
    with pytest.raises(DataError, match=f"{broken.name}: .*") as raised:
        list(batches(make_loader(Views(photos, recipe), order, workers)))
    assert "\n" not in str(raised.value)


def test_images_of_every_mode_become_rgb(tmp_path: Path) -> None:
    for mode in ("L", "RGBA", "CMYK"):
        ending = "jpg" if mode == "CMYK" else "png"
        Image.new(mode, (20, 10), 60).save(tmp_path / f"{mode}.{ending}")
    photos = load_photos(str(tmp_path))
    assert {photos[n].shape for n in range(3)} == {(10, 20, 3)}
