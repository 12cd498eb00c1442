"""Opening images of every kind, so that each comes out as 8-bit RGB, upright."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from clever_hub.errors import ImageError

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8]"

# EXIF 2.32, table 4: what brings an image of each orientation upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_ORIENTATION_PLACES = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
# A list rather than all that Pillow knows: its EPS reader, for one, starts Ghostscript on the file.
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
    )
)
# Pillow decodes an image from disk at its first use, which two threads must not do at once.
_LAZY_DECODING = threading.Lock()


def load_image(source: ImageSource) -> Image.Image:
    """Open an image as RGB.

    Cameras' EXIF orientation is applied. Gray, palette, CMYK and transparent images become RGB as
    Pillow converts them, which drops transparency. 16-bit grayscale is scaled down, 65535 to 255;
    Pillow itself would cut everything above 255 off. Of an animation, the first frame is taken.

    Args:
        source: A path, the bytes of an image file, a PIL image, or a uint8 array of shape
            (height, width), (height, width, 1), (height, width, 3) in the order red green blue, or
            (height, width, 4) with transparency. It is left as it was.

    Returns:
        A new image of mode RGB.

    Raises:
        ImageError: When it is missing, empty, truncated, no image, so large that it may be a
            decompression bomb (the limit is twice ``PIL.Image.MAX_IMAGE_PIXELS``), or an array of
            another dtype or shape. The error names the source.

    Example:
        >>> import numpy as np
        >>> load_image(np.zeros((4, 6, 3), dtype=np.uint8)).size
        (6, 4)
    """
    try:
        return _to_rgb(_open(source))
    except Exception as error:
        # What a broken file makes Pillow raise depends on where it is broken: OSError,
        # SyntaxError, struct.error, ValueError, IndexError … all mean that it cannot be read.
        raise ImageError(describe(source), _reason(error)) from error


def as_list(images: ImageSource | Iterable[ImageSource]) -> Iterable[ImageSource]:
    """One image as a list of it; several as they are.

    Args:
        images: Anything that ``load_image`` takes, or an iterable of it. An open file counts as one
            image, for ``load_image`` to refuse: its lines are none.

    Returns:
        The images.

    Example:
        >>> as_list("a.jpg"), as_list(("a.jpg", "b.jpg"))
        (['a.jpg'], ('a.jpg', 'b.jpg'))
    """
    if isinstance(images, np.ndarray):
        one = images.ndim in (2, 3)  # (height, width[, channels]); four dimensions are a batch
    else:
        kinds = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)
        one = isinstance(images, kinds) or hasattr(images, "read")
    return cast("Iterable[ImageSource]", [images] if one else images)


def describe(source: object) -> str:
    """A short name of an image for messages: its path, or what kind of thing it is.

    Example:
        >>> describe("photos/a.jpg"), describe(b"1234")
        ('photos/a.jpg', '<4 bytes>')
    """
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    if isinstance(source, Image.Image):
        filename = getattr(source, "filename", "")
        return str(filename) if filename else f"<PIL image {source.mode} {source.size}>"
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"<{len(source)} bytes>"
    if isinstance(source, np.ndarray):
        return f"<array {source.dtype} {source.shape}>"
    return f"<{type(source).__name__}>"


def _open(source: object) -> Image.Image:
    if isinstance(source, (str, os.PathLike)):
        # Read whole: nothing stays open, and the file is not decoded from under a writer.
        return _open(Path(source).read_bytes())
    if isinstance(source, (bytes, bytearray, memoryview)):
        if not source:
            raise ValueError("the file is empty")
        return _upright(Image.open(io.BytesIO(source), formats=FORMATS))
    if isinstance(source, Image.Image):
        with _LAZY_DECODING:
            return _upright(source)
    if isinstance(source, np.ndarray):
        return _from_array(source)
    hint = "; read the file first: its read() gives bytes" if hasattr(source, "read") else ""
    raise ValueError(
        f"expected a path, bytes, a PIL image or a uint8 array (height, width, 3){hint}"
    )


def _upright(image: Image.Image) -> Image.Image:
    """A copy, turned as EXIF says.

    Pillow's ``exif_transpose`` then writes every tag anew, and fails on any that is ill-typed.
    """
    image.load()  # Pillow turns a TIFF itself, no sooner than here
    turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    if turn is None:
        return image.copy()
    upright = image.transpose(turn)
    for place in _ORIENTATION_PLACES:  # or the next reader would turn it once more
        upright.info.pop(place, None)
    return upright


def _from_array(array: NDArray[np.generic]) -> Image.Image:
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in (1, 3, 4):
        hint = "; multiply values in [0, 1] by 255 first" if array.dtype.kind == "f" else ""
        raise ValueError(f"expected uint8 of shape (height, width, 3){hint}")
    return Image.fromarray(array[:, :, 0] if array.ndim == 3 and channels == 1 else array)


def _to_rgb(image: Image.Image) -> Image.Image:
    if 0 in image.size:
        raise ValueError("the image has no pixels")
    if image.mode == "F":
        raise ValueError("floating point pixels have no agreed range; save it as 8 or 16 bit")
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _to_8_bit(image)
    if "transparency" in image.info and image.mode == "P":
        image = image.convert("RGBA")  # straight to RGB, Pillow warns
    return image.convert("RGB")


def _to_8_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    low, high = values.min(), values.max()
    if low < 0 or high > 65_535:
        raise ValueError(f"expected 16-bit values, 0 to 65535, got {low} to {high}")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))  # rounded, 65535 → 255


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, IsADirectoryError):
        return "expected an image file, got a folder"
    if isinstance(error, UnidentifiedImageError):
        return f"not an image of a known format ({', '.join(FORMATS)})"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"too large, it may be a decompression bomb: {error}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"cannot be read: {str(error) or type(error).__name__}"
