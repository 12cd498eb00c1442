"""From embedded views to a basis: c chosen on held-out photos, everything measured on others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clever_hub.errors import DataError
from clever_training.split.basis import Scatter, basis, scatter, stability
from clever_training.split.embedding import Views
from clever_training.split.measure import Similarity, explained, similarity
from clever_training.split.telling import telling_directions

# From "stay the same, whatever it is worth" to "tell photos apart".
WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 1.0, 3.0)
MIN_PHOTOS = 20
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Split:
    """A rotation of an embedding into an invariant and an equivariant part.

    Attributes:
        mean: float64 (d,), subtracted first.
        basis: float64 (d, d), orthogonal; the embedding is ``(z − mean) @ basis``.
        invariant_dim: Length of the invariant part.
        c: The weight that was chosen.
        told: The transformations whose directions were put into the equivariant part first.
        shrinkage: See ``Scatter``.
        enough: Number of photos to fit to from which on nothing is shrunk.
        photos: Photos that the basis was fitted to, that chose c, and that were measured.
        before: Similarity by part of the embedding as it was: ``full``, its ``first`` entries, as
            many as the invariant part has, and its ``last``.
        after: Of ``invariant`` and ``equivariant``.
        r2: R² of each transformation, by part.
        tried: Similarity of the invariant part on the choosing photos, by c.
        stable: Mean squared cosine between the equivariant parts of the two halves of the photos.
    """

    mean: NDArray[np.float64]
    basis: NDArray[np.float64]
    invariant_dim: int
    c: float
    told: tuple[str, ...]
    shrinkage: tuple[float, float]
    enough: int
    photos: tuple[int, int, int]
    before: dict[str, Similarity]
    after: dict[str, Similarity]
    r2: dict[str, dict[str, float]]
    tried: dict[float, Similarity]
    stable: float

    def describe(self) -> dict[str, Any]:
        """What is stored in the model's provenance, ready for JSON."""
        return {
            "c": self.c,
            "told": list(self.told),
            "photos": dict(zip(("fitted", "chosen", "measured"), self.photos, strict=True)),
            "shrinkage": {"within": self.shrinkage[0], "between": self.shrinkage[1]},
            "stability": self.stable,
            "similarity": {
                part: {**asdict(found), "kept": found.gap}
                for part, found in {**self.before, **self.after}.items()
            },
            "r2": self.r2,
            "tried": [
                {"c": c, "kept": found.gap, "mrr": found.mrr} for c, found in self.tried.items()
            ],
        }


def find_split(
    fit: Views,
    choose: Views,
    ask: Views,
    invariant_dim: int,
    progress: Progress = lambda *_: None,
) -> Split:
    """Fit the basis, choose c, measure.

    The directions in which the embedding tells a transformation go into the equivariant part first,
    then those that move most. The chosen c has the largest sum of similarity kept and mean
    reciprocal rank in the invariant part.

    Args:
        fit: Views of the photos that the basis is fitted to.
        choose: Of the photos that choose c, and that the measuring regressions are fitted to.
        ask: Of the photos that are measured.
        invariant_dim: Length of the invariant part, 1 to d − 1.
        progress: Called with what is done, how much of it, and how much there is.

    Returns:
        The split.

    Raises:
        DataError: When there are too few photos.
    """
    sets = (fit, choose, ask)
    if min(len(views) for views in sets) < MIN_PHOTOS:
        raise DataError(
            f"split: expected at least {MIN_PHOTOS} photos to fit to, to choose c on and to "
            f"measure, got {', '.join(str(len(views)) for views in sets)}. Give more photos"
        )
    progress("covariances", 0, 0)
    found = scatter(fit.embeddings)
    dims = len(found.mean) - invariant_dim
    told, last = telling_directions(fit, dims)
    tried, bases = {}, {}
    for done, c in enumerate(WEIGHTS):
        progress("choosing c", done, len(WEIGHTS))
        bases[c] = basis(found, c, last)
        rows = (choose.embeddings - found.mean) @ bases[c][:, :invariant_dim]
        tried[c] = similarity(rows)
    progress("choosing c", len(WEIGHTS), len(WEIGHTS))
    best = max(WEIGHTS, key=lambda c: tried[c].gap + tried[c].mrr)
    before, after, r2 = _measure(sets, found, bases[best], invariant_dim, progress)
    progress("stability", 0, 0)
    even, odd = (_half_basis(fit, half, best, dims) for half in (0, 1))
    return Split(
        mean=found.mean,
        basis=bases[best],
        invariant_dim=invariant_dim,
        c=best,
        told=told,
        shrinkage=found.shrinkage,
        enough=found.enough,
        photos=(len(fit), len(choose), len(ask)),
        before=before,
        after=after,
        r2=r2,
        tried=tried,
        stable=stability(even, odd, dims),
    )


def _half_basis(fit: Views, half: int, c: float, dims: int) -> NDArray[np.float64]:
    """The basis that every other photo alone gives."""
    views = Views(fit.embeddings[half::2], fit.parameters[half::2])
    return basis(scatter(views.embeddings), c, telling_directions(views, dims)[1])


def _measure(
    sets: tuple[Views, Views, Views],
    found: Scatter,
    rotation: NDArray[np.float64],
    cut: int,
    progress: Progress,
) -> tuple[dict[str, Similarity], dict[str, Similarity], dict[str, dict[str, float]]]:
    plain = [views.embeddings - found.mean for views in sets]
    turned = [rows @ rotation for rows in plain]
    columns = {
        "full": (plain, slice(None)),
        "first": (plain, slice(0, cut)),
        "last": (plain, slice(cut, None)),
        "invariant": (turned, slice(0, cut)),
        "equivariant": (turned, slice(cut, None)),
    }
    measured: dict[str, Similarity] = {}
    r2: dict[str, dict[str, float]] = {}
    # Not on the photos of the basis: there the invariant part has no covariance with what was
    # told, by construction, and a regression would find nothing that other photos might show.
    parameters = (sets[1].parameters, sets[2].parameters)
    for done, (part, (rows, chosen)) in enumerate(columns.items()):
        progress("measuring", done, len(columns))
        fitting, asking = (one[..., chosen] for one in rows[1:])
        measured[part] = similarity(asking)
        r2[part] = explained(fitting, asking, parameters)
    progress("measuring", len(columns), len(columns))
    after = {part: measured.pop(part) for part in ("invariant", "equivariant")}
    return measured, after, r2
