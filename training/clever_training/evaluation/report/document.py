"""A page of headings, texts, tables and pictures, written as Markdown and as HTML."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias


@dataclass(frozen=True)
class Heading:
    """A heading.

    Attributes:
        text: The text.
        level: 1 for the page's title, 2 and more below it.
    """

    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    """A paragraph with Markdown's bold, italic and code."""

    text: str


@dataclass(frozen=True)
class Items:
    """A list; each entry as a ``Text``."""

    entries: tuple[str, ...]


@dataclass(frozen=True)
class Code:
    """Commands, shown verbatim."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table whose first columns hold words and whose other columns hold figures.

    Attributes:
        header: Names of the columns.
        rows: Rows of cells as text, one cell per column.
        words: Number of columns with words; they are aligned left.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1


@dataclass(frozen=True)
class Picture:
    """A picture beside the page.

    Attributes:
        path: The PNG file, in the folder of the page.
        alt: A description for readers who cannot see it.
        caption: How to read it, in a sentence or two.
    """

    path: Path
    alt: str
    caption: str


Block: TypeAlias = Heading | Text | Items | Code | Table | Picture

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
       max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.8rem; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums;
        font-size: .9rem; display: block; overflow-x: auto; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: right;
         white-space: nowrap; }
th { border-bottom: 2px solid #888; vertical-align: bottom; }
th.w, td.w { text-align: left; }
figure { margin: 1.5rem 0; } img { max-width: 100%; height: auto; }
figcaption { font-size: .9rem; color: #444; }
pre { background: #f4f4f4; padding: .8rem; overflow-x: auto; font-size: .85rem; }
code { background: #f4f4f4; padding: 0 .2rem; } pre code { padding: 0; }
"""


def to_markdown(blocks: Iterable[Block]) -> str:
    r"""The page as Markdown; pictures are linked as files beside it.

    Args:
        blocks: The blocks in order.

    Returns:
        The text, ending in a line break.

    Example:
        >>> print(to_markdown([Heading("A"), Table(("x", "y"), (("a|b", "1"),))]))
        ## A
        <BLANKLINE>
        | x | y |
        |---|---:|
        | a\|b | 1 |
        <BLANKLINE>
    """
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {text}"
        case Text(text):
            return text
        case Items(entries):
            return "\n".join(f"- {entry}" for entry in entries)
        case Code(text):
            return f"```\n{text}\n```"
        case Picture(path, alt, caption):
            return f"![{alt}]({path.name})\n\n*{caption}*"
        case Table(header, rows, words):
            rule = ["---" if column < words else "---:" for column in range(len(header))]
            lines = [_row(header), f"|{'|'.join(rule)}|", *map(_row, rows)]
            return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def to_html(title: str, blocks: Iterable[Block]) -> str:
    """The page as one HTML file with style and pictures embedded.

    Args:
        title: Title of the window.
        blocks: The blocks in order; the files of pictures are read.

    Returns:
        The text.
    """
    body = "\n".join(_html(block) for block in blocks)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _html(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{html.escape(text)}</h{level}>"
        case Text(text):
            return f"<p>{_inline(text)}</p>"
        case Items(entries):
            return f"<ul>{''.join(f'<li>{_inline(entry)}</li>' for entry in entries)}</ul>"
        case Code(text):
            return f"<pre><code>{html.escape(text)}</code></pre>"
        case Picture(path, alt, caption):
            content = base64.b64encode(path.read_bytes()).decode("ascii")
            return (
                f'<figure><img src="data:image/png;base64,{content}" alt="{html.escape(alt)}">'
                f"<figcaption>{_inline(caption)}</figcaption></figure>"
            )
        case Table(header, rows, words):
            head = _html_row(header, "th", words)
            lines = "\n".join(_html_row(row, "td", words) for row in rows)
            return f"<table><thead>{head}</thead><tbody>\n{lines}\n</tbody></table>"


def _html_row(cells: Sequence[str], tag: str, words: int) -> str:
    opening = [
        f'<{tag} class="w">' if column < words else f"<{tag}>" for column in range(len(cells))
    ]
    inner = "".join(
        f"{start}{_inline(cell)}</{tag}>" for start, cell in zip(opening, cells, strict=True)
    )
    return f"<tr>{inner}</tr>"


def _inline(text: str) -> str:
    # Every second piece is code, where an asterisk has no special meaning.
    pieces = re.split(r"`([^`]+)`", html.escape(text, quote=False))
    for index, piece in enumerate(pieces):
        if index % 2:
            pieces[index] = f"<code>{piece}</code>"
        else:
            strong = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", piece)
            pieces[index] = re.sub(r"\*([^*]+)\*", r"<em>\1</em>", strong)
    return "".join(pieces)
