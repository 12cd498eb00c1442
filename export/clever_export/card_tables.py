"""The card's table: the figures that say most of a model, beside what they are measured against.

``docs/evaluation-schema.md`` lists the keys. What a model has not measured is left out, and the
next figure of the list takes its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import stdev
from typing import Any

ROWS = 6
BASELINES = {"random": "random weights", "pixels": "raw pixels"}
_DISC = "turned by up to ±90°"


@dataclass(frozen=True)
class Figure:
    """A figure that the card may show.

    Attributes:
        words: What is measured; of which part is added.
        place: Its protocol and condition in evaluation.json.
        part: Of which part; of the whole embedding where a model has no such part.
        metrics: Its metric; the first that was measured.
        digits: Decimal places.
        unit: Written behind the number.
        chance: What knowing nothing comes to; ``"classes"`` is one of so many.
    """

    words: str
    place: tuple[str, str]
    part: str
    metrics: tuple[str, ...]
    digits: int = 1
    unit: str = " %"
    chance: float | str | None = None


_TOP1 = ("top1",)
# The most telling first: the card has six.
FIGURES = (
    Figure("k-NN top-1, upright photos", ("knn", "plain"), "full", _TOP1, chance="classes"),
    Figure("k-NN top-1, upright photos", ("knn", "plain"), "invariant", _TOP1, chance="classes"),
    Figure(f"k-NN top-1, {_DISC}", ("knn", "rotated"), "invariant", _TOP1, chance="classes"),
    Figure("linear probe, upright photos", ("linear", "plain"), "full", _TOP1, chance="classes"),
    Figure(
        "the photo found by its turned copy, 1/rank",
        ("retrieval", "rotation"),
        "invariant",
        ("mrr",),
        digits=3,
        unit="",
    ),
    Figure(
        "angle of the turned copy, mean error of a small MLP",
        ("equivariance", "rotation"),
        "equivariant",
        ("mlp_degrees",),
        unit="°",
        chance=45.0,
    ),
    Figure(
        "which quarter turn",
        ("equivariance", "quarter-turns"),
        "equivariant",
        _TOP1,
        chance=25.0,
    ),
    Figure(
        "cosine of photo and turned copy",
        ("invariance", "rotation"),
        "invariant",
        ("same_centred",),
        digits=3,
        unit="",
    ),
    Figure(
        "k-NN top-1, upright, through a disc",
        ("knn", "upright"),
        "full",
        _TOP1,
        chance="classes",
    ),
    Figure(f"linear probe, {_DISC}", ("linear", "rotated"), "invariant", _TOP1, chance="classes"),
)

# Protocols that the card shows figures of, in its table or its picture.
SHOWN = {figure.place[0] for figure in FIGURES}


def table(evaluation: Mapping[str, Any]) -> str:
    """The figures as a table, at most six rows.

    Args:
        evaluation: Content of evaluation.json.

    Returns:
        Markdown; empty where none of the figures was measured.
    """
    rows = list(_rows(evaluation))
    if not rows:
        return ""
    others = [*evaluation.get("baselines", {}).items()]
    heads = ["", "this model", *(label(name, one) for name, one in others), "chance"]
    # A column in which nothing stands is left out.
    kept = [n for n in range(len(heads)) if n < 2 or any(row[n] != "–" for row in rows)]
    lines = ["| " + " | ".join(heads[n] for n in kept) + " |", "|---|" + "---:|" * (len(kept) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row[n] for n in kept) + " |" for row in rows)])


def _rows(evaluation: Mapping[str, Any]) -> Iterator[list[str]]:
    shown: set[tuple[str, ...]] = set()
    for wanted in FIGURES:
        place = _measured(evaluation, wanted)
        if place is None or place in shown or len(shown) == ROWS:
            continue
        shown.add(place)
        part = "full embedding" if place[2] == "full" else f"{place[2]} part"
        cells = [f"{wanted.words}, {part}", f"**{_text(figure(evaluation, *place), wanted)}**"]
        for other in evaluation.get("baselines", {}).values():
            found = figure(other, *place) or figure(other, *place[:2], "full", place[3])
            cells.append(_text(found, wanted))
        yield [*cells, _chance(evaluation, wanted)]


def _measured(evaluation: Mapping[str, Any], wanted: Figure) -> tuple[str, ...] | None:
    """Where the model's own figure stands."""
    for part in dict.fromkeys((wanted.part, "full")):
        for metric in wanted.metrics:
            if figure(evaluation, *wanted.place, part, metric) is not None:
                return (*wanted.place, part, metric)
    return None


def _chance(evaluation: Mapping[str, Any], wanted: Figure) -> str:
    if wanted.chance == "classes":
        data = evaluation["protocols"].get(wanted.place[0], {}).get("data", {})
        classes = data.get("train", {}).get("classes")
        return f"{100 / classes:.1f} %" if isinstance(classes, int) and classes else "–"
    return "–" if wanted.chance is None else f"{wanted.chance:g}{wanted.unit}"


def _text(value: Mapping[str, Any] | None, wanted: Figure) -> str:
    if value is None:
        return "–"
    spread = f"{value.get('std') or 0.0:.{wanted.digits}f}"
    deviation = f" ± {spread}" if float(spread) else ""
    return f"{value['mean']:.{wanted.digits}f}{deviation}{wanted.unit}"


def angle_claim(evaluation: Mapping[str, Any]) -> str:
    """Whether the equivariant part knows a turn better than as many other columns would.

    Args:
        evaluation: Content of evaluation.json.

    Returns:
        Two sentences; empty where that was not measured.
    """
    for reader, metric in (("a small MLP", "mlp_r2"), ("a ridge regression", "ridge_r2")):
        own = figure(evaluation, "equivariance", "rotation", "equivariant", metric)
        other = figure(evaluation, "equivariance", "rotation", "invariant_slice", metric)
        if own is None or other is None:
            continue
        return (
            f"How far a photo was turned, R² of {reader}: {own['mean']:.3f} from the equivariant "
            f"part, {other['mean']:.3f} from as many columns of the invariant part. "
            f"{_compared(own, other)}"
        )
    return ""


# An R² no larger than this is no knowledge, a difference no larger none.
_NOTHING = 0.01


def _compared(own: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """By the rules of the report's claims, where one seed has no spread to go by."""
    if round(max(own["mean"], other["mean"]), 2) <= _NOTHING:
        return "Neither knows it."
    difference = own["mean"] - other["mean"]
    if abs(difference) <= max(_spread(own, other), _NOTHING):
        return "The equivariant part knows no more and no less of it than they do."
    more = "more" if difference > 0 else "less"
    return f"The equivariant part knows {more} of it than they do."


def _spread(own: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Twice the deviation of the differences by seed, as ``noise`` in the report's claims.

    Where a file has no figures of the seeds, it is the sum of both deviations.
    """
    if own.get("values") and other.get("values"):
        differences = [a - b for a, b in zip(own["values"], other["values"], strict=False)]
        return 2 * stdev(differences) if len(differences) > 1 else 0.0
    return float(own.get("std") or 0.0) + float(other.get("std") or 0.0)


def figure(measured: Mapping[str, Any], *place: str) -> Mapping[str, Any] | None:
    """A figure by protocol, condition, part and metric; None where it was not measured."""
    found: Any = measured["figures"]
    for key in place:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else None


def label(name: str, measured: Mapping[str, Any]) -> str:
    """What a baseline is called: what is known by its key, or its name and training."""
    if name in BASELINES:
        return BASELINES[name]
    model = measured.get("model", {})
    trained = [str(model["method"])] if model.get("method") else []
    if isinstance(model.get("epochs"), (int, float)) and model["epochs"]:
        trained.append(f"{model['epochs']:g} epochs")
    return f"{name} ({', '.join(trained)})" if trained else name


def mean(measured: Mapping[str, Any], *place: str) -> float | None:
    """The mean of a figure."""
    found = figure(measured, *place)
    return None if found is None else float(found["mean"])
