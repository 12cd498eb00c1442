"""The paper's claims about the two parts, tested on the figures of each model."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from typing import NamedTuple

from clever_training.evaluation.report.collect import Entrant, Field, Value
from clever_training.evaluation.report.document import Table

# Differences of cosines and R² below this are too small to matter, however small the spread.
SMALLEST = 0.01


class Claim(NamedTuple):
    """One figure that should be larger than another.

    Attributes:
        text: The claim in words.
        figure: The compared figure in words.
        protocol: Protocol of the figure.
        condition: Condition of the protocol.
        metric: Metric of the protocol.
        larger: The part whose figure should be larger.
        smaller: The part whose figure should be smaller.
        percent: Whether the figure is an accuracy in per cent.
    """

    text: str
    figure: str
    protocol: str
    condition: str
    metric: str
    larger: str
    smaller: str
    percent: bool = False


CLAIMS = (
    Claim(
        "The invariant part stays more alike when a photo is turned than the equivariant part",
        "cosine gap, centred",
        *("invariance", "rotation", "gap_centred", "invariant", "equivariant"),
    ),
    Claim(
        "The equivariant part knows the angle better than as many dimensions of the invariant part",
        "R² of the angle, ridge",
        *("equivariance", "rotation", "ridge_r2", "equivariant", "invariant_slice"),
    ),
    Claim(
        "So it does when an MLP reads the angle",
        "R² of the angle, MLP",
        *("equivariance", "rotation", "mlp_r2", "equivariant", "invariant_slice"),
    ),
    Claim(
        "The full embedding classifies better than the invariant part",
        "linear probe Top-1, %",
        *("linear", "plain", "top1", "full", "invariant", True),
    ),
    Claim(
        "The full embedding has better nearest neighbours than the invariant part",
        "k-NN Top-1, %",
        *("knn", "plain", "top1", "full", "invariant", True),
    ),
)


class Verdict(NamedTuple):
    """Whether a claim holds for one model.

    Attributes:
        claim: The claim.
        larger: Figure of the part whose figure should be larger.
        smaller: Figure of the other part.
        margin: The noise, which the difference has to exceed.
    """

    claim: Claim
    larger: Value
    smaller: Value
    margin: float

    @property
    def difference(self) -> float:
        """The difference between the two figures; positive when the claim holds."""
        return self.larger.mean - self.smaller.mean

    @property
    def word(self) -> str:
        """``holds``, ``the reverse holds``, ``undecided`` or ``neither knows it``."""
        best = round(max(self.larger.mean, self.smaller.mean), 2)
        # An R² of at most 0 means no information; two useless fits are not compared.
        if self.claim.metric.endswith("_r2") and best <= SMALLEST:
            return "neither knows it"
        if abs(self.difference) <= self.margin:
            return "undecided"
        return "holds" if self.difference > 0 else "the reverse holds"


def verdicts(entrant: Entrant) -> Iterator[Verdict]:
    """Judge every claim whose figures a model has.

    Args:
        entrant: The model.

    Yields:
        One verdict for each claim that was measured.
    """
    for claim in CLAIMS:
        where = claim.protocol, claim.condition
        larger = entrant.get(*where, claim.larger, claim.metric)
        smaller = entrant.get(*where, claim.smaller, claim.metric)
        if larger and smaller:
            margin = noise(larger, smaller, entrant.photos(claim.protocol), claim.percent)
            yield Verdict(claim, larger, smaller, margin)


def noise(larger: Value, smaller: Value, photos: int | None, percent: bool) -> float:
    """The noise that a difference has to exceed.

    Args:
        larger: One figure.
        smaller: The other figure.
        photos: Number of validation photos of the figures, when known.
        percent: Whether they are accuracies.

    Returns:
        Twice the standard deviation of the difference over the seeds. It is at least the 95 %
        interval of a difference of accuracies on so many photos, as if the two were measured on
        different photos; for other figures it is at least ``SMALLEST``.

    Example:
        >>> half = Value(50.0, None, (50.0,))
        >>> round(noise(half, half, 5000, percent=True), 2)
        1.96
    """
    pairs = list(zip(larger.values, smaller.values, strict=False))
    spread = statistics.stdev(a - b for a, b in pairs) if len(pairs) > 1 else 0.0
    least = SMALLEST
    if percent:
        shares = [value.mean / 100 for value in (larger, smaller)]
        variance = sum(share * (1 - share) for share in shares) / (photos or 1000)
        least = 1.96 * math.sqrt(variance) * 100
    return max(2 * spread, least)


def _unknown(claim: Claim, value: Value) -> str:
    """The suffix of a margin from one seed, whose deviation is not known."""
    return " or more" if len(value.values) == 1 and not claim.percent else ""


def claims_table(field: Field) -> Table | None:
    """Every claim for every model that has its figures; None when no model has any.

    Args:
        field: The models.

    Returns:
        A row for each claim and model.
    """
    rows = []
    for entrant in (e for e in field.entrants if e.kind in ("model", "random")):
        for claim, larger, smaller, margin in verdicts(entrant):
            verdict = Verdict(claim, larger, smaller, margin)
            digits = 1 if claim.percent else 3
            rows.append(
                (
                    claim.text,
                    entrant.name,
                    claim.figure,
                    f"**{verdict.word}**",
                    f"{larger.mean:.{digits}f}",
                    f"{smaller.mean:.{digits}f}",
                    f"{verdict.difference:+.{digits}f}",
                    f"±{margin:.{digits}f}{_unknown(claim, larger)}",
                )
            )
    if not rows:
        return None
    order = [claim.text for claim in CLAIMS]
    rows.sort(key=lambda row: order.index(row[0]))
    shown = [
        row if index == 0 or row[0] != rows[index - 1][0] else ("", *row[1:])
        for index, row in enumerate(rows)
    ]
    words = ("claim", "model", "figure", "verdict")
    return Table((*words, "first", "second", "difference", "noise"), tuple(shown), words=4)
