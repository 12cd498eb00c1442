"""Groups of copies, from vectors alone and with a verification."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from clever_hub.embeddings import Embeddings
from clever_hub.errors import ConfigError, DataError
from clever_hub.jobs.best import BestPhotos
from clever_hub.jobs.candidates import FALSE_PER_PHOTO
from clever_hub.jobs.duplicates import Verdict, find_duplicates, group, most_pairs
from clever_hub.jobs.embedded import EmbeddedPhotos
from clever_hub.jobs.heads import Heads
from clever_hub.jobs.leaks import find_leaks
from clever_hub.jobs.pairs import Pairs
from clever_hub.jobs.photo_files import image_size
from clever_hub.jobs.relate import check_raw
from clever_hub.jobs.sheets import thumbnail
from clever_hub.jobs.verifying import PixelVerifier
from clever_hub.pretrained import from_pretrained

Rows = NDArray[np.int64]


@dataclass
class Known:
    """A verification that knows the truth."""

    same: bool

    def words(self) -> str:
        return "a copy" if self.same else "another"


class Oracle:
    """Says that rows with the same remainder by 50 are copies; counts what it is asked."""

    name = "oracle"

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, a: Rows, b: Rows) -> Sequence[Verdict | None]:
        self.asked += len(a)
        return [Known(x % 50 == y % 50) for x, y in zip(a, b, strict=True)]


@pytest.fixture
def vectors() -> NDArray[np.float32]:
    """50 photos, and again each with some noise."""
    rng = np.random.default_rng(0)
    photos = rng.normal(size=(50, 16))
    return np.concatenate([photos, photos + rng.normal(size=(50, 16)) * 0.5]).astype(np.float32)


def test_a_verification_looks_at_candidates_and_decides(vectors: NDArray[np.float32]) -> None:
    oracle = Oracle()
    found = find_duplicates(vectors, verify=oracle)
    assert found.candidates == oracle.asked
    assert found.candidates == pytest.approx(25 * 100, abs=10), "25 for each photo"
    assert len(found.groups) == len(found.pairs.a) == len(found.verdicts) == 50
    assert all(len(rows) == 2 and rows[1] - rows[0] == 50 for rows in found.groups)
    assert all(verdict.words() == "a copy" for verdict in found.verdicts)
    assert found.verified_by == "oracle"
    np.testing.assert_array_equal(found.surplus, np.arange(50, 100))


def test_the_largest_photo_is_the_best(vectors: NDArray[np.float32]) -> None:
    pixels = np.concatenate([np.full(50, 100), np.full(50, 200)])
    found = find_duplicates(vectors, verify=Oracle(), pixels=pixels)
    assert all(rows[0] >= 50 for rows in found.groups)
    assert (found.pairs.a >= 50).all(), "what was done is told from the better photo"
    np.testing.assert_array_equal(found.surplus, np.arange(50))


def test_without_a_verification_the_cosine_decides_and_says_so(
    vectors: NDArray[np.float32],
) -> None:
    found = find_duplicates(vectors, threshold=0.75)
    assert found.verified_by == "nothing"
    assert found.verdicts == []
    pairs = {(int(a), int(b)) for a, b in zip(found.pairs.a, found.pairs.b, strict=True)}
    assert len([1 for a, b in pairs if b - a == 50]) > 40
    assert "unknown" in str(found.threshold)


def test_all_pairs_of_a_handful_are_looked_at() -> None:
    oracle = Oracle()
    find_duplicates(np.eye(6, dtype=np.float32), verify=oracle)
    assert oracle.asked == 15


def test_what_cannot_be_read_is_no_copy(vectors: NDArray[np.float32]) -> None:
    found = find_duplicates(vectors, verify=lambda a, _: [None] * len(a))
    assert found.groups == []
    assert len(found.surplus) == 0


def test_a_rate_cannot_be_had_from_a_few_photos(vectors: NDArray[np.float32]) -> None:
    with pytest.raises(ConfigError, match="500 are needed"):
        find_duplicates(vectors)
    with pytest.raises(ConfigError, match="expected_false: expected a number above 0, got 0"):
        find_duplicates(vectors, expected_false=0)
    with pytest.raises(ConfigError, match="a cosine, -1 to 1, got 90"):
        find_duplicates(vectors, threshold=90)


def test_two_options_for_one_thing_and_a_part_that_is_missing() -> None:
    vectors = np.eye(20, dtype=np.float32)
    photos = EmbeddedPhotos([Path("a")] * 20, Embeddings(vectors, vectors[:, :0]), "")
    with pytest.raises(ConfigError, match="expected one of them, got both"):
        find_duplicates(vectors, threshold=0.5, expected_false=3)
    with pytest.raises(ConfigError, match="expected one of them, got both"):
        find_leaks(photos, photos, threshold=0.5, expected_false=3)
    with pytest.raises(ConfigError, match="no equivariant part"):
        find_leaks(photos, photos, threshold=0.5, part="equivariant")


def test_the_part_is_chosen(vectors: NDArray[np.float32]) -> None:
    parts = Embeddings(vectors, np.ones((100, 2), np.float32))
    found = find_duplicates(parts, threshold=0.75)
    assert len(found.groups) > 40
    with pytest.raises(ConfigError, match="part: expected one of invariant, equivariant, full"):
        find_duplicates(parts, threshold=0.75, part="both")
    with pytest.raises(ConfigError, match="no equivariant part"):
        find_duplicates(Embeddings(vectors, vectors[:, :0]), threshold=0.75, part="equivariant")


def test_links_make_groups_whatever_their_order() -> None:
    a, b = np.array([5, 1, 3, 8]), np.array([3, 2, 1, 9])
    rank = np.array([0, 4, 3, 2, 0, 2, 0, 0, 1, 1])
    expected = [[3, 5, 2, 1], [8, 9]]  # of equals, the earlier
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(4)
        links = Pairs(a[order], b[order], np.ones(4, np.float32))
        assert [rows.tolist() for rows in group(links, rank)] == expected


def test_heads_choose_candidates_by_their_calibration_and_verify_them(headed_folder: Path) -> None:
    heads = Heads.load(headed_folder)
    rng = np.random.default_rng(1)
    photos = rng.normal(size=(40, 24))
    full = np.concatenate([photos, photos + 0.05 * rng.normal(size=(40, 24))]).astype(np.float32)
    embeddings = Embeddings(full[:, :19], full[:, 19:])
    found = find_duplicates(embeddings, heads=heads)
    assert (found.threshold.source, found.threshold.cosine) == ("calibration", 0.5)
    assert found.verified_by == "heads"
    assert 40 <= len(found.pairs.a) <= found.candidates
    copies = {(int(a), int(b)) for a, b in zip(found.pairs.a, found.pairs.b, strict=True)}
    assert {(row, row + 40) for row in range(40)} <= copies
    for verdict in found.verdicts:
        assert verdict.same >= 0.5
        assert "the same photo" in verdict.words()
    exact = find_duplicates(embeddings, heads=heads, expected_false=0.05)
    assert exact.threshold.cosine > 0.6, "the calibration's lower rates ask for more"


def test_embeddings_of_another_model_are_refused_by_heads(headed_folder: Path) -> None:
    vectors = np.eye(20, dtype=np.float32)
    with pytest.raises((DataError, ValueError), match=r"expected|entries"):
        find_duplicates(Embeddings(vectors, vectors), heads=Heads.load(headed_folder))


def test_no_photos_and_no_pairs_wanted() -> None:
    vectors = np.zeros((0, 8), np.float32)
    found = find_duplicates(vectors, verify=PixelVerifier([]))
    assert (found.candidates, found.groups) == (0, [])
    with pytest.raises(ConfigError, match="max_pairs: expected 1 or more, got 0"):
        find_duplicates(np.ones((3, 8), np.float32), threshold=0.5, max_pairs=0)


def test_a_large_photo_is_measured_without_a_warning(tmp_path: Path) -> None:
    Image.new("1", (9500, 9500)).save(tmp_path / "large.png")  # Pillow warns from 89 million pixels
    assert image_size(tmp_path / "large.png") == (9500, 9500)


def test_a_format_whose_reader_is_missing_is_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = tmp_path / "a.heic"
    photo.write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    verify = PixelVerifier([photo, photo])
    assert list(verify(np.array([0]), np.array([1]))) == [None]
    assert "pillow_heif" in verify.unreadable[0].reason
    assert image_size(photo) == (0, 0)
    assert thumbnail(photo) is None


def test_candidates_that_were_left_out_are_told_of() -> None:
    x = np.random.default_rng(0).normal(size=(60, 16)).astype(np.float32)
    vectors = np.concatenate([x, x + 0.01])
    assert not find_duplicates(vectors, threshold=0.9).limited
    few = find_duplicates(vectors, threshold=0.9, max_pairs=20)
    assert few.limited
    assert few.candidates == 20


def test_so_many_candidates_are_kept_as_are_asked_for_by_default() -> None:
    assert most_pairs(1000) == 5_000_000
    assert most_pairs(1_000_000) > FALSE_PER_PHOTO * 1_000_000


def test_normalised_embeddings_are_refused_where_heads_set_the_threshold(
    headed_folder: Path,
) -> None:
    model = from_pretrained(headed_folder)
    photos = np.random.default_rng(0).integers(0, 256, (4, 40, 40, 3), np.uint8)
    found = model.encode(list(photos), normalize=True)
    with pytest.raises(DataError, match="the embeddings are normalised"):
        find_duplicates(found, heads=model.heads, verify=Oracle())
    sides = EmbeddedPhotos([Path("a")] * 4, found, "")
    with pytest.raises(DataError, match="the embeddings are normalised"):
        find_leaks(sides, sides, heads=model.heads, verify=Oracle())


def test_heads_beside_another_verification_let_all_pairs_of_a_handful_be_looked_at(
    headed_folder: Path, vectors: NDArray[np.float32]
) -> None:
    heads = Heads.load(headed_folder)
    few = Embeddings(np.tile(vectors, 2)[:20, :19], vectors[:20, :5])
    oracle = Oracle()
    found = find_duplicates(few, heads=heads, verify=oracle)
    assert (oracle.asked, found.threshold.cosine) == (190, -1.0)
    alone = find_duplicates(few, heads=heads)
    assert alone.threshold.cosine == 0.5, "heads alone are less sure: the calibration's rate"
    many = find_duplicates(few, heads=heads, verify=oracle, expected_false=0.1)
    assert many.threshold.source == "calibration", "where its rates go so far"


def test_other_numbers_of_photos_than_embeddings_are_refused(
    vectors: NDArray[np.float32], tmp_path: Path
) -> None:
    few = np.arange(99)
    names = [tmp_path / f"{row}.jpg" for row in few]
    for options in (
        {"pixels": few},
        {"verify": PixelVerifier(names)},
        {"ranking": BestPhotos(names)},
    ):
        with pytest.raises(DataError, match=r"as many photos as embeddings, 100, got 99.*kept"):
            find_duplicates(vectors, threshold=0.5, **options)
    with pytest.raises(DataError, match="as many paths as embeddings, 100, got 99"):
        EmbeddedPhotos(names, Embeddings(vectors, vectors))


def test_what_is_no_embeddings_is_refused(vectors: NDArray[np.float32]) -> None:
    for wrong in (["a.jpg"], "a.jpg", np.arange(3), vectors.astype(int)):
        with pytest.raises(DataError, match="expected Embeddings, as model"):
            find_duplicates(wrong, threshold=0.5)  # type: ignore[arg-type]
        with pytest.raises(DataError, match="expected Embeddings, as model"):
            find_leaks(wrong, wrong, threshold=0.5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="part: expected one of invariant"):
        find_duplicates(vectors, threshold=0.5, part="both")


def test_embeddings_alone_are_enough_for_leaks(vectors: NDArray[np.float32]) -> None:
    e = Embeddings(vectors, vectors[:, :2])
    found = find_leaks(e[:50], e[50:], threshold=0.75)
    assert len(found.leaked) > 40
    with pytest.raises(DataError, match="are of different models"):
        find_leaks(e[:50], Embeddings(vectors[:, :9], vectors[:, :2]), threshold=0.75)


def test_normalised_vectors_are_refused_by_heads_however_they_were_normalised(
    headed_folder: Path, vectors: NDArray[np.float32]
) -> None:
    heads = Heads.load(headed_folder)
    raw = Embeddings(np.tile(vectors, 2)[:, :19], vectors[:, :5])
    whole = raw.full / np.linalg.norm(raw.full, axis=1, keepdims=True)
    by_whole = Embeddings(whole[:, :19], whole[:, 19:])
    zero = raw.normalized().equivariant.copy()
    zero[0] = 0
    for wrong in (by_whole, Embeddings(raw.invariant, zero), raw.normalized().invariant):
        with pytest.raises(DataError, match="the embeddings are normalised"):
            find_duplicates(wrong, heads=heads)
    assert find_duplicates(raw.invariant, heads=heads, verify=Oracle()).candidates
    with pytest.raises(DataError, match="invariant part has 19 entries, the vectors have 16"):
        find_duplicates(vectors, heads=heads, verify=Oracle())


def test_a_verifier_of_other_photos_is_refused_by_leaks_too(
    vectors: NDArray[np.float32], tmp_path: Path
) -> None:
    e = Embeddings(vectors, vectors[:, :2])
    names = [tmp_path / f"{row}.jpg" for row in range(50)]
    for others in (names[:49], names):
        wrong = PixelVerifier(names[: 99 - len(others)], others=others)
        with pytest.raises(DataError, match="verify: expected as many photos as embeddings, 50"):
            find_leaks(e[:50], e[50:], threshold=0.75, verify=wrong)


def test_what_is_done_about_a_rate_that_too_few_photos_show(vectors: NDArray[np.float32]) -> None:
    with pytest.raises(ConfigError, match=r"a rate of 0.001 at least \(--expected-false\)$"):
        find_duplicates(vectors, verify=Oracle(), expected_false=0.1)
    with pytest.raises(ConfigError, match="or verify candidates by pixels"):
        find_duplicates(vectors)


def test_heads_look_at_the_lengths_of_embeddings_without_a_copy_of_them(
    headed_folder: Path,
) -> None:
    heads = Heads.load(headed_folder)
    rows = np.random.default_rng(0).normal(size=(400_000, 24)).astype(np.float32)
    e = Embeddings(rows[:, :19], rows[:, 19:])
    tracemalloc.start()
    check_raw(e, heads)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < rows.nbytes / 10
