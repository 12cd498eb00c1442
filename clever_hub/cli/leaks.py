"""``clever-hub leaks``: validation photos that are copies of training photos."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from clever_hub.cli.console import fail, output, say, shown
from clever_hub.cli.jobs import (
    OUTPUTS,
    Cache,
    CandidatePart,
    Decode,
    DecodeChoice,
    ExpectedFalse,
    LeastCosine,
    Output,
    PartChoice,
    Turns,
    embedded,
    is_embeddings,
    load,
    write_shown,
)
from clever_hub.cli.options import Backend, Device, JobModel, Revision
from clever_hub.cli.progress import working_on
from clever_hub.errors import ConfigError
from clever_hub.jobs import leaks
from clever_hub.jobs.embedded import EmbeddedPhotos, read_embeddings
from clever_hub.jobs.tables import FORMATS, check_format, text_of, write_rows
from clever_hub.jobs.verifying import PixelVerifier

_LISTED = 20  # leaks that are printed


def run(  # noqa: PLR0913, each is an option
    train: Annotated[
        Path, typer.Argument(metavar="TRAIN", help="Folder of photos, or a file of embeddings.")
    ],
    validation: Annotated[
        Path, typer.Argument(metavar="VALIDATION", help="Folder of photos, or such a file.")
    ],
    *,
    out: Output = None,
    model: JobModel = None,
    expected_false: ExpectedFalse = None,
    threshold: LeastCosine = None,
    part: CandidatePart = PartChoice.invariant,
    verify: Annotated[
        bool, typer.Option(help="Align each candidate with the training photo and compare pixels.")
    ] = True,
    turns: Turns = True,
    decode: Decode = DecodeChoice.reduced,
    cache: Cache = None,
    backend: Backend = "auto",
    device: Device = None,
    revision: Revision = None,
) -> None:
    """Find validation photos that are copies of training photos, however they were changed.

    The exit code is 1 if there are any, or if a candidate cannot be read and so not be looked at:
    a CI pipeline stops. A model that was trained on copies of the validation photos looks better
    than it is.

    Examples:
    - `clever-hub leaks train/ validation/`
    - `clever-hub leaks train.parquet validation.parquet -o leaks.html`
    """
    if out is not None:
        check_format(out, OUTPUTS)
    sets = _photos((train, validation), model, turns, cache, decode, (backend, device, revision))
    found, unreadable = _find(sets, part, threshold, expected_false, verify)
    _print(found, sets)
    if out is not None:
        say(f"{_write(out, found, sets)} → {out}")
    if unreadable:
        fail(f"{len(unreadable)} candidates could not be read, so they may be copies")
    if found.leaked:
        raise typer.Exit(1)


def _photos(
    paths: tuple[Path, Path],
    name: str | None,
    turns: bool,
    cache: Path | None,
    decode: DecodeChoice,
    where: tuple[str, str | None, str | None],
) -> tuple[EmbeddedPhotos, EmbeddedPhotos]:
    files = [is_embeddings(path) for path in paths]
    if all(files):
        return read_embeddings(paths[0]), read_embeddings(paths[1])
    if any(files):
        raise ConfigError(
            "expected two folders of photos, or two files of embeddings; got one each"
        )
    loaded = load(name, *where)
    first, second = (
        embedded(loaded, [path], cache=cache, averaged=turns, decode=decode) for path in paths
    )
    return first, second


def _find(
    sets: tuple[EmbeddedPhotos, EmbeddedPhotos],
    part: PartChoice,
    threshold: float | None,
    expected_false: float | None,
    verify: bool,
) -> tuple[leaks.Leaks, list[str]]:
    """The copies, and what is wrong with candidates that cannot be read."""
    missing = sum(not path.is_file() for photos in sets for path in photos.paths)
    if verify and missing:
        say(f"{missing} photos are not where the embeddings say: candidates are not verified")
    with working_on() as progress:
        look = None
        if verify and not missing:
            train, validation = (photos.paths for photos in sets)
            look = PixelVerifier(train, others=validation, progress=partial(progress, "verifying"))
        found = leaks.find_leaks(
            *sets,
            part=part.value,
            threshold=threshold,
            expected_false=expected_false,
            verify=look,
            progress=partial(progress, "comparing"),
        )
    problems = (look.unreadable, look.unreadable_others) if look is not None else ()
    unreadable = [
        f"{photos.paths[row]}: {error.reason}"
        for photos, bad in zip(sets, problems, strict=False)
        for row, error in sorted(bad.items())
    ]
    for one in unreadable:
        say(f"not verified {one}")
    return found, unreadable


def _print(found: leaks.Leaks, sets: tuple[EmbeddedPhotos, EmbeddedPhotos]) -> None:
    train, validation = (photos.paths for photos in sets)
    console = output()
    verified = "verified by pixels" if found.verified else "not verified"
    console.print(f"Candidates: {found.threshold}")
    console.print(
        f"{found.candidates:,} candidates; {len(found.leaked):,} of {len(validation):,} validation "
        f"photos are copies of training photos ({verified})"
    )
    photos = (Column(name, overflow="fold") for name in ("validation", "training"))
    table = Table(*photos, "what was done to it")
    rows = leaks.table(found, train, validation)
    for row in rows[:_LISTED]:
        table.add_row(
            shown(text_of(row["validation"])),
            shown(text_of(row["train"])),
            shown(row.get("words", "–")),
        )
    if found.leaked:
        console.print(table)
    if len(rows) > _LISTED:
        console.print(f"… {len(rows) - _LISTED} more pairs; all of them: -o leaks.html")


def _write(out: Path, found: leaks.Leaks, sets: tuple[EmbeddedPhotos, EmbeddedPhotos]) -> str:
    """Write the pairs, or pictures of the leaked photos; returns how many of them."""
    train, validation = (photos.paths for photos in sets)
    if out.suffix.lower() in FORMATS:
        write_rows(out, leaks.table(found, train, validation), leaks.COLUMNS)
        return f"{len(found.pairs.a)} pairs"
    title = f"{len(found.leaked)} of {len(validation)} validation photos are copies"
    rows = leaks.shown(found, train, validation)
    summary = [f"Candidates: {found.threshold}."]
    return write_shown(out, title, summary, lambda first: rows[:first], len(rows), "leaks", "first")
