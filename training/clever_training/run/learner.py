"""One optimiser step: from a batch of views to updated weights, on one process or on many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from clever_hub.errors import ConfigError, TrainingError
from clever_training.data.loader import Batch
from clever_training.model.accumulation import take_in_parts
from clever_training.model.backbones import count_batches_once
from clever_training.model.build import build, make_optimizer
from clever_training.model.clever import Clever
from clever_training.model.depthwise import speed_up_depthwise
from clever_training.model.folding import fold_frozen_batch_norm
from clever_training.model.small_maps import speed_up_small_maps
from clever_training.model.sync_batch_norm import share_batch_norm
from clever_training.recipe.schema import Recipe
from clever_training.run.schedule import StepSettings
from clever_training.run.teacher_targets import TeacherTargets
from clever_training.runtime.gathering import average, world_size
from clever_training.runtime.precision import computes_bf16


def make_accelerator(
    recipe: Recipe, trackers: Sequence[str] = (), folder: Path | None = None
) -> Accelerator:
    """Set up accelerate, which places the model on the devices of ``accelerate launch``.

    Args:
        recipe: Its precision.
        trackers: Names of accelerate's trackers.
        folder: Where trackers write.

    Returns:
        The accelerator; its processes are connected from here on.

    Raises:
        ConfigError: When the batch cannot be shared out evenly.
    """
    precision = "bf16" if _use_bf16(recipe) else "no"
    # accelerate keeps one precision per process; an earlier run in it may have had another.
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != precision:
        AcceleratorState._reset_state()
    accelerator = Accelerator(
        mixed_precision=precision,
        cpu=not torch.cuda.is_available(),
        log_with=list(trackers) or None,
        project_dir=folder,
    )
    if recipe.run.batch_size % world_size():
        raise ConfigError(
            f"run.batch_size: {recipe.run.batch_size} photos cannot be shared evenly by "
            f"{world_size()} processes. Set it to a multiple of {world_size()}"
        )
    return accelerator


class Learner:
    """The module, its optimiser, and the step that updates them.

    Args:
        recipe: The run's recipe.
        accelerator: From ``make_accelerator``.
        teacher_targets: The frozen teacher and its embeddings; None without a teacher.

    Attributes:
        clever: The module that is trained.
        optimizer: Optimiser of the student's parameters.
    """

    def __init__(
        self,
        recipe: Recipe,
        accelerator: Accelerator,
        teacher_targets: TeacherTargets | None = None,
    ) -> None:
        self.recipe, self.accelerator, self.teacher_targets = recipe, accelerator, teacher_targets
        device = accelerator.device
        self._mean = torch.tensor(recipe.backbone.mean, device=device) * 255
        self._std = torch.tensor(recipe.backbone.std, device=device) * 255
        torch.manual_seed(recipe.run.seed)
        if teacher_targets is None:
            clever = build(recipe)
        else:
            both = teacher_targets.teacher.architecture, recipe.backbone.architecture
            # The tag names weights, not another network.
            same = len({name.partition(".")[0] for name in both}) == 1
            clever = build(recipe, teacher_targets.teacher.dim, linear=same)
        if device.type == "cpu":
            speed_up_depthwise(speed_up_small_maps(clever))
            for branch in filter(None, (clever.student, clever.teacher)):
                fold_frozen_batch_norm(branch.backbone, recipe.views.global_size)
        if recipe.run.channels_last:
            clever = clever.to(memory_format=torch.channels_last)
        take_in_parts(clever.student.backbone, recipe.run.accumulation)
        self.clever: Clever = share_batch_norm(clever, device)
        if recipe.backbone.gradient_checkpointing:
            count_batches_once(self.clever.student.backbone)
        self.optimizer = make_optimizer(recipe, self.clever.student)

    def prepare(self) -> None:
        """Move everything to its device: after loading a state, before the first step."""
        self._model, self._prepared = self.accelerator.prepare(self.clever, self.optimizer)

    def step(
        self, step: int, epoch: float, batch: Batch, settings: StepSettings
    ) -> dict[str, Tensor]:
        """One optimiser step.

        Args:
            step: Number of the step in the run, from 0.
            epoch: The same in passes through the data.
            batch: This process's share of the batch.
            settings: The schedule's settings for this step.

        Returns:
            The loss terms, and the embeddings of the first view as ``embedding``.

        Raises:
            TrainingError: When a term or a gradient is not finite; names it. The weights have not
                been changed.
        """
        # Randomness inside the model (drop path) depends on the step and the process alone.
        seed = self.recipe.run.seed * 1_000_003 + step
        torch.manual_seed(seed + (self.accelerator.process_index << 40))
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr * group["lr_scale"]
            group["weight_decay"] = settings.weight_decay if group["decayed"] else 0.0
        device = self.accelerator.device
        crops = [self.normalize(crop) for crop in batch.crops]
        targets = self.teacher_targets.for_batch(batch, device) if self.teacher_targets else None
        terms: dict[str, Tensor] = self._model(
            crops, batch.size, settings.temperature, batch.parameters, targets
        )
        reported = self._reported(terms)
        where = f"step {step} (epoch {epoch:.2f})"
        _check(reported, where)
        self.accelerator.backward(terms["loss"])
        self._limit_gradients(where, settings.freeze_last_layer)
        self._prepared.step()
        self._prepared.zero_grad(set_to_none=True)
        self.clever.update_teacher(settings.teacher_momentum)
        return {**terms, **reported}

    def _reported(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """The scalars, averaged over the processes, so that all of them stop at the same step."""
        names = [name for name, value in terms.items() if value.ndim == 0]
        means = average(torch.stack([terms[name].detach().float() for name in names]))
        return dict(zip(names, means.cpu(), strict=True))

    def normalize(self, crops: Tensor) -> Tensor:
        """uint8 (n, size, size, 3) to normalised (n, 3, size, size) on the device."""
        pixels = crops.to(self.accelerator.device, non_blocking=True).float()
        pixels = ((pixels - self._mean) / self._std).permute(0, 3, 1, 2)
        if self.recipe.run.channels_last:
            return pixels  # a permuted NHWC tensor is already channels_last
        return pixels.contiguous()

    def _limit_gradients(self, where: str, freeze_last_layer: bool) -> None:
        """Clip each parameter's gradient norm; drop gradients of DINO's frozen last layers."""
        clip = self.recipe.optimizer.clip_grad
        named = []
        for name, parameter in self.clever.student.named_parameters():
            if freeze_last_layer and ".last_layer." in name:
                parameter.grad = None
            if parameter.grad is not None:
                named.append((name, parameter.grad))
        norms = torch.stack([norm.float() for norm in torch._foreach_norm([g for _, g in named])])
        # A finite loss can have gradients that are not finite; they would ruin the weights.
        if not bool(torch.isfinite(norms).all()):
            name = named[int((~torch.isfinite(norms)).nonzero()[0])][0]
            _check({f"the gradient of {name}": norms[~torch.isfinite(norms)][0]}, where)
        if clip:
            factors = (clip / (norms + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_([g for _, g in named], list(factors.unbind()))


def _check(values: dict[str, Tensor], where: str) -> None:
    for name, value in values.items():
        if not math.isfinite(value.item()):
            raise TrainingError(
                f"{name} is {value.item()} at {where}. Start again with another --output and a "
                "lower optimizer.lr or with run.precision=fp32; --set backbone.init=RUN/model "
                "starts from the weights that were saved last"
            )


def _use_bf16(recipe: Recipe) -> bool:
    if recipe.run.precision != "auto":
        return recipe.run.precision == "bf16"
    return computes_bf16()
