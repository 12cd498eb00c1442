"""From a name or a path to a model folder."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal, NamedTuple

from clever_hub import zoo
from clever_hub.config import CONFIG_NAME
from clever_hub.errors import ModelNotFoundError, suggest


class Source(NamedTuple):
    """Where a model came from.

    Attributes:
        kind: ``"folder"``, ``"zoo"`` (shipped in the package) or ``"hub"``.
        name: What the user asked for.
        path: The model folder on this machine.
        revision: The Hub's commit; None elsewhere.
        weights_sha256: Hash of the weights file that was loaded; None before it is.
    """

    kind: Literal["folder", "zoo", "hub"]
    name: str
    path: Path
    revision: str | None = None
    weights_sha256: str | None = None


def resolve(name_or_path: str | os.PathLike[str]) -> tuple[Path, Source]:
    """Find the folder of a model.

    A folder with a config.json comes first, then the models that ship in the package.

    Args:
        name_or_path: A model folder, or the name of a shipped model.

    Returns:
        The folder, and where it came from.

    Raises:
        ModelNotFoundError: When there is no such model; names the nearest.

    Example:
        >>> folder, source = resolve("clever-resnet18")  # doctest: +SKIP
        >>> source.kind  # doctest: +SKIP
        'zoo'
    """
    name = os.fspath(name_or_path)
    shipped = zoo.model_names()
    if not name:
        raise ModelNotFoundError("expected a name or a folder, got nothing")
    # Unlike pathlib's, this leaves "~nobody" as it is.
    folder = Path(os.path.expanduser(name))  # noqa: PTH111
    if (folder / CONFIG_NAME).is_file():
        return folder, Source("folder", name, folder)
    if name in shipped:
        return zoo.ZOO / name, Source("zoo", name, zoo.ZOO / name)
    # Found without its config: reading it says what is missing.
    if folder.is_dir():
        return folder, Source("folder", name, folder)
    if folder.exists():
        raise ModelNotFoundError(f"{name}: expected a model folder, got a file")
    raise ModelNotFoundError(f"{_what(name)}. {suggest(name, shipped)}".rstrip())


def _what(name: str) -> str:
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name):
        return (
            f"{name!r}: no such folder, and this version does not download from the Hugging Face "
            f"Hub. Download it first, `hf download {name} --local-dir FOLDER`, and give the folder"
        )
    if os.sep in name or name.startswith((".", "~")):
        return f"{name!r}: no such folder"
    return f"{name!r}: neither a folder nor a model that ships in clever-hub"
