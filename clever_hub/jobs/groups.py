"""Groups of copies as rows of a table and of a page: who is a copy of whom, and what was done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clever_hub.jobs.duplicates import Duplicates, Verdict, Verify
from clever_hub.jobs.photo_files import file_bytes, image_size
from clever_hub.jobs.rows import Photo
from clever_hub.jobs.sheets import ACROSS, Shown, ShownRow

# What is said of a pair of copies; ``relation_columns`` fills all but the cosine.
PAIR_COLUMNS: dict[str, type] = {
    "words": str,
    "cosine": float,
    "angle": float,
    "mirrored": bool,
    "zoom": float,
    "shift_x": float,
    "shift_y": float,
    "shown": float,
    "own": float,
    "same": float,
}
COLUMNS: dict[str, type] = {
    "group": int,
    "path": str,
    "best": bool,
    "width": int,
    "height": int,
    "bytes": int,
    "of": str,
    **PAIR_COLUMNS,
}


@dataclass(frozen=True)
class Member:
    """A photo of a group.

    Attributes:
        row: Its row.
        of: The row that it is told from; None of the best, of which nothing was done.
        verdict: What was done to ``of`` to make it; None without a verification.
        cosine: Of the two, where they were candidates.
    """

    row: int
    of: int | None = None
    verdict: Verdict | None = None
    cosine: float | None = None


def members(found: Duplicates, verify: Verify | None = None) -> list[list[Member]]:
    """The photos of each group, the best first, each told from the best where that can be.

    Args:
        found: What ``find_duplicates`` gave.
        verify: Looks at those that were no candidates of their group's best.

    Returns:
        A list for each group.
    """
    known = {
        (int(a), int(b)): (place, float(cosine))
        for place, (a, b, cosine) in enumerate(zip(*found.pairs, strict=True))
    }
    open_pairs = [
        (int(rows[0]), int(row))
        for rows in found.groups
        for row in rows[1:]
        if (int(rows[0]), int(row)) not in known
    ]
    looked = dict(zip(open_pairs, _look(open_pairs, verify), strict=True))
    links: dict[int, tuple[int, int]] = {}
    for (a, b), (place, _) in known.items():
        links.setdefault(b, (a, place))

    def member(best: int, row: int) -> Member:
        if (best, row) in known:
            place, cosine = known[best, row]
            return Member(row, best, _at(found.verdicts, place), cosine)
        verdict = looked.get((best, row))
        if verdict is not None and verdict.same >= 0.5:
            return Member(row, best, verdict)
        if row in links:
            of, place = links[row]
            return Member(row, of, _at(found.verdicts, place), known[of, row][1])
        return Member(row, best)

    return [
        [Member(int(rows[0])), *(member(int(rows[0]), int(row)) for row in rows[1:])]
        for rows in found.groups
    ]


def table(groups: Sequence[Sequence[Member]], paths: Sequence[Photo]) -> list[dict[str, Any]]:
    """A row for each photo of a group, in the columns ``COLUMNS``; the groups are numbered from 1.

    Args:
        groups: What ``members`` gave.
        paths: Where each row's photo is.
    """
    rows = []
    for number, group in enumerate(groups, 1):
        for member in group:
            width, height = image_size(paths[member.row])
            rows.append(
                {
                    "group": number,
                    "path": paths[member.row],
                    "best": member.of is None,
                    "width": width,
                    "height": height,
                    "bytes": file_bytes(paths[member.row]),
                    "of": None if member.of is None else paths[member.of],
                    "cosine": member.cosine,
                    **relation_columns(member.verdict),
                }
            )
    return rows


def relation_columns(verdict: Verdict | None) -> dict[str, Any]:
    """What a verdict says, as columns; those that it does not know are left out."""
    if verdict is None:
        return {}
    names = ("angle", "mirrored", "zoom", "shown", "own")
    values = {name: getattr(verdict, name, None) for name in names}
    x, y = getattr(verdict, "shift", None) or (None, None)
    return {
        "words": verdict.words(),
        "same": float(verdict.same),
        **values,
        "shift_x": x,
        "shift_y": y,
    }


def shown(
    groups: Sequence[Sequence[Member]],
    paths: Sequence[Photo],
    why: Callable[[Sequence[int]], str],
) -> list[ShownRow]:
    """The groups as rows of a page: what was done to the best photo stands below each other one.

    Args:
        groups: What ``members`` gave.
        paths: Where each row's photo is.
        why: Says why the first of a group's rows is its best.
    """
    rows = []
    for number, group in enumerate(groups, 1):
        best = group[0].row
        kept = f"{why([member.row for member in group])}, kept"
        photos = []
        for member in group[:ACROSS]:
            path = paths[member.row]
            title = kept if member.of is None else "alike"
            if member.verdict is not None:
                title = member.verdict.words()
            if member.of is not None and member.of != best:
                title += f" (from {paths[member.of].name})"
            width, height = image_size(path)
            size = f"{width} × {height}, {file_bytes(path) / 1e3:,.0f} kB"
            photos.append(Shown(path, title, size))
        more = len(group) - len(photos)
        rows.append(ShownRow(f"Group {number}: {len(group)} photos", photos, more=more))
    return rows


def _look(pairs: list[tuple[int, int]], verify: Verify | None) -> Sequence[Verdict | None]:
    if verify is None or not pairs:
        return [None] * len(pairs)
    a, b = np.array(pairs, np.int64).T
    return verify(a, b)


def _at(verdicts: Sequence[Verdict], place: int) -> Verdict | None:
    return verdicts[place] if verdicts else None
