"""The model folder that a run writes: weights, config, and how the weights were trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch

from clever_hub import __version__
from clever_hub.backends.timm import embedding_length
from clever_hub.backends.torch import write_model_folder
from clever_hub.config import CONFIG_NAME, ModelConfig
from clever_hub.embeddings import invariant_length
from clever_hub.errors import CleverError, ModelFormatError, TrainingError
from clever_hub.hub.origin import public_model_name
from clever_hub.hub.resolve import resolve
from clever_hub.hub.shipped import ZOO
from clever_training.heads.files import heads_tensors, write_heads
from clever_training.model.backbones import terms_of
from clever_training.model.clever import Clever
from clever_training.model.normalization import preprocessing
from clever_training.model.pretrained import TIMM, timm_license
from clever_training.recipe.schema import Recipe
from clever_training.run.state import RunState

# Of a teacher's provenance, what goes into that of its student.
_TRAINING = ("method", "data", "labels", "start", "teacher")


class DataFacts(NamedTuple):
    """What a model says about the photos of its training.

    Attributes:
        name: The id on the Hub, or the name of the file or folder; never where that lies.
        photos: How many there are.
    """

    name: str
    photos: int


def write_model(
    folder: Path, recipe: Recipe, clever: Clever, state: RunState, per_epoch: int, data: DataFacts
) -> None:
    """Write the model that a run has made so far.

    Args:
        folder: The model folder.
        recipe: The run's recipe.
        clever: The module that is trained.
        state: How far the run has come.
        per_epoch: Steps in a pass through the data.
        data: What it is trained on.

    Raises:
        TrainingError: When the folder cannot be written.
    """
    backbone = clever.shipped_backbone
    config = model_config(recipe, state, embedding_length(backbone), per_epoch, data)
    try:
        write_model_folder(folder, config, backbone.state_dict())
        _write_heads(folder, recipe, clever, config, data, _rotation(recipe, state))
    except OSError as error:
        raise TrainingError(
            f"{folder}: cannot be written ({error}). The state was saved; free disk space and run "
            "the same command again"
        ) from error


def _write_heads(
    folder: Path,
    recipe: Recipe,
    clever: Clever,
    config: ModelConfig,
    data: DataFacts,
    rotation: float,
) -> None:
    """Write the transformation head beside the weights, if the run trains one."""
    head = clever.student.transformation
    if head is None:
        return
    write_heads(
        folder,
        heads_tensors(head, None, config.num_features),
        data=recipe.data_name or data.name,
        photos=config.provenance["photos"],
        rotation=rotation,
    )


def _rotation(recipe: Recipe, state: RunState) -> float:
    """The largest angle of the views, in degrees; of views of one's own the largest that came."""
    if recipe.views.aug:
        return round(state.angle or 0.0, 1)
    turns = recipe.views.strategy != "baug" and recipe.views.rotation_probability > 0
    return recipe.views.rotation if turns else 0.0


def model_config(
    recipe: Recipe, state: RunState, num_features: int, per_epoch: int, data: DataFacts
) -> ModelConfig:
    """The config of the model that a run has made so far.

    Args:
        recipe: The run's recipe.
        state: How far the run has come.
        num_features: Length of the embedding.
        per_epoch: Steps in a pass through the data.
        data: What it is trained on.

    Returns:
        The config, provenance included.
    """
    content = recipe.model_dump(mode="json")
    start = state.start or {}
    if state.start:
        content["backbone"]["init"] = state.start["init"]
    teacher = _teacher(recipe)
    if teacher:
        content["method"]["teacher"]["model"] = teacher["name"]
    return ModelConfig(
        name=recipe.name,
        architecture=recipe.backbone.architecture.partition(".")[0],  # a tag names weights
        model_args=dict(recipe.backbone.model_args),
        num_features=num_features,
        invariant_dim=invariant_length(num_features, recipe.method.split_ratio),
        preprocessing=preprocessing(recipe),
        provenance={
            "method": recipe.method.name,
            "data": recipe.data_name or data.name,
            "photos": data.photos,
            "epochs": round(state.step / per_epoch, 3),
            "planned_epochs": recipe.run.epochs,
            "steps": state.step,
            "hours": round(state.seconds / 3600, 3),
            "clever_hub": __version__,
            "torch": torch.__version__,
            **({"start": state.start} if state.start else {}),
            **({"teacher": teacher} if teacher else {}),
            "recipe": content,
        },
        license=start.get("license", "apache-2.0"),
        data_terms=_joined(
            start.get("data_terms", ""), teacher.get("data_terms", ""), recipe.data_terms
        ),
    )


def _joined(*terms: str) -> str:
    """Terms of the data of every stage, each once; those of a start may be joined already."""
    said = ""
    for one in terms:
        if one not in said:
            said = f"{said} {one}".strip()
    return said


def _teacher(recipe: Recipe) -> dict[str, Any]:
    """The teacher's name, not its path, its terms, and its training, from which labels come."""
    if recipe.method.teacher is None:
        return {}
    asked = recipe.method.teacher.model
    if asked.startswith(TIMM):
        return {"name": asked, **terms_of(timm_license(asked.removeprefix(TIMM)))}
    local = Path(asked).expanduser()
    try:
        config = ModelConfig.load(local if local.is_dir() else ZOO / asked)
    except ModelFormatError:  # of the Hub, or no longer there
        return {"name": public_model_name(asked), **_terms_on_the_hub(asked)}
    known = {key: config.provenance[key] for key in _TRAINING if key in config.provenance}
    return {"name": config.name, **known, **terms_of(config.license, config.data_terms)}


def _terms_on_the_hub(name: str) -> dict[str, str]:
    """The terms of a teacher of the Hub, which was downloaded before it could teach."""
    try:
        folder, _ = resolve(name, files=(CONFIG_NAME,), optional=(), local_files_only=True)
        config = ModelConfig.load(folder)
    except CleverError:  # it went meanwhile
        return {}
    return terms_of(config.license, config.data_terms)
