"""``clever-hub evaluate``: measure models. Heavy packages are imported when the command runs."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypeAlias

import typer
from rich.console import Console

from clever_hub.cli.console import output, say, say_unused
from clever_hub.errors import ConfigError
from clever_training.evaluation.names import free_name

if TYPE_CHECKING:
    from clever_training.evaluation.features import FeatureStore
    from clever_training.evaluation.models import FeatureExtractor


_VIDEO_SIZE = 480


def run(  # noqa: PLR0913, PLR0917 -- an option each
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Model names or folders; also timm:NAME, random:MODEL, pixels, pixels:SIDE.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="Folder for evaluation.json; several models get a sub-folder each.",
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            help="TRAIN,VALIDATION: parquet files, image folders or Hub ids; or one that has both "
            "splits; or a folder of classes, of which a fifth is set aside; or cub-200, "
            "flowers-102, food-101, oxford-pets."
        ),
    ] = None,
    video: Annotated[
        Path | None,
        typer.Option(help="Folder in the layout of DAVIS: JPEGImages/480p, Annotations/480p."),
    ] = None,
    protocols: Annotated[
        str | None,
        typer.Option(
            help="Some of knn, linear, robustness, sweeps, invariance, retrieval, equivariance, "
            "collapse, semi-supervised, which need --data, and video, saliency, which need "
            "--video; separated by commas. [default: all that there is data for]"
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="How many seeds. [default: 3]")] = None,
    profile: Annotated[
        str, typer.Option(help="quick (10,000 training photos) or full (all photos).")
    ] = "quick",
    baselines: Annotated[
        bool, typer.Option(help="Also measure random weights and raw pixels.")
    ] = True,
    beside: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="Another model, measured as a further baseline, such as runs/dino/model; may be "
            "given several times.",
        ),
    ] = None,
    last_blocks: Annotated[
        int, typer.Option(min=1, help="Concatenate the CLS tokens of a ViT's last blocks.")
    ] = 1,
    image_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Side of the model's input in pixels; the crop shows the same part of the photo. "
            "A larger size than in training is often better. [default: the model's own]",
        ),
    ] = None,
    video_size: Annotated[
        int, typer.Option(min=1, help="Shorter side of a video's frames in pixels.")
    ] = _VIDEO_SIZE,
    probe: Annotated[
        str, typer.Option(help="lbfgs (logistic regression) or sgd (100 epochs, as published).")
    ] = "lbfgs",
    device: Annotated[
        str | None, typer.Option(help="Where to compute, such as cuda. [default: the CPU]")
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Folder of cached features and of what is measured so far. [default: "
            "~/.cache/clever-hub/features]"
        ),
    ] = None,
) -> None:
    """Measure models on labelled photos or videos: write evaluation.json, print tables.

    Every protocol measures each part of the embedding, next to random weights, raw pixels and the
    models named by --beside. Features are computed once and cached, and so is every figure: after
    a stop the same command goes on from there. A later run into the same folder keeps the
    protocols that it does not repeat; a folder of another model's figures is refused.
    docs/evaluation.md explains the protocols; `clever-hub report` puts several folders on one page.

    Examples:
    - `clever-hub evaluate clever-resnet18 --data photos/ -o measured`
    - `clever-hub evaluate runs/a/model timm:resnet18 --data photos/ --protocols knn,linear -o m`
    - `clever-hub evaluate runs/clever/model --beside runs/dino/model --data photos/ -o measured`
    - `clever-hub evaluate clever-vit-tiny --video DAVIS/ --video-size 240 -o measured`
    """
    from clever_training.evaluation.choices import PROBE_NAMES, PROFILE_NAMES, check_choice

    check_choice("--profile", profile, PROFILE_NAMES)
    check_choice("--probe", probe, PROBE_NAMES)
    on_photos, on_videos = _protocols(protocols, data, video)
    of_photos = (seeds, profile, last_blocks, image_size, probe)
    last_blocks, image_size = _sizes(on_photos, on_videos, of_photos, video_size)
    import datasets

    from clever_training.evaluation.features import FeatureStore, cache_folder
    from clever_training.evaluation.models import load_extractor
    from clever_training.evaluation.protocols import PROFILES
    from clever_training.evaluation.results import earlier, write
    from clever_training.evaluation.run import named_baselines
    from clever_training.evaluation.tables import progress_report, tables
    from clever_training.runtime.memory import keep_freed_memory

    count = seeds or PROFILES[profile].seeds
    datasets.disable_progress_bars()
    keep_freed_memory()
    extractors, others = (
        [
            load_extractor(m, device=device, last_blocks=last_blocks, image_size=image_size)
            for m in some
        ]
        for some in (models, beside or ())
    )
    names = model_folders([extractor.name for extractor in extractors])
    folders = [out] if len(models) == 1 else [out / name for name in names]
    for folder, extractor in zip(folders, extractors, strict=True):
        named = named_baselines(extractor, baselines=False, beside=others)
        known = {name: make(0).describe() for name, make in named.items()}
        earlier(folder, extractor.describe(), known)  # refused now, not when all is measured
    plans: list[tuple[_Plan, dict[str, Any]]] = []
    if on_photos:
        options: dict[str, Any] = {"data": data, "protocols": ",".join(on_photos)}
        options |= {"profile": profile, "seeds": count}
        options |= {"last-blocks": last_blocks if last_blocks > 1 else None}
        options |= {"image-size": image_size, "probe": None if probe == "lbfgs" else probe}
        plans.append((_on_photos(str(data), on_photos, profile, count, probe), options))
    if on_videos:
        options = {"video": video, "protocols": ",".join(on_videos), "video-size": video_size}
        plans.append((_on_videos(Path(str(video)), on_videos, video_size), options))
    for model, extractor, folder in zip(models, extractors, folders, strict=True):
        contents = []
        with progress_report(Console(stderr=True)) as report:
            store = FeatureStore(cache or cache_folder(), report)
            for plan, chosen_options in plans:
                options = chosen_options | {"output": folder, "beside": beside}
                words = command_line("evaluate", model, options, baselines=baselines)
                try:
                    contents.append(plan(store, words).run(extractor, baselines, others))
                except KeyboardInterrupt:
                    kept = f"Stopped. What is measured so far is kept in {store.folder}"
                    typer.echo(f"{kept}; the same command goes on from there", err=True)
                    raise typer.Exit(130) from None
                path = write(folder, contents[-1])
        for content in contents:
            for table in tables(content):
                output().print(table)
        say(f"Wrote {path}")


class _Runs(Protocol):
    """Measures a model next to others."""

    def run(
        self,
        extractor: FeatureExtractor,
        baselines: bool = True,
        beside: Sequence[FeatureExtractor] = (),
    ) -> dict[str, Any]:
        """The content of evaluation.json."""
        ...


# What measures, given where features are kept and the command line for evaluation.json.
_Plan: TypeAlias = "Callable[[FeatureStore, str], _Runs]"


def _protocols(
    names: str | None, data: str | None, video: Path | None
) -> tuple[list[str], list[str]]:
    """The protocols on photos and those on videos, each with the data that it needs."""
    from clever_training.evaluation.choices import DENSE_PROTOCOL_NAMES, PROTOCOL_NAMES, chosen

    if not data and not video:
        raise ConfigError("expected --data, --video or both; there is nothing to measure on")
    given = [*(PROTOCOL_NAMES if data else ()), *(DENSE_PROTOCOL_NAMES if video else ())]
    asked = given if names is None else chosen(names, (*PROTOCOL_NAMES, *DENSE_PROTOCOL_NAMES))
    if missing := [name for name in asked if name not in given]:
        option, what = ("--video", "videos") if data else ("--data", "labelled photos")
        raise ConfigError(f"{option}: {', '.join(missing)} needs {what}; name them with {option}")
    return (
        [name for name in asked if name in PROTOCOL_NAMES],
        [name for name in asked if name in DENSE_PROTOCOL_NAMES],
    )


_OfPhotos: TypeAlias = tuple[int | None, str, int, int | None, str]


def _sizes(
    on_photos: list[str], on_videos: list[str], of_photos: _OfPhotos, video_size: int
) -> tuple[int, int | None]:
    """``--last-blocks`` and ``--image-size`` as they apply; says what is not used."""
    _, _, last_blocks, image_size, _ = of_photos
    if not on_videos:
        say_unused({"--video-size": video_size != _VIDEO_SIZE}, "no protocol is of videos")
    elif not on_photos:
        _say_unused(*of_photos)
        return 1, None
    elif last_blocks > 1 or image_size is not None:
        # The file would say so of the figures of videos, too.
        raise ConfigError(
            "--last-blocks, --image-size: of photos alone; frames are seen at --video-size, by the "
            "last block. Measure --video by a command of its own, into another folder"
        )
    return last_blocks, image_size


def _say_unused(
    seeds: int | None, profile: str, last_blocks: int, image_size: int | None, probe: str
) -> None:
    """Say which options mean nothing where only videos are measured on."""
    options = {
        "--seeds": seeds is not None,
        "--profile": profile != "quick",
        "--last-blocks": last_blocks > 1,
        "--image-size": image_size is not None,
        "--probe": probe != "lbfgs",
    }
    say_unused(options, "they are for labelled photos, not for videos")


def _on_photos(data: str, names: list[str], profile: str, seeds: int, probe: str) -> _Plan:
    from clever_training.evaluation.data import load_splits, said_of
    from clever_training.evaluation.protocols import PROFILES
    from clever_training.evaluation.run import Evaluation

    splits = load_splits(data)
    if words := said_of(splits):
        say(words)
    kind: Literal["lbfgs", "sgd"] = "sgd" if probe == "sgd" else "lbfgs"
    return lambda store, command: Evaluation(
        splits, PROFILES[profile], names, range(seeds), store, command, kind
    )


def _on_videos(folder: Path, names: list[str], size: int) -> _Plan:
    from clever_training.evaluation.dense_run import DenseEvaluation
    from clever_training.evaluation.videos import find_videos

    videos = find_videos(folder)
    return lambda store, command: DenseEvaluation(
        folder, videos, names, size, command, store.report, store.pieces
    )


def command_line(verb: str, model: str, options: dict[str, Any], *, baselines: bool) -> str:
    """The command that repeats a measurement; None is left out, a list repeats its option.

    Example:
        >>> command_line("evaluate", "clever-resnet18", {"seeds": 3}, baselines=True)
        'clever-hub evaluate clever-resnet18 --seeds 3'
    """
    words = ["clever-hub", verb, model]
    for name, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            words += [f"--{name}", str(one)] if one is not None else []
    return shlex.join(words if baselines else [*words, "--no-baselines"])


def model_folders(names: Sequence[str]) -> list[str]:
    """Unique folder or file names for models.

    Runs of one recipe have one name; without a number the last would overwrite the others.

    Args:
        names: Names of models.

    Returns:
        One name for each, in the same order.

    Example:
        >>> model_folders(["random:a", "b", "b"])
        ['random-a', 'b', 'b-2']
    """
    found: list[str] = []
    for name in names:
        base = "".join(c if c.isalnum() or c in "-._" else "-" for c in name)
        found.append(free_name(base, found))
    return found
