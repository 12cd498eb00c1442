"""Long names on pictures: legends that fit, and lines that break."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

# Of the figure's width; the rest is margin.
_ROOM = 0.98


def fitting_legend(figure: Figure, handles: Sequence[Any], most: int, **options: Any) -> None:
    """A legend beside all panels, in as many columns as its labels leave room for.

    Args:
        figure: The figure.
        handles: What the legend explains; each has a label.
        most: The most columns.
        **options: Options of ``Figure.legend``, such as ``loc``.
    """
    for columns in range(min(most, len(handles)), 0, -1):
        legend = figure.legend(handles=handles, ncols=columns, frameon=False, **options)
        if columns == 1 or legend.get_window_extent().width <= _ROOM * figure.bbox.width:
            return
        legend.remove()


def folded(name: str, width: int) -> str:
    r"""A name in lines of at most so many characters, broken at spaces, else at hyphens.

    Example:
        >>> folded("clever-plus-distill-efficientnet-lite0", 24)
        'clever-plus-distill-\nefficientnet-lite0'
    """
    words = textwrap.wrap(name, width, break_on_hyphens=False, break_long_words=False)
    return "\n".join(textwrap.fill(word, width) for word in words)
