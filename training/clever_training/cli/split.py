"""``clever-hub split``: the two parts for any embedding model; heavy imports wait."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clever_hub.cli.console import output, say
from clever_hub.cli.options import Device
from clever_hub.cli.progress import working_on

if TYPE_CHECKING:
    from clever_training.split.choose import Split


def run(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="timm:NAME, or a clever model by name or folder.")
    ],
    data: Annotated[str, typer.Option("--data", help="Photos: a folder, parquet or a data set.")],
    out: Annotated[Path, typer.Option("--output", "-o", help="The model folder to make.")],
    ratio: Annotated[float, typer.Option(help="Share of the invariant part.")] = 0.8,
    views: Annotated[
        str, typer.Option(help="How photos are transformed: baug, caug (also turned) or caug+.")
    ] = "caug",
    photos: Annotated[
        int, typer.Option(help="Photos to use: 60 % to fit, 20 % to choose c, 20 % to measure.")
    ] = 2000,
    count: Annotated[int, typer.Option(help="Views of each photo, itself included.")] = 4,
    image_column: Annotated[str | None, typer.Option(help="The image column of a table.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Split a model again that is split already.")
    ] = False,
    device: Device = None,
) -> None:
    """Split any model's embedding into an invariant and an equivariant part, without training.

    Photos and transformed views of them are embedded once. Then the embedding is rotated so that
    its first dimensions stay the same between views and tell photos apart, and its last ones
    change, among them the directions that tell which transformation it was. The rotation becomes
    the last layer of the model, for all readers. Centred cosines of the whole embedding stay as
    they were.

    A rotation adds no information: what a network does not see, such as the direction in which a
    photo is turned, is in neither part. Training adds it: `clever-hub pretrain`.

    **Example:** `clever-hub split timm:tf_efficientnet_lite0 --data photos/ -o lite0-split`
    """
    from clever_training.split.run import SplitPlan, split_model

    plan = SplitPlan(ratio=ratio, views=views, photos=photos, count=count)
    with working_on(14) as progress:
        found = split_model(
            model,
            data,
            out,
            plan=plan,
            image_column=image_column,
            force=force,
            device=device,
            progress=progress,
        )
    _show(found)
    say(f"split → {out}; `clever-hub export {out} -o NEW` adds the files of the other readers")


def _show(found: Split) -> None:
    """What was measured, before and after, by part."""
    from rich.table import Table

    cut, rest = found.invariant_dim, len(found.mean) - found.invariant_dim
    titles = {
        "full": "whole, as before",
        "first": f"first {cut} before",
        "invariant": "invariant",
        "last": f"last {rest} before",
        "equivariant": "equivariant",
    }
    table = Table(
        title=f"Measured on {found.photos[2]} photos; c = {found.c:g} chosen on {found.photos[1]}",
        title_justify="left",
    )
    table.add_column("figure", style="bold")
    for title in titles.values():
        table.add_column(title, justify="right")
    similarity = {**found.before, **found.after}
    table.add_row("similarity kept", *(f"{similarity[part].gap:.3f}" for part in titles))
    table.add_row("MRR", *(f"{similarity[part].mrr:.3f}" for part in titles))
    for name in found.r2["full"]:
        table.add_row(f"R² {name}", *(f"{found.r2[part][name]:.2f}" for part in titles))
    output().print(table)
    if found.told:
        say(f"put into the equivariant part first: what tells {'; '.join(found.told)}")
    say(
        f"two halves of the photos agree on {found.stable:.0%} of the equivariant directions "
        f"(by chance {rest / len(found.mean):.0%})"
    )
    if any(found.shrinkage):
        from clever_training.split.run import enough_photos

        within, between = found.shrinkage
        say(
            f"{found.photos[0]:,} photos to fit {len(found.mean):,} dimensions: correlations were "
            f"shrunk by {within:.0%} within and {between:.0%} between photos. "
            f"{enough_photos(len(found.mean)):,} photos or more need none"
        )
