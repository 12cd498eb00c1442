"""Leaks: photos of one collection, such as a validation set, that are copies of another's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clever_hub.jobs.candidates import centre, check_options, choose_threshold, vectors_of
from clever_hub.jobs.duplicates import Verdict, Verify, look_at
from clever_hub.jobs.embedded import EmbeddedPhotos, check_comparable
from clever_hub.jobs.groups import PAIR_COLUMNS, relation_columns
from clever_hub.jobs.pairs import Pairs, Progress, similar_pairs
from clever_hub.jobs.rates import Threshold
from clever_hub.jobs.rows import Photo
from clever_hub.jobs.sheets import Shown, ShownRow

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
    """

    pairs: Pairs
    verdicts: Sequence[Verdict]
    threshold: Threshold
    candidates: int
    verified: bool

    @property
    def leaked(self) -> list[int]:
        """The validation photos that are copies, each once, ascending."""
        return sorted({int(row) for row in self.pairs.b})


def find_leaks(
    train: EmbeddedPhotos,
    validation: EmbeddedPhotos,
    *,
    part: str = "invariant",
    threshold: float | None = None,
    expected_false: float | None = None,
    heads: Heads | None = None,
    verify: Verify | None = None,
    progress: Progress | None = None,
) -> Leaks:
    """Find validation photos that are copies of training photos, by any transformation.

    Every pair of the two is compared; pairs within one are not.

    Args:
        train: The training photos.
        validation: The validation photos, embedded by the same model in the same way.
        part: Which part of the embeddings finds candidates.
        threshold: Least centred cosine of a candidate, in place of ``expected_false``.
        expected_false: How many pairs of different photos may be candidates. The default is 25
            for each validation photo where candidates are looked at, else one in all.
        heads: The model's heads, whose calibration sets the threshold.
        verify: Looks at candidates: rows of training photos and of validation photos in.
        progress: Called with the blocks that are compared, and how many there are.

    Returns:
        The copies.

    Raises:
        DataError: When the two were embedded by different models, or differently.
        ConfigError: As ``find_duplicates``.
    """
    check_options(threshold, expected_false)
    check_comparable(train, validation, "the training photos", "the validation photos")
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
    found = similar_pairs(a, cut.cosine, others=b, mean=mean, progress=progress)
    kept, verdicts = look_at(found, verify)
    return Leaks(kept, verdicts, cut, len(found.a), verify is not None)


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
        places = of_photo[int(leaked)]
        words = [found.verdicts[place].words() for place in places] if found.verdicts else []
        photos = [Shown(train[int(found.pairs.a[place])], "training") for place in places]
        done = f"validation: {words[0]}" if words else "validation"
        photos.insert(1, Shown(validation[leaked], done))
        rows.append(ShownRow(validation[leaked].name, photos))
    return rows
