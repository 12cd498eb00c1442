"""YAML with numbers such as 1e-2."""

from __future__ import annotations

import re
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """Reads 1e-2 as a number; YAML 1.1 requires a point and a sign, and reads it as text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)


def read_yaml(text: str) -> Any:
    """The content of a YAML document; only plain types are allowed.

    Args:
        text: The document.

    Returns:
        Its content.

    Raises:
        yaml.YAMLError: When it is not valid YAML.

    Example:
        >>> read_yaml("{lr: 1e-2, name: 1e-run}")
        {'lr': 0.01, 'name': '1e-run'}
    """
    return yaml.load(text, _Loader)  # noqa: S506 -- a SafeLoader
