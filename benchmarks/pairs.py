"""Candidates for duplicates: comparing all pairs beside an index, on embeddings of real photos.

    clever-hub embed MODEL photos/ -o vectors.parquet
    python benchmarks/pairs.py vectors.parquet --counts 20000 75000 --out benchmarks/RESULTS.md

Both find the pairs above the same threshold, the one that ``clever-hub duplicates`` takes. The
index looks at each photo's 50 nearest only. Copies are planted: a tenth of the photos again, with
noise, so that the median cosine of a copy is that of ``--copies``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from results import machine, write_section

from clever_hub.jobs.candidates import FALSE_PER_PHOTO, centre, choose_threshold
from clever_hub.jobs.embedded import read_embeddings
from clever_hub.jobs.nearest import nearest_pairs
from clever_hub.jobs.pairs import similar_pairs

_SHARE = 10  # one of so many photos has a copy


def with_copies(vectors: NDArray[np.float32], cosine: float) -> NDArray[np.float32]:
    """Vectors, and noisy ones of a tenth of them at the end."""
    rng = np.random.default_rng(0)
    some = vectors[: len(vectors) // _SHARE] - vectors.mean(0)
    noise = rng.normal(size=some.shape).astype(np.float32)
    noise *= np.linalg.norm(some, axis=1, keepdims=True) / np.linalg.norm(
        noise, axis=1, keepdims=True
    )
    copies = some + noise * np.sqrt(1 / cosine**2 - 1)
    return np.concatenate([vectors, copies.astype(np.float32) + vectors.mean(0)])


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What some work gives; its seconds, and its seconds of processor time."""
    wall, processor = time.perf_counter(), time.process_time()
    return work(), time.perf_counter() - wall, time.process_time() - processor


def copies_found(pairs: Any, originals: int) -> float:
    """Share of the planted copies that are among the pairs."""
    right = (pairs.b >= originals) & (pairs.b - originals == pairs.a)
    return float(right.sum()) / (originals // _SHARE)


def measure(vectors: NDArray[np.float32], cosine: float) -> str:
    """A row of the table."""
    originals = len(vectors)
    vectors = with_copies(vectors, cosine)
    mean = centre(vectors, "invariant", None)
    cut = choose_threshold(
        vectors,
        part="invariant",
        threshold=None,
        expected_false=FALSE_PER_PHOTO * len(vectors),
        mean=mean,
    ).cosine
    exact, *of_exact = timed(lambda: similar_pairs(vectors, cut, mean=mean))
    (found, recall, _), *of_index = timed(lambda: nearest_pairs(vectors, cut, mean=mean))
    seconds = " | ".join(f"{wall:.0f}, {cpu:.0f}" for wall, cpu in (of_exact, of_index))
    shares = [f"{100 * copies_found(pairs, originals):.1f} %" for pairs in (exact, found)]
    return f"| {len(vectors):,} | {seconds} | {100 * recall:.1f} % | {' | '.join(shares)} |"


def main() -> None:
    """Measure and print, or write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("embeddings", type=Path)
    parser.add_argument("--counts", type=int, nargs="+", default=[20_000])
    parser.add_argument("--copies", type=float, default=0.6, help="cosine of a copy")
    parser.add_argument("--out", type=Path, help="RESULTS.md, whose section is written")
    chosen = parser.parse_args()
    vectors = read_embeddings(chosen.embeddings).embeddings.invariant
    rows = [measure(vectors[:count], chosen.copies) for count in chosen.counts]
    counts = " ".join(map(str, chosen.counts))
    about = f"{vectors.shape[1]} dimensions; {machine('numpy', 'lancedb')}"
    text = [
        "## Candidates for duplicates, among many photos",
        "",
        f"`python benchmarks/pairs.py VECTORS --counts {counts}`; {about}",
        "",
        "Seconds, on a machine that does other work, and of processor time.",
        "",
        "| vectors | all pairs | index | recall of the index | copies, all pairs | copies, index |",
        "|---:|---:|---:|---:|---:|---:|",
        *rows,
    ]
    print("\n".join(text))
    if chosen.out:
        write_section(chosen.out, "pairs", "\n".join(text))


if __name__ == "__main__":
    main()
