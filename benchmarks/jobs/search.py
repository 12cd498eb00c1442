"""The job search: the original by its copy, by each part of the embedding; and the same pose.

    python benchmarks/jobs.py search ../shared/data --model MODEL --plain PLAIN --work FOLDER

PLAIN is the network that the model was made of; it searches beside the model, at the model's input
size and at its own.

MRR is the mean of 1/rank of the original among originals and distractors, when its copy is the
query. For the pose, photos lie at random angles, and the angle between a query and the nearest of
*other* photos is taken: 90 degrees in the median is chance.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from results import machine, write_section

from clever_hub.cli.loading import load_model
from clever_hub.embeddings import Embeddings
from clever_hub.images.opening import load_image
from clever_hub.jobs.pairs import unit_rows
from jobs.copies import EASY, HARD, HARSH
from jobs.photos import originals
from jobs.prepared import Prepared, at_size, command, embed, encode, options, prepare, row

JOB = "search"
PARTS = ("invariant", "equivariant", "full")
SETS = {"imagededup's": tuple(EASY), "harder": tuple(HARD), "all at once": tuple(HARSH)}
TURNS = 4  # random angles of each photo
_BLOCK = 1024  # queries at once: their cosines to 11,000 photos are 45 MB


def reciprocal_rank(
    photos: Prepared, vectors: NDArray[np.float32], kinds: tuple[str, ...]
) -> float:
    """MRR of the original by its copy."""
    base = photos.some("original", "distractor")
    mean = vectors[base].mean(axis=0)
    index = unit_rows(vectors[base], mean)
    place = {int(number): i for i, number in enumerate(photos.original[base])}
    rows = photos.some(*kinds)
    right = np.array([place[int(number)] for number in photos.original[rows]])
    ranks = []
    for first in range(0, len(rows), _BLOCK):
        block = slice(first, first + _BLOCK)
        cosines = unit_rows(vectors[rows[block]], mean) @ index.T
        own = cosines[np.arange(len(cosines)), right[block]]
        ranks.append(1 + (cosines > own[:, None]).sum(axis=1))
    return float((1 / np.concatenate(ranks)).mean())


def pose(chosen: Any, name: str) -> dict[str, float]:
    """Median angle between a photo and the nearest other one, by part of a model's embeddings."""
    rng = np.random.default_rng(0)
    images, angles, numbers = [], [], []
    for number, file in enumerate(originals(chosen.data, min(chosen.photos, 150))):
        photo = load_image(file)
        for angle in rng.uniform(0, 360, TURNS):
            images.append(_disc(photo, float(angle)))
            angles.append(angle)
            numbers.append(number)
    found: Embeddings = encode(load_model(name), images, f"{Path(name).name}, poses")
    turned, owner = np.array(angles), np.array(numbers)
    medians = {}
    for part in PARTS:
        vectors = getattr(found, part)
        if not vectors.shape[1]:
            continue
        unit = unit_rows(vectors, vectors.mean(axis=0))
        cosines = unit @ unit.T
        cosines[owner[:, None] == owner] = -2
        apart = np.abs((turned - turned[cosines.argmax(axis=1)] + 180) % 360 - 180)
        medians[part] = float(np.median(apart))
    return medians


def _disc(photo: Image.Image, angle: float) -> Image.Image:
    """The middle of a photo, turned, seen through a disc: no corner gives the angle away."""
    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    square = photo.crop((left, top, left + side, top + side)).resize((224, 224))
    pixels = np.asarray(square.rotate(angle, Image.Resampling.BICUBIC)).copy()
    y, x = np.mgrid[:224, :224] - 111.5
    pixels[x**2 + y**2 > 112**2] = 124
    return Image.fromarray(pixels)


def contenders(chosen: Any) -> dict[str, tuple[str, tuple[str, ...]]]:
    """The model of each row's name, and the parts of it that are searched by."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    if chosen.plain:
        own = load_model(chosen.plain).config.preprocessing.crop_size
        size = load_model(chosen.model).config.preprocessing.crop_size
        for side in dict.fromkeys((size, own)):
            folder = at_size(chosen.plain, side, chosen.work)
            found[f"plain network, {side} px"] = (str(folder), ("full",))
    return found | {Path(chosen.model).name: (chosen.model, PARTS)}


def report(chosen: Any) -> str:
    """The table."""
    photos = prepare(chosen)
    lines = [
        row("", "part", *(f"MRR, {name}" for name in SETS), "pose, median degrees"),
        row("---", "---", *("---:" for _ in SETS), "---:"),
    ]
    for label, (name, parts) in contenders(chosen).items():
        found = embed(chosen, photos, averaged=False, name=name).embeddings
        medians = pose(chosen, name)
        for part in (one for one in parts if one in medians):
            vectors = getattr(found, part)
            ranks = (f"{reciprocal_rank(photos, vectors, kinds):.3f}" for kinds in SETS.values())
            lines.append(row(label, part, *ranks, f"{medians[part]:.0f}"))
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Measure, print, and write the section where that is asked for."""
    chosen = options(__doc__, arguments)
    name = Path(chosen.model).name
    text = f"## Search\n\n`{command('search', chosen)}`; {machine('numpy')}.\n\n{report(chosen)}"
    print(text)
    if chosen.out is not None:
        write_section(chosen.out, f"search-{name}", text)
