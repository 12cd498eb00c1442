"""What the organisation publishes on the Hub, described by each repository's small files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial

from clever_hub.config import CONFIG_NAME
from clever_hub.errors import CleverError, HubError, ModelFormatError
from clever_hub.hub import shipped
from clever_hub.hub.client import ORGANISATION, api, download, models_of, with_retries
from clever_hub.hub.evaluation import EVALUATION_NAME
from clever_hub.hub.shipped import ModelInfo, model_info
from clever_hub.weights import WEIGHTS_NAME

_LOG = logging.getLogger(__name__)


def list_models(remote: bool = False, *, token: str | bool | None = None) -> list[ModelInfo]:
    """The models that ship in the package; no weights are read, nothing is asked of the network.

    Args:
        remote: List what the organisation ``clever-hub`` publishes on the Hugging Face Hub
            instead.
        token: Access token for the Hub; None takes the one that is set.

    Returns:
        One entry for each, by name.

    Raises:
        ModelFormatError: When a shipped folder is damaged.
        HubError: When the Hub cannot be reached or refuses.

    Example:
        >>> [model.name for model in list_models()]  # doctest: +SKIP
        ['clever-resnet18']
    """
    if remote:
        return list_remote(token)
    return [model_info(shipped.ZOO / name) for name in shipped.model_names()]


def list_remote(token: str | bool | None = None) -> list[ModelInfo]:
    """The models that the organisation ``clever-hub`` publishes; no weights are downloaded.

    Args:
        token: Access token, for private ones; None takes the one that is set.

    Returns:
        One entry for each, by name, ``clever-hub/…``. Repositories that are no CLeVER models, and
        those whose files this user may not have, are left out with a warning.

    Raises:
        HubError: When the Hub cannot be reached or refuses.
    """
    return list(_described(models_of(ORGANISATION, token), token))


def _described(repo_ids: list[str], token: str | bool | None) -> Iterator[ModelInfo]:
    for repo_id in repo_ids:
        try:
            yield _describe(repo_id, token)
        except CleverError as error:
            if not (isinstance(error, ModelFormatError) or _is_gated(error)):
                raise
            _LOG.warning("left out of the list: %s", error)


def _is_gated(error: CleverError) -> bool:
    from huggingface_hub.errors import GatedRepoError

    return isinstance(error, HubError) and isinstance(error.__cause__, GatedRepoError)


def _describe(repo_id: str, token: str | bool | None) -> ModelInfo:
    snapshot = download(repo_id, [CONFIG_NAME], optional=[EVALUATION_NAME], token=token)
    ask = partial(api(token).get_paths_info, repo_id, [WEIGHTS_NAME], revision=snapshot.commit)
    sizes = [int(getattr(file, "size", 0)) for file in with_retries(ask, repo_id)]
    if not sizes:
        raise ModelFormatError(f"{repo_id}: the repository has no {WEIGHTS_NAME}")
    return model_info(snapshot.folder, name=repo_id, size_bytes=sizes[0])
