"""Measuring a model and its baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from clever_hub.errors import ConfigError, DataError, suggest
from clever_hub.hub.evaluation import SCHEMA_VERSION
from clever_training.evaluation import results
from clever_training.evaluation.choices import PROBE_NAMES, check_choice
from clever_training.evaluation.context import SUBSETS
from clever_training.evaluation.data import Splits, check_classes
from clever_training.evaluation.features import FeatureStore
from clever_training.evaluation.models import FeatureExtractor, PixelFeatures, random_twin
from clever_training.evaluation.names import free_name
from clever_training.evaluation.protocols import PROTOCOLS, Context, Profile
from clever_training.evaluation.results import Figures

# Prefix of the labels that report the progress of the whole evaluation.
IN_ALL = "in all: "
# Weight of the first seed's steps in the progress; it computes what all seeds share.
FIRST_SEED = 4


@dataclass(frozen=True)
class Evaluation:
    """What to measure, and how.

    Attributes:
        splits: All photos.
        profile: How many of them are used.
        protocols: Names of the protocols.
        seeds: Seeds of perturbations, fits and random weights.
        store: Computes and caches features.
        command: The command line that repeats the evaluation, for evaluation.json.
        probe: How linear probes are fitted: ``lbfgs``, or ``sgd`` as published.

    Raises:
        ConfigError: When a protocol or the kind of probe is unknown, or there is no protocol or no
            seed.
    """

    splits: Splits
    profile: Profile
    protocols: Sequence[str]
    seeds: Sequence[int]
    store: FeatureStore = field(default_factory=FeatureStore)
    command: str = ""
    probe: Literal["lbfgs", "sgd"] = "lbfgs"

    def __post_init__(self) -> None:
        for name in self.protocols:
            if name not in PROTOCOLS:
                raise ConfigError(f"protocols: unknown {name!r}. {suggest(name, PROTOCOLS)}")
        if not self.protocols:
            raise ConfigError(f"protocols: expected some of {', '.join(PROTOCOLS)}, got none")
        if not self.seeds:
            raise ConfigError("seeds: expected one or more, such as [0, 1, 2], got none")
        check_choice("probe", self.probe, PROBE_NAMES)

    def run(
        self,
        extractor: FeatureExtractor,
        baselines: bool = True,
        beside: Sequence[FeatureExtractor] = (),
    ) -> dict[str, Any]:
        """Measure one model.

        Args:
            extractor: The model.
            baselines: Also measure its random twin and raw pixels.
            beside: Other models, measured in the same way as further baselines.

        Returns:
            The content of evaluation.json.

        Raises:
            DataError: When a photo cannot be read, there is but one class to tell, or there are too
                few photos for a protocol.
        """
        if any(PROTOCOLS[name].classifies for name in self.protocols):
            check_classes(self.splits)
        splits = Splits(
            self.splits.train.stratified(self.profile.train),
            self.splits.validation.stratified(self.profile.validation),
        )
        for name in self.protocols:
            _check_enough(name, splits)
        seed = None if self.profile.random_models else self.seeds[0]
        others = named_baselines(extractor, baselines, beside, seed)
        steps = self._steps(1 + len(others))
        figures, records = self._measure(lambda _: extractor, splits, steps)
        for name, record in records.items():
            for subset in PROTOCOLS[name].subsets:
                record["settings"][subset] = len(SUBSETS[subset](splits, self.profile))
            record["data"] = {"train": splits.train.describe()}
            record["data"]["validation"] = splits.validation.describe()
        measured_baselines = {}
        for name, make in others.items():
            measured, _ = self._measure(make, splits, steps)
            model = make(self.seeds[0]).describe()
            measured_baselines[name] = {"model": model, "figures": measured}
        return {
            "schema_version": SCHEMA_VERSION,
            "model": extractor.describe(),
            "figures": figures,
            "baselines": measured_baselines,
            "protocols": records,
        }

    def _steps(self, models: int) -> Callable[[str, int], None]:
        """A function that reports the overall progress: what was done, and its weight."""
        total = models * len(self.protocols) * (FIRST_SEED + len(self.seeds) - 1)
        done = 0

        def step(what: str, weight: int) -> None:
            nonlocal done
            done += weight
            self.store.report(IN_ALL + what, done, total)

        step("", 0)
        return step

    def _measure(
        self,
        make: Callable[[int], FeatureExtractor],
        splits: Splits,
        step: Callable[[str, int], None],
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """The figures of every protocol, and how each was made."""
        runs: dict[str, list[Figures]] = {name: [] for name in self.protocols}
        seconds = dict.fromkeys(self.protocols, 0.0)
        memory: dict[Any, Any] = {}
        for seed in self.seeds:
            extractor = make(seed)
            label = f"{extractor.name}, seed {seed},"
            context = Context(
                *(extractor, splits, self.store, self.profile, seed, label, self.probe, memory),
                every_train=self.splits.train,
            )
            for name in self.protocols:
                piece = context.timed(name, partial(PROTOCOLS[name].run, context))
                runs[name].append(piece.value)
                seconds[name] += piece.seconds
                step(f"{label} {name}", FIRST_SEED if seed == self.seeds[0] else 1)
        figures = {name: results.summarize(found) for name, found in runs.items()}
        return figures, {name: self._record(name, seconds[name]) for name in self.protocols}

    def _record(self, name: str, seconds: float) -> dict[str, Any]:
        return {
            "command": self.command,
            "profile": self.profile.name,
            "seeds": list(self.seeds),
            "settings": self._settings(name),
            "created": results.now(),
            "seconds": round(seconds, 1),
            "environment": results.environment(),
        }

    def _settings(self, name: str) -> dict[str, Any]:
        """The protocol's settings, with the kind of probe if it fits one."""
        settings = dict(PROTOCOLS[name].settings)
        if self.probe in settings:
            settings["probe"] = self.probe
        return settings


def _check_enough(protocol: str, splits: Splits) -> None:
    """Refuse fewer photos than a protocol can measure on, before the work."""
    for photos, fewest in zip(splits, PROTOCOLS[protocol].fewest, strict=True):
        if len(photos) < fewest:
            raise DataError(
                f"{photos.name}: expected {fewest} photos or more to measure {protocol}, "
                f"got {len(photos)}"
            )


def named_baselines(
    extractor: FeatureExtractor,
    baselines: bool,
    beside: Sequence[FeatureExtractor],
    seed: int | None = 0,
) -> dict[str, Callable[[int], FeatureExtractor]]:
    """What is measured next to a model.

    Args:
        extractor: The model.
        baselines: Whether raw pixels, and the random twin of a model that has weights, are.
        beside: Other models.
        seed: Seed of the random twin; None makes another twin for every seed.

    Returns:
        By name, each made from a seed.
    """
    found: dict[str, Callable[[int], FeatureExtractor]] = {}
    if baselines and random_twin(extractor, 0) is not None:
        found["random"] = lambda own: _twin(extractor, own if seed is None else seed)
    if baselines and not isinstance(extractor, PixelFeatures):
        pixels = PixelFeatures(extractor.preprocessing)
        found["pixels"] = lambda _: pixels
    return {**found, **_named(beside, extractor)}


def _named(
    beside: Sequence[FeatureExtractor], extractor: FeatureExtractor
) -> dict[str, Callable[[int], FeatureExtractor]]:
    """The other models by unique names, which differ from those of model and baselines."""
    found: dict[str, Callable[[int], FeatureExtractor]] = {}
    for one in beside:
        name = free_name(one.name, {"random", "pixels", extractor.name, *found})
        found[name] = lambda _, one=one: one  # type: ignore[misc]
    return found


def _twin(extractor: FeatureExtractor, seed: int) -> FeatureExtractor:
    twin = random_twin(extractor, seed)
    assert twin is not None
    return twin
