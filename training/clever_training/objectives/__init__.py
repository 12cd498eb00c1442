"""Invariance terms: each a pure function in its file, wrapped as an ``Objective`` by name."""

from clever_training.objectives.base import Objective, Projections
from clever_training.objectives.registry import make_objective, objective_names

__all__ = ["Objective", "Projections", "make_objective", "objective_names"]
