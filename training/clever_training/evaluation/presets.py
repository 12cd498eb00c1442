"""Data sets by short names, and how a data set's name says which columns to read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import parse_qsl

from clever_hub.errors import DataError, suggest

# The four of the paper's transfer experiments, each with its standard split: TRAIN,VALIDATION.
# Flowers-102 is fitted on both of its small splits, as is usual (Kornblith et al. 2019,
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
_COLUMNS = ("image", "label")


class Named(NamedTuple):
    """A data set's name, taken apart.

    Attributes:
        name: A path or a Hub id, with its split.
        image: Column of the images; None looks for it.
        label: Column of the labels; None looks for it.
    """

    name: str
    image: str | None = None
    label: str | None = None


def expand(specification: str) -> str:
    """Replace the short name of a data set by what ``load_splits`` takes.

    Args:
        specification: What the user gave.

    Returns:
        The preset's training and validation data; anything else, and a folder that has a preset's
        name, as it is.

    Raises:
        DataError: When it is nearly the name of a preset.

    Example:
        >>> expand("food-101")
        'ethz/food101:train,ethz/food101:validation'
    """
    name = specification.strip()
    if Path(name).expanduser().exists():
        return specification
    if name in PRESETS:
        return PRESETS[name]
    # A Hub id has a slash, or names a split: what has neither is most likely a mistyped preset.
    if not set("/:,.") & set(name) and (hint := suggest(name, PRESETS)).startswith("Did"):
        raise DataError(f"{name}: no such folder or data set. {hint}")
    return specification


def take_apart(name: str) -> Named:
    """Read the columns off the end of a data set's name.

    Args:
        name: Such as ``user/birds:train?image=photo&label=species``; both are optional.

    Returns:
        The name without them, and the columns.

    Raises:
        DataError: When something else than ``image`` and ``label`` is set.

    Example:
        >>> take_apart("user/birds:train?label=species")
        Named(name='user/birds:train', image=None, label='species')
    """
    if Path(name).expanduser().exists():
        return Named(name)
    rest, mark, query = name.partition("?")
    columns = dict(parse_qsl(query))
    if mark and (not columns or columns.keys() - set(_COLUMNS)):
        raise DataError(f"{name}: expected ?image=COLUMN&label=COLUMN after the name, got ?{query}")
    return Named(rest, columns.get("image"), columns.get("label"))
