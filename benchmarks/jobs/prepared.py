"""Photos, their copies and distractors as files with embeddings, kept for the next job."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clever_hub.cli.loading import load_model
from clever_hub.jobs.embedded import EmbeddedPhotos
from clever_hub.jobs.store import embed_photos
from jobs.copies import COPIERS
from jobs.photos import collection


class Prepared(NamedTuple):
    """A collection of photos.

    Attributes:
        files: Where each is.
        original: Number of each one's original.
        kind: ``original``, a name of ``COPIERS``, or ``distractor``.
    """

    files: list[Path]
    original: NDArray[np.int64]
    kind: NDArray[np.str_]

    def some(self, *kinds: str) -> NDArray[np.int64]:
        """The rows of some kinds."""
        return np.flatnonzero(np.isin(self.kind, kinds))


def options(description: str | None, arguments: list[str]) -> argparse.Namespace:
    """The options that duplicates, leaks and search share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("data", type=Path, help="folder of photos-224, imagenet-photos, …")
    parser.add_argument("--model", required=True)
    parser.add_argument("--photos", type=int, default=925, help="originals")
    parser.add_argument("--distractors", type=int, default=10_000)
    parser.add_argument("--work", type=Path, required=True, help="folder for files and embeddings")
    parser.add_argument("--out", type=Path, help="RESULTS.md, whose section is written")
    return parser.parse_args(arguments)


def prepare(chosen: argparse.Namespace) -> Prepared:
    """Write the files of a collection, where they are not there yet."""
    folder = chosen.work / f"{chosen.photos}-{chosen.distractors}"
    folder.mkdir(parents=True, exist_ok=True)
    files, originals, kinds = [], [], []
    for photo in collection(chosen.data, list(COPIERS), chosen.photos, chosen.distractors):
        name = photo.name.replace(": ", "_").replace(" ", "-").replace("%", "percent")
        path = folder / f"{name}.jpg"
        if not path.exists():
            path.write_bytes(photo.file)
        files.append(path)
        originals.append(photo.original)
        kinds.append(photo.kind)
    return Prepared(files, np.array(originals), np.array(kinds))


def embed(chosen: argparse.Namespace, photos: Prepared, averaged: bool) -> EmbeddedPhotos:
    """Embed all of a collection, or read what a job before has kept."""
    model: Any = load_model(chosen.model)
    done = 0

    def told(count: int) -> None:
        nonlocal done
        done += count
        print(f"\r{done} of {len(photos.files)} embedded", end="", flush=True)

    cache = chosen.work / "embeddings"
    found = embed_photos(model, photos.files, cache=cache, averaged=averaged, advance=told)
    print()
    assert len(found) == len(photos.files)
    return found


def row(*cells: object) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(str(cell) for cell in cells)} |"
