"""Retrieval: the rank of the right feature among many, and metrics of ranks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clever_training.evaluation.knn import rows_at_once, unit

_CHUNK = 512


def own_ranks(
    queries: NDArray[np.float32], gallery: NDArray[np.float32], targets: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Rank of the right row in a gallery that is ordered by cosine.

    Candidates that are as similar as the right one share their ranks. A collapsed representation,
    for which all candidates are equally similar, thus ranks everything in the middle, not first.

    Args:
        queries: float32 (M, d).
        gallery: float32 (N, d).
        targets: int64 (M,), the right row of the gallery for each query.

    Returns:
        float64 (M,), 1 for the most similar, at most N.

    Example:
        >>> own_ranks(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32), np.array([0, 1]))
        array([1., 1.])
    """
    bank = unit(gallery)
    ranks = []
    step = rows_at_once(_CHUNK, len(bank))
    for start in range(0, len(queries), step):
        similarity = unit(queries[start : start + step]) @ bank.T  # (chunk, N)
        ranks.append(ranks_of(similarity, targets[start : start + step]))
    return np.concatenate(ranks)


def ranks_of(
    similarity: NDArray[np.float32], targets: NDArray[np.int64], tolerance: float = 1e-6
) -> NDArray[np.float64]:
    """The rank of the right candidate in each row.

    Args:
        similarity: float32 (M, N).
        targets: int64 (M,), the right column.
        tolerance: Similarities that differ by less count as equal.

    Returns:
        float64 (M,): 1 + number of more similar ones + half the number of equally similar ones.
    """
    right = np.take_along_axis(similarity, targets[:, None], axis=1)
    higher = (similarity > right + tolerance).sum(axis=1)
    equal = (np.abs(similarity - right) <= tolerance).sum(axis=1) - 1
    return np.asarray(1 + higher + equal / 2, dtype=np.float64)


def rank_figures(ranks: NDArray[np.float64], prefix: str = "") -> dict[str, float]:
    """Mean reciprocal rank, and the shares of rank 1 and of ranks up to 5 in per cent.

    Args:
        ranks: float64 (M,), from 1.
        prefix: Prefix of the names.

    Returns:
        ``mrr``, ``hit1``, ``hit5``.

    Example:
        >>> rank_figures(np.array([1.0, 2.0]))
        {'mrr': 0.75, 'hit1': 50.0, 'hit5': 100.0}
    """
    return {
        f"{prefix}mrr": float((1 / ranks).mean()),
        f"{prefix}hit1": float((ranks <= 1).mean() * 100),
        f"{prefix}hit5": float((ranks <= 5).mean() * 100),
    }
