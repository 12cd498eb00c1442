"""A shipped file that was changed, removed or never pinned is refused."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import clever_hub
from clever_hub.errors import ModelFormatError
from clever_hub.hub import shipped
from clever_hub.hub.pins import PINS_NAME, check_pins, read_pins, write_pins
from clever_hub.hub.resolve import resolve


@pytest.fixture
def root(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that ships the tiny model, pinned."""
    root = tmp_path / "zoo"
    shutil.copytree(model_folder, root / "clever-tiny")
    (root / "clever-tiny" / "verify.json").write_text("{}")
    write_pins(root)
    monkeypatch.setattr(shipped, "ZOO", root)
    return root


def test_every_file_of_the_package_is_pinned() -> None:
    pins = read_pins(shipped.ZOO)
    assert sorted(pins) == shipped.model_names()
    for name in shipped.model_names():
        files = {path.name for path in (shipped.ZOO / name).iterdir() if path.is_file()}
        assert pins[name].keys() == files - {"verify.json"}
        _, source = resolve(name)
        assert source.weights_sha256 == pins[name]["model.safetensors"]


def test_git_leaves_what_is_pinned_as_it_is(repository: Path) -> None:
    # On Windows it would else turn line ends on checkout, and no hash would be right.
    command = ["git", "check-attr", "text", "clever_hub/zoo/clever-resnet18/config.json"]
    found = subprocess.run(command, cwd=repository, check=True, capture_output=True, text=True)
    assert found.stdout.endswith("text: unset\n")


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum on this machine")
def test_the_usual_tool_can_check_them(root: Path) -> None:
    subprocess.run(["sha256sum", "--check", "--quiet", PINS_NAME], cwd=root, check=True)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_changed_file_is_refused(root: Path, name: str) -> None:
    clever_hub.from_pretrained("clever-tiny")
    path = root / "clever-tiny" / name
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelFormatError, match=rf"{name}: expected SHA-256 .* Install clever-hub"):
        clever_hub.from_pretrained("clever-tiny")


def test_a_file_that_is_gone_is_named(root: Path) -> None:
    (root / "clever-tiny" / "config.json").rename(root / "config.json")
    with pytest.raises(ModelFormatError, match=r"config\.json: a shipped file is missing"):
        check_pins(root / "clever-tiny")


def test_a_model_that_was_never_pinned_is_refused(root: Path) -> None:
    shutil.copytree(root / "clever-tiny", root / "clever-added")
    with pytest.raises(ModelFormatError, match="expected the hashes of clever-added, found none"):
        clever_hub.from_pretrained("clever-added")
    (root / PINS_NAME).unlink()
    with pytest.raises(ModelFormatError, match="expected the hashes of clever-tiny, found none"):
        clever_hub.from_pretrained("clever-tiny")


def test_the_users_own_report_may_change(root: Path) -> None:
    (root / "clever-tiny" / "verify.json").write_text('{"green": true}')
    clever_hub.from_pretrained("clever-tiny")


@pytest.mark.parametrize("line", ["{}  ../up/config.json", "{}  a/b/c", "abc  a/b", "{} a/b"])
def test_a_list_cannot_lead_out_of_the_folder(root: Path, line: str) -> None:
    (root / PINS_NAME).write_text(line.format("0" * 64) + "\n")
    with pytest.raises(ModelFormatError, match="expected 'HASH  MODEL/FILE'"):
        read_pins(root)
