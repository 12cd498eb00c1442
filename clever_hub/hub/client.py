"""Model repositories on the Hugging Face Hub: what is needed of one, checked, in the shared cache.

``huggingface_hub`` does the transfer, the cache and the locks between processes. Two things are
added: it compares the size of what arrived but not its hash, so the hash is checked here; and it
tries some requests only once, so transient failures are tried again here.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from clever_hub import __version__
from clever_hub.config import CONFIG_NAME
from clever_hub.errors import CleverError, ModelFormatError
from clever_hub.weights import WEIGHTS_NAME, sha256_of

if TYPE_CHECKING:
    from huggingface_hub import HfApi

ORGANISATION = "clever-hub"
# How often something is tried, and after how many seconds not again.
ATTEMPTS = 4
PATIENCE = 30.0
# Seconds that the first answer may take; huggingface_hub has limits of its own for the rest.
TIMEOUT = 15.0

T = TypeVar("T")


class Snapshot(NamedTuple):
    """A model repository at one commit, in the cache.

    Attributes:
        folder: The folder with the files that were asked for (and those of earlier calls).
        commit: The commit's full id.
        weights_sha256: What the Hub says is the hash of the weights; None when the cache has no
            symbolic links, which carry it.
    """

    folder: Path
    commit: str
    weights_sha256: str | None


def repository_id(name: str) -> str | None:
    """The repository that a name means: ``user/name``, or a bare name of our organisation.

    Args:
        name: What the user gave.

    Returns:
        The id, or None when the name cannot be one.

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
    """Bring files of a model repository into the cache, all of one commit.

    Args:
        repo_id: ``user/name``.
        files: The names of the files, of which config.json is always one.
        optional: Files that are fetched where the repository has them. That it has not is
            remembered for each commit.
        revision: A branch, tag or commit; None is main.
        token: Access token; None takes HF_TOKEN or the one of ``hf auth login``.
        cache_dir: Where to; None is huggingface_hub's own cache.
        local_files_only: Take what the cache has and ask nobody. HF_HUB_OFFLINE=1 does the same.

    Returns:
        Where they are, and of which commit.

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
        # The client would go on for half a minute where there is no network; this fails at once.
        there = repository.with_retries(repository.names)
        if missing := sorted({CONFIG_NAME, *files} - there):
            raise _incomplete(repo_id, missing)
    found = repository.fetch(CONFIG_NAME, revision).parent
    # From here on by commit: the branch may move between two files.
    for name in files:
        if name not in (CONFIG_NAME, *optional):
            repository.fetch(name, found.name)
    for name in optional:
        repository.fetch_optional(name, found.name)
    return Snapshot(found, found.name, _weights_hash(found))


def with_retries(action: Callable[[], T], what: str) -> T:
    """Do something on the Hub, again after a transient failure.

    Args:
        action: What to do; must bear being done twice.
        what: The repository or place it is about, for the message.

    Returns:
        What ``action`` returns.

    Raises:
        CleverError: What went wrong for good, in words that say what to do.
    """
    return _Repository(what).with_retries(action)


@dataclass(frozen=True)
class _Repository:
    """A repository on the Hub, and how it is asked."""

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
        """The file in the cache, if it is there."""
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
        """Bring a file into the cache, whole and undamaged."""
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
        # Weights from an earlier call are hashed by whoever loads them: once is enough.
        checked = path == before and name == WEIGHTS_NAME
        if not checked and (problem := _damage(path)):
            _remove(path)
            raise DamagedFileError(f"{name}: {problem}")
        return path


def api(token: str | bool | None) -> HfApi:
    """The client, saying who we are."""
    from huggingface_hub import HfApi

    return HfApi(token=token, library_name="clever-hub", library_version=__version__)


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
    """The hash by which the Hub knows a file; it is the name of the blob that the link leads to."""
    try:
        return path.readlink().name
    except OSError:  # a cache without symbolic links: Windows, some network drives
        return None


def _damage(path: Path) -> str | None:
    """What is wrong with a file of the cache; None when nothing is, or nothing can be known."""
    expected = _expected_hash(path)
    if expected is None or not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", expected):
        return None
    if len(expected) == 64:
        found = sha256_of(path)
    else:
        content = path.read_bytes()
        # git's name for the content, no matter of security: the Hub gives no other for small files.
        header = b"blob %d\0" % len(content)
        found = hashlib.sha1(header + content, usedforsecurity=False).hexdigest()
    return None if found == expected else f"the Hub says its hash is {expected}, it is {found}"


def _remove(path: Path) -> None:
    """Remove a file from the cache, so that no later call, however offline, can load it."""
    blob = path.parent / path.readlink()
    for link in (blob.resolve(), blob, path):
        link.unlink(missing_ok=True)


def _weights_hash(folder: Path) -> str | None:
    name = _expected_hash(folder / WEIGHTS_NAME)
    return name if name and re.fullmatch(r"[0-9a-f]{64}", name) else None
