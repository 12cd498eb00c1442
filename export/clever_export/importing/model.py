"""A published checkpoint becomes a model folder."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from timm.data.config import resolve_data_config
from torch import Tensor

from clever_export.card import write_card
from clever_export.importing.checkpoint import Checkpoint, read_checkpoint
from clever_export.importing.layouts import Found, find_backbone
from clever_export.importing.names import to_timm
from clever_export.package import new_folder
from clever_hub import __version__
from clever_hub.backends.timm import (
    BackboneError,
    build_backbone,
    embedding_length,
    other_crop,
    trained_pooling,
)
from clever_hub.backends.torch import CleverModel, expected_shapes
from clever_hub.config import IMAGENET_MEAN, IMAGENET_STD, ModelConfig, PreprocessingConfig
from clever_hub.errors import ConfigError, ModelFormatError
from clever_hub.weights import check_shapes, sha256_of

# CLeVER's own checkpoints are split where the paper splits.
_CLEVER_RATIO = 0.8
# No tensor's shape tells the heads: MoCo v3's ViT-S has 12, timm's 6
# (https://github.com/facebookresearch/moco-v3/blob/main/vits.py).
_MOCO_V3_SMALL = ("vit_small_", "deit_small_")
_MOCO_V3_HEADS = 12
_CHANNELS = 3


@dataclass(frozen=True)
class Origin:
    """Whose weights they are; all of it stands in config and card.

    Attributes:
        license: SPDX identifier of the licence of the weights.
        source: Where they come from: an address, or words.
        data: What they were trained on.
        data_terms: Terms of that data, in a sentence.
    """

    license: str
    source: str
    data: str = ""
    data_terms: str = ""

    def __post_init__(self) -> None:
        for key in ("license", "source"):
            if not getattr(self, key).strip():
                raise ConfigError(
                    f"--{key}: expected the weights' {key}, got nothing. Users of the model must "
                    "know it. If it is not known, pass 'unknown'"
                )


@dataclass(frozen=True)
class ImportOptions:
    """What may be said of a checkpoint; what is None is told from it or from timm.

    Attributes:
        entry: Which of the file's entries, such as ``"student"``.
        ignore: Regular expressions of tensors that are no part of the backbone.
        model_args: Arguments for ``timm.create_model``.
        name: The model's name.
        split_ratio: Share of the invariant part; None is the whole embedding, of CLeVER's 0.8.
        size: Side of the centre crop, in pixels.
        resize_size: Length of the shortest side before it.
        interpolation: Of the resizing.
        mean: Of each channel, for pixels in [0, 1].
        std: Of each channel.
    """

    entry: str | None = None
    ignore: tuple[str, ...] = ()
    model_args: dict[str, Any] = field(default_factory=dict)
    name: str | None = None
    split_ratio: float | None = None
    size: int | None = None
    resize_size: int | None = None
    interpolation: str | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Imported:
    """What was made of a checkpoint.

    Attributes:
        config: Of the model.
        layout: Whose training code it came from, and whose names of the network.
        entry: The entry that was taken; empty when the file has but one.
        others: Entries that could have been.
        tensors: How many the model took.
        left_out: How many tensors of each part were not.
        other_crop: What is to be said where timm does not crop the centre for these weights.
    """

    config: ModelConfig
    layout: str
    entry: str
    others: tuple[str, ...]
    tensors: int
    left_out: Mapping[str, int]
    other_crop: str | None = None


def import_checkpoint(
    path: str | Path,
    architecture: str,
    output: str | Path,
    origin: Origin,
    options: ImportOptions | None = None,
) -> Imported:
    """Turn a published checkpoint into a model folder: config.json, model.safetensors, a card.

    Layouts of timm, torchvision, DINO, CLeVER, SimSiam, MoCo, lightly, VMamba and EfficientNet-Lite
    are recognised by their names. Every tensor of the model must be there, and every tensor of the
    file accounted for. The model is then run on images once, before anything is written.

    Args:
        path: A ``.safetensors`` file or one of ``torch.save``.
        architecture: timm's name of the network, with a tag where its preprocessing is wanted, such
            as ``"resnet50.tv_in1k"``; or ``"vmamba_tiny"``.
        output: The folder to make.
        origin: Licence and source.
        options: The rest.

    Returns:
        What was made of it.

    Raises:
        ConfigError: When an option is wrong, or the folder is there already.
        ModelFormatError: When the file cannot be read, or its tensors are not the network's.

    Example:
        >>> origin = Origin("cc-by-nc-4.0", "https://github.com/facebookresearch/moco")
        >>> import_checkpoint("moco.pth", "resnet50", "moco", origin)  # doctest: +SKIP
    """
    options = options or ImportOptions()
    checkpoint = read_checkpoint(path, options.entry)
    config, usual = _config(architecture, Path(output).name, options)
    shapes = expected_shapes(config)
    found = find_backbone(checkpoint.tensors, shapes, options.ignore)
    naming, imagenet, renamed = to_timm(found.tensors, shapes, config.architecture)
    renamed |= _counters(renamed, shapes)
    _check(checkpoint, found, naming, renamed, shapes, architecture)
    if imagenet or not found.layout.own_normalisation:
        usual = {**usual, "mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    layout = _words(found, naming) or "timm or torchvision"
    config = replace(
        config,
        model_args=_model_args(config, found),
        invariant_dim=_invariant_dim(config.num_features, found, options.split_ratio),
        preprocessing=_preprocessing(usual, options),
        license=origin.license,
        data_terms=origin.data_terms,
        provenance=_provenance(checkpoint, layout, found, origin),
    )
    model = CleverModel(config)
    model.backbone.load_state_dict(renamed, strict=True)
    _try(model.eval(), architecture)
    with new_folder(Path(output)) as temporary:
        model.save_pretrained(temporary)
        write_card(temporary)
    parts = Counter(_part(name, found.layout.prefix) for name in found.left_out)
    return Imported(
        config,
        layout,
        checkpoint.entry,
        checkpoint.others,
        len(renamed),
        dict(parts),
        other_crop(usual),
    )


def _config(
    architecture: str, name: str, options: ImportOptions
) -> tuple[ModelConfig, dict[str, Any]]:
    """The config but for what the checkpoint decides, and timm's preprocessing."""
    arguments = {**trained_pooling(architecture), **options.model_args}
    try:
        with torch.device("meta"):  # only its sizes are wanted
            backbone = build_backbone(architecture, arguments)
    except BackboneError as error:
        # Without arguments it is the name, or its tag, that timm does not take.
        named = error.key == "architecture" or not options.model_args
        option = "--architecture" if named else "--model-args"
        raise ConfigError(f"{option}: {str(error).removeprefix(f'{error.key}: ')}") from error
    usual: dict[str, Any] = resolve_data_config({}, model=backbone)  # type: ignore[no-untyped-call]
    _check_channels(architecture, arguments.get("in_chans", usual["input_size"][0]))
    width = embedding_length(backbone)
    config = ModelConfig(
        name=options.name or name,
        architecture=architecture.partition(".")[0],
        model_args=arguments,
        num_features=width,
        invariant_dim=width,
        preprocessing=PreprocessingConfig(224, 224),
    )
    return config, usual


def _check_channels(architecture: str, channels: object) -> None:
    if channels != _CHANNELS:
        raise ConfigError(
            f"--architecture, or in_chans in --model-args: expected a network for {_CHANNELS} "
            f"channels, red, green and blue, as all photos have here; this {architecture} takes "
            f"{channels}"
        )


def _preprocessing(usual: Mapping[str, Any], options: ImportOptions) -> PreprocessingConfig:
    """How images are prepared: as asked for, else as usual for the weights."""
    own = options.model_args.get("img_size")  # of a vision transformer
    size = own if isinstance(own, int) else int(usual["input_size"][-1])
    size = size if options.size is None else options.size
    resize = options.resize_size
    if resize is None:
        resize = max(size, math.floor(size / usual["crop_pct"]))
    try:
        return PreprocessingConfig(
            resize_size=resize,
            crop_size=size,
            interpolation=options.interpolation or usual["interpolation"],
            mean=options.mean or usual["mean"],
            std=options.std or usual["std"],
        )
    except ModelFormatError as error:
        raise ConfigError(
            f"--size, --resize-size, --interpolation, --mean or --std: {error}"
        ) from error


def _invariant_dim(width: int, found: Found, ratio: float | None) -> int:
    if ratio is None:
        ratio = _CLEVER_RATIO if found.layout.name == "CLeVER" else 1.0
    if not 0 < ratio <= 1 or not (dim := math.floor(width * ratio + 1e-9)):
        raise ConfigError(f"--split-ratio: expected a share in (0, 1], got {ratio}")
    return dim


def _model_args(config: ModelConfig, found: Found) -> dict[str, Any]:
    """As asked for, and what the layout's network has otherwise than timm's of that name."""
    if found.layout.name == "MoCo v3" and config.architecture.startswith(_MOCO_V3_SMALL):
        return {"num_heads": _MOCO_V3_HEADS, **config.model_args}
    return config.model_args


def _counters(tensors: Mapping[str, Tensor], shapes: Iterable[str]) -> dict[str, Tensor]:
    """BatchNorm's counters of batches, where a file has none at all: no output depends on them."""
    wanted = [name for name in shapes if name.endswith("num_batches_tracked")]
    if any(name in tensors for name in wanted):
        return {}
    return {name: torch.zeros((), dtype=torch.int64) for name in wanted}


def _check(
    checkpoint: Checkpoint,
    found: Found,
    naming: str,
    renamed: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    architecture: str,
) -> None:
    try:
        there = {name: tuple(tensor.shape) for name, tensor in renamed.items()}
        check_shapes(str(checkpoint.path), there, shapes)
    except ModelFormatError as error:
        listed = "\n".join(str(error).splitlines()[1:])
        entry = f" under {checkpoint.entry!r}" if checkpoint.entry else ""
        words = _words(found, naming)
        read_as = f", read as {words}," if words else ""
        raise ModelFormatError(
            f"{checkpoint.path}: its {len(renamed)} tensors{entry}{read_as} are not those of "
            f"{architecture}\n{listed}\n"
            "Name another --architecture, its sizes with --model-args, or, with --ignore REGEX, "
            "what is no part of the backbone"
        ) from error


def _words(found: Found, naming: str) -> str:
    return ", ".join(name for name in (found.layout.name, naming) if name)


def _try(model: CleverModel, architecture: str) -> None:
    """Run it once: finite numbers, and different ones for different images."""
    size = model.config.preprocessing.crop_size
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, _CHANNELS, size, size, generator=generator)
    try:
        with torch.inference_mode():
            embedding = model(images).full
    except Exception as error:  # whatever the network raises
        raise ConfigError(
            f"--size: {architecture} takes no images of {size} x {size} pixels ({error}). A vision "
            'transformer takes its own size, or several with --model-args \'{"dynamic_img_size": '
            "true}'"
        ) from error
    if not torch.isfinite(embedding).all() or torch.equal(embedding[0], embedding[1]):
        raise ModelFormatError(
            f"{architecture}: with these weights two different images gave "
            f"{'one embedding' if torch.isfinite(embedding).all() else 'no finite numbers'}; the "
            "checkpoint is damaged, or of another network"
        )


def _provenance(
    checkpoint: Checkpoint, layout: str, found: Found, origin: Origin
) -> dict[str, Any]:
    return {
        "method": "imported",
        "data": origin.data,
        "imported": {
            "source": origin.source,
            "file": checkpoint.path.name,
            "sha256": sha256_of(checkpoint.path),
            "layout": layout,
            **({"entry": checkpoint.entry} if checkpoint.entry else {}),
            "left_out": sorted({_part(name, found.layout.prefix) for name in found.left_out}),
        },
        "clever_hub": __version__,
    }


def _part(name: str, prefix: str) -> str:
    """The first names of a tensor, all that a part of a network has in common.

    Below the backbone's prefix the next one tells which part it is.
    """
    names = [part for part in name.split(".")[:-1] if part not in ("module", "_orig_mod")]
    outer = prefix.split(".")[:-1]
    inside = bool(outer) and names[: len(outer)] == outer
    return ".".join(names[: len(outer) + 1] if inside else names[:1]) or name
