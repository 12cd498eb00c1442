"""Objects on disk, by their hash: git blobs, LFS objects and the client's local Xet store."""

from __future__ import annotations

import hashlib
import secrets
import struct
import time
from dataclasses import dataclass
from pathlib import Path

_SHARD_HEADER = 48
_ENTRY = 48
_HAS_VERIFICATION = 1 << 31
_HAS_METADATA = 1 << 30
_END = b"\xff" * 32


@dataclass(frozen=True)
class Blob:
    """A file in a commit.

    Attributes:
        oid: Its git blob id; of an LFS file, that of the pointer.
        size: Its size in bytes.
        sha256: Of an LFS file, the hash of its content.
        pointer_size: Of an LFS file, the size of the pointer.
        xet: Of a file in the Xet store, its hash there.
    """

    oid: str
    size: int
    sha256: str | None = None
    pointer_size: int = 0
    xet: str | None = None


class MissingObjectError(Exception):
    """An object was named that nobody has uploaded."""


def git_blob_id(content: bytes) -> str:
    """The id that git gives to a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Store:
    """Everything that was uploaded.

    Attributes:
        xet_url: Where the client's hf_xet keeps its chunks: a folder instead of a CAS server.
    """

    def __init__(self, root: Path, xet: bool) -> None:
        self._root = root
        self._xet = xet
        self.xet_url = f"local://{root / 'cas'}"
        for folder in ("git", "lfs", "cas"):
            (root / folder).mkdir(parents=True)

    def put_small(self, content: bytes) -> Blob:
        """Keep a file that is in git itself."""
        oid = git_blob_id(content)
        self._write("git", oid, content)
        return Blob(oid, len(content))

    def put_large(self, sha256: str, content: bytes) -> None:
        """Keep an LFS object that was uploaded over HTTP."""
        self._write("lfs", sha256, content)

    def has_large(self, sha256: str) -> bool:
        """Whether an LFS object was uploaded over HTTP (or rebuilt from the Xet store)."""
        return (self._root / "lfs" / sha256).is_file()

    def large(self, sha256: str, size: int) -> Blob:
        """An LFS object as a file of a commit.

        Raises:
            MissingObjectError: When it is in neither store.
        """
        xet = self._xet_hash(sha256) if self._xet else None
        if xet is None and not self.has_large(sha256):
            raise MissingObjectError(sha256)
        pointer = (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
        ).encode()
        return Blob(git_blob_id(pointer), size, sha256, len(pointer), xet)

    def content(self, blob: Blob) -> bytes:
        """The bytes of a file."""
        if blob.sha256 is None:
            return (self._root / "git" / blob.oid).read_bytes()
        if not self.has_large(blob.sha256):
            self._rebuild(blob)
        return (self._root / "lfs" / blob.sha256).read_bytes()

    def _write(self, kind: str, name: str, content: bytes) -> None:
        path = self._root / kind / name
        temporary = path.with_name(f"{name}.{secrets.token_hex(4)}")
        temporary.write_bytes(content)
        temporary.replace(path)

    def _rebuild(self, blob: Blob) -> None:
        """Put a file together from the Xet store, for clients that ask for it over HTTP."""
        import hf_xet

        assert blob.sha256 is not None
        target = self._root / "lfs" / blob.sha256
        temporary = target.with_name(f"{target.name}.{secrets.token_hex(4)}")
        with hf_xet.XetSession().new_file_download_group(
            endpoint=self.xet_url, token="none", token_expiry_unix_secs=int(time.time()) + 3600
        ) as group:
            group.start_download_file(hf_xet.XetFileInfo(blob.xet, blob.size), str(temporary))
        temporary.replace(target)

    def _xet_hash(self, sha256: str) -> str | None:
        """Look a file up in the shards that the client wrote.

        A shard (https://huggingface.co/docs/xet/shard) begins with a header; then, for each file,
        an entry with its hash, flags and number of segments, the segments, their verification and,
        if it has metadata, the file's SHA-256.
        """
        for path in (self._root / "cas").glob("**/shards/*.mdb"):
            shard = path.read_bytes()
            offset = _SHARD_HEADER
            while shard[offset : offset + 32] != _END:
                file_hash = shard[offset : offset + 32]
                flags, segments = struct.unpack_from("<II", shard, offset + 32)
                verified = segments if flags & _HAS_VERIFICATION else 0
                offset += _ENTRY * (1 + segments + verified)
                if flags & _HAS_METADATA:
                    if _hex(shard[offset : offset + 32]) == sha256:
                        return _hex(file_hash)
                    offset += _ENTRY
        return None


def _hex(digest: bytes) -> str:
    """Xet writes hashes as four little-endian 64-bit numbers."""
    return "".join(f"{part:016x}" for part in struct.unpack("<4Q", digest))
