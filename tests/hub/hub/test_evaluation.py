"""The one reader of evaluation.json: absent, damaged and foreign files are told apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clever_hub.errors import ModelFormatError
from clever_hub.files import write_json
from clever_hub.hub.evaluation import EVALUATION_NAME, check_evaluation, read_evaluation

CONTENT: dict[str, Any] = {"schema_version": 1, "model": {}, "figures": {}, "protocols": {}}


def test_a_file_and_its_folder_read_the_same(tmp_path: Path) -> None:
    path = write_json(tmp_path / EVALUATION_NAME, CONTENT)
    assert read_evaluation(tmp_path) == read_evaluation(path) == CONTENT
    check_evaluation(CONTENT, tmp_path)


def test_what_was_not_measured_has_none(tmp_path: Path) -> None:
    assert read_evaluation(tmp_path) is None
    assert read_evaluation(tmp_path / EVALUATION_NAME) is None


@pytest.mark.parametrize(
    "text", ["[1]", "{", "[" * 100_000, "\xff"], ids=["list", "half", "deep", "no text"]
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / EVALUATION_NAME).write_text(text, encoding="latin-1")
    with pytest.raises(ModelFormatError, match=r"evaluation\.json: (cannot be read|expected an)"):
        read_evaluation(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "expected schema_version 1, got 2"),
        ({"schema_version": None}, "expected schema_version 1, got None"),
        ({"figures": None}, "figures is missing or no object"),
        ({"model": [], "protocols": 1}, "model, protocols is missing or no object"),
    ],
)
def test_a_file_of_another_kind_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelFormatError, match=message):
        check_evaluation(CONTENT | changes, tmp_path)
