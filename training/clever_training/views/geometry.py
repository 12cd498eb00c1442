"""Crop, flip, rotation and elastic distortion in one resampling per view.

Together they say which point of the photo each pixel of the view shows. That point is read by
linear interpolation in a copy of the photo with little more detail than the view can show: halved
as often as necessary, and softened. Copies are made when they are first needed, and the photo's
views share them. A view that is only cropped and flipped is resized from the photo as Pillow does.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from clever_training.views.decode import Image
from clever_training.views.elastic import elastic_field
from clever_training.views.parameters import ViewParameters

# A photo of at most this many pixels is averaged down for each crop and read by bicubic
# interpolation. Copies are not faster here, and older runs on such photos resume bit for bit.
SMALL_PHOTO = 128 * 128
# Chosen for the smallest difference from crops that are resized by Pillow and then rotated.
_SOFTEN = np.array([0.14, 0.72, 0.14])

Box = tuple[float, float, float, float]  # left, top, right, bottom
Level = tuple[Image, float, float]  # a copy of the photo, and its share of the photo's sides


class Geometry:
    """Resamples views of one photo.

    Args:
        image: uint8 (height, width, 3), RGB, possibly reduced.
        size: (width, height) of the whole photo; boxes are rounded to its pixels.
        context: Whether a rotation or a distortion shows the photo outside the crop, mirrored
            beyond the photo's edges, instead of black.
    """

    def __init__(self, image: Image, size: tuple[int, int], *, context: bool = False) -> None:
        self.width, self.height = size
        self.context = context
        # The last pixel of a reduced photo may cover a smaller area than the others.
        reduced = round(self.width / image.shape[1])
        self._photo = (image, 1 / reduced, 1 / reduced)
        self._copies: dict[tuple[int, bool], Image] = {}

    def __call__(self, view: ViewParameters, size: int) -> Image:
        """One view before its colours are changed.

        Args:
            view: The parameters.
            size: Side of the view, in pixels.

        Returns:
            uint8 (size, size, 3).
        """
        box = self._box(view)
        bent = view.angle != 0.0 or view.elastic_alpha != 0.0
        if self.width * self.height <= SMALL_PHOTO and not (bent and self.context):
            return self._small(view, size, box, bent=bent)
        if not bent:
            crop = resize(_cut(self._photo, box)[0], size, size)
            return _mirrored(crop) if view.flip else crop
        scale = min(box[2] - box[0], box[3] - box[1]) / size
        level = self._level(scale)
        source, (left, top) = (level[0], (0, 0)) if self.context else _cut(level, box)
        fx, fy = level[1:]
        place = (box[0] * fx - left, box[1] * fy - top, box[2] * fx - left, box[3] * fy - top)
        kernel = cv2.INTER_LINEAR if scale >= 1 else cv2.INTER_CUBIC
        warped = self._warp(source, view, size, place, kernel)
        return np.asarray(cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB), dtype=np.uint8)

    def _box(self, view: ViewParameters) -> Box:
        """The crop in whole pixels of the photo."""
        left, top, width, height = view.box
        x, y = round(left * self.width), round(top * self.height)
        right = min(self.width, max(x + 1, round((left + width) * self.width)))
        bottom = min(self.height, max(y + 1, round((top + height) * self.height)))
        return float(x), float(y), float(right), float(bottom)

    def _level(self, scale: float) -> Level:
        """The copy of the photo from which a view is read.

        It is halved until a pixel of the view covers less than two of its pixels. Where it covers
        more than √2, the copy is softened, which removes the detail that would alias.

        Args:
            scale: Pixels of the photo per pixel of the view.

        Returns:
            uint8 (height, width, 4), RGBA, which OpenCV warps almost twice as fast as RGB; and its
            size relative to the photo in x and y.
        """
        image, fx, fy = self._photo
        scale *= fx
        halvings = max(0, math.floor(math.log2(scale)))
        copy = self._copy(halvings, soft=scale >= 2 ** (halvings + 0.5))
        return copy, fx * copy.shape[1] / image.shape[1], fy * copy.shape[0] / image.shape[0]

    def _copy(self, halvings: int, *, soft: bool) -> Image:
        key = halvings, soft
        if key not in self._copies:
            made: Any
            if soft:
                made = self._copy(halvings, soft=False)
                made = cv2.sepFilter2D(made, -1, _SOFTEN, _SOFTEN)
            elif halvings:
                made = self._copy(halvings - 1, soft=False)
                height, width = made.shape[0] // 2, made.shape[1] // 2
                even = made[: 2 * height, : 2 * width]
                made = cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA)
            else:
                made = cv2.cvtColor(self._photo[0], cv2.COLOR_RGB2RGBA)
            self._copies[key] = np.asarray(made, dtype=np.uint8)
        return self._copies[key]

    def _small(self, view: ViewParameters, size: int, box: Box, *, bent: bool) -> Image:
        crop: Any = _cut(self._photo, box)[0]
        shrunk = (min(crop.shape[1], size), min(crop.shape[0], size))
        if shrunk != (crop.shape[1], crop.shape[0]):
            crop = cv2.resize(crop, shrunk, interpolation=cv2.INTER_AREA)
        if bent:
            place = (0.0, 0.0, float(shrunk[0]), float(shrunk[1]))
            return self._warp(crop, view, size, place, cv2.INTER_CUBIC)
        if crop.shape[:2] != (size, size):
            crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_CUBIC)
        return _mirrored(crop) if view.flip else np.ascontiguousarray(crop)

    def _warp(self, source: Image, view: ViewParameters, size: int, box: Box, kernel: int) -> Image:
        matrix = _view_to_source(view, size, box)
        border = cv2.BORDER_CONSTANT
        if self.context:
            # OpenCV's cubic warp never ends where it reflects a single row or column.
            single = min(source.shape[:2]) == 1
            border = cv2.BORDER_REPLICATE if single else cv2.BORDER_REFLECT_101
        if view.elastic_alpha == 0.0:
            flags = kernel | cv2.WARP_INVERSE_MAP
            result = cv2.warpAffine(source, matrix, (size, size), flags=flags, borderMode=border)
        else:
            field = elastic_field(view.elastic_alpha, view.elastic_sigma, view.elastic_seed, size)
            places = cv2.transform(cv2.add(field, _grid(size), dst=field), matrix)
            no_second: Any = None
            result = cv2.remap(source, places, no_second, kernel, borderMode=border)
        return np.asarray(result, dtype=np.uint8)


def _mirrored(image: Image) -> Image:
    return np.asarray(cv2.flip(image, 1), dtype=np.uint8)


def resize(image: Image, width: int, height: int) -> Image:
    """Resize as Pillow does: bicubic, with a kernel as wide as the photo shrinks.

    Args:
        image: uint8 (height, width, 3).
        width: Width of the result, in pixels.
        height: Height of the result, in pixels.

    Returns:
        uint8 (height, width, 3), within 2 of Pillow's values.
    """
    # torch has a fast path for a tensor with a batch dimension in channels_last.
    pixels = torch.from_numpy(np.array(image))[None].permute(0, 3, 1, 2)
    result = F.interpolate(pixels, size=(height, width), mode="bicubic", antialias=True)
    return np.ascontiguousarray(result.permute(0, 2, 3, 1)[0].numpy())


def _cut(level: Level, box: Box) -> tuple[Image, tuple[int, int]]:
    """The crop in one copy of the photo, to the nearest pixel; and its corner."""
    image, fx, fy = level
    left, top = int(box[0] * fx + 0.5), int(box[1] * fy + 0.5)
    left, top = min(left, image.shape[1] - 1), min(top, image.shape[0] - 1)
    right, bottom = int(box[2] * fx + 0.5), int(box[3] * fy + 0.5)
    return image[top : max(bottom, top + 1), left : max(right, left + 1)], (left, top)


def _view_to_source(view: ViewParameters, size: int, box: Box) -> NDArray[np.float64]:
    """The affine map from the view's pixels to the source's pixels, for OpenCV."""
    left, top, right, bottom = box
    angle = math.radians(view.angle)
    cos, sin = math.cos(angle), math.sin(angle)
    across, down = (right - left) / size, (bottom - top) / size
    across = -across if view.flip else across
    # View pixel → upright view, about its centre: the inverse of a counter-clockwise rotation.
    a, b, c, d = across * cos, -across * sin, down * sin, down * cos
    middle = (size - 1) / 2
    x = (left + right - 1) / 2 - (a * middle + b * middle)
    y = (top + bottom - 1) / 2 - (c * middle + d * middle)
    return np.array([[a, b, x], [c, d, y]])


@cache
def _grid(size: int) -> NDArray[np.float32]:
    """The coordinates of the pixels, float32 (size, size, 2): x, y."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    return np.ascontiguousarray(np.stack([x, y], axis=-1))
