"""The content of evaluation.json and finetune.json files, ready for comparison."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from clever_hub.errors import DataError
from clever_hub.hub.evaluation import EVALUATION_NAME
from clever_training.evaluation.results import identity_of, read

FINETUNE_NAME = "finetune.json"
PARTS = ("full", "invariant", "equivariant")


class Value(NamedTuple):
    """One figure.

    Attributes:
        mean: Mean over the seeds.
        std: Sample standard deviation over the seeds; None for one seed.
        values: The figure of each seed.
    """

    mean: float
    std: float | None
    values: tuple[float, ...]

    def text(self, digits: int) -> str:
        """The figure as text, such as ``12.3 ± 0.4``; a deviation that rounds to 0 is left out.

        Example:
            >>> Value(12.34, 0.41, (12.0, 12.7)).text(1), Value(7.0, 0.0, (7.0,)).text(1)
            ('12.3 ± 0.4', '7.0')
        """
        spread = f"{self.std or 0:.{digits}f}"
        return f"{self.mean:.{digits}f}" + (f" ± {spread}" if float(spread) else "")


@dataclass(frozen=True)
class Entrant:
    """A model, or a baseline beside one.

    Attributes:
        name: Unique name for tables and legends.
        kind: ``model``, ``timm``, ``random`` or ``pixels``.
        model: Its description in evaluation.json.
        figures: protocol → condition → part → metric → figure.
        records: protocol → how its figures were made.
        folder: Folder that it was read from.
    """

    name: str
    kind: str
    model: Mapping[str, Any]
    figures: Mapping[str, Any]
    records: Mapping[str, Any] = field(default_factory=dict)
    folder: Path = Path()

    @property
    def is_baseline(self) -> bool:
        """Whether it is random weights or raw pixels."""
        return self.kind in ("random", "pixels")

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of its embedding."""
        dims = self.model["dims"]
        return tuple(part for part in PARTS if part in dims)

    def get(self, protocol: str, condition: str, part: str, metric: str) -> Value | None:
        """One figure; None when it was not measured."""
        found = self.figures.get(protocol, {}).get(condition, {}).get(part, {}).get(metric)
        if not isinstance(found, Mapping) or not isinstance(found.get("mean"), int | float):
            return None
        return Value(float(found["mean"]), found.get("std"), tuple(found.get("values") or ()))

    def conditions(self, protocol: str) -> list[str]:
        """The conditions of a protocol."""
        return list(self.figures.get(protocol, {}))

    def photos(self, protocol: str) -> int | None:
        """Number of validation photos of a protocol's figures."""
        found = self.records.get(protocol, {}).get("data", {}).get("validation", {}).get("photos")
        return int(found) if found else None

    def subset(self, protocol: str) -> str | None:
        """Hash of the validation photos of a protocol's figures; None when it is not known."""
        found = self.records.get(protocol, {}).get("data", {}).get("validation", {}).get("subset")
        return str(found) if found else None

    @property
    def sweep_photos(self) -> int | None:
        """Number of validation photos at every strength; None in older files."""
        found = self.records.get("sweeps", {}).get("settings", {}).get("sweep_photos")
        return int(found) if found else None


@dataclass(frozen=True)
class Field:
    """Everything that is on the page.

    Attributes:
        entrants: First the models in the order given, then those beside them, then baselines.
        tuned: Contents of finetune.json files.
    """

    entrants: tuple[Entrant, ...]
    tuned: tuple[Mapping[str, Any], ...] = ()

    @property
    def models(self) -> tuple[Entrant, ...]:
        """All entrants but the baselines."""
        return tuple(entrant for entrant in self.entrants if not entrant.is_baseline)

    def having(self, protocol: str) -> tuple[Entrant, ...]:
        """The entrants that a protocol measured."""
        return tuple(entrant for entrant in self.entrants if entrant.figures.get(protocol))

    def data(self) -> list[Mapping[str, Any]]:
        """The different pairs of training and validation photos."""
        found: dict[str, Mapping[str, Any]] = {}
        for entrant in self.entrants:
            for record in entrant.records.values():
                data = record.get("data", {})
                found.setdefault(json.dumps(data, sort_keys=True), data)
        return [data for data in found.values() if data]


def collect(folders: Sequence[str | Path]) -> Field:
    """Read the files in folders.

    Args:
        folders: Folders with an evaluation.json, a finetune.json or both, or with sub-folders that
            have them; or such files.

    Returns:
        Their content. A baseline that was measured beside several models appears once.

    Raises:
        DataError: When a folder has neither, or a file cannot be read.

    Example:
        >>> field = collect(["runs/a/evaluation", "runs/b/evaluation"])  # doctest: +SKIP
        >>> [entrant.name for entrant in field.entrants]  # doctest: +SKIP
        ['a', 'b', 'random resnet18', 'pixels 16x16']
    """
    evaluations: list[Path] = []
    tuned: list[Path] = []
    for folder in map(Path, folders):
        found = _files(folder)
        if not found:
            raise DataError(
                f"{folder}: expected a folder with {EVALUATION_NAME} or {FINETUNE_NAME}, found "
                "neither. Make one with clever-hub evaluate or clever-hub finetune"
            )
        evaluations += [path for path in found if path.name != FINETUNE_NAME]
        tuned += [path for path in found if path.name == FINETUNE_NAME]
    models: list[Entrant] = []
    baselines: list[Entrant] = []
    for path in evaluations:
        content = read(path)
        records = content["protocols"]
        one = _entrant(content["model"], content["figures"], records, path)
        # A baseline may have been measured by a command of its own.
        (baselines if one.is_baseline else models).append(one)
        baselines += [
            _entrant(baseline["model"], baseline["figures"], records, path)
            for baseline in content["baselines"].values()
        ]
    known = {_key(one) for one in models}
    # A model that was measured beside another and also has a folder of its own appears once.
    apart = {_key(one): one for one in _merged(baselines)}
    models = [_completed(one, apart.get(_key(one))) for one in models]
    beside = [one for key, one in apart.items() if key not in known]
    models += [one for one in beside if not one.is_baseline]
    entrants = _named_apart(models) + _named_apart([one for one in beside if one.is_baseline])
    return Field(tuple(entrants), tuple(map(_tuned, tuned)))


def _files(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    here = [folder / name for name in (EVALUATION_NAME, FINETUNE_NAME) if (folder / name).is_file()]
    if here or not folder.is_dir():
        return here
    below = [*folder.glob(f"*/{EVALUATION_NAME}"), *folder.glob(f"*/{FINETUNE_NAME}")]
    return sorted(below)


def _entrant(
    model: Mapping[str, Any], figures: Mapping[str, Any], records: Mapping[str, Any], path: Path
) -> Entrant:
    kind = str(model["kind"])
    name = {
        "random": f"random {model['architecture']}",
        "pixels": str(model["architecture"]),
    }.get(kind, str(model["name"]))
    return Entrant(name, kind, model, figures, records, path.parent)


def _key(one: Entrant) -> tuple[str, str]:
    """Weights and photos."""
    data = {json.dumps(record.get("data"), sort_keys=True) for record in one.records.values()}
    return identity_of(one.model), str(sorted(data))


def _completed(one: Entrant, beside: Entrant | None) -> Entrant:
    """A model with the protocols, too, that were measured of it beside others alone."""
    if beside is None:
        return one
    records = {name: record for name, record in beside.records.items() if name in beside.figures}
    return replace(
        one, figures={**beside.figures, **one.figures}, records={**records, **one.records}
    )


def _merged(baselines: Iterable[Entrant]) -> list[Entrant]:
    """Merge entrants with the same weights that were measured on the same photos.

    Each protocol keeps the figures with the most seeds, and their record.
    """
    merged: dict[tuple[str, str], Entrant] = {}
    for one in baselines:
        key = _key(one)
        before = merged.get(key, Entrant(one.name, one.kind, one.model, {}, {}, one.folder))
        better = {
            protocol: found
            for protocol, found in one.figures.items()
            if _seeds(found) > _seeds(before.figures.get(protocol))
        }
        records = {name: record for name, record in one.records.items() if name in better}
        merged[key] = replace(
            before, figures={**before.figures, **better}, records={**before.records, **records}
        )
    return list(merged.values())


def _seeds(figures: object) -> int:
    """Number of seeds of the figures; -1 without figures."""
    if not isinstance(figures, Mapping):
        return -1
    if "mean" in figures:
        return len(figures.get("values") or ())
    return max(map(_seeds, figures.values()), default=-1)


def _named_apart(entrants: list[Entrant]) -> list[Entrant]:
    """Add to names that several entrants share what tells these apart."""
    labels: dict[int, str] = {}
    for name in {one.name for one in entrants}:
        group = [place for place, one in enumerate(entrants) if one.name == name]
        if len(group) > 1:
            labels.update(zip(group, _labels([entrants[place] for place in group]), strict=True))
    taken = {one.name for place, one in enumerate(entrants) if place not in labels}
    named: list[Entrant] = []
    for place, one in enumerate(entrants):
        if place not in labels:
            named.append(one)
            continue
        numbered = (f", {number}" if number > 1 else "" for number in count(1))
        names = (f"{one.name} ({labels[place]}{more})" for more in numbered)
        name = next(name for name in names if name not in taken)
        taken.add(name)
        named.append(replace(one, name=name))
    return named


def _labels(group: Sequence[Entrant]) -> list[str]:
    """What tells entrants apart: the name of their data, the nearest folder, or a number."""
    # Path.resolve would follow links.
    folders = [Path(os.path.abspath(one.folder)).parts[::-1] for one in group]  # noqa: PTH100
    depths = range(min(map(len, folders)) - 1)
    tried = [
        [_data_name(one) for one in group],
        *([parts[depth] for parts in folders] for depth in depths),
        *(["/".join(parts[depth::-1]) for parts in folders] for depth in depths),
    ]
    numbers = [str(number) for number in range(1, len(group) + 1)]
    good = (labels for labels in tried if all(labels) and len(set(labels)) == len(group))
    return next(good, numbers)


def _data_name(one: Entrant) -> str:
    """The photos that an entrant was measured on, without their split; empty for several."""
    found = set()
    for record in one.records.values():
        data = record.get("data", {})
        if "validation" not in data:  # videos
            continue
        # Of a Hub id the split follows a colon.
        names = (str(data.get(p, {}).get("name", "")) for p in ("train", "validation"))
        train, validation = (Path(name.partition(":")[0]) for name in names)
        files = train != validation and train.parent == validation.parent
        found.add((files and validation.parent.name) or validation.name)
    return found.pop() if len(found) == 1 else ""


def _tuned(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(content, dict) or "finetune" not in content.get("figures", {}):
        raise DataError(f"{path}: expected what clever-hub finetune writes, with its figures")
    return content
