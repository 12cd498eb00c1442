"""What goes wrong on the way from the Hub ends in success or in words that say what to do.

docs/reliability.md has the table; a half or damaged file is never left in the cache.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clever_hub.errors import ModelFormatError
from clever_hub.hub.source import Source
from tests.hub_server.client import CallFailed, Client
from tests.hub_server.server import HubServer
from tests.hub_server.state import User

DOWNLOAD = "clever_hub.hub.client:download"
NAMES = ["config.json", "model.safetensors"]
FILES = {"config.json": b'{"a": 1}', "model.safetensors": os.urandom(300_000)}
INFO = r"^/api/models/[^/]+/[^/]+$"
HEAD = ("HEAD", "/resolve/main/config.json")
SMALL = ("GET", "/resolve/[^/]+/config.json")
LARGE = ("GET", "/_cdn/")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    """A Hub."""
    users = {"hf_alice": User("alice")}
    with HubServer(tmp_path_factory.mktemp("hub") / "server", users) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A machine that downloads over plain HTTP."""
    with Client(tmp_path_factory.mktemp("http"), server.url, "hf_alice", xet=False) as client:
        yield client


@pytest.fixture(scope="module")
def xet_client(server: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A machine that downloads through Xet."""
    with Client(tmp_path_factory.mktemp("xet"), server.url, "hf_alice") as client:
        yield client


@pytest.fixture
def repo(server: HubServer, tmp_path: Path) -> str:
    """A repository with a small and a large file."""
    repo_id = f"alice/{tmp_path.name}"
    server.hub.add_files(repo_id, FILES)
    server.faults.clear()
    server.log.clear()
    return repo_id


@pytest.fixture
def xet_repo(xet_client: Client, server: HubServer, tmp_path: Path) -> str:
    """A repository whose large file is in the Xet store."""
    folder = tmp_path / "upload"
    folder.mkdir()
    (folder / "config.json").write_bytes(FILES["config.json"])
    (folder / "model.safetensors").write_bytes(os.urandom(300_000))
    repo_id = f"alice/{tmp_path.name}-xet"
    xet_client.call("tests.hub_server.tasks:upload", repo_id, folder)
    server.faults.clear()
    return repo_id


def whole(folder: str) -> bool:
    """Whether the files in the cache are those of the repository."""
    return all((Path(folder) / name).read_bytes() == FILES[name] for name in NAMES)


def leftovers(cache: Path) -> list[str]:
    """Half files, and weights under whatever name."""
    files = [path for path in cache.rglob("*") if path.is_file() and not path.is_symlink()]
    return [p.name for p in files if p.suffix == ".incomplete" or p.stat().st_size > 50_000]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("where", [("GET", INFO), HEAD, SMALL, LARGE], ids=str)
def test_trouble_that_passes_is_waited_for(
    where: tuple[str, str],
    status: int,
    client: Client,
    server: HubServer,
    repo: str,
    tmp_path: Path,
) -> None:
    server.fail(*where, status=status, headers={"Retry-After": "0"}, times=2)
    folder, *_ = client.call(DOWNLOAD, repo, NAMES, cache_dir=tmp_path / "cache")
    assert whole(folder)
    assert [entry.status for entry in server.log].count(status) == 2


@pytest.mark.parametrize(
    ("status", "advice"),
    [(429, "too many requests. Wait some minutes"), (500, "Try again later"), (503, "Try again")],
)
def test_trouble_that_stays_ends_in_advice(
    status: int, advice: str, client: Client, server: HubServer, repo: str, tmp_path: Path
) -> None:
    for where in (("GET", INFO), HEAD, LARGE):
        server.fail(*where, status=status, times=50)
        with pytest.raises(CallFailed, match=f"HubError.*answered {status}: .*{advice}"):
            client.call(DOWNLOAD, repo, NAMES, cache_dir=tmp_path / "cache")
        server.faults.clear()
    assert len(server.log) < 60, "it gives up before long"
    assert leftovers(tmp_path / "cache") == []


def test_a_copy_that_is_there_loads_while_the_hub_is_down(
    client: Client, server: HubServer, repo: str, tmp_path: Path
) -> None:
    first = client.call(DOWNLOAD, repo, NAMES, cache_dir=tmp_path)
    server.fail("HEAD", "/resolve/", status=500, times=50)
    assert client.call(DOWNLOAD, repo, NAMES, cache_dir=tmp_path) == first


def test_a_file_that_could_not_be_asked_for_is_not_taken_as_absent(
    client: Client, server: HubServer, repo: str, tmp_path: Path
) -> None:
    server.fail("HEAD", "/model.safetensors", status=500, times=50)
    options = {"optional": ["model.safetensors"], "cache_dir": tmp_path}
    with pytest.raises(CallFailed, match=r"HubError.*answered 500"):
        client.call(DOWNLOAD, repo, ["config.json"], **options)


def test_a_wrong_token_says_so(
    client: Client, server: HubServer, repo: str, tmp_path: Path
) -> None:
    with pytest.raises(CallFailed, match=r"HubError.*401.*token is missing, wrong or has expired"):
        client.call(DOWNLOAD, repo, NAMES, cache_dir=tmp_path, token="hf_secret123")
    assert "hf_secret123" not in client.output.read_text()


def test_no_network_fails_at_once_and_a_copy_still_loads(
    client: Client, repo: str, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    first = client.call(DOWNLOAD, repo, NAMES, cache_dir=cache)
    nobody = "http://127.0.0.1:9"
    with Client(tmp_path / "home", nobody, xet=False, patient=True) as alone:
        assert alone.call(DOWNLOAD, repo, NAMES, cache_dir=cache) == first
        with pytest.raises(CallFailed, match=rf"cannot reach {nobody} .*Check the network"):
            alone.call(DOWNLOAD, "alice/another", NAMES, cache_dir=cache)


@pytest.mark.parametrize("where", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize(
    "fault",
    [{"cut_after": 3}, {"length_error": -2}, {"length_error": 7}, {"flip": True}],
    ids=["cut", "too short", "too long", "corrupted"],
)
def test_a_bad_transfer_is_repeated(
    fault: dict[str, Any],
    where: tuple[str, str],
    client: Client,
    server: HubServer,
    repo: str,
    tmp_path: Path,
) -> None:
    server.fail(*where, **fault)
    folder, *_ = client.call(DOWNLOAD, repo, NAMES, cache_dir=tmp_path / "cache")
    assert whole(folder)
    assert leftovers(tmp_path / "cache") == [Path(folder, NAMES[1]).resolve().name]


def test_a_download_that_is_cut_goes_on_where_it_was(
    client: Client, server: HubServer, repo: str, tmp_path: Path
) -> None:
    weights = os.urandom(11_000_000)  # the client writes in pieces of 10 MiB
    server.hub.add_files(repo, {"model.safetensors": weights})
    server.fail(*LARGE, cut_after=10_900_000)
    folder, *_ = client.call(DOWNLOAD, repo, NAMES, cache_dir=tmp_path)
    assert (Path(folder) / "model.safetensors").read_bytes() == weights
    large = [entry for entry in server.log if "_cdn" in entry.path and entry.method == "GET"]
    assert [entry.status for entry in large] == [200, 206]


@pytest.mark.parametrize("where", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize(
    ("fault", "message"),
    [({"flip": True}, "what arrived is damaged"), ({"length_error": -2}, "should be of size")],
    ids=["corrupted", "too short"],
)
def test_a_transfer_that_stays_bad_leaves_nothing_behind(
    fault: dict[str, Any],
    message: str,
    where: tuple[str, str],
    client: Client,
    server: HubServer,
    repo: str,
    tmp_path: Path,
) -> None:
    server.fail(*where, **fault, times=50)
    with pytest.raises(CallFailed, match=f"HubError.*{message}.*Try again"):
        client.call(DOWNLOAD, repo, NAMES, cache_dir=tmp_path / "cache")
    server.faults.clear()
    assert leftovers(tmp_path / "cache") == []
    with pytest.raises(CallFailed, match="not all that is needed is in the cache"):
        client.call(DOWNLOAD, repo, NAMES, cache_dir=tmp_path / "cache", local_files_only=True)
    assert whole(client.call(DOWNLOAD, repo, NAMES, cache_dir=tmp_path / "cache")[0])


def test_a_file_that_went_bad_in_the_cache_is_fetched_again(
    client: Client, repo: str, tmp_path: Path
) -> None:
    folder, commit, digest = client.call(DOWNLOAD, repo, NAMES, cache_dir=tmp_path)
    (Path(folder) / "config.json").resolve().write_bytes(b'{"a": 2}')
    assert whole(client.call(DOWNLOAD, repo, NAMES, cache_dir=tmp_path)[0])
    # Weights are hashed by whoever loads them, who asks the source whether it is the right hash.
    source = Source("hub", repo, Path(folder), commit, digest)
    assert source.verified(digest) == source
    with pytest.raises(ModelFormatError, match=r"copy in the cache is damaged.*Remove .*/blobs/"):
        source.verified("0" * 64)


@pytest.mark.parametrize("how", ["http", "xet"])
def test_a_full_disk_says_how_to_make_room(
    how: str, server: HubServer, repo: str, xet_repo: str, tmp_path: Path
) -> None:
    cache, wanted = tmp_path / "cache", xet_repo if how == "xet" else repo
    with Client(tmp_path / "home", server.url, "hf_alice", xet=how == "xet") as client:
        # The kernel stops the write in the middle, as it does where the disk ends.
        client.call("tests.hub_server.tasks:limit_file_size", 100_000)
        with pytest.raises(CallFailed, match=rf"HubError.*no space left in the cache {cache}"):
            client.call(DOWNLOAD, wanted, NAMES, cache_dir=cache)
        assert leftovers(cache) == []
        client.call("tests.hub_server.tasks:limit_file_size", 0)
        folder, *_ = client.call(DOWNLOAD, wanted, NAMES, cache_dir=cache)
        assert (Path(folder) / "model.safetensors").stat().st_size == 300_000


def test_a_cache_that_is_read_only(server: HubServer, repo: str, tmp_path: Path) -> None:
    full, empty = tmp_path / "full", tmp_path / "empty"
    empty.mkdir(mode=0o555)
    home = tmp_path / "home"
    with Client(home, server.url, "hf_alice", xet=False, CLIENT_UNPRIVILEGED="1") as client:
        first = client.call(DOWNLOAD, repo, NAMES, cache_dir=full)
        folders = [full, *(path for path in full.rglob("*") if path.is_dir())]
        for folder in folders:
            folder.chmod(0o555)
        try:
            assert client.call(DOWNLOAD, repo, NAMES, cache_dir=full) == first
            with pytest.raises(CallFailed, match=r"HubError.*cannot be written to.*cache_dir=…"):
                client.call(DOWNLOAD, repo, NAMES, cache_dir=empty)
        finally:
            for folder in folders:
                folder.chmod(0o755)


@pytest.mark.parametrize("how", ["http", "xet"])
def test_two_processes_that_want_the_same_model(
    how: str, server: HubServer, repo: str, xet_repo: str, tmp_path: Path
) -> None:
    cache, wanted = tmp_path / "cache", xet_repo if how == "xet" else repo
    homes = [tmp_path / "one", tmp_path / "two"]
    first, second = (Client(home, server.url, "hf_alice", xet=how == "xet") for home in homes)
    with first, second:
        for client in (first, second):
            client.begin(DOWNLOAD, wanted, NAMES, cache_dir=cache)
        assert first.end() == second.end()
    assert len(leftovers(cache)) == 1


def test_a_process_that_is_killed_leaves_nothing_that_loads(
    client: Client, server: HubServer, repo: str, tmp_path: Path
) -> None:
    cache, release = tmp_path / "cache", threading.Event()
    server.fail(*LARGE, hold=release)
    with Client(tmp_path / "home", server.url, "hf_alice", xet=False) as victim:
        victim.begin(DOWNLOAD, repo, NAMES, cache_dir=cache)
        blobs = cache / f"models--{repo.replace('/', '--')}" / "blobs"
        while not any(path.suffix == ".incomplete" for path in blobs.glob("*")):
            assert victim.process.poll() is None
            time.sleep(0.02)
        victim.process.send_signal(signal.SIGKILL)
        victim.process.wait()
    release.set()
    with pytest.raises(CallFailed, match="not all that is needed is in the cache"):
        client.call(DOWNLOAD, repo, NAMES, cache_dir=cache, local_files_only=True)
    assert whole(client.call(DOWNLOAD, repo, NAMES, cache_dir=cache)[0])


def test_xet_tokens_are_asked_for_again(
    xet_client: Client, server: HubServer, xet_repo: str, tmp_path: Path
) -> None:
    server.fail("GET", "/xet-read-token/", status=500, times=2)
    folder, *_ = xet_client.call(DOWNLOAD, xet_repo, NAMES, cache_dir=tmp_path / "cache")
    assert (Path(folder) / "model.safetensors").stat().st_size == 300_000


def test_a_damaged_xet_store_leaves_nothing_behind(
    server: HubServer, xet_repo: str, tmp_path: Path
) -> None:
    store = Path(server.hub.store.xet_url.removeprefix("local://"))
    chunks = [path for path in store.glob("**/xorbs/default.*") if path.suffix != ".tagset"]
    newest = max(chunks, key=lambda path: path.stat().st_mtime_ns)
    content = newest.read_bytes()
    middle = len(content) // 2
    newest.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    try:
        with (
            Client(tmp_path / "home", server.url, "hf_alice") as client,
            pytest.raises(CallFailed, match=r"HubError.*what arrived is damaged.*Try again"),
        ):
            client.call(DOWNLOAD, xet_repo, NAMES, cache_dir=tmp_path / "cache")
    finally:
        newest.write_bytes(content)
    assert leftovers(tmp_path / "cache") == []
