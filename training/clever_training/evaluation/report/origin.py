"""The origin of the figures on the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import clever_hub
from clever_training.evaluation.report.collect import Field
from clever_training.evaluation.report.document import Block, Code, Items, Table, Text


def how_measured(field: Field) -> Iterator[Block]:
    """The commands behind the figures, the photos, profiles, seeds and versions.

    Args:
        field: The content of the page.

    Yields:
        The last blocks of the page.
    """
    commands: dict[str, list[str]] = {}
    for entrant in field.entrants:
        for protocol, record in entrant.records.items():
            commands.setdefault(str(record.get("command")), []).append(protocol)
    for content in field.tuned:
        record = content["protocols"]["finetune"]
        commands.setdefault(str(record.get("command")), []).append("finetune")
    yield Text("Each figure comes from one of these commands:")
    yield Code("\n".join(f"# {', '.join(dict.fromkeys(p))}\n{c}" for c, p in commands.items()))
    if len(data := field.data()) > 1:
        yield Items(tuple(dict.fromkeys(map(described, data))))
    records = [record for entrant in field.entrants for record in entrant.records.values()]
    records += [content["protocols"]["finetune"] for content in field.tuned]
    if records:
        yield _environments(records)
    yield Text(
        f"Written by `clever-hub report`, clever-hub {clever_hub.__version__}. docs/evaluation.md "
        "explains the protocols, docs/evaluation-schema.md the keys of evaluation.json."
    )


def _environments(records: Sequence[Mapping[str, Any]]) -> Table:
    """Versions, profile and seeds, each combination once."""
    rows: dict[tuple[str, ...], None] = {}
    for record in records:
        environment = record.get("environment", {})
        seeds = len(record.get("seeds", []))
        versions = ", ".join(f"{name} {version}" for name, version in environment.items())
        rows.setdefault((str(record.get("profile", "–")), str(seeds), versions))
    return Table(("profile", "seeds", "versions"), tuple(rows), words=3)


def described(data: Mapping[str, Any]) -> str:
    """The photos of the figures, in a sentence.

    Args:
        data: A record's ``data``.

    Returns:
        The numbers of photos, and the data sets.
    """
    if videos := data.get("videos"):
        return (
            f"Measured on {videos['frames']:,} frames of {videos['videos']} videos "
            f"(`{videos['name']}`)."
        )
    train, validation = data.get("train", {}), data.get("validation", {})
    return (
        f"Fitted on {train.get('photos', 0):,} of {train.get('photos_in_all', 0):,} training "
        f"photos (`{train.get('name')}`), measured on {validation.get('photos', 0):,} validation "
        f"photos of {validation.get('classes')} classes (`{validation.get('name')}`)."
    )
