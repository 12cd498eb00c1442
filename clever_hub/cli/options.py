"""Arguments and options that several verbs share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, TypeAlias

import typer

from clever_hub.pretrained import backend_names


class OnErrorChoice(StrEnum):
    """What the exit code says of images that cannot be read."""

    raise_ = "raise"
    skip = "skip"


Model: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A name from `clever-hub list`, a model folder, or user/name on the Hugging Face Hub.",
    ),
]
JobModel: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="A name, folder or Hub id; by default the best shipped model that has heads.",
        show_default=False,
    ),
]
Revision: TypeAlias = Annotated[
    str | None, typer.Option(help="A branch, tag or commit of a model on the Hub.")
]
Backend: TypeAlias = Annotated[
    str, typer.Option(help=f"The inference engine: {', '.join(backend_names())}.")
]
Device: TypeAlias = Annotated[
    str | None, typer.Option(help="Such as cuda or cuda:1. The default is the CPU.")
]
OnError: TypeAlias = Annotated[
    OnErrorChoice,
    typer.Option(help="If an image cannot be read, exit with 1 (raise) or 0 (skip)."),
]
