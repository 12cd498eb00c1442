"""The card's picture: measured figures as bars, beside the baselines."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clever_hub.files import atomic_path

_COLORS = {"full": "#4c566a", "invariant": "#2a7fb8", "equivariant": "#e07b39"}
_WHO = {"random": "random\nweights", "pixels": "raw\npixels"}


def draw_figures(evaluation: Mapping[str, Any], path: Path) -> None:
    """Draw k-NN accuracy, rotation similarity and knowledge of the angle, of each part.

    Args:
        evaluation: Content of evaluation.json.
        path: The PNG to write. Its bytes depend on the figures and on matplotlib's version alone.
    """
    from matplotlib.figure import Figure

    panels = [
        (draw, width)
        for protocol, draw, width in (
            ("knn", _accuracy, 3),
            ("invariance", _similarity, 2),
            ("equivariance", _angle, 2),
        )
        if protocol in evaluation["figures"] or protocol == "knn"
    ]
    widths = [width for _, width in panels]
    # Two baselines beside the model is what the panels are made for.
    wider = max(1.0, (1 + len(evaluation.get("baselines", {}))) / 3)
    figure = Figure(figsize=(2 * sum(widths) * wider, 4), layout="constrained")
    all_axes = figure.subplots(1, len(panels), width_ratios=widths, squeeze=False)[0]
    for axes, (draw, _) in zip(all_axes, panels, strict=True):
        draw(axes, evaluation)
    left = all_axes[0]
    figure.suptitle(f"{evaluation['model']['name']}: what each part of the embedding knows")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None})


def _accuracy(axes: Any, evaluation: Mapping[str, Any]) -> None:
    groups, labels = [], []
    for who, measured in _everyone(evaluation):
        for condition in ("upright", "rotated"):
            parts = measured["figures"].get("knn", {}).get(condition)
            if parts:
                groups.append({part: values["top1"] for part, values in parts.items()})
                labels.append(f"{who}\n{condition}")
    _bars(axes, groups, labels)
    axes.set_ylabel("k-NN top-1, %")
    axes.set_title("Does it know what is in the photo?", fontsize=10)


def _similarity(axes: Any, evaluation: Mapping[str, Any]) -> None:
    _bars(axes, *_groups(evaluation, "invariance", "same_centred"))
    axes.set_ylabel("cosine similarity after centring")
    axes.set_title("How alike are a photo and its turned copy (±90°)?", fontsize=10)


def _angle(axes: Any, evaluation: Mapping[str, Any]) -> None:
    _bars(axes, *_groups(evaluation, "equivariance", "ridge_r2"))
    axes.set_ylabel("R² of the angle, ridge")
    axes.set_title("Does it know how far the photo was turned?", fontsize=10)


def _groups(
    evaluation: Mapping[str, Any], protocol: str, metric: str
) -> tuple[list[dict[str, Any]], list[str]]:
    """A figure under rotation, part by part, of the model and its baselines."""
    groups, labels = [], []
    for who, measured in _everyone(evaluation):
        parts = measured["figures"].get(protocol, {}).get("rotation", {})
        found = {part: values[metric] for part, values in parts.items() if metric in values}
        if found:
            groups.append(found)
            labels.append(who)
    return groups, labels


def _everyone(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The model and its baselines, each with a label in lines that fit under a bar."""
    yield "this model", evaluation
    for who, measured in evaluation.get("baselines", {}).items():
        yield _WHO.get(who) or "\n".join(textwrap.wrap(who, 10)), measured


def _bars(axes: Any, groups: list[dict[str, Any]], labels: list[str]) -> None:
    width = 0.27
    for place, (part, color) in enumerate(_COLORS.items()):
        shown = [(x, group[part]) for x, group in enumerate(groups) if part in group]
        axes.bar(
            # A baseline without parts has one bar, in the middle.
            [x + (place - 1) * width * (len(groups[x]) > 1) for x, _ in shown],
            [value["mean"] for _, value in shown],
            width,
            yerr=[value["std"] or 0.0 for _, value in shown],
            color=color,
            label=part,
            error_kw={"elinewidth": 1},
        )
    axes.set_xticks(range(len(labels)), labels, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(y=0.2)
