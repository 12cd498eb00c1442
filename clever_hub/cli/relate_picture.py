"""Undo what a relation says was done to an image, as far as it is known."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clever_hub.jobs.alignment import Alignment
from clever_hub.jobs.relation import Relation

_OUTSIDE = (235, 235, 235)


def brought_back(relation: Relation | Alignment, a: Image.Image, b: Image.Image) -> Image.Image:
    """Image b as it lies within a: what a shows there is what it should show.

    Args:
        relation: How b is made from a; or how it lies on a, as the pixels tell. What is unknown is
            taken as not done.
        a: RGB, square.
        b: RGB, square.

    Returns:
        RGB, of a's size; light grey where b does not reach.
    """
    inverse = np.linalg.inv(b_in_a(relation))
    to_b = _scaled(1, b.width) @ inverse @ np.linalg.inv(_scaled(1, a.width))
    # Pillow asks, for each pixel of the result, where it comes from.
    coefficients = tuple(float(value) for value in to_b[:2].ravel())
    return b.convert("RGB").transform(
        a.size,
        Image.Transform.AFFINE,
        coefficients,
        Image.Resampling.BICUBIC,
        fillcolor=_OUTSIDE,
    )


def b_in_a(relation: Relation | Alignment) -> NDArray[np.float64]:
    """Where a point of b lies in a, both in [−1, 1]², x right and y down.

    p_a = t + L p_b, as in ``clever_training.objectives.transformation``.

    Args:
        relation: How b is made from a.

    Returns:
        float64 (3, 3), homogeneous.
    """
    x, y = relation.shift or (0.0, 0.0)
    size = 1 / (relation.zoom or 1.0)
    angle = relation.angle or 0.0
    phi = math.radians(angle if relation.mirrored else -angle)
    sine, cosine = math.sin(phi), math.cos(phi)
    # Counter-clockwise by φ for the eye, with y pointing down; a mirroring comes first.
    turn = np.array([[cosine, sine], [-sine, cosine]])
    mirror = np.diag([-1.0, 1.0]) if relation.mirrored else np.eye(2)
    matrix = np.eye(3)
    matrix[:2, :2] = size * turn @ mirror
    matrix[:2, 2] = 2 * x, 2 * y  # shifts are shares of the side, which is 2 long
    return matrix


def _scaled(half: float, side: int) -> NDArray[np.float64]:
    """From [−half, half]² to pixels of a square, whose first pixel covers 0 to 1."""
    scale = side / (2 * half)
    return np.array([[scale, 0.0, side / 2], [0.0, scale, side / 2], [0.0, 0.0, 1.0]])
