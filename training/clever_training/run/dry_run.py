"""An estimate of a run: its size, its speed on this machine, and how long it will take."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import yaml

from clever_training.data.embeddings import placeholder
from clever_training.data.loader import Views, batches, make_loader
from clever_training.data.orders import last_step, make_order, steps_per_epoch
from clever_training.data.photos import Photos
from clever_training.data.sources import open_photos
from clever_training.data.streaming import StreamedPhotos
from clever_training.data.teacher import Teacher
from clever_training.model.build import check_teacher
from clever_training.model.normalization import resolved
from clever_training.recipe.schema import Recipe
from clever_training.run.learner import Learner, make_accelerator
from clever_training.run.online_knn import OnlineKnn
from clever_training.run.schedule import settings_at
from clever_training.run.teacher_targets import TeacherTargets
from clever_training.runtime.gathering import world_size
from clever_training.runtime.processes import on_all_ranks
from clever_training.views.sample import ViewSizes, sizes_at

# The first step sets up memory and kernels. The fastest of the others shows what the machine can do
# when nothing else runs on it.
_WARM, _TIMED = 1, 2
_TEACHER_BATCH = 32


@dataclass(frozen=True)
class Stage:
    """A part of a run during which the sizes of the views stay the same.

    Attributes:
        sizes: Sides of the views.
        share: Share of the run's steps, in (0, 1].
        step_seconds: Seconds for one step, without loading its batch.
        batch_seconds: Seconds to load and augment one batch on one core.
    """

    sizes: ViewSizes
    share: float
    step_seconds: float
    batch_seconds: float


@dataclass(frozen=True)
class RunEstimate:
    """What ``--dry-run`` reports.

    Attributes:
        recipe: The recipe with every default filled in.
        photos: Photos in a pass.
        processes: Number of processes that train together.
        steps: Steps of the whole run.
        parameters: Number of parameters of each part.
        views: Views in a batch of this process.
        stages: Measured speeds, in the order of the run.
        memory: Peak memory in bytes of this process, where the system tells it, and of the
            accelerator, if there is one.
        teacher_seconds: That a teacher needs for its embeddings of all photos, once; 0 without one,
            and where it embeds live.
    """

    recipe: Recipe
    photos: int
    processes: int
    steps: int
    parameters: dict[str, int]
    views: int
    stages: list[Stage]
    memory: dict[str, int]
    teacher_seconds: float = 0.0

    @property
    def hours(self) -> float:
        """Hours of the run; with workers loading overlaps with the steps, else it precedes each."""
        workers = self.recipe.run.num_workers
        seconds = 0.0
        for stage in self.stages:
            loading, step = stage.batch_seconds, stage.step_seconds
            each = max(step, loading / workers) if workers else step + loading
            seconds += stage.share * self.steps * each
        return seconds / 3600

    def text(self) -> str:
        """The report, as printed."""
        content = yaml.safe_dump(self.recipe.model_dump(mode="json"), sort_keys=False).strip()
        lines = [content, ""]
        lines.append(
            f"data        {self.photos:,} photos, {self.steps:,} steps of "
            f"{self.recipe.run.batch_size} on {self.processes} process"
            + ("es" if self.processes > 1 else "")
        )
        for name, number in self.parameters.items():
            lines.append(f"parameters  {number:>12,}  {name}")
        for stage in self.stages:
            sizes = f"{stage.sizes.global_size} and {stage.sizes.local_size} px"
            if not self.recipe.views.local_count:
                sizes = f"{stage.sizes.global_size} px"
            lines.append(
                f"speed       {self.views / stage.batch_seconds:,.0f} views/s loaded and augmented "
                f"on one core, {self.views / stage.step_seconds:,.0f} views/s trained ({sizes})"
            )
        workers = self.recipe.run.num_workers
        slow = [s for s in self.stages if workers and s.batch_seconds > workers * s.step_seconds]
        if slow:
            need = math.ceil(max(s.batch_seconds / s.step_seconds for s in slow))
            lines.append(
                f"            loading is the slower part: --set run.num_workers={need} or more "
                "if there are enough cores"
            )
        if self.teacher_seconds:
            lines.append(
                f"teacher     about {_duration(self.teacher_seconds / 3600)} for embeddings of all "
                "photos that its cache does not have; once, before the first step"
            )
        for name, size in self.memory.items():
            lines.append(f"memory      {size / 2**30:.1f} GiB  {name}")
        lines.append(f"duration    about {_duration(self.hours)} if nothing else runs here")
        return "\n".join(lines)


def estimate_run(
    recipe: Recipe, data: str, *, image_column: str | None = None, validation: str | None = None
) -> RunEstimate:
    """Estimate a run from a few steps at each size of views; writes nothing.

    Args:
        recipe: The run.
        data: Its photos.
        image_column: The image column of a table.
        validation: Labelled photos for online k-NN, which are only checked.

    Returns:
        The estimate, without what k-NN takes.

    Raises:
        DataError: When a data set is wrong.
        ConfigError: When the recipe is, or there are too few photos for k-NN.
    """
    recipe = resolved(recipe)
    accelerator = make_accelerator(recipe)
    photos = on_all_ranks(lambda: open_photos(recipe, data, image_column))
    if validation:
        on_all_ranks(lambda: OnlineKnn(validation, recipe))
    teacher_targets, seconds = on_all_ranks(
        lambda: _trial_targets(recipe, photos, accelerator.device)
    )
    learner = on_all_ranks(lambda: Learner(recipe, accelerator, teacher_targets))
    learner.prepare()
    per_epoch = steps_per_epoch(recipe, len(photos))
    total, steps = recipe.total_steps(per_epoch), last_step(recipe, per_epoch)
    stages = [
        _measure(recipe, photos, learner, sizes, share)
        for sizes, share in _shares(recipe, steps / total)
    ]
    memory = {}
    if (resident := _resident()) is not None:
        memory["peak of this process"] = resident
    if torch.cuda.is_available():
        memory["peak of the accelerator"] = torch.cuda.max_memory_allocated()
    views = recipe.views.global_count + recipe.views.local_count
    return RunEstimate(
        recipe,
        len(photos),
        world_size(),
        steps,
        _parameters(learner),
        views * recipe.run.batch_size // world_size(),
        stages,
        memory,
        seconds,
    )


def _trial_targets(
    recipe: Recipe, photos: Photos | StreamedPhotos, device: torch.device
) -> tuple[TeacherTargets | None, float]:
    """The teacher with targets of one photo for all, and how long its embeddings would take here.

    Nothing of the cache is read or written.
    """
    settings = recipe.method.teacher
    if settings is None:
        return None, 0.0
    check_teacher(recipe)
    teacher = Teacher(settings.model, settings.size, device, settings.precision)
    if isinstance(photos, StreamedPhotos):
        return TeacherTargets(teacher, None), 0.0
    numbers = range(min(len(photos), 2 * _TEACHER_BATCH))
    seconds = []
    for start in range(0, len(numbers), _TEACHER_BATCH):
        begin = time.monotonic()
        some = numbers[start : start + _TEACHER_BATCH]
        found = teacher.embed(np.stack([teacher.prepare(photos.open(n)) for n in some]))
        seconds.append((time.monotonic() - begin) / len(some))
    embeddings = placeholder(found[0].cpu().numpy(), len(photos))
    return TeacherTargets(teacher, embeddings), min(seconds) * len(photos) / world_size()


def _shares(recipe: Recipe, stop: float = 1.0) -> list[tuple[ViewSizes, float]]:
    """The sizes of views up to this share of the run, each with its share of the steps."""
    steps = (step.after for step in recipe.views.growth)
    begins = sorted({0.0, *(after for after in steps if after < stop)})
    ends = [*begins[1:], stop]
    return [
        (sizes_at(recipe.views, begin), (end - begin) / stop)
        for begin, end in zip(begins, ends, strict=True)
    ]


def _measure(
    recipe: Recipe,
    photos: Photos | StreamedPhotos,
    learner: Learner,
    sizes: ViewSizes,
    share: float,
) -> Stage:
    """Time a few batches and steps at one size."""
    update = {"global_size": sizes.global_size, "local_size": sizes.local_size, "growth": []}
    fixed = recipe.model_copy(update={"views": recipe.views.model_copy(update=update)})
    per_epoch = steps_per_epoch(fixed, len(photos))
    stop = min(last_step(fixed, per_epoch), _WARM + _TIMED)
    found = batches(
        make_loader(
            Views(
                photos, fixed, learner.teacher_targets.clean if learner.teacher_targets else None
            ),
            make_order(fixed, photos, 0, stop),
            0,
        )
    )
    loading, steps = [], []
    for step in range(stop):
        begin = time.monotonic()
        batch = next(found)
        middle = time.monotonic()
        learner.step(step, 0.0, batch, settings_at(fixed, step, per_epoch))
        if torch.accelerator.is_available():  # it computes asynchronously
            torch.accelerator.synchronize()
        loading.append(middle - begin)
        steps.append(time.monotonic() - middle)
    warm = min(_WARM, stop - 1)
    return Stage(sizes, share, min(steps[warm:]), min(loading[warm:]))


def _parameters(learner: Learner) -> dict[str, int]:
    """Number of parameters of each part of the student, and of the teacher."""
    counts: dict[str, Any] = {}
    for name, part in learner.clever.student.named_children():
        counts[name] = sum(parameter.numel() for parameter in part.parameters())
    names = {"backbone": "backbone", "invariant": "head of the invariant part"}
    names |= {"equivariant": "head of the equivariant part"}
    counts = {names.get(name, f"head: {name}"): number for name, number in counts.items()}
    if learner.clever.teacher is not None:
        teacher = learner.clever.teacher.parameters()
        counts["teacher, a moving average"] = sum(parameter.numel() for parameter in teacher)
    return counts


def _resident() -> int | None:
    """Peak resident size so far, in bytes; Linux reports KiB, macOS bytes, Windows nothing."""
    try:
        import resource
    except ModuleNotFoundError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _duration(hours: float) -> str:
    if hours < 1 / 30:
        return f"{hours * 3600:.0f} seconds"
    if hours < 1:
        return f"{hours * 60:.0f} minutes"
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.1f} days"
