"""What a photo's file says of itself, read from its header and its name: no pixel is decoded."""

from __future__ import annotations

import re
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image

from clever_hub.errors import ImageError, MissingExtraError
from clever_hub.images.opening import load_image

_FILTERS = threading.Lock()
_LOSSLESS = {"PNG": (".png",), "BMP": (".bmp", ".dib"), "TIFF": (".tif", ".tiff")}
_LOSSLESS["PPM"] = (".ppm", ".pgm", ".pbm", ".pnm")
_GREY = ("1", "L", "LA", "La", "F")  # and I, I;16 and so on
# What a camera or its owner writes; the orientation alone may be of `clever-hub orient`.
_TELLING = {
    int(ExifTags.Base.Make),
    int(ExifTags.Base.Model),
    int(ExifTags.Base.DateTime),
    int(ExifTags.Base.Artist),
    int(ExifTags.Base.Copyright),
    int(ExifTags.Base.ImageDescription),
    int(ExifTags.IFD.Exif),
    int(ExifTags.IFD.GPSInfo),
}
# "a (1)", "a copy", "a - Copy (2)", "a_copy3", "Copy of a".
_COPY = re.compile(
    r"\(\d{1,3}\)\s*$|(?:^|[\s_-])copy[\s_-]*\d*\s*$|^copy\s+(?:\(\d+\)\s+)?of\s", re.IGNORECASE
)


@dataclass(frozen=True)
class PhotoFile:
    """A photo's file.

    Attributes:
        there: Whether it exists; where it does not, the rest is what its name tells.
        link: Whether it is a link.
        pixels: Width times height; 0 where it cannot be read.
        grey: Whether it is stored without colours.
        lossless: Whether its format keeps every pixel and every colour.
        size: In bytes.
        exif: Whether it has tags of a camera, or of its owner.
        seconds: Time of the last change, in whole seconds since 1970: copies that keep it may lose
            what is finer.
        copy: Whether its name says that it is a copy, such as ``"IMG_1 (1).jpg"``.
    """

    there: bool
    link: bool
    pixels: int
    grey: bool
    lossless: bool
    size: int
    exif: bool
    seconds: int
    copy: bool


def read_photo_file(path: Path) -> PhotoFile:
    """What a photo's file says of itself; no error is raised for what cannot be read.

    Args:
        path: The file, or a link.

    Example:
        >>> found = read_photo_file(Path("/nowhere/a (1).png"))
        >>> found.there, found.lossless, found.copy
        (False, True, True)
    """
    link, copy = path.is_symlink(), _COPY.search(path.stem) is not None
    named = any(path.suffix.lower() in endings for endings in _LOSSLESS.values())
    try:
        state = path.stat()
    except OSError:
        return PhotoFile(False, link, 0, False, named, 0, False, 0, copy)
    rest = state.st_size, int(state.st_mtime)
    try:
        with _FILTERS, _quietly(), Image.open(path) as image:
            pixels, grey = image.width * image.height, _is_grey(image.mode)
            lossless, exif = _is_lossless(path, image), _has_exif(image)
    except (OSError, Image.DecompressionBombError):
        width, height = image_size(path)
        return PhotoFile(True, link, width * height, False, False, rest[0], False, rest[1], copy)
    return PhotoFile(True, link, pixels, grey, lossless, rest[0], exif, rest[1], copy)


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of a photo; zeros where it cannot be read.

    Example:
        >>> image_size(Path("/nowhere/a.jpg"))
        (0, 0)
    """
    try:
        # Only the header is read, of however many pixels. Filters are those of the whole process.
        with _FILTERS, _quietly(), Image.open(path) as image:
            return image.size
    except (OSError, Image.DecompressionBombError):
        pass
    try:
        return load_image(path).size  # a kind that Pillow knows by a plugin of ours
    except (ImageError, MissingExtraError):
        return 0, 0


def file_bytes(path: Path) -> int:
    """The size of a file; 0 where it has gone."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _quietly() -> warnings.catch_warnings[None]:
    """Without Pillow's warnings of large images and of malformed tags."""
    return warnings.catch_warnings(action="ignore")


def _is_grey(mode: str) -> bool:
    return mode in _GREY or mode.startswith("I")


def _is_lossless(path: Path, image: Image.Image) -> bool:
    if image.mode == "P":  # a palette: most colours are lost
        return False
    if image.format == "WEBP":
        with path.open("rb") as file:
            return file.read(16)[12:] == b"VP8L"
    inside = str(image.info.get("compression"))  # of a TIFF, such as "tiff_lzw" or "jpeg"
    return image.format in _LOSSLESS and "jpeg" not in inside and inside != "webp"


def _has_exif(image: Image.Image) -> bool:
    if image.format == "PNG" and "exif" not in image.info:
        return False  # Pillow would decode the photo to look behind its pixels
    try:
        return not _TELLING.isdisjoint(image.getexif())
    except Exception:  # noqa: BLE001 - of struct, of Pillow: whatever a malformed tag leads to
        return False
