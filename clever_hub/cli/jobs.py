"""What the verbs of jobs share: options, and photos with their embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias, cast

import typer

from clever_hub.cli.console import report_skipped, say, say_unused
from clever_hub.cli.loading import load_model
from clever_hub.errors import ConfigError
from clever_hub.files import cache_folder, file_stamp
from clever_hub.images.finding import find_images
from clever_hub.images.progress import counting
from clever_hub.jobs.default import default_model
from clever_hub.jobs.embedded import EmbeddedPhotos, read_embeddings
from clever_hub.jobs.nearest import NEIGHBOURS, SAMPLE
from clever_hub.jobs.rows import (
    Photo,
    Spool,
    TablePhotos,
    has_images,
    image_tables,
    open_rows,
)
from clever_hub.jobs.sheets import PAGE, SHEETS, ShownRow, write_page, write_sheet
from clever_hub.jobs.store import embed_photos
from clever_hub.jobs.tables import FORMATS, check_format
from clever_hub.scale.storage import FOLDER
from clever_hub.scale.tables import count_images

if TYPE_CHECKING:
    from clever_hub.jobs.answering import JobsMixin
    from clever_hub.jobs.duplicates import Duplicates
    from clever_hub.jobs.leaks import Leaks

# What duplicates, leaks and search can write: tables, a page, a picture.
OUTPUTS = (*FORMATS, PAGE, *SHEETS)
_ON_PAGE, _ON_SHEET = 500, 12  # rows of each
LIMITED = "There were too many candidates: the least alike were left out"
FEWER = "Ask for fewer: --expected-false, or a higher --threshold"


class DecodeChoice(StrEnum):
    """How JPEGs are decoded."""

    reduced = "reduced"
    exact = "exact"


Cache: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="Cache folder of embeddings, so that nothing is computed twice and an "
        "interruption loses little. The default is CLEVER_HUB_CACHE or ~/.cache/clever-hub."
    ),
]
Decode: TypeAlias = Annotated[
    DecodeChoice,
    typer.Option(help="reduced lets the JPEG decoder shrink large photos: several times faster."),
]
Turns: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--turns/--no-turns",
        help="Look at each photo four times, at the whole and at its middle, turned, and take the "
        "mean: finds more turned, cropped and framed copies, for four times the model's work. The "
        "default for photos; embeddings in a file are of one look.",
        show_default=False,
    ),
]


def write_shown(
    out: Path,
    title: str,
    summary: Sequence[str],
    rows: Callable[[int], Sequence[ShownRow]],
    count: int,
    noun: str,
    which: str,
) -> str:
    """Write a page, or a picture of the first rows; both say if they leave any out.

    Args:
        out: The file; its ending decides.
        title: Heading.
        summary: Lines below the heading of a page.
        rows: Gives the first so many rows, the most important first: no photo is read for others.
        count: How many rows there are.
        noun: What a row is, in the plural, such as ``"groups"``.
        which: What the first rows are, such as ``"largest"``.

    Returns:
        What was written, such as ``"12 of 16 groups"``.
    """
    picture = out.suffix.lower() in SHEETS
    most = _ON_SHEET if picture else _ON_PAGE
    written = f"{most} of {count} {noun}" if count > most else f"{count} {noun}"
    if picture:
        shown = f" ({written} are shown, the {which})" if count > most else ""
        write_sheet(out, title + shown, rows(most))
        return written
    lines = list(summary)
    if count > most:
        lines.append(f"{written} are shown, the {which}; a table has them all.")
    write_page(out, title, lines, rows(most))
    return written


def missed(found: Duplicates | Leaks) -> list[str]:
    """What candidates were not looked at, in sentences; none where all were.

    Args:
        found: What a job found.
    """
    said = []
    if found.recall is not None and found.coverage is not None:
        said.append(
            f"An index found {found.recall:.1%} of the candidates among each photo's {NEIGHBOURS} "
            f"nearest, and {found.coverage:.1%} of all, measured on at most {SAMPLE} photos. To "
            "compare all pairs: --exact."
        )
    if found.limited:
        said.append(f"{LIMITED}. {FEWER}.")
    return said


ImageColumn: TypeAlias = Annotated[
    str | None,
    typer.Option(help="The column of a table that holds the images, where it has several."),
]


class PartChoice(StrEnum):
    """A part of the embedding."""

    invariant = "invariant"
    equivariant = "equivariant"
    full = "full"


class VerifyChoice(StrEnum):
    """How candidates are verified."""

    auto = "auto"
    pixels = "pixels"
    heads = "heads"
    none = "none"


Output: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="What to write: .parquet, .csv, .json, .html (a page), .png."
    ),
]
ExpectedFalse: TypeAlias = Annotated[
    float | None,
    typer.Option(
        help="How many pairs of different photos may become candidates. The default is 25 for each "
        "photo (leaks: each validation photo) where candidates are verified, else 1 in all."
    ),
]
Exact: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--exact/--approximate",
        help="Compare all pairs, or each photo (leaks: each validation photo) with those that an "
        "index finds (extra search). By default all pairs are compared, up to 20 billion: as many "
        "as 200,000 photos have.",
        show_default=False,
    ),
]
LeastCosine: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--threshold", help="Lowest centred cosine of a candidate, instead of --expected-false."
    ),
]
CandidatePart: TypeAlias = Annotated[
    PartChoice,
    typer.Option("--part", help="The part of the embedding that finds candidates."),
]


def find_photos(
    paths: Sequence[Path],
    column: str | None,
    unreadable: Callable[[OSError], None] | None = None,
) -> list[Photo]:
    """The photos among files, folders, and parquet tables with images; each is found once.

    Args:
        paths: What the user named.
        column: The column of a table that holds the images; None looks for it.
        unreadable: As for ``find_images``.

    Raises:
        DataError: As ``find_images``, or when a table cannot be read.
    """
    tables: dict[Path, Path] = {}
    files = []
    for path in paths:
        found = image_tables(path, column)
        tables.update({table.resolve(): table for table in found})
        if not found or (path.is_dir() and has_images(path)):
            files.append(path)
    photos: list[Photo] = list(find_images(files, unreadable))
    if tables:
        opened = _opened(list(tables.values()), column, Spool())
        photos += [row for table in opened for row in table.rows]
    return photos


def check_output(out: Path, paths: Sequence[Path], column: str | None) -> None:
    """Refuse an output that cannot be written, or that would be written over what is read.

    Args:
        out: The file to write.
        paths: What the user named: photos, tables, embeddings.
        column: As for ``find_photos``.

    Raises:
        ConfigError: As ``check_format``, or for a table among embeddings.
    """
    tables = (table for path in paths for table in image_tables(path, column))
    check_format(out, OUTPUTS, inputs=[*paths, *tables])
    if out.suffix.lower() != ".parquet":
        return
    for path in paths:
        inside = path.is_dir() and out.resolve().is_relative_to(path.resolve())
        if inside and is_embeddings(path, column):
            raise ConfigError(
                f"--output: {out} lies in {path}, whose tables are read as embeddings. Name a "
                "place outside"
            )


def check_column(paths: Iterable[Path], column: str | None) -> None:
    """Refuse ``--image-column`` where no table with images is named.

    Raises:
        ConfigError: When there is none.
    """
    if column is not None and not any(image_tables(path, column) for path in paths):
        raise ConfigError("--image-column: expected a parquet table with images, got none")


def _opened(tables: Sequence[Path], column: str | None, spool: Spool) -> list[TablePhotos]:
    """Tables, whose files are copied where any row can be read at once."""
    total = sum(count_images(str(table), column) for table in tables)
    with counting("reading tables", total) as advance:
        return [TablePhotos(table, column, spool=spool, advance=advance) for table in tables]


def read_photos(file: Path, column: str | None) -> EmbeddedPhotos:
    """Embeddings of a file; photos that are rows of tables are opened, where the tables are there.

    A table that was changed since may have other photos in its rows: they are taken for missing,
    and the table is named.

    Args:
        file: As for ``read_embeddings``.
        column: As for ``find_photos``.

    Raises:
        DataError: When the file cannot be read, or a table.
    """
    photos = read_embeddings(file)
    written = file.stat().st_mtime_ns
    changed: list[Path] = []

    def is_current(place: int, table: Path) -> bool:
        if photos.stamps:
            current = photos.stamps[place] == file_stamp(table)
        else:
            current = table.stat().st_mtime_ns <= written
        if not current and table not in changed:
            changed.append(table)
        return current

    spool = Spool()

    def open_table(table: Path) -> TablePhotos:
        return _opened([table], column, spool)[0]

    paths = open_rows(photos.paths, open_table, is_current)
    for table in changed:
        say(f"{table} has changed since it was embedded: its rows may be other photos")
    return replace(photos, paths=paths)


def embedded(
    model: JobsMixin,
    files: Sequence[Photo],
    *,
    cache: Path | None,
    averaged: bool,
    decode: DecodeChoice,
) -> EmbeddedPhotos:
    """Embed photos; those that cannot be read are named and left out.

    Args:
        model: What embeds them.
        files: The photos, as ``find_photos`` gives them.
        cache: Where embeddings are kept; None is the default place.
        averaged: Over four looks at each photo, for finding copies.
        decode: How JPEGs are decoded.

    Raises:
        DataError: When none of them can be read.
    """
    with counting("embedding", len(files)) as advance:
        photos = embed_photos(
            model,
            files,
            cache=cache_folder() if cache is None else cache,
            averaged=averaged,
            decode=decode.value,
            advance=advance,
        )
    report_skipped(photos.embeddings.skipped)
    return photos


def say_embedded(
    file: Path,
    turns: bool | None,
    cache: Path | None,
    decode: DecodeChoice,
    model: tuple[str | None, str, str | None, str | None] | None,
) -> None:
    """Say which options mean nothing where photos are embedded already.

    Args:
        file: Of embeddings.
        turns: As given.
        cache: As given.
        decode: As given.
        model: Name, backend, device and revision as given; None where a model is used all the same.
    """
    name, backend, device, revision = model or (None, "auto", None, None)
    options = {
        "--turns": turns is True,
        "--cache": cache is not None,
        "--decode": decode is not DecodeChoice.reduced,
        "--model": name is not None,
        "--backend": backend != "auto",
        "--device": device is not None,
        "--revision": revision is not None,
    }
    say_unused(options, f"{file} holds embeddings, which stay as they are")


def is_embeddings(path: Path, column: str | None = None) -> bool:
    """Whether a path is a file of embeddings, or a folder of such files.

    A folder of photos in which a table lies is none, unless ``clever-hub embed`` made the folder;
    nor is a table of images.
    """
    if not path.is_dir():
        return path.suffix.lower() == ".parquet" and not image_tables(path, column)
    if not any(path.glob("*.parquet")):
        return False
    return (path / FOLDER).is_dir() or not (has_images(path) or image_tables(path, column))


def load(name: str | None, backend: str, device: str | None, revision: str | None) -> JobsMixin:
    """The model that embeds; without a name, the one that is recommended for jobs."""
    model = load_model(name or default_model(), backend, device, revision)
    return cast("JobsMixin", model)
