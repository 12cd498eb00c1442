"""What a user gets from `pip install`: the built wheel, opened and read."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

PACKAGES = {"clever_hub", "clever_training", "clever_export"}
LIMIT = 100_000_000  # bytes; PyPI refuses wheels above 100 MB


@pytest.fixture(scope="session")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built with the backend installed here (nothing is downloaded)."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def contents(wheel: Path) -> set[str]:
    """The names of all files in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def entry_points(wheel: Path) -> ConfigParser:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/entry_points.txt"))
        parser = ConfigParser(delimiters=("=",))
        parser.read_string(archive.read(name).decode())
    return parser


def test_top_level_names_are_the_three_packages_and_nothing_else(contents: set[str]) -> None:
    """`training` or `export` at the top of site-packages would clash with other people's code."""
    top = {name.split("/")[0] for name in contents}
    (dist_info,) = (name for name in top if name.endswith(".dist-info"))
    assert dist_info.startswith("clever_hub-")
    assert top - {dist_info} == PACKAGES


def test_each_package_says_that_it_is_typed(contents: set[str]) -> None:
    assert {f"{package}/py.typed" for package in PACKAGES} <= contents


def test_every_module_of_the_repository_is_inside(repository: Path, contents: set[str]) -> None:
    roots = {
        "clever_hub": repository,
        "clever_training": repository / "training",
        "clever_export": repository / "export",
    }
    modules = {
        path.relative_to(root).as_posix()
        for package, root in roots.items()
        for path in (root / package).rglob("*.py")
    }
    assert modules
    assert modules <= contents


def test_every_shipped_model_is_inside_whole(repository: Path, contents: set[str]) -> None:
    """Hatchling leaves out files that .gitignore names; weights would be the first to go."""
    zoo = repository / "clever_hub" / "zoo"
    models = [config.parent for config in zoo.glob("*/config.json")]
    if not models:
        pytest.skip("no model in clever_hub/zoo yet")
    for model in models:
        files = {f"clever_hub/zoo/{model.name}/{file.name}" for file in model.iterdir()}
        assert f"clever_hub/zoo/{model.name}/model.safetensors" in contents
        assert files <= contents


def test_the_servers_page_is_inside_whole(repository: Path, contents: set[str]) -> None:
    page = repository / "clever_hub" / "serve" / "page"
    files = {f.relative_to(repository).as_posix() for f in page.rglob("*") if f.is_file()}
    assert {"clever_hub/serve/page/index.html", "clever_hub/serve/page/gallery/cat.jpg"} <= files
    assert files <= contents


def test_the_font_of_pictures_is_inside_with_its_licence(contents: set[str]) -> None:
    assert {"clever_hub/fonts/DejaVuSans.ttf", "clever_hub/fonts/LICENSE"} <= contents


def test_wheel_fits_a_package_index(wheel: Path) -> None:
    assert wheel.stat().st_size < LIMIT


def test_licence_travels_with_the_code(contents: set[str]) -> None:
    names = {name.rsplit("/", 1)[-1] for name in contents if "/licenses/" in name}
    assert {"LICENSE", "NOTICE"} <= names


def test_every_command_points_at_a_module_of_the_wheel(wheel: Path, contents: set[str]) -> None:
    """A verb whose module is not shipped would be listed and fail for every user."""
    parser = entry_points(wheel)
    targets = {
        name: EntryPoint(name, value, group).module
        for group in parser.sections()
        for name, value in parser.items(group)
    }
    assert "clever-hub" in targets
    for name, module in targets.items():
        path = module.replace(".", "/")
        assert {f"{path}.py", f"{path}/__init__.py"} & contents, f"{name} names {module}"


def test_the_source_distribution_is_no_larger_than_an_index_takes(
    repository: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = tmp_path.glob("*.tar.gz")
    assert built.stat().st_size < LIMIT
    with tarfile.open(built) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "clever_hub/__init__.py", "examples/demo.py"} <= names
    assert any(name.startswith("clever_hub/zoo/clever-resnet50/") for name in names)
