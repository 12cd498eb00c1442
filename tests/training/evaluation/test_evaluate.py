"""The command writes evaluation.json, with baselines beside the model, and nothing leaks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
import typer

from clever_hub.backends.torch import CleverModel
from clever_hub.errors import ConfigError, DataError
from clever_training.cli.evaluate import run as evaluate
from clever_training.evaluation import results, strengths
from clever_training.evaluation.data import Splits
from clever_training.evaluation.features import FeatureStore
from clever_training.evaluation.models import ModelFeatures, load_extractor
from clever_training.evaluation.protocols import PROFILES, PROTOCOLS, Context, chosen, run_knn
from clever_training.evaluation.run import Evaluation


def run(out: Path, *models: str, data: Path, **options: Any) -> None:
    evaluate(
        list(models),
        data=str(data),
        out=out,
        protocols=options.pop("protocols", "knn,invariance"),
        seeds=options.pop("seeds", 2),
        profile=options.pop("profile", "quick"),
        baselines=options.pop("baselines", True),
        beside=options.pop("beside", None),
        image_size=options.pop("image_size", None),
        cache=out.parent / "cache",
    )


@pytest.fixture(autouse=True)
def few_strengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two strengths of each transformation are enough to see that they are written."""
    few = {name: (neutral, neutral + 0.5) for name, neutral in strengths.NEUTRAL.items()}
    monkeypatch.setattr(strengths, "SWEEPS", {**few, "rotation": (0.0, 90.0), "crop": (1.0, 0.5)})


@pytest.fixture(scope="module")
def model_folder(tiny_model: CleverModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.save_pretrained(tmp_path_factory.mktemp("models") / "tiny")


def test_the_command_writes_every_figure_and_what_made_it(
    model_folder: Path, photo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path / "out", str(model_folder), data=photo_folder)
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert content["schema_version"] == 1
    figure = content["figures"]["knn"]["upright"]["full"]["top1"]
    assert 0 <= figure["mean"] <= 100
    assert figure["std"] == 0  # k-NN of upright photos has nothing random
    assert len(figure["values"]) == 2
    assert set(content["figures"]["knn"]) == {"plain", "upright", "rotated"}
    assert set(content["figures"]["knn"]["rotated"]) == {"full", "invariant", "equivariant"}
    gap = content["figures"]["invariance"]["rotation"]["equivariant"]["gap"]["mean"]
    assert -1 < gap < 2
    assert set(content["baselines"]) == {"random", "pixels"}
    assert set(content["baselines"]["pixels"]["figures"]["knn"]["rotated"]) == {"full"}
    record = content["protocols"]["knn"]
    assert record["command"] == (
        f"clever-hub evaluate {model_folder} --data {photo_folder} --protocols knn,invariance "
        f"--profile quick --seeds 2 --output {tmp_path / 'out'}"
    )
    assert record["data"]["train"]["photos"] == 60
    assert len(record["data"]["validation"]["fingerprint"]) == 64
    assert record["environment"]["clever_hub"]
    assert content["protocols"]["invariance"]["settings"]["sweep_photos"] == 24
    assert "sweep_photos" not in record["settings"]
    printed = capsys.readouterr().out
    assert "clever-tiny" in printed
    assert "pixels" in printed


def test_a_log_file_has_a_line_for_each_step_to_the_end(
    photo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path / "out", "pixels:4", data=photo_folder, protocols="knn,collapse", baselines=False)
    assert capsys.readouterr().err.splitlines()[:4] == [
        " 40%  pixels, seed 0, knn",
        " 80%  pixels, seed 0, collapse",
        " 90%  pixels, seed 1, knn",
        "100%  pixels, seed 1, collapse",
    ]


def test_ctrl_c_says_what_is_kept(
    photo_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Evaluation, "run", interrupted)
    with pytest.raises(typer.Exit) as stopped:
        run(tmp_path / "out", "pixels:4", data=photo_folder)
    assert stopped.value.exit_code == 130
    assert str(tmp_path / "cache") in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_same_command_gives_the_same_figures(
    model_folder: Path, photo_folder: Path, tmp_path: Path
) -> None:
    found = []
    for name in ("first", "second"):  # each with a cache of its own
        run(tmp_path / name / "out", str(model_folder), data=photo_folder)
        found.append(results.read(tmp_path / name / "out"))
    assert found[0]["figures"] == found[1]["figures"]
    assert found[0]["baselines"] == found[1]["baselines"]


def test_a_second_run_keeps_what_it_does_not_measure_again(
    model_folder: Path, photo_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(out, str(model_folder), data=photo_folder, protocols="knn")
    run(out, str(model_folder), data=photo_folder, protocols="invariance", seeds=1)
    content = results.read(out)
    assert set(content["figures"]) == set(content["protocols"]) == {"knn", "invariance"}
    assert set(content["baselines"]["pixels"]["figures"]) == {"knn", "invariance"}
    assert content["protocols"]["knn"]["seeds"] == [0, 1]
    assert content["figures"]["invariance"]["rotation"]["full"]["gap"]["std"] is None


def test_another_model_beside_is_measured_the_same_way(
    model_folder: Path, photo_folder: Path, tmp_path: Path
) -> None:
    out, other = tmp_path / "out", "random:clever-resnet18"
    beside = [other, "pixels:4", str(model_folder)]
    run(out, str(model_folder), data=photo_folder, protocols="knn", seeds=1, beside=beside)
    content = results.read(out)
    names = ["random", "pixels", other, "pixels-2", "clever-tiny-2"]
    assert list(content["baselines"]) == names
    assert content["baselines"]["clever-tiny-2"]["figures"] == content["figures"]
    assert content["baselines"]["pixels-2"]["model"]["dims"] == {"full": 3 * 4 * 4}
    command = content["protocols"]["knn"]["command"]
    assert f"--beside {other} --beside pixels:4 --beside {model_folder}" in command
    run(tmp_path / "own", other, data=photo_folder, protocols="knn", seeds=1, baselines=False)
    own = results.read(tmp_path / "own")
    assert own["figures"] == content["baselines"][other]["figures"]


def test_another_size_is_another_measurement_of_model_and_baselines(
    model_folder: Path, photo_folder: Path, tmp_path: Path
) -> None:
    out, beside = tmp_path / "out", [str(model_folder)]
    run(tmp_path / "own", str(model_folder), data=photo_folder, protocols="invariance")
    own = results.read(tmp_path / "own")
    options: dict[str, Any] = {"protocols": "knn", "beside": beside, "image_size": 40}
    with pytest.raises(DataError, match=r"clever-tiny \(40 px\), found .* clever-tiny \(32 px\)"):
        run(tmp_path / "own", str(model_folder), data=photo_folder, **options)
    run(out, str(model_folder), data=photo_folder, **options)
    content = results.read(out)
    assert own["model"]["input_size"] == 32
    assert list(content["figures"]) == ["knn"]  # those at its own size are not kept beside it
    described = [content["model"], *(each["model"] for each in content["baselines"].values())]
    assert [model["input_size"] for model in described] == [40, 40, 40, 40]
    assert "--image-size 40" in content["protocols"]["knn"]["command"]
    assert content["baselines"]["clever-tiny-2"]["figures"] == content["figures"]


def test_figures_of_another_model_are_refused_before_any_work_and_kept(
    model_folder: Path, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run(out, str(model_folder), data=photo_folder, protocols="knn", baselines=False)
    before = (out / "evaluation.json").read_bytes()
    with monkeypatch.context() as patched:
        patched.delattr(Evaluation, "run")
        with pytest.raises(DataError) as refused:
            run(out, "pixels:8", data=photo_folder, protocols="invariance", baselines=False)
    for said in (str(out), "pixels", "clever-tiny", "-o", str(out / "evaluation.json")):
        assert said in str(refused.value)
    with pytest.raises(DataError, match="found those of clever-tiny"):  # whoever comes second
        results.write(out, {"model": load_extractor("pixels:8").describe()})
    assert (out / "evaluation.json").read_bytes() == before
    (out / "evaluation.json").unlink()
    run(out, "pixels:8", data=photo_folder, protocols="invariance", baselines=False)
    assert set(results.read(out)["figures"]) == {"invariance"}


def test_each_folder_of_several_models_is_looked_at_before_the_first_is_measured(
    photo_folder: Path, tmp_path: Path
) -> None:
    run(tmp_path / "out" / "pixels-2", "pixels:2", data=photo_folder, protocols="knn", seeds=1)
    with pytest.raises(DataError, match=r"pixels-2: .* pixels \(2x2 pixels\)"):
        run(tmp_path / "out", "pixels:4", "pixels:8", data=photo_folder, protocols="knn", seeds=1)
    assert not (tmp_path / "out" / "pixels").exists()


def test_the_same_model_trained_anew_is_told_by_its_weights(
    photo_folder: Path, tmp_path: Path
) -> None:
    model = load_extractor("random:clever-resnet18", seed=0).model  # type: ignore[attr-defined]
    again = load_extractor("random:clever-resnet18", seed=1).model  # type: ignore[attr-defined]
    folder = str(model.save_pretrained(tmp_path / "model"))
    run(tmp_path / "out", folder, data=photo_folder, protocols="collapse", baselines=False)
    again.save_pretrained(tmp_path / "model")
    with pytest.raises(DataError, match=r"\(weights \w{8}\), found .* \(weights \w{8}\), .*remove"):
        run(tmp_path / "out", folder, data=photo_folder, protocols="knn", baselines=False)


def test_another_model_beside_is_told_too(
    model_folder: Path, photo_folder: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"data": photo_folder, "seeds": 1, "baselines": False}
    out, model = tmp_path / "out", str(model_folder)
    run(out, model, protocols="knn", beside=["pixels:4"], **options)
    with pytest.raises(DataError, match=r"pixels \(8x8 pixels\), found .* pixels \(4x4 pixels\)"):
        run(out, model, protocols="collapse", beside=["pixels:8"], **options)
    run(out, model, protocols="collapse", beside=["pixels:4"], **options)
    assert set(results.read(out)["baselines"]["pixels-2"]["figures"]) == {"knn", "collapse"}


def test_the_same_model_on_other_photos_keeps_each_protocols_own(
    model_folder: Path, photo_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    other = ",".join(str(photo_folder / f"{name}.parquet") for name in ("validation", "train"))
    run(out, str(model_folder), data=photo_folder, protocols="knn", baselines=False)
    run(out, str(model_folder), data=Path(other), protocols="collapse", baselines=False)
    data = {n: p["data"]["train"]["name"] for n, p in results.read(out)["protocols"].items()}
    assert set(data) == {"knn", "collapse"}
    assert data["knn"] != data["collapse"]


def test_several_models_get_a_folder_each(
    model_folder: Path, photo_folder: Path, tmp_path: Path
) -> None:
    run(
        tmp_path / "out",
        str(model_folder),
        "pixels",
        data=photo_folder,
        protocols="knn",
        seeds=1,
        baselines=False,
    )
    assert {path.parent.name for path in tmp_path.glob("out/*/evaluation.json")} == {
        "clever-tiny",
        "pixels",
    }


def test_two_models_of_one_name_do_not_overwrite_each_other(
    photo_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(out, "pixels:4", "pixels:8", data=photo_folder, protocols="knn", baselines=False)
    sizes = [results.read(out / name)["model"]["dims"]["full"] for name in ("pixels", "pixels-2")]
    assert sizes == [3 * 4 * 4, 3 * 8 * 8]


def test_a_baselines_older_figures_do_not_stand_under_the_models_newer_record(
    model_folder: Path, photo_folder: Path, tmp_path: Path
) -> None:
    """Measured again without baselines, the record names a profile that theirs are not from."""
    out = tmp_path / "out"
    run(out, str(model_folder), data=photo_folder, protocols="knn,collapse", seeds=1)
    run(
        out,
        str(model_folder),
        data=photo_folder,
        protocols="knn",
        seeds=1,
        profile="full",
        baselines=False,
    )
    content = results.read(out)
    assert content["protocols"]["knn"]["profile"] == "full"
    assert set(content["figures"]) == {"knn", "collapse"}
    for baseline in content["baselines"].values():
        assert set(baseline["figures"]) == {"collapse"}
    run(out, str(model_folder), data=photo_folder, protocols="collapse", seeds=1, baselines=False)
    assert results.read(out)["baselines"] == {}


def test_classes_without_splits_are_divided_and_said_to_be(
    splits: Splits, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, folder = splits.train, tmp_path / "photos"
    for position, label in enumerate(photos.labels):
        (folder / photos.classes[label]).mkdir(parents=True, exist_ok=True)
        photos[position].save(folder / photos.classes[label] / f"{position}.png")
    run(tmp_path / "out", "pixels:4", data=folder, protocols="knn", seeds=1, profile="full")
    assert capsys.readouterr().err.splitlines()[0] == (
        f"{folder} (a fifth of each class) is set aside for validation, the same at each run: "
        "12 of 60 photos. Classes: astronaut, chelsea, coffee, rocket"
    )
    data = results.read(tmp_path / "out")["protocols"]["knn"]["data"]
    assert data["validation"]["name"] == f"{folder} (a fifth of each class)"
    assert (data["train"]["photos"], data["validation"]["photos"]) == (48, 12)
    assert [data[split]["photos_in_all"] for split in ("train", "validation")] == [48, 12]


def test_the_help_names_every_protocol() -> None:
    (option,) = get_type_hints(evaluate, include_extras=True)["protocols"].__metadata__
    assert option.help.startswith(f"Some of {', '.join(PROTOCOLS)}, ")


def test_labels_of_the_validation_photos_only_score(
    tiny_model: CleverModel, splits: Splits, tmp_path: Path
) -> None:
    """Relabelling them as one class must turn Top-1 into that class's share of predictions."""
    context = Context(
        ModelFeatures(tiny_model, "tiny"), splits, FeatureStore(tmp_path), PROFILES["quick"], 0
    )
    shares = []
    for name in range(4):
        photos = splits.validation
        object.__setattr__(photos := photos.subset(np.arange(24)), "labels", np.full(24, name))
        relabelled = Splits(splits.train, photos)
        figures = run_knn(Context(context.extractor, relabelled, context.store, context.profile, 0))
        shares.append(figures["upright"]["full"]["top1"])
    assert sum(shares) == pytest.approx(100)


def test_unknown_protocols_and_profiles_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'invariance'"):
        chosen("knn,invariant")
    with pytest.raises(ConfigError, match="quick or full"):
        run(tmp_path, "pixels", data=tmp_path, profile="tiny")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"protocols": ["knnn"]}, "protocols: unknown 'knnn'. Did you mean 'knn'"),
        ({"protocols": []}, "protocols: expected some of knn, linear"),
        ({"seeds": []}, "seeds: expected one or more"),
    ],
)
def test_what_no_evaluation_has_is_refused_before_the_work(
    given: dict[str, Any], told: str, splits: Splits
) -> None:
    usual: dict[str, Any] = {"protocols": ["knn"], "seeds": [0]}
    with pytest.raises(ConfigError, match=told):
        Evaluation(splits, PROFILES["quick"], **{**usual, **given})


def test_an_unknown_kind_of_probe_is_refused(splits: Splits) -> None:
    evaluation = Evaluation(splits, PROFILES["quick"], ["knn"], [0])
    object.__setattr__(evaluation, "probe", "adam")  # the tests' type checker refuses it before
    with pytest.raises(ConfigError, match="probe: expected lbfgs or sgd, got 'adam'"):
        evaluation.__post_init__()


def test_a_file_of_another_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text('{"schema_version": 99}')
    with pytest.raises(DataError, match="expected schema_version 1, got 99"):
        results.read(tmp_path)


def test_a_single_class_is_refused_where_classes_are_told_and_only_there(
    model_folder: Path, splits: Splits, tmp_path: Path
) -> None:
    one = Splits(*(part.subset(np.flatnonzero(part.labels == 1)) for part in splits))
    extractor = load_extractor(str(model_folder))

    def measure(protocol: str) -> dict[str, Any]:
        store = FeatureStore(tmp_path / "cache")
        evaluation = Evaluation(one, PROFILES["quick"], [protocol], [0], store)
        return evaluation.run(extractor, baselines=False)

    with pytest.raises(DataError, match="got the class 'chelsea' alone"):
        measure("knn")
    with pytest.raises(DataError, match="2 classes or more"):
        measure("linear")
    assert measure("collapse")["figures"]["collapse"]


@pytest.mark.parametrize(
    ("protocol", "train", "validation"),
    [("invariance", 1, 2), ("collapse", 1, 2), ("equivariance", 3, 2)],
)
def test_too_few_photos_are_refused_in_a_line_and_enough_are_measured(
    protocol: str, train: int, validation: int, splits: Splits, tmp_path: Path
) -> None:
    extractor = load_extractor("pixels:4")

    def measure(train: int, validation: int) -> dict[str, Any]:
        counts = (train, validation)
        few = Splits(*(p.subset(np.arange(n)) for p, n in zip(splits, counts, strict=True)))
        store = FeatureStore(tmp_path / f"{counts}")
        evaluation = Evaluation(few, PROFILES["quick"], [protocol], [0], store)
        return evaluation.run(extractor, baselines=False)

    with pytest.raises(DataError, match=f"expected 2 photos or more to measure {protocol}, got 1"):
        measure(train, validation - 1)
    if train > 1:
        with pytest.raises(DataError, match=f"3 photos or more to measure {protocol}, got 2"):
            measure(train - 1, validation)
    json.dumps(measure(train, validation), allow_nan=False)


def test_the_same_weights_with_another_split_are_another_model(
    photo_folder: Path, tmp_path: Path
) -> None:
    model = load_extractor("random:clever-resnet18", seed=0).model  # type: ignore[attr-defined]
    folder = str(model.save_pretrained(tmp_path / "model"))
    run(tmp_path / "out", folder, data=photo_folder, protocols="collapse", baselines=False)
    model.config = replace(model.config, invariant_dim=256)
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(DataError, match=r"\(parts .*256.*\), found those of .* \(parts .*409"):
        run(tmp_path / "out", folder, data=photo_folder, protocols="knn", baselines=False)
