"""``clever-hub list``."""

from __future__ import annotations

from rich.table import Table

from clever_hub.cli.console import megabytes, output
from clever_hub.zoo import ModelInfo, list_models, means


def run() -> None:
    """Show the models that ship with clever-hub.

    Their names go where the other commands say MODEL. A model in a folder of your own is not
    listed; give its path instead.

    Example: `clever-hub list`
    """
    table = Table(title="Models that ship with clever-hub", title_justify="left")
    table.add_column("name", no_wrap=True, style="bold")
    for header in ("backbone", "invariant + equivariant", "image size", "trained on"):
        table.add_column(header)
    table.add_column("k-NN top-1 %\nupright / rotated", justify="right")
    table.add_column("weights", justify="right")
    table.add_column("licence")
    for model in list_models():
        table.add_row(
            model.name,
            model.backbone,
            f"{model.invariant_dim} + {model.equivariant_dim}",
            f"{model.image_size} px",
            model.data,
            _accuracy(model),
            megabytes(model.size_bytes),
            model.license,
        )
    output().print(table)
    output().print("Measured figures and more: [bold]clever-hub info MODEL[/bold]")


def _accuracy(model: ModelInfo) -> str:
    """k-NN accuracy of the whole embedding; a dash where it was not measured."""
    found = means(model.figures)
    upright, rotated = (found.get(("knn", what, "full", "top1")) for what in ("upright", "rotated"))
    if upright is None or rotated is None:
        return "–"
    return f"{upright:.1f} / {rotated:.1f}"
