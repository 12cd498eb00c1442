"""``clever-hub attention``: a picture of a vision transformer's attention."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clever_hub.cli.console import say
from clever_hub.cli.options import Device, Model, Revision
from clever_hub.errors import DataError
from clever_hub.images.finding import check_not_input
from clever_hub.pretrained import from_pretrained


def run(
    model: Model,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="An image file.")],
    out: Annotated[Path, typer.Option("--output", "-o", help="The picture to write, a .png.")],
    device: Device = None,
    revision: Revision = None,
) -> None:
    """Draw the attention of a vision transformer's last block over a photo.

    The picture shows the prepared photo, the mean over the heads, and each head. It is the
    attention of the CLS token, from which the embedding is computed. ResNets and other backbones
    without attention are refused.

    Example: `clever-hub attention my-vit cat.jpg -o attention.png`
    """
    if out.suffix.lower() != ".png":
        raise DataError(f"--output: expected a name that ends in .png, got {out}")
    check_not_input(out, [image])
    loaded = from_pretrained(model, device=device, revision=revision)
    from clever_hub.backends.attention import attention_maps
    from clever_hub.cli.attention_picture import attention_picture, seen
    from clever_hub.files import atomic_path

    maps = attention_maps(loaded, loaded.preprocessor.batch([image]))
    photo = seen(loaded.config.preprocessing, image)
    picture = attention_picture(photo, maps[0], loaded.config.name)
    with atomic_path(out) as temporary:
        picture.save(temporary, format="PNG")
    say(f"{maps.shape[1]} heads → {out}")
