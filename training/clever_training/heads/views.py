"""The views that heads are fitted to and calibrated on, with what was done to each.

The first four are the photo as the model's users give it, upright and turned by each quarter. The
others are cropped, turned, mirrored and recoloured. Half of them show black corners where they were
turned by other than quarters, as copies that people make do, and half what the photo has there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clever_hub.config import PreprocessingConfig
from clever_hub.images.preparing import Preprocessor
from clever_training.recipe.schema import ViewsRecipe
from clever_training.views.decode import EncodedPhoto, shrink_for
from clever_training.views.parameters import ViewParameters
from clever_training.views.render import FastRenderer
from clever_training.views.sample import sample

QUARTERS = 4
# The views of which all positions are seen, where they are: the photo as it is, and two others.
POSITIONED = (0, QUARTERS, QUARTERS + 1)
_WHOLE = 0.25  # of the views are not cropped
_UPRIGHT = 0.5  # of the views are turned by quarters alone
_CONTEXT = 0.5


@dataclass(frozen=True)
class HeadViews:
    """How views are drawn.

    Attributes:
        count: Views of each photo, the four quarters included.
        positions: Whether ``ViewMaker`` adds all eight positions of the views ``POSITIONED``: of
            each, turned by each quarter, then the same of it mirrored.
        scale: Smallest and largest share of the photo's area.
    """

    count: int = 12
    scale: tuple[float, float] = (0.3, 1.0)
    positions: bool = False

    def recipe(self) -> ViewsRecipe:
        """The distributions of all but the quarters."""
        return ViewsRecipe(
            strategy="caug",
            rotation=45.0,  # and any quarter, turned exactly
            global_scale=self.scale,
            jitter=(0.4, 0.4, 0.3, 0.08),
            jitter_probability=0.6,
            grayscale=0.1,
            blur=(0.3, 0.3, 0.3),
            solarize=0.0,
        )


class PhotoViews(NamedTuple):
    """The views of one photo.

    Attributes:
        pixels: float32 (views, 3, size, size), prepared for the backbone; with positions, 24 more.
        parameters: float32 (views, 14), as ``ViewParameters.as_array`` gives them.
    """

    pixels: NDArray[np.float32]
    parameters: NDArray[np.float32]


class _Plan(NamedTuple):
    """What to do to the photo, by how many quarters to turn the view after that, what to show."""

    parameters: ViewParameters
    quarter: int
    context: bool

    def done(self) -> ViewParameters:
        """All that is done together."""
        angle = self.parameters.angle + 90.0 * self.quarter
        return replace(self.parameters, angle=(angle + 180.0) % 360.0 - 180.0)


class ViewMaker:
    """Makes the views of photos for one model.

    Args:
        preprocessing: The model's.
        views: How they are drawn.
        seed: Seed of the draws; views are a pure function of it and the photo's row.
    """

    def __init__(self, preprocessing: PreprocessingConfig, views: HeadViews, seed: int) -> None:
        self.views, self.seed = views, seed
        self._recipe = views.recipe()
        self._size = preprocessing.crop_size
        self._clean = Preprocessor(preprocessing)
        # Rendered views have the right size already.
        self._rendered = Preprocessor(replace(preprocessing, resize_size=self._size))
        self._share = preprocessing.crop_size / preprocessing.resize_size

    def __call__(self, photo: EncodedPhoto, row: int) -> PhotoViews:
        """All views of a photo.

        Args:
            photo: Not decoded yet.
            row: The photo's in its data set.

        Returns:
            The views.

        Raises:
            ImageError: When the photo is damaged.
        """
        smallest = min(photo.size) * self.views.scale[0] ** 0.5 * self._share
        image = photo.decode(shrink_for(smallest / self._size))
        render = [FastRenderer(image, photo.size, context=context) for context in (False, True)]
        upright = self._clean(image)
        pixels = [np.rot90(upright, quarter, axes=(1, 2)) for quarter in range(QUARTERS)]
        drawn = self._plans(row, *photo.size)
        for plan in drawn[QUARTERS:]:
            shown = render[plan.context](plan.parameters, self._size)
            # Turned after all else: whether a view was turned at all must not be read from how it
            # was resampled.
            turned = np.ascontiguousarray(np.rot90(shown, plan.quarter))
            pixels.append(self._rendered(turned))
        if self.views.positions:
            for whole in [pixels[view] for view in POSITIONED]:
                for view in (whole, whole[..., ::-1]):
                    pixels += [np.rot90(view, quarter, axes=(1, 2)) for quarter in range(QUARTERS)]
        return PhotoViews(np.stack(pixels), np.stack([p.done().as_array() for p in drawn]))

    def draw(self, row: int, width: int, height: int) -> list[ViewParameters]:
        """What is done to a photo to make each of its views.

        Args:
            row: The photo's in its data set.
            width: Width of the photo, in pixels.
            height: Height of the photo, in pixels.

        Returns:
            The parameters, one for each view.
        """
        return [plan.done() for plan in self._plans(row, width, height)]

    def _plans(self, row: int, width: int, height: int) -> list[_Plan]:
        middle = self._middle(width, height)
        plans = [_Plan(ViewParameters(box=middle), quarter, False) for quarter in range(QUARTERS)]
        for view in range(QUARTERS, self.views.count):
            random = np.random.default_rng((self.seed, row, view))
            drawn = sample(self._recipe, 0, width / height, self._size, random)
            whole, unturned, context = random.random(3) < (_WHOLE, _UPRIGHT, _CONTEXT)
            drawn = replace(drawn, box=middle) if whole else drawn
            drawn = replace(drawn, angle=0.0) if unturned else drawn
            plans.append(_Plan(drawn, int(random.integers(QUARTERS)), bool(context)))
        return plans

    def _middle(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The square that the model sees of a photo, as shares of its sides."""
        side = min(width, height) * self._share
        across, down = side / width, side / height
        return (1 - across) / 2, (1 - down) / 2, across, down
