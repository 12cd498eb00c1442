"""Apply a view's parameters to a photo: fast, or exactly as published.

``fast`` is OpenCV. It has the distributions of ``torchvision``, the published pipeline, and
deviates from it in this:

- Rotation and elastic distortion interpolate linearly in an antialiased copy of the photo, in one
  resampling with the crop, where the published rotation takes the nearest pixel of the crop that
  was resized before.
- The elastic field is another draw from the same law (``elastic.py``), and shows what the rotation
  moved out of the view where it looks there, instead of black.
- Hue turns in YIQ instead of HSV; the jitter's steps have one order instead of a random one, and
  values are cut off at 0 and 255 once, at their end (``color.py``).
- The blur is a Gaussian, where Pillow's is three box filters of its width.
- JPEGs are decoded at a half, a quarter or an eighth of their size where every view is left with
  at least a pixel of the photo to each of its own.
- ``corners: context`` fills what a rotation brings in from outside the crop with the photo.
"""

from __future__ import annotations

from collections.abc import Callable

from clever_training.views.color import paint
from clever_training.views.decode import Image
from clever_training.views.geometry import Geometry
from clever_training.views.parameters import ViewParameters
from clever_training.views.published import PublishedRenderer

Renderer = Callable[[ViewParameters, int], Image]


class FastRenderer:
    """Renders views of one photo with OpenCV.

    Args:
        image: uint8 (height, width, 3), RGB; possibly reduced.
        size: (width, height) of the whole photo; that of the image when None.
        context: Fill corners with what the photo has there instead of black.
    """

    def __init__(
        self, image: Image, size: tuple[int, int] | None = None, *, context: bool = False
    ) -> None:
        size = size or (image.shape[1], image.shape[0])
        self.geometry = Geometry(image, size, context=context)

    def __call__(self, view: ViewParameters, size: int) -> Image:
        """One view.

        Args:
            view: What to do.
            size: Side of the view, in pixels.

        Returns:
            uint8 (size, size, 3).
        """
        return paint(self.geometry(view, size), view)


def render_fast(image: Image, view: ViewParameters, size: int) -> Image:
    """Render one view with OpenCV.

    Args:
        image: uint8 (height, width, 3), RGB.
        view: What to do.
        size: Side of the result, in pixels.

    Returns:
        uint8 (size, size, 3). Pixels that a rotation brings in from outside the crop are black,
        as in crop-then-rotate.
    """
    return FastRenderer(image)(view, size)


def render_torchvision(image: Image, view: ViewParameters, size: int) -> Image:
    """Render one view with the published pipeline: Pillow through torchvision.

    Args:
        image: uint8 (height, width, 3), RGB.
        view: What to do.
        size: Side of the result, in pixels.

    Returns:
        uint8 (size, size, 3).
    """
    return PublishedRenderer(image)(view, size)
