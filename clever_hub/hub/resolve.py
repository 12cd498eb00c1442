"""Find the folder of a model by its name or path."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from clever_hub.config import CONFIG_NAME
from clever_hub.errors import CleverError, HubError, ModelNotFoundError, suggest
from clever_hub.hub import shipped
from clever_hub.hub.client import download, repository_id
from clever_hub.hub.evaluation import EVALUATION_NAME
from clever_hub.hub.pins import check_pins
from clever_hub.hub.source import Source
from clever_hub.weights import WEIGHTS_NAME


def resolve(
    name_or_path: str | os.PathLike[str],
    *,
    files: Sequence[str] = (CONFIG_NAME, WEIGHTS_NAME),
    optional: Sequence[str] = (EVALUATION_NAME,),
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> tuple[Path, Source]:
    """Find the folder of a model.

    Folders with a config.json come first, then the models that ship in the package, then the
    Hugging Face Hub.

    Args:
        name_or_path: A model folder, the name of a shipped model, or a repository on the Hub:
            ``user/name``, or a bare name of the organisation ``clever-hub``.
        files: The files to download from a repository on the Hub.
        optional: Files to download where the repository has them.
        revision: As for ``from_pretrained``, like the rest.
        token: Access token for the Hub.
        cache_dir: Folder for downloads.
        local_files_only: Send no request.

    Returns:
        The folder and its source.

    Raises:
        ModelNotFoundError: When there is no such model; suggests similar names.
        ModelFormatError: When a shipped model was changed, or a repository is incomplete.
        HubError: When the Hub cannot be reached or refuses, or the cache cannot be used.

    Example:
        >>> folder, source = resolve("clever-resnet18")  # doctest: +SKIP
        >>> source.kind  # doctest: +SKIP
        'zoo'
    """
    name = os.fspath(name_or_path)
    found = _on_this_machine(name)
    if found is not None:
        if revision is not None:
            what = "a shipped model" if found.kind == "zoo" else "a folder"
            raise ModelNotFoundError(
                f"{name}: {what} has no revisions, got revision={revision!r}. Leave it out"
            )
        return found.path, found
    repo_id = repository_id(name)
    if repo_id is None or isinstance(name_or_path, os.PathLike):
        raise ModelNotFoundError(f"{name!r}: no such folder")
    try:
        snapshot = download(
            repo_id,
            files,
            optional=optional,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
    except CleverError as error:
        if "/" not in name:
            raise type(error)(_bare_name(name, error)) from error
        if isinstance(error, (ModelNotFoundError, HubError)):
            # A path that does not exist looks like a repository, too: said first.
            raise type(error)(f"{name!r}: no such folder here, and {error}") from error
        raise
    return snapshot.folder, Source("hub", repo_id, *snapshot)


def _on_this_machine(name: str) -> Source | None:
    if not name:
        raise ModelNotFoundError("expected a name or a folder, got nothing")
    try:
        return _look_up(name)
    except OSError as error:
        raise ModelNotFoundError(f"{name}: {error.strerror or error}") from error


def _look_up(name: str) -> Source | None:
    # Unlike pathlib's, this leaves the home of an unknown user, "~unknown", unchanged.
    folder = Path(os.path.expanduser(name))  # noqa: PTH111
    if (folder / CONFIG_NAME).is_file():
        return Source("folder", name, folder)
    if name in shipped.model_names():
        packaged = shipped.ZOO / name
        return Source("zoo", name, packaged, None, check_pins(packaged))
    # A folder without config.json is returned too: loading it says what is missing.
    if folder.is_dir():
        return Source("folder", name, folder)
    if folder.exists():
        raise ModelNotFoundError(f"{name}: expected a model folder, got a file")
    return None


def _bare_name(name: str, error: CleverError) -> str:
    """The message for a bare name: it is more likely misspelt than a repository."""
    hint = suggest(name, shipped.model_names())
    return f"{name!r}: neither a folder nor a model that ships in clever-hub. {hint} {error}"
