"""Create, describe and list repositories; their files, refs and tags."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qs, urlencode

import yaml

from tests.hub_server.accounts import at, may_write, readable, signed_in, writable
from tests.hub_server.state import Commit, Hub, Repository, now
from tests.hub_server.store import Blob
from tests.hub_server.web import Answer, RefusalError, Request, route

_ON_PAGE = 2  # the Hub has a thousand
_FRONT_MATTER = re.compile(r"---\r?\n(.*?)\r?\n---", re.DOTALL)


@route("POST", "/api/repos/create")
def create(request: Request) -> Answer:
    """Make a repository."""
    user, wanted = signed_in(request), request.json()
    owner = wanted.get("organization") or user.name
    may_write(user)
    if not user.owns(owner):
        raise RefusalError(403, f"You don't have the rights to create a model under {owner}")
    repo = f"{owner}/{wanted['name']}"
    private = bool(wanted.get("private")) or wanted.get("visibility") == "private"
    url = f"{request.base}/{repo}"
    with request.hub.lock:
        if repo in request.hub.repositories:
            return Answer.of({"error": "You already created this model repo", "url": url}, 409)
        request.hub.create(repo, user.name, private)
    return Answer.of({"url": url, "name": repo, "id": "0"})


@route("POST", "/api/validate-yaml")
def validate_front_matter(request: Request) -> Answer:
    """Check a card's front matter, before it is uploaded."""
    found = _FRONT_MATTER.match(request.json()["content"])
    try:
        content = yaml.safe_load(found.group(1)) if found else {}
        errors = _front_matter_errors(content)
    except yaml.YAMLError as error:
        errors = [str(error)]
    messages = [{"message": message} for message in errors]
    return Answer.of({"errors": messages, "warnings": []}, 400 if errors else 200)


def _front_matter_errors(content: object) -> list[str]:
    if not isinstance(content, dict):
        return ["expected an object"]
    kinds = {"license": str, "library_name": str, "pipeline_tag": str, "tags": list}
    return [
        f'"{key}" must be {kind.__name__}'
        for key, kind in {**kinds, "model-index": list}.items()
        if key in content and not isinstance(content[key], kind)
    ]


@route("GET", "/api/models")
def listing(request: Request) -> Answer:
    """List the repositories of an author that the user may see, a few on a page."""
    user, author = request.user, request.query.get("author")
    begin = int(request.query.get("cursor", 0))
    shown = [
        _description(request.hub, repository, repository.head)
        for repository in list(request.hub.repositories.values())
        if author in (None, repository.owner)
        and (not repository.private or (user and user.owns(repository.owner)))
    ]
    answer = Answer.of(shown[begin : begin + _ON_PAGE])
    if begin + _ON_PAGE < len(shown):
        query = urlencode({**request.query, "cursor": begin + _ON_PAGE})
        answer.headers["Link"] = f'<{request.base}/api/models?{query}>; rel="next"'
    return answer


# Before the plain description, whose pattern would take "owner/name" only, so order is free.
@route("GET HEAD", "/api/models/{repo}/revision/{revision}")
def description_at(request: Request, repo: str, revision: str) -> Answer:
    """Describe a repository at a revision."""
    repository = readable(request, repo)
    sizes = request.query.get("blobs", "").lower() in ("1", "true")
    return Answer.of(_description(request.hub, repository, at(repository, revision), sizes))


@route("GET HEAD", "/api/models/{repo}")
def description(request: Request, repo: str) -> Answer:
    """Describe a repository."""
    return description_at(request, repo, "main")


def _description(
    hub: Hub, repository: Repository, commit: Commit, sizes: bool = False
) -> dict[str, Any]:
    card = _card_data(hub, commit)
    return {
        "_id": "0",
        "id": repository.id,
        "modelId": repository.id,
        "author": repository.owner,
        "sha": commit.oid,
        "lastModified": commit.date,
        "createdAt": repository.created,
        "private": repository.private,
        "gated": "auto" if repository.gated else False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": list(card.get("tags", [])),
        "cardData": card,
        "config": _model_config(hub, commit),
        "siblings": [
            {"rfilename": path, **(_sizes(blob) if sizes else {})}
            for path, blob in sorted(commit.files.items())
        ],
        **{key: card[key] for key in ("library_name", "pipeline_tag") if key in card},
    }


def _card_data(hub: Hub, commit: Commit) -> dict[str, Any]:
    if "README.md" not in commit.files:
        return {}
    found = _FRONT_MATTER.match(hub.store.content(commit.files["README.md"]).decode())
    content = yaml.safe_load(found.group(1)) if found else {}
    return content if isinstance(content, dict) else {}


def _model_config(hub: Hub, commit: Commit) -> dict[str, Any]:
    """The few keys of config.json that the Hub shows."""
    if "config.json" not in commit.files:
        return {}
    try:
        content = json.loads(hub.store.content(commit.files["config.json"]))
    except ValueError:
        return {}
    shown = ("architectures", "model_type", "auto_map")
    return {key: content[key] for key in shown if key in content}


def _sizes(blob: Blob) -> dict[str, Any]:
    lfs = {"sha256": blob.sha256, "size": blob.size, "pointerSize": blob.pointer_size}
    return {"size": blob.size, "blobId": blob.oid, **({"lfs": lfs} if blob.sha256 else {})}


@route("GET", "/api/models/{repo}/tree/{rest}")
def tree(request: Request, repo: str, rest: str) -> Answer:
    """List the files of a revision; ours have no folders."""
    repository = readable(request, repo)
    revision, _, folder = rest.partition("/")
    if folder:
        raise RefusalError(404, f"{folder} does not exist on {revision}", "EntryNotFound")
    return Answer.of(
        [_entry(path, blob) for path, blob in sorted(at(repository, revision).files.items())]
    )


@route("POST", "/api/models/{repo}/paths-info/{revision}")
def paths_info(request: Request, repo: str, revision: str) -> Answer:
    """Describe the files that are named."""
    files = at(readable(request, repo), revision).files
    body = request.body
    paths = json.loads(body)["paths"] if body[:1] == b"{" else parse_qs(body.decode())["paths"]
    return Answer.of([_entry(path, files[path]) for path in paths if path in files])


def _entry(path: str, blob: Blob) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "oid": blob.oid, "size": blob.size}
    if blob.sha256:
        entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": blob.pointer_size}
    if blob.xet:
        entry["xetHash"] = blob.xet
    return entry


@route("GET", "/api/models/{repo}/refs")
def refs(request: Request, repo: str) -> Answer:
    """List branches and tags."""
    repository = readable(request, repo)

    def listed(of: dict[str, str], kind: str) -> list[dict[str, str]]:
        return [
            {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": oid}
            for name, oid in of.items()
        ]

    branches, tags = listed(repository.branches, "heads"), listed(repository.tags, "tags")
    return Answer.of({"branches": branches, "tags": tags, "converts": []})


@route("GET", "/api/models/{repo}/commits/{revision}")
def commits(request: Request, repo: str, revision: str) -> Answer:
    """The history of a revision, newest first."""
    repository = readable(request, repo)
    commit: Commit | None = at(repository, revision)
    history = []
    while commit is not None:
        author = [{"user": commit.author}]
        history.append({"id": commit.oid, "title": commit.title, "message": "", "authors": author})
        history[-1]["date"] = commit.date
        commit = repository.commits.get(commit.parent or "")
    return Answer.of(history, X_Total_Count=str(len(history)))


@route("POST", "/api/models/{repo}/tag/{revision}")
def tag(request: Request, repo: str, revision: str) -> Answer:
    """Give a commit a name."""
    repository = writable(request, repo)
    name = request.json()["tag"]
    with request.hub.lock:
        if name in repository.tags:
            raise RefusalError(409, f"Reference refs/tags/{name} already exists")
        repository.tags[name] = at(repository, revision).oid
    return Answer.of({})


@route("PUT", "/api/models/{repo}/settings")
def settings(request: Request, repo: str) -> Answer:
    """Make a repository private, public or gated."""
    repository, wanted = writable(request, repo), request.json()
    if "private" in wanted or "visibility" in wanted:
        repository.private = bool(wanted.get("private")) or wanted.get("visibility") == "private"
    repository.gated = bool(wanted.get("gated", repository.gated))
    return Answer.of({"private": repository.private, "gated": repository.gated, "at": now()})
