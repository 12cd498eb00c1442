"""Version, citation and changelog say the same."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

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
