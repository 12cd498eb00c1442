"""``clever-hub compare``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from clever_hub.cli.console import output, shown
from clever_hub.cli.loading import load_model
from clever_hub.cli.options import Backend, Device, Model, Revision
from clever_hub.embeddings import Embeddings


def run(
    model: Model,
    a: Annotated[str, typer.Argument(metavar="A", help="An image file.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another image file.")],
    backend: Backend = "auto",
    device: Device = None,
    revision: Revision = None,
) -> None:
    """Show how similar two images are, in each part of the embedding.

    The figures are cosines: 1 is the same direction, 0 unrelated. For a photo and its rotated copy
    the invariant part should be near 1, the equivariant part lower.

    Example: `clever-hub compare clever-resnet18 cat.jpg cat-turned.jpg`
    """
    loaded = load_model(model, backend, device, revision)
    embeddings = loaded.encode([a, b])
    table = Table()
    table.add_column("part", style="bold")
    table.add_column("length", justify="right")
    table.add_column("cosine", justify="right")
    for part, (length, cosine) in cosines(embeddings).items():
        table.add_row(part, str(length), f"{cosine:.4f}")
    console = output()
    console.print(f"A: {shown(a)}\nB: {shown(b)}", soft_wrap=True)
    console.print(table)


def cosines(embeddings: Embeddings) -> dict[str, tuple[int, float]]:
    """Length and cosine of each part of two embeddings; a part of length 0 is left out.

    Args:
        embeddings: Two rows.

    Returns:
        The length of each part and the cosine between its two rows, in [-1, 1].
    """
    whole = Embeddings(embeddings.full, embeddings.full[:, :0]).normalized().invariant
    unit = embeddings.normalized()
    parts = {"invariant": unit.invariant, "equivariant": unit.equivariant, "full": whole}
    return {
        name: (part.shape[1], float(part[0] @ part[1]))
        for name, part in parts.items()
        if part.shape[1]
    }
