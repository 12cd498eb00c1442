"""What the organisation publishes, listed by the small files alone."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clever_hub.config import ModelConfig
from tests.hub_server.client import CallFailed, Client
from tests.hub_server.server import HubServer
from tests.hub_server.state import User


@pytest.fixture
def server(config: ModelConfig, tmp_path: Path) -> Iterator[HubServer]:
    """A Hub where the organisation has three models, one private, and something else."""
    figures = {"knn": {w: {"full": {"top1": {"mean": 15.43}}} for w in ("plain", "rotated")}}
    files = {
        "config.json": json.dumps(config.to_dict()).encode(),
        "evaluation.json": json.dumps({"figures": figures}).encode(),
        "model.safetensors": b"x" * 3_000_000,
    }
    with HubServer(tmp_path / "server", {"hf_staff": User("sam", ("clever-hub",))}) as server:
        for name in ("clever-hub/clever-a", "clever-hub/clever-b", "somebody/clever-c"):
            server.hub.add_files(name, files)
        server.hub.add_files("clever-hub/website", {"index.html": b"<html>"})
        server.hub.repositories["clever-hub/clever-b"].private = True
        yield server


def test_list_remote(server: HubServer, tmp_path: Path) -> None:
    with Client(tmp_path / "home", server.url) as client:
        (info,) = client.call("clever_hub.hub.listing:list_models", remote=True)
        assert "clever-hub/clever-a" in info
        assert "size_bytes=3000000" in info
        assert "website: the repository has no config.json" in client.output.read_text()
        both = client.call("clever_hub.hub.listing:list_models", remote=True, token="hf_staff")
        assert ["clever-b" in info for info in both] == [False, True]
        assert client.call("tests.hub_server.tasks:command", "list", "--remote") == 0
        text = client.output.read_text()
    for words in ("clever-hub/clever-a", "19+5", "15.4/15.4", "3", "apache-2.0", "Hugging Face"):
        assert words in text
    assert not any("safetensors" in path for path in server.paths("GET"))


def test_every_page_of_the_list_is_read(server: HubServer, tmp_path: Path) -> None:
    config = server.hub.repositories["clever-hub/clever-a"]
    files = {name: server.hub.store.content(blob) for name, blob in config.head.files.items()}
    for number in range(4):
        server.hub.add_files(f"clever-hub/clever-{number}", files)
    with Client(tmp_path / "home", server.url) as client:
        found = client.call("clever_hub.hub.listing:list_models", remote=True)
    names = [f"clever-hub/clever-{end}" for end in "0123a"]
    assert [name in info for name, info in zip(names, found, strict=True)] == 5 * [True]


def test_without_the_hub_the_list_says_why(server: HubServer, tmp_path: Path) -> None:
    server.fail("GET", "/api/models$", status=500, times=50)
    with Client(tmp_path / "home", server.url) as client:
        with pytest.raises(CallFailed, match="HubError: clever-hub: the Hub answered 500"):
            client.call("clever_hub.hub.listing:list_models", remote=True)
        assert len(server.paths("GET")) == 4, "attempts"
        assert client.call("tests.hub_server.tasks:command", "list", "--remote") == 1
        assert "thrown while requesting" not in client.output.read_text()


@pytest.mark.parametrize("words", [["list", "--remote"], ["info", "nope"]])
def test_without_a_network_one_line_says_so_at_once(words: list[str], tmp_path: Path) -> None:
    with Client(tmp_path / "home", "http://127.0.0.1:9", patient=True) as client:
        client.call("os:getpid")  # it has started
        begun = time.monotonic()
        assert client.call("tests.hub_server.tasks:command", *words) == 1
        assert time.monotonic() - begun < 10, "the client itself would try for 24 seconds"
        (line,) = client.output.read_text().splitlines()
    assert "cannot reach http://127.0.0.1:9" in line


def test_without_a_network_a_data_set_is_missed_at_once(tmp_path: Path) -> None:
    nowhere = ("clever_hub.hub.datasets:load_from_hub", "user/photos")
    with Client(tmp_path / "home", "http://127.0.0.1:9", patient=True) as client:
        with pytest.raises(CallFailed, match=r"no such file or folder here, and .*cannot reach"):
            client.call(*nowhere)
        assert client.output.read_text() == ""
