"""Hashes of all files of the shipped models, to refuse changed files.

``SHA256SUMS`` is beside the models, in the format of ``sha256sum``, which can check it too:
``cd clever_hub/zoo && sha256sum --check SHA256SUMS``.
"""

from __future__ import annotations

import re
from pathlib import Path

from clever_hub.errors import ModelFormatError
from clever_hub.files import write_text
from clever_hub.weights import WEIGHTS_NAME, sha256_of

PINS_NAME = "SHA256SUMS"
# Written by `clever-hub verify` on the user's machine; not shipped.
_UNPINNED = frozenset(("verify.json",))


def check_pins(folder: Path) -> str:
    """Compare the files of a shipped model, except the weights, with their pinned hashes.

    Args:
        folder: The model's folder, beside SHA256SUMS.

    Returns:
        The pinned hash of the weights. It is compared when the weights are loaded, so that the
        large file is read only once.

    Raises:
        ModelFormatError: When a file is missing or changed, or no hashes are pinned.
    """
    pins = read_pins(folder.parent).get(folder.name, {})
    if WEIGHTS_NAME not in pins:
        raise ModelFormatError(
            f"{folder.parent / PINS_NAME}: expected the hashes of {folder.name}, found none. "
            "Install clever-hub again; after shipping a model: python -m clever_export.zoo --pin"
        )
    for name, expected in pins.items():
        path = folder / name
        if not path.is_file():
            raise ModelFormatError(f"{path}: a shipped file is missing. Install clever-hub again")
        if name != WEIGHTS_NAME and (found := sha256_of(path)) != expected:
            raise ModelFormatError(changed(path, expected, found))
    return pins[WEIGHTS_NAME]


def changed(path: Path, expected: str, found: str) -> str:
    """The message for a shipped file that has changed."""
    return (
        f"{path}: expected SHA-256 {expected}, got {found}. The file is damaged or was changed. "
        "Install clever-hub again; to load a changed copy on purpose, give the path of its folder"
    )


def read_pins(root: Path) -> dict[str, dict[str, str]]:
    """The pinned hashes, model → file → hash; empty when there is no SHA256SUMS.

    Args:
        root: The folder with the models.

    Raises:
        ModelFormatError: When a line is malformed, or names a file outside the models' folders.
    """
    path = root / PINS_NAME
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    pins: dict[str, dict[str, str]] = {}
    for line in lines:
        parts = re.fullmatch(r"([0-9a-f]{64})  (\w[\w.-]*)/(\w[\w.-]*)", line)
        if parts is None:
            raise ModelFormatError(f"{path}: expected 'HASH  MODEL/FILE', got {line!r}")
        pins.setdefault(parts[2], {})[parts[3]] = parts[1]
    return pins


def write_pins(root: Path) -> Path:
    """Pin the current files; for maintainers, after a shipped file has changed.

    Args:
        root: The folder with the models.

    Returns:
        The path of SHA256SUMS.
    """
    files = sorted(path for path in root.glob("*/*") if path.is_file())
    lines = [
        f"{sha256_of(path)}  {path.parent.name}/{path.name}\n"
        for path in files
        if path.name not in _UNPINNED and not path.name.startswith(".")
    ]
    return write_text(root / PINS_NAME, "".join(lines))
