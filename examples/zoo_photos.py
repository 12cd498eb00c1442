r"""Gather the photos that the zoo's models are trained on into one table.

    python examples/zoo_photos.py photos.parquet --folder imagenette --folder imagewoof \
        --table tiny-imagenet-100/train.parquet:12500 \
        --leave-out photos-224/validation.parquet --leave-out tiny-imagenet-100/validation.parquet

Photos that are measured on must not be trained on. One is left out if a table of ``--leave-out``
has the same bytes, or a photo that looks the same: 16 × 16 grey values that correlate by more than
0.97. Copies among the photos themselves are left out as well, if their bytes are equal.
"""

from __future__ import annotations

import argparse
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from clever_hub.files import atomic_path

SAME = 0.97
"""Correlation of the grey values above which two photos are taken for the same one."""


def main() -> None:
    """Read the photos, leave out what is measured on, write the table."""
    arguments = _arguments()
    kept_out = [photo for table in arguments.leave_out for photo in _table(table)]
    hashes = {hashlib.sha256(photo).digest() for photo in kept_out}
    looks = np.stack([_look(photo) for photo in kept_out]) if kept_out else None
    rows, left_out = [], 0
    for photo in _photos(arguments):
        digest = hashlib.sha256(photo).digest()
        alike = looks is not None and (looks @ _look(photo)).max() > SAME
        if digest in hashes or alike:
            left_out += 1
            continue
        hashes.add(digest)
        rows.append({"bytes": photo, "path": None})
        if len(rows) % 5000 == 0:
            print(f"{len(rows):,} photos", flush=True)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(rows, kind)})
    with atomic_path(arguments.output) as path:
        pq.write_table(table, path, row_group_size=500, compression="none")
    print(f"{len(rows):,} photos in {arguments.output}; {left_out:,} left out")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("output", type=Path, help="parquet file to write, with a column image")
    parser.add_argument(
        "--folder", action="append", default=[], help="a folder of JPEG, or FOLDER:N at random"
    )
    parser.add_argument(
        "--table", action="append", default=[], help="FILE.parquet, or FILE.parquet:N at random"
    )
    parser.add_argument("--leave-out", type=Path, action="append", default=[], metavar="TABLE")
    return parser.parse_args()


def _photos(arguments: argparse.Namespace) -> Iterator[bytes]:
    """The encoded photos of all folders, sorted by name, then those of all tables."""
    for entry in arguments.folder:
        folder, count = _with_count(entry)
        found = sorted(Path(folder).rglob("*"))
        paths = [path for path in found if path.suffix.lower() in (".jpg", ".jpeg")]
        yield from (paths[number].read_bytes() for number in _chosen(len(paths), count))
    for entry in arguments.table:
        path, count = _with_count(entry)
        photos = _table(Path(path))
        yield from (photos[number] for number in _chosen(len(photos), count))


def _with_count(entry: str) -> tuple[str, str]:
    """A path and the count behind its last colon; paths may have colons of their own."""
    path, _, count = entry.rpartition(":")
    return (path, count) if path and count.isdigit() else (entry, "")


def _chosen(length: int, count: str) -> list[int]:
    """Row numbers in order: all, or as many as ``count`` says, at random."""
    chosen = np.random.default_rng(0).permutation(length)[: int(count) if count else None]
    return sorted(chosen.tolist())


def _table(path: Path) -> list[bytes]:
    column = pq.read_table(path, columns=["image"])["image"]
    return [photo["bytes"] for photo in column.to_pylist() if photo is not None]


def _look(photo: bytes) -> np.ndarray:
    """Grey values at 16 × 16, centred, of unit norm: float32 (256,)."""
    image = Image.open(io.BytesIO(photo)).convert("L").resize((16, 16), Image.Resampling.BOX)
    grey = np.asarray(image, np.float32).ravel()
    grey -= grey.mean()
    return grey / (np.linalg.norm(grey) + 1e-6)


if __name__ == "__main__":
    main()
