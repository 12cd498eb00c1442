"""The ``export`` and ``verify`` commands; heavy imports wait until they run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from clever_hub.cli.console import fail, output


def export(
    model: Annotated[str, typer.Argument(help="A model folder, or the name of a shipped model.")],
    out: Annotated[Path, typer.Option(help="The folder to write; must not exist yet.")],
) -> None:
    """Write a complete model folder that every reader loads.

    Copies the weights and adds model.onnx (a graph that points into the weights file),
    preprocessor_config.json, remote code for transformers, and the model card.

    **Example:** `clever-hub export runs/mine/model --out my-model`, then
    `clever-hub verify my-model photos/`.
    """
    from clever_export.package import package
    from clever_hub.errors import ConfigError
    from clever_hub.resolve import resolve

    folder, _ = resolve(model)
    if out.exists():
        raise ConfigError(f"--out: {out} is there already. Remove it, or name another folder")
    temporary = out.with_name(f".{out.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        for name in ("config.json", "model.safetensors", "evaluation.json"):
            if (folder / name).is_file():
                shutil.copyfile(folder / name, temporary / name)
        package(temporary)
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    output().print(f"Wrote {out}", highlight=False)


def verify(
    folder: Annotated[str, typer.Argument(help="A model folder, or the name of a shipped model.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    limit: Annotated[int, typer.Option(min=1, help="Most images to read.")] = 32,
) -> None:
    """Check that every installed reader gives the same vectors, from image file to vector.

    Compares clever_hub (torch and onnx), a bare ONNX Runtime session, transformers and timm, at
    several batch sizes, on your photos and on odd-sized, grey and EXIF-turned copies. Writes
    verify.json into the folder; exits with 1 when a reader differs by more than 0.0001.

    **Example:** `clever-hub verify my-model photos/`
    """
    from rich.table import Table

    from clever_export.verify import TOLERANCE
    from clever_export.verify import verify as run
    from clever_hub.cli.embed import find_images
    from clever_hub.resolve import resolve

    path, _ = resolve(folder)
    agreements = run(path, list(find_images(images))[:limit])
    table = Table(title=f"{path.name}: difference from clever_hub torch")
    for heading in ("reader", "batch", "max abs difference", "min cosine", ""):
        table.add_column(heading, justify="left" if heading in ("reader", "") else "right")
    for agreement in agreements:
        parts = ("invariant", "equivariant")
        table.add_row(
            agreement.reader,
            str(agreement.batch_size),
            " / ".join(f"{agreement.max_abs[part]:.1e}" for part in parts),
            " / ".join(f"{agreement.min_cosine[part]:.6f}" for part in parts),
            "[green]ok[/green]" if agreement.green else "[red]differs[/red]",
        )
    table.caption = "invariant / equivariant part"
    output().print(table)
    if not all(agreement.green for agreement in agreements):
        fail(f"readers differ by more than {TOLERANCE}: this folder should not be published")
