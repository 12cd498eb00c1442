"""The page's plots of figures in evaluation.json."""

from __future__ import annotations

import bisect
import math
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from clever_training.evaluation.report.collect import Entrant, Field, Value
from clever_training.evaluation.report.legend import folded
from clever_training.evaluation.report.style import (
    PART_LOOKS,
    Look,
    legend_below,
    looks,
    new_figure,
    save,
)

# transformation: (label of the axis, the neutral strength)
SWEEPS = {
    "rotation": ("rotation in degrees", 0.0),
    "crop": ("share of the area kept", 1.0),
    "brightness": ("brightness factor", 1.0),
    "blur": ("σ in pixels at 64 px", 0.0),
}
_ACCURACY = "Top-1 accuracy, %"
# Titles of panels, in the words of the page.
_PANELS = {"rotation": "Rotation", "crop": "Crop", "brightness": "Brightness", "blur": "Blur"}


def strengths(entrant: Entrant, protocol: str, prefix: str) -> list[float]:
    """The measured strengths of a sweep, ascending.

    Args:
        entrant: The model or baseline.
        protocol: ``sweeps`` or ``invariance``.
        prefix: Prefix of the conditions, such as ``upright/rotation/``.

    Returns:
        The numbers after the prefix.
    """
    found = [c.removeprefix(prefix) for c in entrant.conditions(protocol) if c.startswith(prefix)]
    return sorted(float(text) for text in found)


def robustness_figure(field: Field, path: Path, trained: str = "upright") -> Path | None:
    """Probe accuracy of the full embedding against each transformation's strength.

    Args:
        field: The models and baselines.
        path: The PNG to write.
        trained: Kind of the probe's training photos: ``upright`` or ``rotated``.

    Returns:
        The file; None when there are no figures.
    """
    entrants = [e for e in field.having("sweeps") if _any(e, "sweeps", f"{trained}/")]
    if not entrants:
        return None
    styles = looks(field.entrants)
    figure, axes = new_figure(2, 2, 7.4, sharey=True)
    for axis, (name, (label, neutral)) in zip(axes.flat, SWEEPS.items(), strict=True):
        for entrant in entrants:
            _curve(
                axis,
                entrant,
                ("sweeps", f"{trained}/{name}/", "full", "top1"),
                styles[entrant.name],
                entrant.name,
            )
        _finish_sweep(axis, name, label, neutral)
        axis.set_title(_PANELS[name], fontsize=11)
        axis.set_ylabel(_ACCURACY)
    _from_zero(axes)
    legend_below(figure, axes[0, 0])
    return save(figure, path)


def parts_figure(field: Field, path: Path) -> Path | None:
    """Probe accuracy of each part against the angle, for both kinds of probes.

    Args:
        field: The models and baselines.
        path: The PNG to write.

    Returns:
        The file; None when no model with parts was measured.
    """
    entrants = [e for e in field.having("sweeps") if len(e.parts) > 1 and not e.is_baseline]
    trained = [t for t in ("upright", "rotated") if any(_any(e, "sweeps", t) for e in entrants)]
    if not entrants or not trained:
        return None
    height = 1.0 + 3.2 * len(entrants)
    figure, axes = new_figure(len(entrants), len(trained), height, sharey="row", sharex=True)
    for row, entrant in zip(axes, entrants, strict=True):
        for axis, kind in zip(row, trained, strict=True):
            for part in entrant.parts:
                where = ("sweeps", f"{kind}/rotation/", part, "top1")
                _curve(axis, entrant, where, PART_LOOKS[part], part)
            _finish_sweep(axis, "rotation", SWEEPS["rotation"][0], 0.0)
            name = folded(entrant.name, 42)
            axis.set_title(f"{name}\nprobe on {kind} photos", fontsize=10)
        row[0].set_ylabel(_ACCURACY)
    for axis in axes[:-1].flat:  # their numbers are those of the last row
        axis.set_xlabel("")
    _from_zero(axes)
    legend_below(figure, axes[0, 0])
    return save(figure, path)


def invariance_figure(field: Field, path: Path) -> Path | None:
    """Similarity of photo and copy, by part, against each transformation's strength.

    Args:
        field: The models and baselines.
        path: The PNG to write.

    Returns:
        The file; None when no model's sweeps were measured.
    """
    entrants = [
        e
        for e in field.having("invariance")
        if not e.is_baseline and any(_any(e, "invariance", f"{name}/") for name in SWEEPS)
    ]
    if not entrants:
        return None
    height = 1.2 + 2.5 * len(entrants)
    figure, axes = new_figure(len(entrants), 4, height, sharey=True)
    for row, entrant in zip(axes, entrants, strict=True):
        for axis, (name, (label, neutral)) in zip(row, SWEEPS.items(), strict=True):
            for part in entrant.parts:
                where = ("invariance", f"{name}/", part, "gap_centred")
                _curve(axis, entrant, where, PART_LOOKS[part], part)
            _finish_sweep(axis, name, label, neutral)
            axis.xaxis.label.set_fontsize(9)
        row[0].set_ylabel(f"{folded(entrant.name, 28)}\nsame − other photo", fontsize=9)
    for axis, name in zip(axes[0], SWEEPS, strict=True):
        axis.set_title(_PANELS[name], fontsize=10)
    for axis in axes[:-1].flat:  # their axis is that of the last row
        axis.set_xlabel("")
    legend_below(figure, axes[0, 0])
    return save(figure, path)


def collapse_figure(field: Field, path: Path) -> Path | None:
    """Effective rank of each part as a share of its dimensions.

    Args:
        field: The models and baselines.
        path: The PNG to write.

    Returns:
        The file; None when there are no figures.
    """
    entrants = field.having("collapse")
    if not entrants:
        return None
    figure, axes = new_figure(1, 2, 1.2 + 0.62 * sum(len(e.parts) for e in entrants) * 0.62)
    for axis, metric, label in (
        (axes[0, 0], "std", "spread (1: even, 0: collapsed)"),
        (axes[0, 1], "effective_rank", "effective rank / dimensions"),
    ):
        place, ticks = 0.0, []
        for entrant in entrants:
            for part in entrant.parts:
                value = _share(entrant, part, metric)
                if value is not None:
                    axis.barh(place, value, color=PART_LOOKS[part].color, height=0.75)
                    axis.annotate(
                        f" {value:.2f}", (value, place), va="center", fontsize=9, color="#333333"
                    )
                name = folded(entrant.name, 40) if part == entrant.parts[0] else ""
                ticks.append((place, f"{name}  {part}" if name else part))
                place += 1
            place += 0.5
        axis.set_yticks([where for where, _ in ticks], [text for _, text in ticks], fontsize=9)
        axis.invert_yaxis()
        axis.set_xlim(0, max(1.05, axis.get_xlim()[1] * 1.08))
        axis.set_xlabel(label)
        axis.grid(visible=False, axis="y")
    axes[0, 1].set_yticklabels([])
    return save(figure, path)


def _share(entrant: Entrant, part: str, metric: str) -> float | None:
    value = entrant.get("collapse", "plain", part, metric)
    if value is None:
        return None
    return value.mean / entrant.model["dims"][part] if metric == "effective_rank" else value.mean


def _any(entrant: Entrant, protocol: str, prefix: str) -> bool:
    return any(condition.startswith(prefix) for condition in entrant.conditions(protocol))


def _curve(
    axis: Axes, entrant: Entrant, where: tuple[str, str, str, str], look: Look, label: str
) -> None:
    """One line with a band of its uncertainty."""
    protocol, prefix, part, metric = where
    found = [
        (strength, value)
        for strength in strengths(entrant, protocol, prefix)
        if (value := entrant.get(protocol, f"{prefix}{strength:g}", part, metric))
    ]
    if not found:
        return
    x = [strength for strength, _ in found]
    mean = [value.mean for _, value in found]
    photos = entrant.sweep_photos if protocol == "sweeps" else None
    spread = [_open(value, photos) for _, value in found]
    name = prefix.split("/")[-2]
    _gap(SWEEPS[name][1], x, mean, spread)
    axis.plot(
        x,
        mean,
        color=look.color,
        marker=look.marker,
        linestyle=look.line,
        markersize=4.5,
        linewidth=1.6,
        label=label,
    )
    low = [m - s for m, s in zip(mean, spread, strict=True)]
    high = [m + s for m, s in zip(mean, spread, strict=True)]
    axis.fill_between(x, low, high, color=look.color, alpha=0.18, linewidth=0)


def _open(value: Value, photos: int | None) -> float:
    """Half the width of a band: the 95 % interval of an accuracy, else the seeds' deviation.

    The seeds share the photos of a sweep, so their accuracies hardly differ, even on few photos.
    """
    if photos is None:
        return value.std or 0.0
    share = value.mean / 100
    return 196 * math.sqrt(share * (1 - share) / photos)


def _from_zero(axes: Any) -> None:
    """Set the limits after drawing: set earlier, they hold for all panels that share the axis."""
    for axis in axes.flat:
        axis.set_ylim(bottom=0)


def _gap(neutral: float, x: list[float], mean: list[float], spread: list[float]) -> None:
    """Break the line at a neutral strength that was not measured."""
    if neutral not in x and x[0] < neutral < x[-1]:
        place = bisect.bisect(x, neutral)
        x.insert(place, neutral)
        mean.insert(place, math.nan)
        spread.insert(place, math.nan)


def _finish_sweep(axis: Axes, name: str, label: str, neutral: float) -> None:
    axis.axvline(neutral, color="#999999", linewidth=0.9, linestyle=(0, (2, 2)))
    axis.set_xlabel(label)
    if name == "rotation":
        axis.set_xticks([-180, -90, 0, 90, 180])
    if name == "crop" and not axis.xaxis_inverted():
        axis.invert_xaxis()
