"""What a photo's file says of itself, read from its header and its name: no pixel is decoded."""

from __future__ import annotations

import re
import struct
import threading
import warnings
from dataclasses import dataclass

from PIL import ExifTags, Image

from clever_hub.images.decoding import is_heic
from clever_hub.jobs.rows import Photo

_FILTERS = threading.Lock()
_LOSSLESS = {"PNG": (".png",), "BMP": (".bmp", ".dib"), "TIFF": (".tif", ".tiff")}
_LOSSLESS["PPM"] = (".ppm", ".pgm", ".pbm", ".pnm")
_GREY = ("1", "L", "LA", "La", "F")  # and I, I;16 and so on
# What a camera writes. Programs that convert a PNG write some tags, too: the date of the change,
# the number of pixels, the space of colours.
_TELLING = {
    int(ExifTags.Base.Make),
    int(ExifTags.Base.Model),
    int(ExifTags.IFD.GPSInfo),
}
_TELLING_OF_EXPOSURE = {
    int(ExifTags.Base.DateTimeOriginal),
    int(ExifTags.Base.ExposureTime),
    int(ExifTags.Base.FNumber),
    int(ExifTags.Base.ISOSpeedRatings),
    int(ExifTags.Base.FocalLength),
    int(ExifTags.Base.MakerNote),
    int(ExifTags.Base.LensModel),
}
_SIZE = re.compile(rb"\0\0\0\x14ispe\0{4}(.{8})", re.DOTALL)
_HEADER = 2**18  # bytes, which have a HEIC's sizes
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
        exif: Whether it has tags of a camera; None where it cannot be known: of a HEIC without the
            extra ``heic``.
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
    exif: bool | None
    seconds: int
    copy: bool


def read_photo_file(path: Photo) -> PhotoFile:
    """What a photo's file says of itself; no error is raised for what cannot be read.

    Args:
        path: The file, or a link.

    Example:
        >>> from pathlib import Path
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
        with _FILTERS, _quietly(), path.open("rb") as file, Image.open(file) as image:
            pixels, grey = image.width * image.height, _is_grey(image.mode)
            lossless, exif = _is_lossless(path, image), _has_exif(image)
    except (OSError, ValueError, Image.DecompressionBombError):
        (width, height), grey, known = _of_heic(path)
        return PhotoFile(True, link, width * height, grey, False, rest[0], known, rest[1], copy)
    return PhotoFile(True, link, pixels, grey, lossless, rest[0], exif, rest[1], copy)


def image_size(path: Photo) -> tuple[int, int]:
    """Width and height of a photo; zeros where it cannot be read.

    Example:
        >>> from pathlib import Path
        >>> image_size(Path("/nowhere/a.jpg"))
        (0, 0)
    """
    try:
        # Only the header is read, of however many pixels. Filters are those of the whole process.
        with _FILTERS, _quietly(), path.open("rb") as file, Image.open(file) as image:
            return image.size
    except (OSError, ValueError, Image.DecompressionBombError):
        pass
    return _of_heic(path)[0]


def file_bytes(path: Photo) -> int:
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


def _is_lossless(path: Photo, image: Image.Image) -> bool:
    if image.mode == "P":  # a palette: most colours are lost
        return False
    if image.format == "WEBP":
        return _is_lossless_webp(path)
    inside = str(image.info.get("compression"))  # of a TIFF, such as "tiff_lzw" or "jpeg"
    return image.format in _LOSSLESS and "jpeg" not in inside and inside != "webp"


def _has_exif(image: Image.Image) -> bool:
    if image.format == "PNG" and "exif" not in image.info:
        return False  # Pillow would decode the photo to look behind its pixels
    try:
        return _is_of_camera(image.getexif())
    except Exception:  # noqa: BLE001 - of struct, of Pillow: whatever a malformed tag leads to
        return False


def _is_of_camera(tags: Image.Exif) -> bool:
    exposure = tags.get_ifd(ExifTags.IFD.Exif)
    return not (_TELLING.isdisjoint(tags) and _TELLING_OF_EXPOSURE.isdisjoint(exposure))


def _of_heic(path: Photo) -> tuple[tuple[int, int], bool, bool | None]:
    """The size, whether it is grey, and whether it has tags of a camera; zeros of what is no HEIC.

    Without the extra the header tells the size, and the tags are not known.
    """
    nothing = (0, 0), False, False
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER)
    except OSError:
        return nothing
    if not is_heic(header):
        return nothing
    try:
        import pillow_heif
    except ModuleNotFoundError:
        return _largest_size(header), False, None
    try:
        with path.open("rb") as file:
            heic = pillow_heif.open_heif(file.read())
        tags = Image.Exif()
        tags.load(heic.info.get("exif") or b"")
        return heic.size, _is_grey(heic.mode), _is_of_camera(tags)
    except Exception:  # noqa: BLE001 - of libheif, of struct: whatever a malformed file leads to
        return nothing


def _largest_size(header: bytes) -> tuple[int, int]:
    """Of the sizes in a HEIC's header (boxes "ispe"): others are of tiles and of previews."""
    sizes = [struct.unpack(">II", found[1]) for found in _SIZE.finditer(header)]
    return max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))


def _is_lossless_webp(path: Photo) -> bool:
    """Whether its first picture is: it may stand behind a profile, or in a frame of several."""
    with path.open("rb") as file:
        file.seek(12)
        while len(head := file.read(8)) == 8:  # a chunk's name and length
            name, length = head[:4], int.from_bytes(head[4:], "little")
            if name in (b"VP8L", b"VP8 "):
                return name == b"VP8L"
            # Of a frame only the place and size are passed over, so that its chunks follow.
            file.seek(16 if name == b"ANMF" else length + length % 2, 1)
    return False
