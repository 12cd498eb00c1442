"""The server itself: it answers as the Hub does, errors included, and goes wrong when told to."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from tests.hub_server.server import HubServer
from tests.hub_server.state import User
from tests.hub_server.store import git_blob_id

ALICE = {"Authorization": "Bearer hf_alice"}
BOB = {"Authorization": "Bearer hf_bob"}
READER = {"Authorization": "Bearer hf_reader"}
STALE = {"Authorization": "Bearer hf_nobody"}


class Reply(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HubServer]:
    """A Hub with three tokens."""
    users = {
        "hf_alice": User("alice", ("acme",)),
        "hf_bob": User("bob"),
        "hf_reader": User("alice", role="read"),
    }
    with HubServer(tmp_path / "server", users) as server:
        yield server


def ask(
    server: HubServer,
    method: str,
    path: str,
    body: object = None,
    headers: dict[str, str] | None = None,
) -> Reply:
    """One request, without following redirects."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)
    try:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection.request(method, path, data, headers or {})
        answer = connection.getresponse()
        return Reply(answer.status, dict(answer.getheaders()), answer.read())
    finally:
        connection.close()


def commit(server: HubServer, repo: str, *changes: dict[str, Any], parent: str = "") -> Reply:
    """A commit by Alice."""
    header = {"key": "header", "value": {"summary": "change", "parentCommit": parent}}
    lines = b"\n".join(json.dumps(line).encode() for line in (header, *changes))
    return ask(server, "POST", f"/api/models/{repo}/commit/main", lines, ALICE)


def added(path: str, content: bytes) -> dict[str, Any]:
    """The change that adds a small file."""
    encoded = base64.b64encode(content).decode()
    return {"key": "file", "value": {"path": path, "content": encoded, "encoding": "base64"}}


def test_create_commit_and_read_back(server: HubServer) -> None:
    wanted = {"name": "m", "organization": "acme"}
    assert ask(server, "POST", "/api/repos/create", wanted, ALICE).status == 200
    assert ask(server, "POST", "/api/repos/create", wanted, ALICE).status == 409
    oid = commit(server, "acme/m", added("config.json", b"{}")).json["commitOid"]
    info = ask(server, "GET", "/api/models/acme/m/revision/main?blobs=true").json
    assert info["sha"] == oid
    sizes = {file["rfilename"]: file["size"] for file in info["siblings"]}
    assert sizes["config.json"] == 2
    file = ask(server, "GET", "/acme/m/resolve/main/config.json")
    assert (file.body, file.headers["X-Repo-Commit"]) == (b"{}", oid)
    assert file.headers["ETag"] == f'"{git_blob_id(b"{}")}"'
    history = ask(server, "GET", "/api/models/acme/m/commits/main").json
    assert [entry["title"] for entry in history] == ["change", "initial commit"]


def test_blob_ids_are_gits() -> None:
    # `echo hello | git hash-object --stdin`
    assert git_blob_id(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_a_stale_parent_is_refused(server: HubServer) -> None:
    old = server.hub.add_files("alice/m", {"a": b"1"}).oid
    server.hub.add_files("alice/m", {"a": b"2"})
    refused = commit(server, "alice/m", added("a", b"3"), parent=old)
    assert refused.status == 412
    assert ask(server, "GET", "/alice/m/resolve/main/a").body == b"2"


def test_deleting_what_is_not_there_is_refused(server: HubServer) -> None:
    server.hub.add_files("alice/m", {"a": b"1"})
    gone = {"key": "deletedFile", "value": {"path": "a"}}
    assert commit(server, "alice/m", gone).status == 200
    assert commit(server, "alice/m", gone).headers["X-Error-Code"] == "EntryNotFound"


def test_large_files_go_through_lfs_and_the_cdn(server: HubServer) -> None:
    content = b"weights" * 1000
    oid = hashlib.sha256(content).hexdigest()
    server.hub.create("alice/m", "alice")
    sample = {"path": "w.safetensors", "size": len(content), "sample": ""}
    modes = ask(
        server, "POST", "/api/models/alice/m/preupload/main", {"files": [sample]}, ALICE
    ).json
    assert modes["files"][0]["uploadMode"] == "lfs"
    batch = {"objects": [{"oid": oid, "size": len(content)}]}
    path = "/alice/m.git/info/lfs/objects/batch"
    link = ask(server, "POST", path, batch, ALICE).json["objects"][0]["actions"]["upload"]["href"]
    target = link.removeprefix(server.url)
    assert ask(server, "PUT", target, b"something else").status == 400
    assert ask(server, "PUT", f"/_lfs/{oid}?signature=forged", content).status == 403
    change = {"key": "lfsFile", "value": {"path": "w.safetensors", "oid": oid, "size": 7000}}
    assert commit(server, "alice/m", change).status == 400, "a pointer to nothing"
    assert ask(server, "PUT", target, content).status == 200
    assert "actions" not in ask(server, "POST", path, batch, ALICE).json["objects"][0]
    assert commit(server, "alice/m", change).status == 200
    moved = ask(server, "GET", "/alice/m/resolve/main/w.safetensors")
    assert (moved.status, moved.headers["X-Linked-Etag"]) == (302, f'"{oid}"')
    where = urlsplit(moved.headers["Location"])
    assert where.hostname == "localhost", "another host than the Hub's"
    assert ask(server, "GET", f"{where.path}?{where.query}").body == content
    assert ask(server, "GET", where.path).status == 403
    part = ask(server, "GET", f"{where.path}?{where.query}", headers={"Range": "bytes=6990-"})
    assert (part.status, part.body) == (206, content[6990:])
    assert part.headers["Content-Range"] == "bytes 6990-6999/7000"
    beyond = {"Range": "bytes=7000-"}
    assert ask(server, "GET", f"{where.path}?{where.query}", headers=beyond).status == 416


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/api/models/alice/none", {}, 401, "RepoNotFound"),
        ("/api/models/alice/none", BOB, 404, "RepoNotFound"),
        ("/api/models/alice/private", BOB, 404, "RepoNotFound"),
        ("/api/models/alice/private", READER, 200, None),
        ("/api/models/alice/open", STALE, 401, None),
        ("/api/models/alice/open/revision/v9", {}, 404, "RevisionNotFound"),
        ("/alice/open/resolve/main/none", {}, 404, "EntryNotFound"),
        ("/alice/open/resolve/v9/a", {}, 404, "RevisionNotFound"),
        ("/alice/open/resolve/v1/a", {}, 200, None),
        ("/alice/open/resolve/refs%2Ftags%2Fv1/a", {}, 200, None),
        ("/alice/gated/resolve/main/a", {}, 401, "GatedRepo"),
        ("/alice/gated/resolve/main/a", BOB, 403, "GatedRepo"),
        ("/alice/gated/resolve/main/a", ALICE, 200, None),
        ("/api/whoami-v2", {}, 401, None),
        ("/nothing/here/at/all", {}, 404, None),
    ],
)
def test_refusals_are_the_hubs(
    server: HubServer, path: str, headers: dict[str, str], status: int, code: str | None
) -> None:
    for name in ("open", "private", "gated"):
        server.hub.add_files(f"alice/{name}", {"a": b"1"})
    repositories = server.hub.repositories
    repositories["alice/private"].private = True
    repositories["alice/gated"].gated = True
    repositories["alice/open"].tags["v1"] = repositories["alice/open"].head.oid
    reply = ask(server, "GET", path, headers=headers)
    assert (reply.status, reply.headers.get("X-Error-Code")) == (status, code)


def test_who_may_write(server: HubServer) -> None:
    server.hub.add_files("alice/m", {"a": b"1"})
    for headers, status in (({}, 401), (BOB, 403), (READER, 403), (ALICE, 200)):
        path = "/api/models/alice/m/tag/main"
        assert ask(server, "POST", path, {"tag": "v1"}, headers).status == status
    assert ask(server, "POST", path, {"tag": "v1"}, ALICE).status == 409
    assert ask(server, "GET", "/api/models/alice/m/refs").json["tags"][0]["name"] == "v1"
    for headers, status in ((BOB, 403), (READER, 403)):
        wanted = {"name": "x", "organization": "alice"}
        assert ask(server, "POST", "/api/repos/create", wanted, headers).status == status


def test_listing_shows_an_authors_public_repositories(server: HubServer) -> None:
    for repo in ("acme/a", "acme/b", "bob/c"):
        server.hub.add_files(repo, {"a": b"1"})
    server.hub.repositories["acme/b"].private = True
    path = "/api/models?author=acme"
    assert [entry["id"] for entry in ask(server, "GET", path).json] == ["acme/a"]
    own = ask(server, "GET", path, headers=ALICE).json
    assert [entry["id"] for entry in own] == ["acme/a", "acme/b"]


@pytest.mark.parametrize(
    ("card", "status"),
    [("---\nlicense: mit\n---\n", 200), ("---\ntags: no list\n---\n", 400), ("---\n{\n---\n", 400)],
)
def test_front_matter_is_checked(server: HubServer, card: str, status: int) -> None:
    assert ask(server, "POST", "/api/validate-yaml", {"content": card}).status == status


def test_faults_happen_as_often_as_they_are_set(server: HubServer) -> None:
    server.hub.add_files("alice/m", {"a": b"0123456789"})
    path = "/alice/m/resolve/main/a"
    server.fail("GET", "/resolve/", status=429, headers={"Retry-After": "0"}, times=2)
    assert [ask(server, "GET", path).status for _ in range(3)] == [429, 429, 200]
    server.fail("GET", "/resolve/", flip=True)
    assert ask(server, "GET", path).body == b"01234" + bytes([ord("5") ^ 1]) + b"6789"
    server.fail("GET", "/resolve/", cut_after=4)
    with pytest.raises(http.client.IncompleteRead) as cut:
        ask(server, "GET", path)
    assert cut.value.partial == b"0123"
    server.fail("GET", "/resolve/", length_error=-3)
    assert ask(server, "GET", path).body == b"0123456"
    server.fail("GET", "/resolve/", length_error=5)
    with pytest.raises(http.client.IncompleteRead):
        ask(server, "GET", path)
    server.fail("GET", "/resolve/", meanwhile=lambda: server.hub.add_files("alice/m", {"a": b"!"}))
    assert ask(server, "GET", path).body == b"!"


def test_every_request_is_in_the_log(server: HubServer) -> None:
    server.hub.add_files("alice/m", {"a": b"1"})
    ask(server, "GET", "/alice/m/resolve/main/a", headers=ALICE)
    ask(server, "HEAD", "/alice/m/resolve/main/b")
    assert [tuple(entry) for entry in server.log] == [
        ("GET", "/alice/m/resolve/main/a", 200, True),
        ("HEAD", "/alice/m/resolve/main/b", 404, False),
    ]


def test_requests_are_bounded(server: HubServer) -> None:
    reply = ask(server, "POST", "/api/repos/create", headers={"Content-Length": "999999999999"})
    assert reply.status == 413
