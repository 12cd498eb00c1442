"""From an HTTP request to its fields: JSON or multipart, every byte counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import orjson
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from clever_hub.serve.errors import ApiError, invalid, too_many
from clever_hub.serve.limits import Slot
from clever_hub.serve.settings import Settings

_FILE_FIELDS = ("input", "input[]")
_MAX_FIELDS, _MAX_FIELD_BYTES = 16, 1_000


async def read_fields(request: Request, settings: Settings, slot: Slot) -> dict[str, Any]:
    """Read a request's body.

    Args:
        request: ``application/json``, or ``multipart/form-data`` with files named ``input``.
        settings: The limits.
        slot: Is grown by the bytes that arrive.

    Returns:
        The fields by name. Of multipart, ``input`` is a list of the bytes of the files, and the
        others are texts.

    Raises:
        ApiError: 400 for what cannot be parsed, 408 for a body that does not arrive, 413 for one
            that is too large, 415 for another content type, 503 when its bytes find no room.
        ClientDisconnect: When the client leaves in the middle.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("application/json", "multipart/form-data"):
        raise ApiError(
            415,
            "unsupported_media_type",
            "Content-Type: expected application/json or multipart/form-data, got "
            f"{kind[:80] or 'none'}",
        )
    if (encoding := request.headers.get("content-encoding", "identity")).lower() != "identity":
        raise ApiError(
            415,
            "unsupported_media_type",
            f"Content-Encoding: expected none, got {encoding[:80]}. Image files are compressed",
        )
    body = _counted(request, settings, slot)
    try:
        async with asyncio.timeout(settings.timeout):
            if kind == "application/json":
                return await _json(body)
            return await _multipart(request.headers, body, settings)
    except TimeoutError as error:
        raise ApiError(
            408, "body_timeout", f"the body did not arrive within {settings.timeout:g} s"
        ) from error


async def _counted(request: Request, settings: Settings, slot: Slot) -> AsyncGenerator[bytes, None]:
    """The body as it comes; counted here, because Content-Length may be absent."""
    length = request.headers.get("content-length", "")
    if length.isdecimal():
        _check_size(int(length), settings)
        slot.grow(body_bytes=int(length))
    counted, reserved = 0, slot.body_bytes
    async for chunk in request.stream():
        counted += len(chunk)
        _check_size(counted, settings)
        if counted > reserved:
            slot.grow(body_bytes=counted - reserved)
            reserved = counted
        yield chunk


def _check_size(size: int, settings: Settings) -> None:
    if size > settings.max_body_bytes:
        raise ApiError(
            413,
            "body_too_large",
            f"the body: expected at most {settings.max_body_bytes:,} bytes, got {size:,} or more. "
            "Send fewer images at once, or smaller ones",
        )


async def _json(body: AsyncGenerator[bytes, None]) -> dict[str, Any]:
    content = b"".join([chunk async for chunk in body])
    try:
        fields = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, "invalid_json", f"the body is no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ApiError(400, "invalid_json", "the body: expected a JSON object with the key input")
    return fields


class _InMemory(MultiPartParser):
    """The body is bounded and counted already: nothing goes to disk."""

    spool_max_size = 0  # never rolls over
    _ended = False

    def on_end(self) -> None:
        """The closing boundary was met."""
        self._ended = True

    async def whole(self, body: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """The body; one without a closing boundary, which the parser would take, is an error."""
        async for chunk in body:
            yield chunk
        if not self._ended:
            raise MultiPartException("expected the closing boundary at its end, got none")


async def _multipart(
    headers: Headers, body: AsyncGenerator[bytes, None], settings: Settings
) -> dict[str, Any]:
    parser = _InMemory(
        headers,
        body,
        max_files=settings.max_inputs,
        max_fields=_MAX_FIELDS,
        max_part_size=_MAX_FIELD_BYTES,
    )
    parser.stream = parser.whole(body)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise too_many(settings.max_inputs) from error
        message = error.message
        if "exceeded maximum size" in message:
            message = f"expected texts of at most {_MAX_FIELD_BYTES:,} bytes, got a longer one. "
            message += "Send images as files, as in -F input=@a.jpg"
        raise ApiError(400, "invalid_multipart", f"the body: {message}") from error
    try:
        return await _sorted(form)
    finally:
        await form.close()


async def _sorted(form: FormData) -> dict[str, Any]:
    """The fields of a form, its files under ``input``."""
    fields: dict[str, Any] = {}
    files: list[bytes] = []
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name not in _FILE_FIELDS:
                raise invalid(name[:80], "expected files to be named input, as in -F input=@a.jpg")
            files.append(await value.read())
        elif name in fields:
            raise invalid(name[:80], "given twice")
        else:
            fields[name] = value
    if files:
        if "input" in fields:
            raise invalid("input", "expected files or a text, got both")
        fields["input"] = files
    return fields
