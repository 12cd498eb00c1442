"""Reading recipes: from files or the package, with a base recipe and overrides."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from clever_hub.errors import ConfigError, suggest
from clever_training.recipe.methods import OBJECTIVE_ARGUMENTS, method_settings
from clever_training.recipe.plugin import objective_arguments, uses_teachers
from clever_training.recipe.schema import Recipe
from clever_training.recipe.yaml_reader import read_yaml

_LOG = logging.getLogger(__name__)
# Sections that may be a single string, with the key that the string stands for.
_SHORT = {"method": "name", "backbone": "architecture", "teacher": "model"}

# What names another method.
_METHOD = ("method", "method.name")
# A method's name stands for these.
_DECIDED_BY_NAME = ("name", "objective", "equivariance")
_OF_A_MOVING_TEACHER = ("teacher_", "warmup_teacher_", "freeze_last_layer_")
_OF_THE_SPLIT = ("split_ratio", "orthogonality_weight", "regularization_weight")
# Objectives take their place.
_OF_ONE_OBJECTIVE = ("objective", "objective_args")


def read_recipe(name_or_path: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe file or a shipped recipe.

    Args:
        name_or_path: A YAML file, or the name of a shipped recipe. Its key ``base`` names another
            recipe to start from; mappings are merged key by key, anything else is replaced.
        overrides: Dotted paths and values that replace the file's, such as
            ``{"run.epochs": 3}``. Another ``method`` keeps those of the file's method settings that
            apply to it; a logged warning names the others.

    Returns:
        The recipe.

    Raises:
        ConfigError: When there is no such file or recipe, it is not YAML, or a key is wrong.

    Example:
        >>> read_recipe("clever-resnet18-tiny").method.objective
        'vicreg'
    """
    content = _read(str(name_or_path), Path(), ())
    if overrides and isinstance(content, dict):
        if overrides.get("method.objectives"):
            _leave_to_objectives(content)
        _override(content, overrides)
    return Recipe.parse(content, str(name_or_path))


def recipe_names() -> list[str]:
    """The recipes that ship in the package, sorted."""
    folder = Path(str(files("clever_training") / "recipes"))
    return sorted(path.stem for path in folder.glob("*.yaml"))


def _read(name: str, folder: Path, children: tuple[Path, ...]) -> Any:
    """A recipe's content merged over that of its ``base``, a name or a path beside it."""
    path = folder / name
    if path.suffix not in (".yaml", ".yml"):
        path = Path(str(files("clever_training") / "recipes" / f"{name}.yaml"))
    if not path.is_file():
        hint = suggest(name, recipe_names())
        raise ConfigError(f"recipe {name!r}: no such file or shipped recipe. {hint}")
    path = path.resolve()
    if path in children:
        chain = " -> ".join(file.name for file in (*children, path))
        raise ConfigError(f"recipe {name!r}: its bases form a circle: {chain}. Remove one of them")
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    if not isinstance(content, dict) or "base" not in content:
        return content
    base = _read(str(content.pop("base")), path.parent, (*children, path))
    if _mapping(content.get("method")).get("objectives"):
        _leave_to_objectives(base)
    method = _spelt_out("method", content.get("method"))
    inherited = base.get("method") if isinstance(base, dict) else None
    if isinstance(inherited, dict):
        for key in _decided(inherited, _mapping(method).get("name")):
            inherited.pop(key, None)
    return _merged(base, content)


def _merged(base: Any, content: Any) -> Any:
    """Merge mappings key by key; anything else is replaced."""
    if not (isinstance(base, dict) and isinstance(content, dict)):
        return content
    merged = {
        key: _merged(_spelt_out(key, base[key]) if isinstance(value, dict) else base[key], value)
        for key, value in content.items()
        if key in base
    }
    return {**base, **content, **merged}


def _leave_to_objectives(content: Any) -> None:
    """Remove from a recipe what objectives that are laid over it replace."""
    method = content.get("method") if isinstance(content, dict) else None
    if isinstance(method, dict):
        for key in _OF_ONE_OBJECTIVE:
            method.pop(key, None)


def _spelt_out(key: str, section: Any) -> Any:
    """A section as a mapping, where a string stands for it."""
    return {_SHORT[key]: section} if isinstance(section, str) and key in _SHORT else section


def _set(content: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        if parent in content:
            content[parent] = _spelt_out(parent, content[parent])
        content = content.setdefault(parent, {})
        if not isinstance(content, dict):
            raise ConfigError(f"{dotted}: {parent} is not a section of the recipe")
    content[last] = value


def _override(content: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    """Set the overrides. A method comes first: those beside it are meant for it."""
    named = [key for key in _METHOD if isinstance(overrides.get(key), str)]
    before, left_out = content.get("method"), set[str]()
    for key in named:
        if isinstance(section := content.get("method"), dict):
            decided = [name for name in _decided(section, overrides[key]) if name in section]
            left_out |= {f"method.{name}" for name in decided} - overrides.keys()
            content["method"] = {k: v for k, v in section.items() if k not in decided}
        content["method"], dropped = _other_method(content.get("method"), overrides[key])
        left_out |= {name for name in dropped if name not in overrides}
    for dotted, value in overrides.items():
        if dotted not in named:
            _set(content, dotted, value)
    section = content.get("method")
    if not (named and isinstance(before, Mapping) and isinstance(section, dict)):
        return
    if section.get("name") != before.get("name"):
        # An objective refuses arguments that it has not; what else is of no use is left out.
        for key in _of_no_use(section):
            left_out.add(f"method.{key}")
            del section[key]
    if left_out:
        _LOG.warning(
            "method %s does not take these settings of the recipe, they are left out: %s",
            section.get("name"),
            ", ".join(sorted(left_out)),
        )


def _decided(section: Mapping[str, Any], name: object) -> list[str]:
    """The weights that a method section has and that another method's name decides otherwise."""
    if not isinstance(name, str) or name == section.get("name"):
        return []
    try:
        before, after = method_settings(str(section.get("name"))), method_settings(name)
    except ValueError:
        return []
    changed = (before.keys() | after.keys()) - {*_DECIDED_BY_NAME}
    return [key for key in sorted(changed) if before.get(key) != after.get(key)]


def _other_method(section: Any, name: str) -> tuple[Any, list[str]]:
    """The method section for another method, of what both take, and what is left out of it."""
    if not isinstance(section, Mapping):
        return name, []
    try:
        settings = method_settings(name)
    except ValueError:
        return name, []  # refused, with the nearest name, where the recipe is checked
    kept = {key: value for key, value in section.items() if key not in _DECIDED_BY_NAME}
    dropped: list[str] = []
    if section.get("name") != name:
        kept, dropped = _taken(kept, name, same=_objective(section) == settings["objective"])
    return {"name": name, **kept}, dropped


def _objective(section: Mapping[str, Any]) -> Any:
    """What a method section names as its objective, by its key or by the method's name."""
    try:
        return section.get("objective") or method_settings(str(section.get("name")))["objective"]
    except ValueError:
        return None


def _taken(kept: dict[str, Any], name: str, *, same: bool) -> tuple[dict[str, Any], list[str]]:
    """The settings that a method takes, and the dotted names of those that it does not."""
    kept, objective = dict(kept), method_settings(name)["objective"]
    terms = _terms(kept)
    known = OBJECTIVE_ARGUMENTS.get(objective) or objective_arguments(objective)
    if same:  # a function of one's own takes what it took
        known = (*known, *_mapping(kept.get("objective_args")))
    arguments: dict[str, Any] = {}
    dropped: list[str] = []
    if not _mixed(terms, objective):
        arguments, dropped = _taken_arguments(kept, terms, objective, known)
    for key in _of_no_use({**kept, "name": name}):
        dropped.append(f"method.{key}")
        del kept[key]
    return {**kept, **({"objective_args": arguments} if arguments else {})}, sorted(dropped)


def _mixed(terms: list[Mapping[str, Any]], objective: str) -> bool:
    """A method is named after the first of its objectives; the others go with it."""
    return bool(terms) and terms[0].get("name") == objective


def _of_no_use(section: Mapping[str, Any]) -> list[str]:
    """The keys of a method section that its method, given by name, does not read."""
    try:
        settings = method_settings(str(section.get("name")))
    except ValueError:
        return []
    objective, terms = settings["objective"], _terms(section)
    mixed = _mixed(terms, objective)
    names = {str(term.get("name")) for term in terms} if mixed else {objective}
    own = [uses_teachers(name) for name in names if ":" in name]
    moving = "dino" in names or any(moves for moves, _ in own)
    wanted = (
        *((prefix, moving) for prefix in _OF_A_MOVING_TEACHER),
        ("transformation_", "transformation_weight" in settings),
        ("teacher", "distill" in names or any(frozen for _, frozen in own)),
        ("objectives", mixed),
        *((prefix, settings["equivariance"]) for prefix in _OF_THE_SPLIT),
    )
    unread = [prefix for prefix, read in wanted if not read]
    return [key for key in section if any(_belongs(key, prefix) for prefix in unread)]


def _taken_arguments(
    kept: dict[str, Any], terms: list[Mapping[str, Any]], objective: str, known: tuple[str, ...]
) -> tuple[dict[str, Any], list[str]]:
    """The arguments that an objective takes of a section's, which leave it, and the others' names.

    Where several objectives were mixed, they are those of the term of that name.
    """
    arguments = _mapping(kept.pop("objective_args", None))
    dropped = [f"method.objective_args.{key}" for key in arguments if key not in known]
    for term in terms:
        if term.get("name") == objective:
            arguments = {**arguments, **_mapping(term.get("args"))}
    return {key: value for key, value in arguments.items() if key in known}, dropped


def _mapping(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _terms(section: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A section's ``objectives`` as far as they are mappings; the schema refuses others."""
    found = section.get("objectives")
    return [term for term in found if isinstance(term, Mapping)] if isinstance(found, list) else []


def _belongs(key: str, prefix: str) -> bool:
    return key.startswith(prefix) if prefix.endswith("_") else key == prefix
