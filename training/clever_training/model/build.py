"""From a recipe to what is trained, how it is moved, and what the model says of itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from clever_hub import __version__
from clever_hub.config import ModelConfig, PreprocessingConfig
from clever_training.model.backbones import (
    check_size,
    checkpoint_gradients,
    create_backbone,
    embedding_length,
    invariant_length,
    start_backbone,
)
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


def model_config(
    recipe: Recipe, counters: dict[str, Any], steps_per_epoch: int, photos: int
) -> ModelConfig:
    """The config of the model that a run has made so far.

    Args:
        recipe: The run's recipe.
        counters: Of its state.
        steps_per_epoch: Steps in a pass through the data.
        photos: Number of photos.

    Returns:
        The config, provenance included.
    """
    backbone = create_backbone(recipe.backbone.architecture, recipe.backbone.model_args)
    features = embedding_length(backbone)
    size = recipe.image_size
    start = counters.get("start")
    content = recipe.model_dump(mode="json")
    if start:
        content["backbone"]["init"] = start["init"]
    return ModelConfig(
        name=recipe.name,
        architecture=recipe.backbone.architecture,
        model_args=dict(recipe.backbone.model_args),
        num_features=features,
        invariant_dim=invariant_length(features, recipe.method.split_ratio),
        preprocessing=PreprocessingConfig(resize_size=size, crop_size=size),
        provenance={
            "method": recipe.method.name,
            "data": recipe.data_name,
            "photos": photos,
            "epochs": round(counters["step"] / steps_per_epoch, 3),
            "planned_epochs": recipe.run.epochs,
            "steps": counters["step"],
            "hours": round(counters["seconds"] / 3600, 3),
            "clever_hub": __version__,
            "torch": torch.__version__,
            **({"start": start} if start else {}),
            "recipe": content,
        },
        data_terms=recipe.data_terms,
    )
