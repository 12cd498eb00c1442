"""Calibration: probabilities come true, and unsure answers are marked as such."""

from __future__ import annotations

import numpy as np
import pytest

from clever_hub.jobs.calibration import FEATURES, TURNS, Calibration
from clever_hub.jobs.heads import Heads, HeadsConfig
from clever_hub.jobs.orient import quarter_probabilities
from clever_hub.jobs.relate import relate
from clever_training.heads.calibrate import calibrate, confidences, draw_pairs, turn_vectors
from clever_training.heads.embedding import EmbeddedViews
from clever_training.heads.files import heads_tensors
from clever_training.heads.fit import FitSettings, fit
from tests.training.heads.conftest import planted


@pytest.fixture(scope="module")
def heads() -> Heads:
    views = planted()
    head = fit(views, FitSettings(hidden_dim=64, steps=700, batch_size=128, lr=4e-3, noise=0.05))
    tensors = heads_tensors(head, views.embeddings[:, 0].mean(axis=0), 24)
    return Heads(HeadsConfig("0" * 64, 8, 64, 180.0), tensors)


@pytest.fixture(scope="module")
def calibration(heads: Heads) -> Calibration:
    return calibrate(heads, planted(photos=150, seed=5), bootstraps=5)


@pytest.fixture(scope="module")
def others() -> EmbeddedViews:
    return planted(photos=150, seed=7)


def test_it_survives_json(calibration: Calibration) -> None:
    assert Calibration.from_dict(calibration.to_dict()) == calibration
    assert calibration.photos == 150
    assert calibration.same.features == FEATURES


def calibrated(heads: Heads, calibration: Calibration) -> Heads:
    config = HeadsConfig("0" * 64, 8, 64, 180.0, calibration=calibration)
    return Heads(config, heads.tensors)


def test_same_is_told_from_different_and_says_how_surely(
    heads: Heads, calibration: Calibration, others: EmbeddedViews
) -> None:
    ready = calibrated(heads, calibration)
    pairs = draw_pairs(heads, others, np.random.default_rng(0), 1000)
    alike = relate(pairs.a, pairs.b, ready).same
    shifted = pairs.b[np.roll(np.arange(1000), 1)]
    different = relate(pairs.a, shifted, ready).same
    assert alike.mean() > 0.9
    assert different.mean() < 0.1
    both = np.concatenate([alike, different])
    truth = np.repeat([1, 0], 1000)
    unsure = (both > 0.2) & (both < 0.8)
    assert abs(both[unsure].mean() - truth[unsure].mean()) < 0.2


def test_two_thirds_of_the_errors_are_below_what_is_said(
    heads: Heads, calibration: Calibration, others: EmbeddedViews
) -> None:
    ready = calibrated(heads, calibration)
    pairs = draw_pairs(heads, others, np.random.default_rng(0), 3000)
    found = relate(pairs.a, pairs.b, ready, given_same=True)
    mirrored = pairs.done.mirrored.numpy()
    sign = np.where(mirrored, 1, -1)
    values = pairs.done.values.numpy()
    truth = sign * np.degrees(np.arctan2(values[:, 0], values[:, 1]))
    known = ~np.isnan(found.angle)
    assert known.mean() > 0.9
    error = np.abs((found.angle - truth + 180) % 360 - 180)
    assert (error[known] <= found.angle_error[known]).mean() == pytest.approx(0.68, abs=0.08)
    octaves = values[:, 4:6].mean(axis=1) / -np.log(2)
    below = np.abs(np.log2(found.zoom) - octaves) <= found.zoom_error
    assert below.mean() == pytest.approx(0.68, abs=0.08)


def test_what_is_not_in_the_embedding_is_unknown(
    heads: Heads, calibration: Calibration, others: EmbeddedViews
) -> None:
    assert calibration.values["brightness"].r2 > 0.5
    assert calibration.values["hue"].r2 < 0.25
    pairs = draw_pairs(heads, others, np.random.default_rng(0), 10)
    found = relate(pairs.a, pairs.b, calibrated(heads, calibration), given_same=True)
    assert np.isnan(found.colors[:, 3]).all()
    assert not np.isnan(found.colors[:, 0]).any()


def test_heads_that_know_nothing_say_so() -> None:
    views = planted(photos=150, seed=5)
    noise = np.random.default_rng(0).normal(size=views.embeddings.shape).astype(np.float32)
    blind = EmbeddedViews(noise, views.parameters, 16, "noise")
    head = fit(blind, FitSettings(hidden_dim=16, steps=40, batch_size=64))
    heads = Heads(HeadsConfig("0" * 64, 8, 16, 180.0), heads_tensors(head, None, 24))
    found = calibrate(heads, blind, bootstraps=2)
    ready = calibrated(heads, found)
    pairs = draw_pairs(heads, blind, np.random.default_rng(1), 300)
    relations = relate(pairs.a, pairs.b, ready, given_same=True)
    assert np.isnan(relations.angle).mean() > 0.95
    assert np.isnan(relations.zoom).all()
    assert relations[0].mirrored is None
    assert found.measured["mirrored"] == pytest.approx(0.5, abs=0.05)


def test_photos_turned_either_way_can_be_sure_enough(
    heads: Heads, calibration: Calibration, others: EmbeddedViews
) -> None:
    """Nine in ten upright: not upside-down photos alone, whose two answers lie further apart."""
    level = calibration.orientation
    vectors = turn_vectors(heads, others).reshape(-1, 2)
    truth = np.tile(np.arange(4), len(others))
    chances = quarter_probabilities(vectors, level.temperature, 0.9, level.power)
    assert level.by_turn is not None
    side, down = (level.by_turn[turn]["0.9"]["0.01"] for turn in TURNS)
    said = chances.argmax(axis=1)
    turned = chances.max(axis=1) >= np.array([2.0, side, down, side])[said]
    found = turned & (said == truth)
    assert min(found[truth == quarter].mean() for quarter in (1, 2, 3)) > 0.2
    assert turned[truth == 0].mean() < 0.01


def test_a_confidence_keeps_what_is_turned_wrongly_below_its_rate() -> None:
    random = np.random.default_rng(0)
    truth = np.tile(np.arange(4), 2000)
    logits = 3 * random.random((8000, 1)) * np.eye(4)[truth] + random.normal(size=(8000, 4)) * 0.8
    chances = np.exp(logits * 2)
    chances = (chances / chances.sum(axis=1, keepdims=True)).astype(np.float32)
    for upright in (0.25, 0.9):
        found = confidences(chances, truth, upright)
        assert found["0.002"] >= found["0.01"] >= found["0.05"]
        said, sure = chances.argmax(axis=1), chances.max(axis=1)
        weights = np.where(truth == 0, upright, (1 - upright) / 3)
        for rate, least in found.items():
            turned = (said != 0) & (sure >= least)
            wrong = weights[turned & (said != truth)].sum() / max(weights[turned].sum(), 1e-9)
            assert wrong <= float(rate) + 1e-3
    assert confidences(chances, truth, 0.9)["0.01"] > confidences(chances, truth, 0.25)["0.01"]


def test_where_no_confidence_keeps_it_none_is_enough() -> None:
    chances = np.tile(np.array([0.1, 0.7, 0.1, 0.1], np.float32), (8, 1))
    assert confidences(chances, np.tile(np.arange(4), 2), 0.25)["0.01"] == 1.0
