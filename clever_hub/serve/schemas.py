"""What the requests say: fields checked, each error naming the field."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from clever_hub.errors import suggest
from clever_hub.jobs.pixels import can_measure
from clever_hub.serve.errors import invalid, too_many
from clever_hub.serve.settings import Settings


@dataclass(frozen=True)
class NoPicture:
    """What came where an image should be; refused with the other bad images of its request.

    Attributes:
        shown: What it is, short.
    """

    shown: str


# The bytes of a file, or a text that stands for them: base64, a data URI, an address.
Picture: TypeAlias = bytes | str | NoPicture

_COMMON = ("model", "input", "user")
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True)
class Request:
    """What every request says.

    Attributes:
        model: The name of the model; None where the request leaves it out.
        pictures: The images, as they came.
    """

    model: str | None
    pictures: list[Picture]


@dataclass(frozen=True)
class EmbeddingsRequest(Request):
    """A request for embeddings.

    Attributes:
        encoding_format: ``"float"``: lists of numbers; ``"base64"``: the bytes of little-endian
            float32.
        dimensions: How many of the first entries to give; None for all.
        normalize: Whether to give unit vectors.
    """

    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    normalize: bool = False


@dataclass(frozen=True)
class RelateRequest(Request):
    """A request for the relation of two images.

    Attributes:
        pixels: Whether to lay the second onto the first by keypoints; None does where OpenCV is
            installed.
    """

    pixels: bool | None = None


def embeddings_request(fields: Mapping[str, Any], settings: Settings) -> EmbeddingsRequest:
    """Check the fields of a request for embeddings.

    Args:
        fields: As ``read_fields`` gives them; numbers and truth values may be texts, as in forms.
        settings: The limits.

    Returns:
        The request.

    Raises:
        ApiError: 400, when a field is missing, unknown or wrong.

    Example:
        >>> embeddings_request({"input": "aGk="}, Settings()).pictures
        ['aGk=']
    """
    extra = ("encoding_format", "dimensions", "normalize", "modality")
    model, pictures = _common(fields, settings, extra)
    encoding: Any = fields.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise invalid("encoding_format", f"expected 'float' or 'base64', got {_shown(encoding)}")
    # Other servers embed texts, too, and their clients say which it is.
    if fields.get("modality") not in (None, "image"):
        raise invalid("modality", f"expected 'image', got {_shown(fields['modality'])}")
    given = fields.get("normalize")  # null is as if it were absent, here and in the other fields
    return EmbeddingsRequest(
        model,
        pictures,
        encoding_format=encoding,
        dimensions=_dimensions(fields.get("dimensions")),
        normalize=given is not None and _truth("normalize", given),
    )


def relate_request(fields: Mapping[str, Any], settings: Settings) -> RelateRequest:
    """Check the fields of a request for the relation of two images.

    Args:
        fields: As ``read_fields`` gives them.
        settings: The limits.

    Returns:
        The request.

    Raises:
        ApiError: 400, when a field is missing, unknown or wrong, or keypoints are asked for where
            OpenCV is not installed.
    """
    model, pictures = _common(fields, settings, ("pixels",))
    if len(pictures) != 2:
        raise invalid("input", f"expected 2 images, got {len(pictures)}")
    given = fields.get("pixels")
    pixels = None if given is None else _truth("pixels", given)
    if pixels and not can_measure():
        raise invalid(
            "pixels",
            "this server has no OpenCV, which finds keypoints. Leave the field out, or install "
            'it: pip install "clever-hub[jobs]"',
        )
    return RelateRequest(model, pictures, pixels=pixels)


def images_request(
    fields: Mapping[str, Any],
    settings: Settings,
    *,
    most: int | None = None,
) -> Request:
    """Check the fields of a request that has a model and images.

    Args:
        fields: As ``read_fields`` gives them.
        settings: The limits.
        most: How many it may have, where that is less than in other requests.

    Returns:
        The request.

    Raises:
        ApiError: 400, when a field is missing, unknown or wrong.
    """
    request = Request(*_common(fields, settings))
    if most is not None and len(request.pictures) > most:
        raise too_many(most, str(len(request.pictures)))
    return request


def _common(
    fields: Mapping[str, Any], settings: Settings, extra: Collection[str] = ()
) -> tuple[str | None, list[Picture]]:
    known = {*_COMMON, *extra}
    for name in fields.keys() - known:
        raise invalid(name[:80], f"unknown. {suggest(name[:80], known)}", "unknown_field")
    model = fields.get("model")
    if model is not None and not isinstance(model, str):
        raise invalid("model", f"expected a name, got {_shown(model)}")
    return model, _pictures(fields.get("input"), settings)


def _pictures(given: object, settings: Settings) -> list[Picture]:
    several = given if isinstance(given, list) else [given]
    if given is None or not several:
        raise invalid("input", "expected an image or a list of images, got none", "missing_input")
    if len(several) > settings.max_inputs:
        raise too_many(settings.max_inputs, str(len(several)))
    return [_picture(entry) for entry in several]


def _picture(entry: object) -> Picture:
    if isinstance(entry, dict) and entry.keys() == {"image"}:  # as other servers tell kinds apart
        entry = entry["image"]
    return entry if isinstance(entry, (bytes, str)) else NoPicture(_shown(entry))


def _dimensions(given: object) -> int | None:
    if given is None:
        return None
    number = given
    if isinstance(given, str) and given.isdecimal() and len(given) < 10:
        number = int(given)
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise invalid("dimensions", f"expected a whole number of 1 or more, got {_shown(given)}")
    return number


def _truth(name: str, given: object) -> bool:
    if isinstance(given, bool):
        return given
    if isinstance(given, str) and given.lower() in _TRUTH:
        return _TRUTH[given.lower()]
    raise invalid(name, f"expected true or false, got {_shown(given)}")


def _shown(value: object) -> str:
    """A stranger's value, short."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
