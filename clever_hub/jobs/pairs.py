"""All pairs of similar vectors, exactly and in bounded memory.

Cosines are computed block by block; only pairs above the threshold are kept. Vectors are centred
and brought to unit length a block at a time, so that beside the caller's array (which may be
memory-mapped) there are three blocks and the pairs that were found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

BLOCK = 4096  # rows: a product of two blocks is 64 MB, and large enough that BLAS is at its best
ROUNDING = 1e-6  # of a cosine: two equal vectors may have 0.9999999
MAX_PAIRS = 5_000_000  # 20 bytes each, twice that while they are sorted

Vectors: TypeAlias = "NDArray[np.float32] | NDArray[np.float16]"
Progress: TypeAlias = Callable[[int, int], None]


class Pairs(NamedTuple):
    """Pairs of rows, most alike first.

    Attributes:
        a: int64 (M,), row of the first; within one set of vectors a < b.
        b: int64 (M,), row of the second.
        cosine: float32 (M,), in [-1, 1].
    """

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    cosine: NDArray[np.float32]

    def take(self, rows: NDArray[np.intp] | list[int]) -> Pairs:
        """Some of the pairs, by their places."""
        return Pairs(self.a[rows], self.b[rows], self.cosine[rows])


def similar_pairs(
    vectors: Vectors,
    threshold: float,
    *,
    others: Vectors | None = None,
    mean: NDArray[np.float32] | None = None,
    max_pairs: int = MAX_PAIRS,
    block: int = BLOCK,
    progress: Progress | None = None,
) -> Pairs:
    """All pairs whose cosine is at least ``threshold``; no pair is left out, none is approximate.

    Args:
        vectors: float32 or float16 (N, d), of any length; they are left as they are.
        threshold: Least cosine, in [-1, 1], but for rounding: 1 finds equal vectors.
        others: (M, d): pairs of a row of ``vectors`` and a row of these, instead of pairs within
            ``vectors``.
        mean: float32 (d,), taken from every vector first; a model's training mean, or
            ``vectors.mean(0)``. None takes nothing.
        max_pairs: Keep this many at most, the most alike; the threshold then rises on the way.
        block: Rows at once.
        progress: Called with the products of blocks that are done, and how many there are.

    Returns:
        The pairs. A row of zeros has cosine 0 to all.

    Raises:
        ValueError: When shapes do not fit, or a vector is not finite.

    Example:
        >>> x = np.array([[1, 0], [1, 0.1], [0, 1]], np.float32)
        >>> similar_pairs(x, 0.9)[:2]
        (array([0]), array([1]))
    """
    second = vectors if others is None else others
    check_vectors(vectors, second, mean, threshold)
    kept = _Kept(threshold, max_pairs)
    work = list(_blocks(len(vectors), len(second), block, triangle=others is None))
    product = np.empty((block, block), np.float32)
    row, left = -1, np.empty((0, 0), np.float32)
    for done, (i, j) in enumerate(work):
        if i != row:
            row, left = i, unit_rows(vectors[i : i + block], mean, i)
        same = others is None and i == j
        right = left if same else unit_rows(second[j : j + block], mean, j)
        cosines = product[: len(left), : len(right)]
        np.matmul(left, right.T, out=cosines)
        kept.add(cosines, i, j, triangle=same)
        if progress is not None:
            progress(done + 1, len(work))
    return kept.result()


def unit_rows(
    rows: Vectors, mean: NDArray[np.float32] | None = None, first: int = 0
) -> NDArray[np.float32]:
    """Centred vectors of unit length, in a new array.

    Args:
        rows: (N, d).
        mean: (d,), taken from each row; None takes nothing.
        first: Number of the first row, for messages.

    Returns:
        float32 (N, d); a row of zeros stays zeros.

    Raises:
        ValueError: When a row is not finite; says which.
    """
    unit = rows.astype(np.float32)
    if mean is not None:
        unit -= mean
    norms = np.sqrt(np.einsum("nd,nd->n", unit, unit))
    if not np.isfinite(norms).all():
        bad = first + int(np.flatnonzero(~np.isfinite(norms))[0])
        raise ValueError(f"expected finite vectors, got NaN or infinity in row {bad}")
    unit /= np.where(norms > 0, norms, 1)[:, None]
    return unit


def check_vectors(
    vectors: Vectors, others: Vectors, mean: NDArray[np.float32] | None, threshold: float
) -> None:
    """Refuse what cannot be compared.

    Args:
        vectors: (N, d).
        others: (M, d).
        mean: (d,) or None.
        threshold: A cosine.

    Raises:
        ValueError: When shapes do not fit, or the threshold is no cosine.
    """
    shapes = vectors.shape, others.shape
    if [len(shape) for shape in shapes] != [2, 2] or shapes[0][1] != shapes[1][1]:
        raise ValueError(f"expected vectors (N, d) and (M, d), got {shapes[0]} and {shapes[1]}")
    if mean is not None and mean.shape != shapes[0][1:]:
        raise ValueError(f"mean: expected shape {shapes[0][1:]}, got {mean.shape}")
    if not -1 <= threshold <= 1:
        raise ValueError(f"threshold: expected a cosine, -1 to 1, got {threshold}")


def _blocks(rows: int, columns: int, block: int, triangle: bool) -> Iterator[tuple[int, int]]:
    """Where each pair of blocks begins; of one set with itself, the upper triangle."""
    for i in range(0, rows, block):
        for j in range(i if triangle else 0, columns, block):
            yield i, j


class _Kept:
    """The pairs above a threshold that rises when there are too many."""

    def __init__(self, threshold: float, limit: int) -> None:
        self.threshold = np.float32(threshold - ROUNDING)
        self.limit = limit
        self._parts: list[Pairs] = []
        self._count = 0

    def add(self, cosines: NDArray[np.float32], i: int, j: int, triangle: bool) -> None:
        above = cosines >= self.threshold
        if triangle:
            above = np.triu(above, 1)
        # Most blocks have a handful: the position in the flat block is found in one quick pass.
        flat = np.flatnonzero(above)
        a, b = np.divmod(flat, cosines.shape[1])
        self._parts.append(Pairs(a + i, b + j, cosines[a, b]))
        self._count += len(flat)
        if self._count > 2 * self.limit:
            self._shrink()

    def result(self) -> Pairs:
        """The pairs, most alike first, then by row."""
        if self._count > self.limit:
            self._shrink()
        found = self._joined()
        order = np.lexsort((found.b, found.a, -found.cosine))
        return Pairs(found.a[order], found.b[order], np.clip(found.cosine[order], -1, 1))

    def _shrink(self) -> None:
        found = self._joined()
        best = np.argpartition(-found.cosine, self.limit - 1)[: self.limit]
        self._parts = [found.take(best)]
        self._count = self.limit
        self.threshold = self._parts[0].cosine.min()

    def _joined(self) -> Pairs:
        if not self._parts:
            return Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
        return Pairs(*(np.concatenate(columns) for columns in zip(*self._parts, strict=True)))
