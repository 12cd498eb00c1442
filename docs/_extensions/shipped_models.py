"""A table of the models that ship, made from the models themselves: no page lists them by hand.

The line ``<!-- the shipped models -->`` on a page becomes the table.
"""

from __future__ import annotations

from pathlib import Path

from sphinx.application import Sphinx

import clever_hub

MARK = "<!-- the shipped models -->"
HEAD = """\
| model | backbone | input | invariant + equivariant | heads | weights | licence |
|---|---|---|---|---|---|---|
"""


def table(pages: Path) -> str:
    """One row for each shipped model; its name links to its card where the site has one."""
    rows = []
    for model in clever_hub.list_models():
        card = f"{model.name}.md"
        name = f"[{model.name}]({card})" if (pages / "models" / card).is_file() else model.name
        source = Path(clever_hub.__file__).parent / "zoo" / model.name
        cells = (
            name,
            model.backbone,
            f"{model.image_size} px",
            f"{model.invariant_dim} + {model.equivariant_dim}",
            "yes" if (source / "heads.safetensors").is_file() else "no",
            f"{model.size_bytes / 1e6:.0f} MB",
            model.license,
        )
        rows.append(f"| {' | '.join(cells)} |")
    return HEAD + "\n".join(rows)


def read_page(app: Sphinx, name: str, content: list[str]) -> None:
    """Put the table into a page that asks for it."""
    del name
    if MARK in content[0]:
        content[0] = content[0].replace(MARK, table(Path(app.srcdir)))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("source-read", read_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
