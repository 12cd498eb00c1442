"""t-SNE maps: the same photos for every model, and numbers that find what was planted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from clever_hub.backends.torch import CleverModel
from clever_hub.errors import DataError
from clever_training.cli.report import _maps
from clever_training.evaluation.data import Splits
from clever_training.evaluation.features import FeatureStore
from clever_training.evaluation.models import ModelFeatures, PixelFeatures
from clever_training.evaluation.report import tsne
from clever_training.evaluation.report.tsne import (
    NEIGHBOURS,
    TURNS,
    Turned,
    chance_of_class,
    choose,
    embed_flat,
    neighbourhood,
    tsne_figure,
    turned,
)


def planted(count: int = 120) -> Turned:
    """One part that knows the class alone, one that knows the angle alone."""
    random = np.random.default_rng(0)
    photos = np.arange(count) // TURNS
    labels = photos % 4
    angles = random.uniform(-90, 90, count)
    noise = random.normal(scale=0.05, size=(count, 8)).astype(np.float32)
    theta = np.radians(angles)
    features = {
        "invariant": noise + np.eye(8, dtype=np.float32)[labels],
        "equivariant": noise
        + np.pad(np.stack([np.sin(theta), np.cos(theta)], 1), ((0, 0), (0, 6))),
    }
    as_float = {name: values.astype(np.float32) for name, values in features.items()}
    return Turned(as_float, labels, angles, photos, ("a", "b", "c", "d"))


def test_neighbours_tell_what_a_part_knows() -> None:
    data = planted()
    same, apart = neighbourhood(data, "invariant")
    # Each class has 10 photos, 27 rows of other photos: enough for 10 neighbours.
    assert same == 100
    assert 45 < apart < 75
    same, apart = neighbourhood(data, "equivariant")
    assert same < 40
    assert apart < 15


def test_of_few_photos_all_others_are_neighbours() -> None:
    data = planted(3 * TURNS)  # of three classes: no photo has another of its class
    assert len(data.labels) < NEIGHBOURS
    for part in data.features:
        same, apart = neighbourhood(data, part)
        assert same == 0
        assert 0 < apart < 180


def test_a_single_photo_has_no_map(splits: Splits) -> None:
    with pytest.raises(DataError, match="expected 2 photos or more for a map, got 1"):
        choose(splits.validation.subset(np.array([0])), points=60)


def test_the_legend_names_long_classes_by_their_first_name_and_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []

    def keep(figure: Figure, path: Path) -> Path:
        figure.canvas.draw()
        drawn.append(figure)
        return path

    monkeypatch.setattr(tsne, "save", keep)
    first = ["academic gown", "black-and-tan coonhound", "American alligator", "beach wagon"]
    same = ["crane, a bird with a long neck"] * 2 + ["crane, a machine that lifts"] * 2
    for names in ([f"{name}, {name} by another name" for name in first], same):
        tsne_figure("planted", replace(planted(60), classes=tuple(names)), tmp_path / "a.png")
    legends = [figure.legends[0] for figure in drawn]
    assert [[text.get_text() for text in legend.get_texts()] for legend in legends] == [first, same]
    for figure, legend in zip(drawn, legends, strict=True):
        box = legend.get_window_extent()
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1


def test_a_map_keeps_classes_together() -> None:
    data = planted()
    flat = embed_flat(data.features["invariant"])
    assert flat.shape == (120, 2)
    distance = np.linalg.norm(flat[:, None] - flat[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert (data.labels[distance.argmin(axis=1)] == data.labels).mean() > 0.95
    np.testing.assert_array_equal(flat, embed_flat(data.features["invariant"]))


def test_every_model_is_asked_with_the_same_turned_photos(
    splits: Splits, tiny_model: CleverModel, tmp_path: Path
) -> None:
    photos = choose(splits.validation, points=60)
    assert np.bincount(photos.labels).tolist() == [5, 5, 5, 5]
    store = FeatureStore(tmp_path)
    data = turned(ModelFeatures(tiny_model, "tiny"), photos, store)
    assert {part: rows.shape for part, rows in data.features.items()} == {
        "full": (60, 96),
        "invariant": (60, 76),
        "equivariant": (60, 20),
    }
    assert data.labels.tolist() == photos.labels.tolist() * TURNS
    assert np.abs(data.angles).max() <= 90
    assert len(np.unique(data.angles)) == 60, "each turn of each photo has its own angle"
    pixels = turned(PixelFeatures(tiny_model.config.preprocessing), photos, store)
    np.testing.assert_array_equal(pixels.angles, data.angles)


@pytest.mark.parametrize("parts", [("invariant", "equivariant"), ("invariant",)])
def test_the_picture_has_a_legend_a_scale_and_a_map(parts: tuple[str, ...], tmp_path: Path) -> None:
    data = planted(60)
    few = Turned(
        {part: data.features[part] for part in parts},
        data.labels,
        data.angles,
        data.photos,
        data.classes,
    )
    picture = Image.open(tsne_figure("planted", few, tmp_path / "a.png")).convert("RGB")
    assert picture.width > 900
    colours = picture.getcolors(picture.width * picture.height)
    assert colours is not None
    assert len(colours) > 100


def test_two_models_of_one_name_get_a_map_each(photo_folder: Path, tmp_path: Path) -> None:
    maps = _maps(
        str(photo_folder), "pixels:4,pixels:8", 60, tmp_path / "page", None, tmp_path / "cache"
    )
    assert [one.name for one in maps] == ["pixels", "pixels-2"]
    assert maps[0].path.read_bytes() != maps[1].path.read_bytes()


@pytest.mark.parametrize("photos_of_each", [2, 10])
def test_chance_is_what_features_that_know_nothing_reach(photos_of_each: int) -> None:
    photos = np.repeat(np.arange(5 * photos_of_each), TURNS)
    labels = photos // photos_of_each
    found = []
    for seed in range(40):
        noise = np.random.default_rng(seed).normal(size=(len(labels), 16)).astype(np.float32)
        data = Turned({"full": noise}, labels, np.zeros(len(labels)), photos, tuple("abcde"))
        found.append(neighbourhood(data, "full")[0])
    assert 100 * chance_of_class(data) == pytest.approx(np.mean(found), abs=1.5)
