"""Pre-training with CLeVER: recipes, views, objectives, the loop, and measuring.

Installed by ``pip install "clever-hub[train]"``. The names below are the public ones; each is
imported when it is first used. Everything else may move.

Example:
    >>> import clever_training
    >>> clever_training.read_recipe("clever-resnet18-tiny").method.name
    'clever-vicreg'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clever_hub.lazy import attach

if TYPE_CHECKING:
    from clever_training.data.photos import load_photos
    from clever_training.evaluation.data import load_splits
    from clever_training.evaluation.run import Evaluation
    from clever_training.finetune.settings import FinetuneSettings
    from clever_training.objectives.base import Objective, Projections
    from clever_training.objectives.registry import make_objective, objective_names
    from clever_training.recipe.reading import read_recipe, recipe_names
    from clever_training.recipe.schema import Recipe
    from clever_training.run.dry_run import RunEstimate, estimate_run
    from clever_training.run.pretrain import pretrain
    from clever_training.views.parameters import ViewParameters
    from clever_training.views.sample import make_views

__all__ = [
    "Evaluation",
    "FinetuneSettings",
    "Objective",
    "Projections",
    "Recipe",
    "RunEstimate",
    "ViewParameters",
    "estimate_run",
    "load_photos",
    "load_splits",
    "make_objective",
    "make_views",
    "objective_names",
    "pretrain",
    "read_recipe",
    "recipe_names",
]

_HOMES = {
    "Evaluation": "clever_training.evaluation.run",
    "FinetuneSettings": "clever_training.finetune.settings",
    "Objective": "clever_training.objectives.base",
    "Projections": "clever_training.objectives.base",
    "Recipe": "clever_training.recipe.schema",
    "RunEstimate": "clever_training.run.dry_run",
    "ViewParameters": "clever_training.views.parameters",
    "estimate_run": "clever_training.run.dry_run",
    "load_photos": "clever_training.data.photos",
    "load_splits": "clever_training.evaluation.data",
    "make_objective": "clever_training.objectives.registry",
    "make_views": "clever_training.views.sample",
    "objective_names": "clever_training.objectives.registry",
    "pretrain": "clever_training.run.pretrain",
    "read_recipe": "clever_training.recipe.reading",
    "recipe_names": "clever_training.recipe.reading",
}

__getattr__, __dir__ = attach(globals(), _HOMES)
