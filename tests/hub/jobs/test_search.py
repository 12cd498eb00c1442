"""The index on disk: what is added, changed and dropped, and what is found by which part."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from clever_hub.backends.torch import CleverModel
from clever_hub.embeddings import Embeddings
from clever_hub.errors import ConfigError, DataError
from clever_hub.jobs import search
from clever_hub.jobs.search import ABOUT, PhotoIndex
from clever_hub.pretrained import from_pretrained

pytest.importorskip("lancedb", reason="needs the extra search")


@pytest.fixture
def loaded(model_folder: Path) -> CleverModel:
    return from_pretrained(model_folder)


@pytest.fixture
def files(photos: dict[str, Path], tmp_path: Path) -> list[Path]:
    """Each photo upright and turned by 90 degrees, in a folder with a quote in its name."""
    folder = tmp_path / "it's photos"
    folder.mkdir()
    paths = []
    for name, path in photos.items():
        photo = Image.open(path).convert("RGB")
        for turn in (0, 90):
            paths.append(folder / f"{name}-{turn}.png")
            photo.rotate(turn, expand=True).save(paths[-1])
    return paths


@pytest.fixture
def index(loaded: CleverModel, files: list[Path], tmp_path: Path) -> PhotoIndex:
    made = PhotoIndex.open_or_create(tmp_path / "photos.lance", loaded, files)
    changes = made.update(loaded, files)
    assert (changes.added, changes.kept, len(made)) == (8, 0, 8)
    return made


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    products: NDArray[np.float32] = a @ b / np.linalg.norm(a, axis=1) / np.linalg.norm(b)
    return products


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0), (0.7, 0.3)])
def test_the_nearest_are_those_by_numpy(
    loaded: CleverModel, index: PhotoIndex, files: list[Path], weights: tuple[float, float]
) -> None:
    everything, query = loaded.encode(files, decode="reduced"), loaded.encode(files[2])
    parts = [
        cosines(getattr(everything, part), getattr(query, part)[0])
        for part in ("invariant", "equivariant")
    ]
    expected = (weights[0] * parts[0] + weights[1] * parts[1]) / sum(weights)
    hits = index.search(query, weights=weights, k=5)
    order = np.argsort(-expected)[:5]
    assert [hit.path for hit in hits] == [files[row] for row in order]
    np.testing.assert_allclose([hit.score for hit in hits], expected[order], atol=1e-5)
    np.testing.assert_allclose([hit.equivariant for hit in hits], parts[1][order], atol=1e-5)


def test_an_update_touches_only_what_changed(
    loaded: CleverModel, index: PhotoIndex, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    embed = loaded._embed_batch

    def counted(pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        sizes.append(len(pixel_values))
        return embed(pixel_values)

    monkeypatch.setattr(loaded, "_embed_batch", counted)
    files[0].unlink()
    shutil.copy(files[3], files[1])
    shutil.copy(files[2], files[2].with_name("new.png"))
    paths = [*files[1:], files[2].with_name("new.png")]
    changes = index.update(loaded, paths)
    assert (changes.added, changes.changed, changes.dropped, changes.kept) == (1, 1, 1, 6)
    assert sum(sizes) == 2
    again = PhotoIndex.open(index.folder)
    assert len(again) == 8
    best = again.search(loaded.encode(files[3]), k=2)
    assert {hit.path.name for hit in best} == {files[1].name, files[3].name}


def test_a_photo_that_changes_meanwhile_is_embedded_by_the_next_update(
    loaded: CleverModel, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed, photo = loaded._embed_batch, files[3].read_bytes()

    def changing(pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        files[0].write_bytes(photo)
        return embed(pixel_values)

    made = PhotoIndex.open_or_create(tmp_path / "photos.lance", loaded, files)
    monkeypatch.setattr(loaded, "_embed_batch", changing)
    made.update(loaded, files)
    monkeypatch.setattr(loaded, "_embed_batch", embed)
    changes = made.update(loaded, files)
    assert (changes.changed, changes.kept) == (1, 7)
    best = made.search(loaded.encode(files[0]), k=2)
    assert {hit.path for hit in best} == {files[0], files[3]}


def test_photos_elsewhere_stay_as_long_as_their_files_are_there(
    loaded: CleverModel, index: PhotoIndex, files: list[Path]
) -> None:
    assert index.update(loaded, files[:1]).dropped == 0
    assert len(index) == 8
    files[5].unlink()
    assert index.update(loaded, files[:1]).dropped == 1


def test_what_cannot_be_read_is_left_out(
    loaded: CleverModel, index: PhotoIndex, files: list[Path]
) -> None:
    files[0].write_bytes(b"no image")
    changes = index.update(loaded, files)
    assert [one.source for one in changes.skipped] == [str(files[0])]
    assert (changes.changed, len(index)) == (0, 7), "its old vectors would say what it was"


def test_what_was_written_before_an_interruption_is_there(
    loaded: CleverModel, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_CHUNK", 3)
    made = PhotoIndex.open_or_create(tmp_path / "i.lance", loaded, files)
    write, calls = made._write, []

    def interrupted(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return write(*args)

    with monkeypatch.context() as patched:
        patched.setattr(made, "_write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            made.update(loaded, files)
    again = PhotoIndex.open(str(tmp_path / "i.lance"))
    assert len(again) == 6
    changes = again.update(loaded, [str(file) for file in files])
    assert (changes.added, changes.kept) == (2, 6)


def test_an_approximate_index_finds_the_same(
    loaded: CleverModel, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "many"
    folder.mkdir()
    many = [folder / f"{number:03}.png" for number in range(300)]
    for path in many:
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).resize((40, 40)).save(path)
    monkeypatch.setattr(search, "APPROXIMATE_FROM", 300)
    made = PhotoIndex.open_or_create(tmp_path / "i.lance", loaded, many)
    made.update(loaded, many)
    assert {column for index in made._table.list_indices() for column in index.columns} == {
        "invariant",
        "equivariant",
    }
    query = loaded.encode(files[0])
    near, all_of_them = (
        {hit.path for hit in made.search(query, k=10, exact=exact)} for exact in (False, True)
    )
    assert len(near & all_of_them) >= 8
    made.update(loaded, [*many, *files])
    assert made.search(query, k=1)[0].path == files[0]


def test_old_versions_go_and_who_has_the_index_open_goes_on(
    loaded: CleverModel,
    index: PhotoIndex,
    files: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search, "_CHUNK", 1)
    for file in files:
        os.utime(file, (0, 0))
    assert index.update(loaded, files).changed == 8
    reader = PhotoIndex.open(index.folder)
    query = loaded.encode(files[0])
    assert len(reader.search(query, k=9)) == 8
    with monkeypatch.context() as patched:
        patched.setattr(search, "APPROXIMATE_FROM", 0)
        patched.setattr(search, "_KEPT", timedelta(milliseconds=1))
        patched.setattr(PhotoIndex, "_parts", lambda _: [])  # eight rows are too few for those
        index._approximate()
    assert len(index._table.list_versions()) == 1
    assert len(reader.search(query, k=9)) == 8


def test_no_photo_is_read_a_second_time_for_its_hash(
    index: PhotoIndex, files: list[Path], loaded: CleverModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    open_file = Path.open

    def spied(path: Path, *how: Any, **more: Any) -> Any:
        opened.append(path)
        return open_file(path, *how, **more)

    monkeypatch.setattr(Path, "open", spied)
    for file in files[:2]:
        os.utime(file, (0, 0))
    assert index.update(loaded, files).changed == 2
    assert sorted(path for path in opened if path in files) == sorted(files[:2])


def test_an_index_with_hashes_is_followed(
    index: PhotoIndex, files: list[Path], loaded: CleverModel
) -> None:
    """Earlier versions wrote them."""
    index._table.update(values={"sha256": "0" * 64})
    os.utime(files[0], (0, 0))
    files[1].unlink()
    changes = index.update(loaded, [files[0], *files[2:]])
    assert (changes.changed, changes.dropped, changes.kept) == (1, 1, 6)
    assert index.search(loaded.encode(files[0]), k=1)[0].path == files[0]


def test_another_model_is_refused(
    index: PhotoIndex, files: list[Path], loaded: CleverModel
) -> None:
    other = from_pretrained("clever-resnet18")
    with pytest.raises(DataError, match=r"the index is of clever-tiny .*, not of clever-resnet18"):
        PhotoIndex.open_or_create(index.folder, other, files)
    split = loaded.config
    loaded.config = replace(split, invariant_dim=18)
    with pytest.raises(DataError, match="with another split or another input"):
        PhotoIndex.open_or_create(index.folder, loaded, files)
    loaded.config = split
    with pytest.raises(DataError, match="19 and 5 entries, the embedding of 409 and 103"):
        index.search(other.encode(files[0]))
    with pytest.raises(ConfigError, match="of one image, got 2"):
        index.search(loaded.encode(files[:2]))
    with pytest.raises(DataError, match="search: expected Embeddings, as model"):
        index.search(loaded.encode(files[0]).full)  # type: ignore[arg-type]
    wrong: tuple[dict[str, Any], ...] = ({"k": 0}, {"k": 2.5}, {"weights": (1.0,)})
    for options in (*wrong, {"weights": (0.0, 0.0)}, {"weights": (-1.0, 2.0)}):
        with pytest.raises(ConfigError, match=r"k: expected 1 or more|weights: expected two of"):
            index.search(loaded.encode(files[0]), **options)


def test_a_model_without_an_equivariant_part(index: PhotoIndex) -> None:
    with pytest.raises(DataError, match="another model"):
        index.search(Embeddings(np.ones((1, 19), np.float32), np.ones((1, 0), np.float32)))


def test_what_is_no_index_is_refused(
    loaded: CleverModel, files: list[Path], index: PhotoIndex, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"no index of photos\. Make one"):
        PhotoIndex.open(tmp_path)
    with pytest.raises(DataError, match="is not an index of photos"):
        PhotoIndex.open_or_create(files[0].parent, loaded, files)
    about = index.folder / ABOUT
    content = json.loads(about.read_text())
    about.write_text(json.dumps({key: v for key, v in content.items() if key != "config"}))
    PhotoIndex.open(index.folder).check(loaded)  # made before configs were compared
    about.write_text(json.dumps({**content, "format": 9}))
    with pytest.raises(DataError, match="format 9, this version reads 1"):
        PhotoIndex.open(index.folder)
    about.write_text("{")
    with pytest.raises(DataError, match="damaged"):
        PhotoIndex.open(index.folder)


def test_two_names_that_are_no_text_are_two_photos(
    loaded: CleverModel, files: list[Path], tmp_path: Path
) -> None:
    odd = [Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)) for name in (b"\xe8", b"\xe9")]
    for source, target in zip(files[::2], odd, strict=False):
        shutil.copy(source, target)
    made = PhotoIndex.open_or_create(tmp_path / "odd.lance", loaded, odd)
    assert made.update(loaded, odd).added == len(made) == 2
    assert [made.search(loaded.encode(path), k=1)[0].path for path in odd] == odd
    odd[0].unlink()
    changes = made.update(loaded, odd[1:])
    assert (changes.dropped, changes.kept) == (1, 1)


def test_photos_that_cannot_be_read_any_more_are_dropped_and_say_why(
    index: PhotoIndex, loaded: CleverModel, files: list[Path]
) -> None:
    for path in files:
        path.write_bytes(b"no image")
    changes = index.update(loaded, files)
    assert (changes.dropped, changes.changed, len(index)) == (8, 0, 0)
    assert all("not an image" in one.reason for one in changes.skipped)


def test_an_index_finds_its_model_from_any_folder(
    model_folder: Path, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model_folder.parent)
    loaded = from_pretrained(Path(model_folder.name))
    made = PhotoIndex.open_or_create(tmp_path / "photos.lance", loaded, files)
    assert made.about.source == str(model_folder)


def test_weights_that_are_no_numbers(
    index: PhotoIndex, loaded: CleverModel, files: list[Path]
) -> None:
    for weights in ((float("nan"), 1.0), (float("inf"), 1.0)):
        with pytest.raises(ConfigError, match="weights"):
            index.search(loaded.encode(files[0]), weights=weights)


def test_two_updates_at_once_are_refused(
    loaded: CleverModel, index: PhotoIndex, files: list[Path]
) -> None:
    import filelock

    lock = filelock.FileLock(index.folder / ".lock")
    with lock, pytest.raises(DataError, match="another process is updating this index"):
        index.update(loaded, files)
    assert index.update(loaded, files).kept == 8


def test_photos_that_were_stored_twice_are_stored_once_again(
    loaded: CleverModel, index: PhotoIndex, files: list[Path]
) -> None:
    """Two updates at once did so in earlier versions."""
    index._table.add(index._table.to_arrow().slice(0, 3))
    assert len(index) == 11
    index.update(loaded, files)
    assert len(index) == 8
    hits = index.search(loaded.encode(files[0]), k=8)
    assert sorted(hit.path for hit in hits) == sorted(files)


def test_k_may_be_larger_than_the_index(
    loaded: CleverModel, index: PhotoIndex, files: list[Path]
) -> None:
    query = loaded.encode(files[0])
    for weights in ((1.0, 0.0), (0.5, 0.5)):
        assert len(index.search(query, weights=weights, k=10**9)) == 8


def test_a_normalised_query_is_refused(
    loaded: CleverModel, index: PhotoIndex, files: list[Path]
) -> None:
    with pytest.raises(DataError, match="normalised"):
        index.search(loaded.encode(files[0], normalize=True))


def test_the_decoding_of_an_index_is_its_own(
    loaded: CleverModel, index: PhotoIndex, files: list[Path], tmp_path: Path
) -> None:
    assert PhotoIndex.open_or_create(index.folder, loaded, files).about.decode == "reduced"
    with pytest.raises(ConfigError, match=r"decode: the photos of .* by 'reduced', got 'exact'"):
        PhotoIndex.open_or_create(index.folder, loaded, files, "exact")
    with pytest.raises(ConfigError, match="decode: expected one of reduced, exact, got 'fast'"):
        PhotoIndex.open_or_create(tmp_path / "new", loaded, files, "fast")
    assert not (tmp_path / "new").exists()


def test_an_index_that_could_not_be_begun_leaves_nothing(
    loaded: CleverModel, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(search, "write_json", stopped)
        with pytest.raises(KeyboardInterrupt):
            PhotoIndex.open_or_create(tmp_path / "new", loaded, files)
    index = PhotoIndex.open_or_create(tmp_path / "new", loaded, files)
    assert index.update(loaded, files).added == 8


def test_a_photo_is_in_an_index_by_any_path_to_its_folder(
    index: PhotoIndex, files: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(files[0].parent)
    assert files[0] in index
    assert tmp_path / "link" / files[0].name in index
    assert files[0].with_name("other.png") not in index
    assert tmp_path / "elsewhere" / files[0].name not in index


def test_one_path_is_looked_up_without_the_others(
    index: PhotoIndex, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PhotoIndex, "_rows", None)
    assert files[0] in index
    assert str(files[0]) in index
    assert files[0].with_name("other.png") not in index
