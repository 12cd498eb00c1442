"""A teacher's embeddings: of clean, whole photos, kept by photo and teacher."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from clever_hub.backends.torch import CleverModel, write_model_folder
from clever_hub.config import ModelConfig, PreprocessingConfig
from clever_hub.errors import DataError, ModelNotFoundError, TrainingError
from clever_training.data.embeddings import (
    load_embeddings,
    photo_hashes,
    placeholder,
    teacher_embeddings,
)
from clever_training.data.photos import Photos, load_photos
from clever_training.data.teacher import CleanPhoto, Teacher
from clever_training.views.decode import EncodedPhoto


def write_teacher(folder: Path, seed: int = 0) -> Path:
    """A model folder of a small ResNet with random weights and a normalisation of its own."""
    torch.manual_seed(seed)
    config = ModelConfig(
        name="clever-teacher",
        architecture="test_resnet",
        num_features=96,
        invariant_dim=76,
        preprocessing=PreprocessingConfig(40, 32, "bilinear", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
    )
    return write_model_folder(folder, config, CleverModel(config).backbone.state_dict())


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module")
def teacher(teacher_folder: Path) -> Teacher:
    return Teacher(str(teacher_folder))


@pytest.fixture(scope="module")
def tiles(photo_folder: Path) -> Photos:
    return load_photos(str(photo_folder))


class Counting:
    """Stands before a teacher and counts the photos that it has embedded."""

    def __init__(self, teacher: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, embed = 0, teacher.embed

        def counted(photos: NDArray[np.uint8]) -> torch.Tensor:
            self.count += len(photos)
            return embed(photos)

        monkeypatch.setattr(teacher, "embed", counted)


def test_it_is_fed_as_its_weights_were_trained(teacher: Teacher, teacher_folder: Path) -> None:
    """Its own size, mean and deviation; the cache's key knows all of them."""
    assert (teacher.name, teacher.dim, teacher.size) == ("clever-teacher", 96, 32)
    photo = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    pixels = torch.from_numpy((photo / 255.0 - 0.5) / 0.25).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        expected = teacher.backbone(pixels)
    torch.testing.assert_close(teacher.embed(photo), expected, rtol=1e-4, atol=1e-5)
    larger = Teacher(str(teacher_folder), size=48)
    assert larger.size == 48
    assert larger.digest != teacher.digest
    assert Teacher(str(teacher_folder)).digest == teacher.digest


def test_it_may_compute_in_bf16_under_another_key(teacher: Teacher, teacher_folder: Path) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    half = Teacher(str(teacher_folder), precision="bf16")
    embedded, exact = half.embed(photo), teacher.embed(photo)
    assert embedded.dtype == torch.float32
    assert not torch.equal(embedded, exact)
    assert torch.cosine_similarity(embedded, exact).item() > 0.999
    assert half.digest != teacher.digest


def test_a_photo_is_seen_whole_whatever_its_shape(tmp_path: Path) -> None:
    pixels = np.zeros((60, 240, 3), dtype=np.uint8)
    pixels[:, :40] = 255  # what a centre crop would cut off
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    clean = CleanPhoto(32)(EncodedPhoto(str(tmp_path / "wide.png")))
    assert clean.shape == (32, 32, 3)
    assert (clean[:, :4] > 250).all()
    assert (clean[:, 8:] < 5).all()


def test_embeddings_are_those_of_the_photos_by_number(
    teacher: Teacher, tiles: Photos, tmp_path: Path
) -> None:
    teacher_embeddings(teacher, tiles, folder=tmp_path)
    found = load_embeddings(teacher, tiles, folder=tmp_path)
    assert (len(found), found.dim) == (48, 96)
    some = [7, 3, 3, 40]
    expected = teacher.embed(np.stack([teacher.prepare(tiles.open(n)) for n in some]))
    np.testing.assert_allclose(found[some], expected, rtol=2e-3, atol=1e-4)
    np.testing.assert_allclose(found.mean(), found[range(48)].mean(axis=0), rtol=1e-4)


def test_what_is_known_is_not_embedded_again_and_a_stop_loses_one_part(
    teacher: Teacher, tiles: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clever_training.data.embeddings._PART", 16)
    counting = Counting(teacher, monkeypatch)

    def stop(done: int, total: int) -> None:
        assert total == 48
        if done == 32:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        teacher_embeddings(teacher, tiles, folder=tmp_path, advance=stop)
    assert counting.count == 32
    teacher_embeddings(teacher, tiles, folder=tmp_path)
    assert counting.count == 32 + 32, "the part that was whole is kept"
    teacher_embeddings(teacher, tiles, folder=tmp_path)
    assert counting.count == 64
    assert len(load_embeddings(teacher, tiles, folder=tmp_path)) == 48


def test_photos_are_known_by_their_content_not_by_their_place(
    teacher: Teacher,
    photo_folder: Path,
    tiles: Photos,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache, moved = tmp_path / "cache", tmp_path / "moved"
    teacher_embeddings(teacher, tiles, folder=cache)
    moved.mkdir()
    for place, path in enumerate(sorted(photo_folder.iterdir(), reverse=True)):
        shutil.copy(path, moved / f"{place:02}.png")
    others, counting = load_photos(str(moved)), Counting(teacher, monkeypatch)
    teacher_embeddings(teacher, others, folder=cache)
    assert counting.count == 0
    forward = load_embeddings(teacher, tiles, folder=cache)[range(48)]
    backward = load_embeddings(teacher, others, folder=cache)[range(48)]
    assert np.array_equal(photo_hashes(tiles), photo_hashes(others)[::-1])
    assert np.array_equal(forward, backward[::-1])


def test_files_are_hashed_once_where_the_hashes_are_handed_on(
    teacher: Teacher, tiles: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher_embeddings(teacher, tiles, folder=tmp_path / "read")
    expected = load_embeddings(teacher, tiles, folder=tmp_path / "read")[range(48)]
    keys = photo_hashes(tiles)
    monkeypatch.delattr("clever_training.data.embeddings.photo_hashes")
    teacher_embeddings(teacher, tiles, keys=keys, folder=tmp_path / "known")
    found = load_embeddings(teacher, tiles, keys=keys, folder=tmp_path / "known")
    assert np.array_equal(found[range(48)], expected)


def test_hashes_are_of_the_files_and_the_first_unreadable_one_is_named(
    photo_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(photo_folder, tmp_path / "photos")
    photos, paths = load_photos(str(folder)), sorted(folder.iterdir())
    expected = [hashlib.sha256(path.read_bytes()).digest()[:16] for path in paths]
    assert [bytes(key) for key in photo_hashes(photos)] == expected
    for row in (31, 17, 40):
        paths[row].unlink()
    with pytest.raises(DataError, match="row 17 cannot be read"):
        photo_hashes(photos)


def test_a_cache_of_other_photos_or_of_another_teacher_is_never_used(
    teacher: Teacher, tiles: Photos, photo_folder: Path, tmp_path: Path
) -> None:
    teacher_embeddings(teacher, tiles, folder=tmp_path / "cache")
    other = Teacher(str(write_teacher(tmp_path / "other", seed=1)))
    with pytest.raises(DataError, match=r"48 of 48 photos.*no embedding by clever-teacher"):
        load_embeddings(other, tiles, folder=tmp_path / "cache")
    changed = shutil.copytree(photo_folder, tmp_path / "changed")
    path = min(changed.iterdir())
    Image.open(path).rotate(90).save(path)
    with pytest.raises(DataError, match=r"1 of 48 photos, the first of them row 0.*other photos"):
        load_embeddings(teacher, load_photos(str(changed)), folder=tmp_path / "cache")


def test_processes_share_the_work(
    teacher: Teacher, tiles: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting(teacher, monkeypatch)
    teacher_embeddings(teacher, tiles, folder=tmp_path / "a", share=(1, 2))
    assert counting.count == 24
    with pytest.raises(DataError, match="24 of 48 photos"):
        load_embeddings(teacher, tiles, folder=tmp_path / "a")
    # The other one begins later, and does what is then missing, or all of it at the same time.
    teacher_embeddings(teacher, tiles, folder=tmp_path / "a", share=(0, 1))
    assert counting.count == 48
    assert len(load_embeddings(teacher, tiles, folder=tmp_path / "a")) == 48


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(b"half"), "not a part of a cache"),
        (lambda path: np.save(path, np.zeros((3, 4), np.float16)), "expected entries of"),
    ],
)
def test_a_damaged_part_is_named(
    spoil: Callable[[Path], None], message: str, teacher: Teacher, tiles: Photos, tmp_path: Path
) -> None:
    teacher_embeddings(teacher, tiles, folder=tmp_path)
    spoil(next(tmp_path.rglob("part-*.npy")))
    with pytest.raises(TrainingError, match=message):
        load_embeddings(teacher, tiles, folder=tmp_path)


def test_a_part_that_cannot_be_opened_is_not_to_be_removed(
    teacher: Teacher, tiles: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def many(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    teacher_embeddings(teacher, tiles, folder=tmp_path)
    monkeypatch.setattr("clever_training.data.embeddings.np.load", many)
    with pytest.raises(TrainingError, match=r"Too many open files.*are not lost") as raised:
        load_embeddings(teacher, tiles, folder=tmp_path)
    assert "Remove" not in str(raised.value)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts descriptors by /proc")
def test_parts_take_no_descriptors(teacher: Teacher, tiles: Photos, tmp_path: Path) -> None:
    teacher_embeddings(teacher, tiles, folder=tmp_path)
    (part,) = tmp_path.rglob("part-*.npy")
    for number in range(20):
        shutil.copy(part, part.with_name(f"part-{number:016x}.npy"))
    before = len(list(Path("/proc/self/fd").iterdir()))
    found = load_embeddings(teacher, tiles, folder=tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    expected = np.load(part)["embedding"].astype(np.float32)
    np.testing.assert_array_equal(found[range(len(tiles))], expected)
    np.testing.assert_allclose(found.mean(), expected.mean(axis=0), rtol=1e-3, atol=1e-3)


def test_a_full_disk_is_said(
    teacher: Teacher, tiles: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("clever_training.data.embeddings.np.save", full)
    with pytest.raises(TrainingError, match=r"No space left.*CLEVER_HUB_CACHE"):
        teacher_embeddings(teacher, tiles, folder=tmp_path)
    assert not list(tmp_path.rglob("*.npy"))


def test_a_teacher_that_does_not_exist_is_named() -> None:
    for name in ("timm:no_such_net", "no-such-model"):
        with pytest.raises(ModelNotFoundError, match="no"):
            Teacher(name)


def test_a_placeholder_has_the_same_for_every_photo() -> None:
    found = placeholder(np.arange(3, dtype=np.float32), 5)
    assert len(found) == 5
    assert found[[4, 0]].tolist() == [[0, 1, 2], [0, 1, 2]]
