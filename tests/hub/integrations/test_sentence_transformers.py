"""The module in the real sentence-transformers: encode, save, load."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import clever_hub
from clever_hub.errors import ConfigError
from clever_hub.jobs.default import default_model

sentence_transformers = pytest.importorskip("sentence_transformers")


@pytest.mark.parametrize("part", ["invariant", "equivariant", "full"])
def test_it_gives_what_encode_gives(model_folder: Path, photos: dict[str, Path], part: str) -> None:
    from clever_hub.integrations.sentence_transformers import CleverImages

    model = sentence_transformers.SentenceTransformer(
        modules=[CleverImages(str(model_folder), part=part)]
    )
    paths = [str(path) for path in photos.values()]
    expected = getattr(clever_hub.from_pretrained(model_folder).encode(paths), part)
    np.testing.assert_allclose(model.encode(paths), expected, atol=1e-5)
    images = [Image.open(path).convert("RGB") for path in paths]
    np.testing.assert_allclose(model.encode(images), expected, atol=1e-5)
    assert model.get_embedding_dimension() == expected.shape[1]


def test_it_is_saved_and_loaded(
    model_folder: Path, photos: dict[str, Path], tmp_path: Path
) -> None:
    from clever_hub.integrations.sentence_transformers import CleverImages

    path = str(photos["coffee"])
    model = sentence_transformers.SentenceTransformer(
        modules=[CleverImages(str(model_folder), part="equivariant")]
    )
    model.save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    assert not list((tmp_path / "saved").rglob("*.safetensors"))
    loaded = sentence_transformers.SentenceTransformer(
        str(tmp_path / "saved"), trust_remote_code=True
    )
    np.testing.assert_array_equal(loaded.encode([path]), model.encode([path]))


def test_where_no_model_is_named_it_is_that_of_the_jobs_and_the_folder_remembers_it(
    tmp_path: Path,
) -> None:
    from clever_hub.integrations.sentence_transformers import CleverImages

    module = CleverImages()
    assert module.name == default_model()
    assert module.get_embedding_dimension() == module.model.config.invariant_dim
    module.save(str(tmp_path))
    (config,) = tmp_path.glob("*.json")
    assert json.loads(config.read_text())["name"] == default_model()


def test_a_part_that_there_is_not() -> None:
    from clever_hub.integrations.sentence_transformers import CleverImages

    with pytest.raises(ConfigError, match="expected invariant, equivariant or full, got 'foo'"):
        CleverImages("clever-resnet18", part="foo")
