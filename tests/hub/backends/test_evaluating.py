"""Embedding beside a training: no mode is switched, and what was compiled is used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from clever_hub.backends.attention import attention_maps
from clever_hub.backends.evaluating import eval_view, evaluating
from clever_hub.backends.torch import CleverModel
from clever_hub.config import ModelConfig, PreprocessingConfig

PHOTO = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)


def test_encode_leaves_the_modes_of_a_training_model_alone(resnet_config: ModelConfig) -> None:
    config = replace(resnet_config, preprocessing=PreprocessingConfig(32, 32))
    model = CleverModel(config).eval()
    expected = model.encode(PHOTO).full
    model.train()
    seen: list[bool] = []
    # What a training in another thread would find in the midst of the embedding.
    model.backbone.get_submodule("bn1").register_forward_hook(
        lambda *_: seen.append(model.training and model.backbone.training)
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    np.testing.assert_array_equal(model.encode(PHOTO).full, expected)
    assert seen == [True], "the hook of the original runs, and its model still trains"
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(part.training for part in model.modules())


def test_a_view_shares_every_tensor_and_nothing_else() -> None:
    linear = nn.Linear(2, 2)
    network = nn.Sequential(linear, nn.Dropout(), nn.BatchNorm1d(2))
    view = eval_view(network)
    assert not any(part.training for part in view.modules())
    assert all(a is b for a, b in zip(network.parameters(), view.parameters(), strict=True))
    view.get_submodule("0").register_forward_hook(lambda *_: None)
    assert not linear._forward_hooks
    with torch.no_grad():
        linear.weight.fill_(3.0)
    assert bool((view.get_parameter("0.weight") == 3.0).all())
    assert evaluating(network.eval()) is network


def test_attention_maps_switch_nothing_off_in_the_model(model: CleverModel) -> None:
    block: Any = model.backbone.get_submodule("blocks.1.attn")
    fused = block.fused_attn
    maps = attention_maps(model, model.preprocessor.batch([PHOTO]))
    assert maps.shape == (1, 2, 4, 4)
    assert block.fused_attn == fused
    assert not block.attn_drop._forward_pre_hooks


def test_what_was_compiled_is_used(model: CleverModel) -> None:
    expected = model.encode(PHOTO).full
    graphs = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    model.compile(backend=backend)
    np.testing.assert_array_equal(model.encode(PHOTO).full, expected)
    assert graphs


def test_a_wrapper_of_torch_compile_encodes_as_the_model_that_it_wraps(model: CleverModel) -> None:
    graphs = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    wrapper: Any = torch.compile(model, backend=backend)
    np.testing.assert_array_equal(wrapper.encode(PHOTO).full, model.encode(PHOTO).full)
    assert not graphs, "nothing was compiled, as CleverModel says"


@pytest.fixture
def accelerate_anew() -> Iterator[None]:
    """Accelerate keeps one state for the whole process, whose precision cannot be changed."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def _prepared(model: CleverModel) -> None:
    """Accelerate gives the model a forward of its own, bound to the model."""
    Accelerator(cpu=True, mixed_precision="bf16").prepare(model)
    assert "forward" in model.__dict__


def _compiled(model: CleverModel) -> None:
    model.backbone = torch.compile(model.backbone, backend="eager")  # type: ignore[assignment]
    model.train()


@pytest.mark.usefixtures("accelerate_anew")
@pytest.mark.parametrize("wrap", [_prepared, _compiled])
def test_a_wrapped_model_in_training_is_embedded_in_eval_mode(
    wrap: Any, resnet_config: ModelConfig
) -> None:
    model = CleverModel(resnet_config).eval()
    expected = model.encode(PHOTO).full
    wrap(model.train())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = model.encode(PHOTO).full
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())  # bf16 rounds
    assert all(part.training for part in model.modules())
