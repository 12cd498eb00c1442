"""What was done to a photo, by a model's heads: answers of ``/v1/relate`` and ``/v1/orient``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clever_hub.jobs.heads import Heads
from clever_hub.jobs.orient import orientation_from_four
from clever_hub.jobs.pixels import can_measure, measured
from clever_hub.jobs.relate import relate, relate_from_eight
from clever_hub.jobs.relation import Relation
from clever_hub.serve.errors import ApiError
from clever_hub.serve.limits import Slot
from clever_hub.serve.schemas import Picture, RelateRequest
from clever_hub.serve.service import Served, Service
from clever_hub.serve.settings import Settings


async def relation_answer(
    service: Service, served: Served, request: RelateRequest, slot: Slot
) -> dict[str, Any]:
    """How the second of two photos was made from the first, as ``model.relate`` tells.

    Args:
        service: The server.
        served: The model.
        request: Of two images. Where keypoints do not match, both go through the network in all
            eight positions.
        slot: Is grown by the bytes of images that are fetched.

    Returns:
        The JSON: the fields of ``clever_hub.Relation``; null is unknown.

    Raises:
        ApiError: 400, when the model has no heads or an image cannot be read.
    """
    relation = await _relation(service, served, request, slot, _heads(served))
    return {"object": "relation", "model": served.name, **relation.to_dict()}


async def _relation(
    service: Service, served: Served, request: RelateRequest, slot: Slot, heads: Heads
) -> Relation:
    a, b = await service.fetched(request.pictures, slot)
    by_pixels = can_measure() if request.pixels is None else request.pixels
    if not by_pixels:
        eight_a, eight_b = await service.embed_pair(served, a, b)
        return relate_from_eight(eight_a, eight_b, heads)[0]
    alignment = await service.align(served, a, b)
    if alignment.same:  # one look tells `same`
        both = await service.embed(served, [a, b])
        found = relate(both[:1], both[1:], heads, given_same=True)
    else:
        eight_a, eight_b = await service.embed_pair(served, a, b)
        found = relate_from_eight(eight_a, eight_b, heads, given_same=True)
    return measured(found, [alignment])[0]


def most_to_orient(settings: Settings) -> int:
    """How many photos a request may ask the orientation of.

    Args:
        settings: The limits.

    Returns:
        So many that the four positions of each find room in the server; one at least.

    Example:
        >>> most_to_orient(Settings(max_queue=20, max_inputs=20))
        5
    """
    return min(settings.max_inputs, max(1, settings.max_queue // 4))


async def orientation_answer(
    service: Service, served: Served, pictures: Sequence[Picture], slot: Slot
) -> dict[str, Any]:
    """By how much each photo is turned.

    Args:
        service: The server.
        served: The model.
        pictures: The images; each goes through the network in all four positions.
        slot: As for ``relation_answer``.

    Returns:
        The JSON: for each image, the fields of ``clever_hub.Orientation``.

    Raises:
        ApiError: 400, when the model has no heads or an image cannot be read.
    """
    heads = _heads(served)
    four = await service.embed_turned(served, pictures, slot)
    found = orientation_from_four(four, heads)
    entries = [
        {
            "object": "orientation",
            "index": index,
            "angle": float(found.angle[index]),
            "quarter": int(found.quarter[index]),
            "confidence": float(found.confidence[index]),
        }
        for index in range(len(pictures))
    ]
    return {"object": "list", "data": entries, "model": served.name}


def _heads(served: Served) -> Heads:
    if not served.model.has_heads:
        raise ApiError(
            400,
            "no_heads",
            f"model: {served.name}: this model has no heads, which tell what was done to a photo. "
            "Its entry in /v1/models says so; serve one with heads",
            param="model",
        )
    return served.model.heads
