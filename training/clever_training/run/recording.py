"""The metrics of a run: metrics.jsonl, the progress bar, and accelerate's trackers."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from accelerate import Accelerator
from torch import Tensor

from clever_hub.embeddings import invariant_length, split
from clever_hub.errors import ConfigError
from clever_training.evaluation.collapse import effective_rank, feature_std
from clever_training.recipe.schema import Recipe
from clever_training.run.progress import TrainingProgress
from clever_training.run.run_folder import RunFolder
from clever_training.runtime.gathering import gather_photos
from clever_training.runtime.processes import is_rank_zero

TRACKERS = ("tensorboard", "wandb", "trackio")


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that are unknown or not installed, before anything is loaded.

    Args:
        names: Names in ``TRACKERS``.

    Raises:
        ConfigError: Names the tracker and the package to install.
    """
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(f"--track {name}: expected one of {', '.join(TRACKERS)}")
        if find_spec(name) is None:
            raise ConfigError(
                f"--track {name}: the package {name} is not installed: pip install {name}"
            )


def scalars(terms: dict[str, Tensor]) -> dict[str, float]:
    """The scalar terms of a step.

    Example:
        >>> import torch
        >>> scalars({"loss": torch.tensor(0.5), "embedding": torch.zeros(2, 3)})
        {'loss': 0.5}
    """
    return {name: value.item() for name, value in terms.items() if value.ndim == 0}


class Recorder:
    """Records the metrics of a run; only the first process writes.

    Args:
        recipe: The run's recipe.
        folder: The run folder.
        accelerator: Holds the trackers.
        progress: The progress bar.
        start: Steps that are done already.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        accelerator: Accelerator,
        progress: TrainingProgress,
        start: int,
    ) -> None:
        self.recipe, self.folder = recipe, folder
        self.accelerator, self.progress = accelerator, progress
        if accelerator.log_with:
            accelerator.init_trackers(
                "clever-hub",
                init_kwargs={
                    # Steps that a killed run logged after its last state are done and logged again.
                    "tensorboard": {"purge_step": start + 1},
                    "wandb": {"name": recipe.name, "dir": str(folder.path)},
                    "trackio": {"name": recipe.name},
                },
            )

    def due(self, done: int, stop: int) -> bool:
        """Whether the step that was just done gets a line."""
        return done % self.recipe.run.log_steps == 0 or done == stop

    def step(self, values: dict[str, Any], terms: dict[str, Tensor]) -> None:
        """Write a line for a step; every process must call it.

        Args:
            values: Step, epoch, seconds and the schedule's settings.
            terms: The terms that the step returned.
        """
        embedding = gather_photos(terms["embedding"].float().unsqueeze(0))[0]
        if not is_rank_zero():
            return
        content = {
            **{key: values[key] for key in ("step", "epoch", "seconds")},
            **scalars(terms),
            **self._collapse(embedding),
            **values,
            "photos_per_second": self.progress.photos_per_second,
            "waiting": self.progress.waiting,
        }
        self._write(content)
        self.progress.line(content)

    def measured(self, values: dict[str, Any], figures: dict[str, float]) -> None:
        """Write a line of online measurements.

        Args:
            values: Step, epoch, seconds.
            figures: Measurements by name.
        """
        if is_rank_zero():
            self._write({**values, **figures})
            self.progress.show(figures)

    def close(self) -> None:
        """Let the trackers finish."""
        for tracker in self.accelerator.trackers:
            tracker.finish()

    def _collapse(self, embedding: Tensor) -> dict[str, float]:
        """Rank and spread of both parts over the whole batch."""
        length = invariant_length(embedding.shape[1], self.recipe.method.split_ratio)
        parts = dict(zip(("invariant", "equivariant"), split(embedding, length), strict=True))
        return {
            **{f"rank_{name}": effective_rank(part) for name, part in parts.items()},
            **{f"std_{name}": feature_std(part) for name, part in parts.items()},
        }

    def _write(self, content: dict[str, Any]) -> None:
        self.folder.log(content)
        numbers = {key: value for key, value in content.items() if key != "step"}
        self.accelerator.log(numbers, step=content["step"])
