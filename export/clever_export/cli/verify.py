"""``clever-hub verify``; heavy imports are inside the function."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clever_hub.cli.console import fail, output, shown

if TYPE_CHECKING:
    from clever_export.verify import Agreement


def run(
    folder: Annotated[str, typer.Argument(help="A model folder, or the name of a model.")],
    images: Annotated[
        list[Path] | None,
        typer.Argument(help="Image files or folders. Generated pictures when left out."),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="Read at most so many images, evenly spaced over the folder.")
    ] = 32,
    report: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The report to write. Default: FOLDER/verify.json; for a model given by name, "
            "NAME-verify.json in the current folder.",
        ),
    ] = None,
) -> None:
    """Check that every installed reader computes the same embeddings from the same image files.

    Compares clever_hub (torch and onnx), a bare ONNX Runtime session, transformers and timm, at
    several batch sizes, on your photos and on odd-sized, gray and EXIF-rotated copies. Writes a
    report. Exits with 1 when a reader fails or differs by more than 0.0001; for a float16 or int8
    variant, when the cosine is below 0.999.

    **Example:** `clever-hub verify my-model photos/`
    """
    from rich.table import Table

    from clever_export.progress import bar
    from clever_export.verify import READ_FILES, REPORT_NAME, conditions, not_compared, verify
    from clever_hub.config import CONFIG_NAME
    from clever_hub.files import folder_name
    from clever_hub.hub.resolve import resolve
    from clever_hub.images.finding import find_images, spread_evenly

    path, source = resolve(folder, files=(CONFIG_NAME,), optional=READ_FILES)
    own = source.kind == "folder"
    name = folder_name(path) if own else source.name
    if report is None:
        # The report is never written into the installed package or the Hub's cache.
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
            _word(agreement),
        )
    table.caption = "invariant / equivariant part"
    output().print(table)
    errors = {agreement.reader: agreement.error for agreement in agreements if agreement.error}
    for reader, error in errors.items():
        output().print(f"{reader} fails: {error}", highlight=False, markup=False, soft_wrap=True)
    for reader, condition in conditions(path).items():
        output().print(f"{reader} reads it {condition}", highlight=False, markup=False)
    for reader, reason in not_compared(path).items():
        output().print(f"Not compared: {reader} ({reason})", highlight=False, markup=False)
    output().print(f"Wrote {report}", highlight=False, markup=False, soft_wrap=True)
    if errors:
        fail(f"{', '.join(errors)} cannot read it: this folder should not be published")
    if not all(agreement.green for agreement in agreements):
        fail("readers differ by more than the tolerance: this folder should not be published")


def _word(agreement: Agreement) -> str:
    if agreement.error:
        return "[red]fails[/red]"
    return "[green]ok[/green]" if agreement.green else "[red]differs[/red]"
