"""``clever-hub heads``: fit and calibrate the heads of a model; heavy imports wait."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clever_hub.cli.console import output, say, say_unused
from clever_hub.cli.options import Backend, Model
from clever_hub.cli.progress import working_on

if TYPE_CHECKING:
    from clever_hub.jobs.calibration import Calibration


_STEPS = 4000


def run(
    model: Model,
    data: Annotated[
        str, typer.Option("--data", help="Photos to fit to: a folder, parquet or a data set.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Folder for the model with heads; may be the model's own."
        ),
    ],
    calibration: Annotated[
        str | None,
        typer.Option(
            help="Other photos to measure on. By default a quarter of --data is set aside."
        ),
    ] = None,
    photos: Annotated[
        int, typer.Option(min=100, help="At most so many photos to fit to, and to calibrate on.")
    ] = 5000,
    views: Annotated[int, typer.Option(min=6, help="Views of each photo.")] = 12,
    steps: Annotated[int, typer.Option(min=100, help="Steps of the fit.")] = _STEPS,
    image_column: Annotated[str | None, typer.Option(help="The image column of a table.")] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the heads from training, and only calibrate them.")
    ] = False,
    backend: Backend = "auto",
) -> None:
    """Add heads to a model, which tell how two images are related and how an image is turned.

    The model itself does not change. Views of the photos are embedded once, and two small networks
    learn what was done to each view. How reliable their answers are is measured on other photos.
    `clever-hub relate`, `orient` and `duplicates` use them. 2,000 photos with 12 views take a few
    minutes on two cores.

    **Example:** `clever-hub heads my-model --data photos/ --calibration other/ -o my-model-heads`
    """
    from clever_training.heads.add import HeadsPlan, add_heads
    from clever_training.heads.fit import FitSettings
    from clever_training.heads.views import HeadViews

    if keep:
        say_unused({"--steps": steps != _STEPS}, "the heads are kept as they are")
        say_unused(
            {"--data": calibration is not None}, "heads that are kept need --calibration alone"
        )
    plan = HeadsPlan(
        photos=photos,
        calibration_photos=photos,
        views=HeadViews(count=views),
        fit=FitSettings(steps=steps),
    )
    with working_on(28) as progress:
        found = add_heads(
            model,
            out,
            data,
            calibration=calibration,
            plan=plan,
            image_column=image_column,
            keep_trained=keep,
            backend=backend,
            progress=progress,
        )
    _show(found)
    say(f"heads → {out}")


def _show(found: Calibration) -> None:
    """What the heads are worth, in a table."""
    from rich.table import Table

    table = Table(title=f"Measured on {found.photos} photos of {found.data}", title_justify="left")
    table.add_column("answer", style="bold")
    table.add_column("how well: two thirds of the errors stay below")
    best, worst = found.angle.degrees[-1], found.angle.degrees[0]
    table.add_row("angle", f"{best:.0f}° where it is surest, {worst:.0f}° where least")
    shares = found.measured
    table.add_row("angle, half of them", f"{shares['angle_median']:.1f}°")
    table.add_row("mirrored or not", f"{shares['mirrored']:.1%} right")
    table.add_row(
        "quarter turns",
        f"{shares['quarter']:.1%} right, {shares['quarter_from_four']:.1%} from all four positions",
    )
    names = {"zoom": "octaves", "shift": "of the side", "hue": "of a turn"}
    for name, value in found.values.items():
        table.add_row(name, f"{value.error:.2f} {names.get(name, '(log)')}, R² {value.r2:.2f}")
    for part, rates in found.cosine.items():
        cosines = ", ".join(
            f"{rate}: {'~' if t.extrapolated else ''}{t.threshold:.2f}" for rate, t in rates.items()
        )
        table.add_row(f"false pairs, {part}", cosines)
    output().print(table)
