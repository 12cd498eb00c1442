"""What a training step costs: this engine's against the published formulas written out plainly.

    python benchmarks/train_step.py --out benchmarks/RESULTS.md

CLeVER on DINO, ResNet-18, from uint8 views in memory to moved weights, centres and teacher. The
plain step computes in float32 with torch's defaults: NCHW images, softmax, log-softmax and cosine
anew for each pair of views, AdamW, clipping and teacher parameter by parameter. This engine's is
``Learner.step`` as ``clever-hub pretrain`` runs it: bf16 and channels_last, each view's softmax
once, all pairs in one product. The steps take turns, so that all meet the same machine; medians
are compared. With one thread (``--threads 1``) processor time is what counts, which a busy machine
does not stretch; with several, time on the clock. Aim: at least 1.8 times the plain step, at 64 px,
batch 128, 2 + 4 views.

``--depthwise`` measures EfficientNet-Lite0 instead, forward and backward of views of 112 px, with
torch alone and with this engine's gradients of depthwise convolutions. Aim: at least twice torch's
float32.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median

import timm
import torch
import torch.nn.functional as F
from results import command_of, machine, write_section
from torch import Tensor

from clever_hub.config import IMAGENET_MEAN, IMAGENET_STD
from clever_training.data.loader import Batch
from clever_training.model.build import build
from clever_training.model.depthwise import speed_up_depthwise
from clever_training.objectives.dino import Dino
from clever_training.recipe.schema import Recipe
from clever_training.run.learner import Learner, make_accelerator
from clever_training.run.schedule import StepSettings
from clever_training.runtime.memory import keep_freed_memory

SETTINGS = StepSettings(1e-4, 0.05, 0.996, 0.04, freeze_last_layer=False)
STUDENT_TEMPERATURE, CENTER_MOMENTUM, ORTHOGONALITY, REGULARIZATION = 0.1, 0.9, 1.0, 0.001


def make_recipe(options: argparse.Namespace, precision: str) -> Recipe:
    """The benchmark's recipe."""
    head = {"prototypes": options.prototypes, "head_batch_norm": True}
    return Recipe.parse(
        {
            "name": "benchmark",
            "backbone": "resnet18",
            "method": {"name": "clever-dino", "objective_args": head},
            "views": {
                "global_size": options.size,
                "local_count": 4,
                "local_size": options.size // 2,
            },
            "run": {"batch_size": options.batch, "precision": precision},
        }
    )


def make_batch(recipe: Recipe) -> Batch:
    """Random views; a step's time does not depend on what they show."""
    views, batch = recipe.views, recipe.run.batch_size
    generator = torch.Generator().manual_seed(0)
    crops = [
        torch.randint(0, 256, (count * batch, side, side, 3), generator=generator).byte()
        for count, side in (
            (views.global_count, views.global_size),
            (views.local_count, views.local_size),
        )
    ]
    return Batch(crops, torch.zeros(batch, 6, 14), batch)


class PlainStep:
    """The published formulas, view by view and pair by pair, in float32."""

    def __init__(self, recipe: Recipe) -> None:
        torch.manual_seed(recipe.run.seed)
        self.clever, self.recipe = build(recipe), recipe
        parameters = [p for p in self.clever.student.parameters() if p.requires_grad]
        decayed = {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.05}
        others = {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}
        self.optimizer = torch.optim.AdamW([decayed, others], lr=SETTINGS.lr)

    def __call__(self, batch: Batch) -> float:
        """One step; returns its loss."""
        mean, std = torch.tensor(IMAGENET_MEAN) * 255, torch.tensor(IMAGENET_STD) * 255
        crops = [((c.float() - mean) / std).permute(0, 3, 1, 2).contiguous() for c in batch.crops]
        student_ir, student_ef, _ = self.clever.student(crops, batch.size)
        assert self.clever.teacher is not None
        with torch.no_grad():
            teacher_ir, teacher_ef, _ = self.clever.teacher(crops[:1], batch.size)
        loss = self._loss(student_ir, student_ef, teacher_ir, teacher_ef)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        for parameter in self.clever.student.parameters():
            if parameter.grad is not None:
                factor = self.recipe.optimizer.clip_grad / (parameter.grad.norm(2) + 1e-6)
                if factor < 1:
                    parameter.grad.mul_(factor)
        self.optimizer.step()
        self._move(teacher_ir, teacher_ef)
        return loss.item()

    def _loss(self, s_ir: Tensor, s_ef: Tensor, t_ir: Tensor, t_ef: Tensor) -> Tensor:
        objective, tau = self.clever.objective, SETTINGS.temperature
        assert isinstance(objective, Dino)
        center_ir = objective.teacher_invariant_center
        center_ef = objective.teacher_equivariant_center
        contrastive, orthogonality, pairs = torch.zeros(()), torch.zeros(()), 0
        for q in range(len(t_ir)):
            for v in range(len(s_ir)):
                if v == q:
                    continue
                target = F.softmax((t_ir[q] - center_ir) / tau, dim=-1).detach()
                log = F.log_softmax(s_ir[v] / STUDENT_TEMPERATURE, dim=-1)
                contrastive = contrastive + torch.sum(-target * log, dim=-1).mean()
                target = F.softmax((t_ef[q] - center_ef) / tau, dim=-1).detach()
                view = F.softmax(s_ef[v] / STUDENT_TEMPERATURE, dim=-1)
                cosine = F.cosine_similarity(target, view, dim=-1).mean()
                orthogonality = orthogonality + cosine.abs()
                pairs += 1
        norms = []
        for head in (self.clever.student.invariant, self.clever.student.equivariant):
            assert head is not None
            norm = torch.zeros(())
            for parameter in head.parameters():
                norm = norm + parameter.norm(2) ** 2
            norms.append(norm)
        gap = (norms[0] - norms[1]).abs()
        return (contrastive + ORTHOGONALITY * orthogonality) / pairs + REGULARIZATION * gap

    @torch.no_grad()
    def _move(self, t_ir: Tensor, t_ef: Tensor) -> None:
        objective, momentum = self.clever.objective, SETTINGS.teacher_momentum
        assert isinstance(objective, Dino)
        assert self.clever.teacher is not None
        centers = (objective.teacher_invariant_center, objective.teacher_equivariant_center)
        for center, outputs in zip(centers, (t_ir, t_ef), strict=True):
            mean = outputs.flatten(0, 1).mean(dim=0, keepdim=True)
            center.copy_(center * CENTER_MOMENTUM + mean * (1 - CENTER_MOMENTUM))
        pairs = zip(self.clever.teacher.parameters(), self.clever.student.parameters(), strict=True)
        for teacher, student in pairs:
            teacher.mul_(momentum).add_(student, alpha=1 - momentum)


def engine_step(recipe: Recipe) -> Callable[[Batch], float]:
    """This engine's step, as a run takes it."""
    learner = Learner(recipe, make_accelerator(recipe))
    learner.prepare()
    count = iter(range(10**9))
    return lambda batch: learner.step(next(count), 0.0, batch, SETTINGS)["loss"].item()


def take_turns(steps: Mapping[str, Callable[[], float]], count: int) -> dict[str, list[float]]:
    """Seconds of every step, each taken as often; processor time where there is one thread."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    for _ in range(count):
        for name, step in steps.items():
            start = clock()
            step()
            taken[name].append(clock() - start)
    return taken


def turns(count: int) -> str:
    """How ``take_turns`` measured, in words."""
    threads = torch.get_num_threads()
    how = "processor time of one thread" if threads == 1 else f"{threads} threads"
    return f"{how}, median of {count} steps that take turns"


def measure(options: argparse.Namespace) -> str:
    """Time all steps, turn by turn; a table in Markdown."""
    fp32, bf16 = (make_recipe(options, precision) for precision in ("fp32", "bf16"))
    steps: dict[str, Callable[[Batch], float]] = {
        "fp32, eager, double loop": PlainStep(fp32),
        "this engine, fp32": engine_step(fp32),
        "this engine, bf16": engine_step(bf16),
    }
    batch = make_batch(fp32)
    losses = {name: step(batch) for name, step in steps.items()}
    plain = next(iter(losses.values()))
    worst = max(abs(loss / plain - 1) for loss in losses.values())
    if worst > 0.02:
        raise SystemExit(f"the steps do not compute the same: first losses {losses}")
    taken = take_turns({name: partial(step, batch) for name, step in steps.items()}, options.steps)
    reference = median(next(iter(taken.values())))
    lines = [
        (
            f"CLeVER-DINO, ResNet-18, 2 views of {options.size} px, 4 of {options.size // 2} px, "
            f"batch {options.batch}, K = {options.prototypes}, "
            f"{turns(options.steps)}; first losses agree to {worst:.1%}:\n"
        ),
        "| step | ms | photos/s | ratio |",
        "|---|---:|---:|---:|",
    ]
    for name, times in taken.items():
        middle = median(times)
        lines.append(
            f"| {name} | {middle * 1000:.0f} | {options.batch / middle:.0f} "
            f"| {reference / middle:.2f} |"
        )
    return "\n".join(lines) + "\n"


def measure_depthwise(options: argparse.Namespace) -> str:
    """Time forward and backward of EfficientNet-Lite0, turn by turn; a table in Markdown."""
    batch, size = 32, 112
    pixels = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))

    def step(bf16: bool, last: bool, quick: bool) -> Callable[[], float]:
        torch.manual_seed(0)
        network = timm.create_model("tf_efficientnet_lite0", num_classes=0).train()
        layout = torch.channels_last if last else torch.contiguous_format
        network = network.to(memory_format=layout)
        views = pixels.contiguous(memory_format=layout)
        if quick:
            speed_up_depthwise(network)

        def run() -> float:
            network.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                embedding = network(views)
            # Not its mean square, which BatchNorm all but fixes.
            loss = F.normalize(embedding.float()).var(dim=0).sum()
            torch.autograd.backward(loss)
            return loss.item()

        return run

    steps = {
        "torch, fp32, NCHW": step(bf16=False, last=False, quick=False),
        "torch, fp32, channels_last": step(bf16=False, last=True, quick=False),
        "torch, bf16, channels_last": step(bf16=True, last=True, quick=False),
        "this engine, fp32": step(bf16=False, last=True, quick=True),
        "this engine, bf16": step(bf16=True, last=True, quick=True),
    }
    losses = {name: run() for name, run in steps.items()}
    worst = max(abs(loss / losses["torch, fp32, NCHW"] - 1) for loss in losses.values())
    if worst > 0.02:
        raise SystemExit(f"the steps do not compute the same: first losses {losses}")
    taken = take_turns(steps, options.steps)
    reference = median(next(iter(taken.values())))
    lines = [
        (
            f"EfficientNet-Lite0, forward and backward of {batch} views of {size} px, "
            f"{turns(options.steps)}; first losses agree to {worst:.1%}:\n"
        ),
        "| step | ms | views/s | ratio |",
        "|---|---:|---:|---:|",
    ]
    for name, times in taken.items():
        middle = median(times)
        lines.append(
            f"| {name} | {middle * 1000:.0f} | {batch / middle:.0f} | {reference / middle:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=64, help="side of the global views")
    parser.add_argument("--batch", type=int, default=128, help="photos in a batch")
    parser.add_argument("--prototypes", type=int, default=4096, help="K of both heads")
    parser.add_argument("--steps", type=int, default=10, help="steps of each kind that are timed")
    parser.add_argument("--depthwise", action="store_true", help="EfficientNet-Lite0 instead")
    parser.add_argument("--threads", type=int, help="torch's threads; its own choice by default")
    parser.add_argument("--out", type=Path, help="file whose section is replaced")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    keep_freed_memory()
    text = measure_depthwise(options) if options.depthwise else measure(options)
    print(text)
    if options.out:
        command = command_of("train_step.py", parser, options)
        about = machine("torch", "timm", "accelerate")
        title = "## A training step: this engine against the formulas written out\n\n"
        if options.depthwise:
            title = "## Depthwise convolutions: this engine's gradients against torch's\n\n"
        name = "train_step_depthwise" if options.depthwise else "train_step"
        write_section(options.out, name, f"{title}`{command}`; {about}.\n\n{text}")


if __name__ == "__main__":
    main()
