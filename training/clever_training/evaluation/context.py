"""The context of a protocol: a model, photos, a seed, and how much to measure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from clever_training.data.labelled import LabelledPhotos
from clever_training.evaluation.data import Splits
from clever_training.evaluation.features import FeatureStore
from clever_training.evaluation.kept import Piece
from clever_training.evaluation.models import FeatureExtractor
from clever_training.evaluation.perturbations import Perturbation
from clever_training.evaluation.results import Figures

Columns: TypeAlias = slice | NDArray[np.int64]
SLICE = "invariant_slice"
_T = TypeVar("_T")


@dataclass(frozen=True)
class Profile:
    """How much to measure.

    Attributes:
        name: Name in evaluation.json.
        train: Photos to fit on; None for all.
        validation: Photos to measure on; None for all.
        seeds: Default number of seeds.
        random_models: Whether every seed is compared with a random initialisation of its own.
            Otherwise all seeds share one, and its features are computed once.
        sweep: Validation photos that are transformed at every strength, and on which predicted
            transformations are checked; None for all.
        pairs: Training photos from which transformations are learnt; None for all.
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
    """Everything that a protocol needs to measure a model with one seed.

    Attributes:
        extractor: The model.
        splits: The photos, already reduced to the profile.
        store: Computes and caches features.
        profile: How much to measure.
        seed: Seed of everything random.
        label: Names the model in the progress report.
        probe: How linear probes are fitted: ``lbfgs`` or ``sgd``.
        memory: Results of ``once``, shared by the seeds of one model.
        every_train: The training photos before the profile reduced them; None: those of ``splits``.
    """

    extractor: FeatureExtractor
    splits: Splits
    store: FeatureStore
    profile: Profile
    seed: int
    label: str = ""
    probe: Literal["lbfgs", "sgd"] = "lbfgs"
    memory: dict[Any, Any] = field(default_factory=dict)
    every_train: LabelledPhotos | None = None

    @property
    def parts(self) -> dict[str, slice]:
        """Columns of each part."""
        return self.extractor.parts

    def subset(self, name: str) -> LabelledPhotos:
        """One of ``SUBSETS``."""
        return SUBSETS[name](self.splits, self.profile)

    def parts_and_slice(self) -> Mapping[str, Columns]:
        """The parts, and a random slice of the invariant part as wide as the equivariant part.

        A wider part contains more information; the slice allows a comparison at equal width.

        Returns:
            Columns of each part; the seed draws ``invariant_slice``.
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
        """Features of the training photos, float32 (N, d); all seeds share them."""
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
        """Compute something once that protocols and seeds share, such as a deterministic fit.

        Args:
            key: Everything that it depends on besides the model's weights and the photos.
            make: Computes it.

        Returns:
            The result, or the earlier result of the same key.
        """
        whole = (self.extractor.identity, self.splits.train.subset_id(), *key)
        if whole not in self.memory:
            self.memory[whole] = make()
        made: _T = self.memory[whole]
        return made

    def kept(self, name: str, measure: Callable[[], _T]) -> _T:
        """Figures of this seed from an evaluation that was stopped, or measured now and kept."""
        return self.timed(name, measure).value

    def timed(self, name: str, measure: Callable[[], _T]) -> Piece[_T]:
        """The same, with the seconds that the measurement took."""
        depends_on = f"{name} {self.depends_on()} {self.profile} {self.seed}"
        return self.store.pieces.piece(depends_on, measure)

    def depends_on(self) -> str:
        """Model, photos with their classes, and kind of probe: what every figure depends on."""
        text = f"{self.extractor.identity} {self.parts} {self.probe}"
        for photos in self.splits:
            labels = hashlib.sha256(photos.labels.tobytes()).hexdigest()
            text += f" {photos.subset_id()} {labels} {photos.classes}"
        return text

    def progress(self, label: str) -> Callable[[int, int], None]:
        """A function to which a fit reports its steps: steps done, steps in all."""
        return lambda done, total: self.store.report(f"{self.label} {label}", done, total)


# The smaller subsets that protocols use, by the keys that hold their sizes in evaluation.json.
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
        settings: The description in evaluation.json.
        headline: The metrics that tables show.
        unit: Unit of the headline metrics.
        shown: The conditions that tables show; all of them when None.
        subsets: Names in ``SUBSETS`` of the smaller subsets that it uses; their sizes go into
            evaluation.json.
        fewest: The fewest training and validation photos that it can measure on.
    """

    run: Callable[[Context], Figures]
    settings: dict[str, Any]
    headline: tuple[str, ...]
    unit: Literal["%", ""] = ""
    shown: tuple[str, ...] | None = None
    subsets: tuple[str, ...] = ()
    fewest: tuple[int, int] = (1, 1)

    @property
    def classifies(self) -> bool:
        """Whether its figure is the accuracy of telling the photos' classes."""
        return self.unit == "%" and "top1" in self.headline


def rows_of(part: LabelledPhotos, whole: LabelledPhotos) -> NDArray[np.int64]:
    """Positions of a subset's photos in a larger subset of the same data.

    With them, features of the larger subset can be reused for the smaller one.

    Args:
        part: The smaller subset.
        whole: The larger subset.

    Returns:
        int64 (len(part),), positions in ``whole``.
    """
    rows = np.searchsorted(whole.indices, part.indices)
    assert np.array_equal(whole.indices[rows], part.indices)
    return rows.astype(np.int64)
