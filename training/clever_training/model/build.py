"""From a recipe to the module that is trained and the optimiser that moves it."""

from __future__ import annotations

from typing import Any

import torch
from timm.optim import Muon, param_groups_layer_decay  # type: ignore[attr-defined]
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from clever_hub.backends.timm import embedding_length
from clever_hub.embeddings import invariant_length
from clever_hub.errors import ConfigError
from clever_training.model.backbones import check_size, checkpoint_gradients, start_backbone
from clever_training.model.clever import Clever, LossWeights
from clever_training.model.freezing import freeze_all_but, freeze_batch_norm
from clever_training.objectives import Objective, make_objective
from clever_training.objectives.mixture import Mixture
from clever_training.recipe.plugin import objective_arguments
from clever_training.recipe.schema import Recipe
from clever_training.views.sample import sizes_at


def build(recipe: Recipe, target_dim: int | None = None, *, linear: bool = False) -> Clever:
    """The module that a recipe trains, with the weights that it starts from.

    Args:
        recipe: The recipe.
        target_dim: Length of a frozen teacher's embedding, if the recipe has a teacher.
        linear: Whether the head that predicts that embedding is linear by default.

    Returns:
        Backbone, heads, objective and, if the objective has one, the teacher. Its ``start`` is the
        origin of the backbone's weights.

    Raises:
        ConfigError: When the backbone does not take the views, the split leaves a part empty, or
            an objective has parameters that nothing would train, or needs a frozen teacher.
    """
    settings, method = recipe.backbone, recipe.method
    backbone, start = start_backbone(
        settings.architecture, settings.model_args, settings.drop_path, settings.init
    )
    if settings.gradient_checkpointing:
        checkpoint_gradients(backbone, settings.architecture)
    check_sizes(backbone, recipe)
    freeze_all_but(backbone, settings.trainable)
    if settings.batch_norm == "frozen":
        freeze_batch_norm(backbone)
    features = embedding_length(backbone)
    cut = invariant_length(features, method.split_ratio) if method.equivariance else features
    if method.equivariance and not 0 < cut < features:
        raise ConfigError(
            f"method.split_ratio: {method.split_ratio} of {features} dimensions leaves a part empty"
        )
    objective = _objective(recipe, target_dim, linear=linear)
    _check_targets(recipe, objective)
    clever = Clever(
        backbone,
        features,
        cut,
        objective,
        LossWeights(
            method.orthogonality_weight,
            method.regularization_weight,
            method.transformation_weight,
            method.transformation_groups.model_dump(),
        ),
        recipe.views.global_count,
        method.transformation_dim,
    )
    _check_trained(clever)
    clever.start = start
    return clever


def check_teacher(recipe: Recipe) -> None:
    """Check that an objective uses a recipe's frozen teacher, before that embeds every photo.

    Args:
        recipe: A recipe that has one.

    Raises:
        ConfigError: When none uses it.
    """
    with torch.random.fork_rng(devices=[]):  # an objective may draw
        _check_targets(recipe, _objective(recipe, 1, linear=False))


def _check_targets(recipe: Recipe, objective: Objective) -> None:
    """Check that there is a frozen teacher if, and only if, the objective uses one."""
    given, uses = recipe.method.teacher is not None, objective.uses_targets
    names = ", ".join(term.name for term in recipe.method.terms)
    if uses and not given:
        raise ConfigError(
            f"method.teacher: {names} uses the targets of a frozen teacher (uses_targets). Give "
            "one, such as timm:NAME, a clever model or a model folder"
        )
    if given and not uses:
        raise ConfigError(
            f"method.teacher: {names} learns nothing from a frozen teacher. Drop teacher, or set "
            "uses_targets = True in a class of your own"
        )


def _check_trained(clever: Clever) -> None:
    """Refuse parameters of an objective that the optimiser, which gets the student's, leaves out.

    Raises:
        ConfigError: Names the first one.
    """
    trained = set(clever.student.parameters())
    for name, parameter in clever.objective.named_parameters():
        if parameter.requires_grad and parameter not in trained:
            raise ConfigError(
                f"method.objective: {type(clever.objective).__name__} has the parameter {name}, "
                "which would never be trained. Put it into make_head, which is trained. What "
                "stays as it is: requires_grad_(False), or a buffer"
            )


def _objective(recipe: Recipe, target_dim: int | None, *, linear: bool) -> Objective:
    """The invariance term, or the mixture of several."""
    terms = recipe.method.terms
    found = []
    for term in terms:
        arguments = term.args
        own = ":" in term.name and target_dim is not None
        if own and "target_dim" in objective_arguments(term.name):
            arguments = {"target_dim": target_dim, **arguments}
        if term.name == "distill":
            head = "linear" if linear else "mlp"
            arguments = {"head": head, **arguments, "target_dim": target_dim}
        found.append(make_objective(term.name, arguments))
    # A single term of weight 1 needs no mixture, and its head keeps its names.
    if len(found) == 1 and terms[0].weight == 1:
        return found[0]
    return Mixture(found, [term.weight for term in terms])


def check_sizes(backbone: nn.Module, recipe: Recipe) -> None:
    """Check before the run that the backbone takes every size of its views.

    Args:
        backbone: The backbone, left in training mode; weights and statistics do not change.
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
    """AdamW, SGD or Muon; no weight decay on biases, vectors and VMamba's time scales.

    Muon (https://kellerjordan.github.io/posts/muon/, timm's) moves each weight matrix by its
    momentum with all singular values set to 1, scaled as large as a step of AdamW
    (https://arxiv.org/abs/2502.16982). It updates what has weight decay and is a matrix that timm
    finds suitable. NAdamW, by the same learning rate, updates the rest: biases and norms, depthwise
    kernels, class tokens and positions.

    Args:
        recipe: The recipe's optimiser.
        student: The module that it updates.

    Returns:
        The optimiser. Each of its groups has ``decayed``, whether it has weight decay, and
        ``lr_scale``, a factor on the learning rate. There are two groups, or with a layer decay two
        for each layer.
    """
    options = recipe.optimizer
    groups = _groups(student, options.layer_decay)
    if options.name == "sgd":
        return SGD(groups, lr=options.lr, momentum=options.momentum)
    if options.name == "muon":
        groups = [{**group, "use_fallback": not group["decayed"]} for group in groups]
        return Muon(groups, lr=options.lr, momentum=options.momentum, nesterov=True)
    # Fused: one pass over the weights instead of a dozen, a sixth of the time for a ResNet-50.
    return AdamW(groups, lr=options.lr, fused=True)


def _groups(student: nn.Module, layer_decay: float) -> list[dict[str, Any]]:
    """The trainable parameters by weight decay and by the scale of their learning rate."""
    parameters = [p for p in student.parameters() if p.requires_grad]
    scales: dict[nn.Parameter, float] = {}
    if layer_decay < 1:
        backbone = student.get_submodule("backbone")
        layers = param_groups_layer_decay(backbone, layer_decay=layer_decay)
        scales = {p: float(layer["lr_scale"]) for layer in layers for p in layer["params"]}
    groups: list[dict[str, Any]] = []
    for scale in sorted({scales.get(p, 1.0) for p in parameters}, reverse=True):
        here = [p for p in parameters if scales.get(p, 1.0) == scale]
        groups += [
            {"params": [p for p in here if _is_decayed(p)], "decayed": True, "lr_scale": scale},
            {
                "params": [p for p in here if not _is_decayed(p)],
                "decayed": False,
                "lr_scale": scale,
                "weight_decay": 0.0,
            },
        ]
    return groups


def _is_decayed(parameter: nn.Parameter) -> bool:
    """Whether weight decay acts on it; a backbone may mark more than its shape tells."""
    return parameter.ndim > 1 and not getattr(parameter, "_no_weight_decay", False)
