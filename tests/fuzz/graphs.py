"""Damaged ONNX graphs that are still graphs: a field changed, an entry of a list lost or moved.

Bytes changed at random break the framing of protobuf, so that nothing behind the parser is tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx

Rng = np.random.Generator
_INTEGERS = (0, 1, -1, 2, 3, 127, 255, 65_535, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63))
_FLOATS = (0.0, -1.0, 1e-45, 3e38, float("inf"), float("nan"))
_WORDS = ("", "0", "-1", "99999999999999999999", "../../x", "/etc/passwd", "pixel_values", "\0")


def mutated_graph(data: bytes, rng: Rng) -> bytes:
    """A graph with one to three fields changed.

    Args:
        data: A whole graph.
        rng: Everything random.

    Returns:
        A message that parses.
    """
    model = onnx.ModelProto()
    model.ParseFromString(data)
    for _ in range(rng.integers(1, 4)):
        places = list(_places(model))
        _change(*places[int(rng.integers(len(places)))], places, rng)
    changed: bytes = model.SerializeToString()
    return changed


def _places(message: Any) -> Iterator[tuple[Any, Any]]:
    """Every message within, with each of its fields that is set."""
    for field, value in message.ListFields():
        yield message, field
        if field.cpp_type == field.CPPTYPE_MESSAGE:
            for one in value if _is_list(field) else [value]:
                yield from _places(one)


def _is_list(field: Any) -> bool:
    found = getattr(field, "is_repeated", None)
    return bool(field.label == field.LABEL_REPEATED if found is None else found)


def _change(message: Any, field: Any, places: list[tuple[Any, Any]], rng: Rng) -> None:
    value = getattr(message, field.name)
    if not _is_list(field):
        if field.cpp_type == field.CPPTYPE_MESSAGE:
            message.ClearField(field.name)
        else:
            setattr(message, field.name, _other(value, field, places, rng))
        return
    entries, place = list(value), int(rng.integers(len(value)))
    match int(rng.integers(4)):
        case 0:
            del entries[place]
        case 1:
            entries.insert(int(rng.integers(len(entries))), entries[place])
        case 2:
            entries.append(entries.pop(place))
        case _ if field.cpp_type != field.CPPTYPE_MESSAGE:
            entries[place] = _other(entries[place], field, places, rng)
        case _:
            del entries[place:]
    # The entries of a list belong to it: they go when it is cleared.
    entries = [_copied(entry) for entry in entries]
    message.ClearField(field.name)
    getattr(message, field.name).extend(entries)


def _copied(entry: Any) -> Any:
    if not hasattr(entry, "CopyFrom"):
        return entry
    copied = type(entry)()
    copied.CopyFrom(entry)
    return copied


def _other(value: Any, field: Any, places: list[tuple[Any, Any]], rng: Rng) -> Any:
    """Another value of the field's type: one at which readers go wrong, or one from elsewhere."""
    if field.cpp_type == field.CPPTYPE_ENUM:
        known = field.enum_type.values
        return known[int(rng.integers(len(known)))].number
    wide = field.cpp_type in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64)
    if wide or field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_UINT32):
        found = int(_INTEGERS[int(rng.integers(len(_INTEGERS)))])
        return found if wide else max(-(2**31), min(found, 2**31 - 1))
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return _FLOATS[int(rng.integers(len(_FLOATS)))]
    if isinstance(value, bytes):
        return value[: int(rng.integers(len(value) + 1))]
    if rng.integers(2):
        return _WORDS[int(rng.integers(len(_WORDS)))]
    message, other = places[int(rng.integers(len(places)))]
    found = getattr(message, other.name)
    return found if isinstance(found, str) else value + value
