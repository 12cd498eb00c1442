"""The protocols by name: each measures one model with one seed."""

from __future__ import annotations

from collections.abc import Sequence

from clever_hub.errors import ConfigError, suggest
from clever_training.evaluation import copies, equivariance, knn, linear, robustness, spread
from clever_training.evaluation.context import PROFILES, Context, Profile, Protocol
from clever_training.evaluation.results import Figures

__all__ = ["PROFILES", "PROTOCOLS", "Context", "Profile", "Protocol", "chosen", "run_knn"]


def run_knn(context: Context) -> Figures:
    """k-NN Top-1 of each part, in per cent."""
    train, validation = context.splits
    figures: Figures = {}
    for condition, (bank, queries) in linear.CONDITIONS.items():
        fitted = context.train(bank, f"train {condition}")
        asked = context.validation(queries, f"validation {condition}")
        figures[condition] = {}
        for part, columns in context.parts.items():
            k = min(knn.K, len(train))
            predicted = knn.knn_predict(fitted[:, columns], train.labels, asked[:, columns], k=k)
            figures[condition][part] = {"top1": knn.top1(predicted, validation.labels)}
    return figures


PROTOCOLS = {
    "knn": Protocol(
        run_knn,
        {
            "k": knn.K,
            "temperature": knn.TEMPERATURE,
            "similarity": "cosine",
            "plain": "the whole square, upright",
            "upright": "through the disc, upright",
            "rotated": "through the disc, queries rotated uniformly in ±90°, training photos not",
        },
        ("top1",),
        "%",
    ),
    "linear": Protocol(linear.run_linear, linear.SETTINGS, ("top1",), "%"),
    "robustness": Protocol(robustness.run_robustness, robustness.GRID_SETTINGS, ("top1",), "%"),
    "sweeps": Protocol(
        robustness.run_sweeps,
        robustness.SWEEP_SETTINGS,
        ("top1",),
        "%",
        robustness.SWEEPS_SHOWN,
        subsets=("sweep_photos",),
    ),
    "invariance": Protocol(
        copies.run_invariance,
        copies.INVARIANCE_SETTINGS,
        ("same_centred", "gap", "gap_centred"),
        shown=copies.SHOWN,
        subsets=("sweep_photos",),
    ),
    "retrieval": Protocol(
        copies.run_retrieval,
        copies.RETRIEVAL_SETTINGS,
        ("hit1",),
        "%",
        copies.SHOWN,
        subsets=("sweep_photos",),
    ),
    "equivariance": Protocol(
        equivariance.run_equivariance,
        equivariance.SETTINGS,
        (
            *("ridge_r2", "mlp_r2", "ridge_degrees", "mlp_degrees"),
            *("top1", "pose_mrr", "photo_mrr"),
        ),
        subsets=("sweep_photos", "pairs"),
    ),
    "collapse": Protocol(spread.run_collapse, spread.SETTINGS, ("std", "effective_rank", "dim")),
    "semi-supervised": Protocol(linear.run_semi_supervised, linear.SEMI_SETTINGS, ("top1",), "%"),
}


def chosen(names: str | None, known: Sequence[str] = tuple(PROTOCOLS)) -> list[str]:
    """The protocols that the user asked for.

    Args:
        names: Names separated by commas; None for all that are known.
        known: Names of protocols.

    Returns:
        Their names, in the order of those known.

    Raises:
        ConfigError: When a name is unknown.

    Example:
        >>> chosen("knn")
        ['knn']
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
