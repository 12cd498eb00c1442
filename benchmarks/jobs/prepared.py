"""Photos, their copies and distractors as files, and what was made of them, kept for the next run.

All of it lies in the folder of ``--work``: a run that was interrupted goes on where it was, and
what one job has embedded the next one reads. Delete the folder to measure anew.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clever_hub.cli.loading import load_model
from clever_hub.config import CONFIG_NAME
from clever_hub.embeddings import Embeddings
from clever_hub.files import atomic_path
from clever_hub.jobs.embedded import EmbeddedPhotos
from clever_hub.jobs.store import embed_photos
from clever_hub.weights import WEIGHTS_NAME
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
    parser.add_argument("--plain", help="the network that the model was made of, as a model folder")
    parser.add_argument("--photos", type=int, default=925, help="originals")
    parser.add_argument("--distractors", type=int, default=10_000)
    parser.add_argument("--work", type=Path, required=True, help="folder for files and embeddings")
    parser.add_argument("--out", type=Path, help="RESULTS.md, whose section is written")
    return parser.parse_args(arguments)


def command(job: str, chosen: argparse.Namespace) -> str:
    """The command that a section says, names in place of paths."""
    words = [f"python benchmarks/jobs.py {job} DATA --model {Path(chosen.model).name}"]
    if chosen.plain:
        words.append(f"--plain {Path(chosen.plain).name}")
    words.append(f"--work FOLDER --photos {chosen.photos} --distractors {chosen.distractors}")
    return " ".join(words)


def told(name: str, done: int, many: int) -> None:
    """Say on stderr how far something is."""
    end = "\n" if done >= many else ""
    print(f"\r{name}: {done:,} of {many:,}", end=end, file=sys.stderr, flush=True)


def prepare(chosen: argparse.Namespace) -> Prepared:
    """Write the files of a collection, where they are not there yet."""
    folder = chosen.work / f"{chosen.photos}-{chosen.distractors}"
    folder.mkdir(parents=True, exist_ok=True)
    files, originals, kinds = [], [], []
    many = chosen.photos * (1 + len(COPIERS)) + chosen.distractors
    for photo in collection(chosen.data, list(COPIERS), chosen.photos, chosen.distractors):
        name = photo.name.replace(": ", "_").replace(" ", "-").replace("%", "percent")
        path = folder / f"{name}.jpg"
        if not path.exists():
            # Whole or not at all; not flushed to the disk, which takes longer than making it.
            temporary = path.with_suffix(".part")
            temporary.write_bytes(photo.make())
            temporary.replace(path)
        files.append(path)
        originals.append(photo.original)
        kinds.append(photo.kind)
        if len(files) % 100 == 0 or len(files) == many:
            told("files", len(files), many)
    return Prepared(files, np.array(originals), np.array(kinds))


def embed(
    chosen: argparse.Namespace, photos: Prepared, averaged: bool, name: str | None = None
) -> EmbeddedPhotos:
    """Embed all of a collection, or read what a job before has kept.

    Args:
        chosen: The options.
        photos: The collection.
        averaged: Four looks at each photo, as ``clever-hub duplicates`` has them.
        name: Another model than ``--model``.
    """
    model: Any = load_model(name or chosen.model)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        told(f"embedded by {model.config.name}", done, len(photos.files))

    cache = chosen.work / "embeddings"
    found = embed_photos(model, photos.files, cache=cache, averaged=averaged, advance=advance)
    assert len(found) == len(photos.files)
    return found


def at_size(name: str, size: int, work: Path) -> Path:
    """The same network at another input size, as a model folder.

    Args:
        name: A model, without two parts.
        size: Pixels; the whole of the shorter side is seen, as at the network's own size.
        work: Where the folder is made.

    Returns:
        The folder, whose name says the size: embeddings of two sizes are told apart by it.
    """
    model: Any = load_model(name)
    source = Path(model.source.path)
    entry = json.loads((source / CONFIG_NAME).read_text(encoding="utf-8"))
    mine = entry["preprocessing"]
    folder = work / "models" / f"{entry['name']}-{size}"
    folder.mkdir(parents=True, exist_ok=True)
    entry["name"] = folder.name
    resize = round(size * mine["resize_size"] / mine["crop_size"])
    entry["preprocessing"] = {**mine, "resize_size": resize, "crop_size": size}
    entry["pretrained_cfg"]["input_size"] = [3, size, size]
    (folder / CONFIG_NAME).write_text(json.dumps(entry), encoding="utf-8")
    if not (folder / WEIGHTS_NAME).exists():
        (folder / WEIGHTS_NAME).symlink_to((source / WEIGHTS_NAME).resolve())
    return folder


def encode(model: Any, images: list[Any], label: str) -> Embeddings:
    """Embed images, and say on stderr how far it is."""
    parts = []
    for first in range(0, len(images), 256):
        parts.append(model.encode(images[first : first + 256]))
        told(label, min(first + 256, len(images)), len(images))
    return Embeddings(
        np.concatenate([part.invariant for part in parts]),
        np.concatenate([part.equivariant for part in parts]),
    )


def kept(path: Path | None, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was measured before, or is measured now.

    Args:
        path: A ``.json`` or, for arrays, an ``.npz``; None keeps nothing.
        make: Measures.
    """
    if path is None:
        return make()
    arrays = path.suffix == ".npz"
    if path.exists():
        return dict(np.load(path)) if arrays else json.loads(path.read_text(encoding="utf-8"))
    path.parent.mkdir(parents=True, exist_ok=True)
    found = make()
    with atomic_path(path) as temporary:
        if arrays:
            with temporary.open("wb") as file:
                np.savez(file, **found)
        else:
            temporary.write_text(json.dumps(found), encoding="utf-8")
    return found


def label_of(model: Any) -> str:
    """A model's name and the beginning of its weights' hash, for names of files."""
    source = model.source
    return f"{model.config.name}-{source.weights_sha256[:16]}" if source else model.config.name


def key_of(chosen: argparse.Namespace) -> str:
    """For names of files: the models and how many photos."""
    models = [label_of(load_model(name)) for name in (chosen.model, chosen.plain) if name]
    return f"{'-'.join(models)}-{chosen.photos}-{chosen.distractors}"


def row(*cells: object) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(str(cell) for cell in cells)} |"
