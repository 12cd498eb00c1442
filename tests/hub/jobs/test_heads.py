"""Heads in numpy: the same as in torch, and nothing that does not belong to the model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import clever_hub
from clever_export.onnx import export_onnx
from clever_hub.backends.torch import CleverModel, write_model_folder
from clever_hub.cli.app import app
from clever_hub.config import CONFIG_NAME, ModelConfig
from clever_hub.errors import ModelFormatError
from clever_hub.jobs.heads import HEADS_NAME, Heads, HeadsConfig
from clever_hub.weights import sha256_of
from tests.hub.jobs.conftest import CALIBRATION, write_heads

E = 5  # entries of the equivariant part


def parts(count: int, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).normal(size=(count, E)).astype(np.float32)


def test_numpy_gives_what_torch_gives(headed_folder: Path) -> None:
    t = load_file(headed_folder / HEADS_NAME)
    a, b = (torch.from_numpy(parts(50, seed)) for seed in (0, 1))
    norm = t["pair.1.weight"], t["pair.1.bias"]
    hidden = F.linear(torch.cat([a, b], dim=1), t["pair.0.weight"], t["pair.0.bias"])
    hidden = F.layer_norm(hidden, hidden.shape[1:], *norm).relu()
    hidden = F.linear(hidden, t["pair.3.weight"], t["pair.3.bias"]).relu()
    out = F.linear(hidden, t["last.weight"], t["last.bias"])
    expected = out[:, :12] * t["unit.scale"][:12] + t["unit.center"][:12]
    turn = F.linear(b, t["turn.0.weight"], t["turn.0.bias"])
    turn = F.layer_norm(turn, turn.shape[1:], t["turn.1.weight"], t["turn.1.bias"]).relu()
    turn = F.linear(turn, t["last_turn.weight"], t["last_turn.bias"])
    turn = turn * t["unit.scale"][12:] + t["unit.center"][12:]

    heads = Heads.load(headed_folder)
    found = heads.pairs(a.numpy(), b.numpy())
    columns = [found.straight, found.mirrored, found.crop, found.color]
    size = float(expected.abs().max())
    assert size > 0.5, "nothing to compare"
    np.testing.assert_allclose(np.concatenate(columns, axis=1), expected, atol=1e-6 * size)
    np.testing.assert_allclose(found.logit, out[:, 12], atol=1e-6 * size)
    np.testing.assert_allclose(heads.turns(b.numpy()), turn, atol=1e-6 * size)
    assert found.logit.dtype == np.float32


def test_many_pairs_are_as_one_by_one_and_none_are_none(headed_folder: Path) -> None:
    heads = Heads.load(headed_folder)
    a, b = parts(5000, 0), parts(5000, 1)
    many, few = heads.pairs(a, b), heads.pairs(a[4990:], b[4990:])
    np.testing.assert_allclose(many.crop[4990:], few.crop, atol=1e-5)
    assert heads.pairs(a[:0], b[:0]).color.shape == (0, 4)
    assert heads.turns(a[:0]).shape == (0, 2)


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_a_model_keeps_its_heads_in_both_backends_and_reads_them_once(
    headed_folder: Path, backend: str
) -> None:
    if backend == "onnx":
        export_onnx(headed_folder)
    model = clever_hub.from_pretrained(headed_folder, backend=backend)
    assert isinstance(model, CleverModel) == (backend == "torch")
    assert model.has_heads
    assert model.heads is model.heads
    calibration = model.heads.config.calibration
    assert calibration is not None
    assert calibration.to_dict() == CALIBRATION
    assert len(model.heads.invariant_mean) == 19
    assert len(model.heads.equivariant_mean) == E


def test_the_config_entry_survives_reading_and_writing(headed_folder: Path) -> None:
    config = ModelConfig.load(headed_folder)
    found = HeadsConfig.of(config)
    assert found is not None
    assert found.to_dict() == json.loads((headed_folder / CONFIG_NAME).read_text())["heads"]
    assert config.to_dict()["heads"] == found.to_dict()


def test_a_model_without_heads_says_who_has_some(model: CleverModel, model_folder: Path) -> None:
    loaded = clever_hub.from_pretrained(model_folder)
    assert not loaded.has_heads
    with pytest.raises(ModelFormatError, match=r"clever-tiny has no heads.*clever-hub heads MODEL"):
        _ = loaded.heads
    with pytest.raises(ModelFormatError, match="built from a config alone"):
        _ = model.heads


def test_another_file_than_the_config_names_is_refused(headed_folder: Path) -> None:
    tensors = load_file(headed_folder / HEADS_NAME)
    tensors["last.bias"] = tensors["last.bias"] + 1
    save_file(tensors, headed_folder / HEADS_NAME)
    with pytest.raises(ModelFormatError, match=r"config\.json names the file with SHA-256"):
        Heads.load(headed_folder)
    (headed_folder / HEADS_NAME).unlink()
    with pytest.raises(ModelFormatError, match="cannot open"):
        Heads.load(headed_folder)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("file", "../other.safetensors", "heads.file: expected 'heads.safetensors'"),
        ("sha256", "abc", "heads.sha256: expected 64 hexadecimal"),
        ("in_dim", 7, "heads.in_dim: the heads read 7 entries, the equivariant part has 5"),
        ("in_dim", "5", "heads.in_dim: expected a number"),
        ("hidden_dim", -1, "heads.hidden_dim: expected a number from 1"),
        ("hidden_dim", 10**9, "heads.hidden_dim: expected a number from 1 to 65536"),
        ("rotation", 270, "heads.rotation: expected a number from 0 to 180"),
        ("rotation", True, "heads.rotation: expected a number"),
        ("calibration", [], "heads.calibration"),
        ("hidden_dim", 17, "wrong shape"),
    ],
)
def test_a_damaged_entry_is_refused_by_name(
    headed_folder: Path, key: str, value: object, message: str
) -> None:
    path = headed_folder / CONFIG_NAME
    config = json.loads(path.read_text())
    config["heads"][key] = value
    path.write_text(json.dumps(config))
    with pytest.raises(ModelFormatError, match=message):
        Heads.load(headed_folder)
    # The embeddings do not depend on the heads.
    assert clever_hub.from_pretrained(headed_folder).config.name == "clever-tiny"


def test_what_is_not_finite_is_refused(model_folder: Path) -> None:
    write_heads(model_folder)
    tensors = load_file(model_folder / HEADS_NAME)
    tensors["pair.3.bias"][3] = torch.nan
    save_file(tensors, model_folder / HEADS_NAME)
    config = json.loads((model_folder / CONFIG_NAME).read_text())
    config["heads"]["sha256"] = sha256_of(model_folder / HEADS_NAME)
    (model_folder / CONFIG_NAME).write_text(json.dumps(config))
    with pytest.raises(ModelFormatError, match=r"not finite: pair\.3\.bias"):
        Heads.load(model_folder)


def test_saving_a_model_takes_its_heads_along(headed_folder: Path, tmp_path: Path) -> None:
    model = CleverModel.from_folder(headed_folder)
    copy = model.save_pretrained(tmp_path / "copy", half_matrices=True)
    assert (copy / HEADS_NAME).read_bytes() == (headed_folder / HEADS_NAME).read_bytes()
    assert clever_hub.from_pretrained(copy).heads.config == model.heads.config
    model.save_pretrained(headed_folder)  # onto itself
    assert clever_hub.from_pretrained(headed_folder).heads.config == model.heads.config


def test_weights_that_were_changed_leave_the_heads_behind(
    headed_folder: Path, tmp_path: Path
) -> None:
    model = clever_hub.from_pretrained(headed_folder, backend="torch")
    with torch.no_grad():
        next(model.backbone.parameters()).add_(0.01)
    tuned = clever_hub.from_pretrained(model.save_pretrained(tmp_path / "tuned"))
    assert not tuned.has_heads
    assert not (tmp_path / "tuned" / HEADS_NAME).exists()
    assert model.has_heads, "the model itself is as it was"
    model.save_pretrained(headed_folder)  # onto the old one, where the file still lies
    assert not clever_hub.from_pretrained(headed_folder).has_heads


def test_the_heads_answer_for_no_other_weights(
    headed_folder: Path, photos: dict[str, Path]
) -> None:
    model = CleverModel.from_folder(headed_folder, dtype="bfloat16")
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    assert model.heads is model.heads, "of weights in another precision, too"
    with torch.no_grad():
        next(model.backbone.parameters()).add_(0.5)
    for answer in (
        lambda: model.relate(photos["coffee"], photos["chelsea"]),
        lambda: model.orientation(photos["coffee"]),
    ):
        with pytest.raises(
            ModelFormatError, match=r"clever-tiny: .*others.*clever-hub heads MODEL"
        ):
            answer()
    model.backbone.load_state_dict(before)
    assert len(model.orientation(photos["coffee"]).quarter) == 1, "they are the old ones again"


def test_weights_are_compared_with_their_file_once(
    headed_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = CleverModel.from_folder(headed_folder)
    compared: list[Path] = []
    is_as_loaded = CleverModel._is_as_loaded

    def counted(model: CleverModel, folder: Path) -> bool:
        compared.append(folder)
        return is_as_loaded(model, folder)

    monkeypatch.setattr(CleverModel, "_is_as_loaded", counted)
    with torch.inference_mode():
        model.to(torch.float64)
    assert model.heads is model.heads
    assert compared == [headed_folder]


def test_other_weights_do_not_promise_heads(headed_folder: Path, tmp_path: Path) -> None:
    model = CleverModel.from_folder(headed_folder)
    folder = write_model_folder(tmp_path / "new", model.config, model.backbone.state_dict())
    assert not clever_hub.from_pretrained(folder).has_heads


def test_info_says_what_the_heads_are_worth(headed_folder: Path) -> None:
    short = CliRunner().invoke(app, ["info", str(headed_folder)]).output
    assert re.search(r"heads +for relate and orient, of photos turned by up to ±180°", short)
    assert "angle to 5.5° in the median, mirrored or not 90% right" in short
    result = CliRunner().invoke(app, ["info", str(headed_folder), "--all"])
    assert "100 photos of photos of the test, turned by ±180°" in result.output
    assert "calibration · quarter_from_four" in result.output
