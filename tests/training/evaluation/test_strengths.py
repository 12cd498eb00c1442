"""The grid and the sweeps ask what they say, and ask it frugally."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from clever_hub.backends.torch import CleverModel
from clever_training.evaluation import strengths
from clever_training.evaluation.context import SLICE, Context, Profile, rows_of
from clever_training.evaluation.copies import run_invariance, run_retrieval
from clever_training.evaluation.data import Splits, load_splits
from clever_training.evaluation.features import FeatureStore
from clever_training.evaluation.linear import run_linear, run_semi_supervised
from clever_training.evaluation.models import ModelFeatures
from clever_training.evaluation.perturbations import UPRIGHT
from clever_training.evaluation.results import summarize
from clever_training.evaluation.robustness import run_robustness, run_sweeps
from clever_training.evaluation.spread import run_collapse
from clever_training.evaluation.tables import tables
from clever_training.finetune.data import semi_supervised

PROFILE = Profile("test", 40, 20, 1, random_models=False, sweep=8, pairs=16)


class Counting(ModelFeatures):
    """Counts the photos that it embeds."""

    photos = 0

    def embed(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        self.photos += len(batch)
        return super().embed(batch)


@pytest.fixture
def context(
    tiny_model: CleverModel, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Context:
    few = {name: (neutral, neutral + 0.5) for name, neutral in strengths.NEUTRAL.items()}
    monkeypatch.setattr(strengths, "SWEEPS", {**few, "crop": (1.0, 0.5)})
    cut = Splits(splits.train.stratified(40), splits.validation.stratified(20))
    return Context(Counting(tiny_model, "tiny"), cut, FeatureStore(tmp_path), PROFILE, 0)


def extracted(context: Context) -> int:
    assert isinstance(context.extractor, Counting)
    return context.extractor.photos


def test_every_condition_is_seen_through_the_disc() -> None:
    every = [*strengths.GRID.values(), *strengths.sweep_names().values()]
    assert all(perturbation.disc for perturbation in every)


def test_names_say_the_strength_and_neutral_ones_are_the_photo_as_it_is() -> None:
    names = strengths.sweep_names()
    assert [name for name, what in names.items() if what == UPRIGHT] == [
        "rotation/0",
        "crop/1",
        "brightness/1",
        "blur/0",
    ]
    assert len([name for name in names if name.startswith("rotation/")]) == 25
    assert names["rotation/-180"] == names["rotation/180"]
    assert names["rotation/-45"].parameters(3, 7)[0] == (-45.0,)
    _, _, width, height = names["crop/0.2"].parameters(3, 7)[0]
    assert width * height == pytest.approx(0.2)


def test_invariance_retrieval_and_sweeps_share_their_photos(context: Context) -> None:
    run_sweeps(context)
    # 40 upright and 40 rotated for the probes, 20 upright, 8 for each of 4 strengths.
    assert extracted(context) == 40 + 40 + 20 + 4 * 8
    run_invariance(context)
    assert extracted(context) == 132 + 5 * 20  # rotated, and the four of the grid
    run_retrieval(context)
    run_robustness(context)
    assert extracted(context) == 232


def test_seeds_share_sweeps_and_fits_but_not_the_grids_draws(context: Context) -> None:
    first = run_robustness(context)
    run_sweeps(context)
    before, fits = extracted(context), len(context.memory)
    second = replace(context, seed=1)
    run_sweeps(second)
    assert extracted(context) == before
    again = run_robustness(second)
    assert extracted(context) == before + 4 * 20
    assert len(context.memory) == fits
    assert again["upright/original"] == first["upright/original"]


def test_the_grid_names_probe_and_perturbation(context: Context) -> None:
    figures = run_robustness(context)
    assert list(figures) == [
        f"{trained}/{name}" for trained in ("upright", "rotated") for name in strengths.GRID
    ]
    assert set(figures["upright/cj+ro+et"]) == {"full", "invariant", "equivariant"}
    sweeps = run_sweeps(context)
    assert set(sweeps["rotated/crop/0.5"]["full"]) == {"top1"}


def test_the_slice_is_drawn_from_the_invariant_part_by_the_seed(context: Context) -> None:
    columns: Any = [replace(context, seed=s).parts_and_slice()[SLICE] for s in (0, 0, 1)]
    np.testing.assert_array_equal(columns[0], columns[1])
    assert not np.array_equal(columns[0], columns[2])
    assert len(set(columns[0].tolist())) == 20  # 96 dimensions, 76 of them invariant
    assert columns[0].max() < 76
    assert set(run_linear(context)["upright"]) == {"full", "invariant", "equivariant", SLICE}


def test_few_labels_are_shares_of_the_whole_data_set(context: Context) -> None:
    figures = run_semi_supervised(context)
    # 1 % of 60 photos is less than one for each of the 4 classes; 10 % are 6 of the 40 used.
    assert figures["1%"]["full"]["photos"] == 4
    assert figures["10%"]["full"]["photos"] == 6
    assert figures["1%"]["full"]["classes"] == 4


def test_a_share_that_a_profile_has_too_few_photos_for_is_drawn_from_all(
    context: Context, splits: Splits
) -> None:
    few = context.splits._replace(train=splits.train.stratified(5))
    cut = replace(context, splits=few, every_train=splits.train)
    figures = run_semi_supervised(cut)
    assert figures["1%"]["full"]["photos"] == 4
    assert figures["10%"]["full"]["photos"] == 6
    # 20 to measure on, the profile's 5, and the 6 that were drawn; not all 60.
    assert extracted(context) == 20 + 5 + 6
    # The same photos as with all: drawn by the seed from the whole split.
    whole = run_semi_supervised(replace(context, splits=splits._replace(validation=few.validation)))
    assert figures["10%"] == {
        part: {name: pytest.approx(value, abs=1e-6) for name, value in found.items()}
        for part, found in whole["10%"].items()
    }


def test_few_labels_are_shares_of_what_is_not_set_aside(context: Context, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(30):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(
                tmp_path / "photos" / name / f"{number}.png"
            )
    whole = load_splits(str(tmp_path / "photos"))
    assert len(whole.train) == 48
    # As many as fine-tuning takes, of all that there are and of those that a profile uses.
    assert len(semi_supervised(whole.train, 0.1, seed=0)) == 5
    for train in (whole.train, whole.train.stratified(40)):
        cut = replace(context, splits=whole._replace(train=train))
        assert run_semi_supervised(cut)["10%"]["full"]["photos"] == 5


def test_the_table_says_how_many_photos_a_share_came_to(context: Context) -> None:
    """Of a small data set two shares may be the same photos, and their rows are alike."""
    figures = {"semi-supervised": summarize([run_semi_supervised(context)])}
    content = {"model": {"name": "clever-mine"}, "figures": figures, "baselines": {}}
    (table,) = tables(content)
    told = list(table.columns[0].cells)
    assert [told[0], told[-1]] == ["1% (4 photos)", "10% (6 photos)"]


def test_few_labels_are_of_every_class_that_there_is(context: Context) -> None:
    labels = context.splits.train.labels
    # All photos of one class and a single one of each other.
    single = [int(np.flatnonzero(labels == label)[0]) for label in (1, 2, 3)]
    rows = np.concatenate([np.flatnonzero(labels == 0), single])
    uneven = context.splits._replace(train=context.splits.train.subset(rows))
    figures = run_semi_supervised(replace(context, splits=uneven))
    for share in ("1%", "10%"):
        assert figures[share]["full"]["classes"] == 4


def test_collapse_reports_every_part(context: Context) -> None:
    figures = run_collapse(context)["plain"]
    assert [figures[part]["dim"] for part in context.parts] == [96, 76, 20]
    assert all(1 < part["effective_rank"] <= 19 for part in figures.values())  # 20 photos


def test_rows_of_a_subset_are_its_places_in_the_whole(splits: Splits) -> None:
    part = splits.train.stratified(20)
    rows = rows_of(part, splits.train)
    np.testing.assert_array_equal(splits.train.labels[rows], part.labels)
