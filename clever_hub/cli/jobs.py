"""What the verbs of jobs share: options, and photos with their embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias, cast

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from clever_hub.cli.console import report_skipped
from clever_hub.cli.loading import load_model
from clever_hub.files import cache_folder
from clever_hub.images.finding import find_images
from clever_hub.jobs.embedded import EmbeddedPhotos
from clever_hub.jobs.pairs import Progress as Advance
from clever_hub.jobs.store import embed_photos

if TYPE_CHECKING:
    from clever_hub.jobs.answering import JobsMixin

DEFAULT_MODEL = "clever-resnet18"


class DecodeChoice(StrEnum):
    """How JPEGs are decoded."""

    reduced = "reduced"
    exact = "exact"


JobModel: TypeAlias = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="A name from `clever-hub list`, a model folder, or user/name on the Hub.",
    ),
]
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
    bool,
    typer.Option(
        "--turns/--no-turns",
        help="Embed each photo in all four quarter turns and take the mean: finds more turned "
        "copies, for four times the work of the model.",
    ),
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


def embedded(
    model: JobsMixin,
    paths: list[Path],
    *,
    cache: Path | None,
    averaged: bool,
    decode: DecodeChoice,
) -> EmbeddedPhotos:
    """Embed the photos among paths; those that cannot be read are named and left out.

    Args:
        model: What embeds them.
        paths: Image files and folders.
        cache: Where embeddings are kept; None is the default place.
        averaged: Over the four quarter turns.
        decode: How JPEGs are decoded.

    Raises:
        DataError: When there are no photos, or none can be read.
    """
    files = list(find_images(paths))
    done = 0
    with bars() as bar:
        advance = bar("embedding")

        def further(count: int) -> None:
            nonlocal done
            done += count
            advance(done, len(files))

        photos = embed_photos(
            model,
            files,
            cache=cache_folder() if cache is None else cache,
            averaged=averaged,
            decode=decode.value,
            advance=further,
        )
    report_skipped(photos.embeddings.skipped)
    return photos


def is_embeddings(path: Path) -> bool:
    """Whether a path is a file of embeddings, or a folder of such files."""
    return path.suffix == ".parquet" or (path.is_dir() and any(path.glob("*.parquet")))


def load(name: str, backend: str, device: str | None, revision: str | None) -> JobsMixin:
    """The model that embeds."""
    model = load_model(name, backend, device, revision)
    return cast("JobsMixin", model)


@contextmanager
def bars() -> Iterator[Callable[[str], Advance]]:
    """Progress bars on stderr: of a name, what is called with how many are done, and of how many.

    A bar appears with its first call.
    """
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks: dict[str, TaskID] = {}

        def named(what: str) -> Advance:
            def advance(done: int, total: int) -> None:
                if what not in tasks:
                    tasks[what] = progress.add_task(what)
                progress.update(tasks[what], completed=done, total=total)

            return advance

        yield named
