"""Leaks: photos of one collection, such as a validation set, that are copies of another's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clever_hub.embeddings import Embeddings
from clever_hub.errors import DataError
from clever_hub.images.opening import describe
from clever_hub.jobs.candidates import centre, check_options, choose_threshold, vectors_of
from clever_hub.jobs.duplicates import Verdict, Verify, check_count, look_at, most_pairs, pairs_by
from clever_hub.jobs.embedded import EmbeddedPhotos, check_comparable
from clever_hub.jobs.groups import PAIR_COLUMNS, relation_columns
from clever_hub.jobs.nearest import APPROXIMATE_PAIRS
from clever_hub.jobs.pairs import Pairs, Progress
from clever_hub.jobs.rates import Threshold
from clever_hub.jobs.relate import check_raw
from clever_hub.jobs.rows import Photo
from clever_hub.jobs.sheets import ACROSS, Shown, ShownRow
from clever_hub.jobs.verifying import PixelVerifier

if TYPE_CHECKING:
    from clever_hub.jobs.heads import Heads

COLUMNS: dict[str, type] = {"validation": str, "train": str, **PAIR_COLUMNS}


@dataclass(frozen=True, eq=False)
class Leaks:
    """What was found.

    Attributes:
        pairs: ``a`` is a row of the training photos, ``b`` of the validation photos.
        verdicts: What was done to ``a`` to make ``b``, one for each pair; empty without a
            verification.
        threshold: What made a pair a candidate.
        candidates: How many pairs were candidates.
        verified: Whether they were looked at.
        recall: Share of the candidates among each validation photo's nearest that an index
            found, in [0, 1], measured on some of them; None where all pairs were compared.
        coverage: The same of all candidates: it is lower where photos have many.
        limited: Whether there were as many candidates as may be (``most_pairs``), so that the least
            alike were left out.
    """

    pairs: Pairs
    verdicts: Sequence[Verdict]
    threshold: Threshold
    candidates: int
    verified: bool
    recall: float | None = None
    coverage: float | None = None
    limited: bool = False

    @property
    def leaked(self) -> list[int]:
        """The validation photos that are copies, each once, ascending."""
        return sorted({int(row) for row in self.pairs.b})


def find_leaks(
    train: EmbeddedPhotos | Embeddings,
    validation: EmbeddedPhotos | Embeddings,
    *,
    part: str = "invariant",
    threshold: float | None = None,
    expected_false: float | None = None,
    heads: Heads | None = None,
    verify: Verify | None = None,
    exact: bool | None = None,
    progress: Progress | None = None,
) -> Leaks:
    """Find validation photos that are copies of training photos, by any transformation.

    Up to 2·10¹⁰ pairs of one of each are all compared, such as 400,000 training photos with 50,000
    validation photos. Beyond, each validation photo is compared with those training photos that an
    index finds to be like it (``clever_hub.jobs.nearest``); ``recall`` and ``coverage`` say how
    many of the candidates that finds. Pairs within one set are not compared.

    Args:
        train: The training photos, or their embeddings alone.
        validation: The validation photos, embedded by the same model in the same way. Embeddings
            alone do not know their model: of two models with parts of the same lengths they are
            not refused.
        part: Which part of the embeddings finds candidates.
        threshold: Least centred cosine of a candidate, in place of ``expected_false``.
        expected_false: How many pairs of different photos may be candidates. The default is 25
            for each validation photo where candidates are looked at, else one in all.
        heads: The model's heads, whose calibration sets the threshold where its rates go so far.
        verify: Looks at candidates: rows of training photos and of validation photos in.
        exact: Whether every pair is compared; None: up to 2·10¹⁰ pairs. False needs LanceDB.
        progress: Called with the blocks that are compared, or the validation photos, and how many
            there are.

    Returns:
        The copies.

    Raises:
        DataError: When the two were embedded by different models, or differently; when heads are
            to read normalised embeddings; when there are no embeddings; or when ``verify`` has
            another number of photos.
        ConfigError: As ``find_duplicates``.
        MissingExtraError: When an index is needed and LanceDB is not installed.
    """
    check_options(threshold, expected_false)
    train, validation = (_photos(side) for side in (train, validation))
    check_comparable(train, validation, "the training photos", "the validation photos")
    for photos in (train, validation) if heads is not None else ():
        check_raw(photos.embeddings, heads)
    if isinstance(verify, PixelVerifier):
        for side, count in zip((train, validation), verify.counts, strict=True):
            check_count("verify", count, len(side))
    a, b = (vectors_of(photos.embeddings, part) for photos in (train, validation))
    mean = centre(a, part, heads)
    cut = choose_threshold(
        a,
        part=part,
        threshold=threshold,
        expected_false=expected_false,
        heads=heads,
        mean=mean,
        others=b,
        verified=verify is not None,
    )
    if exact is None:
        exact = not is_approximate(len(a), len(b))
    exact = exact or len(a) < 2 or not len(b)
    limit = most_pairs(len(b))
    found, recall, coverage = pairs_by(exact)(
        a, cut.cosine, others=b, mean=mean, max_pairs=limit, progress=progress
    )
    kept, verdicts = look_at(found, verify)
    return Leaks(
        kept,
        verdicts,
        cut,
        candidates=len(found.a),
        verified=verify is not None,
        recall=recall,
        coverage=coverage,
        limited=len(found.a) >= limit,
    )


def _photos(side: EmbeddedPhotos | Embeddings) -> EmbeddedPhotos:
    if isinstance(side, EmbeddedPhotos):
        return side
    if not isinstance(side, Embeddings):
        raise DataError(
            "expected Embeddings, as model.encode gives them, or EmbeddedPhotos, as "
            f"read_embeddings does; got {describe(side)}"
        )
    return EmbeddedPhotos([Path(str(row)) for row in range(len(side))], side)


def is_approximate(train: int, validation: int) -> bool:
    """Whether an index finds the candidates if nothing else is asked for.

    Args:
        train: How many training photos there are.
        validation: How many validation photos.
    """
    return train * validation > APPROXIMATE_PAIRS


def table(
    found: Leaks, train: Sequence[Photo], validation: Sequence[Photo]
) -> list[dict[str, Any]]:
    """A row for each pair, in the columns ``COLUMNS``."""
    return [
        {
            "validation": validation[b],
            "train": train[a],
            "cosine": float(cosine),
            **relation_columns(found.verdicts[place] if found.verdicts else None),
        }
        for place, (a, b, cosine) in enumerate(zip(*found.pairs, strict=True))
    ]


def shown(found: Leaks, train: Sequence[Photo], validation: Sequence[Photo]) -> list[ShownRow]:
    """A row of a page for each leaked photo: the training photos, then what became of them."""
    of_photo: defaultdict[int, list[int]] = defaultdict(list)
    for place, row in enumerate(found.pairs.b.tolist()):
        of_photo[row].append(place)
    rows = []
    for leaked in found.leaked:
        all_places = of_photo[int(leaked)]
        places = all_places[: ACROSS - 1]
        words = [found.verdicts[place].words() for place in places] if found.verdicts else []
        photos = [Shown(train[int(found.pairs.a[place])], "training") for place in places]
        done = f"validation: {words[0]}" if words else "validation"
        photos.insert(1, Shown(validation[leaked], done))
        more = len(all_places) - len(places)
        rows.append(ShownRow(validation[leaked].name, photos, more=more))
    return rows
