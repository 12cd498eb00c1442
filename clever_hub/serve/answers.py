"""What the answers say: embeddings, models and errors, in the shape that clients read."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.responses import Response

from clever_hub.embeddings import Embeddings
from clever_hub.serve.errors import ApiError, invalid
from clever_hub.serve.schemas import EmbeddingsRequest
from clever_hub.serve.service import Part, Served

_TINY = 1e-12


class Json(Response):
    """An answer in JSON; float32 arrays become the shortest numbers that read back the same."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes."""
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def error_answer(error: ApiError) -> Json:
    """The answer to a request that cannot be served."""
    return Json(error.body(), error.status, error.headers())


def embeddings_answer(
    request: EmbeddingsRequest, name: str, part: Part, embeddings: Embeddings
) -> dict[str, Any]:
    """The answer to a request for embeddings.

    Args:
        request: What was asked for.
        name: What the request calls the model.
        part: Which part of the embedding that means.
        embeddings: Of its images, in order.

    Returns:
        The JSON.

    Raises:
        ApiError: 400, when more dimensions are asked for than there are.
    """
    vectors: NDArray[np.float32] = getattr(embeddings, part)
    if request.dimensions is not None:
        if request.dimensions > vectors.shape[1]:
            raise invalid("dimensions", f"{name} has {vectors.shape[1]}, got {request.dimensions}")
        vectors = vectors[:, : request.dimensions]
    if request.normalize:
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _TINY)
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, vector in enumerate(_encoded(vectors, request.encoding_format))
        ],
        "model": name,
        # Clients made for texts insist on it; images have no tokens.
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
    }


def _encoded(vectors: NDArray[np.float32], encoding: str) -> list[Any]:
    if encoding == "float":
        return list(np.ascontiguousarray(vectors))
    rows = np.ascontiguousarray(vectors, dtype="<f4")
    return [base64.b64encode(row.tobytes()).decode() for row in rows]


def model_answers(served: Served, max_inputs: int) -> list[dict[str, Any]]:
    """The entries of a model in the list of models, one for each part.

    Args:
        served: The model.
        max_inputs: How many images a request may have.

    Returns:
        The JSON of each.
    """
    config = served.model.config
    source = served.model.source
    return [
        {
            "id": name,
            "object": "model",
            "created": 0,
            "owned_by": "clever-hub",
            "part": part,
            "dimensions": length,
            "image_size": config.preprocessing.crop_size,
            "mean": [round(255 * value) for value in config.preprocessing.mean],
            "backbone": config.architecture,
            "data": str(config.provenance.get("data", "")),
            "license": config.license,
            "weights_sha256": source.weights_sha256 if source else None,
            "heads": served.model.has_heads,
            "max_inputs": max_inputs,
        }
        for name, (part, length) in served.parts().items()
    ]
