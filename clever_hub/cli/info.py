"""``clever-hub info``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer
from rich.table import Table

from clever_hub.cli.console import output, shown
from clever_hub.cli.info_rows import (
    BASELINES,
    Described,
    Row,
    describe,
    main_rows,
    mapping,
    more_rows,
)
from clever_hub.cli.options import Model, Revision
from clever_hub.config import CONFIG_NAME, ModelConfig
from clever_hub.errors import ConfigError
from clever_hub.hub.origin import origin, stages
from clever_hub.hub.resolve import resolve
from clever_hub.hub.shipped import means

_FIGURE = len("0.0001234")
_PLAIN = json.JSONEncoder(ensure_ascii=False, indent=1)


def run(
    model: Model,
    everything: Annotated[
        bool,
        typer.Option("--all", help="Also hashes, every stage of the training and every figure."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="All of it as JSON, config and evaluation included.")
    ] = False,
    recipe: Annotated[
        bool,
        typer.Option(
            "--recipe", help="Only the recipe that it was trained with, for clever-hub pretrain."
        ),
    ] = False,
    revision: Revision = None,
) -> None:
    """Say what a model is, how it was trained and how good it is.

    Works without torch. A model on the Hub is downloaded first, as by any other command.

    Examples:
    - `clever-hub info clever-resnet18`
    - `clever-hub info clever-resnet18 --all`
    - `clever-hub info clever-resnet18 --recipe > recipe.yaml`
    """
    if recipe:
        typer.echo(_PLAIN.encode(_recipe(model, revision)))
        return
    found = describe(*resolve(model, revision=revision))
    if as_json:
        typer.echo(_PLAIN.encode(_content(found)))
        return
    console = output()
    console.print(_table([*main_rows(found), *(more_rows(found) if everything else ())]))
    if everything and found.evaluation.get("figures"):
        console.print(_figures(found.evaluation))


def _recipe(model: str, revision: str | None) -> Mapping[str, Any]:
    folder, _ = resolve(model, files=(CONFIG_NAME,), optional=(), revision=revision)
    config = ModelConfig.load(folder)
    found = mapping(config.provenance.get("recipe"))
    if not found:
        raise ConfigError(
            f"--recipe: {config.name} has none in its {CONFIG_NAME}: only `clever-hub pretrain` "
            "writes one. `clever-hub info MODEL` says how it was made"
        )
    return found


def _content(model: Described) -> dict[str, Any]:
    return {
        "name": model.config.name,
        "folder": str(model.folder),
        "commit": model.source.revision,
        "weights_sha256": model.sha256,
        "weights_bytes": model.size,
        "parameters": model.parameters,
        "trained": origin(model.config),
        "stages": stages(model.config),
        "config": model.config.to_dict(),
        "evaluation": model.evaluation or None,
    }


def _table(rows: Iterable[Row]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in rows:
        table.add_row(shown(key), shown(value))
    return table


def _figures(content: Mapping[str, Any]) -> Table:
    """The measured figures, next to those of the baselines."""
    columns = {"this model": means(content["figures"])}
    for name, baseline in mapping(content.get("baselines")).items():
        found = means(mapping(mapping(baseline).get("figures")))
        columns[BASELINES.get(name, name)] = found
    table = Table(title="\nMeasured, see evaluation.json for how", title_justify="left", box=None)
    # On a narrow terminal the names are folded, so that no figure is cut.
    table.add_column("figure", overflow="fold")
    for name in columns:
        table.add_column(shown(name), justify="right", width=_FIGURE)
    for path in columns["this model"]:
        cells = (found.get(path) for found in columns.values())
        table.add_row(
            shown(" · ".join(path)), *("–" if cell is None else f"{cell:.4g}" for cell in cells)
        )
    return table
