"""The real client: what is fetched, from which revision, and when nobody is asked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from clever_hub.hub.client import repository_id
from tests.hub_server.client import CallFailed, Client
from tests.hub_server.server import HubServer
from tests.hub_server.state import User

DOWNLOAD = "clever_hub.hub.client:download"
TORCH_FILES = ["config.json", "model.safetensors"]
ONNX_FILES = ["config.json", "model.onnx", "model.safetensors"]
FILES = {
    "config.json": b"{}",
    "model.safetensors": os.urandom(300_000),
    "model.onnx": os.urandom(2_000),
    "modeling_clever.py": b"raise SystemExit('code of a stranger')",
    "README.md": b"---\nlicense: apache-2.0\n---\n",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    """A Hub with two users."""
    users = {"hf_alice": User("alice", ("clever-hub",)), "hf_bob": User("bob")}
    with HubServer(tmp_path_factory.mktemp("hub") / "server", users) as server:
        yield server


@pytest.fixture(scope="module", params=["xet", "http"])
def client(
    request: pytest.FixtureRequest, server: HubServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    """Alice's machine, with and without Xet."""
    home = tmp_path_factory.mktemp("home")
    with Client(home, server.url, "hf_alice", xet=request.param == "xet") as client:
        yield client


@pytest.fixture
def repo(client: Client, server: HubServer, tmp_path: Path) -> str:
    """A repository that was uploaded the way the client does it, tagged v1.0."""
    folder = tmp_path / "upload"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    repo_id = f"alice/{tmp_path.name}"
    client.call("tests.hub_server.tasks:upload", repo_id, folder, tag="v1.0")
    server.faults.clear()
    server.log.clear()
    return repo_id


def test_only_what_the_backend_needs_is_fetched(
    client: Client, repo: str, server: HubServer, tmp_path: Path
) -> None:
    folder, commit, digest = client.call(DOWNLOAD, repo, TORCH_FILES, cache_dir=tmp_path / "a")
    assert sorted(path.name for path in Path(folder).iterdir()) == TORCH_FILES
    assert commit == server.hub.repositories[repo].head.oid
    assert digest == hashlib.sha256(FILES["model.safetensors"]).hexdigest()
    folder, *_ = client.call(DOWNLOAD, repo, ONNX_FILES, cache_dir=tmp_path / "b")
    assert sorted(path.name for path in Path(folder).iterdir()) == ONNX_FILES
    for name in ONNX_FILES:
        assert (Path(folder) / name).read_bytes() == FILES[name]
    assert not any(".py" in entry.path or "README" in entry.path for entry in server.log)


def test_a_second_load_asks_one_question_and_moves_nothing(
    client: Client, repo: str, server: HubServer, tmp_path: Path
) -> None:
    first = client.call(DOWNLOAD, repo, TORCH_FILES, cache_dir=tmp_path)
    server.log.clear()
    assert client.call(DOWNLOAD, repo, TORCH_FILES, cache_dir=tmp_path) == first
    assert [entry.method for entry in server.log] == ["HEAD"]
    server.log.clear()
    assert client.call(DOWNLOAD, repo, TORCH_FILES, cache_dir=tmp_path, revision=first[1]) == first
    assert server.log == [], "a commit never changes"


def test_a_file_that_a_commit_has_not_is_asked_for_once(
    client: Client, repo: str, server: HubServer, tmp_path: Path
) -> None:
    options = {"optional": ["model.onnx.data", "README.md"], "cache_dir": tmp_path}
    folder, *_ = client.call(DOWNLOAD, repo, TORCH_FILES, **options)
    assert (Path(folder) / "README.md").is_file()
    assert not (Path(folder) / "model.onnx.data").exists()
    server.log.clear()
    client.call(DOWNLOAD, repo, TORCH_FILES, **options)
    assert [entry.method for entry in server.log] == ["HEAD"]
    client.call(DOWNLOAD, repo, TORCH_FILES, **options, local_files_only=True)


def test_branch_tag_and_commit(
    client: Client, repo: str, server: HubServer, tmp_path: Path
) -> None:
    old = server.hub.repositories[repo].head.oid
    new = server.hub.add_files(repo, {"config.json": b'{"new": true}'}).oid

    def found(revision: str | None) -> str:
        options = {"cache_dir": tmp_path, "revision": revision}
        return str(client.call(DOWNLOAD, repo, TORCH_FILES, **options)[1])

    assert [found(None), found("main"), found(new)] == [new] * 3
    assert [found("v1.0"), found(old)] == [old] * 2
    with pytest.raises(
        CallFailed, match=r"ModelNotFoundError: .* has no revision 'v9'.*/tree/main"
    ):
        found("v9")
    with pytest.raises(CallFailed, match="A commit is given with all its 40 digits"):
        client.call(DOWNLOAD, repo, TORCH_FILES, cache_dir=tmp_path, revision=old[:7])


def test_offline_means_no_request_at_all(
    client: Client, repo: str, server: HubServer, tmp_path: Path
) -> None:
    online = client.call(DOWNLOAD, repo, TORCH_FILES, cache_dir=tmp_path / "a", revision="v1.0")
    server.log.clear()
    options = {"cache_dir": tmp_path / "a", "revision": "v1.0", "local_files_only": True}
    assert client.call(DOWNLOAD, repo, TORCH_FILES, **options) == online
    with pytest.raises(CallFailed, match=r"in the cache at v1\.0, and the Hub is not asked"):
        client.call(DOWNLOAD, repo, ONNX_FILES, **options)
    with pytest.raises(CallFailed, match="ModelNotFoundError"):
        client.call(DOWNLOAD, repo, TORCH_FILES, **{**options, "cache_dir": tmp_path / "b"})
    assert server.log == []


def test_the_environment_can_say_offline_too(
    client: Client, repo: str, server: HubServer, tmp_path: Path
) -> None:
    online = client.call(DOWNLOAD, repo, TORCH_FILES, cache_dir=tmp_path / "cache")
    server.log.clear()
    with Client(tmp_path / "home", server.url, "hf_alice", HF_HUB_OFFLINE="1") as offline:
        assert offline.call(DOWNLOAD, repo, TORCH_FILES, cache_dir=tmp_path / "cache") == online
        with pytest.raises(CallFailed, match="HF_HUB_OFFLINE is set"):
            offline.call(DOWNLOAD, "alice/another", TORCH_FILES, cache_dir=tmp_path / "cache")
        with pytest.raises(CallFailed, match=r"neither a folder nor a model.*'clever-resnet18'"):
            offline.call("clever_hub.hub.resolve:resolve", "clever-resnet81")
    assert server.log == []


def test_a_private_repository_needs_its_owners_token(
    client: Client, repo: str, server: HubServer, tmp_path: Path
) -> None:
    server.hub.repositories[repo].private = True
    for token in ("hf_bob", False):
        with pytest.raises(CallFailed, match=r"ModelNotFoundError.*private.*hf auth login"):
            client.call(DOWNLOAD, repo, TORCH_FILES, cache_dir=tmp_path, token=token)
    client.call(DOWNLOAD, repo, TORCH_FILES, cache_dir=tmp_path, token="hf_alice")
    assert not any(entry.authorised for entry in server.log if "_cdn" in entry.path)


def test_a_gated_repository_says_where_to_ask(
    client: Client, repo: str, server: HubServer, tmp_path: Path
) -> None:
    repository = server.hub.repositories[repo]
    repository.gated = True
    for token in ("hf_bob", False):  # 403 for a user, 401 for a stranger
        with pytest.raises(CallFailed, match=rf"HubError.*gated.*Ask for access at .*/{repo}"):
            client.call(DOWNLOAD, repo, TORCH_FILES, cache_dir=tmp_path, token=token)
    repository.granted.add("bob")
    client.call(DOWNLOAD, repo, TORCH_FILES, cache_dir=tmp_path, token="hf_bob")


def test_a_bare_name_is_looked_for_in_the_organisation(
    client: Client, server: HubServer, tmp_path: Path
) -> None:
    commit = server.hub.add_files("clever-hub/clever-resnet34", FILES).oid
    options = {"cache_dir": tmp_path}
    folder, source = client.call("clever_hub.hub.resolve:resolve", "clever-resnet34", **options)
    assert source[:4] == ["hub", "clever-hub/clever-resnet34", folder, commit]
    with pytest.raises(
        CallFailed, match=r"ModelNotFoundError: 'clever-resnet81': neither"
    ) as caught:
        client.call("clever_hub.hub.resolve:resolve", "clever-resnet81", **options)
    assert "Did you mean 'clever-resnet18'" in caught.value.message


def test_a_shipped_name_asks_nobody(client: Client, server: HubServer) -> None:
    server.log.clear()
    _, source = client.call("clever_hub.hub.resolve:resolve", "clever-resnet18")
    assert source[0] == "zoo"
    assert server.log == []


def test_a_repository_without_the_files_is_named_before_anything_is_fetched(
    client: Client, server: HubServer, tmp_path: Path
) -> None:
    server.hub.add_files("bob/words", {"config.json": b"{}", "model.bin": b"pickle"})
    server.hub.add_files("bob/torch-only", {name: FILES[name] for name in TORCH_FILES})
    server.log.clear()
    with pytest.raises(CallFailed, match=r"has no model\.safetensors\. It is not a CLeVER model"):
        client.call(DOWNLOAD, "bob/words", TORCH_FILES, cache_dir=tmp_path)
    with pytest.raises(CallFailed, match=r'has no model\.onnx\. Load it with backend="torch"'):
        client.call(DOWNLOAD, "bob/torch-only", ONNX_FILES, cache_dir=tmp_path)
    assert server.paths("HEAD") == []
    # Also when the cache has the other files, and the list is not asked for again.
    client.call(DOWNLOAD, "bob/torch-only", TORCH_FILES, cache_dir=tmp_path)
    with pytest.raises(CallFailed, match=r'has no model\.onnx\. Load it with backend="torch"'):
        client.call(DOWNLOAD, "bob/torch-only", ONNX_FILES, cache_dir=tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "../up",
        "a/../b",
        "a/b/c",
        "/etc",
        "-x/y",
        "a--b",
        "a/b?c",
        "ü/b",
        "a b",
        "~a/b",
        "a/..b",
    ],
)
def test_what_cannot_be_a_repository_is_never_asked_for(name: str) -> None:
    assert repository_id(name) is None


def test_names_of_repositories() -> None:
    assert repository_id("user/name_1.2-x") == "user/name_1.2-x"
    assert repository_id("clever-vit-tiny.rotated") == "clever-hub/clever-vit-tiny.rotated"
