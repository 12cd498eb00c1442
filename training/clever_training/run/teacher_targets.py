"""A frozen teacher's embeddings of a run's photos, and a linear head fitted to predict them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from clever_hub.images.progress import LogLines
from clever_training.data.embeddings import (
    TeacherEmbeddings,
    load_embeddings,
    photo_hashes,
    teacher_embeddings,
)
from clever_training.data.loader import Batch
from clever_training.data.photos import Photos, open_encoded
from clever_training.data.streaming import StreamedPhotos, Window
from clever_training.data.teacher import CleanPhoto, Teacher
from clever_training.model.build import check_teacher
from clever_training.model.clever import Clever
from clever_training.objectives.distill import Distill
from clever_training.objectives.mixture import Mixture, SideBySide
from clever_training.recipe.schema import Recipe
from clever_training.runtime.gathering import world_size
from clever_training.runtime.processes import is_rank_zero, on_all_ranks, rank
from clever_training.views.decode import EncodedPhoto, Image

# Number of photos that a linear head is fitted on, several for each of its inputs.
FITTED_ON = 4096
_BATCH = 64
# Ridge as a share of the mean variance of an input; it limits directions that hardly vary.
_RIDGE = 0.01


@dataclass(frozen=True)
class TeacherTargets:
    """A teacher, and its embeddings of the photos.

    Attributes:
        teacher: The frozen network.
        embeddings: Its embeddings from the cache; None when it embeds photos during training.
    """

    teacher: Teacher
    embeddings: TeacherEmbeddings | None

    @property
    def clean(self) -> CleanPhoto | None:
        """Prepares photos for the teacher; None when the embeddings come from the cache."""
        return self.teacher.prepare if self.embeddings is None else None

    def for_batch(self, batch: Batch, device: torch.device) -> Tensor:
        """The teacher's embeddings of a batch's photos, float32 (batch, dim)."""
        if self.embeddings is not None:
            return torch.from_numpy(self.embeddings[batch.numbers]).to(device)
        assert batch.clean is not None
        return self.teacher.embed(batch.clean).to(device)


def open_targets(
    recipe: Recipe, photos: Photos | StreamedPhotos, device: torch.device, *, progress: bool
) -> TeacherTargets | None:
    """Load the teacher of a run, and compute the embeddings that the cache lacks.

    Every process must call it. A stream has no cache; its photos are embedded during training.

    Args:
        recipe: Names the teacher.
        photos: The photos of the run.
        device: Where the teacher computes.
        progress: Show a progress bar.

    Returns:
        The targets; None when the recipe has no teacher.

    Raises:
        ModelNotFoundError: When there is no such teacher.
        ConfigError: When its output is no embedding, or no objective uses it.
        DataError: When a photo cannot be read; the error names it.
    """
    settings = recipe.method.teacher
    if settings is None:
        return None
    on_all_ranks(lambda: check_teacher(recipe))  # before it embeds every photo
    teacher = on_all_ranks(
        lambda: Teacher(settings.model, settings.size, device, settings.precision)
    )
    if isinstance(photos, StreamedPhotos):
        return TeacherTargets(teacher, None)
    keys, share = on_all_ranks(lambda: photo_hashes(photos)), (rank(), world_size())
    with _Bar(teacher.name, enabled=progress and is_rank_zero()) as advance:
        on_all_ranks(
            lambda: teacher_embeddings(teacher, photos, keys=keys, share=share, advance=advance)
        )
    embeddings = on_all_ranks(lambda: load_embeddings(teacher, photos, keys=keys))
    return TeacherTargets(teacher, embeddings)


def initialize_distillation(
    clever: Clever,
    recipe: Recipe,
    photos: Photos | StreamedPhotos,
    teacher_targets: TeacherTargets,
    normalize: Callable[[Tensor], Tensor],
) -> float | None:
    """Before the first step, centre the targets, and fit a linear head to predict them.

    A random head would disturb the backbone's features before it has learned to use them. The head
    is fitted by least squares, with a small ridge, from the student's embeddings of clean photos at
    the size of the views to the teacher's embeddings.

    Args:
        clever: The module that is trained; its head of the invariant part may change.
        recipe: Size of the views, seed, and origin of the backbone's weights.
        photos: Clean photos.
        teacher_targets: The teacher and its embeddings.
        normalize: uint8 (n, size, size, 3) to the backbone's input.

    Returns:
        The mean cosine between predictions and targets on the fitted photos. None when no head was
        fitted, since it is not linear, the backbone starts from random weights, or the targets are
        those of an objective of one's own.
    """
    objective = _distill(clever)
    if objective is None:
        return None
    if teacher_targets.embeddings is not None:
        objective.set_center(torch.from_numpy(teacher_targets.embeddings.mean()))
    head = _head(clever, objective)
    if not isinstance(head, nn.Linear) or recipe.backbone.init == "random":
        return None
    features, targets = _clean_pairs(clever, recipe, photos, teacher_targets, normalize)
    center = objective.center if teacher_targets.embeddings is not None else targets.mean(dim=0)
    return fit_linear(head, features[:, : clever.student.invariant_dim], targets - center)


@torch.no_grad()
def fit_linear(head: nn.Linear, features: Tensor, targets: Tensor) -> float:
    """Set a linear layer to the least-squares map, with a small ridge, from features to targets.

    Args:
        head: The layer; its parameters are overwritten.
        features: (n, in).
        targets: (n, out).

    Returns:
        The mean cosine between its outputs and the targets.

    Example:
        >>> features = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
        >>> fit_linear(nn.Linear(4, 2), features, features[:, :2]) > 0.999
        True
    """
    x, y = features.double(), targets.double()
    mean_x, mean_y = x.mean(dim=0), y.mean(dim=0)
    centred = x - mean_x
    ridge = _RIDGE * centred.square().sum() / centred.shape[1]
    gram = centred.T @ centred + ridge * torch.eye(x.shape[1], dtype=x.dtype)
    solution = torch.linalg.solve(gram, centred.T @ (y - mean_y))  # (in, out)
    head.weight.copy_(solution.T)
    head.bias.copy_(mean_y - mean_x @ solution)
    predicted = x @ solution + mean_y - mean_x @ solution
    return float(nn.functional.cosine_similarity(predicted, y, dim=1).mean())


def _distill(clever: Clever) -> Distill | None:
    parts = clever.objective.modules()
    return next((part for part in parts if isinstance(part, Distill)), None)


def _head(clever: Clever, objective: Distill) -> nn.Module:
    """The head that predicts the targets, also when it is one of several heads."""
    head = clever.student.invariant
    if isinstance(clever.objective, Mixture) and isinstance(head, SideBySide):
        return head.heads[list(clever.objective.objectives).index(objective)]
    return head


@torch.no_grad()
def _clean_pairs(
    clever: Clever,
    recipe: Recipe,
    photos: Photos | StreamedPhotos,
    teacher_targets: TeacherTargets,
    normalize: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """The student's and the teacher's embeddings of the same clean photos, on the CPU."""
    shown = CleanPhoto(recipe.views.global_size, recipe.backbone.interpolation)
    backbone = clever.student.backbone
    device = next(backbone.parameters()).device
    was_training = backbone.training
    backbone.eval()
    features, targets = [], []
    for batch in _in_batches(_some(photos, recipe.run.seed)):
        small = np.stack([shown(photo) for _, photo in batch])
        features.append(backbone(normalize(torch.from_numpy(small)).to(device)).float().cpu())
        if teacher_targets.embeddings is not None:
            known = teacher_targets.embeddings[[number for number, _ in batch]]
            targets.append(torch.from_numpy(known))
        else:
            clean: list[Image] = [teacher_targets.teacher.prepare(photo) for _, photo in batch]
            targets.append(teacher_targets.teacher.embed(np.stack(clean)).cpu())
    backbone.train(was_training)
    return torch.cat(features), torch.cat(targets)


def _some(photos: Photos | StreamedPhotos, seed: int) -> Iterator[tuple[int, EncodedPhoto]]:
    """Some photos with their numbers: random ones, or the first of a stream."""
    if isinstance(photos, StreamedPhotos):
        window = next(photos.windows(FITTED_ON, seed, 0, 1, Window(0, 0, None, [])))
        for number, source in enumerate(window.sources):
            yield number, open_encoded(source)
        return
    rng = np.random.default_rng((seed, len(photos)))
    for number in rng.permutation(len(photos))[:FITTED_ON].tolist():
        with photos.naming(number):
            yield number, photos.open(number)


def _in_batches(
    items: Iterator[tuple[int, EncodedPhoto]],
) -> Iterator[list[tuple[int, EncodedPhoto]]]:
    while batch := list(islice(items, _BATCH)):
        yield batch


class _Bar:
    """The progress of the teacher: a bar on a terminal, else a line every half minute."""

    def __init__(self, name: str, *, enabled: bool) -> None:
        console = Console(stderr=True)
        self._what = f"embedding by {name}"
        self._lines = LogLines(console, "photos", show=enabled)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("photos, left"),
            TimeRemainingColumn(),
            console=console,
            disable=not (enabled and console.is_terminal),
        )

    def __enter__(self) -> Callable[[int, int], None]:
        self._bar.start()
        self._task = self._bar.add_task(self._what, total=None, visible=False)
        return self._advance

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _advance(self, done: int, total: int) -> None:
        self._bar.update(self._task, completed=done, total=total, visible=True)
        self._lines.say(self._what, done, total)
