"""The paper's own table, with the models of the page in its rows and columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from clever_training.evaluation.report.collect import Entrant, Field
from clever_training.evaluation.report.document import Table
from clever_training.evaluation.report.tables import GRID

_ABSENT = "–"
_VIEWS = {"baug": "BAug", "caug": "CAug", "caug+": "CAug+"}
# The paper's backbones by the names that timm, and here VMamba, has for them.
_BACKBONES = {
    "vit_tiny": "ViT-T",
    "vit_small": "ViT-S",
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
    "vmamba_tiny": "VMamba-T",
}


class Published(NamedTuple):
    """A row of the paper's tables.

    Attributes:
        backbone: The paper's name.
        method: The paper's name.
        epochs: On ImageNet-100.
        views: BAug or CAug.
        top1: Linear probe Top-1 in per cent, by the conditions of ``GRID``.
    """

    backbone: str
    method: str
    epochs: int
    views: str
    top1: dict[str, float]


def _dino() -> Iterator[Published]:
    """Table of DINO and CLeVER: original and CJ+Ro, with BAug and with CAug."""
    for backbone, dino, clever in (
        ("ViT-T", (71.9, 46.0, 66.2, 62.6), (74.9, 48.3, 68.7, 66.0)),
        ("ViT-S", (75.9, 50.7, 73.2, 71.0), (76.7, 50.4, 75.7, 73.6)),
        ("ResNet-18", (74.4, 46.8, 71.5, 68.7), (76.8, 46.5, 74.2, 71.3)),
        ("ResNet-50", (80.6, 53.8, 78.4, 76.4), (81.1, 53.9, 79.1, 77.7)),
        ("VMamba-T", (83.2, 53.4, 80.9, 79.5), (83.7, 54.4, 83.0, 81.1)),
    ):
        for method, values in (("DINO", dino), ("CLeVER", clever)):
            for views, (original, turned) in (("BAug", values[:2]), ("CAug", values[2:])):
                found = {"original": original, "cj+ro": turned}
                yield Published(backbone, method, 200, views, found)


def _simsiam() -> Iterator[Published]:
    """Table of SimSiam, DDCL and CLeVER-DDCL: original, CJ+Ro and CJ+Ro+ET, with CAug."""
    for method, values in (
        ("SimSiam", (79.7, 77.0, 51.9)),
        ("DDCL", (80.0, 77.2, 48.5)),
        ("CLeVER-DDCL", (80.7, 77.6, 48.1)),
    ):
        found = dict(zip(("original", "cj+ro", "cj+ro+et"), values, strict=True))
        yield Published("ResNet-50", method, 500, "CAug", found)


# Song et al., https://arxiv.org/abs/2406.00262, ImageNet-100 at 224 pixels.
PUBLISHED = (*_dino(), *_simsiam())


def published_table(field: Field) -> Table:
    """Linear probe Top-1 of the full embedding: the page's models, and the paper's rows.

    Args:
        field: The models and baselines.

    Returns:
        Below each backbone's models the published rows of the same backbone. Without any row where
        no model of a backbone of the paper was measured.
    """
    rows: list[tuple[str, ...]] = []
    entrants = [entrant for entrant in field.having("robustness") if entrant.kind != "pixels"]
    for backbone in dict.fromkeys(_BACKBONES.values()):
        ours = [entrant for entrant in entrants if _backbone(entrant) == backbone]
        if any(not entrant.is_baseline for entrant in ours):
            rows += [_ours(entrant, backbone) for entrant in ours]
            rows += [_theirs(row) for row in PUBLISHED if row.backbone == backbone]
    header = ("backbone", "model", "trained on", "views", *GRID.values())
    return Table(header, tuple(rows), words=4)


def _backbone(entrant: Entrant) -> str | None:
    architecture = str(entrant.model["architecture"])
    return next((name for key, name in _BACKBONES.items() if architecture.startswith(key)), None)


def _ours(entrant: Entrant, backbone: str) -> tuple[str, ...]:
    values = (entrant.get("robustness", f"upright/{name}", "full", "top1") for name in GRID)
    cells = (value.text(1) if value else _ABSENT for value in values)
    views = _VIEWS.get(str(entrant.model.get("views")), _ABSENT)
    return backbone, f"**{entrant.name}**", _budget(entrant), views, *cells


def _budget(entrant: Entrant) -> str:
    """What a model was trained on, as far as its evaluation says."""
    if entrant.kind == "random":
        return "nothing"
    model = entrant.model
    epochs, hours = model.get("epochs"), model.get("hours")
    parts = [
        str(model["data"]) if model.get("data") else "",
        f"{epochs:g} epochs" if isinstance(epochs, int | float) else "",
        f"{hours:.1f} hours" if isinstance(hours, int | float) else "",
        f"{model['input_size']} px",
    ]
    return ", ".join(part for part in parts if part)


def _theirs(row: Published) -> tuple[str, ...]:
    cells = (f"{row.top1[name]:.1f}" if name in row.top1 else _ABSENT for name in GRID)
    trained = f"ImageNet-100, {row.epochs} epochs, 224 px"
    return row.backbone, f"{row.method}, published", trained, row.views, *cells
