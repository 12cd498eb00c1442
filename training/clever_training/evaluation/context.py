"""What every protocol works with: a model, photos, a seed, and how much is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from clever_training.data.labelled import LabelledPhotos
from clever_training.evaluation.data import Splits
from clever_training.evaluation.features import FeatureStore
from clever_training.evaluation.models import FeatureExtractor
from clever_training.evaluation.perturbations import Perturbation
from clever_training.evaluation.results import Figures

Columns: TypeAlias = slice | NDArray[np.int64]
SLICE = "invariant_slice"
_T = TypeVar("_T")


@dataclass(frozen=True)
class Profile:
    """How much is measured.

    Attributes:
        name: For evaluation.json.
        train: Photos to fit on; None for all.
        validation: Photos to measure on; None for all.
        seeds: How many seeds when the user does not say.
        random_models: Whether every seed gets another random initialisation to compare with.
            Otherwise all use one, and its features are computed once.
        sweep: Validation photos that are seen at every strength of every transformation, and on
            which predicted transformations are checked; None for all.
        pairs: Training photos that transformations are learnt from; None for all.
    """

    name: str
    train: int | None
    validation: int | None
    seeds: int
    random_models: bool
    sweep: int | None = None
    pairs: int | None = None


PROFILES = {
    "quick": Profile("quick", 10_000, 2_000, 3, random_models=False, sweep=1_000, pairs=4_000),
    "full": Profile("full", None, None, 3, random_models=True),
}


@dataclass(frozen=True)
class Context:
    """What a protocol works with.

    Attributes:
        extractor: The model.
        splits: The photos, already cut down to the profile.
        store: Computes and caches features.
        profile: How much is measured.
        seed: Of everything that is random.
        label: Names the model in the progress report.
        probe: How linear probes are fitted: ``lbfgs`` or ``sgd``.
        memory: What ``once`` has made; the seeds of one model share it.
    """

    extractor: FeatureExtractor
    splits: Splits
    store: FeatureStore
    profile: Profile
    seed: int
    label: str = ""
    probe: Literal["lbfgs", "sgd"] = "lbfgs"
    memory: dict[Any, Any] = field(default_factory=dict)

    @property
    def parts(self) -> dict[str, slice]:
        """Columns of each part."""
        return self.extractor.parts

    def subset(self, name: str) -> LabelledPhotos:
        """One of ``SUBSETS``."""
        return SUBSETS[name](self.splits, self.profile)

    def parts_and_slice(self) -> Mapping[str, Columns]:
        """The parts, and as many random columns of the invariant one as the equivariant one has.

        Of two parts the wider one knows more; only equally wide ones can be compared.

        Returns:
            Columns of each part; ``invariant_slice`` is drawn by the seed.
        """
        found: dict[str, Columns] = dict(self.parts)
        if "equivariant" in self.parts:
            invariant, equivariant = self.parts["invariant"], self.parts["equivariant"]
            width = min(equivariant.stop - equivariant.start, invariant.stop - invariant.start)
            random = np.random.default_rng([self.seed, width])
            every = np.arange(invariant.start, invariant.stop)
            found[SLICE] = np.sort(random.choice(every, width, replace=False))
        return found

    def train(self, perturbation: Perturbation, label: str = "") -> NDArray[np.float32]:
        """Features of the training photos, float32 (N, d); fixed seed, so that seeds share them."""
        return self.of(self.splits.train, perturbation, label or "train", seed=0)

    def validation(self, perturbation: Perturbation, label: str = "") -> NDArray[np.float32]:
        """Features of the validation photos, float32 (N, d), perturbed by the seed."""
        return self.of(self.splits.validation, perturbation, label or "validation", seed=self.seed)

    def of(
        self,
        photos: LabelledPhotos,
        perturbation: Perturbation,
        label: str,
        *,
        seed: int,
        view: int = 0,
    ) -> NDArray[np.float32]:
        """Features of some photos, float32 (N, d)."""
        text = f"{self.label} {label}"
        return self.store.features(
            self.extractor, photos, perturbation, seed=seed, view=view, label=text
        )

    def once(self, key: tuple[Any, ...], make: Callable[[], _T]) -> _T:
        """Make something that protocols and seeds share, such as a fit without chance.

        Args:
            key: All that it depends on, besides the model's weights and the photos.
            make: Makes it.

        Returns:
            It, or what was made under this key before.
        """
        whole = (self.extractor.identity, self.splits.train.subset_id(), *key)
        if whole not in self.memory:
            self.memory[whole] = make()
        made: _T = self.memory[whole]
        return made

    def progress(self, label: str) -> Callable[[int, int], None]:
        """What a fit reports its steps to: done and in all."""
        return lambda done, total: self.store.report(f"{self.label} {label}", done, total)


# The smaller subsets that protocols use, by the names that evaluation.json has for their sizes.
SUBSETS: Mapping[str, Callable[[Splits, Profile], LabelledPhotos]] = MappingProxyType(
    {
        "sweep_photos": lambda splits, profile: splits.validation.stratified(profile.sweep),
        "pairs": lambda splits, profile: splits.train.stratified(profile.pairs),
    }
)


class Protocol(NamedTuple):
    """A way to measure.

    Attributes:
        run: Measures one model with one seed.
        settings: What evaluation.json says about it.
        headline: The metrics that tables show.
        unit: Of the headline metrics.
        shown: The conditions that tables show; all of them when None.
        subsets: Names in ``SUBSETS`` of the smaller subsets that it uses; their sizes go into
            evaluation.json.
    """

    run: Callable[[Context], Figures]
    settings: dict[str, Any]
    headline: tuple[str, ...]
    unit: Literal["%", ""] = ""
    shown: tuple[str, ...] | None = None
    subsets: tuple[str, ...] = ()


def rows_of(part: LabelledPhotos, whole: LabelledPhotos) -> NDArray[np.int64]:
    """Where the photos of a subset are in a larger one of the same data.

    Args:
        part: The subset.
        whole: What it was taken from.

    Returns:
        int64 (len(part),), positions in ``whole``: features of the whole need not be computed
        again for the part.
    """
    rows = np.searchsorted(whole.indices, part.indices)
    assert np.array_equal(whole.indices[rows], part.indices)
    return rows.astype(np.int64)
