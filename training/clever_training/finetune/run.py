"""The fine-tuning run: a model and labelled photos in, a folder for transformers out."""

from __future__ import annotations

import json
import math
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PrinterCallback, TrainerCallback, TrainingArguments
from transformers.utils import IMAGE_PROCESSOR_NAME

from clever_hub import __version__
from clever_hub.backends.own import remote_code
from clever_hub.backends.torch import CleverModel
from clever_hub.config import CONFIG_NAME, ModelConfig, PreprocessingConfig
from clever_hub.errors import ConfigError, TrainingError
from clever_hub.files import share, write_json, write_text
from clever_hub.hub.origin import FINETUNED, trained_further
from clever_hub.transformers import (
    CleverConfig,
    CleverForImageClassification,
    CleverImageProcessor,
)
from clever_hub.weights import WEIGHTS_NAME
from clever_training.data.labelled import LabelledPhotos
from clever_training.data.sources import public_name
from clever_training.evaluation.data import Splits, check_classes
from clever_training.evaluation.models import ModelFeatures, load_extractor
from clever_training.evaluation.results import environment, now, summarize
from clever_training.finetune.data import CroppedPhotos, PlainPhotos, collate, semi_supervised
from clever_training.finetune.settings import FinetuneSettings
from clever_training.finetune.trainer import (
    BarCallback,
    EpochCallback,
    FinetuneTrainer,
    accuracies,
)
from clever_training.runtime.folders import hold, is_log
from clever_training.runtime.processes import gathered, on_rank_zero

FILE_NAME = "finetune.json"
STATE = "state"
# The remote-code classes that transformers uses when this package is not installed.
_AUTO_MAP = {
    "AutoConfig": "configuration_clever.CleverConfig",
    "AutoModelForImageClassification": "modeling_clever.CleverForImageClassification",
    "AutoImageProcessor": "image_processing_clever.CleverImageProcessor",
}


def finetune(
    model: str,
    splits: Splits,
    out: str | Path,
    settings: FinetuneSettings | None = None,
    *,
    command: str = "",
    callbacks: tuple[TrainerCallback, ...] = (),
) -> Path:
    """Fine-tune a model on labelled photos, or resume a run that was stopped.

    Args:
        model: A model's name, folder or Hub id; for comparison ``timm:NAME`` and ``random:MODEL``.
        splits: Photos to fit on and photos to measure on. The last epoch is reported; the
            validation photos do not select anything.
        out: The folder: config.json, model.safetensors and preprocessor_config.json, which
            ``AutoModelForImageClassification`` loads, and finetune.json.
        settings: The settings; the defaults when left out.
        command: The command line that repeats the run, for finetune.json.
        callbacks: Callbacks of transformers, besides the progress bar.

    Returns:
        The folder.

    Raises:
        ConfigError: When the model has no weights or no such part.
        TrainingError: When the folder belongs to another run, or the loss is not finite.
        DataError: When a photo cannot be read; the error names it.

    Example:
        >>> finetune("clever-resnet18", splits, "tuned")  # doctest: +SKIP
    """
    settings, out = settings or FinetuneSettings(), Path(out)
    check_classes(splits)
    extractor = load_extractor(model, seed=settings.seed)
    if not isinstance(extractor, ModelFeatures):
        raise ConfigError(f"{model}: expected a model, this has no weights to tune")
    if settings.head not in extractor.parts:
        raise ConfigError(f"--head {settings.head}: {model} has no equivariant part, take full")
    train = semi_supervised(splits.train, settings.share, settings.seed)
    run = {
        "model": extractor.describe(),
        # The number of workers changes nothing but the speed.
        "settings": {k: v for k, v in asdict(settings).items() if k != "workers"},
        "data": {"train": train.describe(), "validation": splits.validation.describe()},
        "labels": {"train": train.labels_id(), "validation": splits.validation.labels_id()},
    }
    arguments = _arguments(out, len(train), settings)
    with ExitStack() as stack:
        # The others leave the folder alone until the first process has found that it may be used.
        on_rank_zero(lambda: stack.enter_context(_alone(out, extractor.model.config.architecture)))
        if not _claimed(out, run):
            network = build_network(extractor.model, train.classes, settings)
            if not settings.freeze:
                network.config.provenance = provenance(extractor, train, settings)
            parts = Splits(train, splits.validation)
            trainer = _trainer(network, parts, arguments, settings, callbacks)
            seconds = _train(trainer, out)
            if trainer.is_world_process_zero():
                save_network(network, extractor.model.config, out)
                content = _content(run, trainer.state.log_history, settings, command, seconds)
                content["share_of"] = len(splits.train)
                write_json(out / FILE_NAME, content)
                shutil.rmtree(out / STATE)
            # A process that ended earlier would stop the one that writes.
            trainer.accelerator.wait_for_everyone()
    return out


@contextmanager
def _alone(out: Path, architecture: str) -> Iterator[None]:
    """Keep other runs out of the folder; the first process enters it for all of them.

    Args:
        out: The folder. Of a stopped run it may hold some of the files that are written last.
        architecture: The backbone's name, on which these files depend.

    Raises:
        TrainingError: When another run is in it, or it holds other files; then none is touched.
    """
    if (out / FILE_NAME).is_file():
        yield
        return
    state = out / STATE
    begun = (state / "run.json").is_file()
    ours = _is_written(architecture)
    others = [p for p in out.glob("*") if not (p == state or is_log(p) or (begun and ours(p)))]
    if others or (list(state.glob("checkpoint-*")) and not begun):
        raise TrainingError(
            f"{out}: expected a new folder or one of a stopped run, got other files. "
            "Give another --output"
        )
    state.mkdir(parents=True, exist_ok=True)
    with (state / ".lock").open("w") as file:
        if not hold(file, out):
            file.close()  # Windows removes no file that is open
        for partial in filter(ours, out.glob(".*")):
            partial.unlink()
        yield


def _is_written(architecture: str) -> Callable[[Path], bool]:
    """Whether a file is one that ``save_network`` writes, or a part of one."""
    names = {CONFIG_NAME, WEIGHTS_NAME, IMAGE_PROCESSOR_NAME, *remote_code(architecture)}
    stems = "|".join(re.escape(Path(name).stem) for name in {*names, FILE_NAME})
    # As ``files.atomic_path`` and safetensors name what they have not finished.
    partial = re.compile(rf"\.({stems})\.[0-9a-f]{{8}}\.tmp(\.\w+)?|\.tmp\w{{6}}")
    return lambda path: path.name in names or bool(partial.fullmatch(path.name))


def _train(trainer: FinetuneTrainer, out: Path) -> float:
    """Train from the last checkpoint on, if there is one; the seconds that it took."""
    started = time.monotonic()
    try:
        trainer.train(resume_from_checkpoint=_last_checkpoint(out / STATE))
    finally:
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, BarCallback):
                callback.close()
    return time.monotonic() - started


def build_network(
    model: CleverModel, classes: tuple[str, ...], settings: FinetuneSettings
) -> CleverForImageClassification:
    """The classifier: the model's backbone and a new head.

    Args:
        model: The model with the pre-trained weights.
        classes: Name of each class.
        settings: Which part the head sees, whether the backbone is frozen, and the head's seed.

    Returns:
        The network.
    """
    # Keys of timm and clever_hub are left out, so that both refuse a folder with a head.
    own = {"pretrained_cfg", "num_classes", "architectures", "auto_map", "model_type"}
    content = {k: v for k, v in model.config.to_dict().items() if k not in own}
    if not settings.freeze and model.source is not None:
        # What is said of the weights is no longer true of those that are written.
        content["provenance"] = trained_further(model.config, model.source.weights_sha256)
    config = CleverConfig(
        **content,
        head_input=settings.head,
        id2label=dict(enumerate(classes)),
        label2id={name: index for index, name in enumerate(classes)},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = CleverForImageClassification(config)
    network.backbone.load_state_dict(model.backbone.state_dict(), strict=True)
    network.backbone.requires_grad_(not settings.freeze)
    return network


def provenance(
    extractor: ModelFeatures, photos: LabelledPhotos, settings: FinetuneSettings
) -> dict[str, Any]:
    """What config.json says of how the backbone's weights came about.

    Args:
        extractor: The model that the fine-tuning begins with.
        photos: The photos that it is tuned on.
        settings: The settings.

    Returns:
        Method, loss, photos, classes, epochs, and what it began with.
    """
    model = extractor.model
    source = model.source
    start: dict[str, Any] = {"start": {"init": "random"}}
    if extractor.kind != "random":
        start = trained_further(model.config, source.weights_sha256 if source else None)
    return {
        "method": FINETUNED,
        "loss": "cross-entropy",
        "head": settings.head,
        "data": _data_name(photos.name),
        "photos": len(photos),
        "classes": len(photos.classes),
        "epochs": settings.epochs,
        "clever_hub": __version__,
        "torch": torch.__version__,
        **start,
    }


def _data_name(name: str) -> str:
    """A Hub id without split and columns; of files and folders no path."""
    # Of one folder a part may have been set aside, which the number of photos tells.
    place = re.sub(r" \([a-z ]+ of each class\)$", "", name.partition("?")[0])
    return public_name(place if Path(place).expanduser().exists() else place.partition(":")[0])


def save_network(network: CleverForImageClassification, config: ModelConfig, folder: Path) -> None:
    """Write what ``AutoModelForImageClassification`` and ``AutoImageProcessor`` load.

    Args:
        network: The fine-tuned network.
        config: Config of the model it came from, for the preprocessing.
        folder: The folder; created when missing.
    """
    network.save_pretrained(folder)
    share(folder / WEIGHTS_NAME)
    preprocessing = config.preprocessing.to_dict()
    CleverImageProcessor(**preprocessing).save_pretrained(folder)
    path = folder / CONFIG_NAME
    content = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, content | {"auto_map": _AUTO_MAP})
    for name, code in remote_code(config.architecture).items():
        write_text(folder / name, code)


def _claimed(out: Path, run: dict[str, Any]) -> bool:
    """Let the first process claim the folder; every process learns whether the run is complete."""
    complete: list[bool] = []
    on_rank_zero(lambda: complete.append(_claim(out, run)))
    (first,) = gathered(complete)[0]
    return bool(first)


def _claim(out: Path, run: dict[str, Any]) -> bool:
    """Record in the folder which run it belongs to; True when that run is complete."""
    finished, note = out / FILE_NAME, out / STATE / "run.json"
    found = next((path for path in (finished, note) if path.is_file()), None)
    if found is None:
        write_json(note, run)
        return False
    known = json.loads(found.read_text(encoding="utf-8"))
    # A round trip through JSON turns tuples into lists.
    wanted = json.loads(json.dumps(run))
    # An earlier version noted neither labels nor the image column.
    earlier = "labels" not in known
    known = {"labels": wanted["labels"], **known}
    differing = [key for key in wanted if _compared(known.get(key)) != _compared(wanted[key])]
    if differing and found == note and _last_checkpoint(out / STATE) is None:
        # That run has nothing to go on from, as where a photo was broken and is removed now.
        write_json(note, run)
        return False
    if differing:
        what = f"a run with other {' and '.join(differing)}"
        if earlier and "data" in differing:
            what += ", or to one that an earlier version began with ?image=COLUMN"
        raise TrainingError(
            f"{out}: belongs to {what}. Give another --output, or remove the folder"
        )
    return found == finished


def _compared(entry: Any) -> Any:
    """An entry without how the model's views were called, which versions say differently."""
    if isinstance(entry, dict):
        return {key: value for key, value in entry.items() if key != "views"}
    return entry


def _last_checkpoint(state: Path) -> str | None:
    """The newest complete checkpoint; trainer_state.json is written last."""
    whole = [path.parent for path in state.glob("checkpoint-*/trainer_state.json")]
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None


def _arguments(out: Path, photos: int, settings: FinetuneSettings) -> TrainingArguments:
    """What the trainer is told; making it connects the processes, and writes nothing."""
    return TrainingArguments(
        output_dir=str(out / STATE),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=2 * settings.batch_size,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        max_grad_norm=1.0,
        seed=settings.seed,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        logging_strategy="steps",
        # Of few photos an epoch has fewer steps, and each tells its loss.
        logging_steps=min(10, max(1, math.ceil(photos / settings.batch_size))),
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to="none",
        dataloader_num_workers=settings.workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=not torch.accelerator.is_available(),
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,  # there are none
    )


def _trainer(
    network: CleverForImageClassification,
    splits: Splits,
    arguments: TrainingArguments,
    settings: FinetuneSettings,
    callbacks: tuple[TrainerCallback, ...],
) -> FinetuneTrainer:
    preprocessing = PreprocessingConfig.from_dict(network.config.preprocessing)
    crops = CroppedPhotos(splits.train, preprocessing, settings.crop_scale, settings.seed)
    trainer = FinetuneTrainer(
        settings,
        model=network,
        args=arguments,
        train_dataset=crops,
        eval_dataset=PlainPhotos(splits.validation, preprocessing),
        data_collator=collate,
        compute_metrics=accuracies,
        callbacks=[EpochCallback(crops), BarCallback(), *callbacks],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _content(
    run: dict[str, Any],
    log: list[dict[str, Any]],
    settings: FinetuneSettings,
    command: str,
    seconds: float,
) -> dict[str, Any]:
    """The content of finetune.json: figures in the layout of evaluation.json, and the curves."""
    history = [
        {key.removeprefix("eval_"): entry[key] for key in keys}
        for entry in log
        if "eval_top1" in entry
        for keys in [("epoch", "eval_top1", "eval_top5", "eval_loss")]
    ]
    last = {key: value for key, value in history[-1].items() if key != "epoch"}
    figures = {settings.condition: {settings.head: last}}
    return {
        "schema_version": 1,
        **run,
        "figures": {"finetune": summarize([figures])},
        "protocols": {
            "finetune": {
                "command": command,
                "seeds": [settings.seed],
                "settings": run["settings"],
                "data": run["data"],
                "created": now(),
                # For a resumed run, the time since its last start.
                "seconds": round(seconds, 1),
                "environment": environment() | {"transformers": transformers.__version__},
            }
        },
        "history": history,
        "train_loss": [
            {"step": entry["step"], "loss": entry["loss"]} for entry in log if "loss" in entry
        ],
    }
