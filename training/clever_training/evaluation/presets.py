"""Data sets by short names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from clever_hub.errors import DataError, suggest

# The data sets of the paper's transfer experiments with their standard splits: TRAIN,VALIDATION.
# Flowers-102 is fitted on both of its small splits, as usual (Kornblith et al. 2019,
# https://arxiv.org/abs/1805.08974, appendix B).
PRESETS: Mapping[str, str] = MappingProxyType(
    {
        "cub-200": (
            "bentrevett/caltech-ucsd-birds-200-2011:train,"
            "bentrevett/caltech-ucsd-birds-200-2011:test"
        ),
        "flowers-102": (
            "dpdl-benchmark/oxford_flowers102:train+validation,"
            "dpdl-benchmark/oxford_flowers102:test"
        ),
        "food-101": "ethz/food101:train,ethz/food101:validation",
        "oxford-pets": "timm/oxford-iiit-pet:train,timm/oxford-iiit-pet:test",
    }
)


def expand(specification: str) -> str:
    """Replace the short name of a data set by its full specification for ``load_splits``.

    Args:
        specification: What the user gave.

    Returns:
        The preset's training and validation data. Anything else is returned unchanged, as is the
        name of a folder that exists.

    Raises:
        DataError: When it looks like a misspelt preset.

    Example:
        >>> expand("food-101")
        'ethz/food101:train,ethz/food101:validation'
    """
    name = specification.strip()
    if Path(name).expanduser().exists():
        return specification
    if name in PRESETS:
        return PRESETS[name]
    # A Hub id has a slash or names a split; a name without either is most likely a mistyped preset.
    if not set("/:,.") & set(name) and (hint := suggest(name, PRESETS)).startswith("Did"):
        raise DataError(f"{name}: no such folder or data set. {hint}")
    return specification
