"""What Prometheus reads at ``/metrics``."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The figures of one server, in a registry of their own.

    Attributes:
        content_type: Of the text that ``text`` gives.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._requests = Counter(
            "clever_requests", "Requests answered.", ("path", "status"), registry=registry
        )
        self._latency = Histogram(
            "clever_request_seconds",
            "From the first byte of a request to the last of its answer.",
            ("path",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._refused = Counter(
            "clever_refused", "Requests refused, by the error's code.", ("code",), registry=registry
        )
        self._images = Counter("clever_images", "Images embedded.", ("model",), registry=registry)
        self._batch = Histogram(
            "clever_batch_images",
            "Images that went through the network together.",
            ("model",),
            buckets=_BATCHES,
            registry=registry,
        )
        self._inference = Histogram(
            "clever_inference_seconds",
            "Time of a batch in the network.",
            ("model",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._decode = Histogram(
            "clever_decode_seconds",
            "Time to decode and prepare an image.",
            ("model",),
            buckets=_SECONDS,
            registry=registry,
        )

    def watch(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """Add a gauge that is read when it is asked for.

        Args:
            name: The metric's name.
            help_text: What it is.
            value: Reads it.
        """
        Gauge(name, help_text, registry=self._registry).set_function(value)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            path: The route, not what the client made of it: each value is a time series.
            status: The answer's.
            seconds: How long it took.
        """
        self._requests.labels(path, str(status)).inc()
        self._latency.labels(path).observe(seconds)

    def refused(self, code: str) -> None:
        """Count a request that got an error."""
        self._refused.labels(code).inc()

    def of_model(self, model: str) -> ModelMetrics:
        """What a model's batcher tells its figures to."""
        return ModelMetrics(
            self._images.labels(model),
            self._batch.labels(model),
            self._inference.labels(model),
            self._decode.labels(model),
        )

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self._registry)


class ModelMetrics:
    """A model's figures; see ``Watcher`` in ``batching``."""

    def __init__(
        self, images: Counter, batch: Histogram, inference: Histogram, decode: Histogram
    ) -> None:
        self._images, self._batch = images, batch
        self._inference, self._decode = inference, decode

    def decoded(self, seconds: float) -> None:
        """An image was decoded, well or not."""
        self._decode.observe(seconds)

    def computed(self, images: int, seconds: float) -> None:
        """A batch went through the network."""
        self._images.inc(images)
        self._batch.observe(images)
        self._inference.observe(seconds)
