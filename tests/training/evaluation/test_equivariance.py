"""Equivariance tells a feature that turns with the photo from one that does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from clever_hub.backends.torch import CleverModel
from clever_hub.config import PreprocessingConfig
from clever_training.data.labelled import LabelledPhotos
from clever_training.data.photos import Photos
from clever_training.evaluation import equivariance, linear, rotation_map, strengths
from clever_training.evaluation.context import Context, Profile
from clever_training.evaluation.data import Splits
from clever_training.evaluation.equivariance import degrees_off, run_equivariance
from clever_training.evaluation.features import FeatureStore
from clever_training.evaluation.models import ModelFeatures
from clever_training.evaluation.perturbations import UPRIGHT
from clever_training.evaluation.protocols import PROTOCOLS
from clever_training.evaluation.results import Figures
from clever_training.evaluation.rotation_map import pose_figures

PROFILE = Profile("test", None, None, 1, random_models=False)


@dataclass
class Toy:
    """Sees a ramp of grey on a photo: the direction it rises in, and nothing else.

    Its invariant part is how steep the ramp is, its equivariant part the direction as (cos, sin).
    """

    name: str = "toy"
    identity: str = "toy"
    preprocessing: PreprocessingConfig = field(default_factory=lambda: PreprocessingConfig(32, 32))
    parts: dict[str, slice] = field(
        default_factory=lambda: {
            "full": slice(0, 4),
            "invariant": slice(0, 2),
            "equivariant": slice(2, 4),
        }
    )

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "identity": self.identity}

    def prepare(self, image: Image.Image) -> NDArray[np.float32]:
        return np.asarray(image, dtype=np.float32).transpose(2, 0, 1)

    def embed(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        grey = batch.mean(axis=1)
        place = np.linspace(-1, 1, 32)
        right = (grey * place).mean(axis=(1, 2))
        up = -(grey * place[:, None]).mean(axis=(1, 2))
        steep = np.hypot(right, up)
        found = np.stack([steep, grey.mean(axis=(1, 2)), right / steep, up / steep], axis=1)
        return found.astype(np.float32)


class Ramps(LabelledPhotos):
    """Photos of ramps that rise to the right, some steeper than others."""

    def __getitem__(self, position: int) -> Image.Image:
        random = np.random.default_rng(int(self.indices[position]))
        ramp = 124 + np.linspace(-1, 1, 32) * random.uniform(40, 90)
        pixels = np.tile(ramp[None, :, None], (32, 1, 3))
        return Image.fromarray(pixels.astype(np.uint8))


def ramps(first: int, count: int) -> Ramps:
    rows = np.arange(first, first + count)
    return Ramps(Photos("ramps", rows, "image"), rows % 2, ("even", "odd"), "ramps", rows)


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Figures:
    store = FeatureStore(tmp_path_factory.mktemp("toy"))
    splits = Splits(ramps(0, 300), ramps(1000, 80))
    return run_equivariance(Context(Toy(), splits, store, PROFILE, 0))


def test_a_feature_that_turns_with_the_photo_has_r2_near_one(figures: Figures) -> None:
    rotation = figures["rotation"]["equivariant"]
    assert rotation["ridge_r2"] > 0.97
    assert rotation["mlp_r2"] > 0.9
    assert rotation["ridge_degrees"] < 6
    assert figures["quarter-turns"]["equivariant"]["top1"] == 100
    assert figures["rotation-map"]["equivariant"]["pose_hit1"] > 90


def test_a_feature_that_does_not_has_r2_near_zero(figures: Figures) -> None:
    rotation = figures["rotation"]["invariant"]
    assert abs(rotation["ridge_r2"]) < 0.1
    assert rotation["mlp_r2"] < 0.15
    assert 35 < rotation["ridge_degrees"] < 60  # 45 by chance
    assert figures["quarter-turns"]["invariant"]["top1"] < 50
    assert figures["rotation-map"]["invariant"]["pose_hit1"] < 25  # 7.7 by chance


def test_the_slice_is_as_wide_as_the_equivariant_part(figures: Figures) -> None:
    assert set(figures["rotation"]) == {"full", "invariant", "equivariant", "invariant_slice"}
    # Here the two are equally wide: the slice is the whole invariant part.
    assert figures["rotation"]["invariant_slice"]["ridge_r2"] == pytest.approx(
        figures["rotation"]["invariant"]["ridge_r2"]
    )


@pytest.mark.parametrize(
    ("truth", "answer", "away"), [(170, -170, 20), (0, 0, 0), (90, -90, 180), (-80, 10, 90)]
)
def test_angles_differ_the_shorter_way_round(truth: float, answer: float, away: float) -> None:
    pair = [np.array([[np.sin(a), np.cos(a)]], np.float32) for a in np.deg2rad([truth, answer])]
    assert degrees_off(pair[0], 3 * pair[1]) == pytest.approx(away, abs=1e-3)


def test_perfect_predictions_find_pose_and_photo_and_invariant_ones_the_photo_alone() -> None:
    random = np.random.default_rng(0)
    turning = random.normal(size=(40, 13, 16)).astype(np.float32)
    assert set(pose_figures(turning, turning).values()) == {1.0, 100.0}
    still = np.repeat(random.normal(size=(40, 1, 16)), 13, axis=1).astype(np.float32)
    found = pose_figures(still, still)
    assert (found["photo_hit1"], found["pose_hit1"], found["pose_hit5"]) == (100, 0, 0)


@pytest.fixture
def few_strengths(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    few = {name: (neutral, neutral + 0.5) for name, neutral in strengths.NEUTRAL.items()}
    monkeypatch.setattr(strengths, "SWEEPS", {**few, "crop": (1.0, 0.5)})
    return iter(())


@pytest.mark.usefixtures("few_strengths")
def test_nothing_is_fitted_on_validation_photos(
    tiny_model: CleverModel, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every protocol, every row of every fit: no value of a validation feature may be in it."""
    seen: list[NDArray[np.float32]] = []

    def spy(module: Any, name: str) -> None:
        original = getattr(module, name)

        def recording(features: NDArray[np.float32], *rest: Any, **options: Any) -> Any:
            seen.append(features)
            return original(features, *rest, **options)

        monkeypatch.setattr(module, name, recording)

    for module, names in {
        linear: ["fit_probe"],
        equivariance: ["fit_probe", "fit_ridge", "fit_mlp"],
        rotation_map: ["fit_ridge"],
    }.items():
        for name in names:
            spy(module, name)
    asked: list[NDArray[np.float32]] = []

    class Watched(FeatureStore):
        def features(self, extractor: Any, photos: Any, *rest: Any, **options: Any) -> Any:
            found = super().features(extractor, photos, *rest, **options)
            if photos.fingerprint == splits.validation.fingerprint:
                asked.append(found)
            return found

    context = Context(ModelFeatures(tiny_model, "tiny"), splits, Watched(tmp_path), PROFILE, 0)
    for name in PROTOCOLS:
        PROTOCOLS[name].run(context)
    forbidden, fitted = (np.unique(np.concatenate([m.ravel() for m in ms])) for ms in (asked, seen))
    assert len(seen) > 20
    # Both are continuous: a handful may meet by chance in float32, a leaked row has 96 of them.
    assert np.isin(forbidden, fitted).mean() < 0.01
    assert np.isin(context.train(UPRIGHT), fitted).all()
