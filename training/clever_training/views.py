"""Views: random parameters of an augmentation, and two ways of applying them.

Sampling and rendering are apart. ``sample`` draws the parameters of a view from a generator that
is a pure function of (seed, epoch, sample index, view), so that a resumed run sees the same views
and the equivariant part can be asked what they were. Rendering is deterministic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clever_training.recipe import ViewsRecipe

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class ViewParameters:
    """What was done to a photo.

    Attributes:
        box: Crop as (left, top, width, height), each a share of the photo's side.
        flip: Mirrored left to right.
        angle: Rotation in degrees, counter-clockwise, about the crop's centre.
        brightness: Factor; 1 changes nothing.
        contrast: Factor; 1 changes nothing.
        saturation: Factor; 1 changes nothing.
        hue: Shift as a share of a full turn; 0 changes nothing.
        grayscale: Turned grey.
        blur: Standard deviation in pixels of the view; 0 is none.
        solarize: Bright pixels inverted.
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

    def as_array(self) -> NDArray[np.float32]:
        """The parameters as a vector, in the order of the attributes: 4 + 9 numbers."""
        values = [*self.box, self.flip, math.radians(self.angle), self.brightness, self.contrast]
        values += [self.saturation, self.hue, self.grayscale, self.blur, self.solarize]
        return np.asarray(values, dtype=np.float32)


@dataclass(frozen=True)
class ViewSizes:
    """Sides of the views at some point of a run.

    Attributes:
        global_size: Of the global views, in pixels.
        local_size: Of the local views, in pixels.
    """

    global_size: int
    local_size: int


def sizes_at(recipe: ViewsRecipe, progress: float) -> ViewSizes:
    """The sizes after a share of the run.

    Args:
        recipe: The views.
        progress: In [0, 1].

    Returns:
        The sizes of the last growth step that has begun, or of the recipe.

    Example:
        >>> sizes_at(ViewsRecipe(global_size=48, local_size=32), 0.5)
        ViewSizes(global_size=48, local_size=32)
    """
    now = ViewSizes(recipe.global_size, recipe.local_size)
    for step in sorted(recipe.growth, key=lambda step: step.after):
        if progress >= step.after:
            now = ViewSizes(step.global_size, step.local_size or now.local_size)
    return now


def sample(
    recipe: ViewsRecipe, view: int, aspect: float, size: int, rng: np.random.Generator
) -> ViewParameters:
    """Draw the parameters of one view.

    Args:
        recipe: The distributions.
        view: Number of the view, global ones first.
        aspect: Width of the photo over its height.
        size: Side of the view in pixels: blur is scaled with it.
        rng: Where the randomness comes from.

    Returns:
        The parameters.
    """
    is_global = view < recipe.global_count
    box = _sample_box(recipe.global_scale if is_global else recipe.local_scale, aspect, rng)
    # Every number is drawn whether it is used or not: switching one augmentation on or off leaves
    # the others as they were.
    chance = rng.random(6)
    angle, sigma, *factors = rng.uniform(-1, 1, 6)
    jitter = chance[1] < recipe.jitter_probability
    factors = [
        1 + strength * factor for strength, factor in zip(recipe.jitter, factors, strict=True)
    ]
    blur_kind = 2 if not is_global else min(view, 1)
    low, high = recipe.blur_sigma
    blurred = chance[3] < recipe.blur[blur_kind]
    solarize = recipe.solarize if is_global and view > 0 else 0.0
    return ViewParameters(
        box=box,
        flip=bool(chance[0] < recipe.flip),
        angle=float(angle * recipe.rotation) if recipe.strategy == "caug" else 0.0,
        brightness=max(0.0, factors[0]) if jitter else 1.0,
        contrast=max(0.0, factors[1]) if jitter else 1.0,
        saturation=max(0.0, factors[2]) if jitter else 1.0,
        hue=factors[3] - 1 if jitter else 0.0,
        grayscale=bool(chance[2] < recipe.grayscale),
        blur=float(low + (sigma + 1) / 2 * (high - low)) * size / 224 if blurred else 0.0,
        solarize=bool(chance[4] < solarize),
    )


def _sample_box(
    scale: tuple[float, float], aspect: float, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """As torchvision's RandomResizedCrop: area uniform, ratio log-uniform in 3/4 to 4/3."""
    for _ in range(10):
        area = rng.uniform(*scale)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        width, height = math.sqrt(area * ratio / aspect), math.sqrt(area / ratio * aspect)
        left, top = rng.random(2)
        if width <= 1 and height <= 1:
            return left * (1 - width), top * (1 - height), width, height
    width, height = min(1.0, 4 / 3 / aspect), min(1.0, 4 / 3 * aspect)
    return (1 - width) / 2, (1 - height) / 2, width, height


def make_views(
    image: Image, recipe: ViewsRecipe, sizes: ViewSizes, key: tuple[int, int, int]
) -> tuple[list[Image], list[ViewParameters]]:
    """All views of a photo.

    Args:
        image: uint8 (height, width, 3), RGB.
        recipe: What views.
        sizes: How large.
        key: (seed, epoch, sample index): the views are a pure function of it.

    Returns:
        The views, uint8 (size, size, 3), global ones first, and what was done to make each.
    """
    from clever_training.render import RENDERERS

    render = RENDERERS[recipe.backend]
    aspect = image.shape[1] / image.shape[0]
    views, parameters = [], []
    for view in range(recipe.global_count + recipe.local_count):
        size = sizes.global_size if view < recipe.global_count else sizes.local_size
        rng: Any = np.random.default_rng((*key, view))
        drawn = sample(recipe, view, aspect, size, rng)
        views.append(render(image, drawn, size))
        parameters.append(drawn)
    return views, parameters
