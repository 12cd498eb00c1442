"""From a name to a model: folders, shipped models, and what an unknown name gets."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

import clever_hub
from clever_hub.errors import ConfigError, ModelFormatError, ModelNotFoundError
from clever_hub.hub import shipped as zoo
from clever_hub.hub.pins import write_pins
from clever_hub.hub.resolve import resolve


@pytest.fixture
def shipped(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that ships two models; the working folder is empty."""
    root = tmp_path / "zoo"
    for name in ("clever-tiny", "clever-tiny.rotated"):
        shutil.copytree(model_folder, root / name)
    (root / "unfinished").mkdir()
    write_pins(root)
    monkeypatch.setattr(zoo, "ZOO", root)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return root


def test_a_shipped_name(shipped: Path) -> None:
    folder, source = resolve("clever-tiny.rotated")
    assert folder == shipped / "clever-tiny.rotated"
    assert (source.kind, source.name, source.revision) == ("zoo", "clever-tiny.rotated", None)


def test_a_folder_comes_before_a_shipped_name(shipped: Path, model_folder: Path) -> None:
    shutil.copytree(model_folder, "clever-tiny")
    assert resolve("clever-tiny")[1].kind == "folder"
    (Path("clever-tiny") / "config.json").unlink()
    assert resolve("clever-tiny")[1].kind == "zoo", "a stray folder must not hide a shipped model"


def test_a_folder_is_taken_as_text_or_path(shipped: Path, model_folder: Path) -> None:
    assert resolve(str(model_folder))[0] == resolve(model_folder)[0] == model_folder


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("clever-tinny", "Did you mean 'clever-tiny'"),
        ("clever-tiny.rotate", r"Did you mean 'clever-tiny\.rotated'"),
        ("dog", r"Known: clever-tiny, clever-tiny\.rotated"),
        ("./clever-tiny", "no such folder"),
        ("someone/clever-tiny", "someone/clever-tiny: not all that is needed is in the cache"),
        ("someone/clever-tiny", "no such folder here"),
        ("clever-tinny", "and the Hub is not asked"),
        ("no/such/folder", "no such folder"),
        ("~nobody-here/model", "no such folder"),
        ("", "expected a name or a folder, got nothing"),
    ],
)
def test_an_unknown_name_says_what_is_near(shipped: Path, name: str, message: str) -> None:
    with pytest.raises(ModelNotFoundError, match=message):
        clever_hub.from_pretrained(name)


def test_a_file_is_no_model(shipped: Path, model_folder: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="expected a model folder, got a file"):
        clever_hub.from_pretrained(model_folder / "config.json")


def test_a_folder_without_config_says_what_is_missing(shipped: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match=r"with config\.json and model\.safetensors"):
        clever_hub.from_pretrained(tmp_path / "work")


def test_the_source_of_a_loaded_model(shipped: Path) -> None:
    source = clever_hub.from_pretrained("clever-tiny").source
    assert source is not None
    assert (source.kind, source.path) == ("zoo", shipped / "clever-tiny")
    assert source.weights_sha256 is not None


def test_folders_and_shipped_models_have_no_revisions(shipped: Path, model_folder: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="shipped model has no revisions"):
        clever_hub.from_pretrained("clever-tiny", revision="main")
    with pytest.raises(ModelNotFoundError, match="folder has no revisions"):
        clever_hub.from_pretrained(model_folder, revision="main")


def test_a_path_is_never_taken_for_a_repository(shipped: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no such folder"):
        clever_hub.from_pretrained(Path("someone/clever-tiny"))


def test_an_unknown_backend_is_an_error(shipped: Path) -> None:
    with pytest.raises(ConfigError, match=r"backend: unknown 'pytorch'.*'torch'"):
        clever_hub.from_pretrained("clever-tiny", backend="pytorch")


def test_a_backend_that_is_not_installed_says_how_to(
    shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r'timm.*pip install "clever-hub\[torch\]"'):
        clever_hub.from_pretrained("clever-tiny", backend="torch")
