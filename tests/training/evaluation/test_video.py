"""A photo's crops that wander: an object that moves by a known way is followed."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

pytest.importorskip("datasets")

from clever_hub.backends.torch import CleverModel
from clever_hub.cli.app import app
from clever_hub.errors import DataError
from clever_training.evaluation import results
from clever_training.evaluation.dense import DensePixels
from clever_training.evaluation.propagation import Propagation
from clever_training.evaluation.saliency import measure_saliency
from clever_training.evaluation.video import measure_videos, segment
from clever_training.evaluation.videos import find_videos
from tests.training.evaluation.conftest import FRAMES, HEIGHT, WIDTH


def test_objects_that_move_by_whole_patches_are_followed(davis: Path) -> None:
    videos = find_videos(davis)
    assert [(video.name, video.objects()) for video in videos] == [
        ("standing", 2),
        ("wandering", 1),
    ]
    done: list[tuple[int, int]] = []
    nearest = Propagation(neighbours=1)
    figures = measure_videos(DensePixels(), videos, 160, nearest, lambda *step: done.append(step))
    assert done[-1] == (2 * FRAMES, 2 * FRAMES)
    assert list(figures) == ["all", "standing", "wandering"]
    for name in figures:
        assert figures[name]["full"]["j"] > 95
        assert figures[name]["full"]["f"] > 80
    objects = 2 * figures["standing"]["full"]["j"] + figures["wandering"]["full"]["j"]
    assert figures["all"]["full"]["j"] == pytest.approx(objects / 3)


def test_a_mask_that_stays_where_it_was_is_worse(davis: Path) -> None:
    (wandering,) = (video for video in find_videos(davis) if video.name == "wandering")
    followed = [mask["full"] for mask in segment(DensePixels(), wandering, 160)]
    last = wandering.mask(FRAMES - 1)
    assert followed[-1].shape == last.shape
    agreement = [np.mean((mask == 1) & (last == 1)) / np.mean(last) for mask in followed]
    assert agreement[-1] > 0.9 > agreement[0]


def test_what_is_wrong_with_a_folder_is_said(davis: Path) -> None:
    with pytest.raises(DataError, match="there is no folder JPEGImages"):
        find_videos(davis / "JPEGImages")
    mask = davis / "Annotations" / "480p" / "standing" / "00002.png"
    Image.new("L", (10, 10)).save(mask)
    with pytest.raises(DataError, match=r"00002\.png: is 10×10, its frame 192×160"):
        measure_videos(DensePixels(), find_videos(davis), 160)
    Image.new("RGB", (WIDTH, HEIGHT)).save(mask)
    with pytest.raises(DataError, match="got an image of mode RGB"):
        measure_videos(DensePixels(), find_videos(davis), 160)
    mask.write_bytes(b"no image")
    with pytest.raises(DataError, match="cannot be read as an image"):
        measure_videos(DensePixels(), find_videos(davis), 160)
    mask.unlink()
    with pytest.raises(DataError, match=r"a \.png for every frame, none for 00002\.jpg"):
        find_videos(davis)
    first = davis / "Annotations" / "480p" / "wandering" / "00000.png"
    Image.new("L", (WIDTH, HEIGHT)).save(first)
    Image.new("L", (WIDTH, HEIGHT)).save(mask)
    with pytest.raises(DataError, match="there is nothing to follow"):
        measure_videos(DensePixels(), find_videos(davis)[1:], 160)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("2017/val.txt", "wandering\n"),
        (
            "480p/val.txt",
            "/JPEGImages/480p/wandering/00000.jpg /masks/00000.png\n",
        ),
    ],
)
def test_only_the_validation_set_counts_where_it_is_listed(
    davis: Path, name: str, text: str
) -> None:
    path = davis / "ImageSets" / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert [video.name for video in find_videos(davis)] == ["wandering"]


def test_a_bright_square_is_the_object(tmp_path: Path) -> None:
    for folder in ("JPEGImages", "Annotations"):
        (tmp_path / folder / "square").mkdir(parents=True)
    for number in range(21):
        frame, truth = (np.zeros((160, 192), dtype=np.uint8) for _ in range(2))
        frame[48:96, 64:128], truth[48:96, 64:128] = 255, 255
        Image.fromarray(frame).convert("RGB").save(
            tmp_path / "JPEGImages" / "square" / f"{number:05}.png"
        )
        Image.fromarray(truth).save(tmp_path / "Annotations" / "square" / f"{number:05}.png")
    done: list[tuple[int, int]] = []
    videos = find_videos(tmp_path)
    figures = measure_saliency(DensePixels(), videos, 160, lambda *step: done.append(step))
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert figures["plain"]["full"] == {"corloc": 100.0, "iou": 100.0, "cut_share": 100.0}
    Image.new("RGB", (192, 160)).save(tmp_path / "JPEGImages" / "square" / "00010.png")
    figures = measure_saliency(DensePixels(), videos, 160)
    # Of a black frame all patches are alike: it counts as not found.
    assert figures["plain"]["full"]["cut_share"] == pytest.approx(200 / 3)
    assert figures["plain"]["full"]["iou"] == pytest.approx(200 / 3)


def test_a_video_without_an_object_in_the_frames_that_count_is_refused(davis: Path) -> None:
    for first in davis.glob("Annotations/480p/*/00000.png"):
        Image.new("L", (WIDTH, HEIGHT)).save(first)
    with pytest.raises(DataError, match=r"expected an object in the mask of .*every 10th"):
        measure_saliency(DensePixels(), find_videos(davis), 160)


def test_the_command_measures_on_videos(
    davis: Path, tiny_model: CleverModel, tmp_path: Path
) -> None:
    model, out = tmp_path / "model", tmp_path / "out"
    tiny_model.save_pretrained(model)
    words = ["evaluate", str(model), "--video", str(davis), "--video-size", "96", "-o", str(out)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    content = results.read(out)
    assert set(content["figures"]) == {"video", "saliency"}
    assert set(content["baselines"]) == {"random", "pixels"}
    for figures in (content["figures"], *(b["figures"] for b in content["baselines"].values())):
        found = figures["video"]["all"]["full"]["j"]
        assert 0 < found["mean"] <= 100
        assert found["std"] is None
    assert set(content["figures"]["video"]["standing"]) == {"full", "invariant", "equivariant"}
    record = content["protocols"]["video"]
    assert record["settings"]["size"] == 96
    assert record["data"]["videos"]["frames"] == 2 * FRAMES
    assert shlex.split(record["command"])[1:] == [
        *words[:4],
        *("--protocols", "video,saliency", "--video-size", "96", "--output", str(out)),
    ]
    assert "j_and_f" in result.output
    assert "corloc" in result.output


def test_options_for_photos_change_nothing_of_videos(
    davis: Path, tiny_model: CleverModel, tmp_path: Path
) -> None:
    model = tiny_model.save_pretrained(tmp_path / "model")
    words = ["evaluate", str(model), "--video", str(davis), "--video-size", "96"]
    words += ["--protocols", "video", "--no-baselines"]
    photos = {"seeds": "2", "profile": "full", "last-blocks": "2", "image-size": "64"}
    given = [word for name, value in photos.items() for word in (f"--{name}", value)]
    made = []
    for out, more in (("plain", []), ("given", [*given, "--probe", "sgd"])):
        result = CliRunner().invoke(app, [*words, *more, "-o", str(tmp_path / out)])
        assert result.exit_code == 0, result.output
        made.append(results.read(tmp_path / out))
        said = "not used: --seeds, --profile, --last-blocks, --image-size, --probe; they are for"
        assert (said in " ".join(result.stderr.split())) == bool(more)
    assert made[0]["model"] == made[1]["model"]
    assert made[0]["figures"] == made[1]["figures"]


def test_what_data_a_protocol_needs_is_said(davis: Path, tmp_path: Path) -> None:
    for words, message in (
        ((), "expected --data, --video or both"),
        (("--data", "photos", "--protocols", "knn,video"), "--video: video needs videos"),
        (("--video", str(davis), "--protocols", "knn"), "--data: knn needs labelled photos"),
        (("--video", str(davis), "--protocols", "vidoe"), "unknown 'vidoe'. Did you mean 'video'"),
    ):
        result = CliRunner().invoke(app, ["evaluate", "pixels", *words, "-o", str(tmp_path)])
        assert result.exit_code != 0
        assert message in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("number", "mode"), [(1, "L"), (255, "L"), (3, "P"), (10, "L"), (128, "P")]
)
def test_an_object_is_one_whatever_its_number_is(davis: Path, number: int, mode: str) -> None:
    (wandering,) = (video for video in find_videos(davis) if video.name == "wandering")
    expected = wandering.mask(2)
    for path in wandering.masks:
        with Image.open(path) as image:
            there = np.asarray(image) > 0
        mask = Image.fromarray(there.astype(np.uint8) * np.uint8(number))
        if mode == "P":
            mask.putpalette([0, 0, 0] * 256)
        mask.save(path)
    (again,) = (video for video in find_videos(davis) if video.name == "wandering")
    assert again.objects() == 1
    assert np.array_equal(again.mask(2), expected)


def test_an_object_that_comes_later_is_background(davis: Path) -> None:
    (wandering,) = (video for video in find_videos(davis) if video.name == "wandering")
    expected = wandering.mask(2)
    with Image.open(wandering.masks[2]) as image:
        later = np.asarray(image).copy()
    later[:4, :4] = 7
    Image.fromarray(later).save(wandering.masks[2])
    found = wandering.mask(2)
    assert (found[:4, :4] == 0).all()
    assert np.array_equal(found[4:], expected[4:])


def test_options_of_photos_do_not_go_with_videos(davis: Path, tmp_path: Path) -> None:
    words = ["evaluate", "clever-vit-tiny", "--video", str(davis), "--data", "photos"]
    result = CliRunner().invoke(app, [*words, "-o", str(tmp_path), "--last-blocks", "4"])
    assert result.exit_code == 1
    assert "--last-blocks, --image-size: of photos alone" in result.stderr
