"""The page's tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from clever_training.evaluation.report.collect import Entrant, Field, Value
from clever_training.evaluation.report.document import Table
from clever_training.evaluation.report.style import PART_NAMES

# The paper's perturbations, in its order and with its names.
GRID = {
    "original": "original",
    "cj": "CJ",
    "cj+flip": "CJ+Flip",
    "cj+ro": "CJ+Ro",
    "cj+ro+et": "CJ+Ro+ET",
}
_ABSENT = "–"


class Column(NamedTuple):
    """A column of figures.

    Attributes:
        title: Its heading.
        condition: Condition of the protocol.
        metric: Metric of the protocol.
        digits: Digits after the decimal point.
        protocol: Protocol of the column, if it is not that of the table.
    """

    title: str
    condition: str
    metric: str
    digits: int = 1
    protocol: str = ""


def figures_table(
    entrants: Sequence[Entrant],
    protocol: str,
    columns: Sequence[Column],
    parts: Sequence[str] = ("full", "invariant", "equivariant"),
) -> Table:
    """A row for each part of each entrant; rows and columns without any figure are left out.

    Args:
        entrants: The models and baselines.
        protocol: Protocol of the figures.
        columns: The columns.
        parts: The parts, in the order of the rows.

    Returns:
        The table.
    """
    rows: list[tuple[str, ...]] = []
    used = [
        column
        for column in columns
        if any(_value(e, protocol, column, part) for e in entrants for part in parts)
    ]
    for entrant in entrants:
        name = entrant.name
        for part in parts:
            values = [_value(entrant, protocol, column, part) for column in used]
            if any(values):
                cells = [
                    value.text(column.digits) if value else _ABSENT
                    for value, column in zip(values, used, strict=True)
                ]
                rows.append((name, PART_NAMES.get(part, part), *cells))
                name = ""
    header = ("model", "part", *(column.title for column in used))
    return Table(header, tuple(rows), words=2)


def _value(entrant: Entrant, protocol: str, column: Column, part: str) -> Value | None:
    return entrant.get(column.protocol or protocol, column.condition, part, column.metric)


def models_table(field: Field) -> Table:
    """The models and baselines on the page."""
    rows = []
    for entrant in field.entrants:
        model, dims = entrant.model, entrant.model["dims"]
        split = f"{dims['invariant']} + {dims['equivariant']}" if "invariant" in dims else _ABSENT
        rows.append(
            (
                entrant.name,
                str(model["architecture"]),
                str(model.get("method") or _ABSENT) if entrant.kind == "model" else _ABSENT,
                f"{model['input_size']} px",
                str(dims["full"]),
                split,
            )
        )
    header = ("model", "backbone", "method", "input", "dimensions", "invariant + equivariant")
    return Table(header, tuple(rows), words=3)


def paper_table(field: Field, trained: str) -> Table:
    """Linear probe Top-1 under the paper's perturbations.

    Args:
        field: The models and baselines.
        trained: Kind of the probe's training photos: ``upright`` or ``rotated``.

    Returns:
        A row for each part of each entrant.
    """
    columns = [Column(title, f"{trained}/{name}", "top1") for name, title in GRID.items()]
    return figures_table(field.having("robustness"), "robustness", columns)


def accuracy_table(field: Field, protocol: str) -> Table:
    """Top-1, and Top-5 if measured, of k-NN or of the linear probe."""
    columns = [
        Column(f"{condition}, {name}", condition, metric)
        for metric, name in (("top1", "Top-1"), ("top5", "Top-5"))
        for condition in ("plain", "upright", "rotated")
    ]
    parts = ("full", "invariant", "equivariant", "invariant_slice")
    return figures_table(field.having(protocol), protocol, columns, parts)


def video_table(field: Field) -> Table:
    """How well masks are carried through videos."""
    columns = [
        Column(title, "all", metric)
        for title, metric in (
            ("J&F", "j_and_f"),
            ("J", "j"),
            ("F", "f"),
            ("J recall", "j_recall"),
            ("F recall", "f_recall"),
        )
    ]
    return figures_table(field.having("video"), "video", columns)


def saliency_table(field: Field) -> Table:
    """How well the object of a frame is found."""
    columns = [
        Column(f"{title}, {condition}", condition, metric)
        for condition in ("plain", "centred")
        for title, metric in (("CorLoc", "corloc"), ("IoU", "iou"))
    ]
    return figures_table(field.having("saliency"), "saliency", columns)


def semi_supervised_table(field: Field) -> Table:
    """Probe accuracy by share of labels."""
    columns = [
        Column(f"{share} of labels, {name}", share, metric)
        for share in ("1%", "10%")
        for metric, name in (("top1", "Top-1"), ("top5", "Top-5"))
    ]
    return figures_table(field.having("semi-supervised"), "semi-supervised", columns)


def invariance_table(field: Field) -> Table:
    """Cosines of a photo with its rotated copy and with other photos, and retrieval by the copy."""
    columns = [
        Column("same photo", "rotation", "same_centred", 3),
        Column("other photo", "rotation", "different_centred", 3),
        Column("gap", "rotation", "gap_centred", 3),
        Column("found again, MRR", "rotation", "mrr", 3, "retrieval"),
        Column("Hit@1, %", "rotation", "hit1", 1, "retrieval"),
        Column("Hit@5, %", "rotation", "hit5", 1, "retrieval"),
    ]
    return figures_table(field.having("invariance"), "invariance", columns)


def equivariance_table(field: Field) -> Table:
    """R² of the transformation between two views, by ridge regression and by an MLP."""
    columns = [
        Column(f"{name}, {how}", name, f"{key}_r2", 3)
        for name in ("rotation", "crop", "jitter", "blur")
        for key, how in (("ridge", "ridge"), ("mlp", "MLP"))
    ]
    parts = ("full", "invariant", "invariant_slice", "equivariant")
    return figures_table(field.having("equivariance"), "equivariance", columns, parts)


def rotation_table(field: Field) -> Table:
    """How well the features tell the rotation, in degrees and accuracies."""
    columns = [
        Column("error, ridge, °", "rotation", "ridge_degrees", 1),
        Column("error, MLP, °", "rotation", "mlp_degrees", 1),
        Column("quarter turn, %", "quarter-turns", "top1", 1),
        Column("pose, MRR", "rotation-map", "pose_mrr", 3),
        Column("pose, Hit@1 %", "rotation-map", "pose_hit1", 1),
        Column("photo, MRR", "rotation-map", "photo_mrr", 3),
    ]
    parts = ("full", "invariant", "invariant_slice", "equivariant")
    return figures_table(field.having("equivariance"), "equivariance", columns, parts)


def collapse_table(field: Field) -> Table:
    """How many of its dimensions an embedding uses."""
    columns = [
        Column("spread", "plain", "std", 3),
        Column("effective rank", "plain", "effective_rank", 1),
        Column("dimensions", "plain", "dim", 0),
    ]
    return figures_table(field.having("collapse"), "collapse", columns)


def finetune_table(field: Field) -> Table:
    """Fine-tuned models: what was trained, on how many labels, and the accuracy."""
    rows = []
    for content in field.tuned:
        photos = content["data"]["train"]["photos"]
        for condition, parts in content["figures"]["finetune"].items():
            trained, _, share = condition.partition("/")
            what = {"network": "whole network", "head": "head alone"}.get(trained, trained)
            rows += [
                (
                    str(content["model"]["name"]),
                    what,
                    part,
                    share,
                    f"{photos:,}",
                    str(content["settings"]["epochs"]),
                    f"{metrics['top1']['mean']:.1f}",
                    f"{metrics['top5']['mean']:.1f}",
                )
                for part, metrics in parts.items()
            ]
    words = ("model", "trained", "head on", "labels")
    header = (*words, "training photos", "epochs", "Top-1, %", "Top-5, %")
    return Table(header, tuple(rows), words=4)
