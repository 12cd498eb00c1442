"""An orthogonal basis of an embedding, from what stays the same of a photo to what moves.

Of N photos with V views each, the within-photo covariance S_w says how the embedding moves when a
photo is transformed, and the between-photo covariance S_b how photos differ. The eigenvectors of
S_w − c · S_b in ascending order begin with the directions that move least and tell photos apart
best. Directions that are known to move can be put last before. All of them together are a
rotation: no cosine of the centred embedding changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from clever_hub.errors import DataError

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scatter:
    """How an embedding moves within photos, and how it differs between them.

    Attributes:
        mean: float64 (d,), over all photos and views.
        within: float64 (d, d), covariance of the views around their photo's mean; S_w.
        between: float64 (d, d), covariance of the photos' means, less what the views' own movement
            adds to it; S_b. It may have negative eigenvalues where the photos are few.
        photos: N.
        shrinkage: Shares by which the correlations of ``within`` and ``between`` were shrunk
            towards 0; both are 0 where N > d.
    """

    mean: Matrix
    within: Matrix
    between: Matrix
    photos: int
    shrinkage: tuple[float, float] = (0.0, 0.0)

    @property
    def enough(self) -> int:
        """Number of photos from which on nothing is shrunk."""
        return len(self.mean) + 1


def scatter(embeddings: Float[np.ndarray, "photos views dim"]) -> Scatter:
    """Covariances within and between photos.

    With no more photos than dimensions, the covariance of their means is singular, and directions
    that no photo happened to use look as if no photo ever would. The correlations are then shrunk
    towards 0 by the share that is best in mean square (Schäfer and Strimmer 2005, "A shrinkage
    approach to large-scale covariance matrix estimation", target D).

    Args:
        embeddings: Raw embeddings of N photos, V views each; computed in float64.

    Returns:
        The covariances.

    Raises:
        DataError: When there are fewer than two photos or views, or a number is not finite.

    Example:
        >>> views = np.array([[[1.0, 2.0], [1.0, -2.0]], [[-1.0, 2.0], [-1.0, -2.0]]])
        >>> found = scatter(np.tile(views, (2, 1, 1)))
        >>> found.within.round(6).tolist()
        [[0.0, 0.0], [0.0, 8.0]]
    """
    rows = np.asarray(embeddings, np.float64)
    if rows.ndim != 3 or min(rows.shape[:2]) < 2:
        raise DataError(
            "split: expected embeddings (photos, views, dimensions) of at least two photos with "
            f"two views each, got {rows.shape}"
        )
    if not np.isfinite(rows).all():
        raise DataError("split: expected finite embeddings, got NaN or infinity")
    photos, views, dim = rows.shape
    means = rows.mean(axis=1)
    center = means.mean(axis=0)
    moved = (rows - means[:, None]).reshape(-1, dim)
    apart = means - center
    within = moved.T @ moved / (photos * (views - 1))
    of_means = apart.T @ apart / (photos - 1)
    shrinkage = (0.0, 0.0)
    if photos <= dim:
        # Views of a photo move together, so that there are fewer independent rows than views.
        shrinkage = _share(moved, photos), _share(apart, photos)
        within, of_means = (
            _shrunk(matrix, share)
            for matrix, share in zip((within, of_means), shrinkage, strict=True)
        )
    return Scatter(center, within, of_means - within / views, photos, shrinkage)


def basis(
    found: Scatter, c: float, last: Float[np.ndarray, "dim count"] | None = None
) -> Float[np.ndarray, "dim dim"]:
    """The eigenvectors of S_w − c · S_b, ascending.

    Args:
        found: The covariances.
        c: Weight of telling photos apart against staying the same; at 0 only staying counts.
        last: Directions whose span comes last, whatever their eigenvalues; the eigenvectors are
            those of what is orthogonal to them.

    Returns:
        float64 (d, d), orthogonal; column k is the k-th direction. Signs are fixed: the entry of
        largest size in each column is positive.

    Example:
        >>> moving = Scatter(np.zeros(2), np.diag([8.0, 1.0]), np.eye(2), 4)
        >>> basis(moving, 0.0).tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    matrix = found.within - c * found.between
    if last is None or not last.shape[1]:
        _, vectors = np.linalg.eigh(matrix)
    else:
        complete, _ = np.linalg.qr(last, mode="complete")
        span, rest = np.split(complete, [last.shape[1]], axis=1)
        _, inner = np.linalg.eigh(rest.T @ matrix @ rest)
        vectors = np.concatenate([rest @ inner, span], axis=1)
    largest = np.abs(vectors).argmax(axis=0)
    signs = np.sign(vectors[largest, np.arange(len(vectors))])
    return np.asarray(vectors * signs + 0.0)


def stability(a: Matrix, b: Matrix, dims: int) -> float:
    """How much of a subspace two bases share.

    Args:
        a: float64 (d, d), orthogonal.
        b: Another.
        dims: The subspace is that of the last so many columns.

    Returns:
        The mean squared cosine of the angles between the two; 1 is the same subspace, dims / d is
        what two random ones share.

    Example:
        >>> stability(np.eye(3), np.eye(3)[:, ::-1], 1)
        0.0
    """
    if not dims:
        return 1.0
    return float(np.square(a[:, -dims:].T @ b[:, -dims:]).sum() / dims)


def _share(rows: Matrix, independent: int) -> float:
    """The share by which correlations are best shrunk: their variance over their square."""
    deviation = np.sqrt(np.square(rows).mean(axis=0))
    scaled = rows / np.where(deviation > 0, deviation, 1.0)
    correlation = scaled.T @ scaled / len(rows)
    square = np.square(scaled)
    variance = (square.T @ square / len(rows) - correlation**2) / max(1, independent - 1)
    for matrix in (correlation, variance):
        np.fill_diagonal(matrix, 0.0)
    total = float(np.square(correlation).sum())
    return float(np.clip(variance.sum() / total, 0.0, 1.0)) if total > 0 else 1.0


def _shrunk(matrix: Matrix, share: float) -> Matrix:
    return np.asarray((1 - share) * matrix + share * np.diag(np.diag(matrix)))
