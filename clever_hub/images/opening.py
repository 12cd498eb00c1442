"""Open images of any kind as upright 8-bit RGB."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack, cast
from urllib.parse import unquote_to_bytes, urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from clever_hub.errors import ConfigError, ImageError, MissingExtraError
from clever_hub.images.colors import to_rgb
from clever_hub.images.decoding import FORMATS, decode
from clever_hub.images.options import LoadKeywords, LoadOptions

if TYPE_CHECKING:
    from typing import BinaryIO

    import torch

ImageSource: TypeAlias = (
    "str | os.PathLike[str] | bytes | BinaryIO | Image.Image | NDArray[np.uint8] | torch.Tensor"
)

# EXIF 2.32, table 4: the transpose that makes an image of each orientation upright.
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
_EXPECTED = "a path, bytes, an open binary file, a PIL image or a uint8 array (height, width, 3)"
# Pillow decodes an image from disk at its first use, which two threads must not do at once.
_LAZY_DECODING = threading.Lock()


def _unlock() -> None:
    """In a forked child, where the thread that held the lock does not exist."""
    global _LAZY_DECODING  # noqa: PLW0603  # to release the old one is not safe after a fork
    _LAZY_DECODING = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)


def load_image(
    source: ImageSource, *, target: int | None = None, **options: Unpack[LoadKeywords]
) -> Image.Image:
    """Open an image as RGB.

    Cameras' EXIF orientation is applied. Gray, palette, CMYK and transparent images become RGB as
    Pillow converts them, which ignores colour profiles and drops transparency, unless ``options``
    say otherwise. 16-bit grayscale is scaled down, 65535 to 255; Pillow itself would clip values
    above 255. The first frame of an animation is used.

    Args:
        source: A path or ``file://`` address, the bytes of an image file, a file that is open for
            reading bytes, a PIL image, or a uint8 array or torch tensor of shape (height, width),
            (height, width, 1), (height, width, 3) in the order red green blue, or
            (height, width, 4) with transparency. It is not changed.
        target: Length of the shortest side that the caller resizes to, in pixels; for
            ``decode="reduced"`` only.
        **options: ``color_management``, ``background``, ``layout`` and ``decode``, as
            ``LoadOptions`` describes them.

    Returns:
        A new image of mode RGB.

    Raises:
        ImageError: When it is missing, empty, truncated, not an image, not a regular file, an array
            of another dtype or shape, or so large that it may be a decompression bomb (the limit is
            twice ``PIL.Image.MAX_IMAGE_PIXELS``). The error names the source.
        MissingExtraError: When it is a HEIC file and the extra ``heic`` is not installed; names it.
        ConfigError: When an option has a wrong value.

    Example:
        >>> import numpy as np
        >>> load_image(np.zeros((4, 6, 3), dtype=np.uint8)).size
        (6, 4)
    """
    return _load(source, LoadOptions(**options), target)


def open_image(source: ImageSource, options: LoadOptions, target: int | None) -> Image.Image:
    """``load_image`` with its options in one object; errors about the image still name its source.

    Not for callers of ``load_image``: ``datasets`` would store an image that has a file name as the
    path alone, without its pixels.
    """
    image = _load(source, options, target)
    image.filename = describe(source)  # type: ignore[attr-defined] # as Image.open sets it
    return image


def _load(source: ImageSource, options: LoadOptions, target: int | None) -> Image.Image:
    try:
        reduce_to = target if options.decode == "reduced" else None
        return to_rgb(_open(source, options.layout, reduce_to), options)
    except MissingExtraError as error:
        raise MissingExtraError(f"{describe(source)}: {error}", name=error.name) from error
    except Exception as error:
        # What a broken file makes Pillow raise depends on where it is broken: OSError,
        # SyntaxError, struct.error, ValueError, IndexError … all mean that it cannot be read.
        raise ImageError(describe(source), _reason(error)) from error


def as_list(images: ImageSource | Iterable[ImageSource]) -> Iterable[ImageSource]:
    """Wrap a single image in a list; return an iterable of images unchanged.

    Args:
        images: Anything that ``load_image`` takes, or an iterable of it. An open file counts as one
            image.

    Returns:
        The images.

    Raises:
        ConfigError: When it is neither.

    Example:
        >>> as_list("a.jpg"), as_list(("a.jpg", "b.jpg"))
        (['a.jpg'], ('a.jpg', 'b.jpg'))
    """
    if isinstance(images, np.ndarray) or _is_tensor(images):
        one = images.ndim in (2, 3)  # type: ignore[union-attr] # four dimensions are a batch
    else:
        kinds = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)
        one = isinstance(images, kinds) or hasattr(images, "read")
    if not one and (not isinstance(images, Iterable) or getattr(images, "ndim", 1) == 0):
        raise ConfigError(f"images: expected {_EXPECTED}, or several; got {describe(images)}")
    return cast("Iterable[ImageSource]", [images] if one else images)


def describe(source: object) -> str:
    """A short name of an image for messages: its path, or its type and size.

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
    if isinstance(source, np.ndarray) or _is_tensor(source):
        kind = "array" if isinstance(source, np.ndarray) else "tensor"
        array = cast("Any", source)
        return f"<{kind} {str(array.dtype).removeprefix('torch.')} {tuple(array.shape)}>"
    if hasattr(source, "read") and isinstance(name := getattr(source, "name", None), str):
        return name
    return f"<{type(source).__name__}>"


def _open(source: object, layout: str, reduce_to: int | None) -> Image.Image:
    if isinstance(source, (str, os.PathLike)) and not hasattr(source, "read"):
        # Read at once: no file stays open, and a writer cannot change it while it is decoded.
        return _open(read_file(os.fspath(source)), layout, reduce_to)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _upright(decode(bytes(source), reduce_to))
    if isinstance(source, Image.Image):
        with _LAZY_DECODING:
            return _upright(source)
    if _is_tensor(source):
        source = cast("Any", source).detach().cpu().numpy()
    if isinstance(source, np.ndarray):
        return _from_array(source, layout)
    if hasattr(source, "read"):
        content = source.read()
        if not isinstance(content, bytes):
            raise ValueError(f"expected a file opened for bytes, mode 'rb', got {describe(source)}")
        if not content and (place := _place(source)):
            raise ValueError(f"at its end (byte {place}), nothing to read: rewind it, seek(0)")
        return _open(content, layout, reduce_to)
    raise ValueError(f"expected {_EXPECTED}")


def _place(file: Any) -> int:
    """Where an open file is read from; 0 where it does not say, as a pipe."""
    try:
        return int(file.tell())
    except (AttributeError, OSError, TypeError, ValueError):
        return 0


def read_file(path: str) -> bytes:
    """The content of a regular file; a pipe would wait for a writer that never comes.

    Args:
        path: The file, or a ``file://`` address.

    Raises:
        OSError: When it cannot be read.
        ValueError: When it is no regular file, or an address of the network.
    """
    start = path[:8].lower()  # a file may be called "file:a.jpg"
    if start.startswith("file:/"):
        path = os.fsdecode(unquote_to_bytes(os.fsencode(urlsplit(path).path)))
    elif start.startswith(("http://", "https://")):
        raise ValueError(
            "nothing is fetched from the network here; fetch it first, such as "
            "urllib.request.urlopen(address).read(), and give the bytes"
        )
    mode = Path(path).stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise ValueError("expected a regular file, got a pipe, a socket or a device")
    return Path(path).read_bytes()


def _is_tensor(value: object) -> bool:
    """Whether it is a torch tensor; torch itself is not needed to know."""
    modules = (kind.__module__ for kind in type(value).__mro__)  # torchvision has tensors, too
    return hasattr(value, "detach") and any(name.partition(".")[0] == "torch" for name in modules)


def _upright(image: Image.Image) -> Image.Image:
    """A copy, rotated as its EXIF orientation says.

    Pillow's ``exif_transpose`` is not used: it rewrites every tag and fails on malformed ones.
    """
    image.load()  # Pillow itself rotates a TIFF, when it loads the pixels
    turn = _UPRIGHT.get(_orientation(image))
    if turn is None:
        return image.copy()
    upright = image.transpose(turn)
    for place in _ORIENTATION_PLACES:  # else the next reader would rotate it again
        upright.info.pop(place, None)
    return upright


def _orientation(image: Image.Image) -> Any:
    """The EXIF orientation; 1 where the tags are malformed, which hurts no pixel."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - of struct, of Pillow: whatever a malformed tag leads to
        return 1


def _from_array(array: NDArray[np.generic], layout: str) -> Image.Image:
    given = array
    if layout == "chw" and array.ndim == 3:
        array = np.ascontiguousarray(array.transpose(1, 2, 0))
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in (1, 3, 4):
        hint = "; multiply values in [0, 1] by 255 first" if array.dtype.kind == "f" else ""
        if given.ndim == 3 and given.dtype == np.uint8:
            if layout == "chw" and given.shape[2] in (1, 3, 4):
                hint = '; of shape (height, width, 3)? leave out layout="chw"'
            elif layout != "chw" and given.shape[0] in (1, 3, 4):
                hint = '; of shape (3, height, width)? give layout="chw"'
        shape = "(3, height, width)" if layout == "chw" else "(height, width, 3)"
        raise ValueError(f"expected uint8 of shape {shape}{hint}")
    return Image.fromarray(array[:, :, 0] if array.ndim == 3 and channels == 1 else array)


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
