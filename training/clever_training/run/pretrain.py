"""The one pre-training loop."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor

from clever_hub.backends.torch import write_model_folder
from clever_hub.errors import TrainingError
from clever_training.data.loader import Batch, Views, batches, make_loader
from clever_training.data.orders import StreamOrder, last_step, make_order, steps_per_epoch
from clever_training.data.photos import Photos
from clever_training.data.sources import open_photos
from clever_training.data.streaming import StreamedPhotos
from clever_training.model.build import model_config
from clever_training.recipe.schema import Recipe
from clever_training.run.checkpoint import load_state, save_state
from clever_training.run.learner import Learner, make_accelerator
from clever_training.run.online_knn import OnlineKnn
from clever_training.run.progress import TrainingProgress
from clever_training.run.recording import Recorder, check_trackers
from clever_training.run.run_folder import RunFolder
from clever_training.run.schedule import StepSettings, settings_at
from clever_training.run.stopping import stop_signals
from clever_training.runtime.memory import keep_freed_memory
from clever_training.runtime.processes import (
    any_rank,
    gathered,
    is_rank_zero,
    on_all_ranks,
    on_rank_zero,
)


def pretrain(
    recipe: Recipe,
    data: str,
    out: str | Path,
    *,
    image_column: str | None = None,
    validation: str | None = None,
    track: Sequence[str] = (),
    progress: bool = True,
) -> Path:
    """Pre-train a backbone, or go on with a run that was stopped.

    The same call resumes: order and views are pure functions of the seed, the state holds the
    rest, so a run that was killed ends with the same weights as one left alone: on a processor
    bit for bit, on GPUs, some of whose kernels add in no fixed order, but for rounding.
    Under ``accelerate launch`` every process makes this call: each takes its share of every batch,
    the losses are those of the whole batch, and the first process alone writes.

    Args:
        recipe: What to do.
        data: Photos, as ``load_photos`` takes them, or ``open_stream`` where the recipe says so.
        out: The run folder: recipe.json, metrics.jsonl, state.safetensors and model/, a model
            folder that ``clever_hub.from_pretrained`` loads while training goes on. All nodes must
            see it.
        image_column: The image column of a table.
        validation: Labelled photos for on-line k-NN, as ``OnlineKnn`` takes them.
        track: Where the metrics go beside metrics.jsonl: ``tensorboard`` (into the run folder),
            ``wandb``, ``trackio``.
        progress: Show a progress bar.

    Returns:
        The model folder.

    Raises:
        TrainingError: When a loss is not finite (named, with its step; the last state is kept),
            the folder is in use or belongs to another run, or another process stopped.
        DataError: When the data set is wrong.
        ConfigError: When a tracker is not installed, or the recipe does not fit the processes.
    """
    keep_freed_memory()
    folder = RunFolder(Path(out))
    check_trackers(track)
    accelerator = make_accelerator(recipe, track, folder.path)
    with ExitStack() as stack:
        on_rank_zero(lambda: stack.enter_context(folder.locked()))
        photos = on_all_ranks(lambda: open_photos(recipe, data, image_column))
        knn = on_all_ranks(lambda: OnlineKnn(validation, recipe)) if validation else None
        on_rank_zero(lambda: folder.claim(recipe, data, len(photos)))
        run = _Run(recipe, photos, folder, accelerator, knn, progress)
        run.train(stack.enter_context(stop_signals()))
    return folder.model


class _Run:
    """One process's share of a run."""

    def __init__(
        self,
        recipe: Recipe,
        photos: Photos | StreamedPhotos,
        folder: RunFolder,
        accelerator: Accelerator,
        knn: OnlineKnn | None,
        progress: bool,
    ) -> None:
        self.recipe, self.photos, self.folder, self.knn = recipe, photos, folder, knn
        # A state holds every weight: what the run began from may be gone by now.
        known = recipe.with_random_start() if folder.state.exists() else recipe
        self.learner = on_all_ranks(lambda: Learner(known, accelerator))
        start = self.learner.clever.start
        self.counters: dict[str, Any] = {"step": 0, "seconds": 0.0, "start": start}
        on_all_ranks(self._load)
        self._compare_steps()
        on_rank_zero(lambda: folder.rewind_metrics(self.counters["step"]))
        self.learner.prepare()
        self.progress = TrainingProgress(enabled=progress and is_rank_zero())
        self.recorder = Recorder(
            recipe, folder, accelerator, self.progress, int(self.counters["step"])
        )

    def _load(self) -> None:
        state = self.folder.state
        if state.exists():
            self.counters = load_state(state, self.learner.clever, self.learner.optimizer)

    def _compare_steps(self) -> None:
        steps = gathered(self.counters["step"])
        if len(set(steps)) > 1:
            raise TrainingError(
                f"{self.folder.state}: the processes see states of steps {steps}. The run folder "
                "must be the same one on every node: put it on a shared disk"
            )

    def train(self, stopping: dict[str, bool]) -> None:
        """From the state's step to the end, or until asked to stop."""
        recipe, run = self.recipe, self.recipe.run
        start = int(self.counters["step"])
        stop = last_step(recipe, steps_per_epoch(recipe, len(self.photos)))
        positions = self.counters.get("stream")
        self.order = order = make_order(recipe, self.photos, start, stop, positions)
        loader = make_loader(Views(self.photos, recipe), order, run.num_workers)
        saved = mark = time.monotonic()
        with self.progress.running(recipe.name, start, order.stop, run.batch_size):
            for step, batch, waited in _fetched(loader, start):
                settings = settings_at(recipe, step, order.steps_per_epoch)
                terms = self.learner.step(step, step / order.steps_per_epoch, batch, settings)
                now = time.monotonic()
                self.counters["step"] = step + 1
                self.counters["seconds"] += now - mark
                self._record(terms, settings, waited / max(1e-9, now - mark))
                mark = now
                late = is_rank_zero() and time.monotonic() - saved > run.save_minutes * 60
                asked, due = any_rank(stopping["asked"], late)
                if asked or due:
                    self.save()
                    saved = time.monotonic()
                if asked:
                    raise KeyboardInterrupt
        self.save()
        self.recorder.close()

    def save(self) -> None:
        """Write the state and the model folder; every process must call it."""
        counters = dict(self.counters)
        if isinstance(self.order, StreamOrder):
            counters["stream"] = gathered(self.order.position(counters["step"]))
        on_rank_zero(lambda: self._write(counters))

    def _write(self, counters: dict[str, Any]) -> None:
        clever = self.learner.clever
        save_state(self.folder.state, clever, self.learner.optimizer, counters)
        config = model_config(
            self.recipe, self.counters, self.order.steps_per_epoch, len(self.photos)
        )
        try:
            write_model_folder(self.folder.model, config, clever.shipped_backbone.state_dict())
        except OSError as error:
            raise TrainingError(
                f"{self.folder.model}: cannot be written ({error}). The state is whole; make room "
                "and run the same command again"
            ) from error

    def _record(self, terms: dict[str, Tensor], settings: StepSettings, waiting: float) -> None:
        done, per_epoch = self.counters["step"], self.order.steps_per_epoch
        values = {
            "step": done,
            "epoch": done / per_epoch,
            "seconds": round(self.counters["seconds"], 1),
        }
        scalars = {name: value.item() for name, value in terms.items() if value.ndim == 0}
        self.progress.advance(scalars, waiting)
        if self.recorder.due(done, self.order.stop):
            schedule = {"lr": settings.lr, "weight_decay": settings.weight_decay}
            self.recorder.step({**values, **schedule}, terms)
        if self.knn and self.knn.due(done, per_epoch, self.order.stop):
            self.recorder.measured(values, self.knn.measure(self.learner))


def _fetched(loader: Any, start: int) -> Iterator[tuple[int, Batch, float]]:
    """Number the batches, and time how long each was waited for."""
    found = batches(loader)
    for step in count(start):
        begin = time.monotonic()
        batch = on_all_ranks(lambda: next(found, None))
        if batch is None:
            return
        yield step, batch, time.monotonic() - begin
