"""From what a request calls an image to the network's input, within limits; runs in threads."""

from __future__ import annotations

import binascii
import io
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clever_hub.errors import ImageError, MissingExtraError, require
from clever_hub.images.decoding import FORMATS, is_heic
from clever_hub.images.preparing import Preprocessor
from clever_hub.jobs.keypoints import Keypoints
from clever_hub.jobs.pixels import keypoints_as_seen
from clever_hub.serve.errors import ApiError
from clever_hub.serve.schemas import NoPicture, Picture
from clever_hub.serve.settings import Settings

T = TypeVar("T")

# Pillow holds about nine bytes a pixel while it decodes and converts. Images above this take turns,
# so that memory is bounded by one large image and not by one for each thread.
_LARGE_PIXELS = 16_000_000
_ONE_LARGE = threading.Lock()


@dataclass(frozen=True)
class PictureReader:
    """Reads one image of a request.

    Attributes:
        preprocessor: The model's.
        settings: The limits.
    """

    preprocessor: Preprocessor
    settings: Settings

    def __call__(self, picture: Picture, param: str) -> NDArray[np.float32]:
        """Decode and prepare an image.

        Args:
            picture: The bytes of a file, base64 of them, a data URI, or what is none of these.
            param: What to call it in an error.

        Returns:
            float32 (3, crop_size, crop_size).

        Raises:
            ApiError: 400 for what is no image, 413 for what is too large.
        """
        return self._read(picture, param, self.preprocessor)

    def keypoints(self, picture: Picture, param: str) -> Keypoints:
        """Decode an image and find the keypoints of its middle square, which the model sees.

        Args:
            picture: As for calling it.
            param: What to call it in an error.

        Returns:
            The keypoints.

        Raises:
            ApiError: As for calling it.
        """
        find = partial(keypoints_as_seen, preprocessing=self.preprocessor.config)
        return self._read(picture, param, find)

    def _read(self, picture: Picture, param: str, read: Callable[[bytes], T]) -> T:
        content = self._content(picture, param)
        if len(content) > self.settings.max_image_bytes:
            raise _too_large(param, f"{self.settings.max_image_bytes:,} bytes", f"{len(content):,}")
        try:
            pixels = _pixels(content)
            if pixels > self.settings.max_pixels:
                raise _too_large(param, f"{self.settings.max_pixels:,} pixels", f"{pixels:,}")
            if pixels <= _LARGE_PIXELS:
                return read(content)
            with _ONE_LARGE:
                return read(content)
        except MissingExtraError as error:
            message = f"{param}: this server reads no HEIC files. Send JPEG, or install it: {error}"
            raise ApiError(400, "unsupported_format", message, param=param) from error
        except Image.DecompressionBombError as error:
            raise _too_large(param, f"{self.settings.max_pixels:,} pixels", "far more") from error
        except ImageError as error:
            raise ApiError(400, "invalid_image", f"{param}: {error.reason}", param=param) from error

    def _content(self, picture: Picture, param: str) -> bytes:
        if isinstance(picture, bytes):
            return picture
        if isinstance(picture, NoPicture):
            raise _not_base64(param, f"base64, a data URI or a file, got {picture.shown}")
        if is_url(picture):
            raise ApiError(
                400,
                "urls_not_allowed",
                f"{param}: this server fetches no addresses. Send the image itself, or start it "
                "with --allow-urls",
                param=param,
            )
        encoded = picture
        if picture[:5].lower() == "data:":
            kind, comma, encoded = picture.partition(",")
            if not comma or not kind.lower().endswith(";base64"):
                raise _not_base64(param, "a data URI such as data:image/jpeg;base64,…")
        try:
            # Four characters are three bytes; what is too large is not even decoded.
            if len(encoded) > self.settings.max_image_bytes * 4 // 3 + 1_000:
                size = f"about {len(encoded) * 3 // 4:,}"
                raise _too_large(param, f"{self.settings.max_image_bytes:,} bytes", size)
            return _decoded(encoded)
        except ValueError as error:
            raise _not_base64(param, "base64 of an image file, or a data URI") from error


def _decoded(encoded: str) -> bytes:
    """Strict, but for line breaks, which encoders of e-mail put in."""
    try:
        return binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError:
        return binascii.a2b_base64("".join(encoded.split()), strict_mode=True)


def is_url(picture: Picture) -> bool:
    """Whether it is an address to fetch the image from.

    Example:
        >>> is_url("https://example.org/a.jpg"), is_url("data:image/png;base64,aGk="), is_url(b"")
        (True, False, False)
    """
    return isinstance(picture, str) and picture[:8].lower().startswith(("http://", "https://"))


def _pixels(content: bytes) -> int:
    """Width times height by the header; 0 where it cannot be read, which the decoder will say."""
    try:
        if is_heic(content):
            width, height = require("pillow_heif", "heic").open_heif(content).size
            return int(width * height)
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return image.width * image.height
    except (Image.DecompressionBombError, MissingExtraError):
        raise
    except Exception:  # noqa: BLE001  # whatever it is, the decoder meets it again and names it
        return 0


def _too_large(param: str, most: str, got: str) -> ApiError:
    return ApiError(
        413, "image_too_large", f"{param}: expected at most {most}, got {got}", param=param
    )


def _not_base64(param: str, expected: str) -> ApiError:
    return ApiError(400, "invalid_image", f"{param}: expected {expected}", param=param)
