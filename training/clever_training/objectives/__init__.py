"""Objectives: invariance terms as pure functions, each with an ``Objective`` that has a name."""

from clever_training.objectives.base import Objective, Projections
from clever_training.objectives.registry import make_objective, objective_names

__all__ = ["Objective", "Projections", "make_objective", "objective_names"]
