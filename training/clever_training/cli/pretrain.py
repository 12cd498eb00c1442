"""``clever-hub pretrain``: train a backbone. Heavy packages are imported when it runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clever_hub.cli.console import say_unused

if TYPE_CHECKING:
    from clever_training.recipe.schema import Recipe


def run(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped recipe.")],
    data: Annotated[str, typer.Option(help="Photos: folder, parquet, or Hub data set.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Run folder. [default: ~/.cache/clever-hub/runs/<recipe's name>]",
        ),
    ] = None,
    image_column: Annotated[
        str | None, typer.Option(help="Image column of a table that has several.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Replace a key, such as --set run.epochs=3; repeatable."),
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(
            help="Labelled photos for k-NN while it runs: NEIGHBOURS,QUERIES, a folder with both, "
            "or one set."
        ),
    ] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(help="Also show the metrics in tensorboard, wandb or trackio; repeatable."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print recipe, sizes, speed, duration and memory; do not train."
        ),
    ] = False,
) -> None:
    """Pre-train a backbone with CLeVER, or go on with a run that was stopped.

    RECIPE is a YAML file or the name of a shipped recipe. DATA is a folder of images, a parquet
    file, a folder of parquet files, or a data set on the Hub. Labels are not used.

    Shipped recipes for two CPU cores: `clever-resnet18-tiny`, `clever-plus-resnet18-tiny`,
    `clever-plus-simclr-resnet18-tiny`, `clever-resnet50-tiny`, `clever-plus-resnet50-tiny`,
    `clever-vit-tiny-tiny`, `clever-plus-vit-tiny-tiny`, `clever-dino-resnet18-tiny` and its
    baseline `dino-resnet18-tiny`. With a frozen teacher: `clever-plus-distill-resnet18-tiny`,
    `clever-plus-distill-resnet18-long`, `clever-plus-distill-resnet18-muon`,
    `clever-plus-distill-resnet50-tiny`, `clever-plus-distill-resnet50-long`,
    `clever-plus-distill-vit-tiny`, and the warm start `clever-plus-distill-efficientnet-lite0`.
    Recipes of the papers: `clever-dino-imagenet100`, `clever-dino-vmamba-imagenet100` and
    `clever-simsiam-imagenet100`. `--set method=…` trains a recipe with another method, such as
    `clever-plus-simclr`. `--dry-run` estimates the duration, `clever-hub views` shows the views.

    Ctrl-C and SIGTERM save after the current step; the same command goes on from there. A resumed
    run ends with the same weights: bit for bit on a CPU, up to rounding on GPUs. While it runs,
    `clever_hub.from_pretrained` loads the model/ in its folder, and `clever-hub plot` draws the
    curves. On several GPUs or machines: `accelerate launch $(command -v clever-hub) pretrain …`.
    On the cores of one CPU: `torchrun --standalone --nproc_per_node 2 $(command -v clever-hub)
    pretrain …`.

    **Example:** `clever-hub pretrain clever-resnet18-tiny --data photos/ -o runs/mine`
    """
    from clever_hub.errors import require

    require("accelerate", "train")
    require("datasets", "train")
    from clever_training.recipe.reading import read_recipe
    from clever_training.run.pretrain import pretrain
    from clever_training.run.stopping import Terminated
    from clever_training.runtime.processes import is_rank_zero, shutdown

    settings = read_recipe(recipe, dict(_override(item) for item in set_ or []))
    if os.environ.get("RANK", "0") == "0":  # the processes do not know each other yet
        for warning in settings.warnings():
            typer.echo(f"Warning: {warning}", err=True)
        if dry_run:
            unused = {"--output": out is not None, "--track": bool(track)}
            say_unused(unused, "a dry run writes nothing")
    if dry_run:
        _estimate(settings, data, image_column, validation, track or ())
        return
    folder = out or Path.home() / ".cache" / "clever-hub" / "runs" / settings.name
    try:
        model = pretrain(
            settings,
            data,
            folder,
            image_column=image_column,
            validation=validation,
            track=track or (),
        )
    except KeyboardInterrupt as stop:
        if is_rank_zero():
            typer.echo(f"Stopped. The same command goes on from {folder}", err=True)
        raise typer.Exit(143 if isinstance(stop, Terminated) else 130) from None
    if is_rank_zero():
        typer.echo(f"Model: {model}")
    shutdown()


def _estimate(
    recipe: Recipe,
    data: str,
    image_column: str | None,
    validation: str | None,
    track: Sequence[str],
) -> None:
    from clever_training.run.dry_run import estimate_run
    from clever_training.run.recording import check_trackers
    from clever_training.run.run_folder import check_name
    from clever_training.runtime.processes import is_rank_zero, shutdown

    check_name(recipe.name)  # as the run itself would
    check_trackers(track)
    estimate = estimate_run(recipe, data, image_column=image_column, validation=validation)
    if is_rank_zero():
        typer.echo(estimate.text())
    shutdown()


def _override(item: str) -> tuple[str, Any]:
    """``run.epochs=3`` as a dotted key and a value read as YAML."""
    import yaml

    from clever_hub.errors import ConfigError
    from clever_training.recipe.yaml_reader import read_yaml

    key, equals, value = item.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {item!r}: expected KEY=VALUE, such as run.epochs=3")
    try:
        return key, read_yaml(value)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"--set {item!r}: expected a value in YAML, such as 3, caug or [0.2, 1.0], "
            f"got {value!r}"
        ) from error
