"""``clever-hub list``."""

from __future__ import annotations

from rich.table import Table

from clever_hub.cli.console import output
from clever_hub.zoo import ModelInfo, list_models, means


def run() -> None:
    """Show the models that ship with clever-hub.

    Their names go where the other commands say MODEL. A model in a folder of your own is not
    listed; give its path instead.

    Example: `clever-hub list`
    """
    table = Table(title="Models that ship with clever-hub", title_justify="left")
    # Short headers, so that it fits into 80 columns; the line below explains them.
    for header in ("name", "parts", "px"):
        table.add_column(header, no_wrap=True)
    table.add_column("trained on", min_width=10)
    for header in ("k-NN %", "MB", "licence"):
        table.add_column(header, no_wrap=True)
    for model in list_models():
        table.add_row(
            model.name,
            f"{model.invariant_dim}+{model.equivariant_dim}",
            str(model.image_size),
            model.data,
            _accuracy(model),
            f"{model.size_bytes / 1e6:.0f}",
            model.license,
        )
    output().print(table)
    output().print(
        "parts: length of the invariant + equivariant part; px: side of the input; k-NN: top-1 "
        "accuracy, upright / rotated. More: [bold]clever-hub info MODEL[/bold]"
    )


def _accuracy(model: ModelInfo) -> str:
    """k-NN accuracy of the whole embedding; a dash where it was not measured."""
    found = means(model.figures)
    upright, rotated = (found.get(("knn", what, "full", "top1")) for what in ("upright", "rotated"))
    if upright is None or rotated is None:
        return "–"
    return f"{upright:.1f} / {rotated:.1f}"
