"""Groups of copies among photos, in two stages: candidates by cosine, then each pair is verified.

The cosine alone will not do: 200,000 photos have 2·10¹⁰ pairs, of which a rate of false pairs of
1e-6 leaves 20,000. So the first stage takes what may be a copy, many false ones among it, and the
second looks at each: with the photos at hand, by laying one onto the other
(``clever_hub.jobs.verifying``); from embeddings alone, by a model's heads; with neither, the cosine
has to do, and the result says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clever_hub.embeddings import Embeddings
from clever_hub.errors import ConfigError, DataError
from clever_hub.jobs.candidates import centre, check_options, choose_threshold, vectors_of
from clever_hub.jobs.nearest import APPROXIMATE_FROM, nearest_pairs
from clever_hub.jobs.pairs import MAX_PAIRS, Pairs, Progress, Vectors, similar_pairs
from clever_hub.jobs.rates import Threshold
from clever_hub.jobs.relate import check_raw
from clever_hub.jobs.verifying import PixelVerifier

if TYPE_CHECKING:
    from clever_hub.jobs.heads import Heads


class Verdict(Protocol):
    """What a verification says of a pair."""

    @property
    def same(self) -> Any:
        """Whether both show the same photo; a probability counts from 0.5."""

    def words(self) -> str:
        """What was done to the first, in words."""


class Ranking(Protocol):
    """Which photo of a group is its best; such as ``clever_hub.jobs.best.BestPhotos``."""

    @property
    def rank(self) -> NDArray[np.int64]:
        """int64 (N,), lower is better."""

    def look(self, pairs: Pairs, verdicts: Sequence[Verdict]) -> None:
        """Take in what a verification saw of pairs of copies; may change the rank."""


Verify = Callable[[NDArray[np.int64], NDArray[np.int64]], Sequence[Verdict | None]]


@dataclass(frozen=True, eq=False)
class Duplicates:
    """What was found.

    Attributes:
        pairs: The pairs that are copies; in each, ``a`` is the better photo.
        verdicts: What was done to ``a`` to make ``b``, one for each pair; empty without a
            verification.
        groups: Rows of each group, the best photo first; the largest group first.
        threshold: What made a pair a candidate.
        candidates: How many pairs were candidates.
        verified_by: ``"pixels"``, ``"heads"``, another verification's name, or ``"nothing"``.
        recall: Share of the candidates among each photo's nearest that an index found, in [0, 1],
            measured on some photos; None where all pairs were compared.
        coverage: The same of all candidates: it is lower where photos have many.
        limited: Whether there were as many candidates as may be, so that the least alike were left
            out.
    """

    pairs: Pairs
    verdicts: Sequence[Verdict]
    groups: list[NDArray[np.int64]]
    threshold: Threshold
    candidates: int
    verified_by: str
    recall: float | None = None
    coverage: float | None = None
    limited: bool = False

    @property
    def surplus(self) -> NDArray[np.int64]:
        """All rows but the best of each group, ascending."""
        rest = [group[1:] for group in self.groups]
        return np.sort(np.concatenate(rest)) if rest else np.empty(0, np.int64)


def find_duplicates(  # noqa: PLR0913, each is an option
    embeddings: Embeddings | Vectors,
    *,
    part: str = "invariant",
    threshold: float | None = None,
    expected_false: float | None = None,
    heads: Heads | None = None,
    verify: Verify | None = None,
    pixels: NDArray[np.int64] | None = None,
    ranking: Ranking | None = None,
    max_pairs: int | None = None,
    exact: bool | None = None,
    progress: Progress | None = None,
) -> Duplicates:
    """Find copies among photos, however they were turned, mirrored, cropped or recoloured.

    Up to 200,000 photos every pair is compared, block by block, in bounded memory: beside the
    embeddings about 200 MB. Two cores take minutes for 200,000 photos of 1,024 dimensions. Of more
    photos each is compared with those that an index finds to be like it
    (``clever_hub.jobs.nearest``); ``recall`` and ``coverage`` say how many of the candidates that
    finds.

    Args:
        embeddings: Of one model, raw or normalised; or vectors, float32 or float16 (N, d).
        part: Which part of the embeddings finds candidates.
        threshold: Least cosine of a candidate, of vectors less their mean (of fewer than 16 without
            heads: as they are); in place of ``expected_false``.
        expected_false: How many pairs of different photos may be candidates. The default is 25
            for each photo where candidates are verified, else one in all. Where the heads alone
            verify, it is one in 1,000 pairs at most: they are less sure than pixels.
        heads: The model's heads: their calibration sets the threshold where its rates go so far,
            and where ``verify`` is None they verify. They need raw embeddings.
        verify: Looks at candidates: rows of the first photos and of the second in, a verdict for
            each out, None where a photo cannot be read; such as
            ``clever_hub.jobs.verifying.PixelVerifier``.
        pixels: int64 (N,), size of each photo; the largest of a group is its best. Without, the
            first is.
        ranking: Which photo of a group is its best, by more than its size; in place of ``pixels``.
        max_pairs: At most so many candidates, the most alike; None: five million, or forty for each
            photo.
        exact: Whether every pair is compared; None: up to 200,000 photos. False needs LanceDB.
        progress: Called with the blocks that are compared, or the photos, and how many there are.

    Returns:
        Pairs and groups.

    Raises:
        ConfigError: When an option is wrong, or there are too few photos to measure a rate on.
        DataError: When there are no embeddings; when heads are asked to read embeddings of other
            lengths than their model's, or normalised ones; or when ``pixels`` or ``ranking`` are of
            another number of photos.
        MissingExtraError: When an index is needed and LanceDB is not installed.
        ValueError: When vectors are not finite.

    Example:
        >>> photos = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
        >>> copies = np.concatenate([photos, photos[:2] + 0.01])
        >>> found = find_duplicates(copies, threshold=0.95)
        >>> [group.tolist() for group in found.groups]
        [[0, 6], [1, 7]]
    """
    if max_pairs is not None and max_pairs < 1:
        raise ConfigError(f"max_pairs: expected 1 or more, got {max_pairs}")
    if pixels is not None and ranking is not None:
        raise ConfigError("expected pixels or a ranking, got both: each says which photo is best")
    check_options(threshold, expected_false)
    vectors = vectors_of(embeddings, part)
    if heads is not None:
        check_raw(embeddings if isinstance(embeddings, Embeddings) else vectors, heads)
    if pixels is not None:
        check_count("pixels", len(pixels), len(vectors))
    if ranking is not None:
        check_count("ranking", len(ranking.rank), len(vectors))
    if isinstance(verify, PixelVerifier):
        check_count("verify", verify.counts[0], len(vectors))
    verifier, name = _verifier(embeddings, heads, verify)
    mean = centre(vectors, part, heads)
    cut = choose_threshold(
        vectors,
        part=part,
        threshold=threshold,
        expected_false=expected_false,
        heads=heads,
        mean=mean,
        verified=verifier is not None,
        by_heads=verify is None,
    )
    if exact is None:
        exact = len(vectors) <= APPROXIMATE_FROM
    exact = exact or len(vectors) < 2  # an index of nothing cannot be made
    limit = max_pairs or most_pairs(len(vectors))
    found, recall, coverage = pairs_by(exact)(
        vectors, cut.cosine, mean=mean, max_pairs=limit, progress=progress
    )
    limited = len(found.a) >= limit
    candidates = len(found.a)
    if ranking is None:
        none = np.zeros(len(vectors), np.int64)
        ranking = _ByPixels(none if pixels is None else -np.asarray(pixels, np.int64))
    found = better_first(found, ranking.rank)
    kept, verdicts = look_at(found, verifier)
    ranking.look(kept, verdicts)
    rank = ranking.rank  # after what was seen
    kept, verdicts = _turned_round(kept, verdicts, rank, verifier)
    return Duplicates(
        kept,
        verdicts,
        group(kept, rank),
        cut,
        candidates,
        name,
        recall=recall,
        coverage=coverage,
        limited=limited,
    )


def check_count(name: str, photos: int, embeddings: int) -> None:
    """Refuse photos that do not go with the embeddings row by row.

    Args:
        name: Of the option.
        photos: How many it has.
        embeddings: How many rows there are.

    Raises:
        DataError: When they are not as many.
    """
    if photos != embeddings:
        raise DataError(
            f"{name}: expected as many photos as embeddings, {embeddings}, got {photos}. Leave out "
            "the photos that were skipped: embeddings.kept(photos)"
        )


def pairs_by(exact: bool) -> Callable[..., tuple[Pairs, float | None, float | None]]:
    """What finds candidates: pairs, and its recall and coverage where it is not exact.

    Args:
        exact: Whether every pair is compared (``similar_pairs``), or by an index
            (``nearest_pairs``).
    """
    return _all_pairs if exact else nearest_pairs


def most_pairs(photos: int) -> int:
    """How many candidates are kept at most: more than are asked for by default.

    Args:
        photos: How many there are; of two sets, those of the second.
    """
    return max(MAX_PAIRS, 40 * photos)


def better_first(pairs: Pairs, rank: NDArray[np.int64]) -> Pairs:
    """Turn pairs so that the better photo comes first; of equal ones, the earlier.

    Args:
        pairs: Pairs of rows.
        rank: int64 (N,), lower is better.
    """
    swap = rank[pairs.b] < rank[pairs.a]
    a, b = np.where(swap, pairs.b, pairs.a), np.where(swap, pairs.a, pairs.b)
    return Pairs(a, b, pairs.cosine)


def look_at(pairs: Pairs, verify: Verify | None) -> tuple[Pairs, list[Verdict]]:
    """The pairs that a verification finds to be copies, and its verdicts on them.

    Args:
        pairs: Candidates.
        verify: The verification; None keeps all, without verdicts.
    """
    if verify is None:
        return pairs, []
    verdicts = verify(pairs.a, pairs.b)
    same = [i for i, verdict in enumerate(verdicts) if verdict is not None and verdict.same >= 0.5]
    return pairs.take(same), [verdict for i in same if (verdict := verdicts[i]) is not None]


def group(pairs: Pairs, rank: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """What is linked by pairs, directly or through others.

    Args:
        pairs: Links.
        rank: int64 (N,), lower is better.

    Returns:
        The rows of each group of at least two, the best first, of equals the earlier; the largest
        group first.

    Example:
        >>> links = Pairs(np.array([0, 4]), np.array([2, 2]), np.ones(2, np.float32))
        >>> group(links, np.array([5, 0, 1, 0, 9]))
        [array([2, 0, 4])]
    """
    root = np.arange(len(rank))

    def find(row: int) -> int:
        while root[row] != row:
            root[row] = root[root[row]]  # halves the path for the next
            row = root[row]
        return row

    for a, b in zip(pairs.a.tolist(), pairs.b.tolist(), strict=True):
        first, second = sorted((find(a), find(b)))
        root[second] = first
    members: dict[int, list[int]] = {}
    for row in np.unique(np.concatenate([pairs.a, pairs.b])).tolist():
        members.setdefault(find(row), []).append(row)
    groups = [sorted(rows, key=lambda row: (int(rank[row]), row)) for rows in members.values()]
    groups.sort(key=lambda rows: (-len(rows), rows[0]))
    return [np.array(rows, np.int64) for rows in groups]


def _turned_round(
    pairs: Pairs, verdicts: list[Verdict], rank: NDArray[np.int64], verify: Verify | None
) -> tuple[Pairs, list[Verdict]]:
    """Pairs with the better photo first also where only the verification told which that is.

    What was done to the other one is looked at again, from there. Where that finds no copy, the
    pair stays as it was.
    """
    places = np.flatnonzero(rank[pairs.b] < rank[pairs.a])
    if not len(places) or verify is None:
        return better_first(pairs, rank), verdicts
    a, b, verdicts = pairs.a.copy(), pairs.b.copy(), list(verdicts)
    again = verify(pairs.b[places], pairs.a[places])
    for place, verdict in zip(places.tolist(), again, strict=True):
        if verdict is not None and verdict.same >= 0.5:
            a[place], b[place], verdicts[place] = pairs.b[place], pairs.a[place], verdict
    return Pairs(a, b, pairs.cosine), verdicts


@dataclass(frozen=True)
class _ByPixels:
    """The order by size alone, which no verification changes."""

    rank: NDArray[np.int64]

    def look(self, pairs: Pairs, verdicts: Sequence[Verdict]) -> None:
        """Nothing to see."""


def _all_pairs(vectors: Vectors, threshold: float, **options: Any) -> tuple[Pairs, None, None]:
    return similar_pairs(vectors, threshold, **options), None, None


def _verifier(
    embeddings: Embeddings | Vectors, heads: Heads | None, verify: Verify | None
) -> tuple[Verify | None, str]:
    if verify is not None:
        return verify, getattr(verify, "name", "the caller's verification")
    if heads is None or heads.config.calibration is None or not isinstance(embeddings, Embeddings):
        return None, "nothing"

    def by_heads(a: NDArray[np.int64], b: NDArray[np.int64]) -> Sequence[Verdict | None]:
        from clever_hub.jobs.relate import relate

        verdicts: list[Verdict | None] = []
        for start in range(0, len(a), 8192):  # bounded: the heads' hidden layers are wide
            rows = slice(start, start + 8192)
            verdicts.extend(relate(embeddings[a[rows]], embeddings[b[rows]], heads))
        return verdicts

    return by_heads, "heads"
