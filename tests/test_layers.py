"""The floors of the house: imports go one way, between packages, folders and files."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "clever_hub": ROOT / "clever_hub",
    "clever_training": ROOT / "training" / "clever_training",
    "clever_export": ROOT / "export" / "clever_export",
}
# The shipped models carry copies of code for other readers.
DATA = ROOT / "clever_hub" / "zoo"

Graph = dict[str, set[str]]


def modules() -> dict[str, Path]:
    """Every module of the three packages by its dotted name, all but the packages' own faces."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            if DATA not in path.parents and parts != ("__init__",):
                found[".".join((package, *parts)).removesuffix(".__init__")] = path
    return found


def imported(source: str) -> Iterator[str]:
    """What a file imports anywhere, inside functions and for type checkers too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def graph() -> Graph:
    """Which module imports which."""
    files = modules()
    return {
        name: {target for target in imported(path.read_text("utf-8")) if target in files} - {name}
        for name, path in files.items()
    }


def by_folder(imports: Graph, package: str) -> Graph:
    """The same between the folders and the single files of a package."""

    def room(name: str) -> str:
        return ".".join(name.split(".")[:2])

    found: Graph = {}
    for name, targets in imports.items():
        if name.startswith(f"{package}."):
            rooms = {room(target) for target in targets if target.startswith(f"{package}.")}
            found.setdefault(room(name), set()).update(rooms - {room(name)})
    return found


def circle(imports: Graph) -> list[str]:
    """Modules that import each other in a circle; empty when there is none."""
    left = {name: set(targets) for name, targets in imports.items()}
    while free := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in free:
            del left[name]
    return sorted(left)


def test_no_file_imports_in_a_circle() -> None:
    imports = graph()
    assert len(imports) > 100, "the walk has missed the packages"
    assert circle(imports) == []


def test_folders_of_training_import_one_way() -> None:
    rooms = by_folder(graph(), "clever_training")
    assert {"clever_training.run", "clever_training.views"} <= rooms.keys()
    assert circle(rooms) == []


@pytest.mark.parametrize("package", ["clever_training", "clever_export"])
def test_the_hub_imports_nothing_that_stands_on_it(package: str) -> None:
    for name, path in modules().items():
        if name.startswith("clever_hub."):
            upward = [target for target in imported(path.read_text("utf-8")) if package in target]
            assert not upward, f"{name} imports {upward}"


def test_training_and_export_do_not_know_each_other() -> None:
    imports = graph()
    for name, targets in imports.items():
        other = {"clever_training": "clever_export", "clever_export": "clever_training"}
        package = name.partition(".")[0]
        if package in other:
            assert not [t for t in targets if t.startswith(other[package])], name


def test_a_circle_would_be_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["a", "b", "c"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_an_import_is_found_wherever_it_stands() -> None:
    source = "def f():\n    from a.b import c\nif TYPE_CHECKING:\n    import d.e\n"
    assert set(imported(source)) == {"a.b", "a.b.c", "d.e"}
