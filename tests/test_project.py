"""Version, citation and changelog say the same."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

import clever_hub
from clever_export.card_text import CITATION


def test_every_place_has_the_version_of_the_package(repository: Path) -> None:
    citation = yaml.safe_load((repository / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == clever_hub.__version__
    changes = (repository / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", changes, re.MULTILINE)
    assert released[0] == clever_hub.__version__
    assert len(released) == len(set(released))


def test_everywhere_the_same_paper_is_cited(repository: Path) -> None:
    paper = yaml.safe_load((repository / "CITATION.cff").read_text("utf-8"))["preferred-citation"]
    project = tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["urls"]["Paper"] == paper["url"]
    readme = (repository / "README.md").read_text(encoding="utf-8")
    for text in (CITATION, readme):
        assert paper["title"] in text
        assert paper["journal"] in text
        assert f"{paper['authors'][0]['family-names']}, Sifan" in text


def test_what_the_security_page_names_exists(repository: Path) -> None:
    text = (repository / "SECURITY.md").read_text(encoding="utf-8")
    for path in re.findall(r"`(\w+(?:/\w+)+\.py)`", text):
        assert (repository / path).is_file(), path


ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(
    path.relative_to(ROOT)
    for name in ("benchmarks", "examples")
    for path in ROOT.glob(f"{name}/**/*.py")
)


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_what_a_script_imports_from_here_exists(script: Path) -> None:
    """Nobody runs benchmarks when a module moves."""
    for node in ast.walk(ast.parse((ROOT / script).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("clever_"):
            module = import_module(str(node.module))
            for name in (alias.name for alias in node.names):
                assert hasattr(module, name) or find_spec(f"{node.module}.{name}"), name
