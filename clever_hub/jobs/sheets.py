"""Answers to look at: a page of photos in rows, and the same as one picture."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from clever_hub.errors import ImageError, MissingExtraError
from clever_hub.files import atomic_path, write_text
from clever_hub.fonts import cut, width_of, write
from clever_hub.images.opening import load_image
from clever_hub.jobs.rows import Photo
from clever_hub.jobs.tables import text_of

PAGE, SHEETS = ".html", (".png", ".jpg")  # endings of what is written
SIDE = 200  # pixels of a thumbnail's longer side
ACROSS = 50  # photos of a row at most: a placeholder may have 20,000 copies, of 8 kB each
_INK, _FAINT, _PAPER, _MARK = "#222222", "#6b6b6b", "#ffffff", "#0072B2"

_STYLE = """
body{font:16px/1.45 system-ui,sans-serif;color:#222;background:#fff;margin:2rem auto;
max-width:76rem;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.05rem;margin:2rem 0 .6rem}
.row{display:flex;flex-wrap:wrap;gap:1rem;border-top:1px solid #ccc;padding-top:.8rem}
figure{margin:0;width:200px}
figure img{max-width:200px;max-height:200px;display:block;border:3px solid transparent}
figure.first img{border-color:#0072B2}
.gone{width:200px;height:120px;background:#eee;color:#6b6b6b;display:flex;align-items:center;
justify-content:center}
figcaption{font-size:.85rem;overflow-wrap:anywhere}
figcaption b{display:block}figcaption span{color:#6b6b6b}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}.row{border-color:#444}
figcaption span{color:#aaa}.gone{background:#333;color:#bbb}figure.first img{border-color:#56B4E9}}
"""


@dataclass(frozen=True)
class Shown:
    """A photo and what is written under it.

    Attributes:
        path: Where it is.
        title: In bold, such as ``"mirrored, turned by 90° clockwise"``.
        note: Small, such as its size.
    """

    path: Photo
    title: str
    note: str = ""


@dataclass(frozen=True)
class ShownRow:
    """Photos that belong together.

    Attributes:
        heading: Above them.
        photos: From left to right.
        mark: Whether the first is marked, where there are others.
        more: How many photos belong to it besides; they are counted, and not shown.
    """

    heading: str
    photos: Sequence[Shown]
    mark: bool = True
    more: int = 0


def write_page(path: Path, title: str, summary: Sequence[str], rows: Sequence[ShownRow]) -> Path:
    """Write a page of one file, thumbnails inside, that opens in any browser without a network.

    Args:
        path: Its name.
        title: Its heading.
        summary: Paragraphs below it.
        rows: The photos.

    Returns:
        The path.
    """
    text = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{html.escape(title)}</h1>",
        *(f"<p>{html.escape(line)}</p>" for line in summary),
    ]
    for row in rows:
        text += [f"<h2>{html.escape(row.heading)}</h2>", '<div class="row">']
        text += [_figure(photo, first) for first, photo in _marked(row)]
        text.append("</div>")
        if row.more:
            text.append(f"<p>and {row.more:,} more; a table has them all.</p>")
    # Names of files need not be text.
    return write_text(path, text_of("\n".join([*text, "</body></html>", ""])))


def write_sheet(path: Path, title: str, rows: Sequence[ShownRow], columns: int = 6) -> Path:
    """Write the photos as one picture.

    Args:
        path: Its name, ``.png``, ``.jpg`` or ``.webp``.
        title: Above them.
        rows: The photos; of each row as many as fit, and beside its heading how many more it has.
        columns: How many fit.

    Returns:
        The path.
    """
    pad, caption, heading = 16, 74, 40
    cell = SIDE + pad
    height = 56 + len(rows) * (SIDE + caption + heading + pad) + pad
    width = max(pad + columns * cell, 640)
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    write(draw, (pad, 16), _fit(title, width - 2 * pad, 22), _INK, 22)
    y = 56
    for row in rows:
        draw.line((pad, y, width - pad, y), "#cccccc")
        left = width - pad
        if (rest := len(row.photos) + row.more - columns) > 0:
            more = f"+{rest} more"
            write(draw, (left, y + 8), more, _FAINT, 16, right=True)
            left -= round(width_of(more, 16))
        write(draw, (pad, y + 8), _fit(row.heading, left - 2 * pad, 16), _INK, 16)
        for place, (first, photo) in enumerate(_marked(row)[:columns]):
            _draw_photo(sheet, (pad + place * cell, y + heading), photo, first)
        y += SIDE + caption + heading + pad
    with atomic_path(path) as temporary:
        sheet.save(temporary)
    return path


def thumbnail(path: Photo, side: int = SIDE) -> Image.Image | None:
    """A photo, upright, its longer side at most ``side`` pixels; None where it cannot be read."""
    try:
        image = load_image(path, target=side, decode="reduced")
    except (ImageError, MissingExtraError):
        return None
    image.thumbnail((side, side))
    return image


def _marked(row: ShownRow) -> list[tuple[bool, Shown]]:
    mark = row.mark and len(row.photos) > 1
    return [(mark and place == 0, photo) for place, photo in enumerate(row.photos)]


def _figure(photo: Shown, first: bool) -> str:
    image = thumbnail(photo.path)
    name = html.escape(str(photo.path))
    if image is None:
        picture = '<div class="gone">cannot be read</div>'
    else:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=80)
        data = base64.b64encode(file.getvalue()).decode()
        alt = html.escape(photo.path.name, quote=True)
        picture = f'<img alt="{alt}" src="data:image/jpeg;base64,{data}">'
    kind = ' class="first"' if first else ""
    note = f"<br><span>{html.escape(photo.note)}</span>" if photo.note else ""
    caption = f"<b>{html.escape(photo.title)}</b>{name}{note}"
    return f"<figure{kind}>{picture}<figcaption>{caption}</figcaption></figure>"


def _draw_photo(sheet: Image.Image, corner: tuple[int, int], photo: Shown, first: bool) -> None:
    draw = ImageDraw.Draw(sheet)
    x, y = corner
    image = thumbnail(photo.path, SIDE - 6)
    if image is None:
        draw.rectangle((x, y, x + SIDE - 6, y + SIDE - 6), "#eeeeee")
        write(draw, (x + 40, y + 90), "cannot be read", _FAINT, 14)
    else:
        top = y + SIDE - 6 - image.height
        sheet.paste(image, (x + 3, top + 3))
        if first:
            box = (x, top, x + image.width + 5, top + image.height + 5)
            draw.rectangle(box, outline=_MARK, width=3)
    lines = [(line, _INK) for line in _wrapped(photo.title, SIDE - 6, 13)]
    lines.append((_fit(photo.path.name, SIDE - 6, 13), _FAINT))
    lines += [(line, _FAINT) for line in _wrapped(photo.note, SIDE - 6, 13)]
    for number, (text, colour) in enumerate(lines):
        write(draw, (x, y + SIDE + 4 + 17 * number), text, colour, 13)


def _wrapped(text: str, width: int, size: int) -> list[str]:
    """The text on two lines at most."""
    words, first = _line(text).split(" "), 0
    while first < len(words) and width_of(" ".join(words[: first + 1]), size) < width:
        first += 1
    rest = " ".join(words[first:])
    return (
        [" ".join(words[:first]), _fit(rest, width, size)]
        if first and rest
        else [_fit(text, width, size)]
    )


def _fit(text: str, width: int, size: int) -> str:
    """The text, cut at the end so that it fits."""
    return cut(_line(text), width, size)


def _line(text: str) -> str:
    """The text on one line: names of files may have several."""
    return " ".join(text_of(text).splitlines())
