"""Views: random parameters of an augmentation, and two ways of applying them.

Sampling and rendering are separate. ``sample`` draws the parameters of a view from a generator that
is a pure function of (seed, epoch, sample index, view), so that a resumed run sees the same views
and the equivariant part can be trained to predict the parameters. Rendering is deterministic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from clever_training.recipe.schema import ViewsRecipe
from clever_training.views.custom import load_augmentation
from clever_training.views.decode import EncodedPhoto, Image, shrink_for
from clever_training.views.parameters import ViewParameters
from clever_training.views.published import PublishedRenderer
from clever_training.views.render import FastRenderer, Renderer

_LOWEST_RATIO = math.log(3 / 4)
_RATIOS = math.log(4 / 3) - _LOWEST_RATIO


@dataclass(frozen=True)
class ViewSizes:
    """Sides of the views at some point of a run.

    Attributes:
        global_size: Side of the global views, in pixels.
        local_size: Side of the local views, in pixels.
    """

    global_size: int
    local_size: int


def sizes_at(recipe: ViewsRecipe, progress: float) -> ViewSizes:
    """The sizes after a share of the run.

    Args:
        recipe: The views.
        progress: Share of the run that is done, in [0, 1].

    Returns:
        The sizes of the latest growth step, or of the recipe before the first.

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
        aspect: Width of the photo divided by its height.
        size: Side of the view in pixels; blur and elastic distortion scale with it.
        rng: Source of all randomness.

    Returns:
        The parameters.
    """
    is_global = view < recipe.global_count
    box = _sample_box(recipe.global_scale if is_global else recipe.local_scale, aspect, rng)
    # Numbers are drawn whether they are used or not, so that switching one augmentation on or off
    # does not change the others. New numbers are drawn after all others, for the same reason. Two
    # are drawn only where a recipe has them: that of `disc`, and, but for baug, that of a
    # rotation_probability below 1. So with the second, switching `disc` on or off changes which
    # views stay upright. It stays as it is: a run must resume with the numbers that it began with.
    chance = rng.random(6).tolist()
    angle, sigma, *factors = rng.uniform(-1, 1, 6).tolist()
    elastic_chance, elastic_seed, *order = rng.random(6).tolist()
    disc_chance = rng.random() if recipe.disc else 1.0
    upright = recipe.strategy == "baug" or (
        recipe.rotation_probability < 1 and rng.random() >= recipe.rotation_probability
    )
    jitter = _jitter(recipe, factors) if chance[1] < recipe.jitter_probability else {}
    blur = _blur(recipe, view, chance[3], (sigma + 1) / 2)
    # Lengths are given for a view of 224 pixels.
    unit = size / 224 if recipe.scale_lengths else 1.0
    distorted = recipe.strategy == "caug+" and elastic_chance < recipe.elastic
    return ViewParameters(
        box=box,
        flip=chance[0] < recipe.flip,
        angle=0.0 if upright else angle * recipe.rotation,
        grayscale=chance[2] < recipe.grayscale,
        blur=blur * size / 224 if recipe.scale_lengths else blur,
        solarize=chance[4] < (recipe.solarize if is_global and view > 0 else 0.0),
        # Displacements are proportional to α/σ, since the noise is white: they, too, shrink once.
        elastic_alpha=recipe.elastic_alpha * unit**2 if distorted else 0.0,
        elastic_sigma=recipe.elastic_sigma * unit if distorted else 0.0,
        elastic_seed=int(elastic_seed * 2**31) if distorted else 0,
        disc=disc_chance < recipe.disc,
        jitter_order=tuple(sorted(range(4), key=order.__getitem__)) if jitter else (0, 1, 2, 3),
        **jitter,
    )


def _jitter(recipe: ViewsRecipe, factors: Sequence[float]) -> dict[str, Any]:
    """Three factors around 1 and a hue shift around 0."""
    brightness, contrast, saturation, hue = (
        1 + strength * factor for strength, factor in zip(recipe.jitter, factors, strict=True)
    )
    return {
        "brightness": max(0.0, brightness),
        "contrast": max(0.0, contrast),
        "saturation": max(0.0, saturation),
        "hue": hue - 1,
    }


def _blur(recipe: ViewsRecipe, view: int, chance: float, share: float) -> float:
    """The standard deviation of a view's blur in pixels of a view of 224; 0 is none."""
    kind = 2 if view >= recipe.global_count else min(view, 1)
    low, high = recipe.blur_sigma
    return low + share * (high - low) if chance < recipe.blur[kind] else 0.0


def _sample_box(
    scale: tuple[float, float], aspect: float, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """As torchvision's RandomResizedCrop: area uniform, ratio log-uniform in 3/4 to 4/3."""
    for _ in range(10):
        # Generator.uniform computes the same sum and takes four times as long.
        area = scale[0] + (scale[1] - scale[0]) * rng.random()
        ratio = math.exp(_LOWEST_RATIO + _RATIOS * rng.random())
        width, height = math.sqrt(area * ratio / aspect), math.sqrt(area / ratio * aspect)
        left, top = rng.random(2).tolist()
        if width <= 1 and height <= 1:
            return left * (1 - width), top * (1 - height), width, height
    width, height = min(1.0, 4 / 3 / aspect), min(1.0, 4 / 3 * aspect)
    return (1 - width) / 2, (1 - height) / 2, width, height


def make_views(
    photo: Image | EncodedPhoto, recipe: ViewsRecipe, sizes: ViewSizes, key: tuple[int, int, int]
) -> tuple[list[Image], list[ViewParameters]]:
    """All views of a photo.

    Args:
        photo: uint8 (height, width, 3), RGB; or not decoded yet.
        recipe: The recipe's views.
        sizes: Sides of the views.
        key: (seed, epoch, sample index); the views are a pure function of it.

    Returns:
        The views, uint8 (size, size, 3), global ones first, and the parameters of each.

    Raises:
        ImageError: When the photo cannot be decoded.
        ConfigError: When a custom augmentation cannot be found or does not return views.
    """
    sides = [sizes.global_size] * recipe.global_count + [sizes.local_size] * recipe.local_count
    rngs = [np.random.default_rng((*key, view)) for view in range(len(sides))]
    if recipe.aug is not None:
        augment = load_augmentation(recipe.aug)
        image = photo.decode() if isinstance(photo, EncodedPhoto) else photo
        made = [augment(image, *rest) for rest in zip(sides, rngs, count(), strict=False)]
        return [view for view, _ in made], [drawn for _, drawn in made]
    aspect = _size(photo)[0] / _size(photo)[1]
    drawn = [sample(recipe, v, aspect, sides[v], rngs[v]) for v in range(len(sides))]
    render = _renderer(photo, recipe, drawn, sides)
    return [render(view, side) for view, side in zip(drawn, sides, strict=True)], drawn


def _renderer(
    photo: Image | EncodedPhoto,
    recipe: ViewsRecipe,
    drawn: Sequence[ViewParameters],
    sides: Sequence[int],
) -> Renderer:
    """Decode a photo at the size that its views need, for the recipe's backend."""
    size = _size(photo)
    if recipe.backend == "torchvision":
        return PublishedRenderer(photo.decode() if isinstance(photo, EncodedPhoto) else photo)
    if isinstance(photo, EncodedPhoto):
        scale = min(
            min(view.box[2] * size[0], view.box[3] * size[1]) / side
            for view, side in zip(drawn, sides, strict=True)
        )
        photo = photo.decode(shrink_for(scale))
    return FastRenderer(photo, size, context=recipe.corners == "context")


def _size(photo: Image | EncodedPhoto) -> tuple[int, int]:
    """Width and height."""
    return photo.size if isinstance(photo, EncodedPhoto) else (photo.shape[1], photo.shape[0])
