"""The objectives that a recipe can name."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from clever_hub.errors import ConfigError, suggest
from clever_training.objectives.base import Objective
from clever_training.objectives.custom import FunctionObjective
from clever_training.objectives.dino import Dino
from clever_training.objectives.distill import Distill
from clever_training.objectives.lejepa import Lejepa
from clever_training.objectives.simclr import Simclr
from clever_training.objectives.simsiam import Simsiam
from clever_training.objectives.vicreg import Vicreg
from clever_training.recipe.plugin import load_object

OBJECTIVES: dict[str, type[Objective]] = {
    "dino": Dino,
    "distill": Distill,
    "lejepa": Lejepa,
    "simclr": Simclr,
    "simsiam": Simsiam,
    "vicreg": Vicreg,
}


def objective_names() -> list[str]:
    """All names for ``method.objective`` in a recipe, sorted."""
    return sorted(OBJECTIVES)


def make_objective(name: str, arguments: dict[str, Any]) -> Objective:
    """Build an objective by name.

    Args:
        name: One of ``objective_names()``, or ``package.module:name`` of a function of the
            projected views (see ``FunctionObjective``) or of a subclass of ``Objective``.
        arguments: Keyword arguments of its class; the defaults are the published values.

    Returns:
        The objective.

    Raises:
        ConfigError: When the name or an argument is unknown.

    Example:
        >>> make_objective("vicreg", {"dim": 512}).uses_teacher
        False
    """
    if ":" in name:
        found = load_object(name, "method.objective")
        if not isinstance(found, type):
            return _wrap(found, name, arguments)
        if not issubclass(found, Objective):
            raise ConfigError(f"method.objective: {name} is a class, but no {Objective.__name__}")
        return _make(found, name, arguments)
    if name not in OBJECTIVES:
        hint = suggest(name, OBJECTIVES)
        raise ConfigError(
            f"method.objective: {name!r} is not an objective. {hint} "
            "Your own is package.module:function"
        )
    return _make(OBJECTIVES[name], name, arguments)


def _wrap(function: object, name: str, arguments: dict[str, Any]) -> Objective:
    if not callable(function):
        raise ConfigError(
            f"method.objective: {name} should be a function, got {type(function).__name__}"
        )
    return FunctionObjective(function, arguments)


def _make(kind: type[Objective], name: str, arguments: dict[str, Any]) -> Objective:
    known = inspect.signature(kind).parameters
    for key in arguments:
        if key not in known:
            hint = suggest(key, known)
            raise ConfigError(f"method.objective_args.{key}: {name} has no such argument. {hint}")
    arguments = {key: _checked(kind, key, value) for key, value in arguments.items()}
    try:
        return kind(**arguments)
    except TypeError as error:
        raise ConfigError(f"method.objective_args: {name} refuses {arguments}: {error}") from error


def _checked(kind: type[Objective], key: str, value: object) -> object:
    """An argument in the type that it is annotated with: YAML reads 1e3 as a float."""
    try:
        wanted = get_type_hints(kind.__init__).get(key, Any)
    except NameError:  # imported for type checkers alone, in a class of one's own
        return value
    try:
        return TypeAdapter(wanted).validate_python(value)
    except PydanticSchemaGenerationError:  # a type that no recipe can hold
        return value
    except ValidationError as error:
        name = getattr(wanted, "__name__", str(wanted))
        raise ConfigError(
            f"method.objective_args.{key}: expected {name}, got {value!r}: "
            f"{error.errors()[0]['msg']}"
        ) from error
