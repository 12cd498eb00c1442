"""The object in a photo, cut out of the graph of its patches: TokenCut.

Wang et al., "Self-Supervised Transformers for Unsupervised Object Discovery Using Normalized Cut",
CVPR 2022, https://arxiv.org/abs/2202.11539, sections 3.2 and 3.3. Needs scipy.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clever_hub.errors import DataError, require

THRESHOLD = 0.2
# The weight of an edge between patches that are not alike: every patch stays connected.
WEAK_EDGE = 1e-5
# Beyond so many patches, Lanczos iterations for two eigenvectors beat a whole decomposition.
DENSE_PATCHES = 100


class Cut(NamedTuple):
    """A photo's patches, told into object and background.

    Attributes:
        strength: float32 (rows, columns), the second eigenvector; the object is where it is larger
            than its mean.
        mask: bool (rows, columns), every patch on the object's side of the cut.
        object: bool (rows, columns), the patches of it that hang together with the strongest one.
        box: Left, top, right, bottom of ``object`` in patches; right and bottom are exclusive.
    """

    strength: NDArray[np.float32]
    mask: NDArray[np.bool_]
    object: NDArray[np.bool_]
    box: tuple[int, int, int, int]


def token_cut(
    features: NDArray[np.float32], threshold: float = THRESHOLD, *, centred: bool = False
) -> Cut:
    """Cut the object out of one photo's patches.

    Patches whose features have a cosine above the threshold are joined by an edge of weight 1, all
    others by one of 1e-5. The normalised cut (Shi & Malik 2000) of this graph is read off the
    eigenvector of the second smallest eigenvalue of (D − A) y = λ D y, at its mean. The object's
    side is the one with the entry of the largest absolute value.

    Args:
        features: float32 (rows, columns, dim) of the patches; the paper takes the keys of the last
            attention layer of a ViT.
        threshold: In (−1, 1).
        centred: Take off the mean of the photo's patches first. The paper does not; it helps where
            all cosines are above the threshold.

    Returns:
        The cut.

    Raises:
        DataError: When the features are not such, or all patches are joined, or none: there is
            nothing to cut then.

    Example:
        >>> features = np.zeros((4, 5, 2), dtype=np.float32)
        >>> features[..., 0] = 1
        >>> features[1:3, 1:3] = (0, 1)
        >>> token_cut(features).box
        (1, 1, 3, 3)
    """
    cut = find_cut(features, threshold, centred=centred)
    if cut is None:
        raise DataError(
            f"all pairs of patches have a cosine above {threshold}, or none has: there is nothing "
            "to cut. Try another threshold, or take off the mean of the patches"
        )
    return cut


def find_cut(
    features: NDArray[np.float32], threshold: float = THRESHOLD, *, centred: bool = False
) -> Cut | None:
    """``token_cut`` for many photos, where one without an object is no error.

    Args:
        features: As for ``token_cut``.
        threshold: As for ``token_cut``.
        centred: As for ``token_cut``.

    Returns:
        The cut; None when all patches are joined, or none.

    Raises:
        DataError: When the features are not such.
    """
    if features.ndim != 3 or features.shape[0] * features.shape[1] < 2:
        raise DataError(
            f"expected features (rows, columns, dim) of two patches or more, got {features.shape}"
        )
    if not np.isfinite(features).all():
        raise DataError("the features of the patches are not all finite: nothing can be cut")
    joined = _joined(features.reshape(-1, features.shape[2]), threshold, centred)
    edges = np.count_nonzero(joined) - len(joined)
    if edges in (0, joined.size - len(joined)):
        return None
    vector = _second_eigenvector(np.where(joined, 1.0, WEAK_EDGE)).reshape(features.shape[:2])
    strongest = np.unravel_index(np.abs(vector).argmax(), vector.shape)
    if vector[strongest] < 0:
        vector = -vector
    mask = vector > vector.mean()
    label: Any = require("scipy.ndimage", "saliency").label
    pieces, _ = label(mask)
    found = pieces == pieces[strongest]
    rows, columns = (np.flatnonzero(found.any(axis=axis)) for axis in (1, 0))
    box = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    return Cut(vector.astype(np.float32), mask, found, box)


def _joined(features: NDArray[np.float32], threshold: float, centred: bool) -> NDArray[np.bool_]:
    """Which patches are alike, bool (patches, patches)."""
    if not -1 < threshold < 1:
        raise DataError(f"threshold: expected a cosine between -1 and 1, got {threshold}")
    if centred:
        features = features - features.mean(axis=0)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.maximum(length, np.finfo(np.float32).tiny)
    joined: NDArray[np.bool_] = unit @ unit.T > threshold
    np.fill_diagonal(joined, val=True)
    return joined


def _second_eigenvector(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of (D − A) y = λ D y, for the second smallest λ.

    With z = D^½ y it is the second largest of the symmetric D^−½ A D^−½.
    """
    scale = 1 / np.sqrt(weights.sum(axis=1))
    matrix = weights * scale[:, None] * scale
    count = len(matrix)
    if count > DENSE_PATCHES:
        sparse = require("scipy.sparse.linalg", "saliency")
        # A fixed start, so that a photo always gives the same numbers.
        start = np.random.default_rng(0).standard_normal(count)
        try:
            _, vectors = sparse.eigsh(matrix, k=2, which="LA", v0=start)
        except sparse.ArpackNoConvergence:
            pass
        else:
            found: NDArray[np.float64] = vectors[:, 0] * scale
            return found
    linalg = require("scipy.linalg", "saliency")
    _, vectors = linalg.eigh(matrix, subset_by_index=[count - 2, count - 2])
    second: NDArray[np.float64] = vectors[:, 0] * scale
    return second
