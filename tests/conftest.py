"""Fixtures and guards that every test shares: real photos, data folders, no network, one thread."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Before torch is imported anywhere, here or in a subprocess: two xdist workers share the machine,
# and one thread each also makes floating-point sums repeatable.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"

# Photos inside scikit-image's wheel; public domain (NASA, SpaceX) or CC0 by their photographers.
PHOTO_NAMES = ("astronaut", "chelsea", "coffee", "rocket")


def _folder(variable: str, default: Path, what: str) -> Path:
    """Return the folder an environment variable or the default names; skip when it is absent."""
    folder = Path(os.environ.get(variable, default))
    if not folder.is_dir():
        pytest.skip(f"{what} not found at {folder}; set {variable} to its folder")
    return folder


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def without_torch(repository: Path) -> Path:
    """The programs of an environment that has the extra onnx alone."""
    folder = repository / ".venv-onnx" / "bin"
    if not (folder / "python").is_file():
        pytest.skip("no .venv-onnx; `make test` makes it")
    return folder


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of test data: `CLEVER_HUB_DATA`, or `../shared/data` next to the repository."""
    return _folder("CLEVER_HUB_DATA", SHARED / "data", "test data")


@pytest.fixture(scope="session")
def tiny_imagenet(data_dir: Path) -> Path:
    """The folder with `train.parquet` and `validation.parquet`: 100 classes, 64 px photos."""
    folder = data_dir / "tiny-imagenet-100"
    if not folder.is_dir():
        pytest.skip(f"no tiny-imagenet-100 in {data_dir}")
    return folder


@pytest.fixture(scope="session")
def imagenet_photos(data_dir: Path) -> Path:
    """The folder with full-size ImageNet photos (JPEG)."""
    folder = data_dir / "imagenet-photos"
    if not folder.is_dir():
        pytest.skip(f"no imagenet-photos in {data_dir}")
    return folder


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """The folder of reference vectors: `CLEVER_HUB_GOLDEN`, or `../shared/golden`."""
    return _folder("CLEVER_HUB_GOLDEN", SHARED / "golden", "reference vectors")


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Four real photos as files, by name: two PNG and two JPEG, between 300 and 640 px."""
    import skimage.data
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    files: dict[str, Path] = {}
    for index, name in enumerate(PHOTO_NAMES):
        path = folder / f"{name}.{'png' if index % 2 == 0 else 'jpg'}"
        Image.fromarray(getattr(skimage.data, name)()).save(path)
        files[name] = path
    return files


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse all that leaves this machine, so that no test depends on a network."""

    def guard(name: str) -> None:
        call = getattr(socket.socket, name)

        def guarded(self: socket.socket, *arguments: Any) -> Any:
            address = arguments[-1] if arguments else None
            local = self.family == getattr(socket, "AF_UNIX", None) or (
                isinstance(address, tuple) and str(address[0]) in {"127.0.0.1", "::1", "localhost"}
            )
            if not local:
                msg = f"a test tried to reach {address!r}; tests run without a network"
                raise RuntimeError(msg)
            return call(self, *arguments)

        monkeypatch.setattr(socket.socket, name, guarded)

    for name in ("connect", "connect_ex", "sendto"):
        guard(name)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; a build server must have it."""
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if (found := shutil.which(name))), None)
    if path is None:
        reason = f"no browser on the PATH ({', '.join(names)}): apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path)
        yield browser
        browser.close()
