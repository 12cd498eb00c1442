"""``clever-hub embed``: many images into shards of embeddings, or one file."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clever_hub.cli.console import fail, report_skipped, say
from clever_hub.cli.options import Backend, Device, Model, OnError, OnErrorChoice, Revision
from clever_hub.embeddings import Skipped
from clever_hub.scale.storage import FOLDER

if TYPE_CHECKING:
    from clever_hub.scale.dataset import Summary
    from clever_hub.scale.planning import Changes

_SHOWN = 100


class _Decode(StrEnum):
    exact = "exact"
    reduced = "reduced"


class _Engine(StrEnum):
    local = "local"
    ray = "ray"


class _Precision(StrEnum):
    float32 = "float32"
    int8 = "int8"


def run(  # noqa: PLR0913, PLR0917  # one for each option
    model: Model,
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATHS...",
            help="Image files, folders, parquet files, data sets on the Hub, addresses such as "
            "s3://bucket/photos; - reads a list of paths from standard input.",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            help="A folder for shards, or a file: .parquet, .csv, .npz, .jsonl, .lance.",
        ),
    ],
    update: Annotated[
        bool,
        typer.Option(
            "--update",
            help="Update the folder: add new images, redo changed ones, retry unreadable ones, "
            "drop missing ones. Rows of photos that are not named now stay.",
        ),
    ] = False,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune",
            help="With --update: drop the rows of photos that are there but not named now.",
        ),
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Images in one batch.")] = 32,
    normalize: Annotated[
        bool, typer.Option("--normalize", help="Scale each part to a unit vector.")
    ] = False,
    decode: Annotated[
        _Decode,
        typer.Option(
            help="reduced: large JPEGs are shrunk while they are decoded, a fifth of the time at "
            "12 megapixels; pixels differ by 0.2 of 255 in the mean."
        ),
    ] = _Decode.exact,
    color_management: Annotated[
        bool, typer.Option("--color-management", help="Convert colour profiles to sRGB.")
    ] = False,
    background: Annotated[
        str | None,
        typer.Option(help="Colour behind transparent pixels, such as white or '#808080'."),
    ] = None,
    on_error: OnError = OnErrorChoice.raise_,
    shard_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Images in a shard, the most that a crash loses; 4096, or what the folder has.",
        ),
    ] = None,
    image_column: Annotated[
        str | None, typer.Option(help="The column of a table that holds the images.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the network; all cores when left out.")
    ] = None,
    num_workers: Annotated[
        int | None, typer.Option(min=1, help="Threads that decode; one for each core.")
    ] = None,
    precision: Annotated[
        _Precision,
        typer.Option(help="int8: faster on CPUs; made once from the model, checked, and cached."),
    ] = _Precision.float32,
    calibration: Annotated[
        list[str] | None,
        typer.Option(help="Photos like those to embed, to calibrate int8 on, or their folder."),
    ] = None,
    backend: Backend = "auto",
    device: Device = None,
    revision: Revision = None,
    engine: Annotated[
        _Engine, typer.Option(help="ray: on a cluster, by Ray Data.")
    ] = _Engine.local,
    address: Annotated[
        str | None,
        typer.Option(
            help="Address of the Ray cluster, such as auto. By default one is started here."
        ),
    ] = None,
) -> None:
    """Embed images into a folder of parquet shards, or into one file.

    Each image that can be read has a row: path, invariant and equivariant (lists of float32 of a
    fixed length). The metadata has the model, the hash of its weights and the options. If the
    command is stopped or killed, run it again: it loses one shard at most, and the rows are the
    same in the end. Images that cannot be read are listed at the end.

    Examples:
    - `clever-hub embed clever-resnet18 photos/ -o vectors/`
    - `clever-hub embed clever-resnet18 photos/ more/ -o vectors/ --update`
    - `clever-hub embed clever-resnet18 a.jpg b.png -o two.csv --normalize`
    - `find photos -name '*.jpg' -print0 | clever-hub embed clever-resnet18 - -o vectors/`

    Read them in Python: `pandas.read_parquet("vectors/")`. In DuckDB: `SELECT path,
    invariant::FLOAT[409] FROM 'vectors/*.parquet'`
    """
    from clever_hub.scale import embed_dataset

    # Threads of OpenMP that wait would spin, and take the cores from those that decode.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    done = embed_dataset(
        model,
        paths,
        out,
        engine=engine.value,
        update=update,
        prune=prune,
        backend=backend,
        precision=precision.value,
        calibration=calibration,
        device=device,
        revision=revision,
        threads=threads,
        num_workers=num_workers,
        batch_size=batch_size,
        normalize=normalize,
        decode=decode.value,
        color_management=color_management,
        background=background,
        shard_size=shard_size,
        image_column=image_column,
        progress=True,
        **({} if address is None else {"address": address}),
    )
    _report(done, on_error)


def _report(done: Summary, on_error: OnErrorChoice) -> None:
    bad = done.images - done.rows
    # The parts of a file are gone with their side tables.
    kept = "://" in done.output or Path(done.output, FOLDER).is_dir()
    shown = done.skipped[:_SHOWN] if kept else done.skipped
    report_skipped(Skipped(0, name, reason) for name, reason in shown)
    if bad > len(shown):
        where = (
            f"see {FOLDER}/skipped in the folder"
            if kept
            else "write to a folder to keep the whole list"
        )
        say(f"… {bad} in all; {where}")
    for name in done.changes.examples if done.changes else ():
        say(f"vanished {name}")
    if done.changes:
        _tell(done.changes, done.updated)
    there = "" if done.computed == done.rows else f", {done.computed} of them now"
    say(f"{done.rows} of {done.images} images embedded{there} → {done.output}")
    if bad and on_error is OnErrorChoice.raise_:
        fail(f"{bad} of {done.images} images could not be read. Allow it: --on-error skip")


def _tell(changes: Changes, updated: bool) -> None:
    """What has changed, what was done about it, and what would drop rows."""
    if updated:
        say(f"Updated: {changes.describe()}")
    elif changes.new or changes.changed or changes.vanished:
        say(f"The images have changed: {changes.describe()}. To follow: --update")
    if not changes.unnamed:
        return
    rows = f"The rows of {changes.unnamed} images that are there but not named now"
    if changes.pruned:
        say(f"{rows} were dropped")
    else:
        say(f"{rows} stay. To drop them: --update --prune")
