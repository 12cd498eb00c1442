"""Errors say what to do."""

from __future__ import annotations

import pickle

import pytest

from clever_hub import errors


def test_one_except_catches_all() -> None:
    raised = [value for value in vars(errors).values() if isinstance(value, type)]
    ours = [value for value in raised if value.__module__ == errors.__name__]
    assert len(ours) == 10
    assert all(issubclass(error, errors.CleverError) for error in ours)


def test_a_missing_extra_prints_the_line_to_run() -> None:
    with pytest.raises(ImportError, match=r'pip install "clever-hub\[onnx\]"') as caught:
        errors.require("no_such_module.part", "onnx")
    assert isinstance(caught.value, errors.CleverError)
    assert caught.value.name == "no_such_module"


def test_an_import_error_within_an_installed_module_is_passed_on(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An extra would not mend a package that is installed and broken.
    monkeypatch.syspath_prepend(str(tmp_path))
    with open(f"{tmp_path}/broken_package.py", "w") as file:  # noqa: PTH123
        file.write("import missing_dependency")
    with pytest.raises(ModuleNotFoundError, match="missing_dependency") as caught:
        errors.require("broken_package", "torch")
    assert not isinstance(caught.value, errors.MissingExtraError)


def test_suggestions() -> None:
    known = ["clever-resnet18", "clever-vit-tiny"]
    assert errors.suggest("clever-resnet-18", known) == "Did you mean 'clever-resnet18'?"
    assert errors.suggest("dog", known) == "Known: clever-resnet18, clever-vit-tiny."
    assert errors.suggest("dog", []) == ""


def test_an_image_error_survives_the_way_out_of_a_worker_process() -> None:
    error = pickle.loads(pickle.dumps(errors.ImageError("a.jpg", "no such file")))
    assert (error.source, error.reason) == ("a.jpg", "no such file")
    assert str(error) == "a.jpg: no such file"
