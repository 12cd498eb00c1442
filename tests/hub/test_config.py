"""config.json: what is kept, what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clever_hub.config import ModelConfig, PreprocessingConfig, _crop_pct
from clever_hub.errors import ModelFormatError


def test_round_trip_keeps_everything_also_what_it_does_not_know(config: ModelConfig) -> None:
    content = config.to_dict() | {"auto_map": {"AutoModel": "modeling_clever.CleverModel"}}
    content["pretrained_cfg"]["first_conv"] = "patch_embed.proj"
    again = ModelConfig.from_dict(json.loads(json.dumps(content)))
    assert again.extra == {
        "auto_map": content["auto_map"],
        "pretrained_cfg": {"first_conv": "patch_embed.proj"},
    }
    assert again.to_dict() == content


def test_other_readers_find_their_keys(config: ModelConfig) -> None:
    content = config.to_dict()
    assert (content["model_type"], content["dtype"], content["num_classes"]) == (
        "clever",
        "float32",
        0,
    )
    timm_keys = content["pretrained_cfg"]
    # Without num_classes here, timm returns random weights without a word.
    assert timm_keys["num_classes"] == 0
    assert timm_keys["input_size"] == [3, 32, 32]
    assert timm_keys["crop_pct"] == 32 / 36


def test_timm_resizes_to_the_size_that_the_config_names(config: ModelConfig) -> None:
    for resize in range(32, 520):
        for crop in range(resize // 2, resize + 1):
            sizes = PreprocessingConfig(resize, crop)
            assert math.floor(crop / _crop_pct(sizes)) == resize, sizes
    content = replace(config, preprocessing=PreprocessingConfig(38, 21)).to_dict()
    assert content["pretrained_cfg"]["crop_pct"] == 21 / 38.5
    earlier = content | {"pretrained_cfg": content["pretrained_cfg"] | {"crop_pct": 21 / 38}}
    assert ModelConfig.from_dict(earlier).to_dict() == content


@pytest.mark.parametrize(
    ("features", "invariant", "equivariant"),
    [(2048, 1638, 410), (512, 409, 103), (192, 153, 39), (384, 307, 77), (768, 614, 154)],
)
def test_dimensions_of_the_paper(features: int, invariant: int, equivariant: int) -> None:
    # Stored, never recomputed: ⌊0.8 · d⌋ here, rounded in the authors' SimSiam code.
    content = _content() | {"num_features": features, "invariant_dim": invariant}
    assert ModelConfig.from_dict(content).equivariant_dim == equivariant


def test_a_split_of_everything_is_plain_dino(config: ModelConfig) -> None:
    content = config.to_dict() | {"invariant_dim": config.num_features}
    assert ModelConfig.from_dict(content).equivariant_dim == 0


def _content() -> dict[str, Any]:
    preprocessing = {"resize_size": 64, "crop_size": 64, "interpolation": "bicubic"}
    numbers = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    return {
        "model_type": "clever",
        "format_version": 1,
        "name": "clever-resnet18",
        "architecture": "resnet18",
        "model_args": {},
        "num_features": 512,
        "invariant_dim": 409,
        "preprocessing": preprocessing | numbers,
        "provenance": {},
        "license": "apache-2.0",
    }


def _with(path: str, value: Any) -> dict[str, Any]:
    content = _content()
    *parents, last = path.split(".")
    place = content
    for parent in parents:
        place = place[parent]
    place[last] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model_type", "vit", "not a CLeVER model"),
        ("format_version", 3, "pip install -U clever-hub"),
        ("format_version", None, "format_version: expected a whole number"),
        ("name", 5, "name: expected a text, got 5"),
        ("architecture", "hf-hub:somebody/model", "name of a timm model"),
        ("architecture", "../resnet18", "name of a timm model"),
        ("num_features", 10**9, "num_features: expected 1 to 65536"),
        ("num_features", True, "num_features: expected a whole number"),
        ("invariant_dim", 513, "invariant_dim: expected 1 to 512, got 513"),
        ("invariant_dim", 0, "invariant_dim: expected 1 to 512, got 0"),
        ("model_args", [1], "model_args: expected an object"),
        ("model_args", {"checkpoint_path": "evil.pth"}, "checkpoint_path"),
        ("model_args", {"embed_dim": 10**12}, "model_args.embed_dim: expected at most"),
        ("model_args", {"depth": 10**6}, "model_args.depth: expected at most 1024"),
        ("model_args", {"depths": [2, 10**6]}, r"model_args.depths\[1\]"),
        ("model_args", {"a": {"b": float("inf")}}, "model_args.a.b"),
        ("model_args", {"a": [0] * 5000}, "at most 1024 entries"),
        ("preprocessing.crop_size", 65, "preprocessing.crop_size: expected 1 to 64, got 65"),
        ("preprocessing.resize_size", 10**6, "preprocessing.resize_size"),
        ("preprocessing.interpolation", "cubic", "bicubic, lanczos, got 'cubic'"),
        ("preprocessing.std", [1, 0, 1], "preprocessing.std: must be positive"),
        ("preprocessing.mean", [0.5, 0.5], "preprocessing.mean: expected three numbers"),
        ("preprocessing.mean", [0.5, 0.5, float("nan")], "three numbers"),
        ("preprocessing.size", 64, r"unknown keys \['size'\]"),
        ("dtype", "float16", "dtype: expected 'float32', got 'float16'"),
        ("num_classes", 1000, "num_classes: expected 0, got 1000"),
        ("pretrained_cfg", {"mean": [0.5, 0.5, 0.5]}, "pretrained_cfg.mean: .*as in preprocessing"),
    ],
)
def test_what_is_wrong_is_named(path: str, value: Any, message: str) -> None:
    with pytest.raises(ModelFormatError, match=message):
        ModelConfig.from_dict(_with(path, value))


def test_missing_keys_are_listed() -> None:
    content = _content()
    del content["architecture"], content["invariant_dim"]
    with pytest.raises(ModelFormatError, match="missing keys: architecture, invariant_dim"):
        ModelConfig.from_dict(content)


def test_a_folder_without_config_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(ModelFormatError, match=r"config\.json .*found pytorch_model\.bin"):
        ModelConfig.load(tmp_path)


def test_of_a_runs_folder_the_model_inside_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").touch()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").touch()
    with pytest.raises(ModelFormatError) as refused:
        ModelConfig.load(tmp_path)
    assert str(refused.value).endswith(
        f"found metrics.jsonl, model. Its model is in {tmp_path / 'model'}"
    )


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", "[" * 100_000, "\udcff"])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelFormatError, match=r"config\.json"):
        ModelConfig.load(tmp_path)


def test_a_fingerprint_says_whether_vectors_are_of_the_same_model(config: ModelConfig) -> None:
    size = replace(config.preprocessing, resize_size=48, crop_size=48)
    others = [
        replace(config, invariant_dim=config.invariant_dim - 1),
        replace(config, preprocessing=size),
        replace(config, model_args={**config.model_args, "depth": 1}),
    ]
    prints = {one.fingerprint() for one in (config, *others)}
    assert len(prints) == 4
    told = replace(config, name="clever-other", data_terms="none", provenance={"epochs": 1})
    assert told.fingerprint() == config.fingerprint()
    assert config.fingerprint(size) == others[1].fingerprint()
