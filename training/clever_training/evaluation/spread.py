"""Collapse indicators of each part: how many of its dimensions it uses."""

from __future__ import annotations

import torch

from clever_training.evaluation.collapse import effective_rank, feature_std
from clever_training.evaluation.context import Context
from clever_training.evaluation.perturbations import PLAIN
from clever_training.evaluation.results import Figures

SETTINGS = {
    "plain": "validation photos, the whole square, upright",
    "std": "of the L2-normalised features, mean over dimensions, times the root of their number",
    "effective_rank": "exponential of the entropy of the singular values' shares, after centring",
}


def run_collapse(context: Context) -> Figures:
    """Standard deviation and effective rank of each part."""
    features = torch.from_numpy(context.validation(PLAIN, "validation plain"))
    return {
        "plain": {
            part: {
                "std": feature_std(features[:, columns]),
                "effective_rank": effective_rank(features[:, columns]),
                "dim": float(columns.stop - columns.start),
            }
            for part, columns in context.parts.items()
        }
    }
