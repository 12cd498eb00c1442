"""``clever-hub relate``: how one image is made from another."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

from clever_hub.cli.checks import check_image
from clever_hub.cli.console import fail, output, report_skipped, say, shown
from clever_hub.cli.loading import load_model
from clever_hub.cli.options import Backend, JobModel, OnError, OnErrorChoice
from clever_hub.cli.progress import working_on
from clever_hub.errors import ConfigError, DataError, require

if TYPE_CHECKING:
    from clever_hub.embeddings import Embeddings, Skipped
    from clever_hub.jobs.answering import JobsMixin
    from clever_hub.jobs.relation import Relation, Relations

_A, _B, _WORDS = "a", "b", "words"


def run(
    a: Annotated[
        str | None, typer.Argument(metavar="A", help="An image file.", show_default=False)
    ] = None,
    b: Annotated[
        str | None, typer.Argument(metavar="B", help="Another image file.", show_default=False)
    ] = None,
    model: JobModel = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            help="Many pairs instead of A and B: a .csv or .parquet with columns of paths, a and b."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="File for the results of --pairs: .parquet, .csv, .json."
        ),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw A, B, and B aligned to A, as a .png.")
    ] = None,
    given_same: Annotated[
        bool, typer.Option("--given-same", help="Assume that both show the same photo.")
    ] = False,
    pixels: Annotated[
        bool | None,
        typer.Option(
            "--pixels/--no-pixels",
            help="Lay B onto A by keypoints, where they match. This needs OpenCV (extra jobs), and "
            "is the default if that is installed.",
        ),
    ] = None,
    on_error: OnError = OnErrorChoice.raise_,
    backend: Backend = "auto",
) -> None:
    """Tell whether two images show the same photo, and what was done to it.

    Where keypoints of both match, angle, mirroring, zoom, centre and colours are measured on the
    pixels; elsewhere the model estimates them. Angles are in degrees counter-clockwise from A to
    B. A value that cannot be told is reported as unknown. Only the middle square of each image is
    compared. With --pairs, the rows of pairs with an image that cannot be read are empty but for
    the paths, and the exit code is 1.

    Examples:
    - `clever-hub relate cat.jpg copy.jpg --picture relation.png`
    - `clever-hub relate --pairs pairs.csv -o relations.parquet`
    """
    _check_use((a, b), pairs, out, picture)
    from clever_hub.jobs.default import default_model
    from clever_hub.jobs.pixels import can_measure, check_measurable

    if pixels:
        check_measurable()
    elif pixels is None and not can_measure():
        say('Without OpenCV the model answers alone: pip install "clever-hub[jobs]" for keypoints')
    if out is not None:
        from clever_hub.jobs.tables import check_format

        check_format(out, inputs=[] if pairs is None else [pairs])
    many = read_pairs(pairs) if pairs is not None else []
    loaded = load_model(model or default_model(heads=True), backend)
    _ = loaded.heads  # refused now, not after the work
    if many and out is not None:
        by_pixels = can_measure() if pixels is None else pixels
        bad = _relate_many(loaded, many, out, given_same, by_pixels)
        if bad and on_error is OnErrorChoice.raise_:
            fail(
                f"{bad} of {len(many)} pairs have an image that could not be read. Allow it: "
                "--on-error skip"
            )
        return
    assert a is not None
    assert b is not None
    relation = loaded.relate(a, b, given_same=given_same, pixels=pixels)
    _print(relation, a, b)
    if picture is not None:
        _draw(loaded, relation, a, b, picture)


def _check_use(
    images: tuple[str | None, str | None],
    pairs: Path | None,
    out: Path | None,
    picture: Path | None,
) -> None:
    """Refuse options that do not go together."""
    given = [name for name in images if name is not None]
    if len(given) != (2 if pairs is None else 0):
        raise ConfigError("relate: expected two image files, or --pairs with a table of them")
    if (pairs is None) != (out is None):
        raise ConfigError("relate: --pairs and --output go together")
    if picture is not None and pairs is not None:
        raise ConfigError("relate: --picture draws one pair, A and B; it has no use with --pairs")
    if picture is not None:
        from clever_hub.jobs.tables import check_format

        check_format(picture, (".png",), "--picture", inputs=given)
    for image in given:
        check_image(image)


def _print(relation: Relation, a: str, b: str) -> None:
    table = Table()
    for name in ("of B", "value", "two thirds are wrong by less"):
        table.add_column(name)
    for row in rows_of(relation):
        table.add_row(*row)
    console = output()
    console.print(f"A: {shown(a)}\nB: {shown(b)}\n{relation.words()}", soft_wrap=True)
    console.print(table)
    by = {
        "pixels": "All but the probabilities is measured on the pixels.",
        "model": "The model estimates all values; keypoints did not match or were not looked for.",
    }
    if relation.same is None or relation.same >= 0.5 or relation.assumed:
        console.print(by[relation.by], soft_wrap=True)


def rows_of(relation: Relation) -> list[tuple[str, str, str]]:
    """Name, value and uncertainty of everything in a relation, in words.

    Args:
        relation: Of two images.

    Returns:
        One row for each value; unknown where it is None.
    """

    def text(value: float | None, form: str) -> str:
        return "unknown" if value is None else form.format(value)

    def error(value: float | None, form: str) -> str:
        return "" if value is None else form.format(value)

    from clever_hub.jobs.relation import in_degrees

    mirrored = {True: "yes", False: "no", None: "unknown"}[relation.mirrored]
    chance = error(relation.mirrored_probability, "probability {:.0%}")
    shift = "unknown"
    if relation.shift is not None:
        shift = "{:+.0%} right, {:+.0%} down".format(*relation.shift)
    angle_error = "" if relation.angle_error is None else in_degrees(relation.angle_error)
    rows = [
        ("same photo", text(relation.same, "{:.1%}"), ""),
        ("angle", text(relation.angle, "{:+.0f}°"), angle_error),
        ("mirrored", mirrored, chance),
        ("zoom", text(relation.zoom, "× {:.2f}"), error(relation.zoom_error, "{:.2f} octaves")),
        ("centre", shift, error(relation.shift_error, "{:.0%} of the side")),
        ("stretch", text(relation.stretch, "× {:.2f}"), ""),
    ]
    for name, value in relation.colors._asdict().items():
        unit = "{:+.0f}°" if name == "hue" else "× {:.2f}"
        wrong = "{:.0f}°" if name == "hue" else "{:.0%}"
        rows.append((name, text(value, unit), error(getattr(relation.colors_error, name), wrong)))
    return rows


def _draw(model: JobsMixin, relation: Relation, a: str, b: str, target: Path) -> None:
    from clever_hub.cli.attention_picture import seen
    from clever_hub.cli.pictures import page, shortened
    from clever_hub.cli.relate_picture import brought_back
    from clever_hub.files import atomic_path

    side = 288
    told = "the pixels tell" if relation.by == "pixels" else "the model knows"
    # Its square, in as many pixels as the panel has.
    mine = model.config.preprocessing
    larger = round(side * mine.resize_size / mine.crop_size)
    one, other = (seen(replace(mine, resize_size=larger, crop_size=side), x) for x in (a, b))
    panels = [
        (f"A\n{shortened(Path(a).name, side)}", one),
        (f"B\n{shortened(Path(b).name, side)}", other),
        (
            f"B brought back onto A\nby what {told} of the relation",
            brought_back(relation, one, other),
        ),
    ]
    picture = page(
        f"How B is made from A, by {model.config.name}", relation.words(), panels, side=side
    )
    with atomic_path(target) as temporary:
        picture.save(temporary, format="PNG")
    say(f"A, B, and B brought back → {target}")


def _relate_many(
    model: JobsMixin, pairs: list[tuple[str, str]], target: Path, given_same: bool, pixels: bool
) -> int:
    """Write the table; how many of the pairs have an image that cannot be read."""
    from clever_hub.jobs.relate import relate
    from clever_hub.jobs.tables import write_rows

    rows_by_path, embeddings, skipped = _embed(model, [path for pair in pairs for path in pair])
    readable = [pair for pair in pairs if pair[0] in rows_by_path and pair[1] in rows_by_path]
    if not readable:
        report_skipped(skipped)
        raise DataError("--pairs: no pair has two images that can be read, nothing was written")
    a, b = (np.array([rows_by_path[pair[side]] for pair in readable]) for side in (0, 1))
    found = relate(embeddings[a], embeddings[b], model.heads, given_same=given_same or pixels)
    if pixels:
        found = _measured(model, list(rows_by_path), a, b, found, given_same)
    values = iter(_rows(found))
    known = set(readable)
    rows = [{_A: pair[0], _B: pair[1], **(next(values) if pair in known else {})} for pair in pairs]
    kinds = {name: str if name == "by" else float for name in found.columns()}
    write_rows(target, rows, {_A: str, _B: str, **kinds, _WORDS: str})
    report_skipped(skipped)
    by = f", {int(found.by_pixels.sum())} of them measured on the pixels" if pixels else ""
    say(f"{len(readable)} of {len(pairs)} pairs related{by} → {target}")
    return len(pairs) - len(readable)


def _measured(
    model: JobsMixin,
    paths: Sequence[str],
    a: NDArray[np.int64],
    b: NDArray[np.int64],
    estimated: Relations,
    given_same: bool,
) -> Relations:
    """Lay the second image of each pair of rows onto the first, where keypoints match."""
    from clever_hub.jobs.pixels import aligner, measured

    with working_on() as progress:
        report = partial(progress, "laying onto each other")
        alignments = aligner(paths, model.preprocessor.config, progress=report)(a, b)
    return measured(estimated, alignments, given_same=given_same)


def _embed(model: JobsMixin, paths: list[str]) -> tuple[dict[str, int], Embeddings, list[Skipped]]:
    """Embed each image once, however many pairs it is in."""
    from clever_hub.embeddings import Embeddings
    from clever_hub.images.progress import counting

    unique = list(dict.fromkeys(paths))
    rows: dict[str, int] = {}
    parts: list[Embeddings] = []
    skipped: list[Skipped] = []
    with counting("embedding", len(unique)) as advance:
        for batch in model.encode_batches(unique, on_error="skip"):
            rows |= {unique[place]: len(rows) + n for n, place in enumerate(batch.indices)}
            parts.append(batch.embeddings)
            skipped += batch.embeddings.skipped
            advance(len(batch.indices) + len(batch.embeddings.skipped))
    return rows, Embeddings.joined(parts), skipped


def _rows(found: Relations) -> list[dict[str, float | str]]:
    columns = found.columns()
    return [
        {name: column[row].item() for name, column in columns.items()}
        | {_WORDS: found[row].words()}
        for row in range(len(found))
    ]


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """The pairs of a table with the columns a and b.

    Args:
        path: A .csv with a header, or a .parquet.

    Returns:
        Paths of the images, as they stand there.

    Raises:
        DataError: When it cannot be read, a column is missing, there are no pairs, or one is empty;
            names the line of the file, or the row of a parquet table, both counted from 1.
        ConfigError: When it is neither kind of file.
    """
    try:
        rows = _table_rows(path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected text in UTF-8: {error}. Save it as CSV UTF-8") from error
    except (csv.Error, ValueError) as error:  # Arrow's errors are such, too
        raise DataError(f"{path}: cannot be read as a table: {error}") from error
    if not rows:
        raise DataError(f"{path}: expected pairs of images, got no rows")
    for where, pair in rows:
        if not all(isinstance(entry, str) and entry for entry in pair):
            raise DataError(f"{path}: {where}: expected two paths, got {pair}")
    return [pair for _, pair in rows]


def _table_rows(path: Path) -> list[tuple[str, tuple[Any, Any]]]:
    """Where each pair stands, such as ``"line 4"``, and its two entries."""
    if path.suffix.lower() == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            _check_columns(path, list(reader.fieldnames or ()))
            return [(f"line {reader.line_num}", (row[_A], row[_B])) for row in reader]
    if path.suffix.lower() == ".parquet":
        table = require("pyarrow.parquet", "jobs").read_table(path)
        _check_columns(path, table.column_names)
        columns = (table.column(name).to_pylist() for name in (_A, _B))
        return [(f"row {row}", pair) for row, pair in enumerate(zip(*columns, strict=True), 1)]
    raise ConfigError(f"--pairs: expected a .csv or a .parquet, got {path}")


def _check_columns(path: Path, names: list[str]) -> None:
    if missing := [name for name in (_A, _B) if name not in names]:
        raise DataError(
            f"{path}: expected the columns a and b, {' and '.join(missing)} missing; got "
            f"{', '.join(names) or 'none'}"
        )
