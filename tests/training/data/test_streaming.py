"""Streams: shared out without loss or repetition, and resumed where they were."""

from __future__ import annotations

import io
import json
import tarfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from packaging.requirements import Requirement
from safetensors.torch import load_file

from clever_hub.errors import DataError, TrainingError
from clever_training.data.loader import Views, batches, make_loader
from clever_training.data.orders import StreamOrder
from clever_training.data.sources import open_photos
from clever_training.data.streaming import open_stream
from clever_training.recipe.schema import Recipe
from clever_training.run.pretrain import pretrain

Make = Callable[..., Recipe]
SHARDS = (10, 14, 7, 17)  # 48 photos, unevenly


@pytest.fixture(scope="module")
def parquet(photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real photos in four parquet files of different length."""
    folder = tmp_path_factory.mktemp("parquet")
    files = sorted(photo_folder.iterdir())
    features = datasets.Features({"image": datasets.Image(decode=False)})
    for number, count in enumerate(SHARDS):
        begin = sum(SHARDS[:number])
        rows = [{"bytes": f.read_bytes(), "path": None} for f in files[begin : begin + count]]
        table = datasets.Dataset.from_dict({"image": rows}, features=features)
        table.to_parquet(folder / f"train-{number}.parquet")
    return folder


@pytest.fixture(scope="module")
def shards(photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same photos in four WebDataset shards."""
    folder = tmp_path_factory.mktemp("tar")
    files = sorted(photo_folder.iterdir())
    for number in range(4):
        with tarfile.open(folder / f"train-{number:03}.tar", "w") as tar:
            for file in files[number::4]:
                info = tarfile.TarInfo(f"{file.stem}.png")
                content = file.read_bytes()
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return folder


def _sources(order: StreamOrder) -> list[tuple[int, bytes | str]]:
    """Pass and file of every photo of an order."""
    return [(key[0], key[1].source) for batch in order for key in batch]  # type: ignore[attr-defined]


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_processes_see_every_photo_of_a_pass_once(
    world: int, parquet: Path, tiny_recipe: Make
) -> None:
    # 2 and 4 processes take whole shards, which differ in length; 8 take every eighth photo.
    recipe = tiny_recipe(run__stream_window=5)
    photos = open_stream(str(parquet))
    seen = [
        source
        for rank in range(world)
        for turn, source in _sources(StreamOrder(recipe, photos, 0, 48, rank=rank, world=world))
        if turn == 0
    ]
    assert len(seen) == len(set(seen)) == len(photos) == 48


def test_passes_and_seeds_differ_in_order(parquet: Path, tiny_recipe: Make) -> None:
    photos = open_stream(str(parquet))
    order = _sources(StreamOrder(tiny_recipe(), photos, 0, 12))
    assert [turn for turn, _ in order] == [0] * 48 + [1] * 48
    assert {s for t, s in order if t == 0} == {s for t, s in order if t == 1}
    assert [s for t, s in order if t == 0] != [s for t, s in order if t == 1]
    assert _sources(StreamOrder(tiny_recipe(run__seed=1), photos, 0, 12)) != order


@pytest.mark.parametrize("kind", ["parquet", "tar"])
@pytest.mark.parametrize("world", [1, 2])
def test_a_stream_goes_on_at_its_position(
    kind: str, world: int, parquet: Path, shards: Path, tiny_recipe: Make
) -> None:
    recipe = tiny_recipe(run__stream_window=6)
    photos = open_stream(str(parquet if kind == "parquet" else shards), None, 48)
    share: dict[str, Any] = {"rank": world - 1, "world": world}
    whole = StreamOrder(recipe, photos, 0, 15, **share)
    batches, positions = [], {}
    for step, batch in enumerate(whole, start=1):
        batches.append(batch)
        # Through JSON, which is what the state keeps it in.
        positions[step] = json.loads(json.dumps(whole.position(step)))
    for step in (1, 7, 12):
        again = StreamOrder(recipe, photos, step, 15, positions=[positions[step]] * world, **share)
        assert (
            _sources(again)
            == [
                (key[0], key[1].source)  # type: ignore[attr-defined]
                for batch in batches[step:]
                for key in batch
            ]
        )


def test_a_streamed_run_resumes_bit_for_bit(
    parquet: Path, tiny_recipe: Make, tmp_path: Path
) -> None:
    whole = tiny_recipe(run__stream=True, run__stream_window=7)
    part = whole.model_copy(update={"run": whole.run.model_copy(update={"max_steps": 4})})
    pretrain(whole, str(parquet), tmp_path / "whole", progress=False)
    pretrain(part, str(parquet), tmp_path / "parts", progress=False)
    pretrain(whole, str(parquet), tmp_path / "parts", progress=False)
    states = [load_file(tmp_path / name / "state.safetensors") for name in ("whole", "parts")]
    assert [key for key in states[0] if not torch.equal(states[0][key], states[1][key])] == []


def test_workers_are_handed_the_photos(parquet: Path, tiny_recipe: Make) -> None:
    recipe, photos = tiny_recipe(), open_stream(str(parquet))
    loaded = [
        list(make_loader(Views(photos, recipe), StreamOrder(recipe, photos, 0, 2), workers))
        for workers in (0, 1)
    ]
    for here, there in zip(*loaded, strict=True):
        assert all(a.equal(b) for a, b in zip(here.crops, there.crops, strict=True))


def test_a_state_of_another_number_of_processes_is_refused(
    parquet: Path, tiny_recipe: Make
) -> None:
    photos = open_stream(str(parquet))
    with pytest.raises(TrainingError, match="written by 2 processes, now there are 1"):
        StreamOrder(tiny_recipe(), photos, 3, 4, [{}, {}])


def test_what_cannot_be_streamed_is_named(
    photo_folder: Path, shards: Path, parquet: Path, tiny_recipe: Make, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"leave run\.stream out"):
        open_stream(str(photo_folder))
    with pytest.raises(DataError, match=r"--set run\.stream_photos=N, the number of your photos"):
        open_stream(str(shards))
    for tar in (shards, shards / "train-001.tar", shards / "train-{000..003}.tar"):
        with pytest.raises(DataError, match=r"--set run\.stream=true .*run\.stream_photos=N"):
            open_photos(tiny_recipe(), str(tar), None)
    with pytest.raises(DataError, match=r"train-004\.tar: no such file"):
        open_stream(str(shards / "train-{000..004}.tar"), None, 48)
    with pytest.raises(DataError, match=r"ends in \.parquet or \.tar"):
        open_stream("https://host/photos.zip")
    with pytest.raises(DataError, match="48 photos do not fill a batch of 64"):
        StreamOrder(tiny_recipe(run__batch_size=64), open_stream(str(parquet)), 0, 1)
    bad = tmp_path / "bad.parquet"
    features = datasets.Features({"image": datasets.Image(decode=False)})
    rows = [{"bytes": b"no image", "path": None}] * 8
    datasets.Dataset.from_dict({"image": rows}, features=features).to_parquet(bad)
    photos = open_stream(str(bad))
    loader = make_loader(Views(photos, tiny_recipe()), StreamOrder(tiny_recipe(), photos, 0, 1), 0)
    with pytest.raises(DataError, match=r"bad\.parquet: photo \d of the stream cannot be read"):
        next(batches(loader))


def test_numbered_shards_are_spelled_out(shards: Path) -> None:
    photos = open_stream(str(shards / "train-{000..003}.tar"), None, 48)
    assert photos.table.num_shards == 4


def test_releases_of_datasets_that_cannot_share_a_stream_out_are_excluded(repository: Path) -> None:
    """The first ones cannot make shards of row groups; up to 4.8.2 a process may get no photos."""
    project = tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))["project"]
    (needed,) = [x for x in project["optional-dependencies"]["train"] if x.startswith("datasets")]
    allowed = Requirement(needed).specifier
    assert not any(allowed.contains(release) for release in ("4.0.0", "4.5.0", "4.8.0", "4.8.2"))
    assert allowed.contains(datasets.__version__)
