"""`import clever_hub` is light, wherever it is used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import clever_hub

HEAVY = ("torch", "transformers", "timm", "onnxruntime", "datasets", "huggingface_hub")
NOT_AT_ONCE = (*HEAVY, "numpy", "PIL", "rich", "typer", "pyarrow", "safetensors")


def loaded_by(statement: str, path: Path | None = None) -> set[str]:
    """The top-level modules that a fresh interpreter has after a statement."""
    environment = os.environ | ({"PYTHONPATH": str(path)} if path else {})
    code = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return set(done.stdout.split())


def test_import_loads_nothing_heavy() -> None:
    # Not even numpy or Pillow, so that it costs less than `import numpy, PIL.Image`.
    assert not loaded_by("import clever_hub") & set(NOT_AT_ONCE)


@pytest.mark.parametrize("name", NOT_AT_ONCE)
def test_the_check_notices_a_heavy_import(name: str, tmp_path: Path) -> None:
    # Stand-ins for the real ones, which take seconds.
    (tmp_path / f"{name}.py").touch()
    (tmp_path / "careless.py").write_text(f"import clever_hub, {name}")
    assert loaded_by("import careless", path=tmp_path) & set(NOT_AT_ONCE) == {name}


def test_everything_but_the_backend_works_without_heavy_modules() -> None:
    statement = (
        "import clever_hub; clever_hub.list_models(); clever_hub.load_image; "
        "clever_hub.Preprocessor; clever_hub.from_pretrained; import clever_hub.images.encoding"
    )
    assert not loaded_by(statement) & set(HEAVY)


def test_help_of_the_command_line_is_light() -> None:
    statement = (
        "from clever_hub.cli.app import app; from typer.testing import CliRunner; "
        "assert 'embed' in CliRunner().invoke(app, ['--help']).output"
    )
    assert not loaded_by(statement) & set(HEAVY)


@pytest.mark.parametrize("name", clever_hub.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(clever_hub, name) is not None
    assert name in dir(clever_hub)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="from_pretraned"):
        _ = clever_hub.from_pretraned
