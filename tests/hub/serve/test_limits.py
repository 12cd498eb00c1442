"""Who gets in, and what those are told who do not."""

from __future__ import annotations

import pytest

from clever_hub.errors import ConfigError
from clever_hub.serve.errors import ApiError
from clever_hub.serve.limits import Gate
from clever_hub.serve.settings import Settings


def test_images_are_bounded_and_given_back() -> None:
    gate = Gate(Settings(max_queue=3, max_inputs=3))
    with gate.admit() as slot:
        slot.grow(images=2)
        with pytest.raises(ApiError, match="3 images are waiting, 3 may") as caught, gate.admit():
            raise AssertionError("let in")
        assert caught.value.status == 503
        assert caught.value.retry_after is not None
        assert caught.value.retry_after >= 1
    assert gate.images == 0
    with gate.admit():
        assert gate.images == 1


def test_bytes_are_bounded_and_given_back() -> None:
    gate = Gate(Settings(max_memory_bytes=100, max_body_bytes=100))
    with gate.admit() as slot:
        slot.grow(body_bytes=80)
        with gate.admit() as other, pytest.raises(ApiError, match="80 bytes are waiting"):
            other.grow(body_bytes=21)
        slot.grow(body_bytes=20)
    assert gate.body_bytes == 0


def test_a_request_that_finds_no_room_leaves_nothing_behind() -> None:
    gate = Gate(Settings(max_queue=4, max_inputs=4))
    with pytest.raises(ApiError), gate.admit() as slot:
        slot.grow(images=4)
    assert gate.images == 0


def test_who_is_refused_is_told_how_long_the_queue_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("clever_hub.serve.limits.time.monotonic", lambda: now)
    gate = Gate(Settings(max_queue=100))
    for _ in range(200):  # ten images a second
        with gate.admit():
            now += 0.1
    with gate.admit() as slot:
        slot.grow(images=99)
        with pytest.raises(ApiError) as caught:
            gate.take(1, 0)
    assert caught.value.retry_after in range(10, 13)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_batch": 0}, "max_batch: expected 1 or more, got 0"),
        ({"timeout": 0}, "expected timeout above 0"),
        ({"max_wait_ms": -1}, "max_wait_ms of 0 or more"),
        ({"decode_threads": 0}, "decode_threads: expected 1 or more"),
        ({"max_inputs": 300}, "max_inputs: expected at most max_queue"),
        ({"max_body_bytes": 10**9}, "max_body_bytes: expected at most max_memory_bytes"),
        ({"api_key": ""}, "api_key: expected ASCII"),
        ({"api_key": "schlüssel"}, "api_key: expected ASCII"),
    ],
)
def test_settings_that_cannot_work_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Settings(**options)  # type: ignore[arg-type]


def test_no_more_pixels_than_can_be_decoded_are_promised() -> None:
    assert Settings(max_pixels=178_956_970).max_pixels == 178_956_970
    with pytest.raises(ConfigError, match="max_pixels: expected at most 178956970, as Pillow"):
        Settings(max_pixels=300_000_000)
