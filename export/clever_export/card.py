"""The model card: generated from config.json and evaluation.json, the same bytes every time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from clever_export.card_evaluation import own_evaluation
from clever_export.card_picture import PICTURE_NAME, draw_figures, has_picture
from clever_export.card_tables import SHOWN, angle_claim, mean, table
from clever_export.card_text import (
    CITATION,
    CUT,
    ONE_SEED,
    READING,
    SNIPPETS,
    SPREAD,
    WITH_HEADS,
    WITHOUT_HEADS,
    what_it_is,
)
from clever_export.places import portable, public_photos
from clever_hub.backends.own import OWN_BACKBONES
from clever_hub.config import ModelConfig
from clever_hub.files import write_text
from clever_hub.hub.origin import labels_of, origin, without_labels
from clever_hub.hub.shipped import ZOO, model_names
from clever_hub.jobs.heads import HeadsConfig
from clever_hub.weights import WEIGHTS_NAME, Weights, sha256_of

CARD_NAME = "README.md"
_MANY_PHOTOS = 1_000_000
_INDEXED = "k-NN top-1 (k 20), full embedding, upright"  # in the model index of the front matter


def write_card(folder: str | Path, by_name: bool = False) -> Path:
    """Write README.md, and figures.png where there are figures, into a model folder.

    Args:
        folder: A model folder; its evaluation.json is used if it has one.
        by_name: As for ``make_card``.

    Returns:
        The path of README.md.

    Raises:
        ModelFormatError: When config.json or evaluation.json cannot be read, or the figures are
            of other weights than the folder's, or of another embedding.

    Example:
        >>> write_card("runs/mine/model")  # doctest: +SKIP
    """
    folder = Path(folder)
    evaluation = own_evaluation(folder)
    if evaluation is not None and has_picture(evaluation):
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
        tags=_tags(config),
        datasets=config.provenance.get("dataset_ids"),
        model_name=config.name,
        eval_results=list(_results(evaluation)) or None,
    )
    imported = "imported" in config.provenance
    sections = [
        f"# {config.name}",
        what_it_is(
            config.provenance,
            config.invariant_dim,
            config.equivariant_dim,
            projection=config.projection,
        ),
        _facts(folder, config, repo_id or (config.name if by_name else "FOLDER"), by_name),
        _measured(evaluation, repo_id or config.name),
        _usage(folder, config, repo_id, by_name),
        _limits(config, evaluation),
        f"## Licence\n{_licence(config)}",
        "" if imported else f"## Citation\n{CITATION}",
    ]
    content = "\n\n".join(section.strip() for section in sections if section)
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n{content}\n"))


def is_generated(folder: str | Path, text: str) -> bool:
    """Whether a card is as ``make_card`` writes it before there is a repository, not edited.

    Args:
        folder: The model folder.
        text: The card.

    Raises:
        ModelFormatError: As ``write_card``.
    """
    return text in (make_card(folder), make_card(folder, by_name=True))


def _tags(config: ModelConfig) -> list[str]:
    """What the Hub cannot see by itself: it finds safetensors, onnx and remote code."""
    tags = ["clever", "image-embeddings", "timm", config.architecture]
    if "imported" in config.provenance:
        return tags
    learned = ["self-supervised"] if without_labels(config) else []
    return [*tags, *(["equivariance"] if config.equivariant_dim else []), *learned]


def _results(evaluation: Mapping[str, Any] | None) -> Iterator[EvalResult]:
    """The entry for the model index; the card's table says more."""
    found = mean(evaluation or {"figures": {}}, "knn", "plain", "full", "top1")
    if evaluation is not None and found is not None and "knn" in evaluation["protocols"]:
        photos = evaluation["protocols"]["knn"]["data"]["validation"]
        yield EvalResult(
            task_type="image-feature-extraction",
            dataset_type="image-folder",
            dataset_name=public_photos(str(photos.get("name") or "unnamed")),
            dataset_split="validation",
            metric_type="accuracy",
            metric_name=_INDEXED,
            metric_value=round(found, 2),
        )


def _facts(folder: Path, config: ModelConfig, name: str, shipped: bool) -> str:
    """How it came about, and what it consists of."""
    provenance, side = config.provenance, config.preprocessing.crop_size
    hardware = f", on {provenance['hardware']}" if provenance.get("hardware") else ""
    photos = _photos_of(provenance)
    data = provenance.get("data") or "not recorded"
    counted = f"{photos:,} photos" if isinstance(photos, int) else ""
    if counted and f"{photos:,}" not in data:
        data = f"{counted}: {data}"
    facts = [
        f"**How it came about:** {origin(config)}{hardware}.",
        "",
        f"- **Backbone** timm's `{config.architecture}`{_size(folder)}; input {side} × {side} px",
        # Of a model that was split, nothing was trained.
        f"- **{'Fitted' if 'split' in provenance else 'Trained'} on** {data}",
        f"- **Heads** {_heads(config)}",
    ]
    if imported := provenance.get("imported"):
        keys = ("source", "file", "sha256", "layout")
        source, file, sha256, layout = (imported.get(key, "unknown") for key in keys)
        told = (
            f"- **Source** {source}, read from `{file}` (SHA-256 `{sha256}`), whose layout is that "
            f"of {layout}. Only the names of the tensors were changed."
        )
        facts.insert(-1, told)
    if provenance.get("recipe"):
        again = "clever-hub pretrain recipe.yaml --data PHOTOS --output again --set name=again"
        option, start = _begins_from(provenance, shipped)
        facts.append(
            f"- **Recipe** `clever-hub info {name} --recipe > recipe.yaml`, then "
            f"`{again}{option}`{start}"
        )
    return "\n".join(facts)


def _photos_of(provenance: Mapping[str, Any]) -> Any:
    """How many photos it was trained on; of a split, those that it was fitted to."""
    split = provenance.get("split")
    photos = split.get("photos") if isinstance(split, Mapping) else None
    fitted = photos.get("fitted") if isinstance(photos, Mapping) else None
    return fitted or provenance.get("photos")


def _size(folder: Path) -> str:
    """Parameters and megabytes, where the weights are there."""
    path = folder / WEIGHTS_NAME
    if not path.is_file():
        return ""
    with Weights(path) as weights:
        return f", {weights.parameters / 1e6:.1f} M parameters, {weights.size / 1e6:.1f} MB"


def _heads(config: ModelConfig) -> str:
    heads = HeadsConfig.of(config)
    if not config.equivariant_dim:
        return "none; they read an equivariant part, which `clever-hub split` makes"
    if heads is None:
        return "none; `clever-hub heads` fits those that `relate` and `orient` need"
    return heads.in_words()


def _begins_from(provenance: Mapping[str, Any], shipped: bool) -> tuple[str, str]:
    """An option for what a recipe begins from, which may have moved on since, and what that was."""
    start = provenance.get("start")
    if not isinstance(start, Mapping) or not start.get("weights_sha256"):
        return "", ""
    name, digest = str(start.get("name")), str(start["weights_sha256"])
    if name in model_names() and sha256_of(ZOO / name / WEIGHTS_NAME) == digest:
        return f" --set backbone.init={name}", ""
    return " --set backbone.init=START", (
        f". START is the folder of what it began from, which was `{name}` with the weights "
        f"{digest[:12]}…" + ("; that does not ship" if shipped else "")
    )


def _measured(evaluation: Mapping[str, Any] | None, name: str) -> str:
    if evaluation is None:
        return "## Measured\nNothing has been measured yet: `clever-hub evaluate` does it."
    seeds = max(
        (len(entry.get("seeds", ())) for entry in evaluation["protocols"].values()), default=0
    )
    spread = ONE_SEED if seeds == 1 else SPREAD.format(seeds=seeds or "the")
    picture = has_picture(evaluation)
    sections = [
        "## Measured" + f"\n![What each part knows, as bars]({PICTURE_NAME})" * picture,
        table(evaluation),
        f"{angle_claim(evaluation)} {READING.format(spread=spread)}".strip(),
        _commands(evaluation, name),
    ]
    return "\n\n".join(section for section in sections if section)


def _commands(evaluation: Mapping[str, Any], name: str) -> str:
    """The commands that reproduce the table and the picture, by the photos that they measure."""
    made: dict[str, set[str]] = {}
    for protocol, entry in evaluation["protocols"].items():
        if protocol in SHOWN:
            lines = made.setdefault(_photos(entry["data"]), set())
            lines.add(portable(entry["command"], name))
    blocks = [line for photos, lines in made.items() for line in (f"# {photos}", *sorted(lines))]
    return "\n".join(["```sh", *blocks, "```"]) if blocks else ""


def _photos(data: Mapping[str, Any]) -> str:
    """How many photos, or frames of videos, figures are from."""
    if videos := data.get("videos"):
        return f"{videos['frames']:,} frames of {videos['videos']} videos"
    train, validation = data["train"]["photos"], data["validation"]["photos"]
    return f"{train:,} training and {validation:,} validation photos"


def _usage(folder: Path, config: ModelConfig, repo_id: str | None, by_name: bool) -> str:
    name = repo_id or (config.name if by_name else "FOLDER")
    job = WITHOUT_HEADS if HeadsConfig.of(config) is None else WITH_HEADS
    places = {
        "name": name,
        "cut": CUT.format(split=config.invariant_dim) if config.equivariant_dim else "",
        "where": repo_id or "FOLDER",
        "timm": f"hf-hub:{repo_id}" if repo_id else "local-dir:FOLDER",
        # timm's classifier is the projection, where there is one.
        "timm_classes": "" if config.projection else ", num_classes=0",
        "job": job.format(name=name),
    }
    lines = []
    modules = OWN_BACKBONES.get(config.architecture)
    title_words = {
        "files": "six" if modules else "three",
        "place": "" if repo_id else "; `FOLDER` is the folder with this file",
    }
    for title, needs, language, code in SNIPPETS:
        if (folder / needs).is_file():
            lead = ""
            if modules and code.startswith("import timm\n"):
                lead = f"import clever_hub.backends.{modules[0]}  # timm does not have it\n"
            heading = title.format(**title_words)
            lines.append(f"{heading}\n```{language}\n{lead}{code.format(**places)}\n```")
    return "\n".join(["## Use", *lines])


def _limits(config: ModelConfig, evaluation: Mapping[str, Any] | None) -> str:
    lines = ["## Limits"]
    if "imported" in config.provenance:
        lines.append("- Biases of the photos that it was trained on are in the weights.")
    else:
        lines += _limits_of_training(config)
    if evaluation is None:
        lines.append("- No figure has been measured.")
    return "\n".join(lines)


def _licence(config: ModelConfig) -> str:
    terms = f" The photos have terms of their own. {config.data_terms}" if config.data_terms else ""
    return f"{config.license}, for the weights.{terms}"


def _limits_of_training(config: ModelConfig) -> Iterator[str]:
    """Only what the provenance tells: of photos that it does not count, nothing is said."""
    size, photos = config.preprocessing.crop_size, _photos_of(config.provenance)
    labels = labels_of(config)
    if isinstance(photos, int) and "split" in config.provenance:
        yield f"- The split was fitted to {photos:,} photos: expect less of it on other kinds."
    elif isinstance(photos, int) and photos < _MANY_PHOTOS:
        less = (
            "expect less of photos of other kinds"
            if labels  # then it knows more than these photos show
            else "a small model for study and for small tasks, no replacement for backbones "
            "trained on millions of photos"
        )
        here = " here" if labels else ""
        yield f"- Trained{here} on {photos:,} photos and made for {size} × {size} pixels: {less}."
    if config.equivariant_dim:
        yield "- Whether the equivariant part knows a pose is measured, not promised."
    if labels:
        yield f"- What {labels} favour is in the weights, as are biases of the photos."
    elif without_labels(config):
        yield "- Labels were not looked at; biases of the photos are in the weights."
    else:
        yield "- Biases of the photos that it was trained on are in the weights."
