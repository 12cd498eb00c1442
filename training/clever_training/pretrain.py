"""The one pre-training loop."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from clever_hub import __version__
from clever_hub.config import IMAGENET_MEAN, IMAGENET_STD, ModelConfig, PreprocessingConfig
from clever_hub.errors import TrainingError
from clever_hub.torch_model import write_model_folder
from clever_training.backbones import create_backbone, embedding_length, invariant_length
from clever_training.checkpoint import load_state, save_state
from clever_training.clever import Clever, LossWeights
from clever_training.collapse import effective_rank, feature_std
from clever_training.data import Batch, Order, Photos, Views, load_photos, make_loader
from clever_training.objectives import make_objective
from clever_training.progress import TrainingProgress
from clever_training.recipe import Recipe
from clever_training.run_folder import RunFolder
from clever_training.schedule import StepSettings, settings_at
from clever_training.small_maps import speed_up_small_maps


def pretrain(
    recipe: Recipe,
    data: str,
    out: str | Path,
    *,
    image_column: str | None = None,
    progress: bool = True,
) -> Path:
    """Pre-train a backbone, or go on with a run that was stopped.

    The same call resumes: order and views are pure functions of the seed, the state holds the
    rest, so a run that was killed ends with the same weights, bit for bit, as one left alone.

    Args:
        recipe: What to do.
        data: Photos, as ``load_photos`` takes them.
        out: The run folder: recipe.json, metrics.jsonl, state.safetensors and model/, a model
            folder that ``clever_hub.from_pretrained`` loads while training goes on.
        image_column: The image column of a table.
        progress: Show a progress bar.

    Returns:
        The model folder.

    Raises:
        TrainingError: When a loss is not finite (named, with its step; the last state is kept),
            the folder is in use or belongs to another run.
        DataError: When the data set is wrong.
    """
    folder = RunFolder(Path(out))
    with folder.locked():
        photos = load_photos(data, image_column)
        folder.claim(recipe, data, len(photos))
        run = _Run(recipe, photos, folder, progress)
        with _stop_signals() as stopping:
            run.train(stopping)
    return folder.model


class _Run:
    """One process's share of a run."""

    def __init__(self, recipe: Recipe, photos: Photos, folder: RunFolder, progress: bool) -> None:
        self.recipe, self.photos, self.folder = recipe, photos, folder
        self.accelerator = Accelerator(
            mixed_precision="bf16" if _use_bf16(recipe) else "no",
            cpu=not torch.cuda.is_available(),
        )
        torch.manual_seed(recipe.run.seed)
        self.clever = build(recipe)
        if self.accelerator.device.type == "cpu":
            speed_up_small_maps(self.clever)
        if recipe.run.channels_last:
            self.clever = self.clever.to(memory_format=torch.channels_last)
        self.optimizer = make_optimizer(recipe, self.clever.student)
        self.counters: dict[str, Any] = {"step": 0, "seconds": 0.0}
        if folder.state.exists():
            self.counters = load_state(folder.state, self.clever, self.optimizer)
        folder.rewind_metrics(self.counters["step"])
        self.model, self.prepared = self.accelerator.prepare(self.clever, self.optimizer)
        self.progress = TrainingProgress(enabled=progress and self.accelerator.is_main_process)

    def train(self, stopping: dict[str, bool]) -> None:
        """From the state's step to the end, or until asked to stop."""
        recipe, run = self.recipe, self.recipe.run
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        start = int(self.counters["step"])
        order = Order(recipe, len(self.photos), start, 0, rank, world)
        total = run.epochs * order.steps_per_epoch
        order.stop = min(total, run.max_steps or total)
        loader = make_loader(Views(self.photos, recipe), order, run.num_workers)
        saved = mark = time.monotonic()
        with self.progress.running(recipe.name, start, order.stop, run.batch_size):
            for step, batch, waited in _timed(loader, start):
                settings = settings_at(recipe, step, order.steps_per_epoch)
                terms = self.step(step, batch, settings)
                now = time.monotonic()
                self.counters["step"] = step + 1
                self.counters["seconds"] += now - mark
                self._record(step + 1, order, terms, settings, waited / max(1e-9, now - mark))
                mark = now
                if now - saved > run.save_minutes * 60 or stopping["asked"]:
                    self.save(order.steps_per_epoch)
                    saved = time.monotonic()
                if stopping["asked"]:
                    raise KeyboardInterrupt
        self.save(order.steps_per_epoch)

    def step(self, step: int, batch: Batch, settings: StepSettings) -> dict[str, Tensor]:
        """One optimiser step; returns the loss terms."""
        # Whatever is random inside the model (drop path) is a function of the step alone.
        torch.manual_seed(self.recipe.run.seed * 1_000_003 + step)
        _apply(self.optimizer, settings)
        crops = [self._prepare(crop) for crop in batch.crops]
        terms: dict[str, Tensor] = self.model(crops, batch.size, settings.temperature)
        for name, value in terms.items():
            if value.ndim == 0 and not math.isfinite(value.item()):
                raise TrainingError(
                    f"{name} is {value.item()} at step {step} (epoch "
                    f"{step * self.recipe.run.batch_size / len(self.photos):.2f}). The last good "
                    "state is kept; lower optimizer.lr, or set run.precision to fp32"
                )
        self.accelerator.backward(terms["loss"])
        _limit_gradients(self.clever, self.recipe.optimizer.clip_grad, settings.freeze_last_layer)
        self.prepared.step()
        self.prepared.zero_grad(set_to_none=True)
        self.clever.update_teacher(settings.teacher_momentum)
        return terms

    def _prepare(self, crops: Tensor) -> Tensor:
        """uint8 (n, size, size, 3) to normalised (n, 3, size, size) on the device."""
        device = self.accelerator.device
        mean = torch.tensor(IMAGENET_MEAN, device=device) * 255
        std = torch.tensor(IMAGENET_STD, device=device) * 255
        pixels = ((crops.to(device).float() - mean) / std).permute(0, 3, 1, 2)
        if self.recipe.run.channels_last:
            return pixels  # a permuted NHWC tensor is channels_last as it is
        return pixels.contiguous()

    def save(self, steps_per_epoch: int) -> None:
        """Write the state and the model folder."""
        if not self.accelerator.is_main_process:
            return
        save_state(self.folder.state, self.clever, self.optimizer, self.counters)
        config = model_config(self.recipe, self.counters, steps_per_epoch, len(self.photos))
        weights = self.clever.shipped_backbone.state_dict()
        write_model_folder(self.folder.model, config, weights)

    def _record(
        self,
        done: int,
        order: Order,
        terms: dict[str, Tensor],
        settings: StepSettings,
        waiting: float,
    ) -> None:
        scalars = {name: value.item() for name, value in terms.items() if value.ndim == 0}
        self.progress.advance(scalars, waiting)
        if not self.accelerator.is_main_process:
            return
        if done % self.recipe.run.log_steps == 0 or done == order.stop:
            embedding = terms["embedding"]
            split = invariant_length(embedding.shape[1], self.recipe.method.split_ratio)
            parts = {"invariant": embedding[:, :split], "equivariant": embedding[:, split:]}
            values = {
                "step": done,
                "epoch": done / order.steps_per_epoch,
                "seconds": round(self.counters["seconds"], 1),
                **scalars,
                **{f"rank_{name}": effective_rank(part) for name, part in parts.items()},
                **{f"std_{name}": feature_std(part) for name, part in parts.items()},
                "lr": settings.lr,
                "weight_decay": settings.weight_decay,
                "photos_per_second": self.progress.photos_per_second,
                "waiting": self.progress.waiting,
            }
            self.folder.log(values)
            self.progress.line(values)


def build(recipe: Recipe) -> Clever:
    """The module that a recipe trains, with random weights.

    Args:
        recipe: The recipe.

    Returns:
        Backbone, heads, objective and, where the objective has one, the teacher.
    """
    backbone = create_backbone(
        recipe.backbone.architecture, recipe.backbone.model_args, recipe.backbone.drop_path
    )
    method = recipe.method
    features = embedding_length(backbone)
    return Clever(
        backbone,
        features,
        invariant_length(features, method.split_ratio) if method.equivariance else features,
        make_objective(method.objective, method.objective_args),
        LossWeights(method.orthogonality_weight, method.regularization_weight),
    )


def make_optimizer(recipe: Recipe, student: nn.Module) -> Optimizer:
    """AdamW or SGD; no weight decay on biases and one-dimensional parameters.

    Args:
        recipe: Which optimiser.
        student: What it moves.

    Returns:
        The optimiser, with two parameter groups: decayed and not.
    """
    parameters = [p for p in student.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "decayed": True},
        {"params": [p for p in parameters if p.ndim <= 1], "decayed": False, "weight_decay": 0.0},
    ]
    options = recipe.optimizer
    if options.name == "sgd":
        return SGD(groups, lr=options.lr, momentum=options.momentum)
    return AdamW(groups, lr=options.lr, foreach=True)


def model_config(
    recipe: Recipe, counters: dict[str, Any], steps_per_epoch: int, photos: int
) -> ModelConfig:
    """The config of the model that a run has made so far.

    Args:
        recipe: The run's recipe.
        counters: Of its state.
        steps_per_epoch: Steps in a pass through the data.
        photos: Number of photos.

    Returns:
        The config, provenance included.
    """
    backbone = create_backbone(recipe.backbone.architecture, recipe.backbone.model_args)
    features = embedding_length(backbone)
    size = recipe.image_size
    return ModelConfig(
        name=recipe.name,
        architecture=recipe.backbone.architecture,
        model_args=dict(recipe.backbone.model_args),
        num_features=features,
        invariant_dim=invariant_length(features, recipe.method.split_ratio),
        preprocessing=PreprocessingConfig(resize_size=size, crop_size=size),
        provenance={
            "method": ("clever-" if recipe.method.equivariance else "") + recipe.method.objective,
            "data": recipe.data_name,
            "photos": photos,
            "epochs": round(counters["step"] / steps_per_epoch, 3),
            "planned_epochs": recipe.run.epochs,
            "steps": counters["step"],
            "hours": round(counters["seconds"] / 3600, 3),
            "clever_hub": __version__,
            "torch": torch.__version__,
            "recipe": recipe.model_dump(mode="json"),
        },
        data_terms=recipe.data_terms,
    )


def _use_bf16(recipe: Recipe) -> bool:
    if recipe.run.precision != "auto":
        return recipe.run.precision == "bf16"
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    # Emulated bf16 is many times slower than float32.
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _apply(optimizer: Optimizer, settings: StepSettings) -> None:
    for group in optimizer.param_groups:
        group["lr"] = settings.lr
        group["weight_decay"] = settings.weight_decay if group["decayed"] else 0.0


def _limit_gradients(clever: Clever, clip: float, freeze_last_layer: bool) -> None:
    """Each parameter's gradient norm at most ``clip``; none for DINO's last layers at first."""
    for name, parameter in clever.student.named_parameters():
        if freeze_last_layer and ".last_layer." in name:
            parameter.grad = None
        if clip and parameter.grad is not None:
            norm = parameter.grad.norm()
            parameter.grad.mul_((clip / (norm + 1e-6)).clamp(max=1.0))


def _timed(loader: Any, start: int) -> Iterator[tuple[int, Batch, float]]:
    """Number the batches, and time how long each was waited for."""
    step, begin = start, time.monotonic()
    for batch in loader:
        yield step, batch, time.monotonic() - begin
        step, begin = step + 1, time.monotonic()


@contextmanager
def _stop_signals() -> Iterator[dict[str, bool]]:
    """Ctrl-C and SIGTERM ask to stop after the step; a second one stops at once."""
    stopping = {"asked": False}

    def ask(number: int, _: FrameType | None) -> None:
        if stopping["asked"]:
            raise KeyboardInterrupt
        stopping["asked"] = True
        sys.stderr.write(f"\n{signal.Signals(number).name}: saving after this step …\n")

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
