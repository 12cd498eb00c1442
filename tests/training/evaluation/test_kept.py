"""An evaluation that was stopped goes on, and gives the figures of an undisturbed one."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from clever_hub.backends.torch import CleverModel
from clever_hub.cli.app import app
from clever_training.evaluation import equivariance, kept, results
from clever_training.evaluation import features as features_module
from clever_training.evaluation import linear as linear_module
from clever_training.evaluation import saliency as saliency_module
from clever_training.evaluation import video as video_module
from clever_training.evaluation.data import Splits
from clever_training.evaluation.dense_run import DenseEvaluation
from clever_training.evaluation.features import FeatureStore
from clever_training.evaluation.kept import KeptPieces
from clever_training.evaluation.linear import kept_probe
from clever_training.evaluation.models import ModelFeatures, PixelFeatures
from clever_training.evaluation.perturbations import ROTATED
from clever_training.evaluation.probe import fit_probe
from clever_training.evaluation.protocols import PROFILES
from clever_training.evaluation.run import Evaluation
from clever_training.evaluation.videos import Video, find_videos

SIZE = 96


class StopError(Exception):
    """Stands for whatever ends an evaluation."""


def counted(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, stop_at: int | None = None
) -> list[tuple[Any, ...]]:
    """Replace a function by one that counts its calls, and may stop at one."""
    calls: list[tuple[Any, ...]] = []
    plain: Callable[..., Any] = getattr(module, name)

    def counting(*arguments: Any, **options: Any) -> Any:
        if len(calls) == stop_at:
            raise StopError
        calls.append(arguments)
        return plain(*arguments, **options)

    monkeypatch.setattr(module, name, counting)
    return calls


def test_a_piece_is_measured_once_and_its_seconds_are_those_of_then(tmp_path: Path) -> None:
    kept = KeptPieces(tmp_path)

    def measure() -> list[float]:
        time.sleep(0.02)
        return [0.1 + 0.2]

    def never() -> NoReturn:
        raise AssertionError

    first = kept.piece("camel", measure)
    assert first.value == [0.1 + 0.2]
    assert first.seconds >= 0.02
    assert kept.piece("camel", never) == first
    assert kept.piece("another", lambda: 1).value == 1


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"value": 1}', b"\xff"])
def test_a_damaged_piece_is_measured_again(tmp_path: Path, damage: bytes) -> None:
    kept = KeptPieces(tmp_path)
    kept.piece("camel", lambda: 1)
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage)
    assert kept.piece("camel", lambda: 2).value == 2
    assert kept.piece("camel", lambda: 3).value == 2


def test_what_cannot_be_kept_is_measured_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way of the folder")
    with pytest.warns(UserWarning, match="figures are not kept in .*--cache"):
        assert KeptPieces(tmp_path / "file").piece("camel", lambda: 1).value == 1


@pytest.mark.parametrize(
    ("protocol", "module", "name"),
    [("video", video_module, "_scores"), ("saliency", saliency_module, "_of_video")],
)
def test_each_videos_scores_are_kept_as_they_come(
    davis: Path,
    tiny_model: CleverModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    protocol: str,
    module: Any,
    name: str,
) -> None:
    extractor = ModelFeatures(tiny_model, "tiny")

    def measure(cache: str, size: int = SIZE) -> tuple[dict[str, Any], list[str]]:
        lines: list[str] = []
        evaluation = DenseEvaluation(
            davis,
            find_videos(davis),
            [protocol],
            size,
            report=lambda label, _done, _total: lines.append(label),
            pieces=KeptPieces(tmp_path / cache),
        )
        return evaluation.run(extractor), lines

    undisturbed, lines = measure("undisturbed")
    steps = [line.removeprefix("in all: ") for line in lines if line.startswith("in all: ")]
    models = ("tiny", "random", "pixels")
    assert [step.split(", ")[-1] for step in steps[1:]] == ["standing", "wandering"] * len(models)

    with monkeypatch.context() as patch:
        counted(patch, module, name, stop_at=3)
        with pytest.raises(StopError):
            measure("stopped")
    with monkeypatch.context() as patch:
        calls = counted(patch, module, name)
        resumed, again = measure("stopped")
        assert len(calls) == 2 * len(models) - 3
        assert resumed["figures"] == undisturbed["figures"]
        assert {k: v["figures"] for k, v in resumed["baselines"].items()} == {
            k: v["figures"] for k, v in undisturbed["baselines"].items()
        }
        assert [line for line in again if line.startswith("in all: ")][1:] == [
            f"in all: {step}" for step in steps[1:]
        ]
        calls.clear()
        measure("stopped", size=64)
        assert len(calls) == 2 * len(models)
        calls.clear()
        mask = davis / "Annotations" / "480p" / "standing" / "00003.png"
        mask.write_bytes((mask.parent / "00002.png").read_bytes() + b" ")
        measure("stopped")
        assert [video.name for call in calls for video in call if isinstance(video, Video)] == [
            "standing"
        ] * len(models)


def test_each_protocols_figures_are_kept_as_they_come(
    tiny_model: CleverModel, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extractor, names = ModelFeatures(tiny_model, "tiny"), ["knn", "linear", "equivariance"]

    def measure(cache: str) -> dict[str, Any]:
        store = FeatureStore(tmp_path / cache)
        evaluation = Evaluation(splits, PROFILES["quick"], names, range(2), store)
        return evaluation.run(extractor, baselines=False)

    undisturbed = measure("undisturbed")
    # Stopped in a linear probe, then in a relation of the second seed, then not at all.
    for module, name, stop_at in (
        (linear_module, "fit_probe", 3),
        (equivariance, "_relation", 4 + 2),
    ):
        with monkeypatch.context() as patch:
            counted(patch, module, name, stop_at)
            with pytest.raises(StopError):
                measure("stopped")
    with monkeypatch.context() as patch:
        relations = counted(patch, equivariance, "_relation")
        probes = counted(patch, linear_module, "fit_probe")
        resumed = measure("stopped")
    assert len(relations) == 2
    assert not probes
    assert resumed["figures"] == undisturbed["figures"]
    for name in names:
        assert resumed["protocols"][name]["seconds"] >= 0


def test_other_weights_seeds_or_classes_are_measured_anew(
    tiny_model: CleverModel, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FeatureStore(tmp_path)
    probes = counted(monkeypatch, linear_module, "fit_probe")

    def fits(extractor: Any, data: Splits, probe: Any = "lbfgs") -> int:
        before = len(probes)
        evaluation = Evaluation(data, PROFILES["quick"], ["linear"], [0], store, probe=probe)
        evaluation.run(extractor, baselines=False)
        return len(probes) - before

    first = ModelFeatures(tiny_model, "tiny")
    assert fits(first, splits) == 8  # two banks; three parts and the slice
    assert fits(ModelFeatures(tiny_model, "renamed"), splits) == 0
    assert fits(PixelFeatures(first.preprocessing), splits) == 2
    assert fits(first, splits, "sgd") == 8
    turned = splits.validation.subset(np.arange(len(splits.validation)))
    object.__setattr__(turned, "labels", np.roll(splits.validation.labels, 1))
    assert fits(first, Splits(splits.train, turned)) > 0


def test_a_kept_probe_is_the_same_to_the_last_bit(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(60, 8)).astype(np.float32)
    labels = np.arange(60, dtype=np.int64) % 3
    path = tmp_path / "probe.safetensors"
    first = kept_probe(path, lambda: fit_probe(features, labels, 3))

    def never() -> NoReturn:
        raise AssertionError

    again = kept_probe(path, never)
    assert again.chosen == first.chosen
    np.testing.assert_array_equal(again.scores(features), first.scores(features))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(AssertionError):
        kept_probe(path, never)


def test_features_that_were_cut_off_go_on_at_the_last_piece(
    tiny_model: CleverModel, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopping(ModelFeatures):
        batches, stop_at = 0, 100

        def embed(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
            if self.batches == self.stop_at:
                raise StopError
            self.batches += 1
            return super().embed(batch)

    monkeypatch.setattr(features_module, "BATCH_SIZE", 8)
    whole = FeatureStore(tmp_path / "whole").features(
        ModelFeatures(tiny_model, "tiny"), splits.train, ROTATED
    )
    monkeypatch.setattr(features_module, "PIECE_SECONDS", 0.0)
    store = FeatureStore(tmp_path / "stopped")
    for stop_at in (3, 0, 2):
        stopping = Stopping(tiny_model, "tiny")
        stopping.stop_at = stop_at
        with pytest.raises(StopError):
            store.features(stopping, splits.train, ROTATED)
    assert len(list(Path(store.folder).iterdir())) == 3 + 2
    last = Stopping(tiny_model, "tiny")
    np.testing.assert_array_equal(store.features(last, splits.train, ROTATED), whole)
    assert last.batches == 8 - 5
    assert len(list(Path(store.folder).iterdir())) == 1


def test_killed_it_goes_on_and_gives_the_same_figures(
    davis: Path, tiny_model: CleverModel, tmp_path: Path
) -> None:
    model, cache = tiny_model.save_pretrained(tmp_path / "model"), tmp_path / "cache"
    words = ["evaluate", str(model), "--no-baselines", "--video", str(davis)]
    words += ["--video-size", "320"]
    first = [*words, "--cache", str(cache), "-o", str(tmp_path / "out")]
    process = subprocess.Popen(
        [sys.executable, "-c", "from clever_hub.cli.app import main; main()", *first],
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not list(cache.glob("*.json")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "out" / "evaluation.json").exists()
    before = {path: path.stat().st_mtime_ns for path in cache.glob("*.json")}
    second = [*words, "--cache", str(tmp_path / "another"), "-o", str(tmp_path / "undisturbed")]
    for command in (first, second):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
    assert {path: path.stat().st_mtime_ns for path in before} == before
    found, expected = (results.read(tmp_path / name) for name in ("out", "undisturbed"))
    assert found["figures"] == expected["figures"]


def test_another_release_of_a_library_is_measured_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept_pieces = KeptPieces(tmp_path)
    assert {"torch", "timm", "pillow"} <= {one.split()[0] for one in kept.versions().split(", ")}
    before, features = kept_pieces.path("camel", ".json"), features_module._code_digest()
    for module in (kept, features_module):
        monkeypatch.setattr(module, "versions", lambda: "timm 99")
    assert kept_pieces.path("camel", ".json") != before
    assert features_module._code_digest() != features
