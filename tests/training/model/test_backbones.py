"""Backbones: what they start from, what of them learns, what a teacher's buffers are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

import clever_hub
from clever_hub.backends.timm import embedding_length
from clever_hub.errors import CleverError, ConfigError
from clever_training.data.loader import Batch
from clever_training.model.backbones import create_backbone, start_backbone
from clever_training.model.build import build
from clever_training.model.freezing import freeze_all_but
from clever_training.recipe.schema import Recipe
from clever_training.run.learner import Learner, make_accelerator
from clever_training.run.pretrain import pretrain
from clever_training.run.schedule import StepSettings

Make = Callable[..., Recipe]


@pytest.mark.parametrize(
    ("architecture", "args", "size", "length"),
    [
        ("resnet18", {}, 64, 512),
        ("resnet50", {}, 32, 2048),
        ("vit_tiny_patch16_224", {"img_size": 64, "patch_size": 8}, 64, 192),
        ("vit_small_patch16_224", {"img_size": 64, "patch_size": 8}, 64, 384),
        ("vit_tiny_patch16_224", {"dynamic_img_size": True}, 96, 192),
        ("convnext_atto", {}, 32, 320),
        ("test_efficientnet", {}, 32, 256),
    ],
)
def test_pooled_features_of_any_architecture(
    architecture: str, args: dict[str, object], size: int, length: int
) -> None:
    backbone = create_backbone(architecture, args).eval()
    with torch.no_grad():
        assert backbone(torch.zeros(1, 3, size, size)).shape == (1, length)
    assert embedding_length(backbone) == length


@pytest.mark.parametrize("name", ["VMamba-T", "vmambav2_tiny_224"])
def test_other_names_of_vmamba_lead_to_it(name: str) -> None:
    with pytest.raises(ConfigError, match=r"no model .*'vmamba_tiny'"):
        create_backbone(name)


class TestStart:
    def test_a_clever_model_gives_all_its_weights_and_its_hash(self) -> None:
        backbone, record = start_backbone("resnet18", {}, 0.0, "clever-resnet18")
        model = clever_hub.from_pretrained("clever-resnet18")
        expected = model.backbone.state_dict()
        assert backbone.state_dict().keys() == expected.keys()
        assert all(torch.equal(v, expected[k]) for k, v in backbone.state_dict().items())
        assert model.source is not None
        assert record == {
            "init": "clever-resnet18",
            "name": "clever-resnet18",
            "weights_sha256": model.source.weights_sha256,
            **{
                key: model.config.provenance[key]
                for key in ("method", "data", "epochs", "hours", "start", "teacher")
            },
            "data_terms": model.config.data_terms,
        }
        assert "non-commercial" in record["data_terms"]

    def test_another_architecture_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"is a resnet18, but backbone\.architecture is resn"):
            start_backbone("resnet34", {}, 0.0, "clever-resnet18")

    def test_other_arguments_are_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"do not fit resnet18 with .*in_chans"):
            start_backbone("resnet18", {"in_chans": 4}, 0.0, "clever-resnet18")

    def test_a_missing_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(CleverError, match="nowhere"):
            start_backbone("resnet18", {}, 0.0, str(tmp_path / "nowhere"))

    def test_timms_weights_are_asked_for_and_recorded(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []
        create = timm.create_model

        def offline(*args: object, pretrained: bool, **options: object) -> nn.Module:
            asked.append(pretrained)
            return create(*args, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(timm, "create_model", offline)
        _, record = start_backbone("resnet18", {}, 0.0, "timm")
        assert asked == [True]
        assert record["name"] == "resnet18.a1_in1k"
        assert len(record["tensors_sha256"]) == 64

    def test_timms_weights_without_a_network_say_so(self) -> None:
        with pytest.raises(ConfigError, match="init: timm: no weights for test_resnet"):
            start_backbone("test_resnet", {}, 0.0, "timm")

    def test_a_run_starts_there_and_keeps_it_in_the_provenance(
        self, photo_folder: Path, tiny_recipe: Make, tmp_path: Path
    ) -> None:
        first = tiny_recipe("vicreg", run__max_steps=2)
        folder = pretrain(first, str(photo_folder), tmp_path / "first", progress=False)
        source = clever_hub.from_pretrained(folder).source
        assert source is not None
        second = tiny_recipe("dino", run__max_steps=1, backbone__init=str(folder))
        state = build(second).student.backbone.state_dict()
        expected = clever_hub.from_pretrained(folder).backbone.state_dict()
        assert all(torch.equal(state[name], value) for name, value in expected.items())
        model = pretrain(second, str(photo_folder), tmp_path / "second", progress=False)
        config = json.loads((model / "config.json").read_text())
        assert config["provenance"]["start"] == {
            "init": "tiny",
            "name": "tiny",
            "weights_sha256": source.weights_sha256,
            "method": first.method.name,
            "data": photo_folder.name,
            "epochs": 0.333,
            "hours": clever_hub.from_pretrained(folder).config.provenance["hours"],
            "start": {"init": "random"},
        }
        assert str(tmp_path) not in json.dumps(config), "where a folder lies is published"


class TestFreezing:
    def test_only_the_last_stages_of_a_resnet_learn(self) -> None:
        backbone = create_backbone("resnet18", drop_path=0.1)
        names = set(backbone.state_dict())
        learning = freeze_all_but(backbone, "last-2-stages")
        assert {name.split(".")[0] for name in learning} == {"layer3", "layer4"}
        assert [n for n, p in backbone.named_parameters() if p.requires_grad] == learning
        assert set(backbone.state_dict()) == names

    def test_the_final_norm_of_a_vit_goes_with_its_last_block(self) -> None:
        args = {"img_size": 32, "patch_size": 16, "depth": 3}
        learning = freeze_all_but(create_backbone("vit_tiny_patch16_224", args), "last-1-stage")
        assert {name.split(".")[0] for name in learning} == {"blocks", "norm"}
        assert all(name.startswith(("blocks.2.", "norm.")) for name in learning)

    @pytest.mark.parametrize("architecture", ["test_resnet", "test_efficientnet"])
    def test_frozen_stages_compute_as_in_evaluation_whatever_the_mode(
        self, architecture: str
    ) -> None:
        """test_efficientnet has timm's BatchNorm with activation."""
        torch.manual_seed(0)
        backbone = create_backbone(architecture).train()
        images = torch.rand(4, 3, 32, 32)
        backbone(images)  # running statistics that are not the initial ones
        freeze_all_but(backbone, "last-1-stages")
        before = {name: value.clone() for name, value in backbone.state_dict().items()}
        outputs = backbone.train()(images)
        torch.autograd.backward(outputs.square().mean())
        moved = {k for k, v in backbone.state_dict().items() if not torch.equal(v, before[k])}
        learning = {n for n, p in backbone.named_parameters() if p.requires_grad}
        owners = {name.rpartition(".")[0] for name in learning}
        assert moved
        assert {name.rpartition(".")[0] for name in moved} <= owners
        graded = {n for n, p in backbone.named_parameters() if p.grad is not None}
        assert graded == learning
        # In evaluation nothing has changed: the frozen layers are the same functions.
        plain = create_backbone(architecture).eval()
        plain.load_state_dict(backbone.state_dict())
        with torch.no_grad():
            torch.testing.assert_close(backbone.eval()(images), plain(images))

    def test_a_run_leaves_frozen_weights_as_they_were(
        self, photo_folder: Path, tiny_recipe: Make, tmp_path: Path
    ) -> None:
        recipe = tiny_recipe(
            "dino",
            run__max_steps=2,
            backbone__trainable="last-1-stages",
            backbone__gradient_checkpointing=True,
            method__freeze_last_layer_epochs=0,
        )
        torch.manual_seed(recipe.run.seed)
        start = build(recipe).student.backbone.state_dict()
        folder = pretrain(recipe, str(photo_folder), tmp_path, progress=False)
        shipped = clever_hub.from_pretrained(folder).backbone.state_dict()
        assert all(
            torch.equal(shipped[name], value)
            for name, value in start.items()
            if not name.startswith(("layer4", "fc")) and "num_batches" not in name
        )

    @pytest.mark.parametrize(("stages", "most"), [(5, 4), (9, 4)])
    def test_more_stages_than_there_are_is_refused(self, stages: int, most: int) -> None:
        with pytest.raises(ConfigError, match=f"has 5 stages.*last-{most}-stages"):
            freeze_all_but(create_backbone("resnet18"), f"last-{stages}-stages")


def test_gradient_checkpointing_changes_no_gradient(tiny_recipe: Make) -> None:
    gradients = []
    for checkpointed in (False, True):
        recipe = tiny_recipe(
            "simclr", views__local_count=0, backbone__gradient_checkpointing=checkpointed
        )
        recipe = recipe.model_copy(
            update={
                "backbone": recipe.backbone.model_copy(
                    update={
                        "architecture": "vit_tiny_patch16_224",
                        "model_args": {"img_size": 32, "patch_size": 16, "depth": 2},
                        "drop_path": 0.3,
                    }
                )
            }
        )
        torch.manual_seed(0)
        clever = build(recipe)
        torch.manual_seed(1)
        crops = [torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(2))]
        torch.autograd.backward(clever(crops, 4)["loss"])
        weight = clever.student.backbone.get_parameter("blocks.0.attn.qkv.weight")
        assert weight.grad is not None
        gradients.append(weight.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"views__growth": [{"after": 0.5, "global_size": 40}]}, r"views\.growth\.0\.global_size"),
        (
            {"image_size": 64},
            r"image_size: vit_tiny.* takes no RGB images of 64 x 64 pixels",
        ),
        ({"views__local_size": 16}, r"views\.local_size: .* dynamic_img_size: true"),
        ({"backbone__model_args__global_pool": ""}, r"expected an embedding of shape \(1, 192\)"),
        (
            {"backbone__model_args__in_chans": 1},
            r"vit_tiny_\w+ takes images of 1 channels, and .* take RGB: grey photos are converted",
        ),
    ],
)
def test_a_backbone_that_does_not_take_the_runs_sizes_is_refused_at_once(
    changes: dict[str, object], message: str, tiny_recipe: Callable[..., Recipe]
) -> None:
    vit: dict[str, object] = {
        "backbone__architecture": "vit_tiny_patch16_224",
        "backbone__model_args": {"img_size": 32, "patch_size": 8, "depth": 1},
        "views__local_size": 32,
    }
    build(tiny_recipe(**vit))
    with pytest.raises(ConfigError, match=message):
        build(tiny_recipe(**{**vit, **changes}))


def test_gradient_checkpointing_moves_running_statistics_once(tiny_recipe: Make) -> None:
    found = []
    for checkpointed in (False, True):
        recipe = tiny_recipe(
            "simclr",
            views__local_count=0,
            backbone__gradient_checkpointing=checkpointed,
            backbone__architecture="resnet18",
        )
        learner = Learner(recipe, make_accelerator(recipe))
        learner.prepare()
        pixels = torch.randint(
            0, 256, (16, 32, 32, 3), generator=torch.Generator().manual_seed(2)
        ).byte()
        settings = StepSettings(1e-3, 0.0, 0.9, 0.04, freeze_last_layer=False)
        learner.step(0, 0.0, Batch([pixels], torch.zeros(8, 2, 14), 8), settings)
        backbone = learner.clever.student.backbone
        assert getattr(backbone.get_submodule("layer1.0.bn1"), "momentum") == 0.1  # noqa: B009
        found.append(dict(backbone.named_buffers()))
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, msg=name)


def test_gradient_checkpointing_that_timm_lacks_is_refused(tiny_recipe: Make) -> None:
    recipe = tiny_recipe(
        "simclr", backbone__gradient_checkpointing=True, backbone__architecture="inception_v3"
    )
    with pytest.raises(ConfigError, match="timm has none for inception_v3"):
        build(recipe)


def test_the_teachers_weights_are_averaged_and_its_buffers_are_its_own(tiny_recipe: Make) -> None:
    """Its running statistics come from its own passes: an average never touches them."""
    torch.manual_seed(0)
    clever = build(tiny_recipe("dino"))
    assert clever.teacher is not None
    crops = [torch.rand(8, 3, 32, 32), torch.rand(4, 3, 24, 24)]
    clever(crops, 4)
    with torch.no_grad():
        for parameter in clever.student.parameters():
            parameter.add_(1.0)
    students = dict(clever.student.named_parameters())
    before = {name: value.clone() for name, value in clever.teacher.state_dict().items()}
    clever.update_teacher(0.9)
    parameters = dict(clever.teacher.named_parameters())
    for name, value in clever.teacher.state_dict().items():
        if name in parameters:
            expected = 0.9 * before[name] + 0.1 * students[name].detach()
            torch.testing.assert_close(value, expected)
        else:
            assert torch.equal(value, before[name]), name
    # It saw the global views alone, once; the student one pass for each size.
    counts = {
        part: int(getattr(clever, part).backbone.state_dict()["bn1.num_batches_tracked"])
        for part in ("student", "teacher")
    }
    assert counts == {"student": 2, "teacher": 1}
