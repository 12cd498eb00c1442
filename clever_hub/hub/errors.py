"""Errors of the Hub and its cache, translated into messages that say what to do.

Imported only after something has failed: it needs ``huggingface_hub``.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from clever_hub.errors import CleverError, HubError, ModelFormatError, ModelNotFoundError

_TRANSIENT_STATUS = frozenset((408, 429, 500, 502, 503, 504))
_DISK_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_NOT_WRITABLE = frozenset((errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR))
# The base class of every network error, of httpx or httpx2: whichever the installed client uses.
_NetworkError: type[Exception] = HfHubHTTPError.__mro__[1]
_LONGEST_WAIT = 30.0


class DamagedFileError(Exception):
    """A file whose hash is not the one that the Hub names; it has been removed from the cache."""


# Everything that the client and the Xet store raise, apart from bugs.
EXPECTED = (OSError, ValueError, RuntimeError, EntryNotFoundError, DamagedFileError, _NetworkError)


def is_transient(error: Exception) -> bool:
    """Whether trying again may help.

    Args:
        error: Raised by ``huggingface_hub``.

    Returns:
        False also where the client itself has already tried again.
    """
    error = _unwrapped(error)
    if isinstance(error, DamagedFileError):
        return True
    if isinstance(error, HfHubHTTPError):
        return _status(error) in _TRANSIENT_STATUS
    if isinstance(error, _NetworkError):
        return type(error).__name__ != "ConnectError"  # no server: fail at once
    # A file of the wrong size raises a bare OSError, the Xet store a RuntimeError.
    return (type(error) is OSError and error.errno is None) or type(error) is RuntimeError


def waiting_time(error: Exception, attempt: int) -> float:
    """How long to wait before trying again, in seconds.

    Args:
        error: Raised by the last attempt.
        attempt: Number of the last attempt, from 0.

    Returns:
        What the Hub asks for, at most half a minute; else 1, 2, 4 …
    """
    error = _unwrapped(error)
    if isinstance(error, HfHubHTTPError):
        asked = error.response.headers.get("Retry-After", "")
        if asked.isdigit():
            return min(float(asked), _LONGEST_WAIT)
    return min(2.0**attempt, _LONGEST_WAIT)


def translate(
    error: Exception,
    repo_id: str,
    revision: str | None,
    cache_dir: str | os.PathLike[str] | None,
) -> Exception:
    """Turn an exception of ``huggingface_hub`` into one of our errors.

    Args:
        error: One of ``EXPECTED``.
        repo_id: The repository that was asked for.
        revision: The revision that was asked for.
        cache_dir: The cache that was asked for.

    Returns:
        The error to raise; the same one when it is not about the Hub or the cache.
    """
    error = _unwrapped(error)
    if isinstance(error, (EntryNotFoundError, HfHubHTTPError)):
        return _answered(error, repo_id, revision)
    if isinstance(error, HFValidationError):
        return ModelNotFoundError(f"{repo_id!r} is not the name of a repository: {error}")
    if isinstance(error, (_NetworkError, OfflineModeIsEnabled)):
        return _unreachable(error, repo_id)
    if isinstance(error, (OSError, RuntimeError, DamagedFileError)):
        return _local(error, repo_id, cache_dir)
    return error


def why_not_asked(error: BaseException | None) -> str:
    """Why the Hub could not be asked, in words; empty where it was.

    Args:
        error: Raised by ``huggingface_hub``.
    """
    error = _unwrapped(error) if isinstance(error, Exception) else error
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set. Unset it"
    if isinstance(error, _NetworkError) and not isinstance(error, HfHubHTTPError):
        return f"cannot reach {constants.ENDPOINT} ({_first_line(error)}). Check the network"
    return ""


def _unwrapped(error: Exception) -> Exception:
    """The Hub's own error, where the client has wrapped it in "Error while uploading"."""
    cause = error.__cause__
    wrapped = type(error) is RuntimeError and isinstance(cause, (HfHubHTTPError, _NetworkError))
    return cause if wrapped and isinstance(cause, Exception) else error


def _answered(error: Exception, repo_id: str, revision: str | None) -> CleverError:
    """The Hub refused, or the client did not ask it."""
    if isinstance(error, GatedRepoError):
        return HubError(
            f"{repo_id}: a gated repository. Ask for access at {constants.ENDPOINT}/{repo_id}, "
            "then give an access token: token=…, HF_TOKEN, or `hf auth login`"
        )
    if isinstance(error, RepositoryNotFoundError):
        return ModelNotFoundError(
            f"{repo_id}: no such repository on the Hugging Face Hub, or a private one. For a "
            "private one give an access token: token=…, HF_TOKEN, or `hf auth login`"
        )
    if isinstance(error, RevisionNotFoundError):
        short = re.fullmatch(r"[0-9a-f]{4,39}", revision or "")
        whole = "A commit is given with all its 40 digits. " if short else ""
        return ModelNotFoundError(
            f"{repo_id}: has no revision {revision!r}. {whole}Branches and tags are listed at "
            f"{constants.ENDPOINT}/{repo_id}/tree/main"
        )
    if isinstance(error, LocalEntryNotFoundError):
        return _not_here(error, repo_id, revision)
    if isinstance(error, EntryNotFoundError):
        return ModelFormatError(f"{repo_id}: a file is missing: {_first_line(error)}")
    assert isinstance(error, HfHubHTTPError)
    return _refused(error, repo_id)


def _not_here(error: LocalEntryNotFoundError, repo_id: str, revision: str | None) -> CleverError:
    """Not in the cache, and the Hub was not asked or did not answer."""
    cause: object = error.__cause__
    if isinstance(cause, HfHubHTTPError):
        return _refused(cause, repo_id)
    if isinstance(cause, _NetworkError):
        return _unreachable(cause, repo_id)
    at = f" at {revision}" if revision else ""
    return ModelNotFoundError(
        f"{repo_id}: not all that is needed is in the cache{at}, and the Hub is not asked "
        "(local_files_only, or HF_HUB_OFFLINE is set). Load it once with a network, or give a "
        "model folder"
    )


def _refused(error: HfHubHTTPError, repo_id: str) -> CleverError:
    status = _status(error)
    said = error.response.headers.get("X-Error-Message", "").rstrip(" .") or _first_line(error)
    if status == 401:
        what = (
            f"{said}. The access token is missing, wrong or has expired: `hf auth login`, or "
            "set HF_TOKEN"
        )
    elif status == 403:
        what = (
            f"{said}. The access token does not allow this; to publish, it needs the right to "
            f"write: {constants.ENDPOINT}/settings/tokens"
        )
    elif status == 412:
        what = f"{said}. Somebody else has committed; look at it, then try again"
    elif status == 429:
        what = "too many requests. Wait some minutes; with an access token the limit is higher"
    elif status >= 500:
        what = (
            "the Hub has a problem of its own. Try again later; see https://status.huggingface.co"
        )
    else:
        what = said
    return HubError(f"{repo_id}: the Hub answered {status}: {what}")


def _unreachable(error: BaseException, repo_id: str) -> CleverError:
    if isinstance(error, OfflineModeIsEnabled):
        return HubError(f"{repo_id}: this needs the Hub, and HF_HUB_OFFLINE is set. Unset it")
    return HubError(
        f"{repo_id}: cannot reach {constants.ENDPOINT} ({_first_line(error)}). Check the network; "
        "a model that was loaded before also loads without, and a model folder always does"
    )


def _error_number(error: Exception) -> int | None:
    """The errno of an error; the Xet store gives it as text: (os error 28)."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = re.search(r"os error (\d+)", str(error))
    return int(found[1]) if found else None


def _local(error: Exception, repo_id: str, cache_dir: str | os.PathLike[str] | None) -> CleverError:
    """The file could not be written to the cache, or was damaged on its way."""
    cache = Path(cache_dir or constants.HF_HUB_CACHE)
    other = "or give another folder: cache_dir=…, or HF_HOME"
    number = _error_number(error)
    if isinstance(error, DamagedFileError):
        what = (
            f"what arrived is damaged. {error}. It was removed from the cache; a proxy or a full "
            "disk may be why. Try again"
        )
    elif number is None:
        what = (
            f"the transfer failed: {_first_line(error)}. No partial file was kept. Try again; "
            "HF_HUB_DISABLE_XET=1 takes plain HTTP"
        )
    elif number in _DISK_FULL:
        what = f"no space left in the cache {cache}. Make room, {other}"
    elif number in _NOT_WRITABLE:
        what = f"the cache {cache} cannot be written to ({os.strerror(number)}). Allow it, {other}"
    else:
        what = f"the cache {cache} cannot be used: {_first_line(error)}"
    return HubError(f"{repo_id}: {what}")


def _status(error: HfHubHTTPError) -> int:
    return int(error.response.status_code)


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip().rstrip(".") if lines else type(error).__name__
