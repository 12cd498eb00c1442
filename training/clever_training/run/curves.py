"""The curves of several runs on one sheet."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from numpy.typing import NDArray

from clever_hub.errors import DataError
from clever_hub.files import atomic_path, folder_name
from clever_training.evaluation.report.legend import fitting_legend

# Okabe and Ito's colours: told apart also without full colour vision.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Each run also has dashes of its own, so that no reader depends on colours.
_DASHES: Any = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))
_STYLE: Any = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
# Three panels in a row: the text stays readable where a page shows the sheet at half its size.
_COLUMNS = 3
# A title that is made smaller takes this share of its panel: letters are of whole pixels, and the
# layout moves the panels a little each time that it is made.
_ROOM = 0.92
# Outside of these, numbers are written with an exponent.
_SMALL, _LARGE = 1e-3, 1e5
_DPI = 130
_SMOOTHING = 9  # lines of metrics in the moving average; the raw lines are drawn pale behind it
_HOW_AVERAGED = (
    f"bold: mean of {_SMOOTHING} lines of metrics.jsonl; pale: each line, one batch of photos"
)


@dataclass(frozen=True)
class Panel:
    """One axis of the sheet.

    Attributes:
        key: Name of the metric in metrics.jsonl.
        title: Title of the panel.
        note: How to read it.
        log: Whether the vertical axis is logarithmic.
        floor: A value that the vertical axis must include.
        exact: Draw the lines as logged, without averaging; for schedules, which have no noise.
    """

    key: str
    title: str
    note: str = ""
    log: bool = False
    floor: float | None = None
    exact: bool = False


# Panels of metrics that no run has logged are left out.
_LOSSES = (
    Panel("loss", "Loss", "sum of all terms"),
    Panel("invariance", "Invariance term", "how far views disagree"),
    Panel("orthogonality", "Orthogonality term", "|mean cosine| of two views", floor=0.0),
    Panel(
        "regularization",
        "Projector regularisation",
        "difference of squared norms",
        log=True,
    ),
    Panel("transformation", "Transformation term", "1: a blind guess, 0: perfect"),
)
_KNN = (
    Panel("knn", "k-NN, whole embedding", "top-1 in %; higher is better"),
    Panel("knn_invariant", "k-NN, invariant part", "top-1 in %"),
    Panel("knn_equivariant", "k-NN, equivariant part", "top-1 in %"),
)
_SPREAD, _RANK = "1: even, 0: collapsed", "effective rank: dimensions in use"
_COLLAPSE = (
    Panel("std_invariant", "Spread, invariant part", _SPREAD, floor=0.0),
    Panel("std_equivariant", "Spread, equivariant part", _SPREAD, floor=0.0),
    Panel(
        "rank_invariant",
        "Rank, invariant part",
        _RANK,
        floor=0.0,
    ),
    Panel(
        "rank_equivariant",
        "Rank, equivariant part",
        _RANK,
        floor=0.0,
    ),
)
_SCHEDULE = (Panel("lr", "Learning rate", "as scheduled", floor=0.0, exact=True),)


@dataclass(frozen=True)
class Run:
    """The metrics of one run.

    Attributes:
        name: Name of the run folder.
        lines: Lines of metrics.jsonl.
    """

    name: str
    lines: list[dict[str, Any]]

    def curve(self, key: str, along: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The curve of one metric.

        Args:
            key: Name of the metric in metrics.jsonl.
            along: ``epochs`` or ``hours``.

        Returns:
            Places along the run and values; both empty when the metric was never logged.
        """
        having = [line for line in self.lines if isinstance(line.get(key), int | float)]
        scale = 1 / 3600 if along == "hours" else 1.0
        place = "seconds" if along == "hours" else "epoch"
        return (
            np.asarray([line[place] * scale for line in having], dtype=np.float64),
            np.asarray([line[key] for line in having], dtype=np.float64),
        )

    def length(self, along: str) -> float:
        """Length of the run so far, in ``epochs`` or ``hours``."""
        last = self.lines[-1]
        return float(last["seconds"] / 3600 if along == "hours" else last["epoch"])


def read_run(folder: Path) -> Run:
    """Read the metrics of a run; it may still be going on.

    Args:
        folder: The run folder.

    Returns:
        The run.

    Raises:
        DataError: When there are no metrics.
    """
    path = folder / "metrics.jsonl"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"{folder}: expected a run folder with metrics.jsonl, as pretrain writes it ({error})"
        ) from error
    # The last line may be incomplete.
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    if not lines:
        raise DataError(f"{path}: expected lines of metrics; the run has logged nothing yet")
    return Run(folder_name(folder), lines)


def draw(runs: list[Run], out: Path, along: str = "epochs") -> None:
    """Draw runs on one sheet.

    Args:
        runs: The runs, at least one.
        out: The picture; its file ending decides the format.
        along: The horizontal axis: ``epochs`` or ``hours`` of training.

    Raises:
        DataError: When the format is unknown or the file cannot be written.
    """
    panels = _logged(runs)
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(3.0 * columns, 2.5 * rows + 0.7), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        titles = [
            (axis, _draw_panel(axis, panel, runs, along))
            for axis, panel in zip(grid, panels, strict=False)
        ]
        for axis in grid[len(panels) :]:
            axis.set_axis_off()
        handles = [
            Line2D([], [], color=_color(n), linestyle=_dashes(n), label=_label(run), linewidth=2)
            for n, run in enumerate(runs)
        ]
        fitting_legend(figure, handles, 2, loc="outside upper left")
        if any(
            _is_averaged(panel, run.curve(panel.key, along)[0]) for panel in panels for run in runs
        ):
            figure.supxlabel(_HOW_AVERAGED, x=0.005, ha="left", fontsize=9, color="0.35")
        _fit_titles(figure, titles)
        try:
            with atomic_path(out) as temporary:
                figure.savefig(temporary, dpi=_DPI)
        except (OSError, ValueError) as error:
            raise DataError(f"{out}: the picture cannot be written: {error}") from error


def _logged(runs: list[Run]) -> list[Panel]:
    """The panels that at least one run has logged, the accuracy first."""
    logged = {key for run in runs for line in run.lines for key in line}
    return [panel for panel in (*_KNN, *_LOSSES, *_COLLAPSE, *_SCHEDULE) if panel.key in logged]


def _draw_panel(axis: Axes, panel: Panel, runs: list[Run], along: str) -> Text:
    """Draw the runs and return the title."""
    for number, run in enumerate(runs):
        x, y = run.curve(panel.key, along)
        if len(x) == 0:
            continue
        look: Any = {"color": _color(number), "linestyle": _dashes(number)}
        y = np.where(y > 0, y, np.nan) if panel.log else y  # 0 has no logarithm
        if not _is_averaged(panel, x):
            axis.plot(x, y, **look, linewidth=1.5, marker="o" if len(x) < 30 else "", ms=4)
        else:
            axis.plot(x, y, color=look["color"], linewidth=0.6, alpha=0.3)
            axis.plot(x, smoothed(y, _SMOOTHING), **look, linewidth=1.8)
    title = axis.set_title(panel.title, loc="left", fontweight="bold", pad=16 if panel.note else 6)
    axis.text(0, 1.03, panel.note, transform=axis.transAxes, fontsize=9, color="0.35")
    axis.set_xlabel("hours of training" if along == "hours" else "epochs")
    # The same range in every panel, so that panels can be compared.
    axis.set_xlim(0, 1.03 * max(run.length(along) for run in runs))
    axis.grid(color="0.92", linewidth=0.8)
    axis.set_axisbelow(True)
    if panel.log and any((run.curve(panel.key, along)[1] > 0).any() for run in runs):
        axis.set_yscale("log")
    elif panel.floor is not None:
        low, high = axis.get_ylim()
        axis.set_ylim(min(low, panel.floor), high + 0.05 * (high - panel.floor))
    if axis.get_yscale() == "linear":
        _write_numbers_whole(axis)
    return title


def _write_numbers_whole(axis: Axes) -> None:
    """No factor or summand above the axis, where the panel's note stands."""
    axis.ticklabel_format(axis="y", useOffset=False)
    if not _SMALL <= max(map(abs, axis.get_ylim())) < _LARGE:
        axis.yaxis.set_major_formatter("{x:g}")


def _fit_titles(figure: Figure, titles: list[tuple[Axes, Text]]) -> None:
    """Write all titles so small that each is within its panel; the layout gives them no room."""
    figure.draw_without_rendering()
    widths = [(axis.bbox.width, title.get_window_extent().width) for axis, title in titles]
    room = min(panel / wide for panel, wide in widths)
    for _, title in titles if room < 1 else ():
        title.set_fontsize(_ROOM * room * float(title.get_fontsize()))


def _is_averaged(panel: Panel, x: NDArray[np.float64]) -> bool:
    """Whether there are enough lines for a moving average."""
    return not panel.exact and len(x) >= 4 * _SMOOTHING


def smoothed(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """A centred moving average; it averages fewer values near both ends.

    Args:
        values: The curve.
        width: Number of values in a mean.

    Example:
        >>> smoothed(np.array([0.0, 3.0, 6.0]), 3).tolist()
        [1.5, 3.0, 4.5]
    """
    weights = np.ones(width)
    total = np.convolve(values, weights, mode="same")
    count = np.convolve(np.ones_like(values), weights, mode="same")
    return np.asarray(total / count, dtype=np.float64)


def _color(number: int) -> str:
    return _COLORS[number % len(_COLORS)]


def _dashes(number: int) -> Any:
    return _DASHES[number % len(_DASHES)]


def _label(run: Run) -> str:
    """The run's name, its length, and its last k-NN if there is one."""
    text = f"{run.name}: {run.length('epochs'):.1f} epochs in {run.length('hours'):.1f} h"
    _, knn = run.curve("knn", "epochs")
    return f"{text}, k-NN {knn[-1]:.1f} %" if len(knn) else text
