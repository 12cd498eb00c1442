"""What ``clever-hub info`` says of a model, in rows of a name and a text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clever_hub.backends.variants import VARIANT_KEY, Variant, check_graph_beside
from clever_hub.cli.console import file_size
from clever_hub.config import ModelConfig
from clever_hub.hub.evaluation import read_evaluation
from clever_hub.hub.origin import origin, stages
from clever_hub.hub.shipped import means
from clever_hub.hub.source import Source
from clever_hub.jobs.heads import HeadsConfig
from clever_hub.weights import WEIGHTS_NAME, Weights

BASELINES = {"random": "random weights", "pixels": "raw pixels"}
_CARD = "README.md"
# The figure that stands for a model: the first of these that was measured.
_KEY_FIGURES = {
    ("knn", "plain", "full", "top1"): "k-NN top-1",
    ("knn", "upright", "full", "top1"): "k-NN top-1 through a disc",
    ("linear", "plain", "full", "top1"): "linear probe top-1",
}
Row = tuple[str, str]


@dataclass(frozen=True)
class Described:
    """A model folder whose files were checked.

    Attributes:
        folder: The folder.
        source: Where the model was found.
        config: Its config.
        evaluation: Content of evaluation.json; empty where nothing was measured.
        variant: What kind of variant it is; None for a model that every reader loads.
        sha256: Hash of its weights.
        size: Their size in bytes.
        parameters: How many there are; None for a variant.
    """

    folder: Path
    source: Source
    config: ModelConfig
    evaluation: dict[str, Any]
    variant: Variant | None
    sha256: str
    size: int
    parameters: int | None


def describe(folder: Path, source: Source) -> Described:
    """Read and check a model folder.

    Args:
        folder: The folder.
        source: Where it was found; it is told the hash of the weights.

    Returns:
        What ``info`` shows.

    Raises:
        ModelFormatError: When a file is damaged, or another than the others name.
    """
    config = ModelConfig.load(folder)
    variant = Variant.of(config)
    parameters = None
    if variant is None:
        with Weights(folder / WEIGHTS_NAME) as weights:
            sha256, size, parameters = weights.sha256(), weights.size, weights.parameters
        check_graph_beside(folder, sha256)
    else:
        sha256 = variant.check(folder)
        size = variant.weights_file(folder).stat().st_size
    source.verified(sha256)
    evaluation = read_evaluation(folder) or {}
    return Described(folder, source, config, evaluation, variant, sha256, size, parameters)


def main_rows(model: Described) -> Iterator[Row]:
    """What one wants to know first, in twelve rows; a variant has one more.

    Args:
        model: The model.

    Yields:
        Name and text.
    """
    config = model.config
    size = config.preprocessing.crop_size
    millions = "" if model.parameters is None else f", {model.parameters / 1e6:.1f} M parameters"
    kind = "an invariant and an equivariant part" if config.equivariant_dim else "one part"
    yield "name", config.name
    yield "is", f"image embedding with {kind}"
    yield "backbone", f"{config.architecture} {config.model_args or ''}".rstrip() + millions
    yield "input", f"{size} × {size} pixels"
    yield (
        "embedding",
        (
            f"{config.num_features} = {config.invariant_dim} invariant + "
            f"{config.equivariant_dim} equivariant"
        ),
    )
    yield "how", origin(config)
    yield "data", _data(config.provenance)
    heads = HeadsConfig.of(config)
    yield "heads", heads.in_words() if heads else "none; clever-hub heads fits them"
    yield "projection", _projection(config)
    yield "measured", _key_figure(model.evaluation)
    yield "files", f"{file_size(model.size)} of weights, {config.license}, in {model.folder}"
    card = model.folder / _CARD
    yield "card", str(card) if card.is_file() else "none; clever-hub export writes it"
    if model.variant:
        yield "variant", f'{model.variant.precision}, for ONNX Runtime alone: backend="onnx"'


def more_rows(model: Described) -> Iterator[Row]:
    """Everything else but the figures: hashes, every stage, calibration, fidelity.

    Args:
        model: The model.

    Yields:
        Name and text.
    """
    config, preprocessing = model.config, model.config.preprocessing
    yield "weights sha256", model.sha256
    if model.source.revision:
        yield "commit", f"{model.source.revision} of {model.source.name}"
    yield (
        "images",
        (
            f"shortest side to {preprocessing.resize_size} px ({preprocessing.interpolation}), "
            f"centre crop {preprocessing.crop_size} px"
        ),
    )
    yield from _flat("data terms", config.data_terms)
    for number, stage in enumerate(stages(config), 1):
        yield f"stage {number}", stage
    # The stages have said what "start" and the recipe nest.
    told = ("recipe", "start")
    yield from _flat("trained", {k: v for k, v in config.provenance.items() if k not in told})
    if config.provenance.get("recipe"):
        yield "recipe", "clever-hub info MODEL --recipe prints it"
    if heads := HeadsConfig.of(config):
        yield (
            "heads",
            f"fitted to {heads.photos:,} photos of {heads.data}, turned by ±{heads.rotation:g}°",
        )
        found = heads.calibration
        yield "calibration", f"{found.photos:,} photos of {found.data}" if found else "none"
        yield from _flat("calibration", found.measured if found else {})
    if model.variant:
        yield from _variant_rows(model.variant, config)


def _variant_rows(variant: Variant, config: ModelConfig) -> Iterator[Row]:
    yield "variant input", variant.describe_input(config.preprocessing.crop_size)
    entry = config.extra[VARIANT_KEY]
    origin_ = mapping(entry.get("of"))
    yield "made from", f"{origin_.get('name', config.name)} {origin_.get('weights_sha256', '')}"
    yield from _flat("calibration images", entry.get("calibration_images"))
    # Measured on held-out photos against the model that the variant was made from.
    yield from _flat("fidelity", mapping(entry.get("fidelity")))


def _data(provenance: Mapping[str, Any]) -> str:
    data, photos = str(provenance.get("data") or "not recorded"), provenance.get("photos")
    counted = f"{photos:,} photos" if isinstance(photos, int) else ""
    return data if not counted or counted.partition(" ")[0] in data else f"{counted}: {data}"


def _projection(config: ModelConfig) -> str:
    if not config.projection:
        return "none"
    photos = mapping(mapping(config.provenance.get("split")).get("photos")).get("fitted")
    if photos is None:
        return "a linear map after the pooled features"
    return f"orthogonal, fitted to {photos} photos of {config.provenance.get('data')}"


def _key_figure(evaluation: Mapping[str, Any]) -> str:
    own = means(mapping(evaluation.get("figures")))
    place = next((place for place in _KEY_FIGURES if place in own), None)
    if place is None:
        return "nothing" if not own else f"{len(own)} figures: --all"
    others = [
        f"{BASELINES.get(name, name)} {found[place]:.1f} %"
        for name, baseline in mapping(evaluation.get("baselines")).items()
        if place in (found := means(mapping(mapping(baseline).get("figures"))))
    ]
    beside = f" ({', '.join(others)})" if others else ""
    return f"{_KEY_FIGURES[place]} {own[place]:.1f} %{beside}; {len(own)} figures in all"


def _flat(key: str, value: Any) -> Iterator[Row]:
    """One row for each value, nested objects named by their path; empty values are left out."""
    if isinstance(value, Mapping):
        for name, entry in value.items():
            yield from _flat(f"{key} · {name}", entry)
    elif value not in (None, "", []):
        yield key, f"{value:.4g}" if isinstance(value, float) else str(value)


def mapping(value: object) -> Mapping[str, Any]:
    """The value if it is an object, else an empty one: the files are a stranger's.

    Args:
        value: An entry of config.json or evaluation.json.
    """
    return value if isinstance(value, Mapping) else {}
