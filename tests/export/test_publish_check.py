"""A folder is published only when every reader can rely on it."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import clever_hub
from clever_export.card import write_card
from clever_export.package import copy_model, package
from clever_export.publish_check import check_folder
from clever_export.verify import verify
from clever_hub.errors import ModelFormatError
from clever_hub.files import write_json
from clever_hub.weights import sha256_of
from tests.hub.jobs.conftest import write_heads

Exported = Callable[..., Path]


@pytest.fixture(scope="module")
def packaged(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete folder."""
    folder = tmp_path_factory.mktemp("packaged") / "model"
    shutil.copytree(exported("test_resnet"), folder)
    return package(folder)


@pytest.fixture
def folder(packaged: Path, tmp_path: Path) -> Path:
    """A folder that is ready; to be spoilt."""
    folder = tmp_path / "model"
    shutil.copytree(packaged, folder)
    digest = sha256_of(folder / "model.safetensors")
    write_json(folder / "verify.json", {"green": True, "weights_sha256": digest})
    return folder


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def _flip_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _other_graph(folder: Path) -> None:
    path = folder / "verify.json"
    write_json(path, {**json.loads(path.read_text()), "graph_sha256": "0" * 64})


def _link(folder: Path) -> None:
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to("/etc/hostname")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("invariant_dim", 75, r"invariant_dim is 75, model\.onnx was made with 76"),
        (
            "model_args",
            {"drop_path_rate": 0.1},
            r"config\.json is not what was exported, in model_args\. Export",
        ),
    ],
)
def test_a_config_that_was_edited_after_it_was_verified_is_named(
    key: str, value: object, message: str, folder: Path
) -> None:
    path = folder / "config.json"
    write_json(path, {**json.loads(path.read_text()), key: value})
    with pytest.raises(ModelFormatError, match=message):
        check_folder(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [("0.485", "0.5", r"differs from config\.json in mean\."), ("{", "[", "cannot be read")],
)
def test_a_processor_of_other_numbers_is_named(
    folder: Path, old: str, new: str, message: str
) -> None:
    _edit(folder / "preprocessor_config.json", old, new)
    with pytest.raises(ModelFormatError, match=rf"preprocessor_config\.json {message}"):
        check_folder(folder)


def test_a_ready_folder_passes(folder: Path) -> None:
    names = [path.name for path in check_folder(folder)]
    assert names == sorted(path.name for path in folder.iterdir())
    assert {"model.safetensors", "model.onnx", "README.md", "verify.json"} < set(names)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "notes.txt").write_text("my key"), r"notes\.txt does not belong"),
        (lambda f: (f / ".DS_Store").write_text("x"), r"\.DS_Store does not belong"),
        (lambda f: (f / "logs").mkdir(), "logs does not belong"),
        (lambda f: (f / "pytorch_model.bin").write_text("x"), "does not belong"),
        (_link, r"README\.md is no regular file"),
        (lambda f: (f / "README.md").write_text(""), r"README\.md is empty"),
        (lambda f: (f / "model.onnx").unlink(), r"missing: model\.onnx\. `clever-hub export"),
        (lambda f: (f / "model.onnx").write_bytes(b"x" * 1_000_001), "it holds weights"),
        (
            lambda f: _edit(f / "modeling_clever.py", "import timm", "import os, timm"),
            r"modeling_clever\.py is not this version's",
        ),
        (
            lambda f: _edit(f / "config.json", '"modeling_', '"bob/x--modeling_'),
            "auto_map leads to other code",
        ),
        (_flip_weights, "does not load with the onnx backend"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x"), "does not load with the torch"),
        (lambda f: (f / "verify.json").unlink(), r"not verified: no verify\.json\. Run"),
        (lambda f: (f / "verify.json").write_text("[]"), r"verify\.json cannot be read"),
        (lambda f: _edit(f / "verify.json", "true", "false"), "not green: its readers differ"),
        (
            lambda f: write_json(f / "verify.json", {"green": True, "weights_sha256": "0" * 64}),
            "about other weights",
        ),
        (_other_graph, r"is about another model\.onnx"),
        (lambda f: _edit(f / "README.md", "license: apache-2.0\n", ""), "lacks license"),
        (
            lambda f: _edit(f / "README.md", "## Limits", "## Praise"),
            "lacks the sections ## Limits",
        ),
    ],
)
def test_what_is_wrong_is_named(
    folder: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(folder)
    with pytest.raises(ModelFormatError, match=f"not ready to be published\n(.*\n)*.*{message}"):
        check_folder(folder)


def test_figures_that_the_card_does_not_have_are_noticed(folder: Path) -> None:
    top1 = {"full": {"top1": {"mean": 10.0, "std": None}}}
    content = {
        "schema_version": 1,
        "model": {"name": "clever-test-resnet"},
        "figures": {"knn": {"upright": top1}},
        "protocols": {},
    }
    (folder / "evaluation.json").write_text(json.dumps(content))
    with pytest.raises(ModelFormatError, match=r"README\.md has other figures than evaluation"):
        check_folder(folder)


@pytest.fixture
def measured(folder: Path) -> Path:
    """A ready folder with figures."""
    top1 = {"full": {"top1": {"mean": 10.0, "std": None}}}
    photos = {"train": {"photos": 10}, "validation": {"photos": 5}}
    content = {
        "schema_version": 1,
        "model": {"name": "clever-test-resnet"},
        "figures": {"knn": {"plain": top1}},
        "protocols": {"knn": {"command": "clever-hub evaluate x", "data": photos}},
    }
    write_json(folder / "evaluation.json", content)
    write_card(folder)
    assert folder / "figures.png" in check_folder(folder)
    return folder


def test_the_picture_that_the_card_shows_must_be_there_and_of_its_figures(measured: Path) -> None:
    path = measured / "figures.png"
    Image.new("RGB", (8, 8)).save(path)
    with pytest.raises(ModelFormatError, match=r"figures\.png was drawn from other figures"):
        check_folder(measured)
    path.write_bytes(b"no picture")
    with pytest.raises(ModelFormatError, match=r"figures\.png cannot be read"):
        check_folder(measured)
    path.unlink()
    with pytest.raises(ModelFormatError, match=r"missing: figures\.png, which README\.md shows"):
        check_folder(measured)


def test_the_line_ends_of_windows_are_no_fault(measured: Path) -> None:
    path = measured / "README.md"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert check_folder(measured)


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("handler.py", b'"""', b'"""\xff', r"handler\.py is not this version's"),
        ("README.md", b"tags:", b"tags: [", r"README\.md: while parsing"),
        ("README.md", b"## Use", b"\xff", r"README\.md: 'utf-8' codec"),
        ("evaluation.json", b"10.0", b"null", r"figures\.knn\.plain\.full\.top1 is not"),
    ],
)
def test_what_cannot_be_read_is_one_line_and_no_traceback(
    name: str, old: bytes, new: bytes, told: str, measured: Path
) -> None:
    path = measured / name
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    with pytest.raises(ModelFormatError, match=told) as caught:
        check_folder(measured)
    assert str(caught.value).count("\n") == 1


def test_a_full_disk_names_what_could_not_be_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(source), None, str(target))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left") as caught:
        copy_model(folder, tmp_path / "out")
    assert caught.value.filename == str(tmp_path / "out" / "config.json")


def test_everything_is_listed_at_once(folder: Path) -> None:
    (folder / "notes.txt").write_text("x")
    (folder / "README.md").unlink()
    with pytest.raises(ModelFormatError) as caught:
        check_folder(folder)
    assert str(caught.value).count("\n  - ") == 2


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="expected a model folder"):
        check_folder(tmp_path / "nowhere")


def test_heads_belong_into_a_repository_whole_or_not_at_all(folder: Path) -> None:
    plain = (folder / "config.json").read_text()
    write_heads(folder)
    write_card(folder)
    assert folder / "heads.safetensors" in check_folder(folder)
    headed = (folder / "config.json").read_text()
    (folder / "config.json").write_text(plain)
    with pytest.raises(ModelFormatError, match=r"heads\.safetensors is not named in config\.json"):
        check_folder(folder)
    (folder / "config.json").write_text(headed)
    content = bytearray((folder / "heads.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "heads.safetensors").write_bytes(content)
    with pytest.raises(ModelFormatError, match=r"its heads do not load: .*SHA-256"):
        check_folder(folder)


def _set(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    write_json(path, {**json.loads(path.read_text()), **values})


def _datasets(folder: Path, *names: str) -> None:
    provenance = json.loads((folder / "config.json").read_text())["provenance"]
    _set(folder, provenance={**provenance, "dataset_ids": list(names)})


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        (
            lambda f: _set(f, license="cc-by-nc-4.0", data_terms="For research."),
            "license, the section ## Licence",
        ),
        (lambda f: _set(f, data_terms="For research."), "the section ## Licence"),
        (lambda f: _datasets(f, "user/photos"), "datasets"),
        (write_heads, "the line Heads"),
        (lambda f: _edit(f / "README.md", "- equivariance\n", ""), "tags"),
    ],
)
def test_a_card_that_says_otherwise_than_the_config_is_not_published(
    folder: Path, change: Callable[[Path], object], stale: str
) -> None:
    change(folder)
    told = (
        rf"README\.md says otherwise than config\.json, in {stale}\. If the card is right, correct "
        r"config\.json; then, or else, `clever-hub export \S+ -o"
    )
    with pytest.raises(ModelFormatError, match=told):
        check_folder(folder)
    write_card(folder)
    assert check_folder(folder)


def test_an_edited_card_may_say_more_but_names_the_repository(folder: Path) -> None:
    path = folder / "README.md"
    _edit(path, "## Limits\n", "## Limits\n- Not for medicine.\n")
    _edit(path, "- equivariance\n", "- equivariance\n- birds\n")
    _edit(path, "for the weights.", "for the weights.\nThe code is in FOLDER.")
    with pytest.raises(ModelFormatError, match=r"README\.md loads the model from FOLDER.*NEW"):
        check_folder(folder)
    for quoted in ('"FOLDER"', "local-dir:FOLDER", "embed FOLDER", "--model FOLDER"):
        _edit(path, quoted, quoted.replace("FOLDER", "user/name"))
    assert check_folder(folder)


def test_the_card_of_a_shipped_model_is_as_it_was_generated(folder: Path) -> None:
    write_card(folder, by_name=True)
    assert "FOLDER" in (folder / "README.md").read_text()
    assert check_folder(folder)


def test_export_takes_the_heads_along_and_verify_reads_them(folder: Path, tmp_path: Path) -> None:
    write_heads(folder)
    (tmp_path / "copy").mkdir()
    copy = package(copy_model(folder, tmp_path / "copy"))
    for backend in ("torch", "onnx"):
        assert clever_hub.from_pretrained(copy, backend=backend).heads.config.in_dim == 20
    assert all(agreement.green for agreement in verify(copy))
    (copy / "heads.safetensors").write_bytes(b"")
    with pytest.raises(ModelFormatError, match=r"heads\.safetensors"):
        verify(copy)


def test_a_report_of_a_folder_without_a_graph_is_not_enough(folder: Path) -> None:
    path = folder / "verify.json"
    write_json(path, {**json.loads(path.read_text()), "graph_sha256": None})
    with pytest.raises(ModelFormatError, match=r"verify\.json is about another model\.onnx"):
        check_folder(folder)
