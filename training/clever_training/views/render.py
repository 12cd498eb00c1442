"""Apply a view's parameters to a photo: fast, or exactly as published.

``fast`` uses OpenCV. It has the distributions of ``torchvision``, the published pipeline, and
differs from it as follows:

- Crop, rotation and elastic distortion are one resampling, which interpolates linearly in an
  antialiased copy of the photo. The published rotation takes the nearest pixel of the resized crop.
- The elastic field is another draw from the same distribution (``elastic.py``). Where it reaches
  beyond the view it shows the photo that the rotation moved there, not black.
- Hue rotates in YIQ instead of HSV. The steps of the jitter have a fixed order, and values are
  clipped to 0 to 255 once, after the last step (``color.py``).
- The blur is a Gaussian; Pillow's is three box filters of the same width.
- JPEGs are decoded at a half, a quarter or an eighth of their size if every pixel of every view
  still covers at least one pixel of the photo.
- ``corners: context`` fills the corners of a rotated view with the photo around the crop.
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
        size: (width, height) of the whole photo; None for that of the image.
        context: Whether corners show the photo around the crop instead of black.
    """

    def __init__(
        self, image: Image, size: tuple[int, int] | None = None, *, context: bool = False
    ) -> None:
        size = size or (image.shape[1], image.shape[0])
        self.geometry = Geometry(image, size, context=context)

    def __call__(self, view: ViewParameters, size: int) -> Image:
        """One view.

        Args:
            view: The parameters.
            size: Side of the view, in pixels.

        Returns:
            uint8 (size, size, 3).
        """
        return paint(self.geometry(view, size), view)


def render_fast(image: Image, view: ViewParameters, size: int) -> Image:
    """Render one view with OpenCV.

    Args:
        image: uint8 (height, width, 3), RGB.
        view: The parameters.
        size: Side of the result, in pixels.

    Returns:
        uint8 (size, size, 3). Pixels that a rotation brings in from outside the crop are black,
        as in crop-then-rotate.
    """
    return FastRenderer(image)(view, size)


def render_torchvision(image: Image, view: ViewParameters, size: int) -> Image:
    """Render one view with the published pipeline: torchvision's operations on Pillow images.

    Args:
        image: uint8 (height, width, 3), RGB.
        view: The parameters.
        size: Side of the result, in pixels.

    Returns:
        uint8 (size, size, 3).
    """
    return PublishedRenderer(image)(view, size)
