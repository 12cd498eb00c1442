"""The job leaks beside md5 and perceptual hashes: copies of training photos among the validation.

    python benchmarks/jobs.py leaks ../shared/data --model MODEL --work FOLDER

The training set is the first half of the originals and of the distractors; the validation set is
the other half, and a copy of each training original, by one transformation after the other.
"""

from __future__ import annotations

import hashlib
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from results import machine, write_section

from clever_hub.jobs.embedded import EmbeddedPhotos
from clever_hub.jobs.leaks import find_leaks
from clever_hub.jobs.verifying import PixelVerifier
from jobs.copies import EASY, HARD
from jobs.duplicates import phash
from jobs.prepared import Prepared, command, embed, options, prepare, row, told

JOB = "leaks"

Rows = NDArray[np.int64]


def split(photos: Prepared) -> tuple[Rows, Rows]:
    """The rows of the training and of the validation photos."""
    kinds = [*EASY, *HARD]
    count = int((photos.kind == "original").sum())
    first = photos.original % 2 == 0
    own = np.isin(photos.kind, ["original", "distractor"])
    wanted = np.array([kinds[number // 2 % len(kinds)] for number in photos.original])
    planted = first & (photos.original < count) & (photos.kind == wanted)
    return np.flatnonzero(own & first), np.flatnonzero((own & ~first) | planted)


def report(chosen: Any) -> str:
    """The table."""
    photos = prepare(chosen)
    train, validation = split(photos)
    copies = {int(b) for b in validation if photos.original[b] % 2 == 0}
    found = {"md5": _by_md5(photos, train, validation)}
    both = np.concatenate([train, validation])
    pairs = phash(chosen, photos.files)(both)
    across = (pairs.a < len(train)) & (pairs.b >= len(train))
    found["phash, 10 bits"] = {int(both[b]) for b in pairs.b[across]}
    vectors = embed(chosen, photos, averaged=True).embeddings
    sets = [
        EmbeddedPhotos([photos.files[row] for row in rows], vectors[rows], "", "averaged")
        for rows in (train, validation)
    ]
    verify = PixelVerifier(
        sets[0].paths,
        others=sets[1].paths,
        cached=len(both),  # 70 kB a photo: candidates are of photos from all over
        progress=partial(told, "verified"),
    )
    leaks = find_leaks(*sets, verify=verify)
    found["clever-hub leaks"] = {int(validation[b]) for b in leaks.leaked}
    lines = [row("", "recall", "precision"), row("---", "---:", "---:")]
    for name, rows in found.items():
        right = len(rows & copies)
        precision = f"{right / len(rows):.3f}" if rows else "–"
        lines.append(row(name, f"{right / len(copies):.3f}", precision))
    counts = (
        f"{len(copies)} copies among {len(validation)} validation photos, {len(train)} training"
    )
    print(counts, file=sys.stderr)
    return "\n".join(lines)


def _by_md5(photos: Prepared, train: Rows, validation: Rows) -> set[int]:
    def digest(row: int) -> str:
        return hashlib.md5(photos.files[row].read_bytes(), usedforsecurity=False).hexdigest()

    known = {digest(row) for row in train}
    return {int(row) for row in validation if digest(row) in known}


def main(arguments: list[str]) -> None:
    """Measure, print, and write the section where that is asked for."""
    chosen = options(__doc__, arguments)
    name = Path(chosen.model).name
    text = (
        "## Leaks\n\n"
        f"`{command('leaks', chosen)}`; {machine('numpy', 'opencv-python-headless')}.\n\n"
        f"{report(chosen)}"
    )
    print(text)
    if chosen.out is not None:
        write_section(chosen.out, f"leaks-{name}", text)
