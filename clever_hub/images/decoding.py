"""Decode the bytes of an image file into a PIL image."""

from __future__ import annotations

import ctypes
import importlib
import io
import struct
from functools import cache

from PIL import Image, UnidentifiedImageError

from clever_hub.errors import missing_extra

# Only these of Pillow's formats: its EPS reader, for example, runs Ghostscript on the file.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000")
EXTENSIONS = frozenset(
    (
        *(
            ".jpg",
            ".jpeg",
            ".jpe",
            ".jfif",
            ".png",
            ".webp",
            ".bmp",
            ".dib",
            ".gif",
            ".tif",
            ".tiff",
        ),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".mpo", ".avif", ".jp2", ".j2k", ".jpx"),
        *(".heic", ".heif"),
    )
)
# Brands of HEIC files, after "ftyp" (ISO/IEC 23008-12); AVIF has its own.
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def decode(content: bytes, reduce_to: int | None = None) -> Image.Image:
    """Open the bytes of an image file; only the header is read at first.

    Args:
        content: The file.
        reduce_to: Let the JPEG decoder shrink the image, to no less than twice this length of its
            shortest side.

    Returns:
        The image, as Pillow opens it.

    Raises:
        UnidentifiedImageError: When it has none of ``FORMATS``.
        DecompressionBombError: When it has more than twice ``PIL.Image.MAX_IMAGE_PIXELS``.
        MissingExtraError: When it is a HEIC file and the extra ``heic`` is not installed.
    """
    if not content:
        raise ValueError("the file is empty")
    if is_heic(content):
        return _open_heic(content)
    image = _by_format(content)
    _check_size(*image.size)
    if image.format == "TIFF":
        _quiet_libtiff()
    if reduce_to is not None and image.format == "JPEG":
        _shrink_while_decoding(image, reduce_to)
    return image


def _check_size(width: int, height: int) -> None:
    """Refuse what may be a decompression bomb."""
    if width * height > 2 * (Image.MAX_IMAGE_PIXELS or 2**62):
        raise Image.DecompressionBombError(
            f"{width} × {height} pixels, more than twice PIL.Image.MAX_IMAGE_PIXELS"
        )


def is_heic(content: bytes) -> bool:
    """Whether the bytes begin as those of a HEIC file, which Pillow alone cannot read."""
    return content[4:8] == b"ftyp" and content[8:12] in _HEIC


def _by_format(content: bytes) -> Image.Image:
    """As ``Image.open``, without its warning about size: our limit raises an error."""
    Image.init()
    for name in FORMATS:
        if name not in Image.OPEN:
            continue  # Pillow was built without it
        factory, accept = Image.OPEN[name]
        if accept is not None and not isinstance(accepted := accept(content[:16]), str):
            if not accepted:
                continue
            try:
                return factory(io.BytesIO(content), "")
            except (SyntaxError, IndexError, TypeError, struct.error):
                continue  # as Image.open: not of this format after all
    raise UnidentifiedImageError


def _shrink_while_decoding(image: Image.Image, target: int) -> None:
    """Let libjpeg decode 1/8, 1/4 or 1/2 of the size, if that leaves twice the target."""
    for factor in (8, 4, 2):
        if min(image.size) // factor >= 2 * target:
            # Rounded down: asked for 188 of 375 pixels, Pillow would not shrink at all.
            image.draft(image.mode, (image.width // factor, image.height // factor))
            return


def _open_heic(content: bytes) -> Image.Image:
    try:
        import pillow_heif
    except ModuleNotFoundError as error:
        raise missing_extra("pillow_heif", "heic") from error
    opened = pillow_heif.open_heif(content, convert_hdr_to_8bit=True)
    _check_size(*opened.size)
    image: Image.Image = opened.to_pillow()
    return image


@cache
def _quiet_libtiff() -> None:
    """Keep libtiff from writing to stderr; the error that is raised says what is wrong.

    Pillow gives no way to do so. Its library is found through Pillow's own module; where that hides
    it, the messages stay.
    """
    library = ctypes.CDLL(importlib.import_module("PIL._imaging").__file__)
    for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        if hasattr(library, name):
            getattr(library, name)(None)
