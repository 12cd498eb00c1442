"""The HTTP application: routes, errors, and the life of its threads."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any, TypeAlias, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from clever_hub.jobs.answering import JobsMixin
from clever_hub.serve.answers import Json, embeddings_answer, error_answer, model_answers
from clever_hub.serve.bodies import read_fields
from clever_hub.serve.errors import ApiError
from clever_hub.serve.limits import Slot
from clever_hub.serve.logs import event
from clever_hub.serve.middleware import ApiKey, Observed
from clever_hub.serve.openapi import description
from clever_hub.serve.relations import most_to_orient, orientation_answer, relation_answer
from clever_hub.serve.schemas import embeddings_request, images_request, relate_request
from clever_hub.serve.service import Service
from clever_hub.serve.settings import Settings

Fields: TypeAlias = dict[str, Any]
Answer: TypeAlias = Callable[[Service, Fields, Slot, Fields], Awaitable[Fields]]
T = TypeVar("T")

PAGE = Path(__file__).parent / "page"
_READY_SECONDS = 1.0  # a check of readiness stands for this long: whoever asks often costs nothing
_READY_TIMEOUT = 10.0


def create_app(models: Mapping[str, JobsMixin], settings: Settings | None = None) -> Starlette:
    """Make the application.

    Args:
        models: The models by the name that requests use.
        settings: The limits; None is the defaults.

    Returns:
        An ASGI application. Its threads end with its lifespan.

    Raises:
        ConfigError: When there is no model, or a name cannot be used.

    Example:
        >>> import clever_hub
        >>> model = clever_hub.from_pretrained("clever-resnet18", backend="onnx")  # doctest: +SKIP
        >>> app = create_app({"clever-resnet18": model})  # doctest: +SKIP
    """
    settings = settings or Settings()
    service = Service(models, settings)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        event(logging.INFO, "stopping", waiting=service.gate.images)
        await asyncio.to_thread(service.close)
        event(logging.INFO, "stopped")

    app = Starlette(
        routes=_routes(service),
        middleware=[Middleware(Observed, service=service), Middleware(ApiKey, settings=settings)],
        exception_handlers={HTTPException: _http_error, ApiError: _api_error},
        lifespan=lifespan,
    )
    app.state.service = service
    return app


def _routes(service: Service) -> list[BaseRoute]:
    ready = _Readiness(service)
    routes: list[BaseRoute] = [
        Route("/v1/embeddings", _endpoint(service, _embeddings), methods=["POST"]),
        Route("/v1/relate", _endpoint(service, _relate), methods=["POST"]),
        Route("/v1/orient", _endpoint(service, _orient), methods=["POST"]),
        Route("/v1/models", _models(service)),
        Route("/v1/models/{name:path}", _model(service)),
        Route("/healthz", _healthz),
        Route("/readyz", ready.answer),
        Route("/metrics", _metrics(service)),
        Route("/openapi.json", _openapi(service)),
    ]
    if service.settings.page:
        routes += [
            Route("/", _index),
            Mount("/page", StaticFiles(directory=PAGE)),
        ]
    return routes


async def _embeddings(service: Service, fields: Fields, slot: Slot, log: Fields) -> Fields:
    request = embeddings_request(fields, service.settings)
    served, part = service.find(request.model)
    slot.grow(images=len(request.pictures) - 1)
    name = request.model or served.name
    log.update(model=name, images=len(request.pictures))
    embeddings = await service.embed(served, request.pictures, slot)
    return embeddings_answer(request, name, part, embeddings)


async def _relate(service: Service, fields: Fields, slot: Slot, log: Fields) -> Fields:
    request = relate_request(fields, service.settings)
    served, _ = service.find(request.model)
    # Both in eight positions; a server of a short queue answers all the same.
    slot.grow(images=min(15, service.settings.max_queue - 1))
    log.update(model=served.name, images=2)
    return await relation_answer(service, served, request, slot)


async def _orient(service: Service, fields: Fields, slot: Slot, log: Fields) -> Fields:
    most = most_to_orient(service.settings)
    request = images_request(fields, service.settings, most=most)
    served, _ = service.find(request.model)
    # Each in four positions.
    slot.grow(images=min(4 * len(request.pictures), service.settings.max_queue) - 1)
    log.update(model=served.name, images=len(request.pictures))
    return await orientation_answer(service, served, request.pictures, slot)


def _endpoint(
    service: Service, answer: Answer
) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    """Let a request in, read it, answer it in time, and turn what goes wrong into an answer."""

    async def run(request: Request) -> Response:
        log: Fields = request.state.log
        end = monotonic() + service.settings.timeout  # of the body and the answer together
        try:
            with service.gate.admit() as slot:
                fields = await read_fields(request, service.settings, slot)
                work = answer(service, fields, slot, log)
                return Json(await _in_time(request, work, end, service.settings.timeout))
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it; the log and the metrics tell
        except ApiError as error:
            service.metrics.refused(error.code)
            log.update(code=error.code, reason=str(error)[:500])
            return error_answer(error)
        except Exception:
            event(logging.ERROR, "failed", id=request.state.id, path=request.url.path)
            logging.getLogger("clever_hub.serve").exception("the error was")
            service.metrics.refused("internal_error")
            message = f"the server failed; its log tells more under id {request.state.id}"
            return error_answer(ApiError(500, "internal_error", message))

    return run


async def _in_time(request: Request, work: Awaitable[T], end: float, seconds: float) -> T:
    """What the work gives; the work ends when the client leaves or the time is over.

    ``end`` is of ``monotonic``, ``seconds`` is told.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        done, _ = await asyncio.wait(
            {task, gone}, timeout=max(0.0, end - monotonic()), return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
    if task in done:
        return task.result()
    if gone in done:
        raise ClientDisconnect
    raise ApiError(503, "timeout", f"no answer within {seconds:g} s. Try again", retry_after=1)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _models(service: Service) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    async def run(_: Request) -> Response:
        most = service.settings.max_inputs
        served = service.served.values()
        entries = [entry for one in served for entry in model_answers(one, most)]
        return Json({"object": "list", "data": entries})

    return run


def _model(service: Service) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    async def run(request: Request) -> Response:
        name = request.path_params["name"]
        served, _ = service.find(name)
        entries = model_answers(served, service.settings.max_inputs)
        return Json(next(entry for entry in entries if entry["id"] == name))

    return run


def _metrics(service: Service) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    async def run(_: Request) -> Response:
        return Response(service.metrics.text(), media_type=service.metrics.content_type)

    return run


def _openapi(service: Service) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    async def run(_: Request) -> Response:
        return Json(description(service))

    return run


async def _healthz(_: Request) -> Response:
    return Json({"status": "ok"})


async def _index(_: Request) -> Response:
    return FileResponse(PAGE / "index.html")


class _Readiness:
    """Whether every model answers; one inference for all who ask within a second."""

    def __init__(self, service: Service) -> None:
        self._service, self._lock = service, asyncio.Lock()
        self._checked, self._problem = 0.0, ""

    async def answer(self, _: Request) -> Response:
        """200 when they do, else 503."""
        async with self._lock:
            if not self._checked or time.monotonic() - self._checked > _READY_SECONDS:
                self._problem = await self._check()
                self._checked = time.monotonic()
        if self._problem:
            error = ApiError(503, "not_ready", f"not ready: {self._problem}", retry_after=1)
            return error_answer(error)
        return Json({"status": "ready", "models": list(self._service.served)})

    async def _check(self) -> str:
        try:
            async with asyncio.timeout(_READY_TIMEOUT):
                await self._service.check()
        except TimeoutError:
            return f"no answer within {_READY_TIMEOUT:g} s"
        except Exception as error:
            logging.getLogger("clever_hub.serve").exception("the check of readiness failed")
            return type(error).__name__
        return ""


def _http_error(_: Request, error: Exception) -> Response:
    """Starlette's own: an unknown path, a method that a path does not have."""
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    answer = error_answer(ApiError(error.status_code, code, str(error.detail)))
    answer.headers.update(error.headers or {})
    return answer


def _api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_answer(error)
