"""Embeddings: two parts, one order."""

from __future__ import annotations

import numpy as np
import pytest

from clever_hub.embeddings import Embeddings, Skipped, invariant_length, part_columns, split


@pytest.fixture
def embeddings() -> Embeddings:
    """Five rows of 3 + 2."""
    rows = np.random.default_rng(0).normal(size=(5, 5)).astype(np.float32)
    rows[3] = 0
    return Embeddings(rows[:, :3], rows[:, 3:], (Skipped(5, "a.jpg", "empty"),))


def test_full_is_the_invariant_part_then_the_equivariant(embeddings: Embeddings) -> None:
    assert embeddings.full.shape == (5, 5)
    np.testing.assert_array_equal(embeddings.full[:, :3], embeddings.invariant)
    np.testing.assert_array_equal(embeddings.full[:, 3:], embeddings.equivariant)


def test_each_part_is_normalised_by_itself(embeddings: Embeddings) -> None:
    unit = embeddings.normalized()
    for part, raw in (
        (unit.invariant, embeddings.invariant),
        (unit.equivariant, embeddings.equivariant),
    ):
        assert part.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(part, axis=1), [1, 1, 1, 0, 1], atol=1e-6)
        np.testing.assert_allclose(part * np.linalg.norm(raw, axis=1)[:, None], raw, atol=1e-6)
    assert unit.skipped == embeddings.skipped
    np.testing.assert_allclose(unit.normalized().full, unit.full, atol=1e-6)


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (0, [0]),
        (-1, [4]),
        (slice(1, 3), [1, 2]),
        (slice(None, None, -2), [4, 2, 0]),
        (np.array([2, 2]), [2, 2]),
        (np.array([True, False, False, False, True]), [0, 4]),
    ],
)
def test_rows_keep_two_dimensions(
    embeddings: Embeddings, index: int | slice, rows: list[int]
) -> None:
    chosen = embeddings[index]
    assert len(chosen) == len(rows)
    np.testing.assert_array_equal(chosen.full, embeddings.full[rows])


def test_iterating_ends(embeddings: Embeddings) -> None:
    assert [len(row) for row in embeddings] == [1] * 5
    with pytest.raises(IndexError):
        _ = embeddings[5]


def test_parts_must_belong_together() -> None:
    with pytest.raises(ValueError, match=r"expected shapes \(N, d_i\) and \(N, d_e\)"):
        Embeddings(np.zeros((2, 3), np.float32), np.zeros((3, 1), np.float32))


def test_the_text_says_the_shapes(embeddings: Embeddings) -> None:
    assert repr(embeddings) == "Embeddings(invariant=(5, 3), equivariant=(5, 2), 1 skipped)"


@pytest.mark.parametrize(
    ("features", "ratio", "length"),
    # In binary 0.57 · 100 is 56.99…9 and 0.29 · 100 is 28.99…9.
    [(2048, 0.8, 1638), (512, 0.8, 409), (192, 0.8, 153), (100, 0.57, 57), (100, 0.29, 29)],
)
def test_the_invariant_length_is_rounded_down_but_not_by_a_binary_fraction(
    features: int, ratio: float, length: int
) -> None:
    assert invariant_length(features, ratio) == length


@pytest.mark.parametrize("length", [3, 5])
def test_the_split_and_the_columns_agree_for_any_array(length: int) -> None:
    torch = pytest.importorskip("torch")
    rows = np.random.default_rng(0).normal(size=(2, 4, 5))
    columns = part_columns(length, 5)
    for array in (rows, torch.from_numpy(rows)):
        invariant, equivariant = split(array, length)
        np.testing.assert_array_equal(np.concatenate([invariant, equivariant], axis=-1), rows)
        assert invariant.shape == (2, 4, length)
        if length < 5:
            np.testing.assert_array_equal(array[..., columns["invariant"]], invariant)
            np.testing.assert_array_equal(array[..., columns["equivariant"]], equivariant)
    assert columns["full"] == slice(0, 5)
    assert len(columns) == (3 if length < 5 else 1)


def test_what_was_kept_has_one_for_each_row(embeddings: Embeddings) -> None:
    assert embeddings.kept("uvwxyz") == ["u", "v", "w", "x", "y"]
    first = Embeddings(
        embeddings.invariant, embeddings.equivariant, (Skipped(0, "a", ""), Skipped(3, "b", ""))
    )
    assert first.kept(range(7)) == [1, 2, 4, 5, 6]
    with pytest.raises(ValueError, match="one for each of 5 rows and 1 skipped images, got 5"):
        embeddings.kept(range(5))
    several = Embeddings.joined([first, first])  # of two inputs: both have a position 0
    unknown = Embeddings(first.invariant, first.equivariant, (Skipped(-1, "a", ""),))
    for wrong, count in ((several, 14), (unknown, 6)):
        with pytest.raises(ValueError, match="with their positions in the input"):
            wrong.kept(range(count))


def test_batches_are_joined_in_their_order(embeddings: Embeddings) -> None:
    found = Embeddings.joined([embeddings[:2], embeddings[2:], embeddings])
    np.testing.assert_array_equal(found.full, np.tile(embeddings.full, (2, 1)))
    assert found.skipped == embeddings.skipped
    assert found.tokens is None
    with pytest.raises(ValueError, match="expected embeddings to join, got none"):
        Embeddings.joined([])
    tokens = np.zeros((5, 2, 2, 5), np.float32)
    both = Embeddings(embeddings.invariant, embeddings.equivariant, tokens=tokens)
    joined = Embeddings.joined([both, both[:1]]).tokens
    assert joined is not None
    assert joined.shape == (6, 2, 2, 5)
    with pytest.raises(ValueError, match="tokens in all parts or in none, got 1 of them"):
        Embeddings.joined([both, embeddings])
