"""From a recipe to the module that is trained and the optimiser that moves it."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from clever_hub.backends.timm import embedding_length
from clever_hub.embeddings import invariant_length
from clever_training.model.backbones import check_size, checkpoint_gradients, start_backbone
from clever_training.model.clever import Clever, LossWeights
from clever_training.model.freezing import freeze_all_but
from clever_training.objectives import make_objective
from clever_training.recipe.schema import Recipe
from clever_training.views.sample import sizes_at


def build(recipe: Recipe) -> Clever:
    """The module that a recipe trains, with the weights that it starts from.

    Args:
        recipe: The recipe.

    Returns:
        Backbone, heads, objective and, where the objective has one, the teacher. Where the
        backbone's weights are from is its ``start``.
    """
    settings, method = recipe.backbone, recipe.method
    backbone, start = start_backbone(
        settings.architecture, settings.model_args, settings.drop_path, settings.init
    )
    if settings.gradient_checkpointing:
        checkpoint_gradients(backbone, settings.architecture)
    check_sizes(backbone, recipe)
    freeze_all_but(backbone, settings.trainable)
    features = embedding_length(backbone)
    clever = Clever(
        backbone,
        features,
        invariant_length(features, method.split_ratio) if method.equivariance else features,
        make_objective(method.objective, method.objective_args),
        LossWeights(
            method.orthogonality_weight,
            method.regularization_weight,
            method.transformation_weight,
        ),
        recipe.views.global_count,
    )
    clever.start = start
    return clever


def check_sizes(backbone: nn.Module, recipe: Recipe) -> None:
    """See to it that the backbone takes every size of the run, now rather than at half of it.

    Args:
        backbone: The backbone, left in training mode; neither weights nor statistics change.
        recipe: Its views at every stage of growth, and ``image_size``.

    Raises:
        ConfigError: Names the size that the backbone does not take, or the output that is no
            embedding.
    """
    views, sizes = recipe.views, {recipe.image_size: "image_size"}
    stages = {"views": sizes_at(views, 0.0)}
    stages |= {f"views.growth.{n}": sizes_at(views, s.after) for n, s in enumerate(views.growth)}
    for stage, now in stages.items():
        sizes.setdefault(now.global_size, f"{stage}.global_size")
        if views.local_count:
            sizes.setdefault(now.local_size, f"{stage}.local_size")
    backbone.eval()
    for size, key in sizes.items():
        check_size(backbone, f"{key}: {recipe.backbone.architecture}", size)
    backbone.train()


def make_optimizer(recipe: Recipe, student: nn.Module) -> Optimizer:
    """AdamW or SGD; no weight decay on biases and one-dimensional parameters.

    Args:
        recipe: Which optimiser.
        student: What it moves.

    Returns:
        The optimiser, with two parameter groups: decayed and not.
    """
    parameters = [p for p in student.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "decayed": True},
        {"params": [p for p in parameters if p.ndim <= 1], "decayed": False, "weight_decay": 0.0},
    ]
    options = recipe.optimizer
    if options.name == "sgd":
        return SGD(groups, lr=options.lr, momentum=options.momentum)
    # Fused: one pass over a ResNet-50's weights in the place of a dozen, a sixth of the time.
    return AdamW(groups, lr=options.lr, fused=True)
