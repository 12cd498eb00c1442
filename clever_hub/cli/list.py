"""``clever-hub list``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, TypeAlias

import typer
from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from clever_hub.cli.console import output, shown
from clever_hub.hub.listing import list_models
from clever_hub.hub.shipped import ModelInfo, means

_Path: TypeAlias = tuple[str, ...]
_KNN: list[_Path] = [("knn", condition, "full", "top1") for condition in ("plain", "rotated")]
_TURNED: list[_Path] = [
    ("invariance", "rotation", part, "same_centred") for part in ("invariant", "equivariant")
]
_ANGLE: list[_Path] = [("equivariance", "rotation", "equivariant", "mlp_r2")]
_HEADERS = ("parts", "px", "k-NN", "turned", "R²", "MB", "licence")
_LEGEND = {
    "parts": "dimensions of the embedding, invariant + equivariant",
    "px": "side of the input in pixels",
    "k-NN": "top-1 accuracy in %, upright photos / rotated within ±90°, in a disc",
    "turned": "cosine of a photo and its rotated copy, invariant / equivariant",
    "R²": "how well an MLP predicts the angle from the equivariant part; 1 is best",
    "–": "not measured",
}


def run(
    remote: Annotated[
        bool,
        typer.Option("--remote", help="List what clever-hub publishes on the Hugging Face Hub."),
    ] = False,
) -> None:
    """List the models that ship with clever-hub, or that it publishes.

    Use their names as MODEL in the other commands. Models in your own folders are not listed; give
    their path instead.

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
    console.print(_listing(models, console))
    console.print("\n[bold]how they were made[/]")
    for model in models:
        on = f", on {shown(model.data)}" if model.data else ""
        console.print(f"{shown(model.name)}: {shown(model.origin)}{on}", highlight=False)
    console.print()
    console.print(_pairs(_LEGEND))
    console.print("\nMore about one of them: clever-hub info MODEL", highlight=False)


def _listing(models: Iterable[ModelInfo], console: Console) -> Table | Group:
    """A table where the terminal is wide enough, else a block for each model."""
    models = list(models)
    table = _table(models)
    unlimited = console.options.update(max_width=1_000)
    fits = Measurement.get(console, unlimited, table).maximum <= console.width
    return table if fits else _blocks(models)


def _table(models: Iterable[ModelInfo]) -> Table:
    """One line for each model."""
    # Without a frame and with short headers, a model of the Hub fits into 80 columns.
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for header in ("name", *_HEADERS):
        table.add_column(header, no_wrap=True)
    for model in models:
        table.add_row(shown(model.name), *_cells(model))
    return table


def _blocks(models: Iterable[ModelInfo]) -> Group:
    """A few lines for each model, so that no name or figure is cut on a narrow terminal."""
    blocks: list[RenderableType] = []
    for model in models:
        blocks += [Text.from_markup(f"[bold]{shown(model.name)}[/]", overflow="fold")]
        blocks += [_pairs(dict(zip(_HEADERS, _cells(model), strict=True))), ""]
    return Group(*blocks[:-1])


def _pairs(entries: Mapping[str, str]) -> Table:
    """Words and what they stand for, in two columns."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in entries.items():
        table.add_row(key, value)
    return table


def _cells(model: ModelInfo) -> tuple[str, ...]:
    """What the table says about a model, in the order of its headers."""
    found = means(model.figures)
    return (
        f"{model.invariant_dim}+{model.equivariant_dim}",
        str(model.image_size),
        _figures(found, _KNN, 1),
        _figures(found, _TURNED, 2),
        _figures(found, _ANGLE, 2),
        f"{model.size_bytes / 1e6:.0f}",
        shown(model.license),
    )


def _figures(found: Mapping[_Path, float], paths: Iterable[_Path], digits: int) -> str:
    """Measured figures; a dash where one was not measured."""
    values = [found.get(path) for path in paths]
    return "/".join("–" if value is None else f"{value:.{digits}f}" for value in values)
