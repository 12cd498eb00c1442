"""The preprocessing of a backbone: by default that of its initial weights."""

from __future__ import annotations

from typing import Any

from clever_hub.backends.timm import trained_pooling
from clever_hub.config import PreprocessingConfig
from clever_hub.errors import ConfigError
from clever_training.model.pretrained import TIMM, pretrained_config, timm_config
from clever_training.recipe.schema import Recipe

_OF_BACKBONE = ("mean", "std", "interpolation")


def resolved(recipe: Recipe, earlier: Recipe | None = None) -> Recipe:
    """Fill in a recipe's preprocessing from the initial weights of its backbone.

    Args:
        recipe: The recipe; values that it sets itself do not change.
        earlier: The resolved recipe of a run that is resumed, whose initial weights may no longer
            exist.

    Returns:
        The recipe with mean, standard deviation, interpolation and ``image_size`` filled in.

    Raises:
        ModelNotFoundError: When the model to start from does not exist.

    Example:
        >>> recipe = Recipe.parse({"name": "mine", "image_size": 64})
        >>> resolved(recipe).backbone.mean
        (0.485, 0.456, 0.406)
    """
    if recipe.backbone.init == "timm":
        # Else the weights would be read otherwise than they were trained, and than a teacher is.
        pooling = trained_pooling(recipe.backbone.architecture)
        arguments = {**pooling, **recipe.backbone.model_args}
        backbone = recipe.backbone.model_copy(update={"model_args": arguments})
        recipe = recipe.model_copy(update={"backbone": backbone}) if pooling else recipe
    given = recipe.backbone.model_fields_set
    wanted = [key for key in _OF_BACKBONE if key not in given]
    size_given = "image_size" in recipe.model_fields_set
    if not wanted and size_given:
        return recipe
    if earlier is not None:
        own = {key: getattr(earlier.backbone, key) for key in _OF_BACKBONE}
        size = earlier.image_size
    else:
        found = _start(recipe)
        if found is None:
            return recipe
        own, size = {key: getattr(found, key) for key in _OF_BACKBONE}, found.crop_size
    backbone = recipe.backbone.model_copy(update={key: own[key] for key in wanted})
    update: dict[str, Any] = {"backbone": backbone}
    if not size_given:
        update["image_size"] = size
    return recipe.model_copy(update=update)


def preprocessing(recipe: Recipe) -> PreprocessingConfig:
    """The preprocessing of a recipe's model, which uses the whole shorter side of an image."""
    backbone, size = recipe.backbone, recipe.image_size
    return PreprocessingConfig(size, size, backbone.interpolation, backbone.mean, backbone.std)


def _start(recipe: Recipe) -> PreprocessingConfig | None:
    """The preprocessing of the initial weights; None for random ones."""
    settings = recipe.backbone
    if settings.init == "random":
        return None
    if settings.init == "timm":
        return timm_config(settings.architecture, settings.model_args).preprocessing
    if settings.init.startswith(TIMM):
        name = settings.init.removeprefix(TIMM)
        raise ConfigError(
            f"backbone.init: expected random, timm, or a clever model by name or folder, got "
            f"{settings.init!r}. For the weights of timm set backbone.init=timm and "
            f"backbone.architecture={name}"
        )
    return pretrained_config(settings.init).preprocessing
