"""Embeddings are kept: an interruption loses one file at most, nothing is computed twice."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from clever_hub.backends.torch import CleverModel
from clever_hub.errors import DataError
from clever_hub.files import cache_folder
from clever_hub.images.middle import WholeAndMiddle
from clever_hub.images.preparing import Preprocessor
from clever_hub.jobs import store
from clever_hub.jobs.embedded import from_column
from clever_hub.jobs.store import embed_photos, photo_name, photo_path
from clever_hub.pretrained import from_pretrained


@pytest.fixture
def loaded(model_folder: Path) -> CleverModel:
    return from_pretrained(model_folder)


@pytest.fixture
def files(photos: dict[str, Path], tmp_path: Path) -> list[Path]:
    """Four photos, copies of the fixture's so that they may be changed."""
    paths = []
    for name, path in photos.items():
        paths.append(tmp_path / "photos" / path.name)
        paths[-1].parent.mkdir(exist_ok=True)
        paths[-1].write_bytes(path.read_bytes())
        assert name in str(paths[-1])
    return paths


@pytest.fixture
def computed(loaded: CleverModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images the backbone saw in each batch."""
    sizes: list[int] = []
    embed = loaded._embed_batch

    def counted(pixel_values: Any) -> Any:
        sizes.append(len(pixel_values))
        return embed(pixel_values)

    monkeypatch.setattr(loaded, "_embed_batch", counted)
    return sizes


def test_the_rows_are_those_of_encode(
    loaded: CleverModel, files: list[Path], tmp_path: Path
) -> None:
    expected = loaded.encode(files, decode="reduced")
    for _ in range(2):  # new, and out of the cache
        found = embed_photos(loaded, files, cache=tmp_path / "cache")
        np.testing.assert_allclose(found.embeddings.full, expected.full, atol=1e-5)
        assert found.paths == files
        assert found.kind == "raw"


def test_averaged_over_four_looks(loaded: CleverModel, files: list[Path]) -> None:
    """The whole upright and upside down, the middle on either side."""
    squares = [Image.open(file).convert("RGB").resize((64, 64)) for file in files]
    for file, square in zip(files, squares, strict=True):
        square.save(file.with_suffix(".png"))
    files = [file.with_suffix(".png") for file in files]
    found = embed_photos(loaded, files, cache=None, averaged=True)
    assert found.kind == "averaged"
    prepare = WholeAndMiddle(loaded.preprocessor.config)
    pixels = np.stack([prepare(square) for square in squares])  # (N, 2, 3, H, W)
    looks = [(0, 0), (0, 2), (1, 1), (1, 3)]
    turned = [np.rot90(pixels[:, scale], quarter, axes=(2, 3)) for scale, quarter in looks]
    with torch.inference_mode():
        expected = np.mean([loaded(torch.tensor(one.copy())).full.numpy() for one in turned], 0)
    np.testing.assert_allclose(found.embeddings.full, expected, atol=1e-4)


def test_nothing_is_computed_twice(
    loaded: CleverModel, files: list[Path], tmp_path: Path, computed: list[int]
) -> None:
    embed_photos(loaded, files[:2], cache=tmp_path)
    embed_photos(loaded, files[::-1], cache=tmp_path)
    assert sum(computed) == 4
    Image.open(files[0]).convert("RGB").resize((80, 80)).save(files[0])
    embed_photos(loaded, files, cache=tmp_path)
    assert sum(computed) == 5, "the photo that was changed, and no other"
    embed_photos(loaded, files, cache=tmp_path, averaged=True)
    assert sum(computed) == 5 + 16, "another kind is kept apart"


def test_what_was_done_before_an_interruption_is_kept(
    loaded: CleverModel,
    files: list[Path],
    tmp_path: Path,
    computed: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encode = loaded.encode_batches

    def interrupted(images: Any, **options: Any) -> Any:
        yield next(iter(encode(images, batch_size=2, **options)))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(loaded, "encode_batches", interrupted)
        with pytest.raises(KeyboardInterrupt):
            embed_photos(loaded, files, cache=tmp_path)
    computed.clear()
    embed_photos(loaded, files, cache=tmp_path)
    assert sum(computed) == 2


def test_a_damaged_file_of_the_cache_is_computed_again(
    loaded: CleverModel, files: list[Path], tmp_path: Path, computed: list[int]
) -> None:
    first = embed_photos(loaded, files, cache=tmp_path)
    (shard,) = tmp_path.rglob("*.parquet")
    shard.write_bytes(shard.read_bytes()[:-100])
    again = embed_photos(loaded, files, cache=tmp_path)
    assert sum(computed) == 8
    np.testing.assert_allclose(again.embeddings.full, first.embeddings.full, atol=1e-6)


def test_vectors_of_other_photos_are_not_read(
    loaded: CleverModel, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache has all that was ever embedded; most of it is not asked for."""
    for pair in (files[:2], files[2:]):
        embed_photos(loaded, pair, cache=tmp_path)
    read: list[int] = []

    def counted(column: Any) -> Any:
        read.append(len(column))
        return from_column(column)

    monkeypatch.setattr(store, "from_column", counted)
    found = embed_photos(loaded, files[2:], cache=tmp_path)
    assert read == [2, 2], "both parts of one file of the two"
    assert len(found) == 2


def test_floats_have_no_dictionary(loaded: CleverModel, files: list[Path], tmp_path: Path) -> None:
    embed_photos(loaded, files, cache=tmp_path)
    (shard,) = tmp_path.rglob("*.parquet")
    group = pq.ParquetFile(shard).metadata.row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    plain = {c.path_in_schema.partition(".")[0] for c in columns if not c.has_dictionary_page}
    assert plain >= {"invariant", "equivariant"}


def test_many_photos_become_several_files(
    loaded: CleverModel, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "SHARD", 1)
    encode = loaded.encode_batches
    monkeypatch.setattr(
        loaded, "encode_batches", lambda images, **options: encode(images, batch_size=1, **options)
    )
    embed_photos(loaded, files, cache=tmp_path)
    assert len(list(tmp_path.rglob("*.parquet"))) == 4


def test_what_cannot_be_read_is_named_and_left_out(
    loaded: CleverModel, files: list[Path], tmp_path: Path
) -> None:
    files[1].write_bytes(b"no image")
    gone = tmp_path / "gone.jpg"
    paths = [gone, *files]
    for averaged in (False, True):
        done: list[int] = []
        found = embed_photos(
            loaded, paths, cache=tmp_path / "c", averaged=averaged, advance=done.append
        )
        assert found.paths == [files[0], *files[2:]]
        assert [(one.position, one.source) for one in found.embeddings.skipped] == [
            (0, str(gone)),
            (2, str(files[1])),
        ]
        assert len(found.embeddings) == 3
        assert sum(done) == 4
    with pytest.raises(DataError, match=r"none of the 2 photos could be read\n.*no such file"):
        embed_photos(loaded, [gone, files[1]], cache=None)


def test_names_that_are_no_utf8(loaded: CleverModel, files: list[Path], tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    odd.write_bytes(files[0].read_bytes())
    for _ in range(2):
        assert embed_photos(loaded, [odd], cache=tmp_path).paths == [odd]
    other = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe8.png"))
    assert photo_path(photo_name(odd)) == odd
    assert photo_path(photo_name(files[0])) == files[0]
    assert photo_name(other) != photo_name(odd)


def test_a_cache_that_cannot_be_written_costs_no_work(
    loaded: CleverModel, files: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    found = embed_photos(loaded, files, cache=tmp_path / "cache")
    assert len(found) == len(files)
    assert "is not kept" in caplog.text


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLEVER_HUB_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("CLEVER_HUB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "clever-hub"


def test_another_split_or_another_size_of_input_is_another_model(
    loaded: CleverModel, files: list[Path], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    embed_photos(loaded, files, cache=cache)
    whole = loaded.encode(files, decode="reduced").full
    config = loaded.config
    loaded.config = replace(config, invariant_dim=config.invariant_dim - 2)
    found = embed_photos(loaded, files, cache=cache).embeddings
    assert found.equivariant.shape[1] == config.equivariant_dim + 2
    np.testing.assert_allclose(found.full, whole, atol=1e-5)
    loaded.config = config
    loaded.preprocessor = Preprocessor(replace(config.preprocessing, resize_size=64))
    assert np.abs(embed_photos(loaded, files, cache=cache).embeddings.full - whole).max() > 1e-3
