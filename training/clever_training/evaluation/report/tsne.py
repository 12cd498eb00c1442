"""t-SNE maps of the features of each part, coloured by class and by rotation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from clever_hub.errors import DataError
from clever_training.data.labelled import LabelledPhotos
from clever_training.evaluation.features import FeatureStore
from clever_training.evaluation.knn import unit
from clever_training.evaluation.models import FeatureExtractor
from clever_training.evaluation.perturbations import ROTATED
from clever_training.evaluation.report.legend import fitting_legend
from clever_training.evaluation.report.style import MARKERS, PALETTE, new_figure, save

# The number of colours that readers with any colour vision can distinguish.
COLORS = (*PALETTE, "#000000", "#999999")
SHAPES = (*MARKERS, "X", "*")
TURNS = 3
NEIGHBOURS = 10


@dataclass(frozen=True)
class Turned:
    """Photos of a few classes, each rotated several times by random angles.

    Attributes:
        features: Features of each part, float32 (N, d).
        labels: int (N,), in [0, number of classes shown).
        angles: float (N,), degrees counter-clockwise, in ±90.
        photos: int (N,), number of the photo.
        classes: Names of the classes shown.
    """

    features: dict[str, NDArray[np.float32]]
    labels: NDArray[np.int64]
    angles: NDArray[np.float64]
    photos: NDArray[np.int64]
    classes: tuple[str, ...]


def choose(photos: LabelledPhotos, points: int) -> LabelledPhotos:
    """Photos of at most eight classes, spread evenly over the list of classes.

    Args:
        photos: The validation photos.
        points: Number of points in the map; each photo gives ``TURNS``.

    Returns:
        The chosen photos, equally many of each class if there are enough.

    Raises:
        DataError: When there is a single photo, which has no neighbours.
    """
    if len(photos) < 2:
        raise DataError(f"{photos.name}: expected 2 photos or more for a map, got {len(photos)}")
    known = np.unique(photos.labels)
    few = known[np.linspace(0, len(known) - 1, min(len(known), len(COLORS))).astype(int)]
    each = max(2, points // (TURNS * len(few)))
    rows = [np.flatnonzero(photos.labels == label)[:each] for label in few]
    return photos.subset(np.concatenate(rows))


def turned(extractor: FeatureExtractor, photos: LabelledPhotos, store: FeatureStore) -> Turned:
    """Features of the photos, each rotated ``TURNS`` times within ±90° under the disc.

    Args:
        extractor: The model.
        photos: From ``choose``.
        store: Computes and caches features.

    Returns:
        The features with label, angle and photo of each.

    Raises:
        DataError: When a photo cannot be read.
    """
    label = f"t-SNE, {extractor.name}"
    features = np.concatenate(
        [
            store.features(extractor, photos, ROTATED, view=view, label=label)
            for view in range(TURNS)
        ]
    )
    angles = [
        ROTATED.parameters(0, int(row), view)[0][0]
        for view in range(TURNS)
        for row in photos.indices
    ]
    shown, labels = np.unique(photos.labels, return_inverse=True)
    return Turned(
        {part: features[:, columns] for part, columns in extractor.parts.items()},
        np.tile(labels, TURNS),
        np.asarray(angles),
        np.tile(np.arange(len(photos)), TURNS),
        tuple(_plain(photos.classes[label]) for label in shown),
    )


def embed_flat(features: NDArray[np.float32], seed: int = 0) -> NDArray[np.float32]:
    """t-SNE of unit vectors: van der Maaten and Hinton 2008, by scikit-learn.

    Args:
        features: float32 (N, d).
        seed: Seed of the optimisation.

    Returns:
        float32 (N, 2).
    """
    rows = unit(features - features.mean(axis=0))
    few = PCA(min(50, *rows.shape), random_state=seed).fit_transform(rows)
    perplexity = min(30.0, (len(rows) - 1) / 3)
    flat: NDArray[np.float32] = TSNE(
        perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed
    ).fit_transform(few)
    return flat


def neighbourhood(data: Turned, part: str) -> tuple[float, float]:
    """How similar class and angle are among nearest neighbours from other photos.

    Args:
        data: The features with label, angle and photo of each.
        part: Name of the part.

    Returns:
        Share of the neighbours with the same class in per cent, and the mean difference between
        the angles in degrees (60 by chance, for angles uniform in ±90).
    """
    rows = unit(data.features[part] - data.features[part].mean(axis=0))
    similarity = rows @ rows.T
    similarity[data.photos[:, None] == data.photos[None, :]] = -np.inf
    nearest = np.argsort(-similarity, axis=1)[:, :NEIGHBOURS]
    # There may be fewer points of other photos than neighbours.
    others = np.isfinite(np.take_along_axis(similarity, nearest, axis=1))
    same = (data.labels[nearest] == data.labels[:, None])[others].mean() * 100
    apart = np.abs(data.angles[nearest] - data.angles[:, None])[others].mean()
    return float(same), float(apart)


def chance_of_class(data: Turned) -> float:
    """How often another photo's point, drawn at random, is of the same class; in [0, 1]."""
    sizes, points = np.bincount(data.labels), len(data.labels)
    # A photo's own turned copies do not count.
    return float((sizes * (sizes - TURNS)).sum() / max(1, points * (points - TURNS)))


def tsne_figure(name: str, data: Turned, path: Path) -> Path:
    """One column for each part: above coloured by class, below the same map by angle.

    Args:
        name: Name of the model, for the title.
        data: From ``turned``.
        path: The PNG to write.

    Returns:
        The file.
    """
    parts = list(data.features)
    # The two maps of a single part are drawn side by side.
    one = len(parts) == 1
    figure, grid = new_figure(*((1, 2, 5.2) if one else (2, len(parts), 7.6)))
    axes = grid.T if one else grid
    chance = chance_of_class(data)
    for column, part in enumerate(parts):
        flat = embed_flat(data.features[part])
        same, apart = neighbourhood(data, part)
        above, below = axes[0, column], axes[1, column]
        _by_class(above, flat, data)
        image = below.scatter(
            *flat.T, s=11, c=data.angles, cmap="cividis", vmin=-90, vmax=90, linewidth=0
        )
        width = data.features[part].shape[1]
        above.set_title(
            f"{part}, {width} dimensions\nnearest points: {same:.0f} % of the\n"
            f"same class (chance {chance * 100:.0f} %)",
            fontsize=10,
        )
        below.set_title(f"nearest points: {apart:.0f}° apart\n(chance 60°)", fontsize=10)
        _bare(above)
        _bare(below)
    axes[0, 0].set_ylabel("coloured by class\nt-SNE 2")
    axes[1, 0].set_ylabel("coloured by rotation\nt-SNE 2")
    bar = figure.colorbar(image, ax=axes[1, :].tolist(), shrink=0.9, ticks=[-90, -45, 0, 45, 90])
    bar.set_label("rotation in degrees")
    handles, _ = axes[0, 0].get_legend_handles_labels()
    fitting_legend(figure, handles, 4, loc="outside lower center", fontsize=9, markerscale=1.8)
    figure.suptitle(name, fontsize=12)
    return save(figure, path)


def _by_class(axis: Axes, flat: NDArray[np.float32], data: Turned) -> None:
    for label, class_ in enumerate(_first_synonyms(data.classes)):
        own = flat[data.labels == label]
        axis.scatter(
            own[:, 0],
            own[:, 1],
            s=13,
            color=COLORS[label],
            marker=SHAPES[label],
            linewidth=0,
            label=class_,
            alpha=0.85,
        )


def _bare(axis: Axes) -> None:
    """Remove ticks: the axes of a t-SNE map have no unit, and its distances no meaning."""
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(visible=False)
    axis.set_aspect("equal", adjustable="datalim")
    axis.set_xlabel("t-SNE 1")


def _first_synonyms(classes: Sequence[str]) -> Sequence[str]:
    """``academic gown`` of ``academic gown, academic robe``, where all of them still differ."""
    first = [name.partition(",")[0] for name in classes]
    return first if len(set(first)) == len(first) else classes


def _plain(name: Any) -> str:
    """``n02669723 academic gown`` without its WordNet number."""
    return re.sub(r"^n\d{8}[ _]", "", str(name))
