"""The API: what is asked and answered, and what bad requests get."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from starlette.testclient import TestClient

import clever_hub
from clever_hub.errors import ModelFormatError
from clever_hub.serve import relations, schemas
from clever_hub.serve.app import create_app
from tests.hub.serve.conftest import NAME, Open

if TYPE_CHECKING:
    from clever_hub.backends.onnx import OnnxModel

URL = "/v1/embeddings"
DOCUMENTED = (Path(__file__).parents[3] / "docs" / "serve.md").read_text(encoding="utf-8")


@pytest.fixture
def client(opened: Open) -> TestClient:
    return opened()


def encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def data_uri(path: Path) -> str:
    return f"data:image/{path.suffix[1:]};base64,{encoded(path)}"


def vectors(answer: Any) -> NDArray[np.float32]:
    assert answer.status_code == 200, answer.text
    rows = answer.json()["data"]
    assert [row["index"] for row in rows] == list(range(len(rows)))
    return np.array([row["embedding"] for row in rows], np.float32)


def error(answer: Any, status: int, code: str) -> dict[str, Any]:
    """The error of an answer, in the one shape that all have; its code is in the documentation."""
    assert answer.status_code == status, answer.text
    assert re.search(rf"^\| {status} \| .*`{code}`", DOCUMENTED, re.MULTILINE)
    assert answer.headers["content-type"] == "application/json"
    content = answer.json()
    assert content.keys() == {"error"}
    assert content["error"].keys() == {"message", "type", "param", "code"}
    assert content["error"]["code"] == code
    found: dict[str, Any] = content["error"]
    return found


def test_the_answers_are_those_of_encode(
    client: TestClient, onnx_model: OnnxModel, photos: dict[str, Path]
) -> None:
    paths = list(photos.values())
    expected = onnx_model.encode(paths)
    for model, part in ((NAME, "full"), (f"{NAME}:invariant", "invariant")):
        answer = client.post(URL, json={"model": model, "input": [encoded(p) for p in paths]})
        np.testing.assert_allclose(vectors(answer), getattr(expected, part), atol=1e-5)
        assert answer.json()["model"] == model
        assert answer.json()["object"] == "list"
    assert vectors(
        client.post(URL, json={"model": f"{NAME}:equivariant", "input": encoded(paths[0])})
    ).shape == (1, 103)


def test_every_way_to_send_an_image_gives_the_same(
    client: TestClient, photos: dict[str, Path]
) -> None:
    path = photos["chelsea"]
    ways = [
        client.post(URL, json={"model": NAME, "input": encoded(path)}),
        client.post(URL, json={"model": NAME, "input": [data_uri(path)]}),
        client.post(URL, json={"input": [{"image": data_uri(path)}], "modality": "image"}),
        client.post(URL, json={"input": encoded(path), "user": "somebody"}),
        client.post(URL, json={"input": base64.encodebytes(path.read_bytes()).decode()}),
        client.post(URL, files={"input": path.read_bytes()}, data={"model": NAME}),
        client.post(URL, files=[("input[]", path.read_bytes())]),
        client.post(URL, files={"other": (None, "x")} | {"input": path.read_bytes()}),
    ]
    first = vectors(ways[0])
    for answer in ways[1:-1]:
        np.testing.assert_array_equal(vectors(answer), first)
    error(ways[-1], 400, "unknown_field")


def test_several_files_come_back_in_order(
    client: TestClient, onnx_model: OnnxModel, photos: dict[str, Path]
) -> None:
    paths = list(photos.values()) * 3
    answer = client.post(URL, files=[("input", path.read_bytes()) for path in paths])
    np.testing.assert_allclose(vectors(answer), onnx_model.encode(paths).full, atol=1e-5)


def test_numbers_read_back_as_the_same_float32(client: TestClient, photos: dict[str, Path]) -> None:
    body = {"input": encoded(photos["rocket"])}
    as_base64 = client.post(URL, json=body | {"encoding_format": "base64"}).json()
    raw = base64.b64decode(as_base64["data"][0]["embedding"])
    np.testing.assert_array_equal(
        np.frombuffer(raw, "<f4"), vectors(client.post(URL, json=body))[0]
    )


def test_dimensions_and_unit_vectors(client: TestClient, photos: dict[str, Path]) -> None:
    body = {"input": encoded(photos["coffee"])}
    whole = vectors(client.post(URL, json=body))[0]
    np.testing.assert_array_equal(
        vectors(client.post(URL, json=body | {"dimensions": 64}))[0], whole[:64]
    )
    unit = vectors(client.post(URL, json=body | {"dimensions": 64, "normalize": True}))[0]
    np.testing.assert_allclose(unit, whole[:64] / np.linalg.norm(whole[:64]), rtol=1e-5)
    form = {"dimensions": "64", "normalize": "true"}
    sent = client.post(URL, files={"input": photos["coffee"].read_bytes()}, data=form)
    np.testing.assert_array_equal(vectors(sent)[0], unit)


def test_the_bad_image_of_a_request_is_named(client: TestClient, photos: dict[str, Path]) -> None:
    good, bad = encoded(photos["coffee"]), base64.b64encode(b"no image").decode()
    found = error(client.post(URL, json={"input": [good, bad, "§§"]}), 400, "invalid_image")
    assert found["param"] == "input[1]"
    assert "input[1]: not an image of a known format" in found["message"]
    assert "input[2]: expected base64" in found["message"]


def test_what_is_no_image_at_all_is_named_with_the_other_bad_ones(
    client: TestClient, photos: dict[str, Path]
) -> None:
    bad = [5, None, {"image": 5}, base64.b64encode(b"hello").decode()]
    body = {"input": [encoded(photos["coffee"]), *bad]}
    found = error(client.post(URL, json=body), 400, "invalid_image")
    assert found["param"] == "input[1]"
    assert found["message"].startswith(
        "input[1]: expected base64, a data URI or a file, got 5; "
        "input[2]: expected base64, a data URI or a file, got None; "
        "input[3]: expected base64, a data URI or a file, got 5; "
        "input[4]: not an image of a known format"
    )


def test_null_is_as_if_the_field_were_left_out(client: TestClient, photos: dict[str, Path]) -> None:
    body = {"input": encoded(photos["coffee"])}
    fields = ("model", "encoding_format", "dimensions", "normalize", "modality", "user")
    answer = client.post(URL, json=body | dict.fromkeys(fields))
    np.testing.assert_array_equal(vectors(answer), vectors(client.post(URL, json=body)))


def test_a_truncated_image_is_named(client: TestClient, photos: dict[str, Path]) -> None:
    half = photos["rocket"].read_bytes()
    found = error(client.post(URL, files={"input": half[: len(half) // 2]}), 400, "invalid_image")
    assert found["param"] == "input[0]"


@pytest.mark.parametrize(
    ("body", "status", "code", "message"),
    [
        ({}, 400, "missing_input", "input: expected an image or a list of images, got none"),
        ({"input": []}, 400, "missing_input", "got none"),
        ({"input": [7]}, 400, "invalid_image", r"input\[0\]: expected base64.*got 7"),
        ({"input": {"text": "a"}}, 400, "invalid_image", r"got \{'text'"),
        ({"input": "a", "model": "clever-resnet81"}, 404, "model_not_found", "Did you mean"),
        ({"input": "a", "model": 7}, 400, "invalid_value", "model: expected a name, got 7"),
        ({"input": "a", "inputs": "b"}, 400, "unknown_field", "inputs: unknown. Did you mean"),
        ({"input": "a", "encoding_format": "hex"}, 400, "invalid_value", "'float' or 'base64'"),
        ({"input": "a", "dimensions": 0}, 400, "invalid_value", "dimensions: expected a whole"),
        ({"input": "a", "dimensions": True}, 400, "invalid_value", "dimensions: expected"),
        ({"input": "a", "dimensions": "9" * 5000}, 400, "invalid_value", "dimensions: expected"),
        ({"input": "a", "normalize": "maybe"}, 400, "invalid_value", "normalize: expected true"),
        ({"input": "a", "modality": "text"}, 400, "invalid_value", "modality: expected 'image'"),
        ({"input": "data:image/png,a"}, 400, "invalid_image", "expected a data URI"),
        ({"input": "data:image/png;base64"}, 400, "invalid_image", "expected a data URI"),
        ({"input": "not base64!"}, 400, "invalid_image", "expected base64"),
        ({"input": ""}, 400, "invalid_image", "the file is empty"),
        ({"input": "a" * 10}, 400, "invalid_image", "expected base64"),
        ({"input": "http://a.test/b.jpg"}, 400, "urls_not_allowed", "--allow-urls"),
        ({"input": ["x"] * 65}, 400, "too_many_inputs", "expected at most 64 images, got 65"),
        ({"input": "\ud83d"}, 400, "invalid_json", "the body is no JSON"),
        ([], 400, "invalid_json", "expected a JSON object"),
    ],
)
def test_bad_requests(
    client: TestClient, body: object, status: int, code: str, message: str
) -> None:
    answer = client.post(
        URL, content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    assert re.search(message, error(answer, status, code)["message"])


def test_more_dimensions_than_there_are(client: TestClient, photos: dict[str, Path]) -> None:
    body = {"input": encoded(photos["coffee"]), "model": f"{NAME}:equivariant", "dimensions": 104}
    found = error(client.post(URL, json=body), 400, "invalid_value")
    assert found["message"] == f"dimensions: {NAME}:equivariant has 103, got 104"


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"{", "application/json", 400, "invalid_json"),
        (b"[" * 100_000, "application/json", 400, "invalid_json"),
        (b"\xff", "application/json", 400, "invalid_json"),
        (b"{}", "text/plain", 415, "unsupported_media_type"),
        (b"{}", "", 415, "unsupported_media_type"),
        (b"{}", "multipart/form-data", 400, "invalid_multipart"),
        (b"--x--\r\n", "multipart/form-data; boundary=x", 400, "missing_input"),
        (b"--x\r\n", "multipart/form-data; boundary=x", 400, "invalid_multipart"),
        (b"nonsense", "multipart/form-data; boundary=x", 400, "invalid_multipart"),
    ],
)
def test_bodies_that_cannot_be_parsed(
    client: TestClient, content: bytes, kind: str, status: int, code: str
) -> None:
    error(client.post(URL, content=content, headers={"Content-Type": kind}), status, code)


def test_a_body_that_is_cut_off_is_refused(client: TestClient, photos: dict[str, Path]) -> None:
    file = photos["rocket"].read_bytes()
    head = b'--x\r\nContent-Disposition: form-data; name="input"; filename="a"\r\n\r\n'
    whole = head + file + b"\r\n" + head + file + b"\r\n--x--"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert len(vectors(client.post(URL, content=whole, headers=headers))) == 2
    for length in (len(head) + len(file) + 2 + len(head), len(whole) - 100, len(whole) - 1):
        answer = client.post(URL, content=whole[:length], headers=headers)
        found = error(answer, 400, "invalid_multipart")
        assert "expected the closing boundary at its end" in found["message"]


def test_a_long_text_of_a_form_is_refused(client: TestClient) -> None:
    answer = client.post(URL, files={"input": (None, "x" * 1_001)})
    message = error(answer, 400, "invalid_multipart")["message"]
    assert message.startswith("the body: expected texts of at most 1,000 bytes, got a longer one")


def test_a_compressed_body_is_refused(client: TestClient) -> None:
    plain = {"Content-Type": "application/json", "Content-Encoding": "Identity"}
    error(client.post(URL, content=b"{}", headers=plain), 400, "missing_input")
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    found = error(client.post(URL, content=b"x", headers=headers), 415, "unsupported_media_type")
    assert found["message"].startswith("Content-Encoding: expected none, got gzip")


def test_files_are_named_input_and_counted(opened: Open, photos: dict[str, Path]) -> None:
    client, file = opened(max_inputs=2), photos["rocket"].read_bytes()
    found = error(client.post(URL, files={"file": file}), 400, "invalid_value")
    assert found["param"] == "file"
    three = [("input", file)] * 3
    assert "at most 2" in error(client.post(URL, files=three), 400, "too_many_inputs")["message"]
    both = client.post(URL, files={"input": file}, data={"input": "a"})
    error(both, 400, "invalid_value")


def test_a_large_body_is_refused_whatever_it_says_of_its_length(opened: Open) -> None:
    client = opened(max_body_bytes=10_000)
    service = client.app.state.service  # type: ignore[attr-defined]

    def pieces() -> Iterator[bytes]:
        for _ in range(1_000):
            yield b" " * 1_000

    headers = {"Content-Type": "application/json"}
    error(client.post(URL, content=b" " * 10_001, headers=headers), 413, "body_too_large")
    chunked = client.post(URL, content=pieces(), headers=headers)
    assert "content-length" not in chunked.request.headers
    error(chunked, 413, "body_too_large")
    error(client.post(URL, files={"input": b"x" * 10_000}), 413, "body_too_large")
    assert (service.gate.images, service.gate.body_bytes) == (0, 0)


def test_large_files_and_bombs_are_refused(opened: Open) -> None:
    client = opened(max_image_bytes=20_000, max_pixels=1_000_000)
    bomb = io.BytesIO()
    Image.new("1", (1_100, 1_000)).save(bomb, "PNG")
    assert len(bomb.getvalue()) < 2_000
    found = error(client.post(URL, files={"input": bomb.getvalue()}), 413, "image_too_large")
    assert found["message"] == "input[0]: expected at most 1,000,000 pixels, got 1,100,000"
    for body in ({"files": {"input": b"x" * 20_001}}, {"json": {"input": "x" * 60_000}}):
        error(client.post(URL, **body), 413, "image_too_large")


def test_large_photos_may_be_decoded_at_a_reduced_size(
    opened: Open, onnx_model: OnnxModel, photos: dict[str, Path]
) -> None:
    large = io.BytesIO()
    Image.open(photos["chelsea"]).resize((1_804, 1_200)).save(large, "JPEG", quality=95)
    file = {"input": large.getvalue()}
    whole = vectors(opened().post(URL, files=file))
    reduced = vectors(opened(decode="reduced").post(URL, files=file))
    expected = onnx_model.encode(large.getvalue(), decode="reduced").full
    np.testing.assert_allclose(reduced, expected, atol=1e-5)
    assert np.abs(reduced - whole).max() > 1e-4


def test_heic_is_read_where_it_can_be(
    opened: Open, photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.open(photos["coffee"]).convert("RGB")).save(file, quality=90)
    client = opened()
    found = vectors(client.post(URL, files={"input": file.getvalue()}))
    expected = vectors(client.post(URL, files={"input": photos["coffee"].read_bytes()}))
    assert np.corrcoef(found[0], expected[0])[0, 1] > 0.95
    small = opened(max_pixels=100_000)
    error(small.post(URL, files={"input": file.getvalue()}), 413, "image_too_large")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    answer = client.post(URL, files={"input": file.getvalue()})
    assert "clever-hub[heic]" in error(answer, 400, "unsupported_format")["message"]


def test_a_full_server_says_so(opened: Open, photos: dict[str, Path]) -> None:
    client = opened(max_queue=2, max_inputs=2)
    gate = client.app.state.service.gate  # type: ignore[attr-defined]
    file = photos["rocket"].read_bytes()
    with gate.admit() as slot:
        one = client.post(URL, files={"input": file})
        assert one.status_code == 200
        found = client.post(URL, files=[("input", file)] * 2)
        assert error(found, 503, "overloaded")["type"] == "overloaded_error"
        slot.grow(images=1)
        found = client.post(URL, files={"input": file})
        error(found, 503, "overloaded")
        assert int(found.headers["retry-after"]) >= 1
    assert client.post(URL, files=[("input", file)] * 2).status_code == 200


def test_an_answer_that_takes_too_long_is_given_up(
    opened: Open, onnx_model: OnnxModel, photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()

    def stuck(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        assert go.wait(20)
        return onnx_model(pixels).full

    monkeypatch.setattr(onnx_model, "_embed_batch", stuck)
    client = opened(timeout=0.2)
    answer = client.post(URL, files={"input": photos["rocket"].read_bytes()})
    error(answer, 503, "timeout")
    assert answer.headers["retry-after"] == "1"
    go.set()
    assert client.app.state.service.gate.images == 0  # type: ignore[attr-defined]


def test_a_failing_network_is_a_server_error_and_is_not_described(
    opened: Open, onnx_model: OnnxModel, photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: object) -> NDArray[np.float32]:
        raise RuntimeError("a secret path")

    monkeypatch.setattr(onnx_model, "_embed_batch", fails)
    client = opened()
    answer = client.post(URL, files={"input": photos["rocket"].read_bytes()})
    found = error(answer, 500, "internal_error")
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] in found["message"]
    error(client.get("/readyz"), 503, "not_ready")


def test_numbers_that_are_not_finite_are_no_answer(
    opened: Open, onnx_model: OnnxModel, photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        onnx_model, "_embed_batch", lambda pixels: np.full((len(pixels), 512), np.nan, np.float32)
    )
    client = opened()
    error(client.post(URL, files={"input": photos["rocket"].read_bytes()}), 500, "not_finite")


def test_several_models(opened: Open, onnx_model: OnnxModel, photos: dict[str, Path]) -> None:
    client = opened({"a": onnx_model, "b": onnx_model})
    names = [entry["id"] for entry in client.get("/v1/models").json()["data"]]
    assert names == ["a", "a:invariant", "a:equivariant", "b", "b:invariant", "b:equivariant"]
    file = {"input": photos["rocket"].read_bytes()}
    assert vectors(client.post(URL, files=file, data={"model": "b"})).shape == (1, 512)
    assert "one of a, b" in error(client.post(URL, files=file), 400, "missing_model")["message"]


def test_models_are_described(client: TestClient, onnx_model: OnnxModel) -> None:
    entry = client.get(f"/v1/models/{NAME}:equivariant").json()
    assert (entry["id"], entry["part"], entry["dimensions"]) == (
        f"{NAME}:equivariant",
        "equivariant",
        103,
    )
    assert onnx_model.source is not None
    assert entry["weights_sha256"] == onnx_model.source.weights_sha256
    error(client.get("/v1/models/none"), 404, "model_not_found")


@pytest.mark.parametrize("path", ["/v1/relate", "/v1/orient"])
def test_a_model_without_heads_says_so(opened: Open, photos: dict[str, Path], path: str) -> None:
    without = clever_hub.from_pretrained("clever-vit-tiny.ssl", backend="onnx", threads=1)
    client = opened({"clever-vit-tiny.ssl": without})
    assert client.get("/v1/models/clever-vit-tiny.ssl").json()["heads"] is False
    files = [("input", photos[name].read_bytes()) for name in ("rocket", "coffee")]
    assert "has no heads" in error(client.post(path, files=files), 400, "no_heads")["message"]


@pytest.fixture
def with_heads(headed: Path) -> OnnxModel:
    return clever_hub.from_pretrained(headed, backend="onnx", threads=1)


@pytest.mark.parametrize("pixels", [None, True, False])
def test_relations_are_those_of_the_model(
    opened: Open, with_heads: OnnxModel, photos: dict[str, Path], pixels: bool | None
) -> None:
    client = opened({"headed": with_heads})
    assert client.get("/v1/models/headed").json()["heads"] is True
    asked = {} if pixels is None else {"pixels": pixels}
    for a, b in (("rocket", "rocket"), ("rocket", "coffee")):
        images = [encoded(photos[x]) for x in (a, b)]
        answer = client.post("/v1/relate", json={"input": images, **asked})
        assert answer.status_code == 200, answer.text
        found = answer.json()
        expected = with_heads.relate(photos[a], photos[b], pixels=pixels).to_dict()
        assert found["by"] == ("pixels" if a == b and pixels is not False else "model")
        assert (found.pop("object"), found.pop("model")) == ("relation", "headed")
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            plain = value is None or isinstance(value, str)
            assert found[name] == (value if plain else pytest.approx(value, abs=1e-3))
    assert found["angle"] is None  # of different photos


def test_orientations_are_those_of_the_model(
    opened: Open, with_heads: OnnxModel, photos: dict[str, Path]
) -> None:
    client = opened({"headed": with_heads}, max_queue=20, max_inputs=20)
    paths = list(photos.values())
    files = [("input", path.read_bytes()) for path in paths]
    answer = client.post("/v1/orient", files=files)
    assert answer.status_code == 200, answer.text
    expected = with_heads.orientation(paths)
    for index, entry in enumerate(answer.json()["data"]):
        assert entry["index"] == index
        assert entry["quarter"] == expected.quarter[index]
        assert entry["angle"] == pytest.approx(float(expected.angle[index]), abs=0.1)
        assert entry["confidence"] == pytest.approx(float(expected.confidence[index]), abs=1e-3)
    # Each goes through the network four times, and six would never find room.
    found = error(client.post("/v1/orient", files=files[:3] * 2), 400, "too_many_inputs")
    assert "expected at most 5 images, got 6" in found["message"]
    gate = client.app.state.service.gate  # type: ignore[attr-defined]
    assert gate.images == 0


def test_damaged_heads_are_met_at_the_start(with_heads: OnnxModel, tmp_path: Path) -> None:
    assert with_heads.source is not None
    shutil.copytree(with_heads.source.path, tmp_path / "damaged")
    (tmp_path / "damaged/heads.safetensors").write_bytes(b"x" * 100)
    model = clever_hub.from_pretrained(tmp_path / "damaged", backend="onnx", threads=1)
    with pytest.raises(ModelFormatError, match=r"heads\.safetensors"):
        create_app({"damaged": model})


def test_a_relation_is_one_of_two_images(client: TestClient, photos: dict[str, Path]) -> None:
    file = ("input", photos["rocket"].read_bytes())
    found = error(client.post("/v1/relate", files=[file]), 400, "invalid_value")
    assert found["message"] == "input: expected 2 images, got 1"


def test_a_turned_photo_is_measured_on_the_pixels(
    opened: Open, with_heads: OnnxModel, photos: dict[str, Path]
) -> None:
    client = opened({"headed": with_heads})
    turned = io.BytesIO()
    with Image.open(photos["coffee"]) as photo:
        photo.convert("RGB").transpose(Image.Transpose.FLIP_LEFT_RIGHT).rotate(
            90, expand=True
        ).save(turned, "PNG")
    files = [("input", photos["coffee"].read_bytes()), ("input", turned.getvalue())]
    found = client.post("/v1/relate", files=files).json()
    assert (found["by"], found["mirrored"]) == ("pixels", True)
    assert found["angle"] == pytest.approx(90, abs=0.5)
    alone = client.post("/v1/relate", files=files, data={"pixels": "false"}).json()
    assert alone["by"] == "model"
    bad = error(
        client.post("/v1/relate", files=files, data={"pixels": "maybe"}), 400, "invalid_value"
    )
    assert bad["message"] == "pixels: expected true or false, got 'maybe'"
    broken = [("input", files[0][1]), ("input", b"no image")]
    bad = error(client.post("/v1/relate", files=broken), 400, "invalid_image")
    assert bad["param"] == "input[1]"
    bad = error(client.post("/v1/relate", json={"input": [5, "aGVsbG8="]}), 400, "invalid_image")
    assert "input[0]: expected base64" in bad["message"]
    assert "input[1]: not an image" in bad["message"]


def test_without_opencv_the_model_relates_and_keypoints_are_refused(
    opened: Open, with_heads: OnnxModel, photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (schemas, relations):
        monkeypatch.setattr(module, "can_measure", lambda: False)
    client = opened({"headed": with_heads})
    images = [encoded(photos["coffee"])] * 2
    assert client.post("/v1/relate", json={"input": images}).json()["by"] == "model"
    refused = client.post("/v1/relate", json={"input": images, "pixels": True})
    message = error(refused, 400, "invalid_value")["message"]
    assert "this server has no OpenCV" in message
    assert 'pip install "clever-hub[jobs]"' in message


def test_the_key_is_asked_for(opened: Open) -> None:
    client = opened(api_key="s3cret")
    for path in ("/v1/models", "/v1/embeddings", "/metrics", "/openapi.json"):
        answer = client.get(path)
        error(answer, 401, "invalid_api_key")
        assert answer.headers["www-authenticate"] == "Bearer"
        for wrong in ("Bearer s3cret2", "Bearer S3CRET", "Basic s3cret", "Bearers3cret", "s3cret"):
            assert client.get(path, headers={"Authorization": wrong}).status_code == 401
        for scheme in ("Bearer", "bearer", "BEARER"):
            right = {"Authorization": f"{scheme} s3cret"}
            assert client.get(path, headers=right).status_code != 401
    for path in ("/healthz", "/readyz", "/"):
        assert client.get(path).status_code == 200


def test_unknown_paths_and_methods_have_the_same_shape(client: TestClient) -> None:
    error(client.get("/v2/embeddings"), 404, "not_found")
    answer = client.get(URL)
    error(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


def test_health_and_readiness(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready", "models": [NAME]}


def test_metrics_count(client: TestClient, photos: dict[str, Path]) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    client.post(URL, files=[("input", photos["rocket"].read_bytes())] * 3)
    client.post(URL, json={"input": "no image"})
    client.get("/some/path/that/nobody/has")
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }
    assert samples["clever_requests_total", "/v1/embeddings", "200"] == 1
    assert samples["clever_requests_total", "/v1/embeddings", "400"] == 1
    assert samples["clever_requests_total", "404", "other"] == 1
    assert samples["clever_images_total", NAME] == 3
    assert samples["clever_refused_total", "invalid_image"] == 1
    assert samples["clever_decode_seconds_count", NAME] == 4
    assert samples["clever_waiting_images",] == 0


def test_a_request_keeps_a_harmless_id_and_gets_one_otherwise(client: TestClient) -> None:
    kept = client.get("/healthz", headers={"X-Request-Id": "abc-1"})
    assert kept.headers["x-request-id"] == "abc-1"
    for bad in ("x" * 65, "a b", 'a"b'):
        given = client.get("/healthz", headers={"X-Request-Id": bad}).headers["x-request-id"]
        assert given != bad
        assert len(given) == 16


def test_each_request_is_logged(
    client: TestClient, photos: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="clever_hub.serve"):
        client.post(URL, files={"input": photos["rocket"].read_bytes()})
        client.post(URL, json={"input": "no image"})
    fields = [record.fields for record in caplog.records if record.message == "request"]  # type: ignore[attr-defined]
    assert [f["status"] for f in fields] == [200, 400]
    assert (fields[0]["model"], fields[0]["images"]) == (NAME, 1)
    assert fields[1]["code"] == "invalid_image"


def test_the_description_names_every_route(client: TestClient) -> None:
    content = client.get("/openapi.json").json()
    assert content["openapi"].startswith("3.1")
    routes = {
        route.path.replace(":path", "")
        for route in client.app.routes  # type: ignore[attr-defined]
        if hasattr(route, "endpoint") and route.path != "/"
    }
    assert set(content["paths"]) == routes
    fields = content["paths"][URL]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert NAME in fields["properties"]["model"]["enum"]


def test_what_was_fetched_counts_as_a_body_does(
    opened: Open, photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = photos["rocket"].read_bytes()
    monkeypatch.setattr("clever_hub.serve.urls.UrlFetcher.__call__", lambda *_: file)
    room = int(2.5 * len(file))
    client = opened(allow_urls=True, max_memory_bytes=room, max_body_bytes=room)
    url = "https://a.test/rocket.jpg"
    assert client.post(URL, json={"input": [url] * 2}).status_code == 200
    refused = client.post(URL, json={"input": [url] * 3})
    assert "Send fewer" in error(refused, 413, "request_too_large")["message"]
    assert "Retry-After" not in refused.headers, "it never will succeed"
    assert client.post(URL, json={"input": [url] * 2}).status_code == 200, "given back"


def test_addresses_are_fetched_where_allowed(
    opened: Open, onnx_model: OnnxModel, photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = photos["rocket"].read_bytes()
    monkeypatch.setattr("clever_hub.serve.urls.UrlFetcher.__call__", lambda *_: file)
    client = opened(allow_urls=True)
    answer = client.post(URL, json={"input": "https://a.test/rocket.jpg"})
    expected = onnx_model.encode(file).full
    np.testing.assert_allclose(vectors(answer), expected, atol=1e-5)
    monkeypatch.undo()
    inside = client.post(URL, json={"input": ["http://127.0.0.1:1/x", "http://[::1]/"]})
    found = error(inside, 400, "url_not_public")
    assert found["param"] == "input[0]"
