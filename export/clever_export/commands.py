"""The ``export`` and ``verify`` commands; heavy imports wait until they run."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from clever_hub.cli.console import fail, output, shown
from clever_hub.errors import ConfigError


class _Precision(StrEnum):
    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


def export(
    model: Annotated[str, typer.Argument(help="A model folder, or the name of a model.")],
    out: Annotated[Path, typer.Option(help="The folder to write; must not exist yet.")],
    precision: Annotated[
        _Precision, typer.Option(help="What the graph computes in: fp16 for GPUs, int8 for CPUs.")
    ] = _Precision.fp32,
    with_preprocessing: Annotated[
        bool,
        typer.Option("--with-preprocessing", help="The graph takes uint8 pixels, NHWC, cropped."),
    ] = False,
    single_file: Annotated[
        bool, typer.Option("--single-file", help="The weights are inside model.onnx.")
    ] = False,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            help="Photos to calibrate int8 with and to measure the loss on, or a folder; int8 "
            "needs 16 at least."
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="Most photos to use, taken from all over the folder.")
    ] = 256,
    force: Annotated[
        bool, typer.Option("--force", help="Write it though it is not faithful to the model.")
    ] = False,
) -> None:
    """Write a complete model folder that every reader loads, or a variant for ONNX Runtime alone.

    Without options it copies the weights and adds model.onnx (a graph that points into the weights
    file), preprocessor_config.json, remote code for transformers, and the model card. A variant has
    weights of its own: another precision, normalisation in the graph, or one file.

    Examples:
    - `clever-hub export runs/mine/model --out my-model`
    - `clever-hub export clever-resnet18 --out small --precision int8 --images photos/`
    """
    from clever_export.package import copy_model, new_folder, package, refuse_variant
    from clever_export.progress import bar
    from clever_hub.hub.resolve import resolve

    folder, _ = resolve(model)
    refuse_variant(folder)
    if precision is _Precision.fp32 and not with_preprocessing and not single_file:
        if images:
            raise ConfigError(
                "--images: fp32 keeps the model's own weights, photos have no part in it. Add "
                "--precision int8 (or fp16), or leave --images out"
            )
        with new_folder(out) as temporary, bar() as report:
            report("tracing the graph", 0, 0)
            package(copy_model(folder, temporary))
    else:
        from clever_export.variants import export_variant
        from clever_hub.images.finding import find_images

        with new_folder(out) as temporary, bar() as report:
            measured = export_variant(
                folder,
                temporary,
                precision=precision.value,
                with_preprocessing=with_preprocessing,
                single_file=single_file,
                images=_spread(list(find_images(images or [])), limit),
                force=force,
                report=report,
            )
        if measured is not None:
            output().print(
                f"Mean cosine to the model, centred, {measured.images} held-out photos: "
                f"{measured.describe()}",
                highlight=False,
            )
    output().print(f"Wrote {out}", highlight=False, markup=False, soft_wrap=True)


def verify(
    folder: Annotated[str, typer.Argument(help="A model folder, or the name of a model.")],
    images: Annotated[
        list[Path] | None,
        typer.Argument(help="Image files, or folders of them. Drawn pictures when left out."),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="Most images to read, taken from all over the folder.")
    ] = 32,
    report: Annotated[
        Path | None,
        typer.Option(
            help="The report to write. When left out, FOLDER/verify.json; of a model given by "
            "name, NAME-verify.json here."
        ),
    ] = None,
) -> None:
    """Check that every installed reader gives the same vectors, from image file to vector.

    Compares clever_hub (torch and onnx), a bare ONNX Runtime session, transformers and timm, at
    several batch sizes, on your photos and on odd-sized, grey and EXIF-turned copies. Writes a
    report; exits with 1 when a reader differs by more than 0.0001, or, of a float16 or int8
    variant, by a cosine below 0.999.

    **Example:** `clever-hub verify my-model photos/`
    """
    from rich.table import Table

    from clever_export.progress import bar
    from clever_export.verify import REPORT_NAME, not_compared
    from clever_export.verify import verify as run
    from clever_hub.hub.resolve import resolve
    from clever_hub.images.finding import find_images

    path, source = resolve(folder)
    own = source.kind == "folder"
    name = path.resolve().name if own else source.name
    if report is None:
        # Neither the installed package nor the Hub's cache is a place to write to.
        report = path / REPORT_NAME if own else Path(f"{name.replace('/', '-')}-{REPORT_NAME}")
    with bar() as progress:
        agreements = run(path, _spread(list(find_images(images or [])), limit), report, progress)
    table = Table(title=f"{shown(name)}: difference from {agreements[0].reader}")
    for heading in ("reader", "batch", "max abs difference", "min cosine", ""):
        table.add_column(heading, justify="left" if heading in ("reader", "") else "right")
    for agreement in agreements:
        table.add_row(
            agreement.reader,
            str(agreement.batch_size),
            " / ".join(f"{value:.1e}" for value in agreement.max_abs.values()),
            " / ".join(f"{value:.6f}" for value in agreement.min_cosine.values()),
            "[green]ok[/green]" if agreement.green else "[red]differs[/red]",
        )
    table.caption = "invariant / equivariant part"
    output().print(table)
    for reader, reason in not_compared(path).items():
        output().print(f"Not compared: {reader} ({reason})", highlight=False, markup=False)
    output().print(f"Wrote {report}", highlight=False, markup=False, soft_wrap=True)
    if not all(agreement.green for agreement in agreements):
        fail("readers differ by more than the tolerance: this folder should not be published")


def _spread(paths: list[Path], limit: int) -> list[Path]:
    """At most so many, evenly from all over: the first ones of a folder may be a single class."""
    if len(paths) <= limit:
        return paths
    return [paths[index * len(paths) // limit] for index in range(limit)]
