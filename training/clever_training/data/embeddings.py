"""A cache on disk of a frozen teacher's embeddings, by photo and teacher.

A photo is identified by the hash of its file, a teacher by the hash of its weights and settings.
Photos may therefore move, be reordered, or be in several data sets. The cache is a folder of parts.
Each part is written atomically, so a stopped run keeps its finished parts, and several processes
may write at the same time.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clever_hub import files
from clever_hub.errors import DataError, TrainingError
from clever_hub.files import atomic_path
from clever_training.data.files import read_in_threads
from clever_training.data.photos import Photos
from clever_training.data.teacher import Teacher
from clever_training.views.decode import Image

BATCH = 64
_PART = 2048  # photos in a part; at least a quarter of a minute of work
_HASH = 16  # bytes of SHA-256 that identify a photo
_LARGEST = float(np.finfo(np.float16).max)
Advance = Callable[[int, int], None]
# Arrays of records (hash of the photo, embedding), for which numpy has no static type.
Records = Any


def cache_folder() -> Path:
    """The folder of the cache."""
    return files.cache_folder() / "teacher"


class TeacherEmbeddings:
    """Embeddings of a data set's photos by number, read from disk when they are needed.

    Args:
        parts: Memory-mapped parts of the cache.
        place: Part and row in it of each photo, int64 (photos, 2).

    Attributes:
        dim: Length of an embedding.
    """

    def __init__(self, parts: Sequence[Records], place: NDArray[np.int64]) -> None:
        self._parts, self._place = parts, place
        self.dim = int(parts[0]["embedding"].shape[1])

    def __len__(self) -> int:
        return len(self._place)

    def __getitem__(self, numbers: Sequence[int]) -> NDArray[np.float32]:
        """Embeddings of some photos, float32 (photos, dim)."""
        rows = [self._parts[part]["embedding"][row] for part, row in self._place[list(numbers)]]
        return np.stack(rows).astype(np.float32)

    def mean(self) -> NDArray[np.float32]:
        """The mean over all photos, float32 (dim,)."""
        total = np.zeros(self.dim)
        for number, part in enumerate(self._parts):
            rows = np.sort(self._place[self._place[:, 0] == number, 1])
            for some in np.array_split(rows, max(1, len(rows) // _PART)):
                total += part["embedding"][some].sum(axis=0, dtype=np.float64)
        return (total / len(self)).astype(np.float32)


def teacher_embeddings(
    teacher: Teacher,
    photos: Photos,
    *,
    keys: NDArray[np.uint8] | None = None,
    folder: Path | None = None,
    share: tuple[int, int] = (0, 1),
    advance: Advance = lambda done, total: None,  # noqa: ARG005
) -> None:
    """Embed the photos that the cache lacks, and add them to it.

    Args:
        teacher: Embeds the photos.
        photos: The photos.
        keys: Their hashes, uint8 (photos, 16), as ``photo_hashes`` gives them; None reads the
            files for them.
        folder: Folder of the cache; None is ``cache_folder``.
        share: Number of this process and of all processes; of n processes each embeds every n-th
            missing photo.
        advance: Called after each batch with the number of this process's photos that are done,
            and their total.

    Raises:
        DataError: Names the row that cannot be read.
        TrainingError: When the cache cannot be written, or a file in it is not a part.
    """
    cache = _folder_of(teacher, folder)
    known = {bytes(key) for part in _parts(cache, teacher.dim) for key in part["photo"]}
    keys = photo_hashes(photos) if keys is None else keys
    rank, world = share
    wanted: dict[bytes, int] = {}
    for number, key in enumerate(keys):
        if bytes(key) not in known:
            wanted.setdefault(bytes(key), number)
    numbers = list(wanted.values())[rank::world]
    done = 0
    for start in range(0, len(numbers), _PART):
        some = numbers[start : start + _PART]
        rows = []
        for batch in _prepared(teacher, photos, some):
            rows.append(teacher.embed(batch).cpu().numpy())
            done += len(batch)
            advance(done, len(numbers))
        _write(cache, keys[some], np.concatenate(rows))


def load_embeddings(
    teacher: Teacher,
    photos: Photos,
    *,
    keys: NDArray[np.uint8] | None = None,
    folder: Path | None = None,
) -> TeacherEmbeddings:
    """Open the embeddings that ``teacher_embeddings`` has written in all processes.

    Args:
        teacher: The teacher.
        photos: The photos.
        keys: Their hashes, uint8 (photos, 16), as ``photo_hashes`` gives them; None reads the
            files for them.
        folder: Folder of the cache; None is ``cache_folder``.

    Returns:
        The embeddings by the photos' numbers.

    Raises:
        DataError: When the cache lacks a photo.
        TrainingError: When a file in the cache is not a part.
    """
    cache = _folder_of(teacher, folder)
    parts = _parts(cache, teacher.dim)
    rows = {
        bytes(key): (number, row)
        for number, part in enumerate(parts)
        for row, key in enumerate(part["photo"])
    }
    keys = photo_hashes(photos) if keys is None else keys
    missing = [number for number, key in enumerate(keys) if bytes(key) not in rows]
    if missing:
        raise DataError(
            f"{photos.name}: {len(missing)} of {len(keys)} photos, the first of them row "
            f"{missing[0]}, have no embedding by {teacher.name} in {cache}: the embeddings "
            "there are of other photos. Run again, and change neither photos nor cache meanwhile"
        )
    place = np.array([rows[bytes(key)] for key in keys], dtype=np.int64)
    return TeacherEmbeddings(parts, place)


def placeholder(embedding: NDArray[np.float32], photos: int) -> TeacherEmbeddings:
    """The same embedding for every photo, for trials that must not read the cache.

    Args:
        embedding: float32 (dim,).
        photos: Number of photos.

    Returns:
        The embeddings.
    """
    part = np.zeros(1, dtype=_entry(len(embedding)))
    part["embedding"][0] = embedding
    return TeacherEmbeddings([part], np.zeros((photos, 2), dtype=np.int64))


def photo_hashes(photos: Photos) -> NDArray[np.uint8]:
    """The hashes that identify photos: the first half of SHA-256 of each file.

    Args:
        photos: The photos.

    Returns:
        uint8 (photos, 16).

    Raises:
        DataError: Names the row whose file cannot be read.
    """

    def digest(number: int) -> bytes:
        source = photos.source(number)
        try:
            content = source if isinstance(source, bytes) else Path(source).read_bytes()
        except OSError as error:
            raise DataError(f"{photos.name}: row {number} cannot be read: {error}") from error
        return hashlib.sha256(content).digest()[:_HASH]

    found = b"".join(read_in_threads(digest, range(len(photos))))
    return np.frombuffer(found, dtype=np.uint8).reshape(-1, _HASH)


def _folder_of(teacher: Teacher, folder: Path | None) -> Path:
    return (folder or cache_folder()) / teacher.digest[:32]


def _parts(cache: Path, dim: int) -> list[Records]:
    """The parts of a cache, memory-mapped, in the order of their names."""
    found = []
    for path in sorted(cache.glob("part-*.npy")):
        try:
            part = _mapped(path)
        except OSError as error:
            raise TrainingError(
                f"{path}: cannot be read ({error.strerror or error}). The embeddings in it are not "
                "lost: mend that, then run the same command again"
            ) from error
        except (ValueError, EOFError) as error:
            raise TrainingError(f"{path}: not a part of a cache ({error}). Remove it") from error
        if part.dtype != _entry(dim):
            raise TrainingError(
                f"{path}: expected entries of {_entry(dim)}, got {part.dtype}. Remove it"
            )
        found.append(part)
    return found


def _mapped(path: Path) -> Records:
    """A file's array, memory-mapped, read-only, without a descriptor that stays open."""
    checked = np.load(path, mmap_mode="r", allow_pickle=False)
    offset, dtype, end = checked.offset, checked.dtype, checked.offset + checked.nbytes
    # numpy's mapping keeps a descriptor, and a process may have as few as 256 of them.
    del checked
    whole = torch.from_file(str(path), size=end, dtype=torch.uint8).numpy()
    whole.flags.writeable = False
    return whole[offset:].view(dtype)


def _entry(dim: int) -> Any:
    return np.dtype([("photo", "u1", (_HASH,)), ("embedding", "<f2", (dim,))])


def _write(cache: Path, keys: NDArray[np.uint8], embeddings: NDArray[np.float32]) -> None:
    part = np.empty(len(keys), dtype=_entry(embeddings.shape[1]))
    part["photo"] = keys
    part["embedding"] = np.clip(embeddings, -_LARGEST, _LARGEST)
    try:
        with atomic_path(cache / f"part-{secrets.token_hex(8)}.npy") as path:
            np.save(path, part, allow_pickle=False)
    except OSError as error:
        raise TrainingError(
            f"{cache}: the teacher's embeddings cannot be written ({error}). Free disk space, or "
            "set CLEVER_HUB_CACHE to another folder"
        ) from error


def _prepared(
    teacher: Teacher, photos: Photos, numbers: Sequence[int]
) -> Iterator[NDArray[np.uint8]]:
    """Batches of prepared photos, prepared one batch ahead of the teacher."""

    def prepare(number: int) -> Image:
        with photos.naming(number):
            return teacher.prepare(photos.open(number))

    starts = range(0, len(numbers), BATCH)
    with ThreadPoolExecutor(2, thread_name_prefix="clever-teacher") as pool:
        waiting = pool.map(prepare, numbers[:BATCH])
        for start in starts:
            ready = list(waiting)
            following = numbers[start + BATCH : start + 2 * BATCH]
            waiting = pool.map(prepare, following)
            yield np.stack(ready)
