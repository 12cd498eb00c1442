"""The Ray engine gives the rows of the local one, also when a node dies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clever_hub.errors import ConfigError, MissingExtraError
from clever_hub.hub import shipped
from clever_hub.scale import embed_dataset, ray
from clever_hub.scale.shards import Finished
from tests.hub.scale.test_dataset import rows

SCRIPT = Path(__file__).with_name("ray_cluster.py")


@pytest.fixture
def many(album: Path, tmp_path: Path) -> Path:
    """A few hundred photos, one of which is broken."""
    for copy in range(10):
        shutil.copytree(album, tmp_path / "many" / str(copy))
    (tmp_path / "many" / "3" / "05.jpg").write_bytes(b"broken")
    return tmp_path / "many"


def on_cluster(repository: Path, many: Path, out: Path, kill: bool) -> Any:
    words = [sys.executable, "-W", "ignore", str(SCRIPT), "clever-resnet18", str(many), str(out)]
    (many.parent / "temporary").mkdir()
    # Ray's own files stay where they are: the path of a socket must be short.
    own = {"TMPDIR": str(many.parent / "temporary"), "RAY_TMPDIR": tempfile.gettempdir()}
    done = subprocess.run(
        [*words, "kill" if kill else "leave"],
        capture_output=True,
        text=True,
        timeout=280,
        cwd=repository,
        check=False,
        env={**os.environ, **own},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif("clever-resnet18" not in shipped.model_names(), reason="no shipped model")
def test_a_node_that_is_killed_costs_no_row(repository: Path, many: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="ray is not installed")
    told = on_cluster(repository, many, tmp_path / "v", kill=True)
    assert told["killed"], "the node was still alive at the end"
    assert told["killed"][0] < 38, "the node was killed when all was done"
    assert told["rows"] == 299
    local = embed_dataset(
        "clever-resnet18", many, tmp_path / "local", shard_size=8, backend="onnx", threads=2
    )
    assert rows(tmp_path / "v") == rows(tmp_path / "local")
    assert [Path(name).name for name, _ in local.skipped] == ["05.jpg"]
    left = list((tmp_path / "temporary").glob("clever-hub-*/*"))
    assert not left, "an actor that was killed left the model behind"
    skipped = (tmp_path / "v" / "_clever_hub" / "skipped").glob("*.jsonl")
    assert [json.loads(file.read_text())["path"] for file in skipped] == [local.skipped[0][0]]
    # The local engine takes over what the cluster made, and finds nothing to do.
    again = embed_dataset("clever-resnet18", many, tmp_path / "v", backend="onnx")
    assert (again.rows, again.computed) == (299, 0)


def test_shards_are_checked_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits until four are being looked at; none is missing, so that no cluster is needed."""
    together = threading.Barrier(4, timeout=30)

    def check(storage: Any, number: int, made: Any) -> Finished:
        together.wait()
        return Finished(number, 3, 3, 0)

    monkeypatch.setattr(ray, "check_shard", check)
    images: list[int] = []
    run: Any = SimpleNamespace(shards=8, made=None)
    nothing: Any = None
    storage: Any = SimpleNamespace(threads=16)
    found = list(ray.compute(storage, run, nothing, nothing, images.append))
    assert [one.shard for one in found] == list(range(8))
    assert images == [3] * 8


def test_without_the_extra_it_says_which(
    model_folder: Path, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"clever-hub\[ray\]"):
        embed_dataset(model_folder, album, tmp_path / "v", engine="ray")
    assert not (tmp_path / "v").exists()


def test_an_unknown_engine_or_option_is_refused(
    model_folder: Path, album: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="expected 'local' or 'ray', got 'spark'"):
        embed_dataset(model_folder, album, tmp_path / "v", engine="spark")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"no option \['address'\]"):
        embed_dataset(model_folder, album, tmp_path / "v", address="auto")
