"""docs/reliability.md promises nothing that no test shows."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

FAULTS = (
    *("401", "403", "404, no such repository", "404, no such branch", "404, .* lacks a file"),
    *("429", "500.* then success", "cut in the middle", "wrong content length", "hash mismatch"),
    *("disk full", "two processes", "cache is read-only"),
)


@pytest.fixture(scope="module")
def rows(repository: Path) -> list[list[str]]:
    """The cells of every row of the page's tables."""
    text = (repository / "docs" / "reliability.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if re.match(r"\| (?!what )", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_row_names_tests_that_exist(rows: list[list[str]], repository: Path) -> None:
    files = sorted((repository / "tests").rglob("test_*.py"))
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in files]
    there = {node.name for t in trees for node in ast.walk(t) if isinstance(node, ast.FunctionDef)}
    assert len(rows) > 30
    for row in rows:
        named = set(re.findall(r"`(test_\w+)`", row[-1]))
        assert named, f"no test: {row[0]}"
        assert named <= there, f"no such test: {named - there}"


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_has_a_row(fault: str, rows: list[list[str]]) -> None:
    assert any(re.search(fault, row[0], re.IGNORECASE) for row in rows)
