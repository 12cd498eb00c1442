"""The example of a Space starts, and answers, in its own environment and without a network."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

# gradio's own client, in the same environment: the page's endpoints as a browser calls them.
_CLIENT = """
import json, sys
from gradio_client import Client, handle_file
url, first, second = sys.argv[1:]
client = Client(url, verbose=False)
a, b = handle_file(first), handle_file(second)
print(json.dumps({
    "relate": client.predict(a, b, api_name="/relate"),
    "turned": client.predict(a, 90, api_name="/turned"),
    "curve": client.predict(a, api_name="/curve"),
}))
"""
_SECONDS = 240.0  # a slow machine imports gradio for half a minute


@pytest.fixture(scope="module")
def python(repository: Path) -> Path:
    """The interpreter that has gradio."""
    found = repository / ".venv-space" / "bin" / "python"
    if not found.exists():
        reason = "no .venv-space; `make test` makes it"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture
def page(python: Path, repository: Path, tmp_path: Path) -> Iterator[str]:
    """The address of the running page."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_TEMP_DIR": str(tmp_path / "gradio"),
        "HF_HUB_OFFLINE": "1",
    }
    log = tmp_path / "log"
    command = [str(python), "-u", str(repository / "examples" / "space" / "app.py")]
    with log.open("w") as out:
        running = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env=environment, cwd=tmp_path
        )
    try:
        end = time.monotonic() + _SECONDS
        while "Running on local URL" not in log.read_text():
            assert running.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < end, log.read_text()[-2000:]
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait(30)


def test_it_starts_and_answers(page: str, python: Path, photos: dict[str, Path]) -> None:
    first, second = list(photos.values())[:2]
    done = subprocess.run(
        [python, "-c", _CLIENT, page, first, second], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert answers["relate"].startswith("**Second photo:** ")
    assert "Cosine similarity: invariant part" in answers["relate"]
    assert "Turned by 90°" in answers["turned"][1]
    curve = answers["curve"]["data"]
    assert len(curve) == 2 * 25
    by_angle = {(angle, part): similarity for angle, similarity, part in curve}
    for part in ("invariant", "equivariant"):
        assert by_angle[0, part] == pytest.approx(1.0, abs=1e-4), "it is the same photo"
        assert by_angle[180, part] == pytest.approx(by_angle[-180, part], abs=1e-4)
        assert by_angle[90, part] < 0.999


def test_its_front_matter_names_what_is_there(repository: Path) -> None:
    folder = repository / "examples" / "space"
    matter = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    assert matter["sdk"] == "gradio"
    assert (folder / matter["app_file"]).is_file()
    wanted = (folder / "requirements.txt").read_text().split()
    assert "clever-hub[onnx]" in wanted
    major = matter["sdk_version"].partition(".")[0]
    assert f"gradio>={major},<{int(major) + 1}" in wanted
    makefile = (repository / "Makefile").read_text()
    assert f"'gradio>={major},<{int(major) + 1}'" in makefile, "the tests run that version, too"
