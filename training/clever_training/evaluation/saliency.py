"""The object in a photo, found by the cut of its patches: CorLoc and intersection over union."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clever_hub.errors import DataError
from clever_hub.jobs.saliency import THRESHOLD, WEAK_EDGE, find_cut
from clever_training.evaluation.dense import DenseFeatures
from clever_training.evaluation.results import Figures
from clever_training.evaluation.segmentation import region_similarity
from clever_training.evaluation.videos import FrameCount, Keep, Video, measure_now

# Neighbouring frames of a video look alike.
EVERY = 10
# As the paper leaves the features, and with the mean of the photo's patches taken off.
CONDITIONS = {"plain": False, "centred": True}

SETTINGS: dict[str, Any] = {
    "cut": (
        f"TokenCut: an edge where the cosine exceeds {THRESHOLD}, {WEAK_EDGE} elsewhere; second "
        "eigenvector, cut at its mean; nothing is refined afterwards"
    ),
    "features": "keys of a ViT's last block, as published; the last map of other networks",
    "centred": "the mean of the photo's patches taken off first",
    "iou": "of the object's side of the cut with the mask of all objects, mean over frames",
    "corloc": "share of frames whose box has an IoU of 0.5 or more with that of an object",
    "cut_share": "share of frames that have anything to cut; others count as 0",
    "frames": f"every {EVERY}th of each video",
}


class _Score(NamedTuple):
    located: bool
    iou: float
    cut: bool


# Condition → part → one for each frame.
Scores: TypeAlias = dict[str, dict[str, list[_Score]]]


def measure_saliency(
    dense: DenseFeatures,
    videos: Sequence[Video],
    size: int,
    report: Callable[[int, int], None] = lambda _done, _total: None,
    keep: Keep = measure_now,
) -> Figures:
    """Find the object in frames whose masks are known.

    Args:
        dense: Features of places.
        videos: With a mask for each frame.
        size: Pixels of the shorter side that frames are resized to; masks are compared at their
            own size.
        report: Called with frames done and in all.
        keep: As for ``measure_videos``.

    Returns:
        ``plain`` and ``centred`` → part → ``corloc``, ``iou`` and ``cut_share`` in per cent.

    Raises:
        DataError: When a mask cannot be read, or none of the frames has an object.
        ImageError: When a frame cannot be read.
    """
    count, before = FrameCount(sum(len(_positions(video)) for video in videos), report), 0
    scores: Scores = {condition: {part: [] for part in dense.parts} for condition in CONDITIONS}
    for video in videos:
        found = keep(video, partial(_of_video, dense, video, size, count.after(before)))
        before += len(_positions(video))
        count.reach(before)
        for condition, by_part in found.items():
            for part, of_frames in by_part.items():
                # From JSON they come as lists.
                scores[condition][part] += [_Score(*one) for one in of_frames]
    if not all(scores["plain"].values()):
        raise DataError(
            f"{videos[0].masks[0].parent.parent}: expected an object in the mask of some frame, "
            f"found none in every {EVERY}th frame of each video, from the first on"
        )
    return {
        condition: {part: _figures(found) for part, found in by_part.items()}
        for condition, by_part in scores.items()
    }


def _positions(video: Video) -> range:
    return range(0, len(video.frames), EVERY)


def _of_video(
    dense: DenseFeatures, video: Video, size: int, report: Callable[[int], None]
) -> Scores:
    """The scores of one video's frames; reports frames done."""
    scores: Scores = {condition: {part: [] for part in dense.parts} for condition in CONDITIONS}
    for done, position in enumerate(_positions(video), start=1):
        truth = video.mask(position)
        if truth.any():
            for condition, part, score in _scores(dense, video.frame(position), truth, size):
                scores[condition][part].append(score)
        report(done)
    return scores


def _scores(
    dense: DenseFeatures, frame: Image.Image, truth: NDArray[np.uint8], size: int
) -> Iterator[tuple[str, str, _Score]]:
    resized = dense.size_for(frame.width, frame.height, size)
    features = dense(dense.prepare(frame, resized)[None])[0].numpy()
    for condition, centred in CONDITIONS.items():
        for part, columns in dense.parts.items():
            cut = find_cut(np.ascontiguousarray(features[..., columns]), centred=centred)
            if cut is None:
                yield condition, part, _Score(located=False, iou=0.0, cut=False)
                continue
            mask = np.asarray(Image.fromarray(cut.mask).resize(frame.size)).astype(bool)
            box = _enlarged(cut.box, cut.mask.shape, truth.shape)
            boxes = [_box(truth == number) for number in np.unique(truth[truth > 0])]
            located = any(_overlap(box, other) >= 0.5 for other in boxes)
            yield condition, part, _Score(located, region_similarity(mask, truth > 0), cut=True)


def _figures(scores: Sequence[_Score]) -> dict[str, float]:
    located, iou, cut = (100 * float(value) for value in np.mean(scores, axis=0))
    return {"corloc": located, "iou": iou, "cut_share": cut}


Box = tuple[float, float, float, float]


def _box(mask: NDArray[np.bool_]) -> Box:
    """Left, top, right and bottom of a mask; right and bottom are exclusive."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return float(columns[0]), float(rows[0]), float(columns[-1]) + 1, float(rows[-1]) + 1


def _enlarged(box: tuple[int, int, int, int], grid: tuple[int, ...], size: tuple[int, ...]) -> Box:
    """A box of places as one of pixels."""
    across, down = size[1] / grid[1], size[0] / grid[0]
    return box[0] * across, box[1] * down, box[2] * across, box[3] * down


def _overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    both = max(0.0, width) * max(0.0, height)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return both / (areas - both)
