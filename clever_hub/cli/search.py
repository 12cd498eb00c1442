"""``clever-hub search``: the photos of an index that are nearest to one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer
from rich.table import Column, Table

from clever_hub.cli.checks import check_image
from clever_hub.cli.console import output, say, shown
from clever_hub.cli.jobs import OUTPUTS, Output, PartChoice, load
from clever_hub.cli.options import Backend, Device, Revision
from clever_hub.errors import ConfigError, require
from clever_hub.jobs.search import Hit, PhotoIndex
from clever_hub.jobs.sheets import SHEETS, Shown, ShownRow, write_page, write_sheet
from clever_hub.jobs.tables import FORMATS, check_format, text_of, write_rows

_COLUMNS: dict[str, type] = {"path": str, "score": float, "invariant": float, "equivariant": float}
_DRAWN = 500  # photos on a page or in a picture
SearchModel: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="The model of the index, if it was moved since.",
        show_default=False,
    ),
]
_WEIGHTS = {
    PartChoice.invariant: (1.0, 0.0),
    PartChoice.equivariant: (0.0, 1.0),
    PartChoice.full: (0.5, 0.5),
}


def run(  # noqa: PLR0913, each is an option
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="What `clever-hub index` made.")],
    query: Annotated[Path, typer.Argument(metavar="QUERY", help="An image file.")],
    *,
    part: Annotated[
        PartChoice | None,
        typer.Option(
            help="invariant: the same subject in any orientation, the default; equivariant: the "
            "same pose; full: both.",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Weights of the invariant and the equivariant part, instead of --part."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many photos.")] = 10,
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare all photos, without the approximate index.")
    ] = False,
    out: Output = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Draw the query and what was found, such as result.png.")
    ] = None,
    model: SearchModel = None,
    backend: Backend = "auto",
    device: Device = None,
    revision: Revision = None,
) -> None:
    """Find the photos of an index that are nearest to an image.

    Examples:
    - `clever-hub search photos.lance query.jpg`
    - `clever-hub search photos.lance query.jpg --part equivariant -k 5 --sheet result.png`
    - `clever-hub search photos.lance query.jpg --weights 0.7 0.3`
    """
    require("lancedb", "search")
    if out is not None:
        check_format(out, OUTPUTS, inputs=[query])
    if sheet is not None:
        check_format(sheet, SHEETS, "--sheet", inputs=[query])
    check_image(query)
    opened = PhotoIndex.open(index)
    for path, option in ((out, "--output"), (sheet, "--sheet")):
        if path is not None:
            _check_place(path, option, opened)
    chosen = _weights(part, weights)
    opened.check_weights(chosen)
    loaded = load(model or opened.about.source, backend, device, revision)
    opened.check(loaded)
    decode: Any = opened.about.decode  # else a photo of the index would not be like itself
    asked = loaded.encode(query, decode=decode)
    hits = opened.search(asked, weights=chosen, k=k, exact=exact)
    table = Table("score", "invariant", "equivariant", Column("photo", overflow="fold"))
    for hit in hits:
        values = (f"{value:.3f}" for value in (hit.score, hit.invariant, hit.equivariant))
        table.add_row(*values, shown(text_of(hit.path)))
    output().print(table)
    if gone := sum(not hit.path.exists() for hit in hits):
        say(
            f"{gone} of these photos are not there any more. Bring the index up to date: "
            f"clever-hub index PHOTOS -o {index}"
        )
    for path in (out, sheet):
        if path is not None:
            say(f"{_write(path, query, hits)} → {path}")


def _check_place(path: Path, option: str, index: PhotoIndex) -> None:
    """Refuse to write into the index, or over one of its photos."""
    if path.resolve().is_relative_to(index.folder.resolve()):
        raise ConfigError(f"{option}: {path} lies in the index. Name a place outside")
    if path.is_file() and path in index:
        raise ConfigError(f"{option}: {path} is a photo of the index, and would be lost")


def _weights(part: PartChoice | None, weights: tuple[float, float] | None) -> tuple[float, float]:
    if weights is None:
        return _WEIGHTS[part or PartChoice.invariant]
    if part is not None:
        raise ConfigError(
            f"--part and --weights: expected one of them, got both; --part {part} is the same as "
            "--weights {:g} {:g}".format(*_WEIGHTS[part])
        )
    return weights


def _write(path: Path, query: Path, hits: list[Hit]) -> str:
    """Write what was found; returns how much of it."""
    if path.suffix.lower() in FORMATS:
        write_rows(path, [asdict(hit) for hit in hits], _COLUMNS)
        return f"{len(hits)} photos"
    photos = [Shown(query, "query")]
    photos += [
        Shown(
            hit.path,
            f"{hit.score:.3f}",
            f"invariant {hit.invariant:.2f}, equivariant {hit.equivariant:.2f}",
        )
        for hit in hits[:_DRAWN]
    ]
    title = f"The {len(hits)} photos nearest to {query.name}"
    written = f"{len(hits)} photos"
    if len(hits) > _DRAWN:
        written = f"{_DRAWN} of {written}"
        title += f" ({written} are shown, the nearest)"
    if path.suffix.lower() in SHEETS:
        starts = range(0, len(photos), 6)
        rows = [ShownRow("", photos[start : start + 6], mark=start == 0) for start in starts]
        write_sheet(path, title, rows)
    else:
        write_page(path, title, [], [ShownRow(query.name, photos)])
    return written
