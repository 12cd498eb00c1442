"""Features are computed once, and depend on content alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from clever_hub.backends.torch import CleverModel
from clever_hub.errors import DataError
from clever_training.data.labelled import LabelledPhotos, load_labelled
from clever_training.evaluation import features as features_module
from clever_training.evaluation.data import Splits
from clever_training.evaluation.features import FeatureStore
from clever_training.evaluation.models import ModelFeatures
from clever_training.evaluation.perturbations import PLAIN, ROTATED, UPRIGHT, Perturbation, Rotate

INTEGER = datasets.Value("int64")


class Counting(ModelFeatures):
    """Counts the photos that it embeds."""

    photos = 0

    def embed(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        self.photos += len(batch)
        return super().embed(batch)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path)


def test_plain_features_are_what_encode_gives(
    tiny_model: CleverModel, splits: Splits, store: FeatureStore
) -> None:
    photos = splits.validation
    ours = store.features(ModelFeatures(tiny_model, "tiny"), photos, PLAIN)
    encoded = tiny_model.encode([photos[position] for position in range(len(photos))])
    np.testing.assert_allclose(ours, encoded.full, rtol=1e-4, atol=1e-5)


def test_the_same_question_is_answered_from_disk(
    tiny_model: CleverModel, splits: Splits, store: FeatureStore
) -> None:
    first = Counting(tiny_model, "tiny")
    computed = store.features(first, splits.validation, ROTATED, seed=1)
    again = Counting(tiny_model, "the same under another name")
    np.testing.assert_array_equal(
        store.features(again, splits.validation, ROTATED, seed=1), computed
    )
    assert (first.photos, again.photos) == (24, 0)


def test_other_code_is_another_question(
    tiny_model: CleverModel, splits: Splits, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.features(ModelFeatures(tiny_model, "tiny"), splits.validation, PLAIN)
    monkeypatch.setattr(features_module, "_code_digest", lambda: "another version")
    again = Counting(tiny_model, "tiny")
    store.features(again, splits.validation, PLAIN)
    assert again.photos == 24


def test_a_full_disk_costs_the_cache_not_the_features(
    tiny_model: CleverModel, splits: Splits, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("153600 requested and 25568 written")

    monkeypatch.setattr(np, "save", full)
    extractor = ModelFeatures(tiny_model, "tiny")
    with pytest.warns(UserWarning, match=r"features are not kept .*25568 written.*--cache"):
        features = store.features(extractor, splits.validation, PLAIN)
    assert features.shape == (24, 96)
    assert not list(Path(store.folder).iterdir())


def test_another_seed_view_mask_subset_or_angle_is_another_question(
    tiny_model: CleverModel, splits: Splits, store: FeatureStore
) -> None:
    extractor = Counting(tiny_model, "tiny")
    photos = splits.validation
    store.features(extractor, photos, ROTATED, seed=1)
    turned = Perturbation((Rotate(5.0, 5.0),), disc=True)
    others: list[Callable[[], object]] = [
        lambda: store.features(extractor, photos, ROTATED, seed=2),
        lambda: store.features(extractor, photos, ROTATED, seed=1, view=1),
        lambda: store.features(extractor, photos, replace(ROTATED, disc=False), seed=1),
        lambda: store.features(extractor, photos.stratified(8), ROTATED, seed=1),
        lambda: store.features(extractor, photos, turned, seed=1),
    ]
    for other in others:
        before = extractor.photos
        other()
        assert extractor.photos > before


def test_another_image_column_is_another_question(
    tmp_path: Path, tiny_model: CleverModel, splits: Splits, store: FeatureStore
) -> None:
    rows = splits.train.table.select(range(8)).to_dict()
    columns = {"front": rows["image"], "back": rows["image"][::-1]}
    kinds = datasets.Features({**dict.fromkeys(columns, datasets.Image()), "label": INTEGER})
    table = datasets.Dataset.from_dict({**columns, "label": rows["label"]}, kinds)
    table.to_parquet(tmp_path / "two.parquet")
    extractor = ModelFeatures(tiny_model, "tiny")
    found = {
        column: store.features(
            extractor, load_labelled(f"{tmp_path / 'two.parquet'}?image={column}", "train"), PLAIN
        )
        for column in columns
    }
    np.testing.assert_allclose(found["back"], found["front"][::-1], rtol=1e-4, atol=1e-5)


def test_what_draws_nothing_is_shared_by_all_seeds(
    tiny_model: CleverModel, splits: Splits, store: FeatureStore
) -> None:
    extractor = Counting(tiny_model, "tiny")
    for seed in range(3):
        store.features(extractor, splits.validation, UPRIGHT, seed=seed)
    assert extractor.photos == 24


def test_neither_batch_size_nor_subset_changes_a_photos_features(
    tiny_model: CleverModel,
    splits: Splits,
    store: FeatureStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    extractor = ModelFeatures(tiny_model, "tiny")
    whole = store.features(extractor, splits.validation, ROTATED)
    monkeypatch.setattr(features_module, "BATCH_SIZE", 5)
    small = FeatureStore(tmp_path / "other").features(extractor, splits.validation, ROTATED)
    np.testing.assert_allclose(small, whole, rtol=1e-4, atol=1e-5)
    subset = splits.validation.stratified(8)
    few = store.features(extractor, subset, ROTATED)
    np.testing.assert_allclose(few, whole[subset.indices], rtol=1e-4, atol=1e-5)


def test_a_photo_is_decoded_once_for_all_perturbations_as_far_as_memory_goes(
    tiny_model: CleverModel, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    plain = type(splits.validation).__getitem__

    def counting(self: LabelledPhotos, position: int) -> Image.Image:
        decoded.append(position)
        return plain(self, position)

    monkeypatch.setattr(type(splits.validation), "__getitem__", counting)
    extractor = ModelFeatures(tiny_model, "tiny")
    side = extractor.preprocessing.crop_size
    found = []
    for kept in (24, 10, 0):
        monkeypatch.setattr(features_module, "KEPT_BYTES", kept * 3 * side * side)
        store = FeatureStore(tmp_path / str(kept))
        decoded.clear()
        store.features(extractor, splits.validation, PLAIN)
        found.append(store.features(extractor, splits.validation.stratified(12), ROTATED))
        assert len(store._kept) == kept
        if kept in (24, 0):
            assert len(decoded) == (24 if kept else 36)
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(found[0], found[1])


def test_progress_is_reported_to_the_end_and_no_temporary_file_stays(
    tiny_model: CleverModel, splits: Splits, tmp_path: Path
) -> None:
    seen: list[tuple[str, int, int]] = []
    store = FeatureStore(tmp_path, report=lambda *event: seen.append(event))
    store.features(ModelFeatures(tiny_model, "tiny"), splits.train, PLAIN, label="train")
    assert seen[-1] == ("train", 60, 60)
    assert [path.suffix for path in tmp_path.iterdir()] == [".npy"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_embeddings_that_are_not_finite_are_refused_and_not_kept(
    tiny_model: CleverModel,
    splits: Splits,
    store: FeatureStore,
    monkeypatch: pytest.MonkeyPatch,
    value: float,
) -> None:
    class Broken(Counting):
        """Fails at the eighth photo."""

        def embed(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
            first, found = self.photos, super().embed(batch)
            if first <= 7 < self.photos:
                found[7 - first, 3] = value
            return found

    monkeypatch.setattr(features_module, "BATCH_SIZE", 5)
    monkeypatch.setattr(features_module, "PIECE_SECONDS", 0.0)
    photos = splits.validation.subset(np.arange(4, 16))
    with pytest.raises(DataError, match=r"^tiny: expected finite .*validation\.parquet: row 11"):
        store.features(Broken(tiny_model, "tiny"), photos, PLAIN)
    kept = list(Path(store.folder).iterdir())
    assert len(kept) == 1, "the first five photos were good"
    assert np.isfinite(np.load(kept[0])).all()
