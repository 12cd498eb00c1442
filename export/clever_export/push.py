"""Publish a model folder on the Hugging Face Hub in one commit, never over a concurrent one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.errors import RepositoryNotFoundError

from clever_export.card import CARD_NAME, is_generated, make_card
from clever_export.places import names_places, portable, public_photos
from clever_export.publish_check import KNOWN, check_folder
from clever_hub import __version__
from clever_hub.errors import HubError, ModelNotFoundError
from clever_hub.files import folder_name, to_json
from clever_hub.hub.client import api, repository_id, with_retries
from clever_hub.hub.errors import why_not_asked
from clever_hub.hub.evaluation import EVALUATION_NAME
from clever_hub.weights import sha256_of

if TYPE_CHECKING:
    from huggingface_hub import HfApi

State = Literal["new", "changed", "same", "deleted"]


@dataclass(frozen=True)
class FileState:
    """A file of the folder or of the repository, and its change by publishing.

    Attributes:
        name: Its name.
        size: Its size in bytes; 0 when it is deleted.
        state: The change.
    """

    name: str
    size: int
    state: State


@dataclass(frozen=True)
class Plan:
    """What publishing a folder would do.

    Attributes:
        repo_id: ``user/name``.
        files: Every file.
        parent: The newest commit of the repository; None when there is no repository yet.
        tagged: The commit that has the tag already; None when the tag is free.
    """

    repo_id: str
    files: tuple[FileState, ...]
    parent: str | None
    tagged: str | None = None

    @property
    def changes(self) -> tuple[FileState, ...]:
        """The files that would be sent or deleted."""
        return tuple(file for file in self.files if file.state != "same")


@dataclass(frozen=True)
class Published:
    """Result of publishing a folder.

    Attributes:
        repo_id: ``user/name``.
        commit: The commit with the folder's content.
        url: The repository's page.
        sent: The files that were sent or deleted; empty when nothing had changed.
    """

    repo_id: str
    commit: str
    url: str
    sent: tuple[FileState, ...]


def plan(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    tag: str | None = None,
    token: str | None = None,
) -> Plan:
    """Check a folder and compare it with the repository; change nothing.

    Args:
        folder: A model folder.
        repo_id: ``user/name``; need not exist yet.
        private: Whether the repository must be private.
        tag: The tag for the commit.
        token: Access token; None takes HF_TOKEN or the one of ``hf auth login``.

    Returns:
        What ``push`` would do.

    Raises:
        ModelFormatError: When the folder is not ready; lists every problem.
        ModelNotFoundError: When ``repo_id`` is not valid.
        HubError: When the Hub cannot be reached or refuses, the tag is used for other content, or
            the repository is public although ``private`` was given.

    Example:
        >>> plan("my-model", "user/my-model").changes  # doctest: +SKIP
    """
    if "/" not in repo_id or repository_id(repo_id) is None:
        raise ModelNotFoundError(f"{repo_id!r}: expected the name of a repository, 'user/name'")
    contents = _contents(check_folder(folder), repo_id)
    compare = partial(_compare, api(token), contents, repo_id, private, tag)
    try:
        return with_retries(compare, repo_id)
    except HubError as error:
        if not (reason := why_not_asked(error.__cause__)):
            raise
        raise HubError(
            f"{folder}: ready to publish: it loads, was verified, has a complete card and no other "
            f"files. What {repo_id} has already could not be asked: {reason}, and run the command "
            "again"
        ) from error


def push(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    tag: str | None = None,
    token: str | None = None,
    message: str | None = None,
) -> Published:
    """Publish a model folder.

    Files that the repository already has are not sent. After a broken connection, call it again:
    large files that arrived are not sent twice. A commit that another user makes in the meantime
    is never overwritten.

    Args:
        folder: A model folder that ``check_folder`` finds ready.
        repo_id: ``user/name``; created when it does not exist.
        private: Make it private.
        tag: A tag for the commit, such as ``"v1.0"``.
        token: Access token with the right to write; None takes HF_TOKEN or that of
            ``hf auth login``.
        message: The commit's message.

    Returns:
        The commit and what was sent.

    Raises:
        ModelFormatError: When the folder is not ready; lists every problem.
        ModelNotFoundError: When ``repo_id`` is not valid.
        HubError: As for ``plan``, and when another user has committed in the meantime.

    Example:
        >>> push("my-model", "user/my-model", tag="v1.0").commit  # doctest: +SKIP
    """
    planned = plan(folder, repo_id, private=private, tag=tag, token=token)
    return send(planned, folder, private=private, tag=tag, token=token, message=message)


def send(
    planned: Plan,
    folder: str | Path,
    *,
    private: bool = False,
    tag: str | None = None,
    token: str | None = None,
    message: str | None = None,
) -> Published:
    """Carry out a plan, with the arguments of ``plan``; ``push`` does both.

    Args:
        planned: What ``plan`` returned.
        folder: As for ``push``, like the rest.
        private: Make the repository private.
        tag: A tag for the commit.
        token: Access token with the right to write.
        message: The commit's message.

    Returns:
        The commit and what was sent.

    Raises:
        HubError: As for ``push``.
    """
    repo_id, client = planned.repo_id, api(token)
    contents = _contents(sorted(Path(folder).iterdir()), repo_id)
    parent = planned.parent
    if parent is None:
        create = partial(client.create_repo, repo_id, private=private, exist_ok=True)
        with_retries(create, repo_id)
        parent = with_retries(partial(_head, client, repo_id), repo_id)
    text = message or f"Publish {folder_name(folder)} with clever-hub {__version__}"
    commit = with_retries(partial(_commit, client, contents, repo_id, parent, text), repo_id)
    if tag is not None and planned.tagged is None:
        with_retries(partial(_tag, client, repo_id, tag, commit), repo_id)
    return Published(repo_id, commit, f"{client.endpoint}/{repo_id}", planned.changes)


def _contents(paths: list[Path], repo_id: str) -> dict[str, Path | bytes]:
    """Content of the repository; an unedited card gets the repository's name."""
    contents: dict[str, Path | bytes] = {path.name: path for path in paths}
    card = next(path for path in paths if path.name == CARD_NAME)
    if is_generated(card.parent, card.read_text(encoding="utf-8")):
        contents[CARD_NAME] = make_card(card.parent, repo_id).encode()
    if EVALUATION_NAME in contents:
        content = (card.parent / EVALUATION_NAME).read_bytes()
        if (public := _without_places(json.loads(content), repo_id)) != json.loads(content):
            contents[EVALUATION_NAME] = to_json(public).encode()
    return contents


def _without_places(content: Any, name: str) -> Any:
    """An evaluation that does not tell where the files of this machine lie."""
    if isinstance(content, list):
        return [_without_places(entry, name) for entry in content]
    if not isinstance(content, dict):
        return content
    return {key: _public(key, value, name) for key, value in content.items()}


def _public(key: str, value: Any, name: str) -> Any:
    if key == "command" and isinstance(value, str) and names_places(value):
        return portable(value, name)
    if key == "data" and isinstance(value, dict):
        return {split: _public_data(about) for split, about in value.items()}
    return _without_places(value, name)


def _public_data(about: Any) -> Any:
    """A split's entry with the name that its photos have where others read it."""
    if not isinstance(about, dict) or not isinstance(about.get("name"), str):
        return about
    return {**about, "name": public_photos(about["name"])}


def _compare(
    client: HfApi,
    contents: Mapping[str, Path | bytes],
    repo_id: str,
    private: bool,
    tag: str | None,
) -> Plan:
    try:
        info = client.model_info(repo_id, files_metadata=True)
    except RepositoryNotFoundError:
        files = [FileState(name, _size(content), "new") for name, content in contents.items()]
        return Plan(repo_id, tuple(files), None)
    if private and not info.private:
        raise HubError(
            f"{repo_id}: is public, and was to be private. Change that at "
            f"{client.endpoint}/{repo_id}/settings first, or leave --private out"
        )
    there = {
        file.rfilename: file.lfs.sha256 if file.lfs else file.blob_id
        for file in info.siblings or ()
    }
    files = [
        FileState(name, _size(content), _state(content, there.get(name)))
        for name, content in contents.items()
    ]
    files += [FileState(name, 0, "deleted") for name in sorted(KNOWN & there.keys() - contents)]
    found = Plan(repo_id, tuple(files), info.sha)
    return found if tag is None else _with_tag(client, found, tag)


def _with_tag(client: HfApi, found: Plan, tag: str) -> Plan:
    tags = {ref.name: ref.target_commit for ref in client.list_repo_refs(found.repo_id).tags}
    if tag in tags and (found.changes or tags[tag] != found.parent):
        raise HubError(
            f"{found.repo_id}: the tag {tag} is taken, by commit {tags[tag][:12]}. Choose another: "
            "published tags never move"
        )
    return Plan(found.repo_id, found.files, found.parent, tags.get(tag))


def _state(content: Path | bytes, there: str | None) -> State:
    if there is None:
        return "new"
    # 64 digits are the SHA-256 of a large file, 40 the git id of a small one.
    found = _sha256(content) if len(there) == 64 else _git_id(content)
    return "same" if found == there else "changed"


def _sha256(content: Path | bytes) -> str:
    return sha256_of(content) if isinstance(content, Path) else hashlib.sha256(content).hexdigest()


def _git_id(content: Path | bytes) -> str:
    data = content.read_bytes() if isinstance(content, Path) else content
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _size(content: Path | bytes) -> int:
    return content.stat().st_size if isinstance(content, Path) else len(content)


def _head(client: HfApi, repo_id: str) -> str:
    return str(client.model_info(repo_id).sha)


def _commit(
    client: HfApi,
    contents: Mapping[str, Path | bytes],
    repo_id: str,
    parent: str,
    message: str,
) -> str:
    """Commit the changes on top of ``parent``; safe to repeat when the answer was lost."""
    now = _compare(client, contents, repo_id, private=False, tag=None)
    if not now.changes:
        return str(now.parent)
    if now.parent != parent:
        raise HubError(
            f"{repo_id}: somebody else has committed ({str(now.parent)[:12]}). Look at it, then "
            "publish again; nothing was changed"
        )
    operations = [
        CommitOperationDelete(file.name)
        if file.state == "deleted"
        else CommitOperationAdd(file.name, contents[file.name])
        for file in now.changes
    ]
    return client.create_commit(
        repo_id, operations, commit_message=message, parent_commit=parent
    ).oid


def _tag(client: HfApi, repo_id: str, tag: str, commit: str) -> None:
    # exist_ok: an earlier attempt may have made the tag although its answer was lost.
    client.create_tag(repo_id, tag=tag, revision=commit, exist_ok=True)
