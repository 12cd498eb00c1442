"""Download files of model repositories on the Hugging Face Hub, checked, into the shared cache.

``huggingface_hub`` does the transfer, the cache and the locks between processes. This module adds
two things. It checks the hash of every file, where the client compares only sizes; and it retries
transient failures of requests that the client sends only once.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urlencode

from clever_hub import __version__
from clever_hub.config import CONFIG_NAME
from clever_hub.errors import CleverError, ModelFormatError
from clever_hub.weights import WEIGHTS_NAME, sha256_of

if TYPE_CHECKING:
    from huggingface_hub import HfApi

ORGANISATION = "clever-hub"
# Attempts in all, and the seconds after which there is no further one.
ATTEMPTS = 4
PATIENCE = 30.0
# Timeout of the first request in seconds; huggingface_hub has its own for the others.
TIMEOUT = 15.0

T = TypeVar("T")


class Snapshot(NamedTuple):
    """A model repository at one commit, in the cache.

    Attributes:
        folder: The folder with the files of this call and of earlier ones.
        commit: The commit's full id.
        weights_sha256: The hash of the weights according to the Hub; None when the cache has no
            symbolic links, whose targets are named by it.
    """

    folder: Path
    commit: str
    weights_sha256: str | None


def repository_id(name: str) -> str | None:
    """The repository that a name refers to: ``user/name``, or a bare name in our organisation.

    Args:
        name: A name given by the user.

    Returns:
        The id; None when the name is not valid.

    Example:
        >>> repository_id("clever-resnet50"), repository_id("./clever-resnet50")
        ('clever-hub/clever-resnet50', None)
    """
    word = r"[A-Za-z0-9_][\w.-]{0,95}"
    if ".." in name or "--" in name or not re.fullmatch(rf"({word}/)?{word}", name, re.ASCII):
        return None
    return name if "/" in name else f"{ORGANISATION}/{name}"


def download(
    repo_id: str,
    files: Sequence[str],
    *,
    optional: Sequence[str] = (),
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Snapshot:
    """Download files of a model repository into the cache, all from one commit.

    Args:
        repo_id: ``user/name``.
        files: Names of the files; config.json is always downloaded.
        optional: Files that are downloaded where the repository has them. The cache remembers for
            each commit which ones are missing.
        revision: A branch, tag or commit; None is main.
        token: Access token; None takes HF_TOKEN or the one of ``hf auth login``.
        cache_dir: The cache folder; None is huggingface_hub's own cache.
        local_files_only: Use only the cache and send no request. HF_HUB_OFFLINE=1 does the same.

    Returns:
        Their folder and commit.

    Raises:
        ModelNotFoundError: When there is no such repository or revision, or, offline, no copy.
        ModelFormatError: When the repository lacks one of the files.
        HubError: When the Hub cannot be reached or refuses, or the cache cannot be written to.

    Example:
        >>> download("user/clever-resnet18", ["config.json"], revision="v1.0")  # doctest: +SKIP
    """
    from huggingface_hub import constants

    offline = local_files_only or bool(constants.HF_HUB_OFFLINE)
    folder = None if cache_dir is None else Path(cache_dir).expanduser()
    repository = _Repository(repo_id, revision, token, folder, offline)
    if not offline and repository.cached(CONFIG_NAME, revision) is None:
        # Without a network the client would retry for half a minute; this request fails at once.
        there = repository.with_retries(repository.names)
        if missing := sorted({CONFIG_NAME, *files} - there):
            raise _incomplete(repo_id, missing)
    found = repository.fetch(CONFIG_NAME, revision).parent
    # From here on by commit, because the branch may move between two files.
    for name in files:
        if name not in (CONFIG_NAME, *optional):
            repository.fetch(name, found.name)
    for name in optional:
        repository.fetch_optional(name, found.name)
    return Snapshot(found, found.name, _weights_hash(found))


def with_retries(action: Callable[[], T], what: str) -> T:
    """Call a function that uses the Hub, and call it again after a transient failure.

    Args:
        action: The function; it must be safe to call twice.
        what: The repository that it is about, for the message.

    Returns:
        What ``action`` returns.

    Raises:
        CleverError: When it fails for another reason, or fails too often.
    """
    return _Repository(what).with_retries(action)


@dataclass(frozen=True)
class _Repository:
    """A repository on the Hub, with the options of its requests."""

    repo_id: str
    revision: str | None = None
    token: str | bool | None = None
    cache_dir: Path | None = None
    offline: bool = False

    def with_retries(self, action: Callable[[], T]) -> T:
        from clever_hub.hub.errors import EXPECTED, is_transient, translate, waiting_time

        begun = time.monotonic()
        for attempt in range(ATTEMPTS):
            try:
                return action()
            except EXPECTED as error:
                last = attempt + 1 == ATTEMPTS or time.monotonic() - begun > PATIENCE
                if last or not is_transient(error):
                    raise translate(error, self.repo_id, self.revision, self.cache_dir) from error
                time.sleep(waiting_time(error, attempt))
        raise AssertionError("the last attempt returns or raises")

    def names(self) -> set[str]:
        """The names of the repository's files."""
        info = api(self.token).model_info(self.repo_id, revision=self.revision, timeout=TIMEOUT)
        return {file.rfilename for file in info.siblings or ()}

    def cached(self, name: str, revision: str | None) -> Path | None:
        """The file in the cache; None when it is not there."""
        found = self._look_up(name, revision)
        return Path(found) if isinstance(found, str) else None

    def known_absent(self, name: str, revision: str | None) -> bool:
        """Whether the Hub has said that there is no such file."""
        found = self._look_up(name, revision)
        return found is not None and not isinstance(found, str)

    def _look_up(self, name: str, revision: str | None) -> object:
        from huggingface_hub import try_to_load_from_cache

        return try_to_load_from_cache(
            self.repo_id, name, cache_dir=self.cache_dir, revision=revision
        )

    def fetch(self, name: str, revision: str | None) -> Path:
        """Download a file into the cache and check it."""
        try:
            return self.with_retries(partial(self._fetch, name, revision))
        except CleverError as error:
            if _repository_lacks_file(error):
                raise _incomplete(self.repo_id, [name]) from error.__cause__
            raise

    def fetch_optional(self, name: str, revision: str | None) -> Path | None:
        """As ``fetch``; None where the repository has no such file or, offline, the cache."""
        if self.known_absent(name, revision):
            return None
        try:
            return self.with_retries(partial(self._fetch, name, revision))
        except CleverError as error:
            if _repository_lacks_file(error) or (self.offline and _cache_lacks_file(error)):
                return None
            raise

    def _fetch(self, name: str, revision: str | None) -> Path:
        from huggingface_hub import hf_hub_download

        from clever_hub.hub.errors import DamagedFileError

        before = self.cached(name, revision)
        path = Path(
            hf_hub_download(
                self.repo_id,
                name,
                revision=revision,
                token=self.token,
                cache_dir=self.cache_dir,
                local_files_only=self.offline,
                library_name="clever-hub",
                library_version=__version__,
            )
        )
        # Weights of an earlier call are hashed when they are loaded, so not here as well.
        checked = path == before and name == WEIGHTS_NAME
        if not checked and (problem := _damage(path)):
            _remove(path)
            raise DamagedFileError(f"{name}: {problem}")
        return path


def api(token: str | bool | None) -> HfApi:
    """The client, with the name and version of this library in its user agent."""
    from huggingface_hub import HfApi

    return HfApi(token=token, library_name="clever-hub", library_version=__version__)


def models_of(author: str, token: str | bool | None) -> list[str]:
    """The ids of a user's or an organisation's model repositories, sorted.

    ``HfApi.list_models`` would try every request six times, and log each: half a minute of lines
    where there is no network.

    Args:
        author: Who publishes them.
        token: Access token, for private ones; None takes the one that is set.

    Raises:
        CleverError: When the Hub cannot be reached or refuses.
    """
    from huggingface_hub import get_session

    # As a module: it is public, but its names are not typed so.
    utils: Any = import_module("huggingface_hub.utils")
    headers = utils.build_hf_headers(
        token=token, library_name="clever-hub", library_version=__version__
    )

    def page(url: str) -> Any:
        response: Any = get_session().get(url, headers=headers, timeout=TIMEOUT)
        utils.hf_raise_for_status(response)
        return response

    found: list[str] = []
    url: str | None = f"{api(token).endpoint}/api/models?{urlencode({'author': author})}"
    while url:
        answer = with_retries(partial(page, url), author)
        found += [str(entry["id"]) for entry in answer.json()]
        url = answer.links.get("next", {}).get("url")
    return sorted(found)


def _incomplete(repo_id: str, missing: list[str]) -> ModelFormatError:
    if CONFIG_NAME in missing or WEIGHTS_NAME in missing:
        hint = "It is not a CLeVER model, or not at this revision"
    else:
        hint = 'Load it with backend="torch"'
    return ModelFormatError(f"{repo_id}: the repository has no {', '.join(missing)}. {hint}")


def _repository_lacks_file(error: CleverError) -> bool:
    """Whether the Hub has answered that there is no such file."""
    from huggingface_hub.errors import EntryNotFoundError

    return isinstance(error.__cause__, EntryNotFoundError) and not _cache_lacks_file(error)


def _cache_lacks_file(error: CleverError) -> bool:
    """Whether a file is not in the cache and the Hub could not be asked."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    return isinstance(error.__cause__, LocalEntryNotFoundError)


def _expected_hash(path: Path) -> str | None:
    """The hash of a file according to the Hub: the name of the blob that the link points to."""
    try:
        return path.readlink().name
    except OSError:  # a cache without symbolic links: Windows, some network drives
        return None


def _damage(path: Path) -> str | None:
    """What is wrong with a file in the cache; None when it is right or has no known hash."""
    expected = _expected_hash(path)
    if expected is None or not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", expected):
        return None
    if len(expected) == 64:
        found = sha256_of(path)
    else:
        content = path.read_bytes()
        # The git object id; the Hub has no other hash for small files. Not used for security.
        header = b"blob %d\0" % len(content)
        found = hashlib.sha1(header + content, usedforsecurity=False).hexdigest()
    return None if found == expected else f"the Hub says its hash is {expected}, it is {found}"


def _remove(path: Path) -> None:
    """Remove a file from the cache, so that no later call loads it, not even offline."""
    blob = path.parent / path.readlink()
    for link in (blob.resolve(), blob, path):
        link.unlink(missing_ok=True)


def _weights_hash(folder: Path) -> str | None:
    name = _expected_hash(folder / WEIGHTS_NAME)
    return name if name and re.fullmatch(r"[0-9a-f]{64}", name) else None
