"""An evaluation on a terminal: tables of its figures, and its progress."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from clever_hub.images.progress import LogLines
from clever_training.evaluation.dense_run import DENSE_PROTOCOLS, DenseProtocol
from clever_training.evaluation.features import Report
from clever_training.evaluation.protocols import PROTOCOLS, Protocol
from clever_training.evaluation.run import IN_ALL


@contextmanager
def progress_report(console: Console) -> Iterator[Report]:
    """Show a bar for the whole evaluation, and one for the current feature matrix or fit.

    Without a terminal, print a line for each protocol of each model and seed, and one every half
    minute for the current feature matrix or fit.

    Args:
        console: Console to print to, usually standard error.

    Yields:
        The function to which a ``FeatureStore`` reports.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    # Steps of all of it may be minutes apart: over rich's own half minute they have no speed.
    with Progress(
        *columns, console=console, transient=True, speed_estimate_period=3600
    ) as progress:
        tasks: dict[str, Any] = {}
        lines = LogLines(console)

        def report(label: str, done: int, total: int) -> None:
            if label.startswith(IN_ALL):
                if done and not console.is_terminal:
                    line = f"{done / total:4.0%}  {label.removeprefix(IN_ALL)}"
                    console.print(line, markup=False, highlight=False, soft_wrap=True)
                label = IN_ALL.rstrip(": ")
            else:
                lines.say(label, done, total)
            if label not in tasks:
                tasks[label] = progress.add_task(label, total=total)
            progress.update(tasks[label], completed=done, visible=done < total)
            if done == total:
                progress.remove_task(tasks.pop(label))

        yield report


def tables(content: Mapping[str, Any]) -> Iterator[Table]:
    """One table for each protocol: the model and its baselines side by side.

    Args:
        content: The content of evaluation.json.

    Yields:
        Tables for a terminal.
    """
    columns = {content["model"]["name"]: content["figures"]}
    columns |= {name: entry["figures"] for name, entry in content["baselines"].items()}
    protocols: dict[str, Protocol | DenseProtocol] = {**PROTOCOLS, **DENSE_PROTOCOLS}
    for name, protocol in protocols.items():
        if name in content["figures"]:
            yield _table(name, columns, protocol)


def _table(name: str, columns: Mapping[str, Any], protocol: Protocol | DenseProtocol) -> Table:
    metrics, unit, shown = protocol.headline, protocol.unit, protocol.shown
    label = f"{name}: {metrics[0]} ({unit})" if unit else name
    label += ", some of the conditions" if shown else ""
    if isinstance(protocol, Protocol):
        label += ", mean ± standard deviation over the seeds"
    table = Table(title=label)
    table.add_column("condition")
    table.add_column("part")
    if len(metrics) > 1:
        table.add_column("metric")
    for column in columns:
        table.add_column(column, justify="right")
    first = next(iter(columns.values()))[name]
    for condition, parts in first.items():
        if shown is not None and condition not in shown:
            continue
        for part, measured in parts.items():
            for metric in (metric for metric in metrics if metric in measured):
                shown_as = condition + _fitted_on(measured)
                keys = [shown_as, part, *([metric] if len(metrics) > 1 else [])]
                found = [
                    figures.get(name, {}).get(condition, {}).get(part, {}).get(metric)
                    for figures in columns.values()
                ]
                digits = 1 if unit == "%" else 3
                table.add_row(*keys, *(cell(value, digits) for value in found))
        table.add_section()
    return table


def _fitted_on(measured: Mapping[str, Any]) -> str:
    """The photos of a share of the labels: of a small data set more than the share has."""
    photos = measured.get("photos")
    return f" ({photos['mean']:,.0f} photos)" if photos else ""


def cell(figure: Mapping[str, Any] | None, digits: int) -> str:
    """A figure as text, such as ``12.3 ± 0.4``; a dash when it was not measured."""
    if figure is None:
        return "-"
    text = f"{figure['mean']:.{digits}f}"
    return text if figure["std"] is None else f"{text} ± {figure['std']:.{digits}f}"
