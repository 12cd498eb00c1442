"""A column of labels holds classes; what is none is refused by name."""

from __future__ import annotations

from typing import Any

import datasets
import pytest
from datasets import ClassLabel, List, Value

from clever_hub.errors import DataError
from clever_training.data.classes import read_classes


def read(values: list[Any], kind: Any) -> tuple[list[int], tuple[str, ...]]:
    table = datasets.Dataset.from_dict({"label": values}, datasets.Features({"label": kind}))
    labels, names = read_classes("birds", table, "label")
    return labels.tolist(), names


@pytest.mark.parametrize(
    ("values", "kind", "labels", "names"),
    [
        ([-1, 1, -1], Value("int64"), [0, 1, 0], ("-1", "1")),
        ([2.0, 0.0, 10.0], Value("float32"), [1, 0, 2], ("0", "2", "10")),
        (["b", "a"], Value("string"), [1, 0], ("a", "b")),
        (["cafe\u0301", "caf\u00e9"], Value("string"), [0, 0], ("caf\u00e9",)),
        ([0], ClassLabel(names=["cafe\u0301"]), [0], ("caf\u00e9",)),
        ([True, False], Value("bool"), [1, 0], ("False", "True")),
        ([1, 0], ClassLabel(names=["b", "a"]), [1, 0], ("b", "a")),
    ],
)
def test_classes_are_whole_numbers_names_or_booleans(
    values: list[Any], kind: Any, labels: list[int], names: tuple[str, ...]
) -> None:
    assert read(values, kind) == (labels, names)


@pytest.mark.parametrize(
    ("values", "kind", "says"),
    [
        ([0.5, 1.0], Value("float64"), "numbers that are not whole, such as 0.5 in row 0"),
        ([1.0, float("inf")], Value("float64"), "not whole, such as inf in row 1"),
        ([0.0, float("nan"), None], Value("float64"), "none in 2 of 3 rows .* first is row 1"),
        ([0, None], Value("int64"), "none in 1 of 2 rows of the column 'label'"),
        (["a", None], Value("string"), "none in 1 of 2 rows"),
        ([0, -1], ClassLabel(names=["a", "b"]), "none in 1 of 2 rows"),
        ([[1], [2, 3]], List(Value("int64")), "one class in each row .* got List. Name another"),
        ([{"a": 1}], {"a": Value("int64")}, "one class in each row .* got dict"),
        ([b"a", b"b"], Value("binary"), "one class in each row .* got binary"),
    ],
)
def test_what_is_no_class_is_refused(values: list[Any], kind: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read(values, kind)
