"""The job duplicates beside perceptual hashes and a bare cosine, on copies of many kinds.

    python benchmarks/jobs.py duplicates ../shared/data --model MODEL --plain PLAIN --work FOLDER

Originals, a copy of each by every transformation of ``jobs.copies``, and distractors. A pair counts
as found where both photos are in one group: that is what a user sees. Precision is of the pairs in
groups, too. imagehash is of the extra dev. A bare cosine is of the plain network's embeddings, or
of the whole of the model's where no PLAIN is given.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from results import machine, write_section

from clever_hub.jobs.candidates import centre
from clever_hub.jobs.duplicates import find_duplicates, group
from clever_hub.jobs.pairs import Pairs, similar_pairs
from clever_hub.jobs.rates import threshold_by_data
from clever_hub.jobs.verifying import PixelVerifier
from jobs.copies import EASY, HARD, HARSH
from jobs.prepared import Prepared, command, embed, kept, key_of, options, prepare, row, told

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
    """Find pairs among some rows, group them, and count; seconds of processor time."""
    start = time.process_time()
    found = method(rows)
    seconds = time.process_time() - start
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


def phash(chosen: Any, files: Sequence[Path]) -> Method:
    """Imagehash's perceptual hash, at most 10 of 64 bits apart."""
    import imagehash

    def bits() -> dict[str, Any]:
        found = []
        for file in files:
            found.append(imagehash.phash(Image.open(file).convert("RGB")).hash.ravel())
            if len(found) % 100 == 0 or len(found) == len(files):
                told("hashed", len(found), len(files))
        return {"bits": np.array(found)}

    known = kept(chosen.work / f"phash-{chosen.photos}-{chosen.distractors}.npz", bits)["bits"]
    signs = np.where(known, 1, -1).astype(np.float32)
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
        # All keypoints are kept, 70 kB a photo: candidates are of photos from all over.
        verify = PixelVerifier(
            [files[row] for row in rows], cached=len(rows), progress=partial(told, "verified")
        )
        return find_duplicates(vectors[rows], verify=verify).pairs

    return method


def report(chosen: Any) -> str:
    """The table; every figure is kept in the folder of ``--work`` as soon as it is there."""
    photos = prepare(chosen)
    plain = embed(chosen, photos, averaged=False, name=chosen.plain).embeddings
    single = embed(chosen, photos, averaged=False).embeddings if chosen.plain else plain
    averaged = embed(chosen, photos, averaged=True).embeddings
    of = ", plain network" if chosen.plain else ""
    methods = {
        "phash, 10 bits": phash(chosen, photos.files),
        f"cosine 0.9{of}": cosine(plain.full, 0.9),
        f"cosine at a rate of 1e-5{of}": at_rate(plain.full, photos, 1e-5),
        "clever-hub duplicates --no-turns": ours(single.invariant, photos.files),
        "clever-hub duplicates": ours(averaged.invariant, photos.files),
    }
    lines = [
        row("", *(f"{name}: recall / precision" for name in SETS), "seconds"),
        row("---", *("---:" for _ in SETS), "---:"),
    ]
    known = f"duplicates-{key_of(chosen)}"
    for place, (name, method) in enumerate(methods.items()):
        scores = []
        for number, kinds in enumerate(SETS.values()):
            rows = photos.some("original", "distractor", *kinds)
            measure = partial(_scored, photos, rows, method)
            found = kept(chosen.work / f"{known}-{place}-{number}.json", measure)
            scores.append(Score(**found))
            print(name, kinds[0], scores[-1], file=sys.stderr)
        cells = [f"{one.recall:.3f} / {_share(one.precision)}" for one in scores]
        lines.append(row(name, *cells, f"{sum(one.seconds for one in scores):.0f}"))
    return "\n".join(lines)


def _scored(photos: Prepared, rows: Rows, method: Method) -> dict[str, float]:
    return score(photos, rows, method)._asdict()


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def main(arguments: list[str]) -> None:
    """Measure, print, and write the section where that is asked for."""
    chosen = options(__doc__, arguments)
    table = report(chosen)
    name = Path(chosen.model).name
    text = (
        "## Duplicates\n\n"
        f"`{command('duplicates', chosen)}`; {machine('numpy', 'opencv-python-headless')}.\n\n"
        f"{chosen.photos} originals with their copies, {chosen.distractors} distractors; seconds "
        f"of processor time, without embedding and hashing, for the three sets together.\n\n"
        f"{table}"
    )
    print(text)
    if chosen.out is not None:
        write_section(chosen.out, f"duplicates-{name}", text)
