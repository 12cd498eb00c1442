"""The command on a real photo: picture, mask, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

pytest.importorskip("scipy")

from clever_hub.cli.app import app
from clever_hub.cli.saliency_picture import HEIGHT, box_in_pixels, object_mask, saliency_picture
from clever_hub.jobs.saliency import Cut


def call(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["saliency", *map(str, words)])
    return result.exit_code, " ".join(result.output.split())


@pytest.mark.parametrize("model", ["clever-vit-tiny", "clever-resnet18"])
def test_a_picture_and_a_mask_are_written(
    model: str, photos: dict[str, Path], tmp_path: Path
) -> None:
    picture, mask = tmp_path / "picture.png", tmp_path / "mask.png"
    code, said = call(
        *(model, photos["chelsea"], "-o", picture, "--mask", mask, "--image-size", "128"),
        "--centred",
    )
    assert code == 0, said
    with Image.open(photos["chelsea"]) as photo, Image.open(mask) as found:
        assert found.size == photo.size
        values = set(np.unique(np.asarray(found)).tolist())
        size = photo.size
    assert values == {0, 255}
    assert f"of {size[0]}×{size[1]} pixels" in said
    with Image.open(picture) as page:
        assert page.height > HEIGHT
        assert len(np.unique(np.asarray(page).reshape(-1, 3), axis=0)) > 1000


def test_the_object_is_drawn_where_it_is() -> None:
    object_ = np.zeros((4, 8), dtype=bool)
    object_[1:3, 2:5] = True
    cut = Cut(object_.astype(np.float32), object_, object_, (2, 1, 5, 3))
    assert box_in_pixels(cut, (160, 80)) == (40, 20, 100, 60)
    mask = np.asarray(object_mask(cut, (160, 80)))
    assert (mask[20:60, 40:100] == 255).all()
    assert np.count_nonzero(mask) == 40 * 60
    photo = Image.new("RGB", (160, 80), (200, 30, 30))
    page = np.asarray(saliency_picture(photo, cut, "a model")).reshape(-1, 3)
    red = (page == (200, 30, 30)).all(axis=1).sum() / (HEIGHT * HEIGHT * 2)
    # Nearly the whole of the first panel, and the object's share of the third.
    assert 1 + 3 / 16 - 0.05 < red < 1 + 3 / 16


def test_mistakes_are_said(photos: dict[str, Path], tmp_path: Path) -> None:
    photo = photos["chelsea"]
    code, said = call("clever-vit-tiny", photo, "-o", tmp_path / "picture.jpg")
    assert code != 0
    assert "expected a name that ends in .png" in said
    code, said = call("clever-vit-tiny", photo, "-o", tmp_path / "a.png", "--image-size", "4")
    assert code != 0
    assert "a shorter side of 4 pixels is less than one place" in said
    code, said = call("clever-vit-tiny", photo, "-o", tmp_path / "a.png", "--threshold=-0.9999")
    assert code != 0
    assert "there is nothing to cut" in said
    same = tmp_path / "a.png"
    code, said = call("clever-vit-tiny", photo, "-o", same, "--mask", same)
    assert code != 0
    assert "--mask: expected another file than --output" in said
    assert not list(tmp_path.iterdir())
    thin = tmp_path / "thin.png"
    Image.new("RGB", (1, 500)).save(thin)
    code, said = call("clever-vit-tiny", thin, "-o", tmp_path / "a.png")
    assert code != 0
    assert "1 × 500 pixels would be 28 × 14000 patches, more than 8,192" in said
