"""Weighted k-nearest-neighbour classification, as DINO measures it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

K = 20
TEMPERATURE = 0.07
_CHUNK = 1024
_SIMILARITIES = 2**26  # at most so many at a time, 256 MB


def unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale each row to length 1; a row of zeros stays zeros."""
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return (features / np.where(norms > 0, norms, 1)).astype(np.float32, copy=False)


def rows_at_once(most: int, columns: int) -> int:
    """How many rows of similarities are computed at once, in bounded memory.

    Args:
        most: At most so many.
        columns: Entries of a row.

    Example:
        >>> rows_at_once(1024, 50_000), rows_at_once(1024, 1_281_167)
        (1024, 52)
    """
    return max(1, min(most, _SIMILARITIES // columns))


def knn_predict(
    train: NDArray[np.float32],
    labels: NDArray[np.int64],
    queries: NDArray[np.float32],
    *,
    k: int = K,
    temperature: float = TEMPERATURE,
) -> NDArray[np.int64]:
    """Classify by the k most similar training photos, each voting exp(cosine / temperature).

    As in DINO (Caron et al. 2021, https://arxiv.org/abs/2104.14294, section 4.1), after Wu et al.
    2018. Ties go to the lower class.

    Args:
        train: float32 (N, d).
        labels: int64 (N,), in [0, classes).
        queries: float32 (M, d).
        k: Neighbours that vote; at most N.
        temperature: Lower values give the nearest neighbours more weight.

    Returns:
        int64 (M,), the predicted classes.

    Raises:
        ValueError: When k is not in 1 to N.

    Example:
        >>> train = np.eye(2, dtype=np.float32)
        >>> knn_predict(train, np.array([0, 1]), np.array([[3, 1]], np.float32), k=1)
        array([0])
    """
    if not 1 <= k <= len(train):
        raise ValueError(f"k: expected 1 to {len(train)}, the number of training photos, got {k}")
    bank = torch.from_numpy(unit(train))
    targets = torch.from_numpy(labels)
    classes = int(labels.max()) + 1
    predicted = []
    step = rows_at_once(_CHUNK, len(train))
    for start in range(0, len(queries), step):
        chunk = torch.from_numpy(unit(queries[start : start + step]))
        similarity, neighbours = (chunk @ bank.T).topk(k, dim=1)  # both (chunk, k)
        # Relative to the nearest, since exp(1 / 0.07) is large and only ratios of votes matter.
        votes = ((similarity - similarity[:, :1]) / temperature).exp()
        scores = torch.zeros(len(chunk), classes).scatter_add_(1, targets[neighbours], votes)
        predicted.append(scores.argmax(dim=1).numpy())
    return np.concatenate(predicted).astype(np.int64)


def top1(predicted: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """The share of correct predictions, in per cent."""
    return float((predicted == labels).mean() * 100)
