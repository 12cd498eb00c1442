"""Patch tokens and attention maps of a random ViT-T at 64 px with 8 px patches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import clever_hub
from clever_hub.backends.attention import attention_maps
from clever_hub.backends.torch import CleverModel, write_model_folder
from clever_hub.cli.app import app
from clever_hub.cli.attention_picture import PANEL, overlay, seen
from clever_hub.config import ModelConfig, PreprocessingConfig
from clever_hub.errors import ConfigError

ROWS = COLUMNS = 64 // 8


@pytest.fixture(scope="module")
def vit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT-T as the training package builds and writes it."""
    from clever_training.model.backbones import create_backbone
    from clever_training.recipe.schema import Recipe
    from clever_training.run.model_folder import DataFacts, model_config
    from clever_training.run.state import RunState

    args = {"img_size": 64, "patch_size": 8}
    content = {
        "name": "clever-vit-tiny",
        "image_size": 64,
        "backbone": {"architecture": "vit_tiny_patch16_224", "model_args": args},
        "method": {"objective": "vicreg", "objective_args": {"dim": 32}},
    }
    config = model_config(Recipe.parse(content), RunState(), 192, 1, DataFacts("none", 0))
    torch.manual_seed(0)
    backbone = create_backbone(config.architecture, config.model_args)
    with torch.no_grad():
        for tensor in backbone.parameters():
            tensor.add_(torch.randn_like(tensor), alpha=0.05)
    folder = tmp_path_factory.mktemp("vit")
    return write_model_folder(folder, config, backbone.state_dict())


@pytest.fixture(scope="module")
def vit(vit_folder: Path) -> CleverModel:
    return clever_hub.from_pretrained(vit_folder)


def test_tokens_come_with_the_very_same_embedding(
    vit: CleverModel, photos: dict[str, Path]
) -> None:
    images = list(photos.values())
    found = vit.encode(images, tokens=True, batch_size=3)
    assert found.tokens is not None
    assert found.tokens.shape == (4, ROWS, COLUMNS, 192)
    assert found.tokens.dtype == np.float32
    np.testing.assert_allclose(found.full, vit.encode(images).full, atol=1e-5)
    inputs = torch.from_numpy(vit.preprocessor.batch(images))
    with torch.no_grad():
        features = vit.backbone.forward_features(inputs)  # type: ignore[operator]
    flat = found.tokens.reshape(4, -1, 192)
    np.testing.assert_allclose(flat, features[:, 1:].numpy(), atol=1e-5)
    np.testing.assert_allclose(found.full, features[:, 0].numpy(), atol=1e-5)


def test_a_token_belongs_to_its_patch(vit: CleverModel) -> None:
    # Without positions and mixing, what is changed at a patch changes that patch's token most.
    dark = np.zeros((64, 64, 3), np.uint8)
    lit = dark.copy()
    lit[8 * 2 : 8 * 3, 8 * 5 : 8 * 6] = 255
    found = vit.encode([dark, lit], tokens=True).tokens
    assert found is not None
    moved = np.linalg.norm(found[1] - found[0], axis=-1)
    assert np.unravel_index(moved.argmax(), moved.shape) == (2, 5)


def test_tokens_follow_rows_batches_and_normalisation(
    vit: CleverModel, photos: dict[str, Path]
) -> None:
    found = vit.encode(photos.values(), tokens=True, normalize=True)
    assert found.tokens is not None
    np.testing.assert_allclose(np.linalg.norm(found.tokens, axis=-1), 1, atol=1e-5)
    row = found[2].tokens
    assert row is not None
    np.testing.assert_array_equal(row, found.tokens[2:3])
    assert "tokens=(4, 8, 8, 192)" in repr(found)
    empty = vit.encode([], tokens=True).tokens
    assert empty is not None
    assert empty.shape == (0, ROWS, COLUMNS, 192)
    assert vit.encode([]).tokens is None
    skipped = vit.encode([b"bad", photos["coffee"]], tokens=True, batch_size=1, on_error="skip")
    assert skipped.tokens is not None
    assert len(skipped.tokens) == len(skipped) == 1


def test_a_resnet_has_no_tokens(resnet_config: ModelConfig) -> None:
    resnet = CleverModel(resnet_config).eval()
    with pytest.raises(ConfigError, match=r"need a vision transformer.*backbone is resnet18"):
        resnet.encode([], tokens=True)
    with pytest.raises(ConfigError, match="backbone is resnet18"):
        attention_maps(resnet, np.zeros((1, 3, 32, 32), np.float32))


def test_onnx_has_no_tokens() -> None:
    pytest.importorskip("onnxruntime")
    model = clever_hub.from_pretrained("clever-resnet18", backend="onnx")
    with pytest.raises(ConfigError, match='backend="torch"'):
        model.encode([], tokens=True)


def test_attention_is_the_softmax_of_queries_and_keys(
    vit: CleverModel, photos: dict[str, Path]
) -> None:
    pixels = vit.preprocessor.batch(photos.values())
    backbone: Any = vit.backbone
    fused = backbone.blocks[-1].attn.fused_attn
    before = vit.encode(photos.values()).full
    maps = attention_maps(vit, pixels)
    assert maps.shape == (4, 3, ROWS, COLUMNS)

    inputs: list[torch.Tensor] = []
    last = backbone.blocks[-1].attn
    handle = last.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with torch.no_grad():
        backbone.forward_features(torch.from_numpy(pixels))
        handle.remove()
        q, k, _ = last.qkv(inputs[0]).view(4, 65, 3, 3, 64).unbind(2)  # (4, 65, heads, 64)
        scores = torch.einsum("bhd,bkhd->bhk", q[:, 0], k) / 8
    expected = scores.softmax(-1)[:, :, 1:].reshape(maps.shape)
    np.testing.assert_allclose(maps, expected.numpy(), atol=1e-6)
    assert (maps.sum(axis=(2, 3)) < 1).all(), "the rest is the CLS token's own"
    assert maps.std() > 1e-4, "a map without any pattern proves nothing"
    assert backbone.blocks[-1].attn.fused_attn == fused
    np.testing.assert_array_equal(vit.encode(photos.values()).full, before)


def test_a_vit_without_a_cls_token_has_no_map() -> None:
    config = ModelConfig(
        name="clever-average",
        architecture="vit_tiny_patch16_224",
        model_args={
            "img_size": 32,
            "patch_size": 8,
            "embed_dim": 24,
            "depth": 1,
            "num_heads": 2,
            "class_token": False,
            "global_pool": "avg",
        },
        num_features=24,
        invariant_dim=19,
        preprocessing=PreprocessingConfig(32, 32),
    )
    model = CleverModel(config).eval()
    photo = np.zeros((32, 32, 3), np.uint8)
    found = model.encode(photo, tokens=True)
    assert found.tokens is not None
    assert found.tokens.shape == (1, 4, 4, 24)
    with pytest.raises(ConfigError, match="CLS token"):
        attention_maps(model, model.preprocessor.batch([photo]))


def test_the_photo_in_the_picture_is_what_the_model_sees(photos: dict[str, Path]) -> None:
    preprocessing = PreprocessingConfig(72, 64)
    photo = np.asarray(seen(preprocessing, photos["chelsea"]), np.float32) / 255
    mean, std = np.asarray(preprocessing.mean), np.asarray(preprocessing.std)
    pixels = clever_hub.Preprocessor(preprocessing)(photos["chelsea"])
    np.testing.assert_allclose((photo - mean) / std, pixels.transpose(1, 2, 0), atol=1e-5)


def test_the_brightest_square_is_the_patch_with_most_attention() -> None:
    shares = np.full((ROWS, COLUMNS), 0.001, np.float32)
    shares[6, 1] = 0.5
    drawn = overlay(Image.new("RGB", (64, 64), "grey"), shares)
    side = PANEL // ROWS
    brightness = np.asarray(drawn.convert("L"), np.float64)
    squares = brightness.reshape(ROWS, side, COLUMNS, side).mean(axis=(1, 3))
    assert np.unravel_index(squares.argmax(), squares.shape) == (6, 1)
    assert np.isfinite(np.asarray(overlay(drawn, np.zeros((4, 4), np.float32)))).all()


def test_the_command_draws_a_picture(
    vit_folder: Path, photos: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "new" / "attention.png"
    words = ["attention", str(vit_folder), str(photos["chelsea"]), "-o", str(out)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    picture = Image.open(out)
    assert min(picture.size) > PANEL
    assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 1000


def test_the_command_refuses_a_resnet_and_another_format(
    photos: dict[str, Path], tmp_path: Path
) -> None:
    photo, out = str(photos["chelsea"]), tmp_path / "a.png"
    result = CliRunner().invoke(app, ["attention", "clever-resnet18", photo, "-o", str(out)])
    assert result.exit_code == 1
    assert "need a vision transformer" in result.stderr
    assert not out.exists()
    result = CliRunner().invoke(app, ["attention", "any", photo, "-o", str(tmp_path / "a.jpg")])
    assert result.exit_code == 1
    assert "ends in .png" in result.stderr
