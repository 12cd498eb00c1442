"""Give a model heads: embed views once, fit, calibrate on other photos, write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clever_hub.cli.loading import load_model
from clever_hub.errors import ConfigError, DataError
from clever_hub.files import whole_folder
from clever_hub.jobs.answering import JobsMixin
from clever_hub.jobs.calibration import Calibration
from clever_hub.jobs.heads import Heads, HeadsConfig
from clever_training.data.photos import Photos, load_photos
from clever_training.data.sources import public_name
from clever_training.heads.calibrate import calibrate
from clever_training.heads.embedding import EmbeddedViews, choose, embed_views
from clever_training.heads.files import copy_folder, heads_tensors, write_heads
from clever_training.heads.fit import FitSettings, fit
from clever_training.heads.tail import LEAST_PHOTOS
from clever_training.heads.views import HeadViews

# What is done, how much of it, and how much there is.
Progress = Callable[[str, int, int], None]
_FOR_CALIBRATION = 0.25  # of the photos, where none are given for it


@dataclass(frozen=True)
class HeadsPlan:
    """How heads are fitted and calibrated.

    Attributes:
        photos: How many photos to fit to, at most.
        calibration_photos: How many to calibrate on, at most.
        views: How views are drawn.
        fit: How the heads are fitted.
        bootstraps: Draws of photos, for the intervals of the thresholds.
        seed: Seed of all random draws.
    """

    photos: int = 5000
    calibration_photos: int = 5000
    views: HeadViews = field(default_factory=HeadViews)
    fit: FitSettings = field(default_factory=FitSettings)
    bootstraps: int = 100
    seed: int = 0


def add_heads(
    model: str | Path,
    folder: str | Path,
    data: str,
    *,
    calibration: str | None = None,
    plan: HeadsPlan | None = None,
    image_column: str | None = None,
    keep_trained: bool = False,
    backend: str = "auto",
    progress: Progress = lambda *_: None,
) -> Calibration:
    """Give a model heads, and say how far they can be trusted.

    Args:
        model: A model's name, folder or repository.
        folder: Where the model with heads is written: a new folder, or the model's own.
        data: Photos to fit to: a folder, a parquet file or a data set.
        calibration: Other photos to calibrate on; None sets a quarter of ``data`` apart. Copies
            within it are left out.
        plan: How.
        image_column: The image column of a table.
        keep_trained: Calibrate the heads that the model has, as its training left them.
        backend: What computes the embeddings; ``auto`` is the fastest that can.
        progress: Called with what is done, how much of it, and how much there is.

    Returns:
        The calibration, which is in the folder's config too.

    Raises:
        ConfigError: When the model has no equivariant part, or the folder holds something else.
        DataError: When a photo cannot be read, or there are too few.
        ModelFormatError: When the model is damaged, or has no heads to keep.

    Example:
        >>> add_heads("clever-resnet18", "with-heads", "photos/")  # doctest: +SKIP
    """
    plan = plan or HeadsPlan()
    loaded = load_model(str(model), backend)
    assert loaded.source is not None
    target, trained = Path(folder), loaded.heads if keep_trained else None
    _check_target(target, loaded.source.path)
    if not loaded.config.equivariant_dim:
        raise ConfigError(
            f"{loaded.config.name}: has no equivariant part, which heads read. Give it one with "
            "`clever-hub split MODEL --data PHOTOS --output FOLDER`"
        )
    photos = load_photos(data, image_column)
    others = load_photos(calibration, image_column) if calibration else None
    fitting, measuring = _rows(photos, others, plan, only_measuring=trained is not None)
    measured = _embed(loaded, others or photos, measuring, plan, 1, "calibration", progress)
    _check_enough(len(measured), calibration)  # copies count once
    measured = replace(measured, data=public_name(calibration or data))
    if trained is None:
        # Of other photos it is the caller's choice that none of them is measured on as well.
        apart = measured.thumbnails if others is None else None
        views = _embed(loaded, photos, fitting, plan, 0, "photos", progress, apart)
        settings = replace(plan.fit, seed=plan.fit.seed or plan.seed)
        head = fit(views, settings, lambda done, steps: progress("fitting", done, steps))
        mean = views.embeddings[:, 0].astype(np.float64).mean(axis=0).astype(np.float32)
        config = HeadsConfig(
            "0" * 64,
            views.equivariant.shape[-1],
            plan.fit.hidden_dim,
            180.0,
            public_name(data),
            len(views),
        )
        arrays = heads_tensors(head, mean, loaded.config.num_features)
        heads = Heads(config, arrays)
    else:
        heads, arrays = _recentred(trained, measured)
    found = calibrate(
        heads,
        measured,
        bootstraps=plan.bootstraps,
        seed=plan.seed,
        progress=lambda what: progress(what, 0, 0),
    )
    with _writing(target, loaded.source.path) as written:
        write_heads(
            written,
            arrays,
            data=heads.config.data,
            photos=heads.config.photos,
            rotation=heads.config.rotation,
            calibration=found,
        )
    return found


@contextmanager
def _writing(target: Path, source: Path) -> Iterator[Path]:
    """The folder to write to: the model's own, or a copy, whole or not there at all."""
    target = target.resolve()
    if target == source.resolve():
        yield target
        return
    with whole_folder(target) as folder:
        yield copy_folder(source, folder)


def _embed(
    model: JobsMixin,
    photos: Photos,
    rows: list[int],
    plan: HeadsPlan,
    stream: int,
    what: str,
    progress: Progress,
    known: NDArray[np.float32] | None = None,
) -> EmbeddedViews:
    return embed_views(
        model,
        photos,
        rows,
        replace(plan.views, positions=what == "calibration"),
        seed=2 * plan.seed + stream,
        known=known,
        progress=lambda done, total: progress(what, done, total),
    )


def _rows(
    photos: Photos, others: Photos | None, plan: HeadsPlan, *, only_measuring: bool
) -> tuple[list[int], list[int]]:
    """Rows to fit to, and rows to calibrate on: of other photos, or others of the same."""
    if others is not None:
        measuring = choose(len(others), plan.calibration_photos, plan.seed)
        _check_enough(len(measuring), others.name)
        return choose(len(photos), plan.photos, plan.seed), measuring
    chosen = choose(len(photos), plan.photos, plan.seed)
    if only_measuring:
        _check_enough(min(len(chosen), plan.calibration_photos), photos.name)
        places = choose(len(chosen), plan.calibration_photos, plan.seed)
        return [], [chosen[place] for place in places]
    apart = np.random.default_rng(plan.seed).permutation(chosen)
    cut = min(round(_FOR_CALIBRATION * len(chosen)), plan.calibration_photos)
    _check_enough(cut, None)
    return sorted(apart[cut:].tolist()), sorted(apart[:cut].tolist())


def _check_enough(count: int, calibration: str | None) -> None:
    """Refuse too few photos to calibrate on, before the work."""
    if count >= LEAST_PHOTOS:
        return
    least = round(LEAST_PHOTOS / _FOR_CALIBRATION)
    raise DataError(
        f"{calibration or '--data'}: expected {LEAST_PHOTOS} different photos or more to calibrate "
        f"on, got {count}. "
        + (
            "Give more"
            if calibration
            else f"A quarter of --data is set apart for it, so give {least} (--photos, too), or "
            "other photos by --calibration"
        )
    )


def _recentred(heads: Heads, views: EmbeddedViews) -> tuple[Heads, dict[str, NDArray[np.float32]]]:
    """Heads as training leaves them have no mean for centring; it is that of other photos then."""
    arrays = dict(heads.tensors)
    if not np.any(arrays["calibration.mean"]):
        mean = views.embeddings[:, 0].astype(np.float64).mean(axis=0)
        arrays["calibration.mean"] = mean.astype(np.float32)
    return Heads(heads.config, arrays), arrays


def _check_target(target: Path, source: Path) -> None:
    if target.resolve() == source.resolve():
        return
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(
            f"--output: {target} is there already. Remove it, name another folder, or the model's "
            "own folder to put the heads beside its weights"
        )
