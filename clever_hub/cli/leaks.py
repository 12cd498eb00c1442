"""``clever-hub leaks``: validation photos that are copies of training photos."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple, TypeAlias

import typer
from rich.table import Column, Table

from clever_hub.cli.checks import check_candidates, check_part, check_photos
from clever_hub.cli.console import fail, output, report_skipped, say, shown
from clever_hub.cli.jobs import (
    FEWER,
    LIMITED,
    Cache,
    CandidatePart,
    Decode,
    DecodeChoice,
    Exact,
    ExpectedFalse,
    ImageColumn,
    LeastCosine,
    Output,
    PartChoice,
    Turns,
    check_column,
    check_output,
    embedded,
    find_photos,
    is_embeddings,
    load,
    missed,
    read_photos,
    say_embedded,
    write_shown,
)
from clever_hub.cli.options import (
    Backend,
    Device,
    JobModel,
    OnError,
    OnErrorChoice,
    Revision,
)
from clever_hub.cli.progress import working_on
from clever_hub.errors import ConfigError, DataError, require
from clever_hub.jobs import leaks
from clever_hub.jobs.candidates import check_enough
from clever_hub.jobs.embedded import EmbeddedPhotos
from clever_hub.jobs.tables import FORMATS, text_of, write_rows
from clever_hub.jobs.verifying import PixelVerifier

_LISTED = 20  # leaks that are printed
_NAMED = 100  # photos that could not be read

Sets: TypeAlias = tuple[EmbeddedPhotos, EmbeddedPhotos]


class Unchecked(NamedTuple):
    """What stands against the answer that there are no more leaks.

    Attributes:
        skipped: Photos that could not be read, and so not be compared.
        unread: Photos of candidates that could not be read, and so not be looked at.
        lost: Of which side no photo was found, so that no candidate was looked at; else empty.
    """

    skipped: int
    unread: int
    lost: str


def run(  # noqa: PLR0913, each is an option
    train: Annotated[
        Path,
        typer.Argument(
            metavar="TRAIN", help="Folder of photos, table of images, or file of embeddings."
        ),
    ],
    validation: Annotated[
        Path,
        typer.Argument(metavar="VALIDATION", help="The validation photos, in one of these forms."),
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
    exact: Exact = None,
    on_error: OnError = OnErrorChoice.raise_,
    turns: Turns = None,
    decode: Decode = DecodeChoice.reduced,
    image_column: ImageColumn = None,
    cache: Cache = None,
    backend: Backend = "auto",
    device: Device = None,
    revision: Revision = None,
) -> None:
    """Find validation photos that are copies of training photos, however they were changed.

    The exit code is 1 if there are any, so that a CI pipeline stops. It is 1, too, if a photo of
    either side, or of a candidate, could not be read: it was not checked. --on-error skip accepts
    that. Embeddings are enough to find candidates; to look at them, the photos are needed. If none
    is found, the exit code is 1, unless --no-verify leaves it to the embeddings.

    A model that was trained on copies of the validation photos looks better than it is.

    Examples:
    - `clever-hub leaks train/ validation/`
    - `clever-hub leaks train.parquet validation.parquet -o leaks.html`

    In the second example the files hold images, as data sets on the Hub do, or embeddings, as
    `clever-hub embed` writes them.
    """
    check_candidates(threshold, expected_false)
    if out is not None:
        check_output(out, (train, validation), image_column)
    asked = _Asked(part.value, threshold, expected_false, verify, exact, image_column)
    paths = (train, validation)
    sets = _photos(paths, asked, model, turns, cache, decode, (backend, device, revision))
    found, unchecked = _find(sets, asked)
    _print(found, sets, unchecked)
    if out is not None:
        say(f"{_write(out, found, sets, unchecked)} → {out}")
    _judge(found, unchecked, on_error)


class _Asked(NamedTuple):
    """What is asked of the photos; as the options of the verb."""

    part: str
    threshold: float | None
    expected_false: float | None
    verify: bool
    exact: bool | None
    image_column: str | None

    def indexes(self, train: int, validation: int) -> bool:
        """Whether an index finds the candidates among so many photos."""
        return leaks.is_approximate(train, validation) if self.exact is None else not self.exact


def _check_apart(train: Path, validation: Path, *, embeddings: bool) -> None:
    """Refuse a side that holds the other: its photos would be copies of themselves."""
    a, b = train.resolve(), validation.resolve()
    if embeddings:  # of a folder its own files are read, not those of a folder in it
        holds = a in (b, b.parent) or b == a.parent
    else:
        holds = a.is_relative_to(b) or b.is_relative_to(a)
    if holds:
        raise ConfigError(
            f"TRAIN and VALIDATION: expected two sets of photos, got {train} and {validation}, "
            "which hold the same photos. Name two that share none, such as data/train and data/val"
        )


def _judge(found: leaks.Leaks, unchecked: Unchecked, on_error: OnErrorChoice) -> None:
    """End with exit code 1 for copies, and for what was not checked: it must not pass."""
    if unchecked.lost:
        fail(
            f"no candidate was looked at: none of {unchecked.lost} was found. Call it from where "
            "the photos are, or leave it to the embeddings: --no-verify"
        )
    problems = [f"{unchecked.skipped} photos could not be read, and were not checked"]
    problems += [f"{unchecked.unread} photos of candidates could not be read; they may be copies"]
    counts = (unchecked.skipped, unchecked.unread)
    said = "; ".join(words for words, count in zip(problems, counts, strict=True) if count)
    if said and on_error is OnErrorChoice.raise_:
        fail(f"{said}. Accept it: --on-error skip")
    if found.limited:
        fail(f"{LIMITED}, and were not checked. {FEWER}")
    if found.leaked:
        raise typer.Exit(1)


def _photos(
    paths: tuple[Path, Path],
    asked: _Asked,
    name: str | None,
    turns: bool | None,
    cache: Path | None,
    decode: DecodeChoice,
    where: tuple[str, str | None, str | None],
) -> Sets:
    check_photos(paths, embeddings=True)
    files = [is_embeddings(path, asked.image_column) for path in paths]
    _check_apart(*paths, embeddings=all(files))
    if all(files):
        say_embedded(paths[0], turns, cache, decode, (name, *where))
        first, second = (read_photos(path, asked.image_column) for path in paths)
        for path, side in zip(paths, (first, second), strict=True):
            report_skipped(side.embeddings.skipped)
            if not len(side):
                raise DataError(f"{path}: expected embeddings of photos, got none")
        return first, second
    check_column(paths, asked.image_column)
    if any(files):
        raise ConfigError("expected photos on both sides, or embeddings on both; got one each")
    if asked.verify:
        require("cv2", "jobs")
    train, validation = (find_photos([path], asked.image_column) for path in paths)
    if asked.indexes(len(train), len(validation)):
        require("lancedb", "search")
    check_enough(
        len(train),
        len(validation),
        threshold=asked.threshold,
        expected_false=asked.expected_false,
        verified=asked.verify,
    )
    loaded = load(name, *where)
    check_part(loaded, asked.part)
    first, second = (
        embedded(loaded, side, cache=cache, averaged=turns is not False, decode=decode)
        for side in (train, validation)
    )
    return first, second


def _find(sets: Sets, asked: _Asked) -> tuple[leaks.Leaks, Unchecked]:
    """The copies, and what could not be checked."""
    if asked.exact is None and asked.indexes(*map(len, sets)):
        say(
            f"{len(sets[0]) * len(sets[1]):,} pairs: an index finds each validation photo's "
            "nearest. To compare all: --exact"
        )
    lost = _lost(sets) if asked.verify else ""
    with working_on() as progress:
        look = None
        if asked.verify and not lost:
            train, validation = (photos.paths for photos in sets)
            look = PixelVerifier(train, others=validation, progress=partial(progress, "verifying"))
        found = leaks.find_leaks(
            *sets,
            part=asked.part,
            threshold=asked.threshold,
            expected_false=asked.expected_false,
            verify=look,
            exact=asked.exact,
            progress=partial(progress, "comparing"),
        )
    problems = (look.unreadable, look.unreadable_others) if look is not None else ()
    unread = [
        f"{photos.paths[row]}: {error.reason}"
        for photos, bad in zip(sets, problems, strict=False)
        for row, error in sorted(bad.items())
    ]
    for one in unread[:_NAMED]:
        say(f"not verified {one}")
    if len(unread) > _NAMED:
        say(f"… {len(unread) - _NAMED} more")
    skipped = sum(len(photos.embeddings.skipped) for photos in sets)
    return found, Unchecked(skipped, len(unread), lost)


def _lost(sets: Sets) -> str:
    """The sides of which no photo is found; says of others how many are missing."""
    lost = []
    for name, photos in zip(("training", "validation"), sets, strict=True):
        there = int(photos.there().sum())
        if missing := len(photos) - there:
            say(f"{missing} of {len(photos)} {name} photos are not where their embeddings say")
        if len(photos) and not there:
            lost.append(f"the {name} photos")
    if lost:
        say(f"NOT VERIFIED: none of {' and '.join(lost)} is found; the cosine alone decides")
    return " and ".join(lost)


def _print(found: leaks.Leaks, sets: Sets, unchecked: Unchecked) -> None:
    train, validation = (photos.paths for photos in sets)
    console = output()
    verified = "verified by pixels" if found.verified else "not verified"
    if unchecked.skipped or unchecked.unread:
        verified += f", {unchecked.skipped + unchecked.unread} photos could not be read"
    console.print(f"Candidates: {found.threshold}")
    for line in missed(found):
        console.print(line)
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


def _write(out: Path, found: leaks.Leaks, sets: Sets, unchecked: Unchecked) -> str:
    """Write the pairs, or pictures of the leaked photos; returns how many of them."""
    train, validation = (photos.paths for photos in sets)
    if out.suffix.lower() in FORMATS:
        write_rows(out, leaks.table(found, train, validation), leaks.COLUMNS)
        return f"{len(found.pairs.a)} pairs"
    title = f"{len(found.leaked)} of {len(validation)} validation photos are copies"
    rows = leaks.shown(found, train, validation)
    summary = [f"Candidates: {found.threshold}.", *missed(found)]
    if not found.verified:
        summary.append("Not verified: the cosine alone decided.")
    if unread := unchecked.skipped + unchecked.unread:
        summary.append(f"{unread} photos could not be read, and were not checked.")
    return write_shown(out, title, summary, lambda first: rows[:first], len(rows), "leaks", "first")
