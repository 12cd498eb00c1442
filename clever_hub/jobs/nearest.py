"""Pairs of similar vectors among more photos than can all be compared; LanceDB inside.

Comparing all pairs takes four times as long for twice the photos. Here each vector is compared with
those only that an index of one bit for each dimension (RaBitQ, Gao and Long 2024) takes for the
nearest. What that misses is measured on some of the photos.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clever_hub.errors import require
from clever_hub.jobs.embedded import to_column
from clever_hub.jobs.pairs import (
    BLOCK,
    MAX_PAIRS,
    ROUNDING,
    Pairs,
    Progress,
    Vectors,
    check_vectors,
    unit_rows,
)

# From here on an index pays: two cores compare all pairs of so many photos in some minutes.
APPROXIMATE_FROM = 200_000
APPROXIMATE_PAIRS = APPROXIMATE_FROM**2 // 2  # of one set with another
NEIGHBOURS = 50  # of each photo: twice the candidates that are wanted of it by default
SAMPLE = 256  # photos whose nearest are found exactly as well
_MULTIPLE = 16  # LanceDB indexes vectors of such lengths only
_PROBES = 20  # partitions that are searched
_TAKEN = 4  # for each of the nearest that is wanted, so many are compared exactly
_QUERIES = 1024  # vectors that are searched at once
_GATHERED = 16_384  # vectors that are compared at once: 64 MB of 1,024 dimensions


class Nearest(NamedTuple):
    """Pairs that an index found.

    Attributes:
        pairs: Most alike first, each once; within one set of vectors a < b.
        recall: Of the pairs that a sample's vectors have with their nearest, the share that was
            found, in [0, 1].
        coverage: Of all the sample's pairs that reach the threshold, the share that was found. It
            is lower than ``recall`` where vectors have more such pairs than nearest.
    """

    pairs: Pairs
    recall: float
    coverage: float


def nearest_pairs(
    vectors: Vectors,
    threshold: float,
    *,
    others: Vectors | None = None,
    mean: NDArray[np.float32] | None = None,
    neighbours: int = NEIGHBOURS,
    max_pairs: int = MAX_PAIRS,
    progress: Progress | None = None,
) -> Nearest:
    """Pairs of each vector and its nearest, by an approximate index.

    The index is a temporary file of 4 bytes for each number. In memory there is each pair that is
    near enough, at most twice.

    Args:
        vectors: float32 or float16 (N, d), N ≥ 2; they are indexed.
        threshold: Least cosine, in [-1, 1].
        others: (M, d): pairs of a row of ``vectors`` and a row of these, instead of pairs within
            ``vectors``; each of these is searched.
        mean: float32 (d,), taken from every vector first; None takes nothing.
        neighbours: How many of the nearest of each vector are looked at.
        max_pairs: Keep this many at most, the most alike.
        progress: Called with the vectors that were searched, and how many there are.

    Returns:
        The pairs, and how many of them are found, measured on ``SAMPLE`` vectors evenly spread.

    Raises:
        MissingExtraError: When LanceDB is not installed.
        ValueError: When shapes do not fit, or a vector is not finite.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(1000, 32)).astype(np.float32)
        >>> found = nearest_pairs(np.concatenate([x, x + 0.01]), 0.9)
        >>> len(found.pairs.a), found.recall, found.coverage
        (1000, 1.0, 1.0)
    """
    require("lancedb", "search")
    within, searched = others is None, vectors if others is None else others
    check_vectors(vectors, searched, mean, threshold)
    neighbours = min(neighbours, len(vectors) - within)
    lengths = _lengths(vectors, mean)
    rows, columns, cosines = [], [], []
    with tempfile.TemporaryDirectory(prefix="clever-hub-") as folder:
        table = _index(folder, vectors, mean)
        for start, queries in _blocks(searched, mean, _QUERIES):
            query, column = _search(table, queries, _TAKEN * neighbours + 1)
            cosine = _cosines(queries[:, : vectors.shape[1]], query, vectors, column, mean, lengths)
            kept = cosine >= threshold - ROUNDING
            if within:
                kept &= query + start != column
            kept[kept] = _best(query[kept], cosine[kept], neighbours)
            rows.append(query[kept] + start)
            columns.append(column[kept])
            cosines.append(cosine[kept])
            if progress is not None:
                progress(start + len(queries), len(searched))
    found = Pairs(np.concatenate(columns), np.concatenate(rows), np.concatenate(cosines))
    pairs = _sorted(_once(found) if within else found)
    measured = _measured(pairs, vectors, searched, mean, threshold, neighbours, within)
    return Nearest(pairs.take(np.arange(min(max_pairs, len(pairs.a)))), *measured)


def padded_width(width: int) -> int:
    """The next length of a vector that LanceDB can index."""
    return -(-width // _MULTIPLE) * _MULTIPLE


def padded(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Zeros at the end, which change no dot product, up to a length that can be indexed."""
    return np.pad(rows, ((0, 0), (0, padded_width(rows.shape[1]) - rows.shape[1])))


def _index(folder: str, vectors: Vectors, mean: NDArray[np.float32] | None) -> Any:
    """A table of unit vectors with an index of one bit for each dimension."""
    import lancedb
    import pyarrow as pa
    from lancedb.index import IvfRq

    width = padded_width(vectors.shape[1])
    schema = pa.schema(
        [pa.field("row", pa.int64()), pa.field("vector", pa.list_(pa.float32(), width))]
    )

    def batches() -> Iterator[Any]:
        for start, block in _blocks(vectors, mean, BLOCK):
            number = pa.array(np.arange(start, start + len(block)))
            yield pa.RecordBatch.from_arrays([number, to_column(block)], schema=schema)

    table = lancedb.connect(folder).create_table("vectors", batches(), schema=schema)
    table.create_index("vector", config=IvfRq(distance_type="dot"))
    return table


def _blocks(
    vectors: Vectors, mean: NDArray[np.float32] | None, size: int
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Centred unit vectors, zeros at the end; with the number of the first."""
    for start in range(0, len(vectors), size):
        yield start, padded(unit_rows(vectors[start : start + size], mean, start))


def _search(
    table: Any, queries: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The k that the index takes for the nearest of each query: places of queries, and rows."""
    search = table.search(list(queries), vector_column_name="vector").distance_type("dot").limit(k)
    found = search.nprobes(_PROBES).select(["row", "_distance"]).to_arrow()
    return found["query_index"].to_numpy().astype(np.int64), found["row"].to_numpy()


def _lengths(vectors: Vectors, mean: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Of each vector less the mean; 1 of zeros."""
    lengths = np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), BLOCK):
        rows = vectors[start : start + BLOCK].astype(np.float32)
        rows -= 0 if mean is None else mean
        lengths[start : start + BLOCK] = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    return np.where(lengths > 0, lengths, 1)


def _cosines(
    queries: NDArray[np.float32],
    query: NDArray[np.int64],
    vectors: Vectors,
    column: NDArray[np.int64],
    mean: NDArray[np.float32] | None,
    lengths: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Exact cosines of queries, which are of unit length, and rows of the vectors."""
    dots = np.empty(len(query), np.float32)
    for start in range(0, len(query), _GATHERED):
        part = slice(start, start + _GATHERED)
        rows = vectors[column[part]].astype(np.float32, copy=False)
        dots[part] = np.einsum("nd,nd->n", rows, queries[query[part]])
    if mean is not None:
        dots -= (queries @ mean)[query]
    return dots / lengths[column]


def _best(query: NDArray[np.int64], cosine: NDArray[np.float32], count: int) -> NDArray[np.bool_]:
    """Which are among the so many highest of their query."""
    order = np.lexsort((-cosine, query))
    ordered = query[order]
    first = np.searchsorted(ordered, ordered)  # where each one's query begins
    kept = np.empty(len(query), bool)
    kept[order] = np.arange(len(query)) - first < count
    return kept


def _once(pairs: Pairs) -> Pairs:
    """Each pair once, a < b: two photos may be among the nearest of each other."""
    a, b = np.minimum(pairs.a, pairs.b), np.maximum(pairs.a, pairs.b)
    order = np.lexsort((b, a))
    a, b = a[order], b[order]
    first = np.ones(len(a), bool)
    first[1:] = (a[1:] != a[:-1]) | (b[1:] != b[:-1])
    return Pairs(a[first], b[first], pairs.cosine[order][first])


def _sorted(pairs: Pairs) -> Pairs:
    """Most alike first, then by row."""
    cosine = np.clip(pairs.cosine, -1, 1).astype(np.float32)
    return Pairs(pairs.a, pairs.b, cosine).take(np.lexsort((pairs.b, pairs.a, -cosine)))


def _measured(
    pairs: Pairs,
    vectors: Vectors,
    searched: Vectors,
    mean: NDArray[np.float32] | None,
    threshold: float,
    neighbours: int,
    within: bool,
) -> tuple[float, float]:
    """Of some vectors' exact nearest, and of all that are near enough, the share in the pairs."""
    sample = np.unique(np.linspace(0, len(searched) - 1, SAMPLE).astype(np.int64))
    queries = unit_rows(searched[sample], mean)
    own = sample if within else None
    column, cosine, count = _exact(vectors, mean, queries, neighbours, threshold, own)
    near = cosine >= threshold
    row, column = np.broadcast_to(sample[:, None], near.shape)[near], column[near]
    if not len(row):
        return 1.0, 1.0
    there = np.isin(pairs.b, sample).sum() + (np.isin(pairs.a, sample).sum() if within else 0)
    a, b = (np.minimum(column, row), np.maximum(column, row)) if within else (column, row)
    wanted = a * len(searched) + b
    recall = np.isin(wanted, pairs.a * len(searched) + pairs.b).mean()
    return float(recall), min(1.0, float(there / count))


def _exact(
    vectors: Vectors,
    mean: NDArray[np.float32] | None,
    queries: NDArray[np.float32],
    k: int,
    threshold: float,
    own: NDArray[np.int64] | None,
) -> tuple[NDArray[np.int64], NDArray[np.float32], int]:
    """The k nearest of some unit vectors, and their cosines, both (queries, k); how many are near.

    ``own`` are the queries' own rows among the vectors, which are left out; None: they have none.
    """
    best = np.full((len(queries), k), -2, np.float32)
    rows = np.zeros((len(queries), k), np.int64)
    count = 0
    for start in range(0, len(vectors), BLOCK):
        block = unit_rows(vectors[start : start + BLOCK], mean, start)
        cosines = queries @ block.T
        if own is not None:  # each is the nearest of itself
            here = (own >= start) & (own < start + len(block))
            cosines[here, own[here] - start] = -2
        count += int((cosines >= threshold).sum())
        both = np.concatenate([best, cosines], axis=1)
        numbers = np.broadcast_to(np.arange(start, start + len(block)), cosines.shape)
        known = np.concatenate([rows, numbers], axis=1)
        places = np.argpartition(-both, k - 1, axis=1)[:, :k]
        best = np.take_along_axis(both, places, axis=1)
        rows = np.take_along_axis(known, places, axis=1)
    return rows, best, count
