"""Backbones of this package that timm does not have, and the code that a model folder carries.

Nothing heavy is imported before such a backbone is asked for.
"""

from __future__ import annotations

from importlib import import_module
from importlib.resources import files

# By the name in timm, the modules of ``clever_hub.backends``; the first one registers it.
OWN_BACKBONES = {"vmamba_tiny": ("vmamba", "vmamba_blocks", "selective_scan")}
REMOTE_CODE = ("configuration_clever.py", "modeling_clever.py", "image_processing_clever.py")
# What an Inference Endpoint of Hugging Face runs, and what it installs for it.
ENDPOINT_CODE = ("handler.py", "requirements.txt")
_REQUIREMENTS = "timm>=1.0.21\ntransformers>=5.10\n"
_BEFORE = "from .configuration_clever import CleverConfig\n"


def register(architecture: str) -> None:
    """Let timm know a backbone, where it is one of this package's own.

    Args:
        architecture: A name in timm, or of a backbone of ours; with a tag or without.

    Example:
        >>> import timm
        >>> register("vmamba_tiny")
        >>> timm.is_model("vmamba_tiny")
        True
    """
    if modules := OWN_BACKBONES.get(architecture.partition(".")[0]):
        import_module(f"clever_hub.backends.{modules[0]}")


def remote_code(architecture: str) -> dict[str, str]:
    """The files with which transformers reads a model folder without this package.

    Args:
        architecture: The backbone's name.

    Returns:
        Contents by file name. Of a backbone of ours its modules too, and an import of the first in
        ``modeling_clever.py``, by which transformers finds them.

    Example:
        >>> sorted(remote_code("resnet18"))
        ['configuration_clever.py', 'image_processing_clever.py', 'modeling_clever.py']
    """
    # Not through the package clever_hub.transformers: importing it needs transformers.
    package = files("clever_hub")
    code = {
        name: (package / "transformers" / name).read_text(encoding="utf-8") for name in REMOTE_CODE
    }
    if modules := OWN_BACKBONES.get(architecture):
        for module in modules:
            name = f"{module}.py"
            code[name] = (package / "backends" / name).read_text(encoding="utf-8")
        line = f"from .{modules[0]} import {architecture}  # noqa: F401 -- registers it\n"
        assert code["modeling_clever.py"].count(_BEFORE) == 1
        code["modeling_clever.py"] = code["modeling_clever.py"].replace(_BEFORE, _BEFORE + line)
    return code


def endpoint_code() -> dict[str, str]:
    """The files with which an Inference Endpoint answers requests from a model folder alone.

    Returns:
        Contents by file name.

    Example:
        >>> sorted(endpoint_code())
        ['handler.py', 'requirements.txt']
    """
    handler, requirements = ENDPOINT_CODE
    code = (files("clever_hub") / "transformers" / handler).read_text(encoding="utf-8")
    return {handler: code, requirements: _REQUIREMENTS}
