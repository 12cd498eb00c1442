"""Video object segmentation without training: how well features follow an object, J, F and J&F."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from clever_training.evaluation.dense import DenseFeatures
from clever_training.evaluation.propagation import Propagation, propagate
from clever_training.evaluation.results import Figures
from clever_training.evaluation.segmentation import (
    TOLERANCE,
    boundary_accuracy,
    region_similarity,
)
from clever_training.evaluation.videos import FrameCount, Keep, Video, measure_now

SIZE = 480
# Places in a batch: frames of 480 pixels go one by one at patches of 8, four at patches of 16.
BATCH_PLACES = 6_400
ALL = "all"

SETTINGS: dict[str, Any] = {
    "labels": (
        "those of the 5 most alike places of the first and the last 7 frames, at most 12 places "
        "away, softmax of the cosine with temperature 0.1; the first frame's mask is given"
    ),
    "j": "intersection over union, mean over frames, then over objects",
    "f": f"F-measure of the boundary, tolerance {TOLERANCE} of the diagonal, likewise",
    "recall": "share of frames with more than 0.5, mean over objects",
    "frames": "all but the first and the last, as DAVIS counts",
    "features": "patch tokens after the final norm, or the last map of a CNN",
}

# Of a video: J and F, per part, frame and object.
Scores: TypeAlias = dict[str, list[list[tuple[float, float]]]]
# Of a video: the masks of all objects as numbers, uint8 (height, width), frame by frame, per part.
Masks: TypeAlias = Iterator[dict[str, NDArray[np.uint8]]]


def measure_videos(
    dense: DenseFeatures,
    videos: Sequence[Video],
    size: int = SIZE,
    settings: Propagation | None = None,
    report: Callable[[int, int], None] = lambda _done, _total: None,
    keep: Keep = measure_now,
) -> Figures:
    """Carry the first frame's mask through each video, and compare with the true ones.

    Args:
        dense: Features of places.
        videos: With a mask for each frame.
        size: Pixels of the shorter side that frames are resized to; masks are compared at their
            own size.
        settings: How labels are carried on.
        report: Called with frames done and in all.
        keep: Called with each video and a function that gives its scores, which JSON can hold;
            gives them, perhaps from an earlier call.

    Returns:
        ``all`` and each video's name → part → ``j_and_f``, ``j``, ``f``, ``j_recall`` and
        ``f_recall`` in per cent. ``all`` is the mean over objects, not over videos.

    Raises:
        DataError: When a mask cannot be read, or the first has no object.
        ImageError: When a frame cannot be read.
    """
    count, before = FrameCount(sum(len(video.frames) for video in videos), report), 0
    # Per part and video: (objects, 4).
    each: dict[str, dict[str, NDArray[np.float64]]] = {part: {} for part in dense.parts}
    for video in videos:
        measure = partial(_scores, dense, video, size, settings, count.after(before))
        found: Scores = keep(video, measure)
        before += len(video.frames)
        count.reach(before)
        for part, scores in found.items():
            each[part][video.name] = _per_object(np.asarray(scores, dtype=np.float64))
    figures: Figures = {ALL: {}}
    for part, by_video in each.items():
        figures[ALL][part] = _figures(np.concatenate(list(by_video.values())))
        for name, values in by_video.items():
            figures.setdefault(name, {})[part] = _figures(values)
    return figures


def _scores(
    dense: DenseFeatures,
    video: Video,
    size: int,
    settings: Propagation | None,
    report: Callable[[int], None],
) -> Scores:
    """J and F of one video; reports frames done."""
    objects = video.objects()
    found: Scores = {part: [] for part in dense.parts}
    for position, predicted in enumerate(segment(dense, video, size, settings)):
        if 0 < position < len(video.frames) - 1:
            truth = video.mask(position)
            for part, mask in predicted.items():
                found[part].append(_compared(mask, truth, objects))
        report(position + 1)
    return found


def segment(
    dense: DenseFeatures, video: Video, size: int = SIZE, settings: Propagation | None = None
) -> Masks:
    """The masks that a model's features give, frame by frame.

    Features are computed for several frames at a time, one batch ahead of what is needed; only as
    many frames as labels are taken from stay in memory.

    Args:
        dense: Features of places.
        video: Its first frame's mask is given, the others are not looked at.
        size: Pixels of the shorter side that frames are resized to.
        settings: How labels are carried on.

    Yields:
        Part → uint8 (height, width), the objects' numbers; the first frame's as it is on the map of
        features, no finer.
    """
    given, objects = video.mask(0), video.objects()
    height, width = given.shape
    resized = dense.size_for(width, height, size)
    grid = resized[0] // dense.stride, resized[1] // dense.stride
    small = np.asarray(Image.fromarray(given).resize(grid, Image.Resampling.NEAREST))
    labels = F.one_hot(torch.from_numpy(small.astype(np.int64)), objects + 1).float()
    frames = _features(dense, video, resized)
    streams = zip(itertools.tee(frames, len(dense.parts)), dense.parts.values(), strict=True)
    carried = [propagate(_columns(*stream), labels, settings) for stream in streams]
    for per_part in zip(*carried, strict=True):
        yield {
            part: _mask(found, resized, (width, height))
            for part, found in zip(dense.parts, per_part, strict=True)
        }


def _columns(frames: Iterable[Tensor], columns: slice) -> Iterator[Tensor]:
    """One part of the features."""
    return (frame[..., columns] for frame in frames)


def _features(dense: DenseFeatures, video: Video, size: tuple[int, int]) -> Iterator[Tensor]:
    """Of each frame, (rows, columns, dim); the next batch is decoded while this one is computed."""
    places = size[0] // dense.stride * (size[1] // dense.stride)
    step = max(1, BATCH_PLACES // places)
    count = len(video.frames)

    def prepare(start: int) -> NDArray[np.float32]:
        chosen = range(start, min(start + step, count))
        return np.stack([dense.prepare(video.frame(position), size) for position in chosen])

    with ThreadPoolExecutor(1, thread_name_prefix="clever-video") as pool:
        waiting = pool.submit(prepare, 0)
        for start in range(0, count, step):
            batch = waiting.result()
            if start + step < count:
                waiting = pool.submit(prepare, start + step)
            yield from dense(batch)


def _mask(
    labels: Float[Tensor, "rows columns classes"], size: tuple[int, int], own: tuple[int, int]
) -> NDArray[np.uint8]:
    """The class of each pixel: labels enlarged, each class stretched to [0, 1], the largest."""
    maps = labels.permute(2, 0, 1)[None]
    large = F.interpolate(maps, size=(size[1], size[0]), mode="bilinear", align_corners=False)[0]
    least = large.amin(dim=(1, 2), keepdim=True)
    spread = large.amax(dim=(1, 2), keepdim=True) - least
    stretched = torch.where(spread > 0, (large - least) / spread.clamp_min(1e-12), large)
    numbers = stretched.argmax(dim=0).to(torch.uint8).numpy()
    return np.asarray(Image.fromarray(numbers).resize(own, Image.Resampling.NEAREST))


def _compared(
    predicted: NDArray[np.uint8], truth: NDArray[np.uint8], objects: int
) -> list[tuple[float, float]]:
    """J and F of each object."""
    pairs = ((predicted == number, truth == number) for number in range(1, objects + 1))
    return [(region_similarity(*pair), boundary_accuracy(*pair)) for pair in pairs]


def _per_object(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """(frames, objects, 2) to (objects, 4): mean J, mean F, recall of J, recall of F."""
    return np.concatenate([scores.mean(axis=0), (scores > 0.5).mean(axis=0)], axis=1)


def _figures(objects: NDArray[np.float64]) -> dict[str, float]:
    j, f, j_recall, f_recall = (float(value) for value in objects.mean(axis=0) * 100)
    return {
        "j_and_f": (j + f) / 2,
        "j": j,
        "f": f,
        "j_recall": j_recall,
        "f_recall": f_recall,
    }
