"""What tests let a ``Client`` do, beyond functions that are there already."""

from __future__ import annotations

import resource
import sys
from typing import Any


def upload(repo_id: str, folder: str, tag: str | None = None) -> str:
    """Upload a folder as any user of the client would; returns the commit."""
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo(repo_id, exist_ok=True)
    commit = api.upload_folder(repo_id=repo_id, folder_path=folder)
    if tag:
        api.create_tag(repo_id, tag=tag)
    return str(commit.oid)


def limit_file_size(size: int) -> None:
    """From now on no file of this process gets larger, as with a full disk; 0 lifts it."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (size or hard, hard))


def embed(name: str, images: list[str], **options: Any) -> dict[str, Any]:
    """Load a model, embed images; the vectors and where the model came from."""
    import clever_hub

    model = clever_hub.from_pretrained(name, **options)
    assert model.source is not None
    return {
        "full": model.encode(images).full.tolist(),
        "source": model.source._asdict(),
        "torch": "torch" in sys.modules,
    }


def command(*arguments: str) -> int:
    """Run ``clever-hub``; returns the exit code."""
    from clever_hub.cli.app import app

    try:
        app(list(arguments))
    except SystemExit as exit_:
        return int(exit_.code or 0)
    return 0
