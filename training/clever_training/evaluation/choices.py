"""Names that the command line checks before anything heavy is imported."""

from __future__ import annotations

from clever_hub.errors import ConfigError, suggest

PROTOCOL_NAMES = (
    *("knn", "linear", "robustness", "sweeps", "invariance", "retrieval", "equivariance"),
    *("collapse", "semi-supervised"),
)
# On videos and on photos with masks.
DENSE_PROTOCOL_NAMES = ("video", "saliency")
PROFILE_NAMES = ("quick", "full")
PROBE_NAMES = ("lbfgs", "sgd")


def chosen(names: str | None, known: tuple[str, ...] = PROTOCOL_NAMES) -> list[str]:
    """The protocols that the user asked for.

    Args:
        names: Names separated by commas; None for all that are known.
        known: Names of protocols.

    Returns:
        Their names, in the order of those known.

    Raises:
        ConfigError: When one is unknown.

    Example:
        >>> chosen("linear,knn")
        ['knn', 'linear']
    """
    if names is None:
        return list(known)
    asked = [name.strip() for name in names.split(",") if name.strip()]
    for name in asked:
        if name not in known:
            raise ConfigError(f"--protocols: unknown {name!r}. {suggest(name, known)}")
    if not asked:
        raise ConfigError(f"--protocols: expected some of {', '.join(known)}")
    return [name for name in known if name in asked]


def check_choice(option: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a value that an option does not take.

    Args:
        option: Such as ``--profile``.
        value: What was given.
        known: What it takes.

    Raises:
        ConfigError: Names the known values.
    """
    if value not in known:
        raise ConfigError(f"{option}: expected {' or '.join(known)}, got {value!r}")
