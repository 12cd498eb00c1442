"""Which photo of a group of copies is its best, and why: the one that the others were made of.

The number of pixels says most, but many copies have as many: a photo that was downloaded twice,
sent by a messenger, or turned grey. Of these the file tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clever_hub.jobs.duplicates import Verdict
from clever_hub.jobs.pairs import Pairs
from clever_hub.jobs.photo_files import PhotoFile, read_photo_file
from clever_hub.jobs.rows import Photo

_LEAST_CORNERS = 0.01  # share of a photo
_LEAST_TURN = 1.0  # degrees from a quarter turn, which leaves no corner empty
_PREVIEW = 4  # so many times fewer pixels: no larger photo was made of it

_TAGS = "with a camera's EXIF tags"
_UNREAD = 'a HEIC, whose EXIF tags only the extra "heic" reads'
# Why a photo is better than another, at each field of ``Standing``.
_WHY = (
    "its file is there",
    "a photo, no link",
    "not turned into empty corners",
    "the most pixels",
    "in colour",
    _TAGS,
    "a lossless format",
    "the largest file",
    "the oldest file",
    "its name is no copy's",
)


class Standing(NamedTuple):
    """How a photo stands among its copies. Of two, the smaller is better at the first difference.

    Attributes:
        gone: Whether its file is not there.
        link: Whether it is a link: as the best it would stay, and what it leads to be moved away.
        corners: Whether it is known to be turned, with corners left empty.
        pixels: Width times height, negative.
        grey: Whether it has no colours.
        bare: Whether it is known to have no tags of a camera: what was saved from a photo often
            has none, be it lossless.
        lossy: Whether its format is lossy.
        size: Bytes, negative.
        seconds: Time of the file's last change.
        copy: Whether its name says that it is a copy.
    """

    gone: bool
    link: bool
    corners: bool
    pixels: int
    grey: bool
    bare: bool
    lossy: bool
    size: int
    seconds: int
    copy: bool


class BestPhotos:
    """Ranks photos by their files, and by what a verification has seen of them.

    Attributes:
        standings: How each photo stands.

    Example:
        >>> ranking = BestPhotos([Path("a (1).jpg"), Path("a.jpg")])
        >>> ranking.rank.tolist(), ranking.why([1, 0])
        ([1, 0], "its name is no copy's")
    """

    def __init__(self, paths: Sequence[str | Photo]) -> None:
        """Read the files' headers.

        Args:
            paths: Where each row's photo is; of one that has gone, its name tells what it can.
        """
        files = [read_photo_file(Path(path) if isinstance(path, str) else path) for path in paths]
        self.standings = [_standing(file) for file in files]
        self._unread = {row for row, file in enumerate(files) if file.exif is None}

    @property
    def rank(self) -> NDArray[np.int64]:
        """int64 (N,), lower is better; equal where nothing tells two photos apart."""
        places = {one: place for place, one in enumerate(sorted(set(self.standings)))}
        return np.array([places[one] for one in self.standings], np.int64)

    def look(self, pairs: Pairs, verdicts: Sequence[Verdict]) -> None:
        """Take in what a verification saw: who is grey, and who was turned into empty corners.

        Args:
            pairs: Pairs of copies.
            verdicts: One for each, or none; such as ``clever_hub.jobs.alignment.Alignment``.
        """
        for a, b, verdict in zip(pairs.a.tolist(), pairs.b.tolist(), verdicts, strict=False):
            grey = getattr(verdict, "grey", (False, False))
            turned = self._turned(a, b, verdict)
            for row, is_grey, is_turned in zip((a, b), grey, turned, strict=True):
                known = self.standings[row]
                self.standings[row] = known._replace(
                    grey=known.grey or is_grey, corners=known.corners or is_turned
                )

    def why(self, group: Sequence[int]) -> str:
        """Why the first photo of a group is its best, in words.

        Args:
            group: Rows of at least two photos, the best first.
        """
        best, second = (self.standings[row] for row in group[:2])
        better = (
            words for words, one, other in zip(_WHY, best, second, strict=True) if one < other
        )
        words = next(better, "the first")
        return _UNREAD if words == _TAGS and group[0] in self._unread else words

    def _turned(self, a: int, b: int, verdict: Verdict) -> tuple[bool, bool]:
        """Which of the two is the other one turned, with its corners empty."""
        angle = getattr(verdict, "angle", None) or 0.0
        if abs((angle + 45) % 90 - 45) < _LEAST_TURN:
            return False, False
        first, second = (
            share >= _LEAST_CORNERS for share in getattr(verdict, "corners", (0.0, 0.0))
        )
        pixels = [-self.standings[row].pixels for row in (a, b)]
        # Both: a plain background tells neither from the other.
        return (
            first and not second and pixels[0] <= _PREVIEW * pixels[1],
            second and not first and pixels[1] <= _PREVIEW * pixels[0],
        )


def _standing(file: PhotoFile) -> Standing:
    return Standing(
        gone=not file.there,
        link=file.link,
        corners=False,
        pixels=-file.pixels,
        grey=file.grey,
        bare=file.exif is False,
        lossy=not file.lossless,
        size=-file.size,
        seconds=file.seconds,
        copy=file.copy,
    )
