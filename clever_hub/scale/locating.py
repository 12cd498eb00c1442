"""Where the photos are that a table of embeddings names."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from clever_hub.scale.storage import FOLDER

_ROW = re.compile(r"(.+\.parquet)#(\d+)", re.DOTALL)


def locate_photos(paths: Sequence[Path], beside: Path) -> list[Path]:
    """Relative paths, beginning where the photos are.

    All were written from one folder. So one is chosen for all, the one with the most photos: what
    bears a photo's name elsewhere may be another photo.

    Args:
        paths: As ``embed`` wrote them; absolute ones stay as they are.
        beside: The folder of the table, absolute. What it records is asked, and those above it.

    Returns:
        The paths, as they are written where they lead to photos from the working folder, or to
        none at all.
    """
    relative = [path for path in paths if not path.is_absolute()]
    here, recorded = Path(), _recorded(beside)
    best, most = here, 0
    for folder in (here, *recorded, beside, *beside.parents):
        found = sum(_is_there(folder / path) for path in relative)
        if found > most:
            best, most = folder, found
        if found == len(relative):
            break

    def place(path: Path) -> Path:
        # Updates may have been made from several folders, which are known then.
        places = (folder / path for folder in (best, *recorded))
        return next((place for place in places if _is_there(place)), best / path)

    return [path if path.is_absolute() else place(path) for path in paths]


def table_of(path: Path) -> tuple[Path, int] | None:
    """The table and the row that a photo's name leads to; None of other names.

    Example:
        >>> table_of(Path("data/photos.parquet#17"))
        (PosixPath('data/photos.parquet'), 17)
    """
    found = _ROW.fullmatch(str(path))
    return (Path(found[1]), int(found[2])) if found else None


def _is_there(path: Path) -> bool:
    """Whether a photo's file is there, or the table of which it is a row."""
    if path.is_file():
        return True
    row = table_of(path)
    return row is not None and row[0].is_file()


def _recorded(folder: Path) -> list[Path]:
    """From where ``embed`` wrote the shards of a folder, if it says so."""
    try:
        run = json.loads((folder / FOLDER / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    folders = run.get("folders") if isinstance(run, dict) else None
    if not isinstance(folders, list):  # not of this version
        return []
    return [Path(one) for one in folders if isinstance(one, str)]
