"""transformers' ``Trainer`` with layer-wise learning rates and a backbone that may be frozen."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import load_file
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader
from transformers import EvalPrediction, Trainer, TrainerCallback

from clever_hub.errors import TrainingError
from clever_hub.images.progress import LogLines
from clever_hub.weights import WEIGHTS_NAME
from clever_training.finetune.data import CroppedPhotos
from clever_training.finetune.rates import describe_rates, parameter_groups
from clever_training.finetune.settings import FinetuneSettings


class FinetuneTrainer(Trainer):
    """Fine-tunes a ``CleverForImageClassification``.

    Args:
        settings: The settings.
        **options: Options of ``Trainer``.
    """

    def __init__(self, settings: FinetuneSettings, **options: Any) -> None:
        super().__init__(**options)
        self.settings = settings
        # The model's forward takes **kwargs; Trainer wrongly concludes that it scales its loss.
        self.model_accepts_loss_kwargs = False

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW with a learning rate that falls from the head to the first block."""
        if self.optimizer is None:
            network = self.accelerator.unwrap_model(self.model if model is None else model)
            groups = parameter_groups(network, self.settings)
            self.optimizer = torch.optim.AdamW(groups, lr=self.settings.learning_rate)
        return self.optimizer

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The training photos, in another order each epoch.

        A last batch that leaves a device one photo alone is dropped where BatchNorm trains: of one
        photo there is no variance.
        """
        before = self.args.dataloader_drop_last
        self.args.dataloader_drop_last = self._leaves_one()  # else also of validation batches
        try:
            loader: DataLoader[Any] = super().get_train_dataloader()
        finally:
            self.args.dataloader_drop_last = before
        return loader

    def _leaves_one(self) -> bool:
        """Whether a device has one photo in the last of several batches, and BatchNorm trains."""
        photos: Any = self.train_dataset
        whole, rest = divmod(len(photos), self.args.train_batch_size)
        network = self.accelerator.unwrap_model(self.model)
        trains = not self.settings.freeze and any(
            isinstance(module, _BatchNorm) for module in network.modules()
        )
        # accelerate fills the last batch of several processes.
        if not (trains and whole and rest) or self.accelerator.num_processes > 1:
            return False
        share: int = math.ceil(rest / max(1, self.args.n_gpu))  # of a device, under DataParallel
        return (rest - 1) % share == 0

    def compute_loss(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The cross-entropy; a frozen backbone computes in eval mode.

        bf16 is for training alone: it rounds logits to a few digits, so that some are equal, and
        the model that is written computes in float32.
        """
        if self.settings.freeze:
            self.accelerator.unwrap_model(model).backbone.eval()
        bf16 = model.training and self.settings.bf16
        try:
            with torch.autocast(self.args.device.type, torch.bfloat16, enabled=bf16):
                loss = super().compute_loss(model, inputs, *args, **kwargs)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise TrainingError(
                "BatchNorm needs 2 photos or more in a step, got 1. Take a larger --batch-size"
            ) from error
        value = loss[0] if isinstance(loss, tuple) else loss
        if not bool(torch.isfinite(value).all()):  # of DataParallel, one for each GPU
            raise TrainingError(
                f"the loss is not finite at step {self.state.global_step + 1}. Try a smaller --lr "
                f"than {self.settings.learning_rate:g}, or --precision fp32"
            )
        return loss

    def _prepare_inputs(self, inputs: Any) -> Any:
        """Raise the error of a worker here, without the worker's traceback."""
        if "error" in inputs:
            raise inputs["error"]
        return super()._prepare_inputs(inputs)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        """Load strictly, which Trainer's own method does not."""
        state = load_file(Path(resume_from_checkpoint) / WEIGHTS_NAME)
        network = self.accelerator.unwrap_model(self.model if model is None else model)
        network.load_state_dict(state, strict=True)


def accuracies(prediction: EvalPrediction) -> dict[str, float]:
    """Top-1 and Top-5 in per cent.

    Args:
        prediction: Logits (N, classes) and labels (N,).

    Returns:
        ``top1`` and ``top5``.
    """
    logits: NDArray[np.float32] = np.asarray(prediction.predictions)
    labels: NDArray[np.int64] = np.asarray(prediction.label_ids)
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    # Ties count as errors, so that constant logits get no credit.
    better = (logits >= own).sum(axis=1) - 1
    return {f"top{k}": float((better < k).mean() * 100) for k in (1, 5)}


class EpochCallback(TrainerCallback):
    """Sets the epoch of the training photos."""

    def __init__(self, photos: CroppedPhotos) -> None:
        self.photos = photos

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Set the epoch before its photos are prepared."""
        self.photos.set_epoch(round(state.epoch or 0))


class BarCallback(TrainerCallback):
    """A progress bar with loss and time left on a terminal; elsewhere lines, one per epoch."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._terminal = console.is_terminal
        self._bar = Progress(
            TextColumn("fine-tuning"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not self._terminal,
        )
        self._lines = LogLines(console)
        self._text = ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:  # noqa: ARG002
        """Show the range of the learning rates and the bar in the first process."""
        if state.is_world_process_zero:
            sys.stderr.write(f"{describe_rates(others['optimizer'].param_groups)}\n")
        self._bar.disable = not (self._terminal and state.is_world_process_zero)
        self._task = self._bar.add_task(
            "", total=state.max_steps, completed=state.global_step, text=""
        )
        self._bar.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Count a step."""
        self._bar.update(self._task, completed=state.global_step, text=self._text)
        if state.is_world_process_zero:
            self._lines.say("fine-tuning, step", state.global_step, state.max_steps)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        """Show the loss; without a terminal, print a line per evaluation."""
        if logs and "loss" in logs:
            self._text = f"loss {float(logs['loss']):.3f}"
        if logs and "eval_top1" in logs and not self._terminal and state.is_world_process_zero:
            sys.stderr.write(
                f"epoch {state.epoch:.0f} of {args.num_train_epochs:.0f}: "
                f"validation top-1 {logs['eval_top1']:.2f} %, {self._text or 'no loss yet'}\n"
            )
        del control

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Remove the bar."""
        self.close()

    def close(self) -> None:
        """Remove the bar, also after an interruption."""
        self._bar.stop()
