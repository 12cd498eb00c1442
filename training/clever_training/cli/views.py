"""``clever-hub views``: draw a recipe's views. Heavy packages are imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from PIL.Image import Image

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def run(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped recipe.")],
    data: Annotated[str, typer.Option(help="Photos: folder, parquet, or Hub data set.")],
    out: Annotated[Path, typer.Option("--output", "-o", help="The picture to write.")] = Path(
        "views.png"
    ),
    photos: Annotated[int, typer.Option(min=1, help="How many photos.")] = 6,
    epoch: Annotated[int, typer.Option(min=0, help="Epoch of the run whose views are drawn.")] = 0,
    image_column: Annotated[
        str | None, typer.Option(help="Image column of a table that has several.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Replace a key, such as --set views.strategy=caug+; repeatable."
        ),
    ] = None,
) -> None:
    """Draw what training sees: photos and their augmented views, on one sheet.

    The sheet shows exactly the views that `clever-hub pretrain` trains on in that epoch. Where
    views grow during an epoch, they have the size of its beginning. The photos are spread evenly
    over the data. The captions say what was done to each view: share of the photo, rotation,
    elastic strength, factors of brightness, contrast and saturation, shift of hue, blur.

    **Example:** `clever-hub views clever-resnet18-tiny --data photos/ -o views.png`
    """
    from clever_hub.errors import require

    require("datasets", "train")
    kind = _format(out)
    import numpy as np

    from clever_hub.images.finding import check_not_input
    from clever_training.cli.pretrain import _override
    from clever_training.data.photos import load_photos
    from clever_training.recipe.reading import read_recipe
    from clever_training.views.contact_sheet import SheetRow, contact_sheet
    from clever_training.views.sample import make_views, sizes_at

    check_not_input(out, [data])
    settings = read_recipe(recipe, dict(_override(item) for item in set_ or []))
    source = load_photos(data, image_column)
    sizes = sizes_at(settings.views, min(1.0, epoch / settings.run.epochs))
    rows = []
    for place in np.linspace(0, len(source) - 1, min(photos, len(source))):
        index = round(place)
        key = (settings.run.seed, epoch, index)
        with source.naming(index):
            photo = source.open(index)
            made, parameters = make_views(photo, settings.views, sizes, key)
            rows.append(SheetRow(f"row {index}", photo.decode(), made, parameters))
    how = settings.views.aug or f"{settings.views.strategy}, {settings.views.backend}"
    title = f"{settings.name} · {how} · seed {settings.run.seed}, epoch {epoch}"
    _save(contact_sheet(rows, title, settings.views.global_count), out, kind)
    typer.echo(f"Wrote {out}: {len(rows)} photos, {len(rows[0].views)} views each")


def _format(out: Path) -> str:
    """The format that a file name stands for; an unknown one is refused before any work."""
    from clever_hub.errors import ConfigError

    if out.suffix.lower() not in _FORMATS:
        raise ConfigError(f"--output {out}: expected a name that ends in {', '.join(_FORMATS)}")
    return _FORMATS[out.suffix.lower()]


def _save(sheet: Image, out: Path, kind: str) -> None:
    """Write the picture; a failure leaves the previous file as it was."""
    from clever_hub.errors import ConfigError
    from clever_hub.files import atomic_path

    try:
        with atomic_path(out) as path:
            sheet.save(path, kind)
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written: {error.strerror or error}") from error
