"""All the way: photos, training, packaging, publishing, and every reader on other machines.

The machines are processes with empty caches; the Hub is a server on this machine that the real
client talks to, through Xet and over plain HTTP. The vectors that arrive are those of the run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image

import clever_hub
from clever_export.card import make_card
from clever_hub.weights import sha256_of
from tests.hub_server.client import Client
from tests.hub_server.server import HubServer
from tests.hub_server.state import User
from tests.hub_server.tasks import command

REPO, TAG = "alice/clever-small", "v1.0"
TOKEN = "hf_alice_secret"
COMMAND = "tests.hub_server.tasks:command"
RECIPE = {
    "name": "clever-small",
    "image_size": 32,
    "data_name": "tiles of four photos of scikit-image",
    "data_terms": "Public domain and CC0.",
    "backbone": {"architecture": "test_resnet"},
    "method": {"objective": "vicreg", "objective_args": {"dim": 32}},
    "views": {"strategy": "caug", "global_size": 32, "global_scale": [0.3, 1.0]},
    "optimizer": {"lr": 0.01, "warmup_epochs": 0.0},
    "run": {"epochs": 4, "batch_size": 8, "num_workers": 0, "log_steps": 1, "max_steps": 10},
}


@dataclass(frozen=True)
class Trained:
    """A model that was trained and packaged, and what it says of four photos.

    Attributes:
        folder: The complete model folder, verified.
        full: The vectors of the run's own folder, before packaging.
        images: The photos.
        pixels: The same photos prepared, as an ``.npy`` file.
    """

    folder: Path
    full: NDArray[np.float32]
    images: list[str]
    pixels: Path


@pytest.fixture(scope="module")
def trained(photos: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Ten steps on real photos, exported, and found green by ``verify``; made once."""
    root = tmp_path_factory.mktemp("trained")
    recipe, tiles, run, folder = (root / n for n in ("recipe.yaml", "tiles", "run", "clever-small"))
    recipe.write_text(yaml.safe_dump(RECIPE))
    _cut(photos, tiles)
    images = [str(path) for path in photos.values()]
    assert command("pretrain", str(recipe), "--data", str(tiles), "--out", str(run)) == 0
    original = clever_hub.from_pretrained(run / "model")
    np.save(root / "pixels.npy", original.preprocessor.batch(images))
    assert command("export", str(run / "model"), "--out", str(folder)) == 0
    assert command("verify", str(folder), *images) == 0
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 10
    return Trained(folder, original.encode(images).full, images, root / "pixels.npy")


def _cut(photos: dict[str, Path], folder: Path) -> None:
    """Eight tiles of each photo, 96 px."""
    folder.mkdir()
    for name, path in photos.items():
        image = Image.open(path).convert("RGB")
        for place in range(8):
            left, top = place % 4 * 64, place // 4 * 64
            image.crop((left, top, left + 96, top + 96)).save(folder / f"{name}-{place}.png")


@dataclass(frozen=True)
class Hub:
    """A Hub where the model has been published, and how it is reached.

    Attributes:
        server: The server.
        xet: Whether large files go through Xet.
        sent: What publishing asked of the server.
        shown: What publishing printed.
        home: A folder for other machines' caches.
    """

    server: HubServer
    xet: bool
    sent: list[str]
    shown: str
    home: Path

    def machine(self, name: str, **options: Any) -> Client:
        """Another machine, whose cache is empty, without a token."""
        self.server.log.clear()
        return Client(self.home / name, self.server.url, xet=self.xet, **options)


@pytest.fixture(scope="module", params=["xet", "http"])
def hub(
    request: pytest.FixtureRequest, trained: Trained, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hub]:
    """The model, published with a tag; afterwards main has moved on to something broken."""
    home, xet = tmp_path_factory.mktemp("machines"), request.param == "xet"
    with HubServer(home / "server", {TOKEN: User("alice")}) as server:
        with Client(home / "publisher", server.url, TOKEN, xet=xet) as publisher:
            options = ("--repo-id", REPO, "--tag", TAG)
            assert publisher.call(COMMAND, "publish", trained.folder, *options) == 0
            shown = publisher.output.read_text()
        sent = [f"{entry.method} {entry.path}" for entry in server.log]
        broken = {"config.json": b"{}", "modeling_clever.py": b"raise SystemExit", "x.onnx": b"x"}
        server.hub.add_files(REPO, broken)
        yield Hub(server, xet, sent, shown, home)


def test_it_is_published_in_one_tagged_commit_and_no_token_is_shown(
    hub: Hub, trained: Trained
) -> None:
    repository = hub.server.hub.repositories[REPO]
    tagged = repository.commits[repository.tags[TAG]]
    assert tagged.parent is not None
    assert repository.commits[tagged.parent].parent is None, "one commit after the first"
    expected = {path.name for path in trained.folder.iterdir()} | {".gitattributes"}
    assert tagged.files.keys() == expected
    assert tagged.files["model.safetensors"].sha256 == sha256_of(
        trained.folder / "model.safetensors"
    )
    assert any("xet-write-token" in request for request in hub.sent) == hub.xet
    assert any(request.startswith("PUT /_lfs") for request in hub.sent) != hub.xet
    assert TOKEN not in hub.shown


def test_clever_hub_with_torch(hub: Hub, trained: Trained) -> None:
    with hub.machine("torch") as machine:
        found = machine.call("tests.hub_server.tasks:embed", REPO, trained.images, revision=TAG)
    assert np.array_equal(np.float32(found["full"]), trained.full), "bit for bit"
    assert found["source"]["revision"] == hub.server.hub.repositories[REPO].tags[TAG]
    asked = " ".join(hub.server.paths("GET"))
    assert not re.search(r"\.py|\.onnx|README", asked), "only what the backend reads"
    assert ("xet-read-token" in asked) == hub.xet


def test_clever_hub_with_onnx_where_there_is_no_torch(
    hub: Hub, trained: Trained, without_torch: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"backend": "onnx", "revision": TAG}
    with hub.machine("onnx", python=without_torch / "python") as machine:
        found = machine.call("tests.hub_server.tasks:embed", REPO, trained.images, **options)
        np.testing.assert_allclose(found["full"], trained.full, rtol=0, atol=1e-4)
        assert not any(".py" in entry.path for entry in hub.server.log)
        hub.server.log.clear()
        # By the commit: everything is in the cache, and a commit never changes.
        commit, out = found["source"]["revision"], tmp_path / "e.parquet"
        arguments = ("embed", REPO, *trained.images, "-o", out, "--backend", "onnx")
        assert machine.call(COMMAND, *arguments, "--revision", commit) == 0
    assert hub.server.log == []
    metadata = pq.read_schema(out).metadata
    assert metadata[b"clever_hub.source"] == f"hub:{REPO}".encode()
    assert metadata[b"clever_hub.revision"] == commit.encode()
    assert commit == hub.server.hub.repositories[REPO].tags[TAG]


def test_transformers_with_remote_code_where_there_is_no_clever_hub(
    hub: Hub, trained: Trained
) -> None:
    task = "tests.hub_server.tasks:embed_with_transformers"
    with hub.machine("transformers") as machine:
        found = machine.call(task, REPO, trained.images, revision=TAG)
    np.testing.assert_allclose(found, trained.full, rtol=0, atol=1e-5)


def test_timm_alone_gives_the_same_bits(hub: Hub, trained: Trained) -> None:
    task = "tests.hub_server.tasks:embed_with_timm"
    with hub.machine("timm") as machine:
        found = machine.call(task, REPO, trained.pixels, revision=TAG)
    assert np.array_equal(np.float32(found), trained.full)


def test_the_snippets_of_the_published_card_run(trained: Trained, tmp_path: Path) -> None:
    card = make_card(trained.folder, REPO)
    files = {path.name: path.read_bytes() for path in trained.folder.iterdir()}
    with HubServer(tmp_path / "hub", {}, xet=False) as server:
        server.hub.add_files(REPO, {**files, "README.md": card.encode()})
        with Client(tmp_path / "home", server.url, xet=False) as machine:
            arguments = (card, trained.images[1])
            vectors = machine.call("tests.hub_server.tasks:run_snippets", *arguments)
    torch_, onnx, transformers, timm = (np.asarray(v, np.float32) for v in vectors)
    # Sums over one image and over a batch of them are rounded otherwise.
    np.testing.assert_allclose(torch_, trained.full[1], rtol=0, atol=1e-5)
    np.testing.assert_allclose(onnx, torch_, rtol=0, atol=1e-4)
    np.testing.assert_allclose(transformers, torch_, rtol=0, atol=1e-5)
    # timm prepares images with code of its own.
    assert timm @ torch_ > 0.98 * np.linalg.norm(timm) * np.linalg.norm(torch_)
