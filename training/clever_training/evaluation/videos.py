"""Videos with a mask per frame, in the layout of DAVIS."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clever_hub.errors import DataError
from clever_hub.images.opening import load_image

FRAMES, MASKS, RESOLUTION = "JPEGImages", "Annotations", "480p"
# What DAVIS names its validation sets; 2017 comes first, its masks tell several objects apart.
_LISTS = ("ImageSets/2017/val.txt", "ImageSets/2016/val.txt", "ImageSets/480p/val.txt")
_VOID = 255
_T = TypeVar("_T")


@dataclass(frozen=True)
class Video:
    """Frames of a video, and a mask for each.

    Attributes:
        name: Name of the folder.
        frames: Image files, in order.
        masks: Image files, as many.
    """

    name: str
    frames: tuple[Path, ...]
    masks: tuple[Path, ...]

    def frame(self, position: int) -> Image.Image:
        """A frame, RGB, upright."""
        return load_image(self.frames[position])

    def mask(self, position: int) -> NDArray[np.uint8]:
        """The mask of a frame.

        Args:
            position: Number of the frame.

        Returns:
            uint8 (height, width): 0 for the background, then the objects of the first mask, from 1
            on without a gap, whatever their numbers are there; one that comes later is background.
            In a grey image 255 is an object, as in DAVIS-2016; in one with a palette it is "not
            known" and becomes 0, as in DAVIS-2017's evaluation.

        Raises:
            DataError: When the file is not such an image, or of another size than the frame.
        """
        renumbered = np.zeros(256, np.uint8)
        there = self._there
        renumbered[there] = np.arange(1, len(there) + 1)
        return renumbered[self._numbers(position)]

    @cached_property
    def _there(self) -> NDArray[np.uint8]:
        """The numbers of the objects in the first mask, ascending."""
        found = np.unique(self._numbers(0))
        return found[found > 0]

    def _numbers(self, position: int) -> NDArray[np.uint8]:
        """A mask as it is stored."""
        path = self.masks[position]
        try:
            with Image.open(path) as image:
                image.load()
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read as an image: {error}") from error
        with Image.open(self.frames[position]) as frame:
            if frame.size != image.size:
                raise DataError(
                    f"{path}: is {image.width}×{image.height}, its frame "
                    f"{frame.width}×{frame.height}; frames and masks have one size"
                )
        if image.mode == "P":
            numbers = np.asarray(image)
            return np.where(numbers == _VOID, 0, numbers).astype(np.uint8)
        if image.mode in ("1", "L"):
            values = np.asarray(image.convert("L"))
            return np.where(values == _VOID, 1, values).astype(np.uint8)
        raise DataError(
            f"{path}: expected numbers of objects, in a grey image or one with a palette, "
            f"got an image of mode {image.mode}"
        )

    def fingerprint(self) -> str:
        """SHA-256 over names and content of all frames and masks, in hexadecimal."""
        digest = hashlib.sha256(self.name.encode())
        for path in (*self.frames, *self.masks):
            digest.update(f" {path.name} {path.stat().st_size} ".encode())
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def objects(self) -> int:
        """How many objects the first mask has.

        Raises:
            DataError: When it has none: there is nothing to follow then.
        """
        count = len(self._there)
        if not count:
            raise DataError(f"{self.masks[0]}: has no object, so that there is nothing to follow")
        return count


@runtime_checkable
class Keep(Protocol):
    """Gives what was measured on a video: measures it, or takes it from an earlier evaluation."""

    def __call__(self, video: Video, measure: Callable[[], _T]) -> _T:
        """The measurement, which JSON can hold."""
        ...


def measure_now(video: Video, measure: Callable[[], _T]) -> _T:  # noqa: ARG001 -- as Keep has it
    """A ``Keep`` that keeps nothing."""
    return measure()


class FrameCount:
    """Reports frames done; those of a video that was measured earlier are done at once.

    Args:
        total: Frames in all.
        report: Called with frames done and in all.
    """

    def __init__(self, total: int, report: Callable[[int, int], None]) -> None:
        self._done, self._total, self._report = 0, total, report

    def reach(self, done: int) -> None:
        """Report that so many frames are done, if that is news."""
        if done > self._done:
            self._done = done
            self._report(done, self._total)

    def after(self, before: int) -> Callable[[int], None]:
        """A function to which a video reports its own frames, when so many came before it."""
        return lambda done: self.reach(before + done)


def find_videos(folder: str | Path) -> list[Video]:
    """All videos of a folder in the layout of DAVIS.

    Args:
        folder: Has ``JPEGImages/480p/NAME/00000.jpg`` … and ``Annotations/480p/NAME/00000.png`` …;
            ``480p`` may be left out. Where ``ImageSets`` lists a validation set, only its videos
            count, those of 2017 before those of 2016.

    Returns:
        In the order of their names.

    Raises:
        DataError: When there are none, or a frame has no mask.
    """
    folder, roots = Path(folder), []
    for kind in (FRAMES, MASKS):
        root = next((r for r in (folder / kind / RESOLUTION, folder / kind) if r.is_dir()), None)
        if root is None:
            raise DataError(
                f"{folder}: expected the layout of DAVIS, {FRAMES}/{RESOLUTION}/NAME/00000.jpg and "
                f"{MASKS}/{RESOLUTION}/NAME/00000.png; there is no folder {kind}"
            )
        roots.append(root)
    frames, masks = roots
    names = _listed(folder) or [path.name for path in sorted(frames.iterdir()) if path.is_dir()]
    videos = [_video(name, frames / name, masks / name) for name in names]
    if not videos:
        raise DataError(f"{frames}: expected a folder per video, found none")
    return videos


def _listed(folder: Path) -> list[str]:
    """The validation set's names, from the first list that is there."""
    path = next((folder / name for name in _LISTS if (folder / name).is_file()), None)
    if path is None:
        return []
    lines = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    # 2016's list has a frame per line, with its mask; 2017's a name.
    first = (words[0] for words in lines if words)
    return sorted({Path(w).parent.name if w.endswith(".jpg") else w for w in first})


def _video(name: str, frames: Path, masks: Path) -> Video:
    for folder in (frames, masks):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; video {name} needs frames and masks")
    found = tuple(_images(frames, (".jpg", ".jpeg", ".png")))
    if len(found) < 3:
        raise DataError(f"{frames}: expected three frames or more, found {len(found)}")
    known = {path.stem: path for path in _images(masks, (".png",))}
    if missing := [path.name for path in found if path.stem not in known]:
        raise DataError(
            f"{masks}: expected a .png for every frame, none for {', '.join(missing[:5])}"
            f"{' …' if len(missing) > 5 else ''}"
        )
    return Video(name, found, tuple(known[path.stem] for path in found))


def _images(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.suffix.lower() in suffixes)
