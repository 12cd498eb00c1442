"""Methods by name, each composed from an objective and the equivariance terms.

    dino, simsiam, simclr, vicreg, lejepa,
    distill                                 the plain objective on the whole embedding
    clever-<objective>                      the split, orthogonality, projector regularisation
    clever-plus-<objective>                 these, and the prediction of the relative transformation
    ddcl                                    clever-simsiam without the regularisation
    clever-ddcl                             the paper's name of clever-simsiam

An objective may also be a user's own ``package.module:function``.
"""

from __future__ import annotations

from typing import Any

from clever_hub.errors import suggest

# The arguments of each objective, known here without importing any.
OBJECTIVE_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "dino": (
        *("prototypes", "hidden_dim", "bottleneck_dim", "head_batch_norm"),
        *("student_temperature", "center_momentum"),
    ),
    "distill": ("target_dim", "form", "head", "hidden_dim", "temperature", "negatives"),
    "lejepa": ("dim", "hidden_dim", "slices", "weight"),
    "simclr": ("dim", "hidden_dim", "temperature"),
    "simsiam": ("dim", "bottleneck_dim"),
    "vicreg": (
        *("dim", "hidden_dim"),
        *("invariance_weight", "variance_weight", "covariance_weight"),
    ),
}
# Those of a function of one's own, beside the function's.
HEAD_ARGUMENTS = ("dim", "hidden_dim")
OBJECTIVE_NAMES = tuple(OBJECTIVE_ARGUMENTS)
TRANSFORMATION_WEIGHT = 1.0

_PREFIXES: dict[str, dict[str, Any]] = {
    "clever-plus-": {"equivariance": True, "transformation_weight": TRANSFORMATION_WEIGHT},
    "clever-": {"equivariance": True},
    "": {"equivariance": False},
}


def method_names() -> list[str]:
    """All names for ``method`` in a recipe, sorted."""
    bases = [prefix + name for prefix in _PREFIXES for name in OBJECTIVE_NAMES]
    return sorted([*bases, "ddcl", "clever-ddcl", "clever-plus-ddcl"])


def method_settings(name: str) -> dict[str, Any]:
    """The keys of a recipe's ``method`` that a name stands for.

    Args:
        name: One of ``method_names()``, or one of their prefixes with ``package.module:function``.

    Returns:
        ``objective``, ``equivariance``, and the weights that the name changes.

    Raises:
        ValueError: When there is no such method; suggests a similar name.

    Example:
        >>> method_settings("ddcl")
        {'equivariance': True, 'regularization_weight': 0.0, 'objective': 'simsiam'}
    """
    if name == "ddcl":
        return {"equivariance": True, "regularization_weight": 0.0, "objective": "simsiam"}
    prefix = next(prefix for prefix in _PREFIXES if name.startswith(prefix))
    objective = name.removeprefix(prefix)
    if prefix and objective == "ddcl":
        objective = "simsiam"
    if objective not in OBJECTIVE_NAMES and ":" not in objective:
        raise ValueError(f"{name!r} is not a method. {suggest(name, method_names())}")
    return {**_PREFIXES[prefix], "objective": objective}


def method_label(objective: str, equivariance: bool, transformation: bool) -> str:
    """The name of a method that is given by its keys.

    Args:
        objective: Name of the invariance term.
        equivariance: Whether the embedding is split.
        transformation: Whether the relative transformation is predicted.

    Returns:
        The name, such as ``"clever-dino"``.

    Example:
        >>> method_label("dino", True, False)
        'clever-dino'
    """
    return ("clever-plus-" if transformation else "clever-" if equivariance else "") + objective
