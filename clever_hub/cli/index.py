"""``clever-hub index``: photos into an index that can be searched."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from clever_hub.cli.checks import check_photos
from clever_hub.cli.console import Unread, report_skipped, say
from clever_hub.cli.jobs import DecodeChoice, load
from clever_hub.cli.options import Backend, Device, JobModel, OnError, OnErrorChoice, Revision
from clever_hub.errors import ConfigError, DataError, require
from clever_hub.images.finding import find_images
from clever_hub.images.progress import counting
from clever_hub.jobs.search import PhotoIndex
from clever_hub.jobs.tables import check_place


def run(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATHS...", help="Image files, or folders with images.")
    ],
    *,
    out: Annotated[
        Path, typer.Option("--output", "-o", help="The folder of the index, such as photos.lance.")
    ],
    model: JobModel = None,
    decode: Annotated[
        DecodeChoice | None,
        typer.Option(
            help="reduced lets the JPEG decoder shrink large photos: several times faster. The "
            "default is what the index was made with, of a new one reduced.",
            show_default=False,
        ),
    ] = None,
    on_error: OnError = OnErrorChoice.raise_,
    backend: Backend = "auto",
    device: Device = None,
    revision: Revision = None,
) -> None:
    """Index photos for `clever-hub search`, or bring an index up to date.

    New photos are added, changed ones are embedded again, missing ones are removed. After an
    interruption the same command goes on. The index is a LanceDB table with two vectors for each
    photo, one for each part of its embedding. Photos that cannot be read are named and left out;
    the exit code is then 1, unless --on-error skip accepts that.

    Examples:
    - `clever-hub index photos/ -o photos.lance`
    - `clever-hub search photos.lance query.jpg`
    """
    require("lancedb", "search")
    check_photos(paths)
    check_place(out, "--output", folder=True)
    if was_there := PhotoIndex.is_there(out):  # it knows what made it
        about = PhotoIndex.open(out).about
        model = model or about.source
        if decode is not None and decode.value != about.decode:
            raise ConfigError(
                f"--decode {decode}: the photos of {out} were decoded as by {about.decode}; "
                "leave the option out, or make another index"
            )
    files = list(find_images(paths))
    loaded = load(model, backend, device, revision)
    index = PhotoIndex.open_or_create(out, loaded, files, decode and decode.value)
    with counting("indexing", len(files)) as advance:
        changes = index.update(loaded, files, advance)
    report_skipped(changes.skipped)
    if not len(index):
        if not was_there:
            shutil.rmtree(out, ignore_errors=True)
        raise DataError(f"none of the {len(files)} photos could be read: the index is empty")
    say(
        f"{changes.added} added, {changes.changed} changed, {changes.dropped} dropped, "
        f"{changes.kept} as they were: {len(index)} photos in {out}"
    )
    unread = Unread()
    unread.photos = len(changes.skipped)
    unread.judge(on_error is OnErrorChoice.skip)
