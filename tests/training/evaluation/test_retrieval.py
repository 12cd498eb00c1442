"""Ranks agree with sorting, and a collapsed representation ranks in the middle, not first."""

from __future__ import annotations

import numpy as np
import pytest

from clever_training.evaluation.retrieval import own_ranks, rank_figures


def test_ranks_are_those_of_sorting_by_cosine() -> None:
    random = np.random.default_rng(0)
    queries = random.normal(size=(700, 8)).astype(np.float32)  # more than one chunk
    gallery = random.normal(size=(50, 8)).astype(np.float32)
    targets = random.integers(0, 50, 700)
    lengths = np.linalg.norm(gallery, axis=1)
    expected = [
        list(np.argsort(-(gallery @ query) / lengths)).index(target) + 1
        for query, target in zip(queries, targets, strict=True)
    ]
    np.testing.assert_array_equal(own_ranks(queries, gallery, targets), expected)


def test_copies_that_barely_moved_find_their_originals_and_strangers_do_not() -> None:
    random = np.random.default_rng(0)
    gallery = random.normal(size=(200, 32)).astype(np.float32)
    near = (gallery + 0.05 * random.normal(size=gallery.shape)).astype(np.float32)
    own = np.arange(200)
    assert rank_figures(own_ranks(near, gallery, own))["hit1"] == 100
    strange = random.normal(size=(200, 32)).astype(np.float32)
    figures = rank_figures(own_ranks(strange, gallery, own))
    assert figures["hit1"] < 3  # chance is 0.5
    assert figures["mrr"] < 0.06  # chance is 0.029


def test_a_collapsed_representation_finds_nothing() -> None:
    constant = np.ones((101, 4), np.float32)
    ranks = own_ranks(constant, constant, np.arange(101))
    np.testing.assert_array_equal(ranks, 51)
    assert rank_figures(ranks)["hit5"] == 0


def test_figures_of_known_ranks() -> None:
    figures = rank_figures(np.array([1.0, 4.0, 10.0, 1.5]), "pose_")
    assert figures["pose_mrr"] == pytest.approx((1 + 1 / 4 + 1 / 10 + 1 / 1.5) / 4)
    assert (figures["pose_hit1"], figures["pose_hit5"]) == (25, 75)
