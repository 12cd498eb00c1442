"""Ctrl-C and SIGTERM end every verb with one line and the exit code that shells expect."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from clever_hub.cli.app import app
from clever_hub.cli.stopping import clean_stop
from clever_hub.jobs import store

IN_CACHE = "Stopped. Photos embedded so far, if any, are in the cache"
IN_LOG = f"{IN_CACHE}; moves are in the log, for --undo."
IN_INDEX = "Stopped. The same command goes on: the photos written so far are in the index."


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize(
    ("verb", "said"), [("duplicates", IN_LOG), ("leaks", f"{IN_CACHE}."), ("index", IN_INDEX)]
)
def test_a_verb_that_is_stopped_says_what_is_kept(
    verb: str,
    said: str,
    number: signal.Signals,
    code: int,
    model_folder: Path,
    photos: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("the tests run in the background of a shell, which ignores this signal")
    before, embed = signal.getsignal(signal.SIGTERM), store._embed

    def stopped(*arguments: Any) -> Iterator[Any]:
        for batch in embed(*arguments):
            yield batch
            os.kill(os.getpid(), number)

    monkeypatch.setattr(store, "_embed", stopped)
    folder, cache = str(photos["coffee"].parent), tmp_path / "cache"
    others = str(shutil.copytree(folder, tmp_path / "others"))
    more = {"index": ["-o", str(tmp_path / "i.lance")], "leaks": [others]}.get(verb, [])
    if verb != "index":
        more += ["--cache", str(cache)]
    # A verb that does not handle SIGTERM shall fail the test, not end it.
    guard = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        result = CliRunner().invoke(app, [verb, folder, *more, "-m", str(model_folder)])
    finally:
        signal.signal(signal.SIGTERM, guard)
    assert result.exit_code == code, result.output
    assert result.stderr.splitlines()[-1] == said
    assert "Traceback" not in result.output
    assert verb == "index" or list(cache.rglob("*.parquet")), "what is embedded is kept"
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ("finetune", "Stopped. The same command goes on from the last whole epoch."),
        ("orient", "Stopped. Photos turned so far, if any, are in the log, for --undo."),
        ("compare", "Stopped."),
    ],
)
def test_what_is_kept_of_other_verbs(
    verb: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended, clean_stop(lambda: verb):
        raise KeyboardInterrupt
    assert ended.value.exit_code == 130
    assert capsys.readouterr().err.strip() == said
