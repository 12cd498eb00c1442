"""Downloading: resolve, the redirect to a "CDN" on another host name, byte ranges."""

from __future__ import annotations

import re
from urllib.parse import quote

from tests.hub_server.accounts import at, downloadable
from tests.hub_server.web import Answer, RefusalError, Request, route


@route("GET HEAD", "/{repo}/resolve/{rest}")
def resolve(request: Request, repo: str, rest: str) -> Answer:
    """A file of a revision: small ones at once, large ones by a signed link to the CDN."""
    repository = downloadable(request, repo)
    # "v1.0/config.json"; a branch of the form refs/pr/1 has two more slashes.
    found = re.fullmatch(r"(refs/[^/]+/[^/]+|[^/]+)/(.+)", rest)
    if found is None:
        raise RefusalError(404, "Entry not found", "EntryNotFound")
    commit, path = at(repository, found[1]), found[2]
    headers = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
    if path not in commit.files:
        raise RefusalError(404, "Entry not found", "EntryNotFound", X_Repo_Commit=commit.oid)
    blob = commit.files[path]
    if blob.sha256 is None:
        headers["ETag"] = f'"{blob.oid}"'
        return _ranged(request, request.hub.store.content(blob), headers)
    signature = request.hub.sign(commit.oid + path)
    # Another host name, so that a token sent there would show in the log.
    elsewhere = request.base.replace("127.0.0.1", "localhost")
    link = f"{elsewhere}/_cdn/{repo}/{commit.oid}/{quote(path)}?signature={signature}"
    headers |= {
        "ETag": f'"{blob.sha256}"',
        "X-Linked-Etag": f'"{blob.sha256}"',
        "X-Linked-Size": str(blob.size),
        "Location": link,
    }
    if blob.xet:
        token = f"{request.base}/api/models/{repo}/xet-read-token/{commit.oid}"
        headers["X-Xet-Hash"] = blob.xet
        headers["Link"] = f'<{token}>; rel="xet-auth"'
    return Answer(302, headers=headers)


@route("GET HEAD", r"/_cdn/{repo}/(?P<oid>[0-9a-f]{40})/{path}")
def from_cdn(request: Request, repo: str, oid: str, path: str) -> Answer:
    """A large file, to whoever has the signed link."""
    if request.query.get("signature") != request.hub.sign(oid + path):
        raise RefusalError(403, "bad signature")
    blob = request.hub.repositories[repo].commits[oid].files[path]
    headers = {"ETag": f'"{blob.sha256}"', "Accept-Ranges": "bytes"}
    return _ranged(request, request.hub.store.content(blob), headers)


def _ranged(request: Request, content: bytes, headers: dict[str, str]) -> Answer:
    """The content, or the part of it that a resumed download asks for."""
    wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
    if wanted is None or request.method == "HEAD":
        return Answer(200, content, headers)
    first, last = int(wanted[1]), int(wanted[2] or len(content) - 1)
    if first >= len(content):
        raise RefusalError(416, "Range Not Satisfiable", Content_Range=f"bytes */{len(content)}")
    part = content[first : last + 1]
    headers["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{len(content)}"
    return Answer(206, part, headers)
