"""``clever-hub verify``; heavy imports wait until it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clever_hub.cli.console import fail, output, shown


def run(
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
            "--output",
            "-o",
            help="The report to write. When left out, FOLDER/verify.json; of a model given by "
            "name, NAME-verify.json here.",
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
    from clever_export.verify import REPORT_NAME, not_compared, verify
    from clever_hub.hub.resolve import resolve
    from clever_hub.images.finding import find_images, spread_evenly

    path, source = resolve(folder)
    own = source.kind == "folder"
    name = path.resolve().name if own else source.name
    if report is None:
        # Neither the installed package nor the Hub's cache is a place to write to.
        report = path / REPORT_NAME if own else Path(f"{name.replace('/', '-')}-{REPORT_NAME}")
    with bar() as progress:
        photos = spread_evenly(list(find_images(images or [])), limit)
        agreements = verify(path, photos, report, progress)
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
