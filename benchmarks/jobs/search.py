"""The job search: the original by its copy, by each part of the embedding; and the same pose.

    python benchmarks/jobs.py search ../shared/data --model MODEL --plain PLAIN --work FOLDER

PLAIN is the network that the model was made of; it searches beside the model, at the model's input
size and at its own.

MRR is the mean of 1/rank of the original among originals and distractors, when its copy is the
query. For the pose, photos lie at random angles, and the angle between a query and the nearest of
*other* photos is taken: 90 degrees in the median is chance. *Mild* copies are turned by any angle,
cropped to 60 % of the area or more and recoloured; they are seen through a disc, or cut out so that
they have no corners, or have black ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from results import machine, write_section

from clever_hub.cli.loading import load_model
from clever_hub.embeddings import Embeddings
from clever_hub.images.opening import load_image
from clever_hub.jobs.pairs import unit_rows
from jobs.copies import EASY, HARD, HARSH, MILD, copy_of, through_disc
from jobs.photos import originals
from jobs.prepared import Prepared, at_size, command, embed, encode, options, prepare, row

JOB = "search"
Numbers = NDArray[np.int64]
PARTS = ("invariant", "equivariant", "full")
SETS = {"imagededup's": tuple(EASY), "harder": tuple(HARD), "all at once": tuple(HARSH)}
TURNS = 4  # random angles of each photo
_BLOCK = 1024  # queries at once: their cosines to 11,000 photos are 45 MB


def copies(
    chosen: Any, photos: Prepared, found: Embeddings, name: str
) -> dict[str, tuple[Embeddings, Numbers]]:
    """The queries of each column: embeddings of copies, and the numbers of their originals."""
    queries = {}
    for column, kinds in SETS.items():
        rows = photos.some(*kinds)
        queries[column] = (found[rows], photos.original[rows])
    files = originals(chosen.data, chosen.photos)
    for kind in MILD:
        images = [copy_of(load_image(file), number, kind) for number, file in enumerate(files)]
        asked = encode(load_model(name), images, f"{Path(name).name}, {kind}")
        queries[kind] = (asked, np.arange(len(images)))
    return queries


def reciprocal_rank(
    gallery: NDArray[np.float32], numbers: Numbers, queries: NDArray[np.float32], owners: Numbers
) -> float:
    """MRR of the original by its copy."""
    mean = gallery.mean(axis=0)
    index = unit_rows(gallery, mean)
    place = {int(number): i for i, number in enumerate(numbers)}
    right = np.array([place[int(number)] for number in owners])
    ranks = []
    for first in range(0, len(queries), _BLOCK):
        block = slice(first, first + _BLOCK)
        cosines = unit_rows(queries[block], mean) @ index.T
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
            images.append(through_disc(photo, float(angle)))
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
    columns = (*SETS, *MILD)
    lines = [
        row("", "part", *(f"MRR, {name}" for name in columns), "pose, median degrees"),
        row("---", "---", *("---:" for _ in columns), "---:"),
    ]
    base = photos.some("original", "distractor")
    for label, (name, parts) in contenders(chosen).items():
        found = embed(chosen, photos, averaged=False, name=name).embeddings
        gallery, queries = found[base], copies(chosen, photos, found, name)
        medians = pose(chosen, name)
        for part in (one for one in parts if one in medians):
            ranks = (
                reciprocal_rank(
                    getattr(gallery, part), photos.original[base], getattr(asked, part), owners
                )
                for asked, owners in (queries[column] for column in columns)
            )
            lines.append(row(label, part, *(f"{r:.3f}" for r in ranks), f"{medians[part]:.0f}"))
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Measure, print, and write the section where that is asked for."""
    chosen = options(__doc__, arguments)
    name = Path(chosen.model).name
    text = f"## Search\n\n`{command('search', chosen)}`; {machine('numpy')}.\n\n{report(chosen)}"
    print(text)
    if chosen.out is not None:
        write_section(chosen.out, f"search-{name}", text)
