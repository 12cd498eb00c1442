"""The card's figures: a table for each protocol of evaluation.json, and what they come to.

``docs/evaluation-schema.md`` lists the keys. What a model has not measured is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

BASELINES = {"random": "same backbone, random weights", "pixels": "raw pixels"}
PARTS = {
    "full": "full",
    "invariant": "invariant",
    "equivariant": "equivariant",
    "invariant_slice": "invariant, as narrow as the equivariant",
}
CONDITIONS = {
    "plain": "whole photo",
    "upright": "upright, disc mask",
    "rotated": "rotated within ±90°, disc mask",
}
_GRID = {
    "original": "as it is",
    "cj": "colours",
    "cj+flip": "colours, flip",
    "cj+ro": "colours, ±90°",
    "cj+ro+et": "colours, ±90°, elastic",
}


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        heading: Its heading.
        condition: What is measured under.
        metric: What is measured.
        digits: Decimal places.
    """

    heading: str
    condition: str
    metric: str
    digits: int = 3


@dataclass(frozen=True)
class Figures:
    """A table: who and which part in rows.

    Attributes:
        protocol: The protocol's name in evaluation.json.
        words: What it shows, before the table.
        columns: Its columns.
    """

    protocol: str
    words: str
    columns: tuple[Column, ...]


def _accuracy(conditions: Mapping[str, str], prefix: str = "") -> tuple[Column, ...]:
    return tuple(Column(words, prefix + name, "top1", 1) for name, words in conditions.items())


_NOTE = "mean ± deviation over seeds"
TABLES = (
    Figures(
        "knn",
        f"k-NN top-1 in % (k 20, cosine, temperature 0.07), {_NOTE}:",
        _accuracy(CONDITIONS),
    ),
    Figures("linear", f"Linear probe, top-1 in %, {_NOTE}:", _accuracy(CONDITIONS)),
    Figures(
        "robustness",
        "Top-1 in % of a linear probe fitted on upright photos, asked with perturbed ones:",
        _accuracy(_GRID, "upright/"),
    ),
    Figures(
        "robustness",
        "The same, fitted on photos that were turned within ±90°:",
        _accuracy(_GRID, "rotated/"),
    ),
    Figures(
        "invariance",
        "Cosine similarity of a photo and its copy turned within ±90° (both through the disc "
        "mask), minus that of different photos; after centring:",
        (
            Column("same photo", "rotation", "same_centred"),
            Column("different photos", "rotation", "different_centred"),
            Column("difference", "rotation", "gap_centred"),
        ),
    ),
    Figures(
        "retrieval",
        "Finding a photo among all by its copy turned within ±90°:",
        (
            Column("mean reciprocal rank", "rotation", "mrr"),
            Column("first, %", "rotation", "hit1", 1),
        ),
    ),
    Figures(
        "equivariance",
        "What two views of a photo say about the transformation between them: R² of a ridge "
        "regression (1 all, 0 nothing), the error of the angle (knowing nothing has 45°), which "
        "quarter turn (chance 25 %), and the rank of the right pose among 13 (chance 0.245):",
        (
            Column("rotation, R²", "rotation", "ridge_r2"),
            Column("angle, °", "rotation", "ridge_degrees", 1),
            Column("angle by an MLP, °", "rotation", "mlp_degrees", 1),
            Column("crop, R²", "crop", "ridge_r2"),
            Column("colours, R²", "jitter", "ridge_r2"),
            Column("blur, R²", "blur", "ridge_r2"),
            Column("quarter turn, %", "quarter-turns", "top1", 1),
            Column("pose, 1/rank", "rotation-map", "pose_mrr"),
        ),
    ),
    Figures(
        "collapse",
        "How many dimensions are used:",
        (
            Column("effective rank", "plain", "effective_rank", 1),
            Column("of", "plain", "dim", 0),
            Column("spread (1 even, 0 collapsed)", "plain", "std"),
        ),
    ),
)


def tables(evaluation: Mapping[str, Any]) -> Iterator[str]:
    """The tables of what the model has measured.

    Args:
        evaluation: Content of evaluation.json.

    Yields:
        Markdown.
    """
    for table in TABLES:
        # A column stands where the model itself was measured; a baseline may lack it.
        columns = [c for c in table.columns if any(_values(evaluation, table, c).values())]
        if columns:
            yield "\n".join(_lines(evaluation, table, columns))


def claims(evaluation: Mapping[str, Any]) -> Iterator[str]:
    """Sentences that interpret the figures; each holds for the figures it is made from.

    Args:
        evaluation: Content of evaluation.json.

    Yields:
        Markdown, a sentence or two each.
    """
    for protocol, name in (("knn", "k-NN"), ("linear", "A linear probe")):
        for condition in ("plain", "rotated"):
            words = CONDITIONS[condition]
            place = (protocol, condition, "full", "top1")
            if figure(evaluation, *place) is not None:
                said = [f"**{mean(evaluation, *place):.1f} %**", *_against(evaluation, place)]
                yield f"{name} on the full embedding, {words}: {'; '.join(said)}."
    yield from _angle(evaluation)


def _against(evaluation: Mapping[str, Any], place: tuple[str, ...]) -> Iterator[str]:
    for who, measured in evaluation.get("baselines", {}).items():
        found = mean(measured, *place)
        if found is not None:
            yield f"{label(who, measured)} {found:.1f} %"
    classes = evaluation["protocols"].get(place[0], {}).get("data", {}).get("train", {})
    if classes.get("classes"):
        yield f"chance {100 / classes['classes']:.1f} %"


def _angle(evaluation: Mapping[str, Any]) -> Iterator[str]:
    """Whether the equivariant part knows a turn better than any part of its width would."""
    for reader, metric in (("a ridge regression", "ridge_r2"), ("a small MLP", "mlp_r2")):
        own = figure(evaluation, "equivariance", "rotation", "equivariant", metric)
        other = figure(evaluation, "equivariance", "rotation", "invariant_slice", metric)
        if own is None or other is None:
            continue
        yield (
            f"How far a photo was turned, R² of {reader}: {own['mean']:.3f} from the equivariant "
            f"part, {other['mean']:.3f} from as many columns of the invariant part. "
            f"{_compared(own, other)}"
        )


# An R² no larger than this is no knowledge, a difference no larger none.
_NOTHING = 0.01


def _compared(own: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """By the rules of the report's claims, where one seed has no spread to go by."""
    if round(max(own["mean"], other["mean"]), 2) <= _NOTHING:
        return "Neither knows it."
    spread = (own.get("std") or 0.0) + (other.get("std") or 0.0)
    difference = own["mean"] - other["mean"]
    if abs(difference) <= max(spread, _NOTHING):
        return "The equivariant part knows no more and no less of it than they do."
    more = "more" if difference > 0 else "less"
    return f"The equivariant part knows {more} of it than they do."


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
    if model.get("epochs"):
        trained.append(f"{model['epochs']:g} epochs")
    return f"{name} ({', '.join(trained)})" if trained else name


def mean(measured: Mapping[str, Any], *place: str) -> float | None:
    """The mean of a figure."""
    found = figure(measured, *place)
    return None if found is None else float(found["mean"])


def _values(measured: Mapping[str, Any], table: Figures, column: Column) -> dict[str, Any]:
    """The figure of each part."""
    place = (table.protocol, column.condition)
    return {part: figure(measured, *place, part, column.metric) for part in PARTS}


def _lines(evaluation: Mapping[str, Any], table: Figures, columns: list[Column]) -> Iterator[str]:
    yield f"{table.words}\n"
    yield "| | part | " + " | ".join(column.heading for column in columns) + " |"
    yield "|---|---|" + "---:|" * len(columns)
    shown = {label(who, one): one for who, one in evaluation.get("baselines", {}).items()}
    for who, measured in {"this model": evaluation, **shown}.items():
        values = [_values(measured, table, column) for column in columns]
        for part, words in PARTS.items():
            found = [value[part] for value in values]
            if any(found):
                cells = [_text(value, c.digits) for value, c in zip(found, columns, strict=True)]
                yield f"| {who} | {words} | " + " | ".join(cells) + " |"


def _text(value: Mapping[str, Any] | None, digits: int) -> str:
    if value is None:
        return "–"
    spread = "" if value.get("std") is None or not digits else f" ± {value['std']:.{digits}f}"
    return f"{value['mean']:.{digits}f}{spread}"
