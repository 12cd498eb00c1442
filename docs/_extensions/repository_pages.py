"""Pages whose text lives elsewhere in the repository, and links that lead there.

On GitHub a file such as ``training/README.md`` is one page; on the site its sections are several. A
line on a page of the site

    [training/README.md](../../training/README.md#views) <!-- shown here -->

is a link on GitHub. Here the text of that section takes its place, without its heading, which the
page has itself, and without the subsections that other pages show. So every text is on the site
once, and what no other page shows is on the page that shows the whole file (a link without anchor).

Links in all pages are then turned: a link to such a file leads to the page that shows it, one to
another file of the repository to a copy of the file, and one to a folder becomes plain text.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError

REPOSITORY = Path(__file__).resolve().parents[2]
SHOWN = re.compile(r"^\[[^\]]*\]\(([^)\s]+)\) <!-- shown here -->$", re.MULTILINE)
HEADING = re.compile(r"^(#{1,6}) (.+?)\s*$")
FENCE = re.compile(r"^\s*(```+|~~~+)")
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\]|!\[[^\]]*\]\([^)]*\))*)\]\(([^)\s]+)\)")
OUTSIDE = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


@dataclass
class Section:
    """A heading with the lines up to the next heading.

    Attributes:
        level: 1 to 6.
        anchor: As GitHub makes it.
        title: The heading.
        lines: What follows.
    """

    level: int
    anchor: str
    title: str
    lines: list[str]


def anchor_of(title: str) -> str:
    """The anchor that GitHub gives a heading.

    Args:
        title: The heading, Markdown.

    Returns:
        The anchor, without ``#``.
    """
    plain = re.sub(r"[`*]|\]\([^)]*\)", "", title).lower()
    return re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-")


def sections_of(text: str) -> list[Section]:
    """Cut Markdown at its headings, but not at comments in code.

    Args:
        text: A page that begins with a heading.

    Returns:
        Its sections, in order.
    """
    found: list[Section] = []
    fence = ""
    for line in text.splitlines():
        mark = FENCE.match(line)
        if mark:
            fence = mark[1] if not fence else ("" if mark[1].startswith(fence) else fence)
        heading = None if fence or mark else HEADING.match(line)
        if heading:
            found.append(Section(len(heading[1]), anchor_of(heading[2]), heading[2], []))
        elif found:
            found[-1].lines.append(line)
    return found


class Shown:
    """Which page shows which section of which file.

    Args:
        pages: The folder of the site's pages.
        names: The pages' names, without suffix.
    """

    def __init__(self, pages: Path, names: list[str]) -> None:
        self.files: dict[Path, list[Section]] = {}
        self.page: dict[tuple[Path, str], str] = {}  # file, anchor or "": page that names it
        for name in names:
            page = pages / f"{name}.md"
            text = page.read_text(encoding="utf-8") if page.exists() else ""
            for link in SHOWN.findall(text):
                path, anchor = self.target(page, link)
                if not path.is_file():
                    raise ExtensionError(f"{page}: no file {path} to show")
                if path not in self.files:
                    self.files[path] = sections_of(path.read_text(encoding="utf-8"))
                if anchor and all(each.anchor != anchor for each in self.files[path]):
                    raise ExtensionError(f"{page}: {path} has no heading #{anchor} to show")
                self.page[path, anchor] = str(page)

    @staticmethod
    def target(page: Path, link: str) -> tuple[Path, str]:
        """The file and the anchor that a link on a page names."""
        path, _, anchor = link.partition("#")
        return Path(os.path.normpath(page.parent / path)), anchor

    def text(self, path: Path, anchor: str) -> str:
        """What a page shows of a file: the section without what other pages show of it."""
        sections = self.files[path]
        start = next((i for i, each in enumerate(sections) if each.anchor == anchor), 0)
        top = sections[start].level
        lines = list(sections[start].lines)
        hidden = 0  # the level of a subsection that another page shows
        for each in sections[start + 1 :]:
            if each.level <= top:
                break
            if hidden and each.level > hidden:
                continue
            hidden = each.level if (path, each.anchor) in self.page else 0
            if not hidden:
                depth = max(2, each.level - top + 1)
                lines += [f"{'#' * depth} {each.title}", *each.lines]
        return "\n".join(lines).strip() + "\n"

    def home(self, path: Path, anchor: str) -> tuple[Path, str] | None:
        """Where a section is on the site: the page, and the anchor there; None if nowhere."""
        if path not in self.files:
            return None
        if (path, anchor) in self.page:
            return Path(self.page[path, anchor]), ""
        place, level = None, 0
        for each in self.files[path]:  # the page of the innermost section around it
            if (path, each.anchor) in self.page:
                place, level = self.page[path, each.anchor], each.level
            elif each.level <= level:
                place, level = None, 0
            if each.anchor == anchor:
                break
        place = place or self.page.get((path, ""))
        return (Path(place), anchor) if place else None


@dataclass(frozen=True)
class Turn:
    """Makes the links of a file right for the page that shows it.

    Attributes:
        origin: The file.
        page: The page.
        pages: The folder of the site's pages.
        shown: Which page shows what.
    """

    origin: Path
    page: Path
    pages: Path
    shown: Shown

    def text(self, text: str) -> str:
        """Turn the links of Markdown, but not in blocks of code."""
        parts, prose, fence = [], "", ""
        for line in text.splitlines(keepends=True):
            mark = FENCE.match(line)
            if not fence and not mark:
                prose += line
                continue
            parts += [LINK.sub(self._link, prose), line]
            prose = ""
            if mark:
                fence = mark[1] if not fence else ("" if mark[1].startswith(fence) else fence)
        return "".join([*parts, LINK.sub(self._link, prose)])

    def _link(self, match: re.Match[str]) -> str:
        image, label, link = match[1], LINK.sub(self._link, match[2]), match[3]
        target = link if OUTSIDE.match(link) else self._target(link, image=bool(image))
        return f"{image}[{label}]({target})" if target else label

    def _target(self, link: str, *, image: bool) -> str:
        """Where a link leads to from the page; nothing for a folder, which is no page."""
        path, anchor = (
            (self.origin, link[1:]) if link[0] == "#" else Shown.target(self.origin, link)
        )
        home = self.shown.home(path, anchor)
        if home:
            path, anchor = home
        elif path.is_dir() and not image:
            return ""
        elif not path.exists():
            return link  # Sphinx says what is missing
        elif not path.is_relative_to(self.pages):
            anchor = ""  # a copy of the file; of Markdown, MyST has to be told
        if path == self.page and anchor:
            return f"#{anchor}"
        relative = Path(os.path.relpath(path, self.page.parent)).as_posix()
        if path.suffix == ".md" and not path.is_relative_to(self.pages):
            return f"path:{relative}"
        return f"{relative}#{anchor}" if anchor else relative


def find_pages(app: Sphinx, env: BuildEnvironment, names: list[str]) -> None:
    """Learn which page shows what, before pages are read."""
    del names
    app.repository_pages = Shown(Path(app.srcdir), sorted(env.found_docs))  # type: ignore[attr-defined]


def read_page(app: Sphinx, name: str, content: list[str]) -> None:
    """Put the texts from elsewhere into a page, and turn its links."""
    shown: Shown = app.repository_pages  # type: ignore[attr-defined]
    pages = Path(app.srcdir)
    page = pages / f"{name}.md"
    parts, last = [], 0
    own = Turn(page, page, pages, shown)
    for match in SHOWN.finditer(content[0]):
        path, anchor = Shown.target(page, match[1])
        app.env.note_dependency(path)
        parts.append(own.text(content[0][last : match.start()]))
        parts.append(Turn(path, page, pages, shown).text(shown.text(path, anchor)))
        last = match.end()
    content[0] = "".join([*parts, own.text(content[0][last:])])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("env-before-read-docs", find_pages)
    app.connect("source-read", read_page)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
