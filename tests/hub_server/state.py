"""What the server remembers: users, repositories, commits, branches and tags."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tests.hub_server.store import Blob, Store

LFS_ENDINGS = (".safetensors", ".onnx", ".bin", ".png")


def now() -> str:
    """The time, as the Hub writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


@dataclass(frozen=True)
class User:
    """Who a token belongs to.

    Attributes:
        name: The user's name, also a namespace.
        organisations: Namespaces the user may also write to.
        role: What the token may do: ``"write"`` or ``"read"``.
    """

    name: str
    organisations: tuple[str, ...] = ()
    role: str = "write"

    def owns(self, namespace: str) -> bool:
        """Whether repositories of this namespace are the user's."""
        return namespace == self.name or namespace in self.organisations


@dataclass(frozen=True)
class Commit:
    """A state of a repository."""

    oid: str
    parent: str | None
    title: str
    author: str
    files: Mapping[str, Blob]
    date: str = field(default_factory=now)


@dataclass
class Repository:
    """A model repository."""

    id: str
    private: bool = False
    gated: bool = False
    granted: set[str] = field(default_factory=set)
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    created: str = field(default_factory=now)

    @property
    def owner(self) -> str:
        """The namespace."""
        return self.id.partition("/")[0]

    @property
    def head(self) -> Commit:
        """The newest commit of main."""
        return self.commits[self.branches["main"]]

    def find(self, revision: str) -> Commit | None:
        """The commit that a branch, a tag or a commit id names."""
        refs = {
            **self.branches,
            **self.tags,
            **{f"refs/heads/{name}": oid for name, oid in self.branches.items()},
            **{f"refs/tags/{name}": oid for name, oid in self.tags.items()},
        }
        return self.commits.get(refs.get(revision, revision))

    def commit(self, title: str, author: str, files: Mapping[str, Blob]) -> Commit:
        """Add a commit to main."""
        parent = self.branches.get("main")
        seed = f"{self.id} {parent} {title} {secrets.token_hex(8)}"
        oid = hashlib.sha1(seed.encode()).hexdigest()
        self.commits[oid] = Commit(oid, parent, title, author, dict(files))
        self.branches["main"] = oid
        return self.commits[oid]


class Hub:
    """The server's state; hold ``lock`` while changing it.

    Attributes:
        users: By access token.
        repositories: By ``owner/name``.
        store: What was uploaded.
        lock: Requests are answered in threads.
    """

    def __init__(self, root: Path, users: Mapping[str, User], xet: bool = True) -> None:
        self.users = dict(users)
        self.repositories: dict[str, Repository] = {}
        self.store = Store(root, xet)
        self.lock = threading.RLock()
        self._key = secrets.token_bytes(16)

    def create(self, repo_id: str, author: str, private: bool = False) -> Repository:
        """Make a repository, with the first commit that the Hub gives it."""
        repository = Repository(repo_id, private=private)
        attributes = "".join(f"*{end} filter=lfs diff=lfs merge=lfs -text\n" for end in LFS_ENDINGS)
        blob = self.store.put_small(attributes.encode())
        repository.commit("initial commit", author, {".gitattributes": blob})
        self.repositories[repo_id] = repository
        return repository

    def add_files(self, repo_id: str, files: Mapping[str, bytes], title: str = "add") -> Commit:
        """Commit files behind the protocol's back, as somebody else would."""
        with self.lock:
            repository = self.repositories.get(repo_id) or self.create(repo_id, "somebody")
            blobs = dict(repository.head.files)
            for name, content in files.items():
                if name.endswith(LFS_ENDINGS):
                    digest = hashlib.sha256(content).hexdigest()
                    self.store.put_large(digest, content)
                    blobs[name] = self.store.large(digest, len(content))
                else:
                    blobs[name] = self.store.put_small(content)
            return repository.commit(title, "somebody", blobs)

    def sign(self, what: str) -> str:
        """A signature for links that need no token."""
        return hmac.new(self._key, what.encode(), "sha256").hexdigest()[:32]
