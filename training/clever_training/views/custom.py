"""Custom augmentations: ``aug: package.module:function`` in a recipe's views.

The function takes a photo and returns one view of it::

    def augment(image, size, rng):
        '''image: uint8 (height, width, 3), RGB, at its full size; not to be written to.
        size: side of the view in pixels.
        rng: numpy.random.Generator, a pure function of (seed, epoch, sample index, view).
        Returns the view, uint8 (size, size, 3), RGB.
        '''

All randomness must come from ``rng``; then a run resumes bit for bit with any number of workers. A
function with a parameter ``view`` gets the view's number, global ones first. It may also return
(view, parameters), where parameters is a ``ViewParameters`` or a mapping of its attributes, for
objectives that predict the transformation.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np

from clever_hub.errors import ConfigError
from clever_training.recipe.plugin import load_object
from clever_training.views.decode import Image
from clever_training.views.parameters import UNKNOWN, ViewParameters

Augmentation = Callable[[Image, int, np.random.Generator, int], tuple[Image, ViewParameters]]


@cache
def load_augmentation(path: str) -> Augmentation:
    """Import a user's augmentation, wrapped in checks of its results.

    Args:
        path: ``package.module:function``; any callable.

    Returns:
        A function of image, size, generator and the view's number that returns the view and its
        parameters, ``UNKNOWN`` if the user's function does not return any.

    Raises:
        ConfigError: When there is no such function, or it cannot be called with these arguments.
            The returned function raises it when a view has a wrong type, dtype or shape.
    """
    function = load_object(path, "views.aug")
    wants_view = _check_signature(function, path)

    def augment(
        image: Image, size: int, rng: np.random.Generator, view: int
    ) -> tuple[Image, ViewParameters]:
        # The views of one photo share it, so it must not be written to.
        image = image.view()
        image.flags.writeable = False
        options = {"view": view} if wants_view else {}
        try:
            result: Any = function(image, size, rng, **options)
        except Exception as error:
            height, width = image.shape[:2]
            raise ConfigError(
                f"views.aug: {path} failed on a photo of {width} × {height} pixels, for a view of "
                f"{size}: {type(error).__name__}: {error}"
            ) from error
        made, parameters = (
            result if isinstance(result, tuple) and len(result) == 2 else (result, None)
        )
        return _checked_view(made, size, path), _checked_parameters(parameters, path)

    return augment


def _check_signature(function: Any, path: str) -> bool:
    """Whether the function wants the view's number."""
    if not callable(function):
        raise ConfigError(
            f"views.aug: {path}: expected a function (image, size, rng) -> view, "
            f"got {type(function).__name__}"
        )
    try:
        signature = inspect.signature(function)
    except ValueError:  # written in C
        return False
    wants_view = "view" in signature.parameters
    try:
        signature.bind(None, 0, None, **({"view": 0} if wants_view else {}))
    except TypeError as error:
        raise ConfigError(
            f"views.aug: {path}{signature} cannot be called as (image, size, rng): {error}"
        ) from error
    return wants_view


def _checked_view(made: Any, size: int, path: str) -> Image:
    got = f"{made.dtype} {made.shape}" if isinstance(made, np.ndarray) else type(made).__name__
    if not isinstance(made, np.ndarray) or made.shape != (size, size, 3):
        raise ConfigError(
            f"views.aug: {path}: expected a view as a numpy array, uint8 {(size, size, 3)}, "
            f"got {got}"
        )
    if made.dtype != np.uint8:
        raise ConfigError(
            f"views.aug: {path}: expected uint8 values from 0 to 255, got {got}. Return "
            "np.rint(view).clip(0, 255).astype(np.uint8), times 255 if it is in [0, 1]"
        )
    return np.ascontiguousarray(made)


def _checked_parameters(parameters: Any, path: str) -> ViewParameters:
    if parameters is None:
        return UNKNOWN
    if isinstance(parameters, ViewParameters):
        return parameters
    if not isinstance(parameters, Mapping):
        raise ConfigError(
            f"views.aug: {path}: expected parameters as a mapping or ViewParameters, "
            f"got {type(parameters).__name__}"
        )
    try:
        return ViewParameters(**parameters)
    except TypeError as error:
        raise ConfigError(f"views.aug: {path}: parameters: {error}") from error
