"""The card's picture: what each part of the embedding knows, beside the baselines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clever_export.card_tables import BASELINES, figure
from clever_hub.files import atomic_path

PICTURE_NAME = "figures.png"
# Where the PNG's metadata say of which figures it is.
DIGEST_KEY = "Figures"
# Blue and orange differ for every kind of colour vision, and in brightness.
_COLORS = {"full": "#4c566a", "invariant": "#2a7fb8", "equivariant": "#e07b39"}
_BAR = 0.27
_SHORT, _LINE = 16, 24  # letters of a name that is not folded, and in a line of one that is


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


def has_picture(evaluation: Mapping[str, Any]) -> bool:
    """Whether the model has a figure that the picture shows.

    Args:
        evaluation: Content of evaluation.json.
    """
    return bool(_panels(evaluation))


def digest_of(evaluation: Mapping[str, Any]) -> str:
    """SHA-256 of the figures that the picture shows; ``draw_figures`` writes it into the PNG.

    Args:
        evaluation: Content of evaluation.json.
    """
    drawn = {
        who: [found and found["mean"] for panel in _PANELS for found in _bars(one, panel).values()]
        for who, one in _everyone(evaluation).items()
    }
    return hashlib.sha256(json.dumps(drawn).encode()).hexdigest()


def draw_figures(evaluation: Mapping[str, Any], path: Path) -> None:
    """Draw k-NN accuracy, similarity under rotation and the error of the angle, of each part.

    Args:
        evaluation: Content of evaluation.json; ``has_picture`` says whether there is one to draw.
        path: The PNG to write. Its bytes depend on the figures and on matplotlib's version alone.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    everyone, panels = _everyone(evaluation), _panels(evaluation)
    # As wide as three panels, so that the writing is as large in every card.
    canvas = Figure(figsize=(10.5, 1.4 + 0.62 * len(everyone)), layout="constrained")
    all_axes = canvas.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    shown: set[str] = set()
    for axes, panel in zip(all_axes, panels, strict=True):
        shown |= _draw(axes, panel, list(everyone.values()))
    letters = 11 if max(map(len, everyone)) <= _SHORT else 9
    names = [_folded(who) for who in everyone]
    all_axes[0].set_yticks(range(len(everyone)), names, fontsize=letters)
    all_axes[0].set_ylim(len(everyone) - 0.5, -0.5)
    colors = [
        Patch(color=color, label=f"{part} part" if part != "full" else "full embedding")
        for part, color in _COLORS.items()
        if part in shown
    ]
    canvas.legend(handles=colors, loc="outside lower center", ncols=3, fontsize=11, frameon=False)
    metadata = {"Software": None, DIGEST_KEY: digest_of(evaluation)}
    with atomic_path(path) as temporary:
        canvas.savefig(temporary, dpi=120, metadata=metadata)


def _everyone(evaluation: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The model and its baselines, by what they are called."""
    others = evaluation.get("baselines", {}).items()
    return {"this model": evaluation, **{BASELINES.get(who, who): one for who, one in others}}


def _panels(evaluation: Mapping[str, Any]) -> list[_Panel]:
    """Those that the model has a figure for."""
    return [panel for panel in _PANELS if any(_bars(evaluation, panel).values())]


def _bars(measured: Mapping[str, Any], panel: _Panel) -> dict[str, Mapping[str, Any] | None]:
    return {part: figure(measured, *panel.place, part, panel.metric) for part in _COLORS}


def _draw(axes: Any, panel: _Panel, everyone: list[Mapping[str, Any]]) -> set[str]:
    """Draw a panel; the parts that have bars in it."""
    shown: set[str] = set()
    ends = [0.0, panel.nothing or 0.0]
    for y, one in enumerate(everyone):
        found = {part: value["mean"] for part, value in _bars(one, panel).items() if value}
        shown |= found.keys()
        ends += found.values()
        if not found:
            axes.annotate(
                "not measured",
                (0, y),
                xytext=(4, 0),
                textcoords="offset points",
                fontsize=8,
                color="#777777",
                va="center",
            )
        for place, (part, color) in enumerate(_COLORS.items()):
            if part in found:
                # What has no parts has one bar, in the middle.
                middle = y + (place - 1) * _BAR * (len(found) > 1)
                drawn = axes.barh(middle, found[part], _BAR, color=color)
                _label(axes, drawn, panel.digits)
    low, high = min(ends), max(ends)
    room = (high - low or 1.0) / 4  # for the labels beyond the bars
    axes.set_xlim(low - room * (low < 0), high + room)
    if panel.nothing:
        _mark_nothing(axes, panel.nothing)
    axes.set_title(panel.question, fontsize=12, fontweight="bold", pad=14)
    axes.set_xlabel(panel.unit, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    return shown


def _label(axes: Any, drawn: Any, digits: int) -> None:
    """The number beyond a bar, on white, so that no line goes through it."""
    white = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    axes.bar_label(drawn, fmt=f"{{:.{digits}f}}", padding=3, fontsize=9, bbox=white)


def _mark_nothing(axes: Any, value: float) -> None:
    axes.axvline(value, color="#888888", linestyle="--", linewidth=1, zorder=0)
    axes.annotate(
        "knows nothing",
        (value, 1),
        xycoords=("data", "axes fraction"),
        fontsize=8,
        color="#555555",
        ha="center",
        va="bottom",
    )


def _folded(name: str) -> str:
    """A long name in two lines, broken at a separator; what is still too long is cut."""
    if len(name) <= _SHORT:
        return name
    places = [
        n + 1 for n, letter in enumerate(name) if letter in " -_.:/" and 4 < n < len(name) - 4
    ]
    middle = min(places, key=lambda n: abs(n - len(name) / 2), default=_SHORT)
    lines = (name[:middle].rstrip(), name[middle:])
    return "\n".join(line if len(line) <= _LINE else f"{line[: _LINE - 1]}…" for line in lines)
