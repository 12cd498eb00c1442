"""int8 in one step: made once, found again by hash, refused where it is not faithful."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import clever_export.variants
import clever_hub
from clever_export.quantize import _centred_cosine
from clever_hub.backends import int8
from clever_hub.backends.variants import VARIANT_KEY, Variant
from clever_hub.cli.app import app
from clever_hub.config import ModelConfig
from clever_hub.errors import ConfigError, MissingExtraError, ModelFormatError
from clever_hub.files import write_json
from clever_hub.hub import shipped
from clever_hub.scale import embed_dataset

NAME = "clever-resnet18"
pytestmark = pytest.mark.skipif(NAME not in shipped.model_names(), reason=f"{NAME} is not shipped")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that the tests of this file share: making int8 takes seconds."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEVER_HUB_CACHE", str(cache))


def _int8(**options: Any) -> Any:
    return clever_hub.from_pretrained(NAME, backend="onnx", precision="int8", **options)


def test_it_is_near_the_model_on_photos_that_it_was_not_calibrated_on(
    imagenet_photos: Path,
) -> None:
    photos = sorted(imagenet_photos.iterdir())
    found = _int8().encode(photos)
    expected = clever_hub.from_pretrained(NAME, backend="onnx").encode(photos)
    for part in ("invariant", "equivariant"):
        cosine = _centred_cosine(getattr(found, part), getattr(expected, part))
        assert 0.99 < cosine.mean() < 1


def test_it_is_made_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _int8()
    monkeypatch.setattr(clever_export.variants, "export_variant", lambda *_, **__: 1 / 0)
    again = _int8()
    assert again.folder == first.folder
    assert [folder.parent.parent for folder in (first.folder, again.folder)] == [cache, cache]
    assert again.source.kind == "zoo"
    assert again.config.name == NAME
    assert not list((cache / "int8").glob(".*")), "nothing half made is left"


def test_a_damaged_one_is_made_again() -> None:
    folder = _int8().folder
    weights = folder / "model.onnx.data"
    content = weights.read_bytes()
    weights.write_bytes(content[:-100])
    assert _int8().folder == folder
    assert len(weights.read_bytes()) == len(content)


def test_one_that_lost_its_config_is_made_again() -> None:
    folder = _int8().folder
    (folder / "config.json").unlink()
    assert _int8().folder == folder


def test_too_few_photos_are_refused(photos: dict[str, Path]) -> None:
    with pytest.raises(clever_hub.errors.DataError, match="expected 16 images at least"):
        _int8(calibration=list(photos.values()))


def test_one_that_is_not_faithful_is_refused(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CLEVER_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(clever_export.variants, "MIN_COSINE", 1.1)
    with pytest.raises(ModelFormatError, match="the int8 variant is not faithful"):
        _int8()
    assert list((tmp_path / "int8").iterdir()) == []


def test_without_the_extra_it_says_which(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLEVER_HUB_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "clever_export.variants", None)
    with pytest.raises(MissingExtraError, match=r"clever-hub\[export\]"):
        _int8()


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="precision: expected 'float32' or 'int8', got 'int4'"):
        clever_hub.from_pretrained(NAME, backend="onnx", precision="int4")
    with pytest.raises(ConfigError, match="only int8 is calibrated"):
        clever_hub.from_pretrained(NAME, backend="onnx", calibration="photos")


def test_embed_takes_it_and_records_it(photos: dict[str, Path], tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    out = tmp_path / "e.parquet"
    words = ["embed", NAME, *map(str, photos.values()), "-o", str(out), "--precision", "int8"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert pq.read_schema(out).metadata[b"clever_hub.precision"] == b"int8"
    expected = _int8().encode(list(photos.values())).invariant
    found = np.array(pq.read_table(out)["invariant"].to_pylist(), np.float32)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    embed_dataset(NAME, list(photos.values()), tmp_path / "v")
    with pytest.raises(clever_hub.errors.DataError, match="precision: 'float32' there, 'int8' now"):
        embed_dataset(NAME, list(photos.values()), tmp_path / "v", precision="int8")


Made = list[tuple[ModelConfig, list[str]]]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """In place of what makes variants; of which model and photos it made one each time."""
    found: Made = []

    def export(source: Path, out: Path, *, images: list[Path], **_: object) -> None:
        config = ModelConfig.load(source)
        found.append((config, [path.name for path in images]))
        (out / "model.onnx").write_bytes(b"graph")
        variant = Variant("int8", "pixel_values", {}).with_files(out).entry()
        changed = replace(config, extra={**config.extra, VARIANT_KEY: variant})
        write_json(out / "config.json", changed.to_dict())

    monkeypatch.setenv("CLEVER_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(int8, "_maker", lambda: export)
    return found


def test_other_photos_make_another(
    exported: Callable[[str, bool], Path], photos: dict[str, Path], made: Made, tmp_path: Path
) -> None:
    folder = exported("test_resnet", True)
    one, other, third, _ = photos.values()
    first = int8.int8_folder(folder, [one, other])
    assert int8.int8_folder(folder, [one, third]) != first
    assert int8.int8_folder(folder) != first, "without any, of those that ship"
    assert [names for _, names in made[:2]] == [[one.name, other.name], [one.name, third.name]]
    copy = tmp_path / "copy" / one.name
    copy.parent.mkdir()
    shutil.copy(one, copy)
    assert int8.int8_folder(folder, [copy, other]) == first, "by what is in them, not their names"
    copy.write_bytes(copy.read_bytes() + b"\0")
    assert int8.int8_folder(folder, [copy, other]) != first
    assert len(made) == 4


def test_models_of_the_same_weights_have_variants_of_their_own(
    exported: Callable[[str, bool], Path], made: Made, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(exported("test_resnet", True), folder)
    config = ModelConfig.load(folder)
    first = int8.int8_folder(folder)
    write_json(folder / "config.json", replace(config, invariant_dim=50).to_dict())
    second = int8.int8_folder(folder)
    dims = [of.invariant_dim for of, _ in made]
    assert [ModelConfig.load(one).invariant_dim for one in (first, second)] == dims
    assert dims == [config.invariant_dim, 50]
    assert int8.int8_folder(folder) == second
    assert len(made) == 2
