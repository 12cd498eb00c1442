"""The protocols by name: each measures one model with one seed."""

from __future__ import annotations

from clever_training.evaluation import copies, equivariance, knn, linear, robustness, spread
from clever_training.evaluation.choices import chosen
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
        fewest=(1, 2),
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
        fewest=(3, 2),
    ),
    "collapse": Protocol(
        spread.run_collapse, spread.SETTINGS, ("std", "effective_rank", "dim"), fewest=(1, 2)
    ),
    "semi-supervised": Protocol(linear.run_semi_supervised, linear.SEMI_SETTINGS, ("top1",), "%"),
}
