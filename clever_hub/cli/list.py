"""``clever-hub list``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, TypeAlias

import typer
from rich.table import Table

from clever_hub.cli.console import output, shown
from clever_hub.hub.listing import list_models
from clever_hub.hub.shipped import ModelInfo, means

_Path: TypeAlias = tuple[str, ...]
_KNN: list[_Path] = [("knn", condition, "full", "top1") for condition in ("plain", "rotated")]
_TURNED: list[_Path] = [
    ("invariance", "rotation", part, "same_centred") for part in ("invariant", "equivariant")
]
_ANGLE: list[_Path] = [("equivariance", "rotation", "equivariant", "mlp_r2")]
_LEGEND = """
parts   length of the invariant + equivariant part of the embedding
px      side of the input in pixels
k-NN    top-1 accuracy in %, whole photos / turned within ±90°, through a disc
turned  cosine of a photo and its turned copy, invariant / equivariant part
R²      how well an MLP tells the angle from the equivariant part: 1 all, 0 nothing
–       not measured

More of each: clever-hub info MODEL"""


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
    place = " on the Hugging Face Hub" if remote else ""
    verb = "publishes" if remote else "ships"
    models = list_models(remote)
    console = output()
    if not models:
        console.print(f"clever-hub {verb} no models{place} that you can see.")
        return
    console.print(f"Models that clever-hub {verb}{place}\n")
    console.print(_table(models))
    console.print("\n[bold]trained on[/]")
    for model in models:
        console.print(f"{shown(model.name)}: {shown(model.data) or '–'}", highlight=False)
    console.print(_LEGEND, highlight=False)


def _table(models: Iterable[ModelInfo]) -> Table:
    # No frame, short headers: with a repository's name it just fits into 80 columns.
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("name", overflow="fold")
    for header in ("parts", "px", "k-NN", "turned", "R²", "MB", "licence"):
        table.add_column(header, no_wrap=True)
    for model in models:
        found = means(model.figures)
        table.add_row(
            shown(model.name),
            f"{model.invariant_dim}+{model.equivariant_dim}",
            str(model.image_size),
            _figures(found, _KNN, 1),
            _figures(found, _TURNED, 2),
            _figures(found, _ANGLE, 2),
            f"{model.size_bytes / 1e6:.0f}",
            shown(model.license),
        )
    return table


def _figures(found: Mapping[_Path, float], paths: Iterable[_Path], digits: int) -> str:
    """Measured figures; a dash where one was not measured."""
    values = [found.get(path) for path in paths]
    return "/".join("–" if value is None else f"{value:.{digits}f}" for value in values)
