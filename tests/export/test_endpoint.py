"""An Inference Endpoint answers from the folder alone, in a process without clever-hub."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tomllib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import clever_hub
from clever_export.package import package
from clever_hub.backends.own import endpoint_code

# As an endpoint does: the folder is all that it has, and texts are all that come in.
_ENDPOINT = """
import json, sys
sys.modules["clever_hub"] = None
sys.path.insert(0, sys.argv[1])
from handler import EndpointHandler
endpoint = EndpointHandler(sys.argv[1])
for line in sys.stdin:
    request = json.loads(line)
    if isinstance(request, dict) and request.pop("as_bytes", False):
        import base64
        request["inputs"] = base64.b64decode(request["inputs"])
    try:
        answer = endpoint(request)
    except ValueError as error:
        answer = str(error)
    print("answer", json.dumps(answer))
"""


@pytest.fixture(scope="module")
def folder(exported: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as it is published, without a path to this package."""
    copied = shutil.copytree(exported("test_resnet"), tmp_path_factory.mktemp("hub") / "model")
    return package(copied)


def _ask(folder: Path, requests: list[Any], home: Path) -> list[Any]:
    environment = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", _ENDPOINT, str(folder)],
        input="\n".join(map(json.dumps, requests)),
        capture_output=True,
        text=True,
        check=False,
        cwd=home,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("answer ")]
    return [json.loads(line.removeprefix("answer ")) for line in lines]


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _large() -> str:
    file = BytesIO()
    Image.new("1", (8_000, 8_000)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_it_answers_as_clever_hub_does_and_refuses_what_it_should(
    folder: Path, photos: dict[str, Path], tmp_path: Path
) -> None:
    one, two = (_encoded(path) for path in list(photos.values())[:2])
    refused = {
        "addresses are not fetched": {"inputs": "https://example.org/a.jpg"},
        "inputs[1]: expected base64 of an image file, or a data URI": {"inputs": [one, "no image"]},
        "inputs[0]: cannot identify image file": {"inputs": base64.b64encode(b"text").decode()},
        "inputs[0]: expected base64 of an image file, got dict": {"inputs": {"image": one}},
        "expected at most 50,000,000 pixels, got 8000 × 8000": {"inputs": _large()},
        "inputs: expected 1 to 64 images, got 65": {"inputs": [one] * 65},
        "inputs: expected 1 to 64 images, got 0": {"inputs": []},
        "expected 'inputs', got ['image']": {"image": one},
        "parameters: expected part and normalize, got parts": {
            "inputs": one,
            "parameters": {"parts": "full"},
        },
        "parameters.part: expected one of invariant, equivariant, full, got 'all'": {
            "inputs": one,
            "parameters": {"part": "all"},
        },
        "parameters: expected an object, got list": {"inputs": one, "parameters": ["full"]},
        "parameters: expected an object, got str": {"inputs": one, "parameters": "full"},
    }
    answered = [
        {"inputs": one},
        {"inputs": [f"data:image/png;base64,{one}", two], "parameters": {"part": "full"}},
        {"inputs": two, "as_bytes": True, "parameters": {"part": "full", "normalize": True}},
    ]
    answers = _ask(folder, [*answered, *refused.values()], tmp_path)
    single, both, unit = answers[:3]
    expected = clever_hub.from_pretrained(folder).encode(list(photos.values())[:2])
    assert [*single[0]] == ["invariant", "equivariant"]
    close: dict[str, Any] = {"rtol": 0, "atol": 1e-5}
    np.testing.assert_allclose(single[0]["invariant"], expected.invariant[0], **close)
    np.testing.assert_allclose(single[0]["equivariant"], expected.equivariant[0], **close)
    np.testing.assert_allclose([entry["full"] for entry in both], expected.full, **close)
    scaled = expected.full[1] / np.linalg.norm(expected.full[1])
    np.testing.assert_allclose(unit[0]["full"], scaled, **close)
    for words, message in zip(refused, answers[3:], strict=True):
        assert isinstance(message, str), words
        assert words in message


def test_what_an_endpoint_installs_is_what_this_package_needs(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = endpoint_code()["requirements.txt"].split()
    packages = tuple(line.partition(">=")[0] for line in wanted)
    stated = {line for extra in extras.values() for line in extra if line.startswith(packages)}
    assert stated == set(wanted)
