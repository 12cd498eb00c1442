"""Uploading: preupload, LFS over HTTP, tokens for Xet, and the commit itself."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from typing import Any

from tests.hub_server.accounts import at, downloadable, signed_in, writable
from tests.hub_server.state import LFS_ENDINGS, Hub
from tests.hub_server.store import Blob, MissingObjectError
from tests.hub_server.web import Answer, RefusalError, Request, route

_LFS_FROM = 10_000_000


@route("POST", "/api/models/{repo}/preupload/{revision}")
def preupload(request: Request, repo: str, revision: str) -> Answer:
    """Say of each file how to send it, and what the repository has under its name."""
    files = at(writable(request, repo), revision).files
    modes = []
    for file in request.json()["files"]:
        binary = b"\0" in base64.b64decode(file["sample"])
        large = file["path"].endswith(LFS_ENDINGS) or file["size"] >= _LFS_FROM or binary
        mode = {"path": file["path"], "uploadMode": "lfs" if large else "regular"}
        if file["path"] in files:
            there = files[file["path"]]
            mode["oid"] = there.sha256 or there.oid
        modes.append({**mode, "shouldIgnore": False})
    return Answer.of({"files": modes})


@route("POST", r"/{repo}\.git/info/lfs/objects/batch")
def lfs_batch(request: Request, repo: str) -> Answer:
    """Say where to send each LFS object; nowhere when it is here."""
    writable(request, repo)
    hub, objects = request.hub, []
    for wanted in request.json()["objects"]:
        oid = wanted["oid"]
        actions: dict[str, Any] = {}
        if not hub.store.has_large(oid):
            href = f"{request.base}/_lfs/{oid}?signature={hub.sign('put' + oid)}"
            actions = {"actions": {"upload": {"href": href}}}
        objects.append({**wanted, "authenticated": True, **actions})
    return Answer.of({"transfer": "basic", "objects": objects})


@route("PUT", r"/_lfs/(?P<oid>[0-9a-f]{64})")
def lfs_put(request: Request, oid: str) -> Answer:
    """Take an LFS object, if its hash is what was said."""
    if request.query.get("signature") != request.hub.sign("put" + oid):
        raise RefusalError(403, "bad signature")
    if hashlib.sha256(request.body).hexdigest() != oid:
        raise RefusalError(400, "sha256 mismatch")
    request.hub.store.put_large(oid, request.body)
    return Answer(200, headers={"ETag": f'"{oid}"'})


@route("GET", "/api/models/{repo}/xet-write-token/{revision}")
def xet_write_token(request: Request, repo: str, revision: str) -> Answer:
    """Lead the client to the Xet store, to write."""
    writable(request, repo)
    return _xet_token(request.hub)


@route("GET", "/api/models/{repo}/xet-read-token/{revision}")
def xet_read_token(request: Request, repo: str, revision: str) -> Answer:
    """Lead the client to the Xet store, to read."""
    downloadable(request, repo)
    return _xet_token(request.hub)


def _xet_token(hub: Hub) -> Answer:
    token, expires = f"xet-{secrets.token_hex(8)}", int(time.time()) + 3600
    return Answer.of(
        {"accessToken": token, "exp": expires, "casUrl": hub.store.xet_url},
        X_Xet_Cas_Url=hub.store.xet_url,
        X_Xet_Access_Token=token,
        X_Xet_Token_Expiration=str(expires),
    )


@route("POST", "/api/models/{repo}/commit/{revision}")
def commit(request: Request, repo: str, revision: str) -> Answer:
    """Add a commit to main: lines of JSON, a header first, then one for each change."""
    user, repository = signed_in(request), writable(request, repo)
    if revision not in repository.branches:
        raise RefusalError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    header, *changes = [json.loads(line) for line in request.body.splitlines() if line.strip()]
    with request.hub.lock:
        parent = header["value"].get("parentCommit")
        if parent and not repository.head.oid.startswith(parent):
            raise RefusalError(412, "A commit has happened since. Please refresh and try again.")
        files = dict(repository.head.files)
        for change in changes:
            _apply(request.hub, files, change["key"], change["value"])
        made = repository.commit(header["value"]["summary"], user.name, files)
    url = f"{request.base}/{repo}/commit/{made.oid}"
    return Answer.of({"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""})


def _apply(hub: Hub, files: dict[str, Blob], kind: str, value: dict[str, Any]) -> None:
    path = value["path"]
    if kind == "file":
        files[path] = hub.store.put_small(base64.b64decode(value["content"]))
    elif kind == "lfsFile":
        try:
            files[path] = hub.store.large(value["oid"], value["size"])
        except MissingObjectError as error:
            raise RefusalError(400, f"no LFS object {error} was uploaded") from error
    elif kind == "deletedFile":
        if files.pop(path, None) is None:
            raise RefusalError(404, f"Entry not found: {path}", "EntryNotFound")
    else:
        raise RefusalError(400, f"unknown change {kind}")
