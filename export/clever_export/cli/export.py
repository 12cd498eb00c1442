"""``clever-hub export``; heavy imports are inside the function."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from clever_hub.cli.console import output
from clever_hub.errors import ConfigError

_LIMIT = 256


class _Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    gpu = "gpu"


class _Precision(StrEnum):
    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


def run(
    model: Annotated[str, typer.Argument(help="A model folder, or the name of a model.")],
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The folder to write; must not exist yet."),
    ] = None,
    triton: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Instead: the model repository of a Triton server, to which the model is added.",
        ),
    ] = None,
    triton_device: Annotated[
        _Device | None,
        typer.Option(
            help="Where Triton runs it; auto: on GPUs where there are some.", show_default="auto"
        ),
    ] = None,
    precision: Annotated[
        _Precision, typer.Option(help="Precision of the graph: fp16 for GPUs, int8 for CPUs.")
    ] = _Precision.fp32,
    with_preprocessing: Annotated[
        bool,
        typer.Option(
            "--with-preprocessing", help="Graph input: cropped uint8 pixels, NHWC, not normalised."
        ),
    ] = False,
    single_file: Annotated[
        bool, typer.Option("--single-file", help="Store the weights inside model.onnx.")
    ] = False,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            help="Photos, or folders with photos, to calibrate int8 and to measure its loss; int8 "
            "needs at least 16."
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Use at most so many photos, evenly spaced over the folder.",
            show_default=str(_LIMIT),
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write a variant that fails the fidelity check, too.")
    ] = False,
) -> None:
    """Write a complete model folder that every reader loads, or a variant for ONNX Runtime only.

    Without options it copies the weights and adds model.onnx (a graph that refers to the weights
    file), preprocessor_config.json, remote code for transformers, and the model card. A variant has
    its own weights: another precision, normalisation in the graph, or a single file. With --triton
    both of the latter, and a config.pbtxt.

    Of a classifier that `clever-hub finetune` wrote, model.onnx has the output logits; it is
    compared with torch.

    Examples:
    - `clever-hub export runs/mine/model -o my-model`
    - `clever-hub export clever-resnet18 -o small --precision int8 --images photos/`
    - `clever-hub export clever-resnet18 --triton models/`
    - `clever-hub export tuned -o tuned-onnx`
    """
    from clever_export.classifier import is_classifier
    from clever_export.package import (
        LICENSE_NAME,
        PROCESSOR_NAME,
        as_if_in,
        copy_model,
        new_folder,
        package,
        refuse_variant,
    )
    from clever_export.progress import bar
    from clever_export.triton import export_triton
    from clever_export.variants import export_variant
    from clever_hub.hub.evaluation import EVALUATION_NAME
    from clever_hub.hub.resolve import resolve
    from clever_hub.images.finding import find_images, spread_evenly
    from clever_hub.jobs.heads import HEADS_NAME
    from clever_hub.weights import WEIGHTS_NAME, sha256_of

    if (out is None) == (triton is None):
        raise ConfigError("expected --output FOLDER or --triton DIR, and not both")
    is_variant = precision is not _Precision.fp32 or with_preprocessing or single_file
    if triton is None and triton_device is not None:
        raise ConfigError("--triton-device: is for --triton DIR. Add it, or leave this option out")
    if precision is not _Precision.int8:  # that one asks for photos
        _refuse_unused(bool(images), limit, force, plain=triton is None and not is_variant)
    optional = (EVALUATION_NAME, HEADS_NAME, PROCESSOR_NAME, LICENSE_NAME)
    folder, origin = resolve(model, optional=optional)
    if origin.weights_sha256 is not None:  # known of the Hub and of models that ship
        origin.verified(sha256_of(folder / WEIGHTS_NAME))
    if is_classifier(folder):
        _classifier(folder, out, plain=triton is None and not is_variant)
        return
    refuse_variant(folder)
    photos = spread_evenly(list(find_images(images or [])), limit or _LIMIT)
    measured = None
    with bar() as report:
        if triton is not None:
            out, measured = export_triton(
                folder,
                triton,
                device=(triton_device or _Device.auto).value,
                precision=precision.value,
                images=photos,
                force=force,
                report=report,
            )
        elif out is not None:
            with new_folder(out) as temporary:
                if is_variant:
                    measured = export_variant(
                        folder,
                        temporary,
                        precision=precision.value,
                        with_preprocessing=with_preprocessing,
                        single_file=single_file,
                        images=photos,
                        force=force,
                        report=report,
                    )
                else:
                    report("tracing the graph", 0, 0)
                    with as_if_in(folder, temporary):
                        package(copy_model(folder, temporary))
    if measured is not None:
        output().print(
            f"Mean cosine to the model, centred, {measured.images} "
            f"{'held-out ' if precision is _Precision.int8 else ''}photos: {measured.describe()}",
            highlight=False,
        )
    output().print(f"Wrote {out}", highlight=False, markup=False, soft_wrap=True)


def _classifier(folder: Path, out: Path | None, *, plain: bool) -> None:
    """Export a classifier, whole or not at all."""
    from clever_export.classifier import export_classifier
    from clever_export.package import as_if_in, new_folder
    from clever_export.progress import bar

    if out is None or not plain:
        raise ConfigError(
            f"{folder}: a classifier, which is exported as a float32 graph beside its weights. "
            "Expected --output FOLDER alone, without --triton, --precision, --with-preprocessing "
            "and --single-file"
        )
    with bar() as report, new_folder(out) as temporary, as_if_in(folder, temporary):
        export_classifier(folder, temporary, report=report)
    output().print(f"Wrote {out}", highlight=False, markup=False, soft_wrap=True)


def _refuse_unused(images: bool, limit: int | None, force: bool, *, plain: bool) -> None:
    """Refuse what would be ignored: photos, and options that need some."""
    if images and plain:
        raise ConfigError(
            "--images: an fp32 export keeps the model's weights and uses no photos. Add "
            "--precision int8 (or fp16), or leave --images out"
        )
    for option, given in (("--limit", limit is not None), ("--force", force)):
        if given and not images:
            raise ConfigError(
                f"{option}: without --images nothing is calibrated or measured. Add --images and "
                "--precision int8 (or fp16), or leave this option out"
            )
