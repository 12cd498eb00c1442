"""Fit heads to existing embeddings; this takes minutes, because no backbone runs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clever_hub.errors import ConfigError, DataError
from clever_training.heads.embedding import EmbeddedViews
from clever_training.objectives.transformation import (
    TransformationHead,
    relative_transformation,
    transformation_loss,
)

Progress = Callable[[int, int], None]
_PAIRS_OF_UNITS = 20_000
_WATCHED = 0.1  # of the photos: not fitted to, they say when to stop
_WATCHED_PAIRS = 4_000


@dataclass(frozen=True)
class FitSettings:
    """How heads are fitted.

    Attributes:
        hidden_dim: Width of the hidden layers.
        steps: Steps of the optimiser.
        batch_size: Pairs of views of a step.
        lr: Peak of the one-cycle schedule.
        weight_decay: Weight decay of AdamW.
        noise: Deviation of the noise added to standardised embeddings: few photos are seen often.
        seed: Seed of all random draws.
    """

    hidden_dim: int = 512
    steps: int = 4000
    batch_size: int = 256
    lr: float = 1e-3
    weight_decay: float = 0.05
    noise: float = 0.2
    seed: int = 0


def fit(
    views: EmbeddedViews, settings: FitSettings | None = None, progress: Progress | None = None
) -> TransformationHead:
    """Fit the heads to pairs of views of the same photo.

    A tenth of the photos is only watched: of each head the weights that do best there are kept, so
    that a small data set is not learnt by heart.

    Args:
        views: Embeddings of the views; 50 photos at least.
        settings: How.
        progress: Called with how many steps are done, and how many there are.

    Returns:
        The heads, in eval mode, for raw embeddings.

    Raises:
        ConfigError: When the model has no equivariant part.
        DataError: When the photos are too few.
    """
    settings = settings or FitSettings()
    if not views.equivariant.shape[-1]:
        raise ConfigError(
            "the model has no equivariant part, which heads read. Give it one with "
            "`clever-hub split MODEL --data PHOTOS --output FOLDER`"
        )
    if len(views) < 50:
        raise DataError(f"{views.data}: heads need 50 different photos or more, got {len(views)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return _fit(views, settings, progress)


def _fit(
    views: EmbeddedViews, settings: FitSettings, progress: Progress | None
) -> TransformationHead:
    random = np.random.default_rng(settings.seed)
    order = random.permutation(len(views))
    watched, fitted = np.split(order, [max(5, round(_WATCHED * len(views)))])
    mean, deviation = _standard(views.equivariant[fitted])
    inputs = torch.from_numpy((views.equivariant - mean) / deviation)
    parameters = torch.from_numpy(views.parameters)
    head = TransformationHead(inputs.shape[-1], settings.hidden_dim)
    units = _pairs(fitted, inputs.shape[1], _PAIRS_OF_UNITS, random)
    head.unit.observe(relative_transformation(*(parameters[i] for i in units)))
    head.unit.eval()
    kept = _Best(head, inputs, parameters, _pairs(watched, inputs.shape[1], _WATCHED_PAIRS, random))
    optimizer = torch.optim.AdamW(
        [p for p in head.parameters() if p.requires_grad],
        lr=settings.lr,
        weight_decay=settings.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.lr, total_steps=settings.steps, pct_start=0.1
    )
    kept.compare()  # the blind guess, with which it begins
    for step in range(1, settings.steps + 1):
        pairs = _pairs(fitted, inputs.shape[1], settings.batch_size, random)
        loss, _ = _loss(head, inputs, parameters, pairs, settings.noise)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if step % max(1, settings.steps // 40) == 0 or step == settings.steps:
            kept.compare()
        if progress:
            progress(step, settings.steps)
    kept.restore()
    _absorb(head, mean, deviation)
    return head.eval()


Pairs = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]


def _pairs(photos: NDArray[np.int64], views: int, count: int, random: np.random.Generator) -> Pairs:
    """Photo and view of the first and of the second of each pair: two views of one photo."""
    photo = torch.from_numpy(random.choice(photos, count))
    first = torch.from_numpy(random.integers(views, size=count))
    second = (first + torch.from_numpy(random.integers(1, views, size=count))) % views
    return (photo, first), (photo, second)


def _loss(
    head: TransformationHead, inputs: Tensor, parameters: Tensor, pairs: Pairs, noise: float = 0.0
) -> tuple[Tensor, dict[str, Tensor]]:
    both = torch.stack([inputs[pair] for pair in pairs])  # (2, pairs, e)
    if noise:
        both = both + noise * torch.randn_like(both)
    done = torch.stack([parameters[pair] for pair in pairs], dim=1)  # (pairs, 2, columns)
    return transformation_loss(head(both, [(0, 1)]), done, [(0, 1)], head.unit)


class _Best:
    """Keeps the weights that do best on watched photos, of each of the two heads by itself."""

    def __init__(
        self, head: TransformationHead, inputs: Tensor, parameters: Tensor, pairs: Pairs
    ) -> None:
        self._head, self._data = head, (inputs, parameters, pairs)
        self._least = {"pair": float("inf"), "turn": float("inf")}
        self._states = {name: copy.deepcopy(head.state_dict()) for name in self._least}

    @torch.no_grad()
    def compare(self) -> None:
        """Measure, and keep what is better than before."""
        loss, indicators = _loss(self._head, *self._data)
        turn = 1 - float(indicators["r2_turn"])
        # The loss is the mean of its terms, one for each indicator.
        pair = float(loss) * len(indicators) - turn
        for name, value in (("pair", pair), ("turn", turn)):
            if value < self._least[name]:
                self._least[name] = value
                self._states[name] = copy.deepcopy(self._head.state_dict())

    def restore(self) -> None:
        """Give the head what was kept."""
        turn = {k: v for k, v in self._states["turn"].items() if k.split(".")[0].endswith("turn")}
        self._head.load_state_dict(self._states["pair"] | turn)


def _standard(rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and deviation of each entry; a deviation of 0 counts as 1."""
    flat = rows.reshape(-1, rows.shape[-1]).astype(np.float64)
    deviation = flat.std(axis=0)
    deviation[deviation < 1e-8] = 1.0
    return flat.mean(axis=0).astype(np.float32), deviation.astype(np.float32)


@torch.no_grad()
def _absorb(
    head: TransformationHead, mean: NDArray[np.float32], scale: NDArray[np.float32]
) -> None:
    """Let the first layers standardise, so that the heads read raw embeddings."""
    for layers, times in ((head.pair, 2), (head.turn, 1)):
        first = layers[0]
        assert isinstance(first, nn.Linear)
        weight = first.weight.double() / torch.from_numpy(np.tile(scale, times)).double()
        first.bias.sub_((weight @ torch.from_numpy(np.tile(mean, times)).double()).float())
        first.weight.copy_(weight)
