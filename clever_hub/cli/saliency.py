"""``clever-hub saliency``: the object in a photo, cut out by the similarity of its patches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clever_hub.cli.console import say
from clever_hub.cli.options import Device, Model, Revision
from clever_hub.errors import ConfigError, DataError
from clever_hub.images.finding import check_not_input

# Patches along the photo's shorter side, when nothing is asked for: 224 px in patches of 8.
PLACES = 28
# Each is compared with each: 8,192 take 0.5 GB, and a minute.
MOST_PATCHES = 8192


def run(
    model: Model,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="An image file.")],
    out: Annotated[Path, typer.Option("--output", "-o", help="The picture to write, a .png.")],
    mask: Annotated[
        Path | None,
        typer.Option(help="Also write the object's mask in the photo's size, a .png of 0 and 255."),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Shorter side of the model's input in pixels; the whole photo is seen. [default: "
            f"{PLACES} patches]",
        ),
    ] = None,
    threshold: Annotated[
        float, typer.Option(help="Patches with a higher cosine than this are joined.")
    ] = 0.2,
    centred: Annotated[
        bool,
        typer.Option(
            "--centred", help="Subtract the mean of the photo's patches before comparing them."
        ),
    ] = False,
    device: Device = None,
    revision: Revision = None,
) -> None:
    """Cut the main object out of a photo, without labels (TokenCut).

    Patches of the photo that are alike are connected in a graph, which is cut where it is weakest
    (Wang et al. 2022). A vision transformer uses the keys of its last block, other networks the
    pixels of their last map. The picture shows the object's box, how strongly each patch belongs
    to it, and the object.

    Example: `clever-hub saliency clever-vit-tiny dog.jpg -o saliency.png`
    """
    if mask is not None and mask.resolve() == out.resolve():
        raise ConfigError(f"--mask: expected another file than --output, got {mask} for both")
    for path in (out, mask):
        if path is not None and path.suffix.lower() != ".png":
            raise DataError(f"{path}: expected a name that ends in .png")
        if path is not None:
            check_not_input(path, [image], "--output" if path is out else "--mask")
    from clever_hub.backends.dense import DenseModel, has_keys
    from clever_hub.backends.torch import CleverModel
    from clever_hub.cli.saliency_picture import box_in_pixels, object_mask, saliency_picture
    from clever_hub.files import atomic_path
    from clever_hub.images.opening import load_image
    from clever_hub.jobs.saliency import token_cut
    from clever_hub.pretrained import from_pretrained

    loaded = from_pretrained(model, device=device, revision=revision)
    assert isinstance(loaded, CleverModel)
    dense = DenseModel(loaded, "keys" if has_keys(loaded.backbone) else "tokens")
    photo = load_image(image)
    size = dense.size_for(photo.width, photo.height, image_size or PLACES * dense.stride)
    _check_patches(image, photo.size, size, dense.stride)
    features = dense(dense.prepare(photo, size)[None])[0].numpy()
    cut = token_cut(features, threshold, centred=centred)
    with atomic_path(out) as temporary:
        saliency_picture(photo, cut, loaded.config.name).save(temporary, format="PNG")
    if mask is not None:
        with atomic_path(mask) as temporary:
            object_mask(cut, photo.size).save(temporary, format="PNG")
    left, top, right, bottom = box_in_pixels(cut, photo.size)
    say(
        f"box {left}, {top} to {right}, {bottom} of {photo.width}×{photo.height} pixels, "
        f"{cut.object.mean():.0%} of the photo → {out}{f', {mask}' if mask else ''}"
    )


def _check_patches(image: str, photo: tuple[int, int], size: tuple[int, int], stride: int) -> None:
    """Refuse an input of so many patches that they cannot be compared, such as of a thin photo."""
    columns, rows = (side // stride for side in size)
    if columns * rows > MOST_PATCHES:
        raise DataError(
            f"{image}: {photo[0]} × {photo[1]} pixels would be {columns} × {rows} patches, more "
            f"than {MOST_PATCHES:,}. Crop it, or make the input smaller: --image-size"
        )
