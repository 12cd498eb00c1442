"""Who is asking, and what they may do."""

from __future__ import annotations

from tests.hub_server.state import Commit, Repository, User
from tests.hub_server.web import Answer, RefusalError, Request, route

_ANONYMOUS = "Invalid username or password."


def signed_in(request: Request) -> User:
    """The user; a refusal for strangers."""
    if request.user is None:
        raise RefusalError(401, _ANONYMOUS)
    return request.user


def readable(request: Request, repo: str) -> Repository:
    """A repository that the user may see; the Hub does not say whether a private one is there."""
    user, found = request.user, request.hub.repositories.get(repo)
    if found is None or (found.private and not (user and user.owns(found.owner))):
        if user is None:
            raise RefusalError(401, _ANONYMOUS, "RepoNotFound")
        raise RefusalError(404, "Repository not found", "RepoNotFound")
    return found


def writable(request: Request, repo: str) -> Repository:
    """A repository that the user may change."""
    user = signed_in(request)
    found = readable(request, repo)
    if not user.owns(found.owner):
        raise RefusalError(403, "You don't have the required permissions to perform this action")
    may_write(user)
    return found


def may_write(user: User) -> None:
    """A refusal for tokens that only read."""
    if user.role != "write":
        raise RefusalError(
            403, "This token has insufficient permissions: a write token is required"
        )


def downloadable(request: Request, repo: str) -> Repository:
    """A repository whose files the user may have: those of a gated one need to be granted."""
    user, found = request.user, readable(request, repo)
    granted = user is not None and (user.owns(found.owner) or user.name in found.granted)
    if found.gated and not granted:
        status = 401 if user is None else 403
        raise RefusalError(status, f"Access to model {repo} is restricted.", "GatedRepo")
    return found


def at(repository: Repository, revision: str) -> Commit:
    """The commit of a revision."""
    commit = repository.find(revision)
    if commit is None:
        raise RefusalError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    return commit


@route("GET", "/api/whoami-v2")
def who_am_i(request: Request) -> Answer:
    """Describe the user."""
    user = signed_in(request)
    token = {"displayName": "test", "role": user.role, "createdAt": "2024-01-01T00:00:00.000Z"}
    return Answer.of(
        {
            "type": "user",
            "id": "1",
            "name": user.name,
            "fullname": user.name,
            "orgs": [{"type": "org", "name": name} for name in user.organisations],
            "auth": {"type": "access_token", "accessToken": token},
        }
    )
