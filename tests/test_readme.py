"""The README is true: its snippets run and print what they say, its commands exist."""

from __future__ import annotations

import contextlib
import io
import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

import clever_hub

PAGES = ("README.md", "CONTRIBUTING.md", "training/README.md", "export/README.md")
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHELL = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def expected_output(code: str) -> list[str]:
    """The comments behind `print(...)`, which state what it prints."""
    return re.findall(r"^print\(.*\)  # (.+)$", code, re.MULTILINE)


def test_readme_snippets_run_and_print_what_they_say(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All python blocks run in order, as one program, in a clone, which has their photos."""
    if "clever-resnet18" not in {model.name for model in clever_hub.list_models()}:
        pytest.skip("clever-resnet18 is not in clever_hub/zoo yet")
    monkeypatch.chdir(repository)
    blocks = BLOCK.findall((repository / "README.md").read_text(encoding="utf-8"))
    assert blocks
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for block in blocks:
            exec(compile(block, "README.md", "exec"), namespace)
    expected = expected_output("".join(blocks))
    assert expected
    assert printed.getvalue().splitlines() == expected


@pytest.mark.parametrize("page", PAGES)
def test_every_command_on_a_page_exists(repository: Path, page: str) -> None:
    """A newcomer copies `make …` and `clever-hub …` lines: each must name something real."""
    text = (repository / page).read_text(encoding="utf-8")
    code = "\n".join(SHELL.findall(text))
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    verbs = {entry.name for entry in entry_points(group="clever_hub.commands")}
    assert set(re.findall(r"^make ([a-z]+)", code, re.MULTILINE)) <= targets
    assert set(re.findall(r"^clever-hub ([a-z]+)", code, re.MULTILINE)) <= verbs


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_on_a_page_leads_somewhere(repository: Path, page: str) -> None:
    text = (repository / page).read_text(encoding="utf-8")
    links = [link for link in LINK.findall(text) if "://" not in link and not link.startswith("#")]
    folder = (repository / page).parent
    assert [link for link in links if not (folder / link.split("#")[0]).exists()] == []


def test_readme_lists_every_shipped_model(repository: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `(clever-[^`]+)` \|", text, re.MULTILINE))
    assert listed == {model.name for model in clever_hub.list_models()}


def test_the_recipe_on_the_training_page_is_valid(repository: Path) -> None:
    import yaml

    from clever_training.recipe.schema import Recipe

    text = (repository / "training" / "README.md").read_text(encoding="utf-8")
    whole, *parts = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    content = yaml.safe_load(whole)
    assert Recipe.parse(content).name == content["name"]
    for part in parts:
        Recipe.parse({**content, **yaml.safe_load(part)})


def test_recipes_on_the_pages_ship(repository: Path) -> None:
    from clever_training.recipe.reading import recipe_names

    pages = "".join((repository / page).read_text(encoding="utf-8") for page in PAGES)
    named = set(re.findall(r"clever-hub pretrain (\S+)", pages)) - {"RECIPE"}
    assert named
    assert named <= set(recipe_names())


@pytest.mark.parametrize(
    "package", ["clever_hub", "training/clever_training", "export/clever_export"]
)
def test_the_tree_for_contributors_has_a_line_for_every_folder(
    repository: Path, package: str
) -> None:
    text = (repository / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lines = re.search(rf"^{package}/.*\n((?:  \w+/ .*\n)+)", text, re.MULTILINE)
    assert lines, f"CONTRIBUTING.md has no tree of {package}"
    described = re.findall(r"^  (\w+)/ +\S", lines[1], re.MULTILINE)
    folders = [path for path in (repository / package).iterdir() if any(path.glob("[!_]*"))]
    assert set(described) == {path.name for path in folders if path.is_dir()} - {"__pycache__"}
