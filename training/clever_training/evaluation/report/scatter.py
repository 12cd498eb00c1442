"""The plot of invariance against equivariance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from clever_training.evaluation.report.collect import Entrant, Field, Value
from clever_training.evaluation.report.legend import fitting_legend
from clever_training.evaluation.report.style import (
    PART_LOOKS,
    PART_NAMES,
    Look,
    looks,
    new_figure,
    save,
)

# A fit that is worse than the mean is useless, whatever its R²; all such are drawn at the bottom.
FLOOR = -0.05


def scatter_figure(field: Field, path: Path) -> Path | None:
    """Plot invariance against equivariance to rotation, for each part of each entrant.

    Args:
        field: The models and baselines.
        path: The PNG to write.

    Returns:
        The file; None when no entrant has both figures.
    """
    styles = looks(field.entrants)
    points: list[tuple[Entrant, str, Value, Value]] = []
    for entrant in field.entrants:
        for part in entrant.parts:
            still = entrant.get("invariance", "rotation", part, "gap_centred")
            known = entrant.get("equivariance", "rotation", part, "ridge_r2")
            if still and known:
                points.append((entrant, part, still, known))
    if not points:
        return None
    figure, axes = new_figure(1, 1, 6.4)
    axis = axes[0, 0]
    highest = max(known.mean + (known.std or 0) for *_, known in points)
    axis.set_ylim(FLOOR, max(0.1, highest * 1.1))
    axis.axhline(0, color="#999999", linewidth=0.9, linestyle=(0, (2, 2)))
    for entrant, part, still, known in points:
        look = styles[entrant.name]
        axis.errorbar(
            still.mean,
            max(known.mean, FLOOR),
            clip_on=False,
            xerr=still.std or 0,
            yerr=_bar(known),
            color=look.color,
            marker=PART_LOOKS[part].marker,
            markersize=10,
            linestyle="none",
            markerfacecolor="white" if entrant.is_baseline else look.color,
            markeredgewidth=1.6,
        )
    _join_parts(axis, points, styles)
    _mark_slices(axis, points, styles)
    axis.set_xlabel("invariance: cosine of a photo and its turned copy, minus that of other photos")
    axis.set_ylabel("equivariance: R² of the angle, ridge regression")
    axis.annotate(
        "stays the same and tells the angle",
        (0.99, 0.99),
        xycoords="axes fraction",
        ha="right",
        va="top",
        color="#666666",
        fontsize=9,
    )
    axis.annotate(
        "changes, but does not tell the angle",
        (0.01, 0.01),
        xycoords="axes fraction",
        color="#666666",
        fontsize=9,
    )
    _scatter_legends(axis, points, styles)
    return save(figure, path)


def _bar(known: Value) -> list[list[float]]:
    """One standard deviation down and up, but not below the floor."""
    spread = known.std or 0.0
    if known.mean <= FLOOR:
        return [[0.0], [0.0]]
    return [[min(spread, known.mean - FLOOR)], [spread]]


def _join_parts(axis: Axes, points: Sequence[Any], styles: dict[str, Look]) -> None:
    """A thin line that joins an entrant's parts."""
    for name, look in styles.items():
        own = [
            (still.mean, max(known.mean, FLOOR)) for e, _, still, known in points if e.name == name
        ]
        if len(own) > 1:
            x, y = zip(*own, strict=True)
            axis.plot(x, y, color=look.color, linestyle=look.line, linewidth=0.8, alpha=0.6)


def _mark_slices(axis: Axes, points: Sequence[Any], styles: dict[str, Look]) -> None:
    """The figure of the invariant slice, at the same invariance as the invariant part."""
    for entrant, part, still, _ in points:
        known = entrant.get("equivariance", "rotation", "invariant_slice", "ridge_r2")
        if part == "invariant" and known:
            look = styles[entrant.name]
            axis.plot(
                still.mean,
                max(known.mean, FLOOR),
                clip_on=False,
                marker=PART_LOOKS["invariant_slice"].marker,
                markersize=8,
                color=look.color,
                markerfacecolor="white" if entrant.is_baseline else look.color,
            )


def _scatter_legends(axis: Axes, points: Sequence[Any], styles: dict[str, Look]) -> None:
    seen = dict.fromkeys(e.name for e, _, _, _ in points)
    baselines = {e.name for e, _, _, _ in points if e.is_baseline}
    colours = [
        Line2D(
            [],
            [],
            marker="o",
            linestyle=styles[name].line,  # type: ignore[arg-type]
            color=styles[name].color,
            label=name,
            markerfacecolor="white" if name in baselines else styles[name].color,
        )
        for name in seen
    ]
    shapes = [
        Line2D(
            [],
            [],
            marker=PART_LOOKS[part].marker,
            linestyle="none",
            color="#444444",
            label=PART_NAMES.get(part, part),
        )
        for part in _shapes(points)
    ]
    assert axis.figure is not None
    figure: Any = axis.figure
    fitting_legend(figure, [*colours, *shapes], 3, loc="outside lower center")


def _shapes(points: Sequence[Any]) -> list[str]:
    """The parts on the plot, each once."""
    found = list(dict.fromkeys(part for _, part, _, _ in points))
    cut = any(e.get("equivariance", "rotation", "invariant_slice", "ridge_r2") for e, *_ in points)
    return [*found, "invariant_slice"] if cut and "invariant" in found else found
