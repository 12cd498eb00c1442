"""Colours and markers of the plots; both differ, for readers with colour vision deficiency.

A part of the embedding has the same colour here, in the demo and on the page of ``serve``: the
invariant part is blue, the equivariant part vermilion.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from clever_hub.files import atomic_path
from clever_training.evaluation.report.collect import Entrant
from clever_training.evaluation.report.legend import fitting_legend

# Okabe and Ito's palette without its yellow, too pale on white (https://jfly.uni-koeln.de/color/).
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
_GREYS = {"random": ("#777777", "#aaaaaa", "#555555"), "pixels": ("#000000", "#333333")}
_CROSSES = ("x", "+", "1")
# Few inches for so many pixels, so that text is readable at half the size, too.
WIDTH = 8.0  # inches
DPI = 144


class Look(NamedTuple):
    """The look of a line or a group of points.

    Attributes:
        color: Colour of line and marker.
        marker: Shape of the marker.
        line: Style of the line.
    """

    color: str
    marker: str
    line: str = "-"


PART_LOOKS = {
    "full": Look("#333333", "o"),
    "invariant": Look("#0072B2", "s"),
    "equivariant": Look("#D55E00", "^"),
    "invariant_slice": Look("#56B4E9", "D", "--"),
}
# As many columns of the invariant part as the equivariant part has.
PART_NAMES = {"invariant_slice": "invariant, cut"}


def looks(entrants: Sequence[Entrant]) -> dict[str, Look]:
    """A look for each entrant, by name: models in colour, baselines in grey and black.

    Args:
        entrants: In the order of the legend.

    Returns:
        The same look for the same entrant on every plot.
    """
    found: dict[str, Look] = {}
    for entrant in entrants:
        before = entrants[: entrants.index(entrant)]
        if entrant.is_baseline:
            place = sum(known.kind == entrant.kind for known in before)
            greys = _GREYS[entrant.kind]
            line = "--" if entrant.kind == "random" else ":"
            marker = _CROSSES[place % len(_CROSSES)]
            found[entrant.name] = Look(greys[place % len(greys)], marker, line)
        else:
            place = sum(not known.is_baseline for known in before)
            found[entrant.name] = Look(PALETTE[place % len(PALETTE)], MARKERS[place % len(MARKERS)])
    return found


def new_figure(rows: int, columns: int, height: float, **options: Any) -> tuple[Figure, Any]:
    """A figure of the page's width.

    Args:
        rows: Number of rows of panels.
        columns: Number of columns of panels.
        height: Height of the figure in inches.
        **options: Options of ``Figure.subplots``.

    Returns:
        The figure and its axes, an array (rows, columns).
    """
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for axis in axes.flat:
        axis.grid(visible=True, color="#dddddd", linewidth=0.7)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def legend_below(figure: Figure, axis: Axes) -> None:
    """One legend for all panels, under them.

    Args:
        figure: The figure.
        axis: The panel whose labels it takes.
    """
    handles, _ = axis.get_legend_handles_labels()
    fitting_legend(figure, handles, 3, loc="outside lower center")


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG whose bytes depend on the content alone, not on the time.

    Args:
        figure: The figure.
        path: The file.

    Returns:
        The file.
    """
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
    return path
