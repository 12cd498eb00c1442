"""The model card: generated from config.json and evaluation.json, the same bytes every time."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from clever_export.card_tables import CONDITIONS, claims, mean, tables
from clever_export.card_text import (
    AGAIN,
    AGAIN_FROM,
    CITATION,
    READING,
    SNIPPETS,
    earlier_training,
    imported_text,
    method_name,
    method_text,
    recipe_line,
    started_from,
)
from clever_hub.backends.own import OWN_BACKBONES
from clever_hub.config import CONFIG_NAME, ModelConfig
from clever_hub.errors import ModelFormatError
from clever_hub.files import write_text
from clever_hub.hub.evaluation import EVALUATION_NAME, check_evaluation, read_evaluation
from clever_hub.weights import WEIGHTS_NAME, sha256_of

CARD_NAME = "README.md"
PICTURE_NAME = "figures.png"
_MANY_PHOTOS = 1_000_000
# The protocols in the model index, with the name of their metric.
_INDEXED = {"knn": "k-NN top-1 (k 20)", "linear": "linear probe top-1"}


def write_card(folder: str | Path, by_name: bool = False) -> Path:
    """Write README.md, and figures.png where there are figures, into a model folder.

    Args:
        folder: A model folder; its evaluation.json is used if it has one.
        by_name: As for ``make_card``.

    Returns:
        The path of README.md.

    Raises:
        ModelFormatError: When config.json or evaluation.json cannot be read, or the figures are
            of other weights than the folder's, or were measured at another image size.

    Example:
        >>> write_card("runs/mine/model")  # doctest: +SKIP
    """
    from clever_export.card_picture import draw_figures

    folder = Path(folder)
    evaluation = own_evaluation(folder)
    if evaluation is not None:
        draw_figures(evaluation, folder / PICTURE_NAME)
    return write_text(folder / CARD_NAME, make_card(folder, by_name=by_name))


def make_card(folder: str | Path, repo_id: str | None = None, *, by_name: bool = False) -> str:
    """The text of the card, front matter included.

    Args:
        folder: A model folder.
        repo_id: The repository it is published to; the snippets then load it from there.
        by_name: The model ships with clever-hub, and its snippets load it by its name. Those of any
            other model load the folder.

    Returns:
        Markdown. The same inputs give the same bytes.

    Raises:
        ModelFormatError: As ``write_card``.
    """
    folder = Path(folder)
    config = ModelConfig.load(folder)
    evaluation = own_evaluation(folder)
    data = ModelCardData(
        license=config.license,
        library_name="clever-hub",
        pipeline_tag="image-feature-extraction",
        tags=_tags(folder, config),
        datasets=config.provenance.get("dataset_ids"),
        model_name=config.name,
        eval_results=list(_results(config, evaluation)) or None,
    )
    imported = "imported" in config.provenance
    sections = [
        f"# {config.name}",
        _summary(config),
        _what_it_is(config),
        _measured(evaluation, repo_id or config.name),
        _usage(folder, config, repo_id, by_name),
        _training(config, repo_id),
        _limits(config, evaluation),
        "" if imported else f"## Citation\n\n{CITATION}",
    ]
    content = "\n\n".join(section.strip() for section in sections if section)
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{content}\n"))


def own_evaluation(folder: Path) -> dict[str, Any] | None:
    """The folder's evaluation.json, checked to be about this model; None where there is none.

    Args:
        folder: A model folder.

    Returns:
        Its content.

    Raises:
        ModelFormatError: When it is no JSON of the schema that ``clever-hub evaluate`` writes,
            about other weights than the folder's, or made with ``--image-size``.
    """
    path = folder / EVALUATION_NAME
    content = read_evaluation(path)
    if content is None:
        return None
    check_evaluation(content, path)
    weights, measured = (content["model"].get(key) for key in ("weights_sha256", "input_size"))
    if weights and (folder / WEIGHTS_NAME).is_file():
        _check_weights(path, weights, sha256_of(folder / WEIGHTS_NAME))
    size = ModelConfig.load(folder).preprocessing.crop_size
    if measured not in (None, size):
        raise ModelFormatError(
            f"{path}: figures of photos of {measured} pixels, the model's own size is {size}. "
            "Remove it, or measure again without --image-size"
        )
    return content


def _check_weights(path: Path, measured: str, found: str) -> None:
    if measured != found:
        raise ModelFormatError(
            f"{path}: figures of other weights (SHA-256 {measured}, the folder's has {found}). "
            "Remove it, or measure again with clever-hub evaluate"
        )


def _tags(folder: Path, config: ModelConfig) -> list[str]:
    optional = {"model.onnx": "onnx", "modeling_clever.py": "custom_code"}
    extra = [tag for name, tag in optional.items() if (folder / name).is_file()]
    base = ["clever", "self-supervised", "equivariance", "image-embeddings", "safetensors", "timm"]
    if "imported" in config.provenance:
        base = [tag for tag in base if tag not in {"self-supervised", "equivariance"}]
    return [*base, *extra, config.architecture]


def _results(config: ModelConfig, evaluation: Mapping[str, Any] | None) -> Iterator[EvalResult]:
    """One entry of the model index for each accuracy of the full embedding and its parts."""
    places = itertools.product(_INDEXED, CONDITIONS, ("full", "invariant", "equivariant"))
    for protocol, condition, part in places if evaluation else ():
        found = mean(evaluation or {}, protocol, condition, part, "top1")
        if found is not None:
            yield EvalResult(
                task_type="image-feature-extraction",
                dataset_type="image-folder",
                dataset_name=config.provenance.get("data") or "unnamed",
                dataset_split="validation",
                metric_type="accuracy",
                metric_name=f"{_INDEXED[protocol]}, {part}, {CONDITIONS[condition]}",
                metric_value=round(found, 2),
            )


def _summary(config: ModelConfig) -> str:
    provenance = config.provenance
    facts = [
        (
            f"- **Backbone** {config.architecture} (timm), {config.num_features} dimensions: "
            f"{config.invariant_dim} invariant, then {config.equivariant_dim} equivariant"
        ),
        f"- **Input** {config.preprocessing.crop_size} × {config.preprocessing.crop_size} pixels",
        f"- **Method** {method_name(provenance.get('method', 'not recorded'))}",
        f"- **Data** {provenance.get('data') or 'not recorded'}. {config.data_terms}".strip(),
    ]
    if "epochs" in provenance:
        hardware = provenance.get("hardware")
        hours = provenance.get("hours", 0)
        facts.append(
            f"- **Training** {provenance['epochs']:g} epochs, {hours:.3g} hours"
            + (f" on {hardware}" if hardware else "")
        )
    if start := started_from(provenance):
        facts.append(f"- **Started from** {start}: its training comes on top of the above")
        facts[-1] += earlier_training(provenance.get("start"))
    if "imported" in provenance:
        kept = [fact for fact in facts if not fact.startswith("- **Method**")]
        return "An image backbone whose weights were published elsewhere.\n\n" + "\n".join(kept)
    intro = (
        "An image backbone pre-trained without labels whose embedding has two parts: an "
        "*invariant* one, to stay the same when the photo is turned, cropped or recoloured, and an "
        "*equivariant* one, free to change with it. How far they do is measured below."
    )
    return intro + "\n\n" + "\n".join(facts)


def _what_it_is(config: ModelConfig) -> str:
    parts = config.invariant_dim, config.equivariant_dim
    if imported := config.provenance.get("imported"):
        return imported_text(imported, *parts)
    method = str(config.provenance.get("method", ""))
    return method_text(method, *parts, (config.provenance.get("recipe") or {}).get("method"))


def _measured(evaluation: Mapping[str, Any] | None, name: str) -> str:
    if evaluation is None:
        return "## Measured\n\nNothing has been measured yet: `clever-hub evaluate` does it."
    said = "\n".join(f"- {claim}" for claim in claims(evaluation))
    picture = f"![The figures below as bars]({PICTURE_NAME})"
    seeds = max(
        (len(entry.get("seeds", ())) for entry in evaluation["protocols"].values()), default=0
    )
    reading = READING.format(seeds=seeds or "the")
    sections = [
        "## Measured",
        said,
        picture,
        reading,
        *tables(evaluation),
        _commands(evaluation, name),
    ]
    return "\n\n".join(section for section in sections if section)


def _commands(evaluation: Mapping[str, Any], name: str) -> str:
    """The commands that reproduce the figures, each once."""
    made = {
        f"# {_photos(entry['data'])}\n{_portable(entry['command'], name)}"
        for entry in evaluation["protocols"].values()
    }
    return (
        "To measure again, with the labelled photos in a folder of the name after `--data`, and "
        '`pip install "clever-hub[train]"`:\n\n```sh\n' + "\n".join(sorted(made)) + "\n```\n\n"
        "All figures, with seeds, settings, versions and fingerprints of the data, are in "
        f"`{EVALUATION_NAME}`."
    )


def _photos(data: Mapping[str, Any]) -> str:
    """How many photos, or frames of videos, figures are from."""
    if videos := data.get("videos"):
        return f"{videos['frames']:,} frames of {videos['videos']} videos"
    train, validation = data["train"]["photos"], data["validation"]["photos"]
    return f"{train:,} training and {validation:,} validation photos"


def _portable(command: str, name: str) -> str:
    """A command without the paths of the machine that it ran on: only their last component."""
    words = shlex.split(command)
    if words[1:2] == ["evaluate"] and words[2:] and not words[2].startswith("-"):
        words[2] = name
    local = re.compile(r"(\.{0,2}|~)/")
    return shlex.join(
        ",".join(Path(part).name if local.match(part) else part for part in word.split(","))
        for word in words
    )


def _usage(folder: Path, config: ModelConfig, repo_id: str | None, by_name: bool) -> str:
    places = {
        "name": repo_id or (config.name if by_name else "FOLDER"),
        "split": config.invariant_dim,
        "where": repo_id or "FOLDER",
        "timm": f"hf-hub:{repo_id}" if repo_id else "local-dir:FOLDER",
        # timm's classifier is the projection, where there is one.
        "timm_classes": "" if config.projection else ", num_classes=0",
    }
    lines = ["## Use"]
    if repo_id is None:
        lines.append("`FOLDER` is the folder with this file.")
    modules = OWN_BACKBONES.get(config.architecture)
    title_words = {"files": "six" if modules else "three"}
    for title, needs, code in SNIPPETS:
        if (folder / needs).is_file():
            lead = ""
            if modules and code.startswith("import timm\n"):
                lead = f"import clever_hub.backends.{modules[0]}  # timm does not have it\n"
            heading = title.format(**title_words)
            lines.append(f"{heading}\n\n```python\n{lead}{code.format(**places)}\n```")
    return "\n\n".join(lines)


def _training(config: ModelConfig, repo_id: str | None) -> str:
    if config.provenance.get("recipe") is None:
        return ""
    fetch = f"hf download {repo_id} {CONFIG_NAME} --local-dir .\n" if repo_id else ""
    again = AGAIN.format(fetch=fetch)
    start, name = config.provenance.get("start"), started_from(config.provenance)
    sha256 = start.get("weights_sha256") if isinstance(start, Mapping) else None
    if name and sha256:  # a model of ours, unlike timm's
        again += AGAIN_FROM.format(start=name, sha256=sha256[:12])
    return f"## Training\n\n{recipe_line(config.provenance)}\n\n{again}"


def _limits(config: ModelConfig, evaluation: Mapping[str, Any] | None) -> str:
    lines = ["## Limits", ""]
    if "imported" in config.provenance:
        lines.append("- Biases of the photos that it was trained on are in the weights.")
    else:
        lines += _limits_of_training(config)
    if config.data_terms:
        lines.append(
            f"- The licence, {config.license}, is that of the weights; the photos have terms of "
            f"their own. {config.data_terms}"
        )
    if evaluation is None:
        lines.append("- No figure has been measured.")
    return "\n".join(lines)


def _limits_of_training(config: ModelConfig) -> Iterator[str]:
    size, photos = config.preprocessing.crop_size, config.provenance.get("photos")
    if not isinstance(photos, int) or photos < _MANY_PHOTOS:
        count = f"{photos:,} photos" if isinstance(photos, int) else "a small set of photos"
        yield (
            f"- Trained on {count} and made for {size} × {size} pixels: a small model for study "
            "and for small tasks, no replacement for backbones trained on millions of photos."
        )
    yield (
        "- CLeVER's loss does not force the equivariant part to be predictable: whether it "
        "knows a pose is measured, not promised."
    )
    yield "- Labels and people were not looked at; biases of the photos are in the weights."
