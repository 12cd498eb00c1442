"""``clever-hub orient``: find photos that are sideways or upside down; set their EXIF tag."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from rich.table import Table

from clever_hub.cli.checks import check_photos
from clever_hub.cli.console import Unread, fail, output, report_skipped, say, shown
from clever_hub.cli.loading import load_model
from clever_hub.cli.options import Backend, JobModel, OnError, OnErrorChoice
from clever_hub.errors import ConfigError, DataError, require
from clever_hub.images.finding import find_images

if TYPE_CHECKING:
    from clever_hub.embeddings import Skipped
    from clever_hub.jobs.answering import JobsMixin

COLUMNS = {"path": str, "quarter": int, "confidence": float, "angle": float, "turn": bool}
_ERROR_RATE = 0.01
_SHOWN = 40
_SHEET = 60


class Found(NamedTuple):
    """How a photo is turned.

    Attributes:
        path: The photo.
        quarter: Degrees counter-clockwise by which it is turned: 0, 90, 180 or 270.
        confidence: Probability of that.
        angle: The same without rounding to quarters; a photo may lie askew.
        turn: Whether it is to be turned: not upright, and surely so.
    """

    path: Path
    quarter: int
    confidence: float
    angle: float
    turn: bool


def run(  # noqa: PLR0913, each is an option
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PATHS...", help="Photos, or folders with photos.", show_default=False
        ),
    ] = None,
    *,
    model: JobModel = None,
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A table of all photos: .parquet, .csv or .json."),
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="A picture of what would be turned, a .png.")
    ] = None,
    confidence: Annotated[
        float | None,
        typer.Option(
            min=0.25,
            max=1.0,
            help="Turn only photos with at least this confidence. By default, 1 % of the turned "
            "photos are expected to be wrong by the model's calibration; on others it was 3 % for "
            "clever-efficientnet-lite0, 9 to 31 % for the other models.",
        ),
    ] = None,
    upright: Annotated[
        float,
        typer.Option(min=0.01, max=0.99, help="Share of the photos that are upright already."),
    ] = 0.9,
    apply: Annotated[
        bool, typer.Option("--apply", help="Write the orientation tags. Otherwise nothing changes.")
    ] = False,
    log: Annotated[Path, typer.Option(help="Log of what --apply did, for --undo.")] = Path(
        "orient-log.jsonl"
    ),
    undo: Annotated[
        bool, typer.Option("--undo", help="Undo everything in --log, byte for byte.")
    ] = False,
    on_error: OnError = OnErrorChoice.raise_,
    backend: Backend = "auto",
) -> None:
    """Find photos that are sideways or upside down, and set them upright.

    Each photo is looked at in all four positions. If the model is not sure, the photo is left
    alone: turning it the wrong way would be worse. --apply writes the EXIF orientation tag of JPEGs
    and changes no pixel. It skips photos that such a tag turns already. Photos that cannot be read
    are named and left out; the exit code is then 1, unless --on-error skip accepts that.

    Examples:
    - `clever-hub orient photos/ --sheet turned.png`: a dry run, with a picture
    - `clever-hub orient photos/ --apply --log turned.jsonl`
    - `clever-hub orient --undo --log turned.jsonl`
    """
    if undo:
        if paths or apply:
            raise ConfigError(
                "orient: --undo takes back what is in --log; leave out PATHS, --apply"
            )
        _undo(log)
        return
    _check(paths or [], out, sheet, log if apply else None)
    unread = Unread()
    files = list(find_images(paths or [], unread.leave_out))
    from clever_hub.jobs.default import default_model
    from clever_hub.jobs.orient import QUARTERS, least_confidences

    loaded = load_model(model or default_model(heads=True), backend)
    least = (
        least_confidences(loaded.heads, _ERROR_RATE, from_four=True, upright=upright)
        if confidence is None
        else dict.fromkeys(QUARTERS[1:], confidence)
    )
    found, skipped = _look(loaded, files, upright, least)
    turns = [one for one in found if one.turn]
    _print(turns, len(found), least)
    if out is not None:
        from clever_hub.jobs.tables import write_rows

        write_rows(out, [one._asdict() for one in found], COLUMNS)
        say(f"{len(found)} photos → {out}")
    if sheet is not None:
        _draw(turns, sheet, loaded.config.name)
    report_skipped(skipped)
    if not found:
        raise DataError(f"none of the {len(files)} photos could be read")
    if apply:
        _apply(turns, log)
    elif turns:
        _say_what_apply_would_do(turns)
    unread.photos = len(skipped)
    unread.judge(on_error is OnErrorChoice.skip)


def _check(paths: list[Path], out: Path | None, sheet: Path | None, log: Path | None) -> None:
    """Refuse what would fail when all photos were looked at; the log is None where none is kept."""
    from clever_hub.jobs.logs import check_log
    from clever_hub.jobs.tables import check_format, check_place

    if not paths:
        raise ConfigError("orient: expected photos or folders, got none")
    check_photos(paths)
    if sheet is not None:
        check_format(sheet, (".png",), "--sheet", inputs=paths)
    if out is not None:
        check_format(out)
    if log is not None:
        require("exif", "jobs")
        check_place(log, "--log")
        check_log(log)


def _look(
    model: JobsMixin, files: list[Path], upright: float, least: dict[int, float]
) -> tuple[list[Found], list[Skipped]]:
    from clever_hub.images.progress import counting
    from clever_hub.jobs.orient import orientation_from_four

    found: list[Found] = []
    skipped: list[Skipped] = []
    with counting("looking at photos", len(files)) as advance:
        for batch in model.encode_turned(files, on_error="skip"):
            o = orientation_from_four(batch.turned, model.heads, upright=upright)
            for row, source in enumerate(batch.sources):
                quarter, sure = int(o.quarter[row]), float(o.confidence[row])
                turn = quarter != 0 and sure >= least[quarter]
                found.append(Found(Path(source), quarter, sure, float(o.angle[row]), turn))
            skipped += batch.skipped
            advance(len(batch.sources) + len(batch.skipped))
    return found, skipped


def _print(turns: list[Found], photos: int, least: dict[int, float]) -> None:
    sure = f"{least[90]:.3f} or more"
    if least[90] != least[180]:
        sure = f"sideways {sure}, upside down {least[180]:.3f}"
    table = Table(
        title=f"{len(turns)} of {photos} photos are turned (confidence: {sure})",
        title_justify="left",
    )
    for name in ("photo", "turned by", "turn it", "confidence"):
        table.add_column(name, justify="left" if name == "photo" else "right", overflow="fold")
    lies = {90: "90° counter-clockwise", 180: "180°", 270: "90° clockwise"}
    mends = {90: lies[270], 180: lies[180], 270: lies[90]}
    for one in sorted(turns, key=lambda one: -one.confidence)[:_SHOWN]:
        table.add_row(
            shown(str(one.path)),
            lies[one.quarter],
            mends[one.quarter],
            f"{one.confidence:.3f}",
        )
    if len(turns) > _SHOWN:
        table.add_row(f"… {len(turns) - _SHOWN} more", "", "", "")
    output().print(table)


def _draw(turns: list[Found], target: Path, name: str) -> None:
    """Each photo as it would be shown, an arrow saying where its top was."""
    from clever_hub.cli.pictures import page, shortened
    from clever_hub.files import atomic_path
    from clever_hub.images.opening import load_image

    if not turns:
        say(f"no photo would be turned, so {target} was not drawn")
        return
    side = 180
    panels = []
    for one in sorted(turns, key=lambda one: one.confidence)[:_SHEET]:
        photo = load_image(one.path)
        photo.thumbnail((2 * side, 2 * side))
        caption = (
            f"{shortened(one.path.name, side)}\n{one.quarter}°, confidence {one.confidence:.3f}"
        )
        panels.append((caption, photo.rotate(-one.quarter, expand=True)))
    note = f"As they would be shown, the least sure first. Looked at by {name}."
    count = f"{len(turns)}" if len(turns) <= _SHEET else f"{_SHEET} of {len(turns)}"
    picture = page(f"{count} photos that would be turned", note, panels, side=side, across=6)
    with atomic_path(target) as temporary:
        picture.save(temporary, format="PNG")
    say(f"{min(len(turns), _SHEET)} of {len(turns)} turned photos → {target}")


def _say_what_apply_would_do(turns: list[Found]) -> None:
    from clever_hub.jobs.tagging import why_not

    able = sum(not why_not(one.path) for one in turns)
    which = "them" if able == len(turns) else f"{able} of them"
    if able:
        say(f"Nothing was changed. To turn {which} by their tag: add --apply")
    else:
        say("Nothing was changed. --apply could turn none of them: it writes tags of JPEGs alone")


def _apply(turns: list[Found], log: Path) -> None:
    from clever_hub.jobs.tagging import apply_turns

    done = apply_turns(((one.path, one.quarter) for one in turns), log)
    written = _report((tagged.path, tagged.problem) for tagged in done)
    back = f". Take it back: --undo --log {log}" if written else ""
    say(f"{written} of {len(turns)} photos turned by their tag{back}")
    if turns and not written:
        fail("no photo could be turned; each is named above with the reason")


def _undo(log: Path) -> None:
    from clever_hub.jobs.tagging import undo_turns

    results = [(tagged.path, tagged.problem) for tagged in undo_turns(log)]
    _report(results)
    # A photo that was turned twice has two lines in the log.
    photos = {path for path, _ in results}
    lost = {path for path, problem in results if problem}
    say(f"{len(photos) - len(lost)} of {len(photos)} photos are as they were before")
    if lost:
        fail(f"{len(lost)} photos could not be taken back; they are named above")


def _report(results: Iterable[tuple[Path, str]]) -> int:
    """Name what was left alone; count the rest."""
    written = 0
    for path, problem in results:
        if problem:
            say(f"left alone {path}: {problem}")
        written += not problem
    return written
