"""Data sets on the Hugging Face Hub, for names that are nothing on this machine.

Needs ``datasets``, the extra ``train``.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import datasets
from huggingface_hub import constants

from clever_hub.errors import CleverError, DataError
from clever_hub.hub.client import TIMEOUT, api, with_retries


def load_from_hub(name: str, **options: Any) -> Any:
    """Load a data set by its id.

    The Hub is asked once whether it has it, so that a misspelt path fails at once; what is in the
    cache loads without it.

    Args:
        name: Such as ``user/photos``.
        **options: Passed on to ``datasets.load_dataset``.

    Returns:
        What ``datasets.load_dataset`` gives.

    Raises:
        DataError: When the name is no id, or there is no such data set.
    """
    word = r"[A-Za-z0-9_][\w.-]{0,95}"
    if not re.fullmatch(f"{word}/{word}", name, re.ASCII):
        raise DataError(
            f"{name}: no such file or folder. A data set on the Hugging Face Hub is named user/name"
        )
    if not (constants.HF_HUB_OFFLINE or _is_cached(name)):
        try:
            with_retries(partial(api(None).dataset_info, name, timeout=TIMEOUT), name)
        except CleverError as error:
            raise DataError(f"{name}: no such file or folder here, and {error}") from error
    return datasets.load_dataset(name, **options)


def _is_cached(name: str) -> bool:
    folder = datasets.config.HF_DATASETS_CACHE / name.replace("/", "___")
    return bool(folder.is_dir() and any(folder.iterdir()))
