"""The loop: it learns, stops and resumes bit for bit, and never loses a good state."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

import clever_hub
from clever_hub.cli.app import app
from clever_hub.config import ModelConfig
from clever_hub.errors import TrainingError
from clever_training.model.build import build, make_optimizer
from clever_training.recipe.schema import Recipe
from clever_training.run.checkpoint import load_state
from clever_training.run.pretrain import pretrain
from clever_training.run.run_folder import RunFolder
from clever_training.run.schedule import settings_at

Make = Callable[..., Recipe]


def _losses(folder: Path) -> list[float]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def _assert_same_run(one: Path, other: Path) -> None:
    """Same weights, teacher, optimiser and centres, bit for bit; same curves."""
    a, b = load_file(one / "state.safetensors"), load_file(other / "state.safetensors")
    assert a.keys() == b.keys()
    assert [key for key in a if not torch.equal(a[key], b[key])] == []
    assert _losses(one) == _losses(other)


@pytest.mark.parametrize("objective", ["dino", "vicreg"])
def test_it_learns_on_real_photos_and_collapses_neither_part(
    objective: str, photo_folder: Path, tiny_recipe: Make, tmp_path: Path
) -> None:
    recipe = tiny_recipe(
        objective,
        run__batch_size=24,
        run__epochs=15,
        method__freeze_last_layer_epochs=0,
        method__teacher_momentum=0.9,
    )
    pretrain(recipe, str(photo_folder), tmp_path, progress=False)
    losses = _losses(tmp_path)
    assert len(losses) == 30
    assert np.mean(losses[-5:]) < 0.99 * np.mean(losses[:5])
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    for part in ("invariant", "equivariant"):
        assert last[f"rank_{part}"] > 2
        assert last[f"std_{part}"] > 0.02


def test_model_folder_loads_and_says_how_it_came_about(
    photo_folder: Path, tiny_recipe: Make, tmp_path: Path, photos: dict[str, Path]
) -> None:
    recipe = tiny_recipe("dino", run__max_steps=3)
    folder = pretrain(recipe, str(photo_folder), tmp_path, progress=False)
    model = clever_hub.from_pretrained(folder)
    embeddings = model.encode(photos.values())
    assert embeddings.invariant.shape == (4, 76)
    assert embeddings.equivariant.shape == (4, 20)
    provenance = model.config.provenance
    assert provenance["method"] == "clever-dino"
    assert (provenance["steps"], provenance["epochs"], provenance["photos"]) == (3, 0.5, 48)
    assert Recipe.parse(provenance["recipe"]) == recipe
    # The teacher's weights are the ones worth keeping.
    state = load_file(tmp_path / "state.safetensors")
    weight = "conv1.weight" if "conv1.weight" in model.backbone.state_dict() else "conv1.0.weight"
    shipped = model.backbone.state_dict()[weight]
    assert torch.equal(shipped, state[f"module.teacher.backbone.{weight}"])
    assert not torch.equal(shipped, state[f"module.student.backbone.{weight}"])


@pytest.mark.parametrize(
    ("objective", "optimizer"), [("dino", "adamw"), ("vicreg", "adamw"), ("vicreg", "muon")]
)
def test_stopped_in_mid_epoch_and_resumed_ends_bit_for_bit_the_same(
    objective: str, optimizer: str, photo_folder: Path, tiny_recipe: Make, tmp_path: Path
) -> None:
    growth = [{"after": 0.5, "global_size": 40}]
    whole = tiny_recipe(
        objective, views__growth=growth, backbone__drop_path=0.2, optimizer__name=optimizer
    )
    part = whole.model_copy(update={"run": whole.run.model_copy(update={"max_steps": 4})})
    pretrain(whole, str(photo_folder), tmp_path / "whole", progress=False)
    pretrain(part, str(photo_folder), tmp_path / "parts", progress=False)
    pretrain(whole, str(photo_folder), tmp_path / "parts", progress=False)
    _assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_killed_with_sigkill_and_resumed_ends_bit_for_bit_the_same(
    photo_folder: Path, tiny_recipe: Make, tmp_path: Path
) -> None:
    # A state after every step; the kill falls wherever it falls, also into the writing of one.
    recipe = tiny_recipe("dino", run__save_minutes=1e-9, run__epochs=4)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    pretrain(recipe, str(photo_folder), whole, progress=False)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    command = [
        sys.executable,
        "-c",
        "from clever_hub.cli.app import main; main()",
        "pretrain",
        str(path),
    ]
    command += ["--data", str(photo_folder), "--out", str(killed)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        metrics = killed / "metrics.jsonl"
        deadline = time.monotonic() + 120
        while not metrics.exists() or metrics.read_text().count("\n") < 5:
            assert process.poll() is None, process.communicate()[1].decode()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
    assert 5 <= len(_losses(killed)) < 24
    pretrain(recipe, str(photo_folder), killed, progress=False)
    _assert_same_run(whole, killed)


@pytest.mark.parametrize("transformation_weight", [0.0, 1.0])
def test_stopped_before_the_last_model_is_written_and_run_again_it_is_written(
    transformation_weight: float,
    photo_folder: Path,
    tiny_recipe: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weight = {"method__transformation_weight": transformation_weight}
    first, whole = (tiny_recipe(**weight, run__max_steps=steps) for steps in (1, 2))
    model = pretrain(whole, str(photo_folder), tmp_path / "whole", progress=False)
    expected = {path.name: path.read_bytes() for path in model.glob("*.safetensors")}
    assert ("heads.safetensors" in expected) == (transformation_weight > 0)
    out = tmp_path / "out"
    pretrain(first, str(photo_folder), out, progress=False)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("clever_training.run.pretrain.write_model", stop)
        with pytest.raises(KeyboardInterrupt):
            pretrain(whole, str(photo_folder), out, progress=False)
    assert ModelConfig.load(out / "model").provenance["steps"] == 1
    for spoiled in ("", *expected):
        if spoiled:
            (out / "model" / spoiled).unlink()
        pretrain(whole, str(photo_folder), out, progress=False)
        assert ModelConfig.load(out / "model").provenance["steps"] == 2
        for name, content in expected.items():
            assert (out / "model" / name).read_bytes() == content
    before = (out / "state.safetensors").stat().st_mtime_ns
    pretrain(whole, str(photo_folder), out, progress=False)
    assert (out / "state.safetensors").stat().st_mtime_ns == before, "nothing is left to do"


def test_ctrl_c_saves_and_says_how_to_go_on(
    photo_folder: Path, tiny_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(recipe: Recipe, step: int, steps_per_epoch: int) -> object:
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return settings_at(recipe, step, steps_per_epoch)

    monkeypatch.setattr("clever_training.run.pretrain.settings_at", interrupt)
    # Where the tests run in the background, a shell has told them to ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            pretrain(tiny_recipe(), str(photo_folder), tmp_path, progress=False)
        assert len(_losses(tmp_path)) == 3
        assert (tmp_path / "model" / "config.json").exists()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_command_with_one_line_and_the_code_that_shells_expect(
    number: signal.Signals,
    code: int,
    photo_folder: Path,
    tiny_recipe: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(recipe: Recipe, step: int, steps_per_epoch: int) -> object:
        if step == 1:
            os.kill(os.getpid(), number)
        return settings_at(recipe, step, steps_per_epoch)

    monkeypatch.setattr("clever_training.run.pretrain.settings_at", interrupt)
    path, out = tmp_path / "recipe.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(tiny_recipe().model_dump(mode="json")))
    words = ["pretrain", str(path), "--data", str(photo_folder), "-o", str(out)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == code, result.output
    last = f"Stopped. The same command goes on from {out}"
    assert [line for line in result.stderr.splitlines() if "sav" in line or "top" in line] == [last]
    assert len(_losses(out)) == 2


def test_a_loss_that_is_not_finite_stops_with_its_name_and_step(
    photo_folder: Path, tiny_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(run__max_steps=2)
    pretrain(recipe, str(photo_folder), tmp_path, progress=False)
    before = (tmp_path / "state.safetensors").read_bytes()
    monkeypatch.setattr(
        "clever_training.objectives.base.mean_of_pairs", lambda *_: torch.tensor(float("nan"))
    )
    with pytest.raises(TrainingError, match=r"orthogonality is nan at step 2 \(epoch 0\.33\)"):
        pretrain(tiny_recipe(), str(photo_folder), tmp_path, progress=False)
    assert (tmp_path / "state.safetensors").read_bytes() == before


def test_a_full_disk_leaves_the_previous_state_whole(
    photo_folder: Path, tiny_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrain(tiny_recipe(run__max_steps=2), str(photo_folder), tmp_path, progress=False)
    before = (tmp_path / "state.safetensors").read_bytes()

    def full(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("clever_training.run.checkpoint.save_file", full)
    with pytest.raises(TrainingError, match=r"No space left on device.*previous state is whole"):
        pretrain(tiny_recipe(), str(photo_folder), tmp_path, progress=False)
    assert (tmp_path / "state.safetensors").read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if ".tmp" in path.name]


def test_a_folder_in_use_is_refused(photo_folder: Path, tiny_recipe: Make, tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path).locked(),
        pytest.raises(TrainingError, match="another process trains in this run folder"),
    ):
        pretrain(tiny_recipe(), str(photo_folder), tmp_path, progress=False)


def test_a_folder_of_another_run_is_refused(
    photo_folder: Path, tiny_recipe: Make, tmp_path: Path
) -> None:
    pretrain(tiny_recipe(run__max_steps=1), str(photo_folder), tmp_path, progress=False)
    with pytest.raises(TrainingError, match=r"other settings: optimizer\.lr, views\.strategy"):
        pretrain(
            tiny_recipe(optimizer__lr=0.5, views__strategy="baug"), str(photo_folder), tmp_path
        )


def test_a_run_goes_on_when_what_it_began_from_is_gone(
    photo_folder: Path, tiny_recipe: Make, tmp_path: Path
) -> None:
    begun = pretrain(
        tiny_recipe(run__max_steps=1), str(photo_folder), tmp_path / "a", progress=False
    )
    init = {"backbone__init": str(begun), "backbone__trainable": "last-2-stages"}
    for out in ("b", "c"):
        recipe = tiny_recipe(**init, run__max_steps=1)
        pretrain(recipe, str(photo_folder), tmp_path / out, progress=False)
    recipe = tiny_recipe(**init, run__max_steps=2)
    pretrain(recipe, str(photo_folder), tmp_path / "b", progress=False)
    begun.rename(tmp_path / "moved")
    model = pretrain(recipe, str(photo_folder), tmp_path / "c", progress=False)
    _assert_same_run(tmp_path / "b", tmp_path / "c")
    assert clever_hub.from_pretrained(model).config.provenance["start"]["init"] == "tiny"


@pytest.mark.parametrize("content", [b"", b"not a state at all", None])
def test_a_damaged_state_is_named(
    content: bytes | None, photo_folder: Path, tiny_recipe: Make, tmp_path: Path
) -> None:
    recipe = tiny_recipe(run__max_steps=1)
    pretrain(recipe, str(photo_folder), tmp_path, progress=False)
    path = tmp_path / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    module = build(recipe)
    with pytest.raises(TrainingError, match=r"state\.safetensors: not a state of a run"):
        load_state(path, module, make_optimizer(recipe, module.student))


def test_weight_decay_spares_biases_and_norms(tiny_recipe: Make) -> None:
    module = build(tiny_recipe())
    decayed, spared = make_optimizer(tiny_recipe(), module.student).param_groups
    assert {parameter.ndim for parameter in spared["params"]} == {1}
    assert min(parameter.ndim for parameter in decayed["params"]) == 2
    assert spared["weight_decay"] == 0


def test_muon_steps_have_equal_singular_values_and_the_rest_is_left_to_nadamw(
    tiny_recipe: Make,
) -> None:
    recipe = tiny_recipe(optimizer__name="muon", optimizer__lr=0.01, optimizer__weight_decay=0.0)
    student = build(recipe).student
    optimizer = make_optimizer(recipe, student)
    before = {name: p.detach().clone() for name, p in student.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    for parameter in student.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()
    for name, parameter in student.named_parameters():
        step = parameter.detach() - before[name]
        if parameter.ndim > 1:
            matrix = step.flatten(1)
            values = torch.linalg.svdvals(matrix)
            # Five iterations bring all to about 1; the scale is 0.2 · √(longer side).
            expected = 0.01 * 0.2 * max(matrix.shape) ** 0.5
            assert values.median() == pytest.approx(expected, rel=0.15), name
            assert values.max() < 1.4 * expected, name
        else:
            # NAdamW's first step: (1 + beta1) times the learning rate, whatever the gradient.
            assert step.abs().median() == pytest.approx(0.019, rel=0.01), name


def test_teacher_follows_the_student_but_keeps_its_own_buffers(tiny_recipe: Make) -> None:
    module = build(tiny_recipe("dino"))
    assert module.teacher is not None
    with torch.no_grad():
        for parameter in module.student.parameters():
            parameter.add_(1.0)
        for buffer in module.student.buffers():
            buffer.add_(1)
    before = {name: value.clone() for name, value in module.teacher.state_dict().items()}
    module.update_teacher(0.75)
    moved = dict(module.teacher.named_parameters())
    for name, value in module.teacher.state_dict().items():
        torch.testing.assert_close(value, before[name] + (0.25 if name in moved else 0))


def test_plain_objective_sees_the_whole_embedding(tiny_recipe: Make) -> None:
    module = build(tiny_recipe("dino", method__equivariance=False))
    assert module.student.equivariant is None
    assert module.student.invariant.mlp[0].in_features == 96  # type: ignore[index, union-attr]


def test_command_trains_and_names_the_model(
    photo_folder: Path, tiny_recipe: Make, tmp_path: Path
) -> None:
    from clever_hub.cli.app import app

    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tiny_recipe().model_dump(mode="json")))
    arguments = ["pretrain", str(path), "--data", str(photo_folder), "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(app, [*arguments, "--set", "run.max_steps=2"])
    assert result.exit_code == 0, result.output
    assert "loss" in result.output
    assert clever_hub.from_pretrained(tmp_path / "run" / "model").config.name == "tiny"
    result = CliRunner().invoke(app, [*arguments, "--set", "run.epoch=2"])
    assert result.exit_code == 1
    assert "run.epoch: unknown key. Did you mean 'epochs'" in " ".join(result.output.split())
