"""Shards: what is stopped goes on, what has changed is followed, what does not fit is refused."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import clever_hub
from clever_hub.backends.torch import CleverModel
from clever_hub.config import ModelConfig
from clever_hub.errors import CleverError, ConfigError, DataError
from clever_hub.files import write_json
from clever_hub.hub import shipped
from clever_hub.images.encoding import EncoderMixin
from clever_hub.images.finding import find_images
from clever_hub.jobs.embedded import check_comparable, read_embeddings
from clever_hub.jobs.store import embed_photos
from clever_hub.scale import embed_dataset
from clever_hub.scale.formats import read_part
from clever_hub.scale.places import Places, is_in, slashed
from clever_hub.scale.storage import LocalStorage
from clever_hub.scale.target import Target

COMMAND = (sys.executable, "-c", "from clever_hub.cli.app import main; main()", "embed")


def rows(folder: Path) -> dict[str, bytes]:
    """The exact bytes of each photo's vectors, by its path."""
    found: dict[str, bytes] = {}
    for file in sorted(folder.glob("part-*.parquet")):
        table = pq.read_table(file)
        parts = [read_part(table, part) for part in ("invariant", "equivariant")]
        for path, *vectors in zip(table["path"].to_pylist(), *parts, strict=True):
            assert str(path) not in found, "a row is there twice"
            found[str(path)] = b"".join(vector.tobytes() for vector in vectors)
    return found


def embed(model: Path, album: Any, out: Any, **options: Any) -> Any:
    return embed_dataset(model, album, out, **{"shard_size": 8, **options})


def test_shards_have_the_rows_that_encode_gives(
    model_folder: Path, album: Path, tmp_path: Path
) -> None:
    done = embed(model_folder, album, tmp_path / "v")
    names = sorted(path.name for path in (tmp_path / "v").iterdir())
    assert names == ["_clever_hub", *(f"part-0000{i}.parquet" for i in range(4))]
    assert (done.images, done.rows, done.computed, done.skipped) == (30, 30, 30, [])
    found = rows(tmp_path / "v")
    assert list(found) == [str(path) for path in find_images([album])]
    expected = clever_hub.from_pretrained(model_folder).encode(found).full
    values = np.stack([np.frombuffer(row, np.float32) for row in found.values()])
    np.testing.assert_allclose(values, expected, atol=1e-5)
    assert pq.read_table(tmp_path / "v").num_rows == 30, "readers pass over the folder of plans"


def test_the_same_again_computes_nothing(model_folder: Path, album: Path, tmp_path: Path) -> None:
    embed(model_folder, album, tmp_path / "v")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "v").glob("*.parquet")}
    done = embed(model_folder, album, tmp_path / "v")
    assert (done.rows, done.computed, bool(done.changes)) == (30, 0, False)
    assert before == {f: f.stat().st_mtime_ns for f in (tmp_path / "v").glob("*.parquet")}


def _killed(arguments: list[str], seconds: float, there: Path | None = None) -> bool:
    """Run the command and kill it so long after its start, or after a file is there.

    Whether it was still running.
    """
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    while there is not None and not there.exists() and process.poll() is None:
        time.sleep(0.01)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    assert process.returncode == 0
    return False


@pytest.mark.skipif("clever-resnet18" not in shipped.model_names(), reason="no shipped model")
def test_killed_at_random_moments_it_gives_the_same_bytes(album: Path, tmp_path: Path) -> None:
    """SIGKILL again and again: no row is lost, computed twice after it was kept, or different."""
    for copy in range(1, 12):
        shutil.copytree(album, tmp_path / "many" / str(copy))
    common = [str(tmp_path / "many"), "--shard-size", "16", "-o"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    began = time.monotonic()
    assert not _killed(["clever-resnet18", *common, str(whole)], 200)
    length = time.monotonic() - began
    dice = random.Random(5)
    # The first time when a shard is there, however slow the machine is: there is something to keep.
    first = broken / "part-00000.parquet"
    assert _killed(["clever-resnet18", *common, str(broken)], 0, there=first)
    kept = {file: file.stat().st_mtime_ns for file in broken.glob("part-*.parquet")}
    assert 0 < len(kept) < len(list(whole.glob("part-*.parquet")))
    for _ in range(4):
        if not _killed(["clever-resnet18", *common, str(broken)], dice.uniform(0.3, 1) * length):
            break
        for file in broken.glob("part-*.parquet"):
            kept.setdefault(file, file.stat().st_mtime_ns)
    (broken / ".part-00001.0a1b2c3d.tmp.parquet").write_bytes(b"half of a shard")
    (broken / "_clever_hub" / "plan" / ".part-00001.0a1b2c3d.tmp.json").write_bytes(b"half")
    (broken / ".a.tmp").mkdir()  # whatever lies there
    assert not _killed(["clever-resnet18", *common, str(broken)], 200)
    assert rows(broken) == rows(whole)
    assert len(rows(whole)) == 330
    assert all(file.stat().st_mtime_ns == when for file, when in kept.items())
    assert [path.name for path in broken.rglob("*") if ".tmp" in path.name] == [".a.tmp"]
    assert pq.read_table(broken).num_rows == 330


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.skipif("clever-resnet18" not in shipped.model_names(), reason="no shipped model")
def test_a_signal_ends_it_with_one_line(
    album: Path, tmp_path: Path, number: int, code: int
) -> None:
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("the tests run in the background of a shell, which ignores this signal")
    for copy in range(1, 12):
        shutil.copytree(album, tmp_path / "many" / str(copy))
    out = tmp_path / "v"
    arguments = ["clever-resnet18", str(tmp_path / "many"), "-o", str(out), "--shard-size", "4"]
    process = subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE, text=True)
    while not list(out.glob("part-00002*")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert said.count("Stopped. The same command goes on") == 1
    assert "Traceback" not in said
    assert not [path for path in out.rglob("*") if ".tmp" in path.name]


def test_a_full_disk_loses_one_shard(
    model_folder: Path, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = LocalStorage.write

    def full(self: LocalStorage, name: str, content: bytes) -> None:
        if name == "part-00002.parquet":
            monkeypatch.setattr("clever_hub.files._flush", _no_space)
        write(self, name, content)

    monkeypatch.setattr(LocalStorage, "write", full)
    with pytest.raises(CleverError, match=r"part-00002.*No space left.*the same command goes on"):
        embed(model_folder, album, tmp_path / "v")
    names = sorted(file.name for file in (tmp_path / "v").iterdir())
    assert names == ["_clever_hub", "part-00000.parquet", "part-00001.parquet"]
    monkeypatch.undo()
    assert embed(model_folder, album, tmp_path / "v").computed == 14
    embed(model_folder, album, tmp_path / "whole")
    assert rows(tmp_path / "v") == rows(tmp_path / "whole")


def _no_space(path: Path) -> None:
    raise OSError(28, "No space left on device", str(path))


def test_a_truncated_shard_is_computed_again(
    model_folder: Path, album: Path, tmp_path: Path
) -> None:
    embed(model_folder, album, tmp_path / "v")
    before, shard = rows(tmp_path / "v"), tmp_path / "v" / "part-00001.parquet"
    content = shard.read_bytes()
    for length in (0, 100, len(content) // 2, len(content) - 1):
        shard.write_bytes(content[:length])
        assert embed(model_folder, album, tmp_path / "v").computed == 8
        assert rows(tmp_path / "v") == before


def test_update_follows_what_is_new_changed_and_gone(
    model_folder: Path, album: Path, tmp_path: Path
) -> None:
    out = tmp_path / "v"
    embed(model_folder, album, out)
    before = rows(out)
    for index in range(5):
        shutil.copy(album / "01.jpg", album / f"new-{index}.jpg")
    Image.open(album / "03.jpg").rotate(180).save(album / "03.jpg")
    (album / "second" / "25.jpg").unlink()
    told = embed(model_folder, album, out)
    assert told.changes.describe() == "5 new, 1 changed, 1 vanished"
    assert not told.updated
    assert rows(out) == before, "without --update it only tells"
    done = embed(model_folder, album, out, update=True)
    assert (done.computed, done.rows, done.images) == (6, 34, 34)
    assert done.changes.examples == [str(album / "second" / "25.jpg")]
    after = rows(out)
    embed(model_folder, album, tmp_path / "fresh")
    fresh = rows(tmp_path / "fresh")
    assert after.keys() == fresh.keys()
    same = before.keys() & after.keys() - {str(album / "03.jpg")}
    assert len(same) == 28
    assert {path: after[path] for path in same} == {path: before[path] for path in same}
    for path, row in after.items():
        found, expected = np.frombuffer(row, np.float32), np.frombuffer(fresh[path], np.float32)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert after[str(album / "03.jpg")] != before[str(album / "03.jpg")]
    assert len(list(out.glob("part-*"))) == 5, "new ones fill up the last shard first"
    assert embed(model_folder, album, out, update=True).computed == 0


def test_an_update_drops_no_row_of_a_photo_that_is_there(
    model_folder: Path, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(album / "second", "more")
    embed(model_folder, Path("album"), tmp_path / "v")
    before = rows(tmp_path / "v")
    with pytest.raises(DataError, match=r"made of album, not of more.*or add these to it: --upda"):
        embed(model_folder, Path("more"), tmp_path / "v")
    (album / "03.jpg").unlink()
    done = embed(model_folder, Path("more"), tmp_path / "v", update=True)
    assert done.changes.describe() == "10 new, 0 changed, 1 vanished, 29 no longer named"
    assert (done.computed, done.images) == (10, 39)
    after = rows(tmp_path / "v")
    assert before.items() - after.items() == {("album/03.jpg", before["album/03.jpg"])}
    one = embed(model_folder, Path("album/05.jpg"), tmp_path / "v", update=True)
    assert one.changes.describe() == "0 new, 0 changed, 0 vanished, 38 no longer named"
    assert rows(tmp_path / "v") == after
    both = embed(model_folder, ["album", "more"], tmp_path / "v")
    assert (both.computed, both.changes.describe()) == (0, "0 new, 0 changed, 0 vanished")
    pruned = embed(model_folder, Path("more"), tmp_path / "v", update=True, prune=True)
    assert (pruned.computed, pruned.images, pruned.changes.pruned) == (0, 10, True)
    assert rows(tmp_path / "v") == {k: v for k, v in after.items() if k.startswith("more")}
    assert embed(model_folder, Path("more"), tmp_path / "v").rows == 10, "its inputs are these now"


def test_to_prune_is_to_update(model_folder: Path, album: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--prune: .*Give --update"):
        embed(model_folder, album, tmp_path / "v", prune=True)


def test_a_photo_is_the_same_by_its_relative_and_its_absolute_name(
    model_folder: Path, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(album)
    embed(model_folder, Path("album"), Path("v"))
    before = rows(Path("v"))
    spellings = (album, Path("./album"), Path("elsewhere/../album"), Path("link"))
    for spelling in spellings:
        assert embed(model_folder, spelling, Path("v")).computed == 0
        done = embed(model_folder, spelling, Path("v"), update=True)
        assert (done.computed, done.changes.describe()) == (0, "0 new, 0 changed, 0 vanished")
        assert rows(Path("v")) == before, "names stay as they were"
    monkeypatch.chdir("elsewhere")
    Image.open(album / "02.jpg").rotate(180).save(album / "02.jpg")
    shutil.copy(album / "01.jpg", "new.jpg")
    (album / "04.jpg").unlink()
    done = embed(model_folder, [album, "new.jpg"], tmp_path / "v", update=True)
    assert done.changes.describe() == "1 new, 1 changed, 1 vanished"
    after = rows(tmp_path / "v")
    assert after.keys() == before.keys() - {"album/04.jpg"} | {"new.jpg"}
    assert after["album/02.jpg"] != before["album/02.jpg"], "read where its name began"
    # From a third folder, none of the relative names leads anywhere.
    monkeypatch.chdir(tmp_path / "album")
    done = embed(model_folder, Path("05.jpg"), tmp_path / "v", update=True)
    assert done.changes.describe() == "0 new, 0 changed, 0 vanished, 29 no longer named"
    assert rows(tmp_path / "v") == after


@pytest.mark.parametrize("update", [False, True])
@pytest.mark.parametrize("absolute", [False, True])
def test_a_name_that_is_another_photo_from_here_is_refused(
    model_folder: Path,
    album: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    update: bool,
    absolute: bool,
) -> None:
    other, out = tmp_path / "b", tmp_path / "v"
    shutil.copytree(album / "second", other / "album" / "second")
    monkeypatch.chdir(tmp_path)
    embed(model_folder, "album", out)
    before = rows(out)
    monkeypatch.chdir(other)
    given = other / "album" if absolute else "album"
    with pytest.raises(DataError, match=r"another\. Call from .* name another --output") as refused:
        embed(model_folder, given, out, update=update)
    assert f" of {tmp_path}; " in str(refused.value)
    assert f" of {other} is" in str(refused.value)
    assert rows(out) == before
    # What the message advises.
    monkeypatch.chdir(tmp_path)
    done = embed(model_folder, other / "album", out, update=True)
    assert done.changes.describe() == "10 new, 0 changed, 0 vanished, 30 no longer named"
    assert before.items() < rows(out).items()


def test_a_link_to_the_same_photos_is_no_other_photo(
    model_folder: Path, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    embed(model_folder, "album", tmp_path / "v")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "album").symlink_to(album)
    monkeypatch.chdir(tmp_path / "b")
    done = embed(model_folder, "album", tmp_path / "v", update=True)
    assert (done.computed, done.changes.describe()) == (0, "0 new, 0 changed, 0 vanished")


def test_a_folder_in_a_folder_is_known_by_either_separator(tmp_path: Path) -> None:
    folders = {slashed(r"C:\photos", "\\")}
    for path in (r"C:\photos", r"C:\photos\a\b", "C:/photos/a"):
        assert is_in(slashed(path, "\\"), folders)
    assert not is_in(slashed(r"C:\photos2\a", "\\"), folders)
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert Places().outermost([str(inner), str(tmp_path)]) == [str(tmp_path)]


def test_relative_names_of_an_older_version_are_not_dropped_from_elsewhere(
    model_folder: Path, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    embed(model_folder, Path("album"), tmp_path / "v")
    run = tmp_path / "v" / "_clever_hub" / "run.json"
    content = json.loads(run.read_text())
    del content["folders"]
    run.write_text(json.dumps(content))
    shutil.copytree(album / "second", tmp_path / "b" / "more")
    monkeypatch.chdir(tmp_path / "b")
    done = embed(model_folder, Path("more"), tmp_path / "v", update=True)
    assert done.changes.describe() == "10 new, 0 changed, 0 vanished, 30 no longer named"
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(album / "second")
    done = embed(model_folder, Path("album"), tmp_path / "v", update=True)
    assert done.changes.describe() == "0 new, 0 changed, 10 vanished, 10 no longer named"


def test_rows_of_tables_that_are_there_stay(
    model_folder: Path, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photos = [path.read_bytes() for path in sorted(album.glob("*.jpg"))[:6]]

    def write(name: str, content: list[bytes]) -> None:
        pq.write_table(pa.table({"image": pa.array(content, pa.binary())}), name)

    write("a.parquet", photos[:4])
    write("b.parquet", photos[4:])
    embed(model_folder, "a.parquet", "v")
    before = rows(Path("v"))
    done = embed(model_folder, "b.parquet", "v", update=True)
    assert done.changes.describe() == "2 new, 0 changed, 0 vanished, 4 no longer named"
    assert before.items() < rows(Path("v")).items()
    given = [str(tmp_path / "a.parquet"), "b.parquet"]
    assert embed(model_folder, given, "v", update=True).computed == 0
    write("a.parquet", photos[:2])
    done = embed(model_folder, "b.parquet", "v", update=True)
    assert done.changes.describe() == "0 new, 0 changed, 2 vanished, 2 no longer named"


def test_addresses_that_are_not_under_what_is_listed_stay(
    model_folder: Path, album: Path, tmp_path: Path
) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for index, path in enumerate(sorted(album.glob("*.jpg"))[:6]):
        memory.pipe_file(f"/places/{'ab'[index // 3]}/{index}.jpg", path.read_bytes())
    a, b = "memory://places/a", "memory://places/b"
    embed(model_folder, a, tmp_path / "v")
    done = embed(model_folder, b, tmp_path / "v", update=True)
    assert done.changes.describe() == "3 new, 0 changed, 0 vanished, 3 no longer named"
    memory.rm_file("/places/a/0.jpg")
    done = embed(model_folder, [a, b], tmp_path / "v", update=True)
    assert done.changes.describe() == "0 new, 0 changed, 1 vanished"


def test_many_inputs_are_not_all_in_the_message(
    model_folder: Path, album: Path, tmp_path: Path
) -> None:
    many = [str(path) for path in sorted(album.glob("*.jpg"))]
    embed(model_folder, many, tmp_path / "v")
    with pytest.raises(DataError, match=r"04\.jpg … \(20 in all\), not of .*second\. Name"):
        embed(model_folder, str(album / "second"), tmp_path / "v")


def test_an_update_that_was_interrupted_goes_on(
    model_folder: Path, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "v"
    embed(model_folder, album, out)
    for index in range(20):
        shutil.copy(album / "01.jpg", album / f"0-new-{index}.jpg")
    (album / "02.jpg").unlink()
    encode, calls = EncoderMixin.encode_batches, []

    def interrupted(self: EncoderMixin, *args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return encode(self, *args, **options)

    monkeypatch.setattr(EncoderMixin, "encode_batches", interrupted)
    with pytest.raises(KeyboardInterrupt):
        embed(model_folder, album, out, update=True)
    monkeypatch.undo()
    assert embed(model_folder, album, out, update=True).rows == 49
    embed(model_folder, album, tmp_path / "fresh")
    assert rows(out).keys() == rows(tmp_path / "fresh").keys()


def test_an_update_that_was_stopped_between_its_plans_and_its_note_counts_right(
    model_folder: Path, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, photos = tmp_path / "v", tmp_path / "photos"
    shutil.copytree(album / "second", photos)
    embed(model_folder, photos, out, shard_size=16)
    for index in range(4):
        shutil.copy(album / "01.jpg", photos / f"new-{index}.jpg")
    write = LocalStorage.write

    def stopped(self: LocalStorage, name: str, content: bytes) -> None:
        if name.endswith("run.json"):
            raise KeyboardInterrupt
        write(self, name, content)

    monkeypatch.setattr(LocalStorage, "write", stopped)
    with pytest.raises(KeyboardInterrupt):
        embed(model_folder, photos, out, update=True, shard_size=16)
    monkeypatch.undo()
    done = embed(model_folder, photos, out, shard_size=16)
    assert (done.images, done.rows, done.computed) == (14, 14, 4)


def test_the_size_of_shards_is_the_folders_own_and_another_is_refused(
    model_folder: Path, album: Path, tmp_path: Path
) -> None:
    out = tmp_path / "v"
    embed(model_folder, album, out, shard_size=16)
    before = {file.name: file.read_bytes() for file in out.glob("part-*.parquet")}
    for update in (False, True):
        with pytest.raises(DataError, match="16 images in a shard, not with 8"):
            embed(model_folder, album, out, shard_size=8, update=update)
        assert embed(model_folder, album, out, shard_size=None, update=update).computed == 0
    assert {file.name: file.read_bytes() for file in out.glob("part-*.parquet")} == before
    for wrong in ({"shard_size": 0}, {"threads": 0}, {"batch_size": 0}, {"num_workers": 0}):
        with pytest.raises((ConfigError, ValueError), match=f"{next(iter(wrong))}: expected"):
            embed(model_folder, album, tmp_path / "w", **wrong)
        assert not (tmp_path / "w").exists()


def test_an_update_that_leaves_no_row_says_so_and_keeps_the_folder(
    model_folder: Path, album: Path, tmp_path: Path
) -> None:
    out, photos = tmp_path / "v", tmp_path / "photos"
    shutil.copytree(album / "second", photos)
    first = embed(model_folder, photos, out)
    for photo in photos.iterdir():
        photo.write_bytes(b"cut")
    with pytest.raises(DataError, match="none of the images could be read, no row is left"):
        embed(model_folder, photos, out, update=True)
    for photo in (album / "second").iterdir():
        shutil.copy(photo, photos)
    assert embed(model_folder, photos, out, update=True).rows == first.rows
    with pytest.raises(DataError, match="none of the images could be read, nothing was written"):
        embed(model_folder, [_broken(tmp_path / "b.jpg")], tmp_path / "w")
    assert not (tmp_path / "w").exists()


def _broken(path: Path) -> Path:
    path.write_bytes(b"cut")
    return path


def test_a_background_may_be_three_numbers(model_folder: Path, album: Path, tmp_path: Path) -> None:
    embed(model_folder, album / "second", tmp_path / "a", background=(255, 0, 16))
    embed(model_folder, album / "second", tmp_path / "a", background="#ff0010")
    with pytest.raises(DataError, match="with other options"):
        embed(model_folder, album / "second", tmp_path / "a", background="white")


def same_stamp(path: Path, content: bytes) -> None:
    """Replace what is in a file so that neither its size nor its time tells."""
    before = path.stat()
    assert len(content) == before.st_size
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_update_tries_again_what_could_not_be_read(
    model_folder: Path, album: Path, tmp_path: Path
) -> None:
    """As after a disk or a network that failed for a while: the stamp is the same."""
    out, bad, worse = tmp_path / "v", album / "03.jpg", album / "04.jpg"
    photo = bad.read_bytes()
    for path in (bad, worse):
        same_stamp(path, bytes(path.stat().st_size))
    assert embed(model_folder, album, out).rows == 28
    before = rows(out)
    same_stamp(bad, photo)
    assert embed(model_folder, album, out).rows == 28, "only an update tries again"
    done = embed(model_folder, album, out, update=True)
    assert (done.images, done.rows, done.computed) == (30, 29, 1)
    assert [name for name, _ in done.skipped] == [str(worse)]
    after = rows(out)
    assert after.pop(str(bad))
    assert after == before, "good rows are kept"
    written = {file: file.stat().st_mtime_ns for file in out.glob("*.parquet")}
    done = embed(model_folder, album, out, update=True)
    assert (done.computed, [name for name, _ in done.skipped]) == (0, [str(worse)])
    assert written == {file: file.stat().st_mtime_ns for file in out.glob("*.parquet")}


def test_a_photo_that_needs_an_extra_is_skipped(
    model_folder: Path, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (album / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(12))
    done = embed(model_folder, album, tmp_path / "v")
    ((name, reason),) = done.skipped
    assert (done.rows, name) == (30, str(album / "phone.heic"))
    assert reason.endswith('Run: pip install "clever-hub[heic]"')


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalize": True}, "normalized: False there, True now"),
        ({"decode": "reduced"}, "decode: 'exact' there, 'reduced' now"),
        ({"background": "white"}, "background: '' there, 'white' now"),
        ({"color_management": True}, "color_management: False there, True now"),
        ({"batch_size": 4}, "batch_size: 32 there, 4 now"),
    ],
)
def test_a_folder_with_other_options_is_refused(
    model_folder: Path, album: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    embed(model_folder, album, tmp_path / "v")
    before = rows(tmp_path / "v")
    for update in (False, True):
        with pytest.raises(DataError, match=message):
            embed(model_folder, album, tmp_path / "v", update=update, **options)
    assert rows(tmp_path / "v") == before


def test_a_folder_of_another_model_or_other_inputs_is_refused(
    model: CleverModel, model_folder: Path, album: Path, tmp_path: Path
) -> None:
    embed(model_folder, album, tmp_path / "v")
    for parameter in model.parameters():
        parameter.data.mul_(1.01)
    other = model.save_pretrained(tmp_path / "other")
    with pytest.raises(DataError, match=r"another model.*weights_sha256"):
        embed(other, album, tmp_path / "v")
    with pytest.raises(DataError, match=r"was made of .*album, not of .*second.*--update"):
        embed(model_folder, album / "second", tmp_path / "v")


def test_what_is_there_already_is_not_written_over(
    model_folder: Path, album: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(DataError, match=r"got the folder .*mine with 1 other files"):
        embed(model_folder, album, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_two_at_once_are_refused(model_folder: Path, album: Path, tmp_path: Path) -> None:
    import fcntl

    embed(model_folder, album, tmp_path / "v")
    with (tmp_path / "v" / "_clever_hub" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another process is embedding into it"):
            embed(model_folder, album, tmp_path / "v")
    assert embed(model_folder, album, tmp_path / "v").rows == 30


def test_bad_images_are_in_a_side_table(model_folder: Path, album: Path, tmp_path: Path) -> None:
    (album / "05.jpg").write_bytes(b"broken")
    os.mkfifo(album / "pipe.jpg")
    done = embed(model_folder, album, tmp_path / "v")
    assert (done.images, done.rows) == (31, 29)
    reasons = {Path(name).name: reason for name, reason in done.skipped}
    assert reasons["pipe.jpg"].endswith("expected a regular file, got a pipe, a socket or a device")
    assert reasons.keys() == {"05.jpg", "pipe.jpg"}
    again = embed(model_folder, album, tmp_path / "v")
    assert again.skipped == done.skipped
    assert again.computed == 0


def test_a_file_is_not_updated(model_folder: Path, album: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--update: needs a folder"):
        embed(model_folder, album, tmp_path / "v.parquet", update=True)


def test_parts_of_another_file_say_what_to_do(
    model_folder: Path, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "v.parquet"
    monkeypatch.setattr(Target, "finish", _interrupted)
    with pytest.raises(KeyboardInterrupt):
        embed(model_folder, album, out)
    monkeypatch.undo()
    way_out = r"\.v\.parquet\.parts: .*Remove this folder, name another file, or give the same "
    with pytest.raises(DataError, match=rf"{way_out}inputs$"):
        embed(model_folder, album / "second", out)
    with pytest.raises(DataError, match=rf"{way_out}options$"):
        embed(model_folder, album, out, normalize=True)
    shutil.rmtree(tmp_path / ".v.parquet.parts")
    own, another = (tmp_path / f".{n}.0a1b2c3d.tmp.parquet" for n in ("v", "v.val"))
    for left in (own, another):  # the second may be of a process that writes v.val.parquet
        left.write_bytes(b"half")
    assert embed(model_folder, album / "second", out).rows == 10
    assert (own.exists(), another.exists()) == (False, True)


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_memory_holds_no_list_of_paths(
    model_folder: Path, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While shards are computed, at most one shard of items is alive."""
    import gc

    from clever_hub.scale.items import Item

    for copy in range(10):
        shutil.copytree(album, tmp_path / "many" / str(copy))
    most, encode = [], EncoderMixin.encode_batches

    def alive() -> int:
        return sum(type(thing) is Item for thing in gc.get_objects())

    def counted(self: EncoderMixin, *args: Any, **options: Any) -> Any:
        most.append(alive() - before)
        return encode(self, *args, **options)

    monkeypatch.setattr(EncoderMixin, "encode_batches", counted)
    gc.collect()
    before = alive()  # of tests that ended with an error, whose frames live on
    embed(model_folder, tmp_path / "many", tmp_path / "v")
    assert len(most) == 38
    assert max(most) <= 2 * 8


def test_a_folder_of_another_split_is_refused(
    model_folder: Path, album: Path, tmp_path: Path
) -> None:
    embed(model_folder, album, tmp_path / "v")
    config = json.loads((model_folder / "config.json").read_text())
    (model_folder / "config.json").write_text(json.dumps({**config, "invariant_dim": 18}))
    with pytest.raises(DataError, match="the model had another split, or another input"):
        embed(model_folder, album, tmp_path / "v", update=True)


def test_a_folder_of_an_older_version_goes_on(
    model_folder: Path, album: Path, tmp_path: Path
) -> None:
    embed(model_folder, album, tmp_path / "v")
    run = next((tmp_path / "v" / "_clever_hub").glob("run.json"))
    content = json.loads(run.read_text())
    del content["made"]["config"]
    run.write_text(json.dumps(content))
    assert embed(model_folder, album, tmp_path / "v").computed == 0


def test_a_search_index_is_not_written_over(
    model_folder: Path, album: Path, tmp_path: Path
) -> None:
    index = tmp_path / "photos.lance"
    index.mkdir()
    (index / "clever_hub.json").write_text("{}")
    with pytest.raises(DataError, match="a folder with other content"):
        embed(model_folder, album, index)
    assert [file.name for file in index.iterdir()] == ["clever_hub.json"]


def test_an_update_keeps_to_its_image_column(
    model_folder: Path, album: Path, tmp_path: Path
) -> None:
    photos = [path.read_bytes() for path in sorted(album.rglob("*.jpg"))[:4]]
    table, out = tmp_path / "two.parquet", tmp_path / "v"
    pq.write_table(pa.table({"front": photos, "back": photos[::-1]}), table)
    embed(model_folder, table, out, image_column="front")
    before = rows(out)
    with pytest.raises(DataError, match=r"image column 'front', not of 'back'\. Name another"):
        embed(model_folder, table, out, image_column="back", update=True)
    assert rows(out) == before
    assert embed(model_folder, table, out, image_column="front", update=True).computed == 0


def test_a_table_is_not_written_over_by_its_embeddings(
    model_folder: Path, album: Path, tmp_path: Path
) -> None:
    table = tmp_path / "photos.parquet"
    pq.write_table(pa.table({"image": [next(album.rglob("*.jpg")).read_bytes()]}), table)
    before = table.read_bytes()
    with pytest.raises(ConfigError, match=r"--output: .*photos\.parquet is one of the files"):
        embed(model_folder, table, table)
    assert table.read_bytes() == before


def test_a_table_that_became_shorter_shifts_nothing(
    model_folder: Path, album: Path, tmp_path: Path
) -> None:
    photos = [path.read_bytes() for path in sorted(album.rglob("*.jpg"))[:6]]
    tables, out = tmp_path / "tables", tmp_path / "v"
    tables.mkdir()

    def write(name: str, content: list[bytes]) -> None:
        pq.write_table(pa.table({"image": pa.array(content, pa.binary())}), tables / name)

    write("a.parquet", photos[:3])
    write("b.parquet", photos[3:])
    embed(model_folder, tables, out)
    before = rows(out)
    (out / "part-00000.parquet").unlink()  # as after a kill
    write("a.parquet", photos[:1])
    done = embed(model_folder, tables, out)
    assert [Path(name).name for name, _ in done.skipped] == ["a.parquet#1", "a.parquet#2"]
    assert {reason for _, reason in done.skipped} == {
        "cannot be read: the table has become shorter"
    }
    kept = {name for name in before if "b.parquet" in name or name.endswith("a.parquet#0")}
    assert rows(out) == {name: before[name] for name in kept}


def test_a_second_one_leaves_the_first_alone(
    model_folder: Path, album: Path, tmp_path: Path
) -> None:
    out = tmp_path / "v"
    embed(model_folder, album, out)
    for file in out.glob("part-*"):
        file.unlink()  # as long as the first has finished none
    with Target.of(str(out)).held():
        before = sorted(out.rglob("*"))
        with pytest.raises(DataError, match="another process is embedding into it"):
            embed(model_folder, album, out)
        assert sorted(out.rglob("*")) == before
        (out / "part-00000.parquet").touch()  # now there is something to keep


def test_vectors_of_the_same_weights_and_another_input_are_not_compared(
    model_folder: Path, album: Path, tmp_path: Path
) -> None:
    embed(model_folder, album, tmp_path / "a")
    config = ModelConfig.load(model_folder)
    larger = replace(config.preprocessing, resize_size=config.preprocessing.resize_size + 4)
    write_json(model_folder / "config.json", replace(config, preprocessing=larger).to_dict())
    embed(model_folder, album, tmp_path / "b")
    one, other = (read_embeddings(tmp_path / name) for name in "ab")
    assert one.config != other.config
    with pytest.raises(DataError, match="of the same weights with another input"):
        check_comparable(one, other, "a", "b")
    known = embed_photos(clever_hub.from_pretrained(model_folder), [album / "00.jpg"], cache=None)
    assert known.config == other.config
