"""model.safetensors is checked before anything is allocated, and never unpickled."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from clever_hub.errors import ModelFormatError
from clever_hub.weights import Weights, check_shapes, sha256_of

TENSORS: dict[str, NDArray[Any]] = {
    "half": np.arange(6, dtype=np.float16).reshape(2, 3),
    "single": np.array([0.5, -1.5], dtype=np.float32),
    "count": np.array(7, dtype=np.int64),
    "nothing": np.zeros((0, 4), dtype=np.float32),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "model.safetensors"
    save_file(TENSORS, file, metadata={"format": "pt"})
    return file


def test_reads_what_the_library_wrote(path: Path) -> None:
    with Weights(path) as weights:
        tensors = weights.tensors()
        assert weights.sha256() == sha256_of(path)
    assert tensors.keys() == TENSORS.keys()
    for name, expected in TENSORS.items():
        np.testing.assert_array_equal(tensors[name], expected, strict=True)


def test_writing_to_a_tensor_leaves_the_file(path: Path) -> None:
    before = path.read_bytes()
    with Weights(path) as weights:
        weights.tensors()["half"][:] = 1
    assert path.read_bytes() == before


def test_hash_and_tensors_are_of_one_file_even_when_it_is_replaced(path: Path) -> None:
    before = sha256_of(path)
    with Weights(path) as weights:
        new = path.with_name("new")
        save_file({name: np.ones_like(array) for name, array in TENSORS.items()}, new)
        new.replace(path)
        assert weights.sha256() == before
        np.testing.assert_array_equal(weights.tensors()["half"], TENSORS["half"])


def test_every_truncation_is_noticed(path: Path) -> None:
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ModelFormatError, match=r"model\.safetensors.*corrupt or incomplete"):
            Weights(path)


def test_bytes_too_many_are_noticed(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ModelFormatError, match=r"expected .* bytes, the file has"):
        Weights(path)


def _write(path: Path, header: object, body: bytes = b"") -> None:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}, "the file has"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}, "do not hold shape"),
        ({"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}, "malformed"),
        ({"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}, "malformed"),
        ({"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}, "malformed"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [0]}, "malformed"),
        ({"dtype": "F32", "shape": [1]}, "malformed"),
        ({"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}, "F16, F32, I64, got"),
        ({"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}, "F16, F32, I64, got"),
        ({"dtype": "F16", "shape": [1], "data_offsets": [2, 4]}, "begins at byte"),
        ("text", "malformed"),
    ],
)
def test_a_header_that_lies_is_refused(path: Path, entry: object, message: str) -> None:
    _write(path, {"tensor": entry}, b"\0\0\0\0")
    with pytest.raises(ModelFormatError, match=message):
        Weights(path)


@pytest.mark.parametrize("header", [[], 5, "text", None])
def test_a_header_of_another_kind_is_refused(path: Path, header: object) -> None:
    _write(path, header)
    with pytest.raises(ModelFormatError, match="not a JSON object"):
        Weights(path)


def test_tensors_that_overlap_are_refused(path: Path) -> None:
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    _write(path, {"a": entry, "b": entry}, b"\0\0\0\0")
    with pytest.raises(ModelFormatError, match="begins at byte"):
        Weights(path)


class _Payload:
    """Makes a file when it is unpickled: what a hostile checkpoint would do."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.marker,)  # type: ignore[return-value]


def test_a_pickle_is_refused_and_not_run(path: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    path.write_bytes(pickle.dumps(_Payload(marker)))
    with pytest.raises(ModelFormatError, match="expected a safetensors file"):
        Weights(path)
    assert not marker.exists()
    pickle.loads(path.read_bytes())
    assert marker.exists(), "the payload must work, or this test shows nothing"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match=r"model\.safetensors.*No such file"):
        Weights(tmp_path / "model.safetensors")


def test_the_comparison_lists_all_that_is_wrong() -> None:
    found = {"same": (1,), "turned": (2, 3), "extra": (1,)}
    expected = {"same": (1,), "turned": (3, 2), "absent": (5,)}
    with pytest.raises(ModelFormatError) as caught:
        check_shapes("here", found, expected)
    for words in ("missing: absent", "unexpected: extra", "turned expected [3, 2], got [2, 3]"):
        assert words in str(caught.value)


def test_a_long_list_is_cut() -> None:
    with pytest.raises(ModelFormatError, match=r"… \(500 in all\)"):
        check_shapes("here", {}, {f"layer{i}": (1,) for i in range(500)})
