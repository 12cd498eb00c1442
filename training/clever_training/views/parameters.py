"""The parameters of a view: how it was made from a photo."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PARAMETER_NAMES = (
    *("left", "top", "width", "height", "flip", "angle"),
    *("brightness", "contrast", "saturation", "hue", "grayscale", "blur", "solarize"),
    "elastic_alpha",
)


@dataclass(frozen=True)
class ViewParameters:
    """The parameters of a view.

    Attributes:
        box: Crop as (left, top, width, height), each a share of the photo's side.
        flip: Whether it is mirrored left to right.
        angle: Rotation in degrees, counter-clockwise, about the crop's centre.
        brightness: Factor; 1 changes nothing.
        contrast: Factor; 1 changes nothing.
        saturation: Factor; 1 changes nothing.
        hue: Shift as a share of a full turn; 0 changes nothing.
        grayscale: Whether it is converted to grey.
        blur: Standard deviation of the blur in pixels of the view; 0 is none.
        solarize: Whether bright pixels are inverted.
        elastic_alpha: Strength of the elastic distortion, as torchvision's at the view's size;
            0 is none.
        elastic_sigma: Smoothness of the distortion in pixels of the view.
        elastic_seed: Seed of the distortion.
        jitter_order: Order of brightness (0), contrast (1), saturation (2) and hue (3) in the
            published pipeline; the fast one has one order.
        disc: Whether everything outside the disc inscribed in the view is covered.
        known: False for views of an augmentation that does not return parameters.
    """

    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    flip: bool = False
    angle: float = 0.0
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    grayscale: bool = False
    blur: float = 0.0
    solarize: bool = False
    elastic_alpha: float = 0.0
    elastic_sigma: float = 0.0
    elastic_seed: int = 0
    jitter_order: tuple[int, ...] = (0, 1, 2, 3)
    disc: bool = False
    known: bool = True

    def as_array(self) -> NDArray[np.float32]:
        """The parameters as a vector of float32, in the order of ``PARAMETER_NAMES``.

        The angle is in radians. All values are NaN when the parameters are not known.
        """
        if not self.known:
            return np.full(len(PARAMETER_NAMES), np.nan, dtype=np.float32)
        values = [*self.box, self.flip, math.radians(self.angle), self.brightness, self.contrast]
        values += [self.saturation, self.hue, self.grayscale, self.blur, self.solarize]
        return np.asarray([*values, self.elastic_alpha], dtype=np.float32)


UNKNOWN = ViewParameters(known=False)
