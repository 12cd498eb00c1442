"""Docstrings for the API's pages: napoleon reads them, but for two things.

Napoleon takes what stands before a colon in a property's first sentence for a type; ours have none
there. And an array's type is written out at length; it is said as in the source, ``NDArray``.
"""

from __future__ import annotations

import re
from dataclasses import is_dataclass
from typing import Any

from sphinx.application import Sphinx
from sphinx.ext.napoleon.docstring import GoogleDocstring
from sphinx.pycode import ModuleAnalyzer

ARRAY = re.compile(
    r"(~?)numpy\.ndarray\[tuple\[~?(?:typing\.)?Any, \.\.\.\], ~?numpy\.dtype\[~?(numpy\.\w+)\]\]"
)
SHAPED = re.compile(r"~?jaxtyping\.(Float|Int|Bool)\[~?(?:torch\.)?Tensor, ('[^']*')\]")


class Docstring(GoogleDocstring):
    """Sections as Google has them; a property's text is text."""

    def _parse_attribute_docstring(self) -> list[str]:
        return self._dedent(self._consume_to_end())


def without_bounds(text: str) -> str:
    """``Annotated[T, …]`` as ``T``: the bounds of a recipe's key stand in its description."""
    while (start := text.find("Annotated[")) >= 0:
        depth, comma, place = 0, 0, start + len("Annotated")
        for place in range(place, len(text)):  # noqa: B020
            depth += {"[": 1, "]": -1, "(": 1, ")": -1}.get(text[place], 0)
            if text[place] == "," and depth == 1 and not comma:
                comma = place
            if depth == 0:
                break
        begin = re.search(r"[~\w.]*$", text[:start])
        text = (
            text[: begin.start() if begin else start]
            + text[start + len("Annotated[") : comma or place]
            + text[place + 1 :]
        )
    return text


def short(text: str) -> str:
    """Types as the source says them."""
    text = ARRAY.sub(r"\1numpy.typing.NDArray[\1\2]", without_bounds(text))
    return SHAPED.sub(r"~jaxtyping.\1[~torch.Tensor, \2]", text)


def process_docstring(
    app: Sphinx, what: Any, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Turn a Google docstring into reStructuredText, in place."""
    docstring = Docstring(list(lines), app.config, app, what, name, obj, options)
    lines[:] = [short(line) for line in docstring.lines()]


def process_signature(
    app: Sphinx,
    what: str,
    name: str,
    obj: Any,
    options: Any,
    signature: str | None,
    returned: str | None,
) -> tuple[str | None, str | None]:
    """Shorten the types in a signature; leave it out where the attributes say the same."""
    del app, name, options
    if what == "class" and (is_dataclass(obj) or hasattr(obj, "_fields")):
        return "", None
    return signature and short(signature), returned and short(returned)


def without_overloads(module: str, name: str) -> None:
    """Show a function by the signature that its docstring describes, not by those for checkers."""
    analyzer = ModuleAnalyzer.for_module(module)
    analyzer.analyze()
    analyzer.overloads.pop(name)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx, in napoleon's place."""
    app.setup_extension("sphinx.ext.napoleon")
    app.config.napoleon_google_docstring = False
    without_overloads("clever_hub.pretrained", "from_pretrained")
    app.connect("autodoc-process-docstring", process_docstring)
    app.connect("autodoc-process-signature", process_signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
