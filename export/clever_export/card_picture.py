"""The card's picture: what each part of the embedding knows, beside the baselines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clever_export.card_tables import BASELINES, figure
from clever_hub.files import atomic_path

# Blue and orange differ for every kind of colour vision, and in brightness.
_COLORS = {"full": "#4c566a", "invariant": "#2a7fb8", "equivariant": "#e07b39"}
_BAR = 0.27


@dataclass(frozen=True)
class _Panel:
    """A question, and the figure that answers it.

    Attributes:
        question: Its title.
        unit: What the bars count.
        place: Protocol, condition.
        metric: The metric.
        digits: Decimal places on the bars.
        nothing: What knowing nothing comes to, if that is no zero.
    """

    question: str
    unit: str
    place: tuple[str, str]
    metric: str
    digits: int
    nothing: float | None = None


_PANELS = (
    _Panel("What is in the photo?", "k-NN top-1 in %, upright photos", ("knn", "plain"), "top1", 1),
    _Panel(
        "Is a turned copy the same?",
        "cosine of photo and turned copy, centred",
        ("invariance", "rotation"),
        "same_centred",
        2,
    ),
    _Panel(
        "How far was it turned?",
        "error in degrees: shorter is better",
        ("equivariance", "rotation"),
        "mlp_degrees",
        0,
        45.0,
    ),
)


def draw_figures(evaluation: Mapping[str, Any], path: Path) -> None:
    """Draw k-NN accuracy, similarity under rotation and the error of the angle, of each part.

    Args:
        evaluation: Content of evaluation.json.
        path: The PNG to write. Its bytes depend on the figures and on matplotlib's version alone.
    """
    from matplotlib.figure import Figure

    everyone = {"this model": evaluation}
    for who, measured in evaluation.get("baselines", {}).items():
        everyone[BASELINES.get(who, who)] = measured
    panels = [panel for panel in _PANELS if panel.place[0] in evaluation["figures"]] or _PANELS[:1]
    # As wide as three panels, so that the writing is as large in every card.
    canvas = Figure(figsize=(10.5, 1.4 + 0.62 * len(everyone)), layout="constrained")
    all_axes = canvas.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, panel in zip(all_axes, panels, strict=True):
        _draw(axes, panel, list(everyone.values()))
    all_axes[0].set_yticks(range(len(everyone)), [_folded(who) for who in everyone], fontsize=11)
    all_axes[0].invert_yaxis()
    bars, names = all_axes[0].get_legend_handles_labels()
    canvas.legend(bars, names, loc="outside lower center", ncols=3, fontsize=11, frameon=False)
    with atomic_path(path) as temporary:
        canvas.savefig(temporary, dpi=120, metadata={"Software": None})


def _draw(axes: Any, panel: _Panel, everyone: list[Mapping[str, Any]]) -> None:
    found = [
        {part: figure(one, *panel.place, part, panel.metric) for part in _COLORS}
        for one in everyone
    ]
    for place, (part, color) in enumerate(_COLORS.items()):
        rows = [(y, one[part], sum(map(bool, one.values()))) for y, one in enumerate(found)]
        shown = [(y, value, count) for y, value, count in rows if value]
        drawn = axes.barh(
            # What has no parts has one bar, in the middle.
            [y + (place - 1) * _BAR * (count > 1) for y, _, count in shown],
            [value["mean"] for _, value, _ in shown],
            _BAR,
            color=color,
            label=f"{part} part" if part != "full" else "full embedding",
        )
        axes.bar_label(drawn, fmt=f" {{:.{panel.digits}f}}", fontsize=9)
    if panel.nothing:
        axes.axvline(panel.nothing, color="#888888", linestyle="--", linewidth=1)
        axes.annotate(
            " knows nothing",
            (panel.nothing, 1),
            xycoords=("data", "axes fraction"),
            fontsize=8,
            color="#555555",
            ha="center",
            va="bottom",
        )
    axes.set_title(panel.question, fontsize=12, fontweight="bold", pad=14)
    axes.set_xlabel(panel.unit, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.16)


def _folded(name: str) -> str:
    """A long name in two lines, broken at a separator."""
    if len(name) <= 16:
        return name
    places = [
        n + 1 for n, letter in enumerate(name) if letter in " -_.:/" and 4 < n < len(name) - 4
    ]
    middle = min(places, key=lambda n: abs(n - len(name) / 2), default=16)
    return f"{name[:middle].rstrip()}\n{name[middle:]}"
