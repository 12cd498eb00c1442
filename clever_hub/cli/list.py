"""``clever-hub list``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from clever_hub.cli.console import output
from clever_hub.zoo import ModelInfo, list_models, means


def run(
    remote: Annotated[
        bool,
        typer.Option("--remote", help="List what clever-hub publishes on the Hugging Face Hub."),
    ] = False,
) -> None:
    """Show the models that ship with clever-hub, or that it publishes.

    Their names go where the other commands say MODEL. A model in a folder of your own is not
    listed; give its path instead.

    Examples:
    - `clever-hub list`
    - `clever-hub list --remote`
    """
    where = "publishes on the Hugging Face Hub" if remote else "ships"
    models = list_models(remote)
    if not models:
        output().print(f"clever-hub {where} no models that you can see.")
        return
    output().print(_table(models, f"Models that clever-hub {where}"))
    output().print(
        "parts: length of the invariant + equivariant part; px: side of the input; k-NN: top-1 "
        "accuracy in %, upright / rotated; turned: cosine of a photo and its turned copy, "
        "invariant / equivariant part. More: [bold]clever-hub info MODEL[/bold]"
    )


def _table(models: Iterable[ModelInfo], title: str) -> Table:
    # Short headers and few lines, so that it fits into 80 columns.
    table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for header in ("name", "parts", "px"):
        table.add_column(header, no_wrap=True)
    table.add_column("trained on", min_width=10)
    for header in ("k-NN", "turned", "MB", "licence"):
        table.add_column(header, no_wrap=True)
    for model in models:
        table.add_row(
            model.name,
            f"{model.invariant_dim}+{model.equivariant_dim}",
            str(model.image_size),
            model.data,
            _pair(model, [("knn", what, "full", "top1") for what in ("upright", "rotated")], 1),
            _pair(
                model,
                [
                    ("invariance", "rotation", part, "same_centred")
                    for part in ("invariant", "equivariant")
                ],
                2,
            ),
            f"{model.size_bytes / 1e6:.0f}",
            model.license,
        )
    return table


def _pair(model: ModelInfo, paths: list[tuple[str, ...]], digits: int) -> str:
    """Two measured figures; a dash where one was not measured."""
    found = means(model.figures)
    if any(path not in found for path in paths):
        return "–"
    return "/".join(f"{found[path]:.{digits}f}" for path in paths)
