"""Formulas as drawings: MathJax would be fetched, and MathML needs a font that many lack."""

from __future__ import annotations

from html import escape
from typing import Any

import ziamath
from docutils import nodes
from sphinx.application import Sphinx

ziamath.config.svg2 = False
SIZE = 17.0  # pixels, a little above the text's


def drawing(source: str, *, inline: bool) -> str:
    """A formula as SVG in the colour of the text.

    Args:
        source: LaTeX.
        inline: Whether it stands in a line of text: it is then set on the line.

    Returns:
        An element of HTML.
    """
    formula = ziamath.Latex(source, size=SIZE, color="currentColor", inline=inline)
    drop = f' style="vertical-align: {formula.getyofst():.1f}px"' if inline else ""
    label = escape(" ".join(source.split()), quote=True)
    return formula.svg().replace("<svg ", f'<svg role="img" aria-label="{label}"{drop} ', 1)


def inline(writer: Any, node: nodes.math) -> None:
    """A formula in a line."""
    writer.body.append(drawing(node.astext(), inline=True))
    raise nodes.SkipNode


def block(writer: Any, node: nodes.math_block) -> None:
    """A formula of its own."""
    writer.body.append(f'<div class="math">{drawing(node.astext(), inline=False)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_html_math_renderer("svg", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
