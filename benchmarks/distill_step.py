"""What a frozen teacher's embeddings cost a training step: from the cache, and without a cache.

    python benchmarks/distill_step.py --threads 1 --out benchmarks/RESULTS.md

ResNet-18, bf16, ``clever-plus-distill`` as ``clever-hub pretrain`` runs it, from uint8 views in
memory to moved weights. The step without targets is ``clever-plus-simclr`` with heads of the same
widths. The cache is real files of the teacher's own layout, memory-mapped, from which each step
reads the rows of photos drawn at random; they were written a moment before, so that the operating
system has them in memory. Without a cache, the teacher (EfficientNet-Lite0 at 128 px) embeds the
batch in each step. The steps take turns, so that all meet the same machine; medians are compared.
With one thread, processor time is what counts. Aim: at most 1.05 of the step without targets.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from results import command_of, machine, write_section
from train_step import SETTINGS, take_turns, turns

from clever_hub.backends.torch import CleverModel
from clever_hub.config import ModelConfig, PreprocessingConfig
from clever_training.data import embeddings as cache
from clever_training.data.loader import Batch
from clever_training.data.teacher import Teacher
from clever_training.recipe.schema import Recipe
from clever_training.run.learner import Learner, make_accelerator
from clever_training.run.teacher_targets import TeacherTargets
from clever_training.runtime.memory import keep_freed_memory

DIM, HIDDEN, TEACHER_SIZE = 1280, 2048, 128
PARTS, ROWS = 10, 2048  # of the cache


def make_recipe(options: argparse.Namespace, teacher: str | None) -> Recipe:
    """The same step, with and without a teacher."""
    method: dict[str, Any] = {
        "name": "clever-plus-simclr",
        "objective_args": {"dim": DIM, "hidden_dim": HIDDEN},
    }
    if teacher:
        method = {
            "name": "clever-plus-distill",
            "teacher": {"model": teacher, "size": TEACHER_SIZE},
            "objective_args": {"head": "mlp", "hidden_dim": HIDDEN},
        }
    return Recipe.parse(
        {
            "name": "benchmark",
            "backbone": "resnet18",
            "method": method,
            "views": {"strategy": "caug", "global_size": options.size},
            "run": {"batch_size": options.batch, "precision": "bf16"},
        }
    )


def make_teacher(folder: Path) -> Teacher:
    """EfficientNet-Lite0 with random weights: a step's time does not depend on them."""
    preprocessing = PreprocessingConfig(TEACHER_SIZE, TEACHER_SIZE)
    config = ModelConfig("teacher", "tf_efficientnet_lite0", DIM, DIM * 4 // 5, preprocessing)
    CleverModel(config).save_pretrained(folder)
    return Teacher(str(folder), TEACHER_SIZE)


def make_cache(folder: Path) -> cache.TeacherEmbeddings:
    """A cache of 20,480 photos, as ``teacher_embeddings`` writes it."""
    random = np.random.default_rng(0)
    for _ in range(PARTS):
        keys = random.integers(0, 256, (ROWS, cache._HASH), dtype=np.uint8)
        cache._write(folder, keys, random.normal(size=(ROWS, DIM)).astype(np.float32))
    place = np.stack([np.arange(PARTS).repeat(ROWS), np.tile(np.arange(ROWS), PARTS)], axis=1)
    return cache.TeacherEmbeddings(cache._parts(folder, DIM), random.permutation(place))


def make_step(
    options: argparse.Namespace, teacher: str | None, targets: TeacherTargets | None, batch: Batch
) -> Callable[[], float]:
    """A step as a run takes it; each is of other photos."""
    recipe = make_recipe(options, teacher)
    learner = Learner(recipe, make_accelerator(recipe), targets)
    learner.prepare()
    random, count = np.random.default_rng(1), iter(range(10**9))

    def run() -> float:
        numbers = random.choice(PARTS * ROWS, options.batch, replace=False).tolist()
        photos = replace(batch, numbers=numbers)
        return float(learner.step(next(count), 0.0, photos, SETTINGS)["loss"].item())

    return run


def reading(targets: TeacherTargets, batch: Batch) -> Callable[[], float]:
    """What a step with cached targets does beside training: it reads those of other photos."""
    random, device = np.random.default_rng(2), torch.device("cpu")

    def run() -> float:
        numbers = random.choice(PARTS * ROWS, batch.size, replace=False).tolist()
        return float(targets.for_batch(replace(batch, numbers=numbers), device)[0, 0])

    return run


def make_batch(options: argparse.Namespace) -> Batch:
    """Random views, and photos for the teacher that embeds them in the step."""
    generator, size, n = torch.Generator().manual_seed(0), options.size, options.batch
    crops = torch.randint(0, 256, (2 * n, size, size, 3), generator=generator).byte()
    shape = (n, TEACHER_SIZE, TEACHER_SIZE, 3)
    clean = torch.randint(0, 256, shape, generator=generator).byte()
    return Batch([crops], torch.rand(n, 2, 14, generator=generator), n, clean=clean)


def measure(options: argparse.Namespace, temporary: Path) -> str:
    """Time the steps, turn by turn; a table in Markdown."""
    model, batch = temporary / "teacher", make_batch(options)
    teacher = make_teacher(model)
    cached = TeacherTargets(teacher, make_cache(temporary / "cache"))
    live = TeacherTargets(teacher, None)
    steps = {
        "without targets (SimCLR)": make_step(options, None, None, batch),
        "distill, targets from the cache": make_step(options, str(model), cached, batch),
        "distill, teacher in every step": make_step(options, str(model), live, batch),
    }
    for step in steps.values():
        step()  # memory, and the libraries' choice of algorithms
    taken = take_turns(steps, options.steps)
    read = median(take_turns({"read": reading(cached, batch)}, 5 * options.steps)["read"])
    reference = median(next(iter(taken.values())))
    lines = [
        (
            f"ResNet-18, 2 views of {options.size} px, batch {options.batch}, bf16, targets of "
            f"{DIM} numbers from {PARTS * ROWS:,} photos, {turns(options.steps)}; reading a "
            f"batch's targets from the cache is {read * 1000:.1f} ms of a step:\n"
        ),
        "| step | ms | photos/s | cost |",
        "|---|---:|---:|---:|",
    ]
    for name, times in taken.items():
        middle = median(times)
        lines.append(
            f"| {name} | {middle * 1000:.0f} | {options.batch / middle:.0f} "
            f"| {middle / reference:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=64, help="side of the views")
    parser.add_argument("--batch", type=int, default=128, help="photos in a batch")
    parser.add_argument("--steps", type=int, default=10, help="steps of each kind that are timed")
    parser.add_argument("--threads", type=int, help="torch's threads; its own choice by default")
    parser.add_argument("--out", type=Path, help="file whose section is replaced")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as temporary:
        text = measure(options, Path(temporary))
    print(text)
    if options.out:
        command = command_of("distill_step.py", parser, options)
        title = "## Distillation: what the teacher's embeddings cost a step\n\n"
        about = machine("torch", "timm", "accelerate")
        write_section(options.out, "distill_step", f"{title}`{command}`; {about}.\n\n{text}")


if __name__ == "__main__":
    main()
