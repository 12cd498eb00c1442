"""A public function that wants a path takes text as well: users write ``"photos/"``."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clever_hub.errors import DataError
from clever_hub.jobs.embedded import read_embeddings
from clever_hub.jobs.search import PhotoIndex
from clever_training.evaluation import results
from clever_training.evaluation.videos import find_videos

PACKAGES = (
    *("clever_hub", "clever_hub.scale", "clever_hub.transformers"),
    *("clever_training", "clever_export"),
)
# What is given back; nobody makes one.
RESULTS = {"clever_hub.jobs.search.Hit", "clever_hub.jobs.embedded.EmbeddedPhotos"}
DIRECTIVE = re.compile(
    r"^\.\. (currentmodule|autofunction|autoclass|automethod):: (\S+)", re.MULTILINE
)
IN_CODE = re.compile(r"^\s*from (clever_\S+) import (\w[\w, ]*)$", re.MULTILINE)


def documented(repository: Path) -> dict[str, Any]:
    """Everything that ``docs/api`` describes, that a page imports or a package lists, by name."""
    found: dict[str, Any] = {}
    for page in sorted((repository / "docs").rglob("*.md")):
        text, module = page.read_text(encoding="utf-8"), ""
        for kind, name in DIRECTIVE.findall(text):
            if kind == "currentmodule":
                module = name
            else:
                found[f"{module}.{name}"] = resolve(module, name)
        for module, names in IN_CODE.findall(text):
            for name in names.split(", "):
                found[f"{module}.{name}"] = resolve(module, name)
    for package in PACKAGES:
        for name in importlib.import_module(package).__all__:
            found[f"{package}.{name}"] = resolve(package, name)
    return found


def resolve(module: str, name: str) -> Any:
    """A module's attribute, or an attribute of that."""
    value: Any = importlib.import_module(module)
    for part in name.split("."):
        value = getattr(value, part)
    return value


def callables(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A function, or a class's constructor and public methods."""
    if not inspect.isclass(value):
        if callable(value):
            yield name, value
        return
    yield name, value.__init__
    for method, found in vars(value).items():
        inner = getattr(found, "__func__", found)
        if not method.startswith("_") and inspect.isfunction(inner):
            yield f"{name}.{method}", inner


def paths_alone(function: Any) -> list[str]:
    """The parameters that are said to take a ``Path`` and no text."""
    wrong = []
    for parameter in inspect.signature(function).parameters.values():
        kinds = set(re.findall(r"[\w.]+", str(parameter.annotation)))
        if kinds & {"Path", "pathlib.Path"} and not kinds & {"str", "os.PathLike", "PathLike"}:
            wrong.append(parameter.name)
    return wrong


def test_no_public_function_wants_a_path_object(repository: Path) -> None:
    found = documented(repository)
    assert len(found) > 80
    assert "clever_hub.jobs.embedded.read_embeddings" in found
    wrong = {
        name: parameters
        for each, value in found.items()
        if each not in RESULTS
        for name, function in callables(each, value)
        if (parameters := paths_alone(function))
    }
    assert not wrong


def test_the_check_sees_a_parameter_that_takes_a_path_alone() -> None:
    def bad(one: Path, two: str | Path, three: Path | None = None) -> None: ...

    assert paths_alone(bad) == ["one", "three"]


def test_a_file_that_is_not_there_is_named_when_it_was_given_as_text(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    calls: tuple[Callable[[str], object], ...] = (
        read_embeddings,
        PhotoIndex.open,
        results.read,
        find_videos,
    )
    for call in calls:
        with pytest.raises(DataError, match="missing"):
            call(missing)
