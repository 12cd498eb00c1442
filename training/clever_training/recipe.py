"""Recipes: a pre-training run in YAML, typed; what is unknown or ill-typed is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from clever_hub.errors import ConfigError, suggest

Scale = tuple[float, float]


class Section(BaseModel):
    """A part of a recipe: immutable, and strict about its keys and types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class BackboneRecipe(Section):
    """What is trained.

    Attributes:
        architecture: A name in timm.
        model_args: Arguments for ``timm.create_model``.
        drop_path: Stochastic depth of the student.
    """

    architecture: str = "resnet18"
    model_args: dict[str, Any] = {}
    drop_path: float = Field(0.0, ge=0.0, lt=1.0)


class MethodRecipe(Section):
    """How it is trained.

    Attributes:
        objective: Name of the invariance term.
        objective_args: Its arguments.
        equivariance: Split the embedding and add CLeVER's terms; False is the plain objective.
        split_ratio: Share of the invariant part.
        orthogonality_weight: λ.
        regularization_weight: λ_reg.
        teacher_momentum: At the start; 1 at the end, along a cosine.
        teacher_temperature: τ_t after warm-up.
        warmup_teacher_temperature: τ_t at the start.
        warmup_teacher_temperature_epochs: Length of its linear warm-up.
        freeze_last_layer_epochs: Epochs in which the DINO heads' last layers stay as they are.
    """

    objective: str = "dino"
    objective_args: dict[str, Any] = {}
    equivariance: bool = True
    split_ratio: float = Field(0.8, gt=0.0, lt=1.0)
    orthogonality_weight: float = Field(1.0, ge=0.0)
    regularization_weight: float = Field(0.001, ge=0.0)
    teacher_momentum: float = Field(0.996, ge=0.0, le=1.0)
    teacher_temperature: float = Field(0.04, gt=0.0)
    warmup_teacher_temperature: float = Field(0.04, gt=0.0)
    warmup_teacher_temperature_epochs: int = Field(0, ge=0)
    freeze_last_layer_epochs: int = Field(1, ge=0)


class ViewsRecipe(Section):
    """The augmented views (DINO's constants unless said otherwise).

    Attributes:
        strategy: ``baug``, or ``caug``, which adds a rotation within ±``rotation`` degrees.
        backend: ``fast`` composes the geometry into one resampling; ``torchvision`` is the
            published pipeline.
        global_count: Views that the teacher sees too.
        global_size: Their side in pixels.
        global_scale: Their share of the photo's area.
        local_count: Small views.
        local_size: Their side in pixels.
        local_scale: Their share of the photo's area.
        flip: Probability of a horizontal flip.
        rotation: Largest angle of ``caug``, in degrees.
        jitter: Brightness, contrast, saturation and hue strength.
        jitter_probability: How often colours are jittered.
        grayscale: Probability of a grey view.
        blur: Probability for the first global, the other global and the local views.
        blur_sigma: Range of the blur's standard deviation, in pixels at size 224; scaled with
            the view's size.
        solarize: Probability for the global views but the first.
        growth: Steps of progressive resizing: from each share of the run on, factors on
            ``global_size`` and ``local_size`` are replaced by this pair of sizes.
    """

    strategy: Literal["baug", "caug"] = "baug"
    backend: Literal["fast", "torchvision"] = "fast"
    global_count: int = Field(2, ge=1)
    global_size: PositiveInt = 224
    global_scale: Scale = (0.4, 1.0)
    local_count: int = Field(0, ge=0)
    local_size: PositiveInt = 96
    local_scale: Scale = (0.05, 0.4)
    flip: float = Field(0.5, ge=0.0, le=1.0)
    rotation: float = Field(90.0, ge=0.0, le=180.0)
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    jitter_probability: float = Field(0.8, ge=0.0, le=1.0)
    grayscale: float = Field(0.2, ge=0.0, le=1.0)
    blur: tuple[float, float, float] = (1.0, 0.1, 0.5)
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = Field(0.2, ge=0.0, le=1.0)
    growth: list[GrowthStep] = []

    @model_validator(mode="after")
    def _ranges(self) -> ViewsRecipe:
        for name in ("global_scale", "local_scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise ValueError(f"{name}: expected 0 < low <= high <= 1, got {[low, high]}")
        return self


class GrowthStep(Section):
    """One step of progressive resizing.

    Attributes:
        after: Share of the run at which it begins, in (0, 1).
        global_size: Side of the global views from then on.
        local_size: Side of the local views from then on; unchanged when None.
    """

    after: float = Field(gt=0.0, lt=1.0)
    global_size: PositiveInt
    local_size: PositiveInt | None = None


class OptimizerRecipe(Section):
    """How the weights move.

    Attributes:
        name: ``adamw`` or ``sgd``.
        lr: Learning rate for a batch of 256; scaled with the batch.
        final_lr: At the end of the cosine, not scaled.
        warmup_epochs: Linear warm-up from 0.
        weight_decay: At the start.
        weight_decay_end: At the end, along a cosine; None keeps it.
        momentum: Of SGD.
        clip_grad: Largest norm of each parameter's gradient; 0 is none.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(5e-4, gt=0.0)
    final_lr: float = Field(1e-6, ge=0.0)
    warmup_epochs: float = Field(10.0, ge=0.0)
    weight_decay: float = Field(0.04, ge=0.0)
    weight_decay_end: float | None = Field(None, ge=0.0)
    momentum: float = Field(0.9, ge=0.0, lt=1.0)
    clip_grad: float = Field(3.0, ge=0.0)


class RunRecipe(Section):
    """How long, and on what.

    Attributes:
        epochs: Passes through the data.
        batch_size: Photos in a step, over all processes.
        seed: Of everything random.
        precision: ``bf16``, ``fp32``, or ``auto``: bf16 where the processor computes it natively.
        channels_last: Memory format of the images.
        num_workers: Processes that load and augment; 0 does it in the training process.
        save_minutes: Time between two saved states.
        log_steps: Steps between two lines of metrics.jsonl.
        max_steps: Stop here, for trials; None goes on to the end.
    """

    epochs: PositiveInt = 100
    batch_size: int = Field(256, ge=2)
    seed: int = Field(0, ge=0)
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    channels_last: bool = True
    num_workers: int = Field(1, ge=0)
    save_minutes: float = Field(10.0, gt=0.0)
    log_steps: PositiveInt = 20
    max_steps: PositiveInt | None = None


class Recipe(Section):
    """A whole pre-training run.

    Attributes:
        name: Of the run and of the model that comes out.
        image_size: What the shipped model's preprocessing resizes to.
        data_name: What the data set is called in the card.
        data_terms: The terms of the data set, in a sentence.
        backbone: What is trained.
        method: How.
        views: On what views.
        optimizer: With what steps.
        run: How long.

    Example:
        >>> Recipe.parse({"name": "mine", "run": {"epochs": 3}}).run.epochs
        3
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    image_size: PositiveInt = 224
    data_name: str = ""
    data_terms: str = ""
    backbone: BackboneRecipe = BackboneRecipe()
    method: MethodRecipe = MethodRecipe()
    views: ViewsRecipe = ViewsRecipe()
    optimizer: OptimizerRecipe = OptimizerRecipe()
    run: RunRecipe = RunRecipe()

    @classmethod
    def parse(cls, content: object, where: str = "recipe") -> Recipe:
        """Check a recipe that has been read.

        Args:
            content: The mapping.
            where: Names it in errors.

        Returns:
            The recipe, with every default filled in.

        Raises:
            ConfigError: Names each wrong key by its dotted path, and the nearest known one.
        """
        if not isinstance(content, Mapping):
            raise ConfigError(
                f"{where}: expected a mapping of keys, got {type(content).__name__}. "
                "See training/README.md for an example"
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            lines = [_explain(cls, issue) for issue in error.errors()]
            raise ConfigError(f"{where}: " + "; ".join(lines)) from error


def read_recipe(name_or_path: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe file, or one that ships in the package.

    Args:
        name_or_path: A YAML file, or the name of a shipped recipe.
        overrides: Dotted paths and values that replace the file's, such as
            ``{"run.epochs": 3}``.

    Returns:
        The recipe.

    Raises:
        ConfigError: When there is no such file or recipe, it is no YAML, or a key is wrong.

    Example:
        >>> read_recipe("clever-resnet18-tiny").method.objective
        'vicreg'
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = Path(str(files("clever_training") / "recipes" / f"{name_or_path}.yaml"))
    if not path.is_file():
        hint = suggest(str(name_or_path), recipe_names())
        raise ConfigError(f"recipe {str(name_or_path)!r}: no such file or shipped recipe. {hint}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    if overrides and isinstance(content, dict):
        for dotted, value in overrides.items():
            _set(content, dotted, value)
    return Recipe.parse(content, str(name_or_path))


def recipe_names() -> list[str]:
    """The recipes that ship in the package, sorted."""
    folder = Path(str(files("clever_training") / "recipes"))
    return sorted(path.stem for path in folder.glob("*.yaml"))


def _set(content: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        content = content.setdefault(parent, {})
        if not isinstance(content, dict):
            raise ConfigError(f"{dotted}: {parent} is not a section of the recipe")
    content[last] = value


def _explain(model: type[BaseModel], issue: Any) -> str:
    """One line for one finding of pydantic."""
    path = [str(part) for part in issue["loc"]]
    dotted = ".".join(path)
    if issue["type"] != "extra_forbidden":
        got = "" if issue["type"] == "missing" else f", got {issue['input']!r}"
        return f"{dotted or 'recipe'}: {issue['msg']}{got}"
    section: Any = model
    for part in path[:-1]:
        annotation = section.model_fields[part].annotation if part in section.model_fields else None
        section = annotation if isinstance(annotation, type) else GrowthStep
    return f"{dotted}: unknown key. {suggest(path[-1], section.model_fields)}"
