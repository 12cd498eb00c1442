"""``clever-hub embed``: image files to a parquet file, as a stream."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clever_hub.cli.console import fail, report_skipped, say
from clever_hub.cli.options import Backend, Device, Model, Revision
from clever_hub.errors import DataError, require
from clever_hub.images.finding import find_images
from clever_hub.pretrained import from_pretrained

if TYPE_CHECKING:
    from clever_hub.embeddings import Skipped


class _OnError(StrEnum):
    raise_ = "raise"
    skip = "skip"


def run(
    model: Model,
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATHS...", help="Image files, or folders with images.")
    ],
    out: Annotated[Path, typer.Option("--output", "-o", help="The parquet file to write.")],
    batch_size: Annotated[int, typer.Option(min=1, help="Images in one batch.")] = 32,
    normalize: Annotated[bool, typer.Option("--normalize", help="Write unit vectors.")] = False,
    on_error: Annotated[
        _OnError,
        typer.Option(help="Exit code when an image cannot be read: raise is 1, skip is 0."),
    ] = _OnError.raise_,
    backend: Backend = "torch",
    device: Device = None,
    revision: Revision = None,
) -> None:
    """Embed image files into a parquet file.

    Folders are searched recursively. The file has a row for each image, with the columns path,
    invariant and equivariant (lists of float32 of a fixed length). Its metadata has the model's
    name, source and weights hash. Images that cannot be read are left out and listed at the end.

    Examples:
    - `clever-hub embed clever-resnet18 photos/ -o photos.parquet`
    - `clever-hub embed clever-resnet18 a.jpg b.png -o two.parquet --normalize`

    Read it in Python: `pandas.read_parquet("photos.parquet")`
    """
    if out.is_dir():
        raise DataError(f"--output: expected the name of a parquet file, got the folder {out}")
    files = list(find_images(paths))
    loaded = from_pretrained(model, backend=backend, device=device, revision=revision)
    require("pyarrow.parquet", backend)
    from clever_hub.cli.parquet import EmbeddingsWriter
    from clever_hub.images.progress import track

    batches = loaded.encode_batches(
        files, batch_size=batch_size, normalize=normalize, on_error="skip"
    )
    skipped: list[Skipped] = []
    with EmbeddingsWriter(out, loaded.config, loaded.source, normalize) as writer:
        for batch in track(batches, total=len(files)):
            writer.write(batch)
            skipped += batch.embeddings.skipped
        if not writer.rows:
            raise DataError(_none_readable(skipped))
    report_skipped(skipped)
    say(f"{writer.rows} of {len(files)} images embedded → {out}")
    if skipped and on_error is _OnError.raise_:
        fail(f"{len(skipped)} of {len(files)} images could not be read. Allow it: --on-error skip")


def _none_readable(skipped: list[Skipped]) -> str:
    shown = "".join(f"\n  {image.source}: {image.reason}" for image in skipped[:10])
    more = f"\n  … {len(skipped)} in all" if len(skipped) > 10 else ""
    return f"none of the images could be read, nothing was written{shown}{more}"
