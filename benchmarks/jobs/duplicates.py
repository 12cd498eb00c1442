"""The job duplicates beside perceptual hashes and a bare cosine, on copies of many kinds.

    python benchmarks/jobs.py duplicates ../shared/data --model MODEL --work FOLDER

Originals, a copy of each by every transformation of ``jobs.copies``, and distractors. A pair counts
as found where both photos are in one group: that is what a user sees. Precision is of the pairs in
groups, too. imagehash is of the extra dev.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from results import machine, write_section

from clever_hub.jobs.duplicates import centre, find_duplicates, group
from clever_hub.jobs.pairs import Pairs, similar_pairs
from clever_hub.jobs.rates import threshold_by_data
from clever_hub.jobs.verifying import PixelVerifier
from jobs.copies import EASY, HARD, HARSH
from jobs.prepared import Prepared, embed, options, prepare, row

JOB = "duplicates"
SETS = {
    "imagededup's transformations": tuple(EASY),
    "harder, one at a time": tuple(HARD),
    "harder, all at once": tuple(HARSH),
}

Rows = NDArray[np.int64]
Method = Callable[[Rows], Pairs]


class Score(NamedTuple):
    """How well pairs of copies were found."""

    recall: float
    precision: float
    seconds: float


def score(photos: Prepared, rows: Rows, method: Method) -> Score:
    """Find pairs among some rows, group them, and count."""
    start = time.perf_counter()
    found = method(rows)
    seconds = time.perf_counter() - start
    groups = group(found, np.zeros(len(rows), np.int64)) if len(found.a) else []
    truth = photos.original[rows]
    right = together = 0
    for members in groups:
        counts = np.unique(truth[members], return_counts=True)[1]
        right += int((counts * (counts - 1) // 2).sum())
        together += len(members) * (len(members) - 1) // 2
    counts = np.unique(truth, return_counts=True)[1]
    total = int((counts * (counts - 1) // 2).sum())
    return Score(right / total, right / together if together else float("nan"), seconds)


def phash(files: Sequence[Path]) -> Method:
    """Imagehash's perceptual hash, at most 10 of 64 bits apart."""
    import imagehash

    bits = [imagehash.phash(Image.open(file).convert("RGB")).hash.ravel() for file in files]
    signs = np.where(np.array(bits), 1, -1).astype(np.float32)
    # 64 − 2·distance is the product of the signs: a cosine of 44/64 is a distance of 10.
    return lambda rows: similar_pairs(signs[rows], 44 / 64 - 1e-4)


def cosine(
    vectors: NDArray[np.float32], threshold: float, mean: NDArray[np.float32] | None = None
) -> Method:
    """A bare cosine, of vectors as they are or centred."""
    return lambda rows: similar_pairs(vectors[rows], threshold, mean=mean)


def at_rate(vectors: NDArray[np.float32], photos: Prepared, rate: float) -> Method:
    """A bare centred cosine, at a rate of false pairs, measured where there are no copies."""
    apart = vectors[photos.some("original", "distractor")]
    mean = centre(apart, "full", None)
    return cosine(vectors, threshold_by_data(apart, rate, 1, mean=mean).cosine, mean)


def ours(vectors: NDArray[np.float32], files: Sequence[Path]) -> Method:
    """``clever-hub duplicates``."""

    def method(rows: Rows) -> Pairs:
        verify = PixelVerifier([files[row] for row in rows])
        return find_duplicates(vectors[rows], verify=verify).pairs

    return method


def report(chosen: Any) -> str:
    """The table."""
    photos = prepare(chosen)
    plain = embed(chosen, photos, averaged=False).embeddings
    averaged = embed(chosen, photos, averaged=True).embeddings
    methods = {
        "phash, 10 bits": phash(photos.files),
        "cosine 0.9": cosine(plain.full, 0.9),
        "cosine at a rate of 1e-5": at_rate(plain.full, photos, 1e-5),
        "clever-hub duplicates --no-turns": ours(plain.invariant, photos.files),
        "clever-hub duplicates": ours(averaged.invariant, photos.files),
    }
    lines = [
        row("", *(f"{name}: recall / precision" for name in SETS), "seconds"),
        row("---", *("---:" for _ in SETS), "---:"),
    ]
    for name, method in methods.items():
        scores = []
        for kinds in SETS.values():
            rows = photos.some("original", "distractor", *kinds)
            scores.append(score(photos, rows, method))
            print(name, kinds[0], scores[-1])
        cells = [f"{one.recall:.3f} / {one.precision:.3f}" for one in scores]
        lines.append(row(name, *cells, f"{sum(one.seconds for one in scores):.0f}"))
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Measure, print, and write the section where that is asked for."""
    chosen = options(__doc__, arguments)
    table = report(chosen)
    name = Path(chosen.model).name
    text = (
        "## Duplicates\n\n"
        f"`python benchmarks/jobs.py duplicates DATA --model {name} --photos {chosen.photos} "
        f"--distractors {chosen.distractors}`; {machine('numpy', 'opencv-python-headless')}.\n\n"
        f"{chosen.photos} originals with their copies, {chosen.distractors} distractors; seconds "
        f"without embedding, for the three sets together, on a machine that does other work.\n\n"
        f"{table}"
    )
    print(text)
    if chosen.out is not None:
        write_section(chosen.out, f"duplicates-{name}", text)
