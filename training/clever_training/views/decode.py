"""Photos that are decoded late: first only their size, then as many pixels as the views need."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

from clever_hub.images.opening import load_image

Image = NDArray[np.uint8]
_SHRINKS = (8, 4, 2)
_REDUCED = {
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_EXIF = 0xE1
_ORIENTATION = 0x0112
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive JPEG
_END_OF_JPEG = b"\xff\xd9"


class EncodedPhoto:
    """A photo as the bytes of its file.

    OpenCV decodes complete, upright JPEGs in grey or colour, at a half, a quarter or an eighth of
    their size where that is enough; libjpeg then skips the fine detail. Every other photo is read
    by ``clever_hub.load_image``, which handles orientation, bit depth and damaged files. At full
    size both give the same pixels.

    Args:
        source: The bytes of an image file, or its path.

    Attributes:
        size: (width, height) in pixels, upright.

    Raises:
        ImageError: When it cannot be read; names the source.
    """

    def __init__(self, source: bytes | str) -> None:
        self._source = source
        self._jpeg: bytes | None = None
        self._image: Image | None = None
        size = self._read_header()
        if size is None:
            self._image = np.asarray(load_image(source), dtype=np.uint8)
            size = self._image.shape[1], self._image.shape[0]
        self.size: tuple[int, int] = size

    def decode(self, shrink: int = 1) -> Image:
        """The pixels.

        Args:
            shrink: 1, 2, 4 or 8: factor by which each side may be smaller. Only JPEGs are shrunk.

        Returns:
            uint8 (height, width, 3), RGB; the sides of a shrunk photo are rounded up.

        Raises:
            ImageError: When the file is damaged.

        Example:
            >>> import io
            >>> file = io.BytesIO()
            >>> PilImage.new("RGB", (70, 50)).save(file, "JPEG")
            >>> photo = EncodedPhoto(file.getvalue())
            >>> photo.size, photo.decode().shape, photo.decode(4).shape
            ((70, 50), (50, 70, 3), (13, 18, 3))
        """
        if self._jpeg is not None:
            flags = _REDUCED.get(shrink, cv2.IMREAD_COLOR_RGB)
            pixels: Any = cv2.imdecode(np.frombuffer(self._jpeg, np.uint8), flags)
            if pixels is not None:
                # OpenCV supports reduced decoding in BGR only.
                return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if shrink > 1 else pixels  # type: ignore[no-any-return]
        if self._image is None:
            self._image = np.asarray(load_image(self._source), dtype=np.uint8)
        return self._image

    def _read_header(self) -> tuple[int, int] | None:
        """The size of a JPEG that OpenCV and Pillow read alike; None for any other file."""
        try:
            source = self._source
            content = source if isinstance(source, bytes) else Path(source).read_bytes()
        except OSError:
            return None  # load_image says what is wrong
        size = jpeg_size(content)
        if size is not None:
            self._jpeg = content
        return size


def jpeg_size(content: bytes) -> tuple[int, int] | None:
    """The size of a complete, upright JPEG in grey or colour, from its header.

    Args:
        content: The bytes of a file.

    Returns:
        (width, height); None for any other file, and when the header does not tell.
    """
    # OpenCV fills the missing part of a truncated file with grey; Pillow raises an error.
    if content[:2] != b"\xff\xd8" or not content.rstrip(b"\0").endswith(_END_OF_JPEG):
        return None
    place = 2
    while place + 10 <= len(content) and content[place] == 0xFF:
        marker, length = content[place + 1], int.from_bytes(content[place + 2 : place + 4])
        if marker == _EXIF and content[place + 4 : place + 8] == b"Exif" and _turned(content):
            return None
        if marker in _FRAMES:
            _, height, width, channels = struct.unpack_from(">BHHB", content, place + 4)
            plain = content[place + 4] == 8 and channels in (1, 3) and width and height
            return (width, height) if plain else None
        place += 2 + length
    return None


def _turned(content: bytes) -> bool:
    """Whether the EXIF orientation is not upright, or cannot be read."""
    try:
        with PilImage.open(io.BytesIO(content), formats=("JPEG",)) as image:
            return bool(image.getexif().get(_ORIENTATION, 1) != 1)
    except Exception:  # noqa: BLE001 - whatever is wrong with it, load_image says what
        return True


def shrink_for(scale: float) -> int:
    """The factor by which a photo may be shrunk when it is decoded.

    Args:
        scale: Pixels of the photo per pixel of a view, the minimum over views and axes, so that
            every view keeps the detail that it needs.

    Returns:
        8, 4, 2 or 1.

    Example:
        >>> shrink_for(1.9), shrink_for(2.0), shrink_for(5.5)
        (1, 2, 4)
    """
    return next((shrink for shrink in _SHRINKS if shrink <= scale), 1)
