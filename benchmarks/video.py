"""Video segmentation: labels carried on in tiles against every patch with every other.

    python benchmarks/video.py --video DAVIS/ --out benchmarks/RESULTS.md

The naive loop is the published formulas frame by frame: cosines of all pairs of patches, those too
far away multiplied by 0, the five largest kept. Both get the same features of the same frames, at
480 pixels, of patches of 8 or 16 pixels, and must give the same labels. Both are timed on one
thread, by processor time, which a busy machine does not stretch. Aim: at least 5 times as fast.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from results import machine, write_section
from torch import Tensor

import clever_hub
from clever_hub.backends.dense import DenseModel
from clever_training.evaluation.propagation import Propagation, propagate
from clever_training.evaluation.videos import find_videos
from clever_training.runtime.memory import keep_freed_memory


def naive(frames: list[Tensor], labels: Tensor, settings: Propagation) -> Iterator[Tensor]:
    """The formulas, frame by frame, all pairs of patches."""
    rows, columns, dim = frames[0].shape
    place = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    assert settings.radius is not None
    near = ((place[:, None] - place).abs().amax(dim=-1) <= settings.radius).float()
    first, queue = F.normalize(frames[0].reshape(-1, dim), dim=1), list[tuple[Tensor, Tensor]]()
    yield labels
    for frame in frames[1:]:
        unit = F.normalize(frame.reshape(-1, dim), dim=1)
        sources = [(first, labels), *queue[-settings.last_frames :]]
        stacked = torch.stack([source for source, _ in sources])
        affinity = torch.exp(unit @ stacked.transpose(1, 2) / settings.temperature) * near
        affinity = affinity.transpose(1, 2).reshape(-1, rows * columns)
        least = affinity.topk(settings.neighbours, dim=0).values[-1]
        affinity[affinity < least] = 0
        affinity = affinity / affinity.sum(dim=0)
        known = torch.cat([label.flatten(0, 1) for _, label in sources])
        result = (affinity.T @ known).view(rows, columns, -1)
        queue.append((unit, result))
        yield result


def features(options: argparse.Namespace, patch: int) -> tuple[list[Tensor], Tensor]:
    """Features of a video's frames, and the labels of the first on their grid."""
    video = find_videos(options.video)[0]
    model = clever_hub.from_pretrained("clever-vit-tiny")
    assert isinstance(model, clever_hub.backends.torch.CleverModel)
    dense = DenseModel(model)
    mask = video.mask(0)
    # Patches of 16 pixels of 480 are as many as patches of 8 of 240.
    size = dense.size_for(mask.shape[1], mask.shape[0], 480 * dense.stride // patch)
    frames = [
        dense(dense.prepare(video.frame(number), size)[None])[0] for number in range(options.frames)
    ]
    grid = size[0] // dense.stride, size[1] // dense.stride
    small = np.asarray(Image.fromarray(mask).resize(grid, Image.Resampling.NEAREST))
    labels = torch.from_numpy(small.astype(np.int64))
    return frames, F.one_hot(labels, video.objects() + 1).float()


def seconds(frames: Iterator[Tensor]) -> tuple[float, list[Tensor]]:
    """Processor time of the last two frames, which look at the most, a frame; all labels."""
    found, taken = [], []
    while True:
        start = time.process_time()
        frame = next(frames, None)
        if frame is None:
            return sum(taken[-2:]) / 2, found
        taken.append(time.process_time() - start)
        found.append(frame)


def measure(options: argparse.Namespace) -> str:
    """Time both on grids of both sizes; a table in Markdown."""
    settings = Propagation()
    lines = [
        (
            f"clever-vit-tiny's tokens of {options.frames} frames of DAVIS, processor time of one "
            "thread, mean of the last two frames:\n"
        ),
        "| patches | naive, s a frame | tiles, s a frame | ratio | labels differ by at most |",
        "|---|---:|---:|---:|---:|",
    ]
    for patch in (16, 8):
        frames, labels = features(options, patch)
        ours, found = seconds(propagate(frames, labels, settings))
        plain, expected = seconds(naive(frames, labels, settings))
        worst = max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True))
        rows, columns = labels.shape[:2]
        lines.append(
            f"| {rows} × {columns}, of {patch} px at 480 px | {plain:.2f} | {ours:.2f} "
            f"| {plain / ours:.1f} | {worst:.0e} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--video", type=Path, required=True, help="folder in DAVIS's layout")
    parser.add_argument("--frames", type=int, default=10, help="frames of the first video")
    parser.add_argument("--out", type=Path, help="file whose section is replaced")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    text = measure(options)
    print(text)
    if options.out:
        title = "## Video segmentation: labels carried on in tiles\n\n"
        command = f"python benchmarks/video.py --video {options.video.name}"
        body = f"{title}`{command}`; {machine('torch', 'timm')}.\n\n{text}"
        write_section(options.out, "video", body)


if __name__ == "__main__":
    main()
