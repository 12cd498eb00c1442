"""The pre-training loop."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from clever_hub.backends.timm import embedding_length
from clever_hub.errors import TrainingError
from clever_training.data.loader import Views, batches, make_loader
from clever_training.data.orders import StreamOrder, last_step, make_order, steps_per_epoch
from clever_training.data.photos import Photos
from clever_training.data.sources import open_photos, public_name
from clever_training.data.streaming import StreamedPhotos
from clever_training.model.normalization import resolved
from clever_training.recipe.schema import Recipe
from clever_training.run.checkpoint import load_state, save_state
from clever_training.run.learner import Learner, make_accelerator
from clever_training.run.model_folder import DataFacts, model_config, write_model
from clever_training.run.online_knn import OnlineKnn
from clever_training.run.progress import TrainingProgress
from clever_training.run.recording import Recorder, check_trackers, scalars
from clever_training.run.run_folder import RunFolder, check_name
from clever_training.run.schedule import settings_at
from clever_training.run.state import RunState
from clever_training.run.stopping import Terminated, stop_signals
from clever_training.run.teacher_targets import initialize_distillation, open_targets
from clever_training.runtime.memory import keep_freed_memory
from clever_training.runtime.processes import (
    any_rank,
    gathered,
    is_rank_zero,
    on_all_ranks,
    on_rank_zero,
)


def pretrain(  # noqa: PLR0915 -- one loop, read from top to bottom
    recipe: Recipe,
    data: str,
    out: str | Path,
    *,
    image_column: str | None = None,
    validation: str | None = None,
    track: Sequence[str] = (),
    progress: bool = True,
) -> Path:
    """Pre-train a backbone, or resume a run that was stopped.

    The same call resumes. Order and views depend on the seed alone, and the state holds the rest,
    so a run that was killed ends with the same weights as one that was not: bit for bit on a CPU,
    up to rounding on GPUs, some of whose kernels add in no fixed order. Under ``accelerate launch``
    every process makes this call. Each takes its share of every batch, the losses are those of the
    whole batch, and only the first process writes.

    Args:
        recipe: The recipe of the run.
        data: Photos, as ``load_photos`` takes them, or ``open_stream`` where the recipe says so.
        out: The run folder: recipe.json, metrics.jsonl, state.safetensors and model/, a model
            folder that ``clever_hub.from_pretrained`` loads while training goes on. All nodes must
            see it.
        image_column: The image column of a table.
        validation: Labelled photos for online k-NN, as ``OnlineKnn`` takes them.
        track: Trackers that also get the metrics: ``tensorboard`` (in the run folder), ``wandb``,
            ``trackio``.
        progress: Show a progress bar.

    Returns:
        The model folder.

    Raises:
        TrainingError: When a loss is not finite (named, with its step; the last state is kept),
            the folder is in use or belongs to another run, or another process stopped.
        DataError: When the data set is wrong.
        ConfigError: When a tracker is not installed, or the recipe does not fit the processes.
        KeyboardInterrupt: After Ctrl-C, once the state is saved; ``Terminated`` after SIGTERM.
    """
    check_name(recipe.name)
    keep_freed_memory()
    run, folder = recipe.run, RunFolder(Path(out))
    check_trackers(track)
    accelerator = make_accelerator(recipe, track, folder.path)
    with ExitStack() as stack:
        # The photos, and the folder, which is locked while this run writes to it.
        on_rank_zero(lambda: stack.enter_context(folder.locked()))
        earlier = on_all_ranks(folder.earlier_recipe)
        recipe = on_all_ranks(lambda: resolved(recipe, earlier))
        photos = on_all_ranks(lambda: open_photos(recipe, data, image_column))
        knn = on_all_ranks(lambda: OnlineKnn(validation, recipe)) if validation else None
        on_rank_zero(lambda: folder.claim(recipe, data, len(photos), _column(photos)))
        facts = DataFacts(public_name(data), len(photos))
        per_epoch = steps_per_epoch(recipe, len(photos))
        stop = last_step(recipe, per_epoch)
        if _is_complete(folder, recipe, stop, progress):
            return folder.model
        teacher_targets = open_targets(recipe, photos, accelerator.device, progress=progress)

        # The model and the optimiser: new, or from the last state. A state holds every weight, so
        # the weights that the run started from need not exist any more.
        known = recipe.with_random_start() if folder.state.exists() else recipe
        learner = on_all_ranks(lambda: Learner(known, accelerator, teacher_targets))
        state = on_all_ranks(lambda: _last_state(folder, learner))
        _check_same_step(folder, state)
        on_rank_zero(lambda: folder.rewind_metrics(state.step))
        if teacher_targets and state.step == 0:
            # The other processes get the first one's head when they are joined.
            on_rank_zero(
                lambda: initialize_distillation(
                    learner.clever, recipe, photos, teacher_targets, learner.normalize
                )
            )
        # Refused now, not when the first model is saved.
        model_config(recipe, state, embedding_length(learner.clever.shipped_backbone), 1, facts)
        learner.prepare()

        # The remaining batches.
        start = state.step
        order = make_order(recipe, photos, start, stop, state.stream)
        views = Views(photos, recipe, teacher_targets.clean if teacher_targets else None)
        loaded = batches(make_loader(views, order, run.num_workers))

        def save() -> None:
            """Write the state and the model folder; every process must call it."""
            if isinstance(order, StreamOrder):
                state.stream = gathered(order.position(state.step))
            on_rank_zero(lambda: _write(folder, recipe, learner, state, per_epoch, facts))

        bar = TrainingProgress(enabled=progress and is_rank_zero())
        recorder = Recorder(recipe, folder, accelerator, bar, start)
        request = stack.enter_context(stop_signals())
        stack.enter_context(bar.running(recipe.name, start, stop, run.batch_size))
        saved = mark = time.monotonic()
        for step in range(start, stop):
            fetching = time.monotonic()
            batch = on_all_ranks(lambda: next(loaded))
            waited = time.monotonic() - fetching

            settings = settings_at(recipe, step, per_epoch)
            terms = learner.step(step, step / per_epoch, batch, settings)
            state.see(recipe.views, batch.parameters)
            now = time.monotonic()
            state.step, state.seconds = step + 1, state.seconds + now - mark
            bar.advance(scalars(terms), waited / max(1e-9, now - mark))
            mark = now

            place = {
                "step": state.step,
                "epoch": state.step / per_epoch,
                "seconds": round(state.seconds, 1),
            }
            if recorder.due(state.step, stop):
                schedule = {"lr": settings.lr, "weight_decay": settings.weight_decay}
                recorder.step({**place, **schedule}, terms)
            if knn and knn.due(state.step, per_epoch, stop):
                recorder.measured(place, knn.measure(learner))

            # All processes save and stop together: the first one's clock and a signal to any of
            # them decide.
            late = is_rank_zero() and time.monotonic() - saved > run.save_minutes * 60
            asked, terminated, due = any_rank(request.asked, request.terminated, late)
            if asked or due:
                save()
                saved = time.monotonic()
            if asked:
                raise Terminated if terminated else KeyboardInterrupt
        save()
        recorder.close()
    return folder.model


def _column(photos: Photos | StreamedPhotos) -> str:
    """The image column, whether it was named or found."""
    return photos.image_column if isinstance(photos, Photos) else photos.column


def _last_state(folder: RunFolder, learner: Learner) -> RunState:
    """Load the last state into the learner; without a state, the run begins."""
    if not folder.state.exists():
        return RunState(start=learner.clever.start)
    return RunState.from_json(load_state(folder.state, learner.clever, learner.optimizer))


def _is_complete(folder: RunFolder, recipe: Recipe, stop: int, progress: bool) -> bool:
    """Whether nothing is left to do; says so.

    A run that was stopped between its last state and the model has the model left to write.
    """
    heads = recipe.method.equivariance and recipe.method.transformation_weight > 0
    done, written = on_all_ranks(lambda: (folder.steps_done(), folder.model_steps(heads=heads)))
    complete = min(done, written) >= stop
    if complete and progress and is_rank_zero():
        sys.stderr.write(f"{folder.path}: the run is complete, {stop} steps are done\n")
    return complete


def _check_same_step(folder: RunFolder, state: RunState) -> None:
    steps = gathered(state.step)
    if len(set(steps)) > 1:
        raise TrainingError(
            f"{folder.state}: expected one state, the processes see states of steps {steps}. Put "
            "the run folder on a disk that all nodes share"
        )


def _write(
    folder: RunFolder,
    recipe: Recipe,
    learner: Learner,
    state: RunState,
    per_epoch: int,
    data: DataFacts,
) -> None:
    save_state(folder.state, learner.clever, learner.optimizer, state.to_json())
    write_model(folder.model, recipe, learner.clever, state, per_epoch, data)
