"""``clever-hub duplicates``: groups of copies among photos."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from rich.table import Column, Table

from clever_hub.cli.checks import check_candidates, check_part, check_photos
from clever_hub.cli.console import (
    Unread,
    file_size,
    output,
    report_skipped,
    say,
    say_unused,
    shown,
)
from clever_hub.cli.jobs import (
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
    VerifyChoice,
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
from clever_hub.cli.options import Backend, Device, JobModel, OnError, OnErrorChoice, Revision
from clever_hub.cli.progress import working_on
from clever_hub.errors import ConfigError, DataError, require
from clever_hub.jobs import groups as grouped
from clever_hub.jobs.best import BestPhotos
from clever_hub.jobs.candidates import check_enough
from clever_hub.jobs.duplicates import Duplicates, find_duplicates
from clever_hub.jobs.embedded import EmbeddedPhotos, ModelKey
from clever_hub.jobs.moving import LOG_NAME, check_folder, move_all, undo
from clever_hub.jobs.nearest import APPROXIMATE_FROM
from clever_hub.jobs.photo_files import file_bytes
from clever_hub.jobs.rows import Photo, image_tables
from clever_hub.jobs.sheets import ShownRow
from clever_hub.jobs.tables import FORMATS, check_place, text_of, write_rows
from clever_hub.jobs.verifying import PixelVerifier
from clever_hub.scale.locating import table_of

if TYPE_CHECKING:
    from clever_hub.jobs.answering import JobsMixin
    from clever_hub.jobs.heads import Heads

_LISTED = 20  # groups that are printed
_NO_FILES = (
    "--move-to moves files, and some of the photos are rows of tables. Write the groups, and leave "
    "out the rows that are not the best: -o groups.csv"
)


def run(  # noqa: PLR0913, each is an option
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PATHS...",
            help="Image files, folders with images, parquet tables with images, or one file of "
            "embeddings, as `clever-hub embed` writes it.",
        ),
    ] = None,
    *,
    out: Output = None,
    model: JobModel = None,
    expected_false: ExpectedFalse = None,
    threshold: LeastCosine = None,
    part: CandidatePart = PartChoice.invariant,
    verify: Annotated[
        VerifyChoice,
        typer.Option(
            help="How candidates are verified. pixels: align the photos, compare them; heads: ask "
            "the model; none: trust the cosine; auto: the first of these that is available."
        ),
    ] = VerifyChoice.auto,
    turns: Turns = None,
    exact: Exact = None,
    move_to: Annotated[
        Path | None,
        typer.Option(help="Move all but the best photo of each group to this folder, with a log."),
    ] = None,
    undo_move: Annotated[
        Path | None,
        typer.Option("--undo", help="Bring back what was moved: the folder, or its moved.jsonl."),
    ] = None,
    on_error: OnError = OnErrorChoice.raise_,
    decode: Decode = DecodeChoice.reduced,
    image_column: ImageColumn = None,
    cache: Cache = None,
    backend: Backend = "auto",
    device: Device = None,
    revision: Revision = None,
) -> None:
    """Find copies among photos, even turned, mirrored, cropped, recoloured or framed ones.

    Photos with similar embeddings become candidates. Then one photo of each candidate pair is
    aligned to the other and their pixels are compared, which also tells what was done to it. The
    best photo of a group is the one with the most pixels; of several, the one in colour, with a
    camera's EXIF tags, lossless, the largest file, or the oldest. Nothing is ever deleted.

    Photos that cannot be read are named and left out. The exit code is then 1, unless --on-error
    skip accepts that.

    Examples:
    - `clever-hub duplicates photos/`
    - `clever-hub duplicates photos/ -o groups.html`
    - `clever-hub duplicates train.parquet -o groups.csv`
    - `clever-hub duplicates photos/ --move-to copies/`
    - `clever-hub duplicates --undo copies/`
    """
    if undo_move is not None:
        if paths or move_to is not None or out is not None:
            raise ConfigError(
                "--undo brings back what was moved; leave out PATHS, --move-to and -o"
            )
        _undo(undo_move)
        return
    if not paths:
        raise ConfigError("expected image files, folders or a parquet file: `duplicates photos/`")
    check_candidates(threshold, expected_false)
    if out is not None:
        check_output(out, paths, image_column)
    if move_to is not None:
        check_place(move_to, "--move-to", folder=True)
    asked = _Asked(verify, part.value, threshold, expected_false, exact, move_to, image_column)
    unread, where = Unread(), (backend, device, revision)
    photos, heads = _photos(paths, asked, model, turns, cache, decode, where, unread)
    found, look, ranking = _find(photos, heads, asked)
    members = grouped.members(found, look)
    _print(found, members, photos.paths, ranking)
    if out is not None:
        say(f"{_write(out, found, members, photos.paths, ranking)} → {out}")
    if move_to is not None:
        _move(photos, found, move_to)
    unread.photos += len(look.unreadable) if look is not None else 0
    unread.judge(on_error is OnErrorChoice.skip)


class _Asked(NamedTuple):
    """What is asked of the photos; as the options of the verb."""

    verify: VerifyChoice
    part: str
    threshold: float | None
    expected_false: float | None
    exact: bool | None
    move_to: Path | None
    image_column: str | None

    @property
    def by_pixels(self) -> bool:
        return self.verify in (VerifyChoice.auto, VerifyChoice.pixels)

    def check(self, photos: Sequence[Photo], searched: Sequence[Path]) -> None:
        """Refuse what cannot be done with these photos, before they are embedded.

        Raises:
            ConfigError: When there are too few of them to measure a rate on, or when rows of a
                table are to be moved.
            DataError: When they cannot be moved to the folder.
            MissingExtraError: When a package is not installed.
        """
        if self.by_pixels:
            require("cv2", "jobs")
        if self.exact is False or (self.exact is None and len(photos) > APPROXIMATE_FROM):
            require("lancedb", "search")
        if self.verify is not VerifyChoice.heads:  # their calibration has a threshold for few
            check_enough(
                len(photos),
                threshold=self.threshold,
                expected_false=self.expected_false,
                verified=self.by_pixels,
            )
        if self.move_to is not None:
            check_folder(_files(photos), self.move_to, searched)


def _files(photos: Sequence[Photo]) -> list[Path]:
    """The photos as files that can be moved.

    Raises:
        ConfigError: When one is a row of a table.
    """
    files = [photo for photo in photos if isinstance(photo, Path) and table_of(photo) is None]
    if len(files) < len(photos):
        raise ConfigError(_NO_FILES)
    return files


def _move(photos: EmbeddedPhotos, found: Duplicates, folder: Path) -> None:
    """Move all but the best photo of each group; of embeddings, those that are there."""
    surplus = _files([photos.paths[row] for row in found.surplus])
    there = [path for path in surplus if path.is_file()]
    if len(there) < len(surplus):
        say(f"{len(surplus) - len(there)} photos are not where they were, and cannot be moved")
    moves = move_all(there, folder)
    back = f". Bring them back: clever-hub duplicates --undo {folder}" if moves else ""
    say(f"{len(moves)} photos moved{back}")


def _photos(
    paths: list[Path],
    asked: _Asked,
    name: str | None,
    turns: bool | None,
    cache: Path | None,
    decode: DecodeChoice,
    where: tuple[str, str | None, str | None],
    unread: Unread,
) -> tuple[EmbeddedPhotos, Heads | None]:
    """Photos with their embeddings, and the model's heads where they are to be asked."""
    by_heads = asked.verify is VerifyChoice.heads
    check_photos(paths, embeddings=True)
    if any(is_embeddings(path, asked.image_column) for path in paths):
        if len(paths) > 1:
            raise ConfigError(f"expected one file of embeddings, or images; got {len(paths)} paths")
        say_embedded(paths[0], turns, cache, decode, None if by_heads else (name, *where))
        photos = read_photos(paths[0], asked.image_column)
        report_skipped(photos.embeddings.skipped)
        unread.photos = len(photos.embeddings.skipped)
        photos = _present(photos, paths[0], asked.verify)
        if asked.move_to is not None:
            check_folder(_files(photos.paths), asked.move_to)
        if not by_heads:
            return photos, None
        loaded = load(name, *where)
        _check_same_model(photos, loaded, paths[0])
        return photos, loaded.heads
    check_column(paths, asked.image_column)
    if asked.move_to is not None and any(image_tables(path, asked.image_column) for path in paths):
        raise ConfigError(_NO_FILES)
    found = find_photos(paths, asked.image_column, unread.leave_out)
    asked.check(found, paths)
    loaded = load(name, *where)
    check_part(loaded, asked.part)
    heads = loaded.heads if by_heads else None  # before the work
    if by_heads:
        say_unused({"--turns": turns is True}, "the heads read each photo as it lies")
    averaged = turns is not False and not by_heads
    photos = embedded(loaded, found, cache=cache, averaged=averaged, decode=decode)
    unread.photos = len(photos.embeddings.skipped)
    return photos, heads


def _present(photos: EmbeddedPhotos, file: Path, verify: VerifyChoice) -> EmbeddedPhotos:
    """The photos that are there, if they are to be looked at; all of them if none is.

    What has gone, such as copies that were moved away, is no copy any more.
    """
    there = photos.there()
    if verify in (VerifyChoice.heads, VerifyChoice.none) or there.all():
        return photos
    gone = [path for path, is_there in zip(photos.paths, there, strict=True) if not is_there]
    if there.any():
        for path in gone[:_LISTED]:
            say(f"left out {path}: no such file")
        say(f"{len(gone)} of {len(photos)} photos are not where {file} says, and are left out")
        return photos.take(there)
    if verify is VerifyChoice.pixels:
        raise DataError(
            f"{file}: none of its {len(photos)} photos is found, so no pixels can be compared. "
            "Call it from where the photos are, or take --verify none or --verify heads"
        )
    say(
        f"NOT VERIFIED: none of the {len(photos)} photos is where {file} says; the cosine alone "
        "decides. Call it from where the photos are, or ask a model that has heads: --verify heads"
    )
    return photos


def _check_same_model(photos: EmbeddedPhotos, model: JobsMixin, file: Path) -> None:
    """Refuse heads that were fitted to other embeddings than those of the file."""
    if ModelKey(photos.weights, photos.config).differs(ModelKey.of(model)):
        raise DataError(
            f"{file}: its embeddings are of another model than {model.config.name}, whose heads "
            "cannot read them. Name the model that made them: --model"
        )


def _find(
    photos: EmbeddedPhotos,
    heads: Heads | None,
    asked: _Asked,
) -> tuple[Duplicates, PixelVerifier | None, BestPhotos]:
    if asked.exact is not True and len(photos) > APPROXIMATE_FROM:
        say(f"{len(photos):,} photos: an index finds each one's nearest. To compare all: --exact")
    look, ranking = _verifier(photos, asked), BestPhotos(photos.paths)
    with working_on() as progress:
        if look is not None:
            look.progress = partial(progress, "verifying")
        found = find_duplicates(
            photos.embeddings,
            part=asked.part,
            threshold=asked.threshold,
            expected_false=asked.expected_false,
            heads=heads,
            verify=look,
            ranking=ranking,
            exact=asked.exact,
            progress=partial(progress, "comparing"),
        )
    for row, error in sorted(look.unreadable.items() if look is not None else ()):
        say(f"not verified {photos.paths[row]}: {error.reason}")
    return found, look, ranking


def _verifier(photos: EmbeddedPhotos, asked: _Asked) -> PixelVerifier | None:
    if not asked.by_pixels:
        return None
    if len(photos) and not photos.there().any():
        return None
    return PixelVerifier(photos.paths)


def _print(
    found: Duplicates,
    members: Sequence[Sequence[grouped.Member]],
    paths: Sequence[Photo],
    ranking: BestPhotos,
) -> None:
    console = output()
    console.print(f"Candidates: {found.threshold}")
    for line in missed(found):
        console.print(line)
    verified = "not verified" if found.verified_by == "nothing" else f"by {found.verified_by}"
    console.print(
        f"{found.candidates:,} candidates, {len(found.pairs.a):,} pairs of copies ({verified})"
    )
    surplus = [paths[row] for row in found.surplus]
    size = file_size(sum(file_bytes(path) for path in surplus))
    console.print(
        f"{len(found.groups):,} groups; {len(surplus):,} photos beside the best of each ({size})"
    )
    table = Table("group", Column("photo", overflow="fold"), "what was done to the first")
    for number, group in enumerate(members[:_LISTED], 1):
        why = f"best: {ranking.why([member.row for member in group])}"
        for member in group:
            words = "–" if member.verdict is None else member.verdict.words()
            if member.of is not None and member.of != group[0].row:
                words += f" (from {text_of(paths[member.of].name)})"
            first = member.of is None
            table.add_row(
                str(number) if first else "",
                shown(text_of(paths[member.row])),
                why if first else shown(words),
            )
        table.add_section()
    if members:
        console.print(table)
    if len(members) > _LISTED:
        console.print(f"… {len(members) - _LISTED} more groups; all of them: -o groups.html")


def _write(
    out: Path,
    found: Duplicates,
    members: Sequence[Sequence[grouped.Member]],
    paths: Sequence[Photo],
    ranking: BestPhotos,
) -> str:
    """Write the groups; returns how many of them."""
    if out.suffix.lower() in FORMATS:
        write_rows(out, grouped.table(members, paths), grouped.COLUMNS)
        return f"{len(members)} groups"
    title = f"{len(members)} groups of copies among {len(paths)} photos"
    summary = [f"Candidates: {found.threshold}.", f"Verified by {found.verified_by}."]
    summary += missed(found)

    def rows(first: int) -> list[ShownRow]:
        return grouped.shown(members[:first], paths, ranking.why)

    return write_shown(out, title, summary, rows, len(members), "groups", "largest")


def _undo(where: Path) -> None:
    back, problems = undo(where)
    for problem in problems:
        say(problem)
    say(f"{len(back)} photos brought back")
    if problems:
        raise ConfigError(f"{len(problems)} photos stay where they are; they are in {LOG_NAME}")
