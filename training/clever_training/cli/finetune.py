"""``clever-hub finetune``: fine-tune a model. Heavy packages are imported when it runs."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from clever_hub.cli.console import say, say_unused
from clever_hub.errors import require


def run(  # noqa: PLR0913, PLR0917 -- each is an option of the command
    model: Annotated[
        str,
        typer.Argument(help="A model name or folder; for comparison timm:NAME or random:MODEL."),
    ],
    data: Annotated[
        str,
        typer.Option(
            help="TRAIN,VALIDATION: parquet files, image folders or Hub ids; or one that has both "
            "splits; or a folder of classes, of which a fifth is set aside; or cub-200, "
            "flowers-102, food-101, oxford-pets."
        ),
    ],
    out: Annotated[Path, typer.Option("--output", "-o", help="Folder for the fine-tuned model.")],
    head: Annotated[
        str, typer.Option(help="What the head sees: full, invariant or equivariant.")
    ] = "full",
    freeze: Annotated[
        bool, typer.Option("--freeze", help="Train the head alone; keep the backbone as it is.")
    ] = False,
    share: Annotated[
        float, typer.Option(help="Share of the training photos to use, such as 0.01 for 1 %.")
    ] = 1.0,
    epochs: Annotated[int, typer.Option(help="Passes through the training photos.")] = 10,
    batch_size: Annotated[int, typer.Option(help="Photos in a step, per device.")] = 128,
    lr: Annotated[
        float | None,
        typer.Option(help="Learning rate of the head. [default: 0.001, with --freeze 0.01]"),
    ] = None,
    layer_decay: Annotated[
        float | None,
        typer.Option(
            help="Learning rate of a block relative to the one above. [default: transformers 0.75, "
            "others 0.9]"
        ),
    ] = None,
    weight_decay: Annotated[
        float, typer.Option(help="Weight decay of matrices; biases and norms have none.")
    ] = 0.05,
    crop_scale: Annotated[float, typer.Option(help="Smallest area of a training crop.")] = 0.35,
    seed: Annotated[int, typer.Option(help="Seed of head, order, crops and share.")] = 0,
    precision: Annotated[
        str, typer.Option(help="bf16, fp32, or auto: bf16 where the hardware supports it.")
    ] = "auto",
    workers: Annotated[
        int, typer.Option(help="Processes that prepare photos; 0 uses the training process.")
    ] = 0,
) -> None:
    """Fine-tune a model on labelled photos; the result loads in transformers.

    The learning rate falls from the head to the first block. Ctrl-C keeps the last full epoch; the
    same command goes on from there. The folder loads with `AutoModelForImageClassification` (after
    `import clever_hub.transformers`, or with `trust_remote_code=True`); its finetune.json has the
    figures of the last epoch.

    Examples:
    - `clever-hub finetune clever-resnet18 --data photos/ -o tuned`
    - `clever-hub finetune clever-resnet18 --data photos/ --share 0.01 -o tuned-1`
    - `clever-hub finetune clever-resnet18 --data oxford-pets --head invariant --freeze -o pets`
    """
    options: dict[str, Any] = {"head": head, "freeze": freeze, "share": share, "epochs": epochs}
    options |= {"batch_size": batch_size, "lr": lr, "layer_decay": layer_decay}
    options |= {"weight_decay": weight_decay, "crop_scale": crop_scale, "seed": seed}
    options |= {"precision": precision, "workers": workers}
    from clever_training.finetune.settings import FinetuneSettings

    settings = FinetuneSettings(**options)  # refused now, not after the imports
    if freeze:
        say_unused({"--layer-decay": layer_decay is not None}, "the backbone is not trained")
    for module in ("datasets", "accelerate", "transformers"):
        require(module, "train")
    import datasets
    import transformers

    from clever_training.evaluation.data import load_splits, said_of
    from clever_training.finetune.run import FILE_NAME, finetune
    from clever_training.runtime.processes import is_rank_zero

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    command = command_line(model, data, out, options)
    splits = load_splits(data)
    # The processes do not know each other yet.
    if (words := said_of(splits)) and os.environ.get("RANK", "0") == "0":
        say(words)
    try:
        folder = finetune(model, splits, out, settings, command=command)
    except KeyboardInterrupt:
        typer.echo(f"Stopped. The same command goes on from {out}", err=True)
        raise typer.Exit(130) from None
    if is_rank_zero():
        say(summary(folder / FILE_NAME))


def command_line(model: str, data: str, out: Path, options: dict[str, Any]) -> str:
    """The command that repeats a run; options at their default are left out.

    Example:
        >>> command_line("m", "d", Path("o"), {"head": "full", "freeze": True, "share": 0.1})
        'clever-hub finetune m --data d -o o --freeze --share 0.1'
    """
    from clever_training.finetune.settings import FinetuneSettings

    words = ["clever-hub", "finetune", model, "--data", data, "-o", str(out)]
    defaults = FinetuneSettings()
    for name, value in options.items():
        if value == getattr(defaults, name):
            continue
        words.append(f"--{name.replace('_', '-')}")
        words += [] if value is True else [str(value)]
    return shlex.join(words)


def summary(path: Path) -> str:
    """What is printed at the end, from finetune.json."""
    import json

    content = json.loads(path.read_text(encoding="utf-8"))
    figures = content["figures"]["finetune"]
    ((condition, parts),) = figures.items()
    ((part, metrics),) = parts.items()
    return (
        f"{condition}, head on {part}, {_photos(content)}: "
        f"Top-1 {metrics['top1']['mean']:.2f} %, Top-5 {metrics['top5']['mean']:.2f} % → "
        f"{path.parent}"
    )


def _photos(content: dict[str, Any]) -> str:
    """How many photos it was trained on, and why, if they are not the share that was asked for."""
    data, share = content["data"]["train"], content["settings"]["share"]
    used, there = data["photos"], content.get("share_of", data["photos_in_all"])
    words = f"{used} training photo{'' if used == 1 else 's'}"
    if share == 1 or used == round(share * there):
        return words
    return f"{words} ({100 * used / there:.3g} % of {there}, for at least one of each class)"
