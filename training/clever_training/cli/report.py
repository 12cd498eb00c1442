"""``clever-hub report``: one page for several models. Heavy packages are imported late."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from clever_hub.cli.console import say, say_unused
from clever_hub.errors import ConfigError, require

_POINTS = 1000


def run(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...",
            help="Folders with evaluation.json or finetune.json, or folders that hold them.",
        ),
    ],
    out: Annotated[Path, typer.Option("--output", "-o", help="Folder for the page.")],
    data: Annotated[
        str | None,
        typer.Option(help="Photos for the t-SNE maps: TRAIN,VALIDATION, as for evaluate."),
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(help="Models to draw t-SNE maps of, separated by commas; as for evaluate."),
    ] = None,
    points: Annotated[
        int, typer.Option(min=60, help="Approximate number of points in a t-SNE map.")
    ] = _POINTS,
    device: Annotated[
        str | None, typer.Option(help="Where to compute, such as cuda. [default: the CPU]")
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder of cached features. [default: ~/.cache/clever-hub/features]"),
    ] = None,
) -> None:
    """Compare measured models on one page.

    The folder gets report.md with its pictures, and report.html, which embeds them and loads
    nothing from elsewhere. The page lists the protocols that no file has. It shows no photos.

    Examples:
    - `clever-hub report measured/a measured/b -o report`
    - `clever-hub report measured -o report --data photos/ --models clever-resnet18,pixels`
    """
    require("matplotlib", "train")
    require("sklearn", "train")
    if (data is None) != (models is None):
        raise ConfigError("--data and --models: t-SNE maps need both; give both, or neither")
    if data is None:
        options = {"--points": points != _POINTS, "--device": device is not None}
        say_unused({**options, "--cache": cache is not None}, "no t-SNE map was asked for")
    from clever_training.evaluation.report.collect import collect
    from clever_training.evaluation.report.page import write_page

    field = collect(folders)
    maps = _maps(data, models, points, out, device, cache) if data and models else []
    markdown, page = write_page(field, out, maps)
    say(f"Wrote {markdown} and {page}")


def _maps(
    data: str, models: str, points: int, out: Path, device: str | None, cache: Path | None
) -> list[Any]:
    import datasets

    from clever_training.cli.evaluate import model_folders
    from clever_training.evaluation.data import load_splits
    from clever_training.evaluation.features import FeatureStore, cache_folder
    from clever_training.evaluation.models import load_extractor
    from clever_training.evaluation.report.page import Map
    from clever_training.evaluation.report.tsne import choose, tsne_figure, turned
    from clever_training.evaluation.tables import progress_report

    datasets.disable_progress_bars()
    names = [name.strip() for name in models.split(",") if name.strip()]
    extractors = [load_extractor(name, device=device) for name in names]
    own = [extractor.name for extractor in extractors]
    files = model_folders(own)
    photos = choose(load_splits(data).validation, points)
    maps = []
    with progress_report(Console(stderr=True)) as tell:
        store = FeatureStore(cache or cache_folder(), tell)
        for extractor, file in zip(extractors, files, strict=True):
            path = out / f"tsne-{file}.png"
            shown = extractor.name if own.count(extractor.name) == 1 else file
            tsne_figure(shown, turned(extractor, photos, store), path)
            maps.append(Map(shown, path))
    return maps
