"""``clever-hub serve``: embeddings over HTTP."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from clever_hub.cli.console import say
from clever_hub.cli.options import Device, Revision
from clever_hub.errors import ConfigError, require

if TYPE_CHECKING:
    from clever_hub.jobs.answering import JobsMixin


class _Decode(StrEnum):
    exact = "exact"
    reduced = "reduced"


class _Precision(StrEnum):
    float32 = "float32"
    int8 = "int8"


class _LogFormat(StrEnum):
    json = "json"
    text = "text"


class _LogLevel(StrEnum):
    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


def run(  # noqa: PLR0913, PLR0917  # one for each option
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="As for `embed`. `NAME=MODEL` serves it under another name.",
        ),
    ],
    host: Annotated[
        str, typer.Option(help="The address to listen on; 0.0.0.0 is all of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 picks a free one.")] = 8000,
    max_batch: Annotated[int, typer.Option(min=1, help="Largest batch of the network.")] = 32,
    max_wait_ms: Annotated[
        float,
        typer.Option(
            min=0, help="How long an image waits for others while images queue to be decoded."
        ),
    ] = 4.0,
    max_queue: Annotated[
        int, typer.Option(min=1, help="Most images in the server; others get 503.")
    ] = 256,
    max_inputs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Most images in a request, at most --max-queue. [default: 64]",
            show_default=False,
        ),
    ] = None,
    max_body_mb: Annotated[
        float, typer.Option(min=0.001, help="Largest body of a request, in MB.")
    ] = 32.0,
    max_image_mb: Annotated[
        float, typer.Option(min=0.001, help="Largest image file, in MB.")
    ] = 20.0,
    max_megapixels: Annotated[
        float, typer.Option(min=0.001, help="Largest image, in millions of pixels.")
    ] = 50.0,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Longest time of a request, in seconds.")
    ] = 30.0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the network; all cores when left out.")
    ] = None,
    precision: Annotated[
        _Precision,
        typer.Option(help="int8: several times faster on CPUs; made once, checked, and cached."),
    ] = _Precision.float32,
    decode: Annotated[
        _Decode,
        typer.Option(help="reduced: the JPEG decoder shrinks large photos, several times faster."),
    ] = _Decode.exact,
    decode_threads: Annotated[
        int | None, typer.Option(min=1, help="Threads that decode; one for each core.")
    ] = None,
    allow_urls: Annotated[
        bool,
        typer.Option("--allow-urls", help="Fetch images from public http and https addresses."),
    ] = False,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="CLEVER_HUB_API_KEY",
            show_envvar=True,
            help="Key that clients send as `Authorization: Bearer KEY`. The environment variable "
            "keeps it out of the list of processes.",
        ),
    ] = None,
    page: Annotated[bool, typer.Option(help="Show a page at / to try the models.")] = True,
    log_format: Annotated[
        _LogFormat, typer.Option(help="Format of the log, one line for each request.")
    ] = _LogFormat.json,
    log_level: Annotated[_LogLevel, typer.Option(help="Lowest level to log.")] = _LogLevel.info,
    device: Device = None,
    revision: Revision = None,
) -> None:
    """Serve models over HTTP, with a page at `/` to try them.

    `POST /v1/embeddings` takes what embedding servers take (`model`, `input`, `encoding_format`,
    `dimensions`); a model answers as `NAME`, `NAME:invariant` and `NAME:equivariant`. Also
    `/v1/relate`, `/v1/orient`, `/v1/models`, `/healthz`, `/readyz`, `/metrics`, `/openapi.json`.
    On SIGTERM it answers the requests that it has accepted, then stops.

    Examples:
    - `clever-hub serve clever-resnet18`
    - `curl -F input=@a.jpg -F model=clever-resnet18:invariant localhost:8000/v1/embeddings`
    - `clever-hub serve small=clever-resnet18 big=runs/mine/model --host 0.0.0.0 --port 80`
    """
    for module in ("onnxruntime", "starlette", "uvicorn", "prometheus_client", "python_multipart"):
        require(module, "serve")
    from clever_hub.serve import server
    from clever_hub.serve.app import create_app
    from clever_hub.serve.batching import yield_to_others
    from clever_hub.serve.logs import set_up
    from clever_hub.serve.settings import Settings

    settings = Settings(
        max_batch=max_batch,
        max_wait_ms=max_wait_ms,
        max_queue=max_queue,
        max_inputs=min(64, max_queue) if max_inputs is None else max_inputs,
        max_body_bytes=round(max_body_mb * 1e6),
        max_image_bytes=round(max_image_mb * 1e6),
        max_pixels=round(max_megapixels * 1e6),
        max_memory_bytes=max(256_000_000, round(max_body_mb * 1e6)),
        timeout=timeout,
        decode="reduced" if decode is _Decode.reduced else "exact",
        decode_threads=decode_threads,
        allow_urls=allow_urls,
        api_key=api_key,
        page=page,
    )
    with closing(server.bind(host, port)) as taken:
        # The threads of the network inherit the order of the one that starts them.
        with ThreadPoolExecutor(1, initializer=yield_to_others) as loader:
            loaded = loader.submit(
                _load, models, device, revision, threads, precision.value
            ).result()
        set_up(log_level.value, as_json=log_format is _LogFormat.json)
        if page:
            address = f"http://{server.in_url(host)}:{taken.getsockname()[1]}/"
            say(f"A page to try {', '.join(loaded)} on: {address}")
        # Answered to the end, the process ends by the signal itself, as its supervisor expects.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        server.run(create_app(loaded, settings), taken, settings)


def _load(
    given: list[str],
    device: str | None,
    revision: str | None,
    threads: int | None,
    precision: str,
) -> dict[str, JobsMixin]:
    from clever_hub.pretrained import from_pretrained

    if revision is not None and len(given) > 1:
        raise ConfigError("--revision: is of one model, got several. Serve them one by one")
    loaded: dict[str, JobsMixin] = {}
    for entry in given:
        name, equals, wanted = entry.partition("=")
        model = from_pretrained(
            wanted if equals else entry,
            backend="onnx",
            device=device,
            revision=revision,
            threads=threads,
            precision=precision,
        )
        if not equals:
            source = model.source
            assert source is not None  # it was loaded
            name = model.config.name if source.kind == "folder" else source.name
        if name in loaded:
            raise ConfigError(f"two models called {name!r}. Name one: OTHER={entry}")
        loaded[name] = model
    return loaded
