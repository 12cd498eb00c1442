"""What a server allows and how it batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clever_hub.errors import ConfigError
from clever_hub.threads import available_cores

_PILLOWS_LIMIT = 178_956_970  # twice its MAX_IMAGE_PIXELS


@dataclass(frozen=True)
class Settings:
    """What a server allows and how it batches.

    Attributes:
        max_batch: Most images that the network sees at once.
        max_wait_ms: Longest time that a decoded image waits for others, in milliseconds. It waits
            only while more images are to be decoded than threads decode.
        max_queue: Most images in the server, from the first byte of a request to its answer.
            Requests beyond that get 503.
        max_inputs: Most images in one request.
        max_body_bytes: Largest body of a request.
        max_image_bytes: Largest image file.
        max_pixels: Most pixels of an image, width times height; at most 178,956,970.
        max_memory_bytes: Most bytes of bodies in the server, all requests together.
        timeout: Longest time that a request takes, in seconds, its body included; then it gets 503
            (408 while its body arrives), and what it still had waiting is dropped.
        decode: ``"exact"``, or ``"reduced"``: lets the JPEG decoder shrink large photos; see
            ``clever_hub.images.options``.
        decode_threads: Threads that decode images; None is one for each core.
        allow_urls: Whether images may be fetched from public http and https addresses.
        api_key: What ``Authorization: Bearer`` must carry; None asks for nothing.
        page: Whether ``/`` shows the page.

    Example:
        >>> Settings(max_batch=8).max_batch
        8
        >>> Settings(max_inputs=1_000)
        Traceback (most recent call last):
        clever_hub.errors.ConfigError: max_inputs: expected at most max_queue (256), got 1000
    """

    max_batch: int = 32
    max_wait_ms: float = 4.0
    max_queue: int = 256
    max_inputs: int = 64
    max_body_bytes: int = 32_000_000
    max_image_bytes: int = 20_000_000
    max_pixels: int = 50_000_000
    max_memory_bytes: int = 256_000_000
    timeout: float = 30.0
    decode: Literal["exact", "reduced"] = "exact"
    decode_threads: int | None = None
    allow_urls: bool = False
    api_key: str | None = None
    page: bool = True

    def __post_init__(self) -> None:
        numbers = ("max_batch", "max_queue", "max_inputs", "max_body_bytes", "max_image_bytes")
        for name in (*numbers, "max_pixels", "max_memory_bytes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected 1 or more, got {getattr(self, name)}")
        if self.max_pixels > _PILLOWS_LIMIT:
            raise ConfigError(
                f"max_pixels: expected at most {_PILLOWS_LIMIT}, as Pillow decodes no larger "
                f"image, got {self.max_pixels}"
            )
        if not self.timeout > 0 or not self.max_wait_ms >= 0:
            raise ConfigError(
                f"expected timeout above 0 and max_wait_ms of 0 or more, got {self.timeout} and "
                f"{self.max_wait_ms}"
            )
        if self.decode_threads is not None and self.decode_threads < 1:
            raise ConfigError(f"decode_threads: expected 1 or more, got {self.decode_threads}")
        # What is above these could never be answered.
        for name, limit in (("max_inputs", "max_queue"), ("max_body_bytes", "max_memory_bytes")):
            if getattr(self, name) > getattr(self, limit):
                raise ConfigError(
                    f"{name}: expected at most {limit} ({getattr(self, limit)}), got "
                    f"{getattr(self, name)}"
                )
        if self.api_key is not None and not (self.api_key and self.api_key.isascii()):
            raise ConfigError("api_key: expected ASCII characters, one at least")

    @property
    def threads(self) -> int:
        """How many threads decode."""
        return self.decode_threads or min(8, available_cores())
