"""What views cost: the fast backend against torchvision's published pipeline, on one core.

    python benchmarks/augment.py ../shared/data/imagenet-photos --out benchmarks/RESULTS.md

From the bytes of full-size JPEGs to 2 × 224 + 8 × 96 uint8 views, with the same parameters drawn
for both. The backends take turns, a dozen photos at a time, so that both meet the same machine;
what is counted is the processor time of the one thread that does the work. Lengths in pixels are
as published in every view (``scale_lengths: false``). Aim: at least 5 times torchvision's images/s
for BAug and CAug, 20 times for CAug+.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import torch
from results import machine, write_section

from clever_training.recipe.schema import ViewsRecipe
from clever_training.views.decode import EncodedPhoto
from clever_training.views.sample import ViewSizes, make_views

STRATEGIES = {"baug": ("BAug", 5), "caug": ("CAug", 5), "caug+": ("CAug+", 20)}
BACKENDS = ("fast", "torchvision")
SIZES = ViewSizes(224, 96)
TURN = 12  # photos that a backend makes views of before the other has its turn


def seconds(files: list[bytes], strategy: str) -> dict[str, float]:
    """Processor time for each photo, by backend."""
    recipes = {
        backend: ViewsRecipe(strategy=strategy, backend=backend, local_count=8, scale_lengths=False)
        for backend in BACKENDS
    }
    for recipe in recipes.values():
        make_views(EncodedPhoto(files[0]), recipe, SIZES, (0, 0, 0))  # fills caches
    taken = dict.fromkeys(BACKENDS, 0.0)
    for first in range(0, len(files), TURN):
        for backend, recipe in recipes.items():
            start = time.thread_time()
            for index, content in enumerate(files[first : first + TURN], first):
                make_views(EncodedPhoto(content), recipe, SIZES, (0, 0, index))
            taken[backend] += time.thread_time() - start
    return {backend: total / len(files) for backend, total in taken.items()}


def decoding(files: list[bytes]) -> float:
    """Processor time for each photo to decode it and no more: what no backend can go below."""
    start = time.thread_time()
    for content in files:
        EncodedPhoto(content).decode()
    return (time.thread_time() - start) / len(files)


def report(files: list[bytes]) -> str:
    """Measure all strategies; a table in Markdown."""
    lines = [
        f"{len(files)} photos, images/s of one core, 2 × 224 + 8 × 96 views:\n",
        "| strategy | torchvision | fast | ratio | aim | fast without decoding |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for strategy, (name, aim) in STRATEGIES.items():
        taken, decode = seconds(files, strategy), decoding(files)
        fast, published = taken["fast"], taken["torchvision"]
        lines.append(
            f"| {name} | {1 / published:.1f} | {1 / fast:.0f} | {published / fast:.1f} | {aim} "
            f"| {1 / (fast - decode):.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photos", type=Path, help="folder of JPEG files")
    parser.add_argument("--count", type=int, default=60, help="photos to take")
    parser.add_argument("--out", type=Path, help="file whose section is replaced")
    options = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    names = (".jpg", ".jpeg")
    paths = sorted(path for path in options.photos.iterdir() if path.suffix.lower() in names)
    files = [path.read_bytes() for path in paths[: options.count]]
    text = report(files)
    print(text)
    if options.out:
        command = f"python benchmarks/augment.py <folder of full-size photos> --count {len(files)}"
        about = machine("opencv-python-headless", "torchvision", "pillow")
        title = "## Views: the fast backend against the published pipeline\n\n"
        write_section(options.out, "augment", f"{title}`{command}`; {about}.\n\n{text}")


if __name__ == "__main__":
    main()
