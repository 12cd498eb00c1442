"""``clever-hub plot``: the curves of runs on one sheet. Heavy packages are imported late."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Along(StrEnum):
    """The horizontal axis of the curves."""

    EPOCHS = "epochs"
    HOURS = "hours"


def run(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, as pretrain writes them.")],
    out: Annotated[
        Path, typer.Option("--output", "-o", help="The picture to write: .png, .pdf or .svg.")
    ] = Path("curves.png"),
    x: Annotated[Along, typer.Option(help="Draw against epochs or hours of training.")] = (
        Along.EPOCHS
    ),
) -> None:
    """Draw the curves of one or several runs on one sheet.

    The sheet shows the loss terms, k-NN where it was measured, spread and effective rank of both
    parts (they fall when an embedding collapses), and the learning rate. It also works while the
    runs go on.

    **Example:** `clever-hub plot runs/mine runs/other -o curves.png`
    """
    from clever_hub.errors import require

    require("matplotlib", "train")
    from clever_training.run.curves import draw, read_run

    draw([read_run(folder) for folder in runs], out, x.value)
    typer.echo(f"Wrote {out}")
