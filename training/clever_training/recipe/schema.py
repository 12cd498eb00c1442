"""Recipes: a pre-training run in typed YAML; unknown keys and wrong types are refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    model_validator,
)

from clever_hub.config import IMAGENET_MEAN, IMAGENET_STD
from clever_hub.errors import ConfigError, suggest
from clever_training.recipe.methods import method_label, method_settings

Scale = tuple[float, float]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Strength = Annotated[float, Field(ge=0.0)]
HueStrength = Annotated[float, Field(ge=0.0, le=0.5)]  # 0.5 reaches every hue
PerChannel = tuple[float, float, float]


def _whole(number: float) -> int | float:
    """Turn 3.0 into 3, so that a recipe is shown as it was written."""
    return int(number) if number == int(number) else number


class Section(BaseModel):
    """A part of a recipe: immutable, with checked keys and types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class BackboneRecipe(Section):
    """The network that is trained.

    Attributes:
        architecture: A name in timm.
        model_args: Arguments for ``timm.create_model``.
        drop_path: Rate of the student's stochastic depth.
        init: Initial weights: ``random``, ``timm`` (its own pretrained weights), or a clever model
            by name or folder.
        mean: Mean of each channel, red green blue, for pixels in [0, 1]. By default ``mean``,
            ``std``, ``interpolation`` and the recipe's ``image_size`` are those of the weights that
            ``init`` names; for random weights mean and deviation are ImageNet's.
        std: Standard deviation of each channel.
        interpolation: How the shipped model resizes photos.
        trainable: ``all``, or ``last-N-stages``, which freezes the other stages.
        batch_norm: ``train``: BatchNorm uses each batch's statistics and updates its running ones;
            ``frozen``: it keeps its initial running statistics, for warm starts.
        gradient_checkpointing: Recompute activations in the backward pass; it takes less memory
            and about a third more time.
    """

    architecture: str = "resnet18"
    model_args: dict[str, Any] = {}
    drop_path: float = Field(0.0, ge=0.0, lt=1.0)
    init: str = Field("random", min_length=1)
    mean: PerChannel = IMAGENET_MEAN
    std: PerChannel = IMAGENET_STD
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    trainable: str = Field("all", pattern=r"^(all|last-[1-9][0-9]*-stages?)$")
    batch_norm: Literal["train", "frozen"] = "train"
    gradient_checkpointing: bool = False

    @model_validator(mode="before")
    @classmethod
    def _from_architecture(cls, content: object) -> object:
        return {"architecture": content} if isinstance(content, str) else content


class TeacherRecipe(Section):
    """A frozen network whose embeddings of clean photos are the targets of distillation.

    Attributes:
        model: ``timm:NAME``, or a clever model by name or folder; ``teacher: NAME`` is short for
            it.
        size: Side of its input in pixels; None is the teacher's own.
        precision: ``fp32``, or ``bf16``, which is faster on many processors.
    """

    model: str = Field(min_length=1)
    size: PositiveInt | None = None
    precision: Literal["fp32", "bf16"] = "fp32"

    @model_validator(mode="before")
    @classmethod
    def _from_model(cls, content: object) -> object:
        return {"model": content} if isinstance(content, str) else content


class TermRecipe(Section):
    """One of several invariance terms.

    Attributes:
        name: Name of the objective, or ``package.module:function``.
        weight: Weight of its term.
        args: Its arguments, as in ``objective_args``.
    """

    name: str = Field(min_length=1)
    weight: float = Field(1.0, gt=0.0)
    args: dict[str, Any] = {}


class TransformationGroups(Section):
    """Weight of each group of values in the transformation term.

    Attributes:
        rotation: Weight of the rotation between the views.
        crop: Weight of place and size.
        color: Weight of brightness, contrast, saturation and hue.
        turn: Weight of the second view's rotation from upright.
        mirroring: Weight of whether exactly one view is mirrored.
    """

    rotation: float = Field(1.0, ge=0.0)
    crop: float = Field(1.0, ge=0.0)
    color: float = Field(1.0, ge=0.0)
    turn: float = Field(1.0, ge=0.0)
    mirroring: float = Field(1.0, ge=0.0)


class MethodRecipe(Section):
    """The loss terms and their heads.

    Attributes:
        name: A method by name, such as ``clever-dino``, which stands for the keys that
            ``methods.method_settings`` lists; ``method: clever-dino`` is short for it. It is filled
            in for a method that is given by its keys.
        objective: Name of the invariance term, or ``package.module:function``.
        objective_args: Its arguments.
        objectives: Several invariance terms with weights, instead of ``objective`` and its
            arguments; the first one defines head and terms of the equivariant part.
        teacher: Frozen teacher of the objective ``distill``, or of a class of your own that has
            ``uses_targets``.
        equivariance: Split the embedding and add CLeVER's terms; False for the plain objective.
        split_ratio: Share of the invariant part.
        orthogonality_weight: λ.
        regularization_weight: λ_reg.
        transformation_weight: Weight of predicting the relative transformation of two views from
            their equivariant parts; 0, as in the paper, leaves the term out.
        transformation_groups: Weights of the groups of predicted values; each is 1 by default.
        transformation_dim: Width of the hidden layers of the transformation head.
        teacher_momentum: Momentum of the teacher at the start; it rises to 1 along a cosine.
        teacher_temperature: τ_t after warm-up.
        warmup_teacher_temperature: τ_t at the start.
        warmup_teacher_temperature_epochs: Length of the linear warm-up of τ_t.
        freeze_last_layer_epochs: Epochs in which the last layers of DINO's heads are frozen.
    """

    name: str = ""
    objective: str = "dino"
    objective_args: dict[str, Any] = {}
    objectives: list[TermRecipe] = []
    teacher: TeacherRecipe | None = None
    equivariance: bool = True
    split_ratio: float = Field(0.8, gt=0.0, lt=1.0)
    orthogonality_weight: float = Field(1.0, ge=0.0)
    regularization_weight: float = Field(0.001, ge=0.0)
    transformation_weight: float = Field(0.0, ge=0.0)
    transformation_groups: TransformationGroups = TransformationGroups()
    transformation_dim: PositiveInt = 512
    teacher_momentum: float = Field(0.996, ge=0.0, le=1.0)
    teacher_temperature: float = Field(0.04, gt=0.0)
    warmup_teacher_temperature: float = Field(0.04, gt=0.0)
    warmup_teacher_temperature_epochs: int = Field(0, ge=0)
    freeze_last_layer_epochs: int = Field(1, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _expand_name(cls, content: object) -> object:
        if isinstance(content, str):
            content = {"name": content}
        if not isinstance(content, Mapping):
            return content
        if not isinstance(content.get("name") or None, str):
            return cls._with_first_objective(content)
        settings = method_settings(content["name"])
        first = _first_objective(content) or settings["objective"]
        if first != settings["objective"]:
            raise ValueError(
                f"{content['name']} has the objective {settings['objective']!r}, but the first of "
                f"objectives is {first!r}. Name the method after its first objective"
            )
        for key in ("objective", "equivariance"):
            if content.get(key, settings[key]) != settings[key]:
                raise ValueError(
                    f"{content['name']} has {key} {settings[key]!r}, but {key} is also set to "
                    f"{content[key]!r}. Leave one of them out"
                )
        return cls._with_first_objective({**settings, **content})

    @staticmethod
    def _with_first_objective(content: Mapping[str, Any]) -> Mapping[str, Any]:
        """Let ``objective`` be the first of ``objectives``; refuse what these would replace."""
        if not content.get("objectives"):
            return content
        if content.get("objective_args"):
            raise ValueError(
                "objective_args: objectives take the place of objective and its arguments, so "
                "these would be ignored. Give args to one of objectives instead"
            )
        first = _first_objective(content)
        if first is None:
            return content
        if content.get("objective", first) != first:
            raise ValueError(
                f"objective: {content['objective']!r} would be ignored, the first of objectives is "
                f"{first!r}. Leave objective out"
            )
        return {**content, "objective": first}

    @model_validator(mode="after")
    def _has_equivariant_part(self) -> MethodRecipe:
        if self.transformation_weight and not self.equivariance:
            raise ValueError(
                "transformation_weight: this method has no equivariant part, which the term needs. "
                "Choose a clever-… method, or set the weight to 0"
            )
        return self

    @model_validator(mode="after")
    def _has_teacher(self) -> MethodRecipe:
        distills = any(term.name == "distill" for term in self.terms)
        # Whether a class of one's own uses a teacher is known once it is loaded.
        own = any(":" in term.name for term in self.terms)
        if distills and self.teacher is None:
            raise ValueError(
                "teacher: distill needs one, such as timm:NAME, a clever model or a model folder"
            )
        if self.teacher is not None and not (distills or own):
            raise ValueError(
                "teacher: only the objective distill learns from a teacher, or a class of your "
                "own. Add it, or drop teacher"
            )
        return self

    @property
    def terms(self) -> list[TermRecipe]:
        """The invariance terms; one of weight 1 where ``objectives`` names none."""
        return self.objectives or [TermRecipe(name=self.objective, args=self.objective_args)]

    @model_validator(mode="after")
    def _fill_name(self) -> MethodRecipe:
        # A method has the same name whether it is given by name or by its keys.
        if not self.name:
            first = self.terms[0].name
            label = method_label(first, self.equivariance, self.transformation_weight > 0)
            object.__setattr__(self, "name", label)
        return self


def _first_objective(method: Mapping[str, Any]) -> Any:
    """The name of the first of ``objectives``; None where it has none yet."""
    terms = method.get("objectives")
    first = terms[0] if isinstance(terms, list) and terms else None
    return first.get("name") if isinstance(first, Mapping) else None


# Chen and He, "Exploring Simple Siamese Representation Learning", https://arxiv.org/abs/2011.10566
SIMSIAM_VIEWS: dict[str, Any] = {
    "global_scale": (0.2, 1.0),
    "jitter": (0.4, 0.4, 0.4, 0.1),
    "blur": (0.5, 0.5, 0.5),
    "solarize": 0.0,
}


class ViewsRecipe(Section):
    """The augmented views; the defaults are DINO's constants unless noted otherwise.

    Attributes:
        flavour: Defaults of crops, jitter and blur: ``dino`` or ``simsiam``.
        strategy: ``baug``; ``caug``, which adds a rotation within ±``rotation`` degrees; or
            ``caug+``, which adds an elastic distortion to that.
        aug: A custom augmentation, ``package.module:function``, see ``views/custom.py``. It
            replaces everything below but the counts and sizes of the views.
        backend: ``fast`` composes the geometry into one resampling; ``torchvision`` is the
            published pipeline.
        global_count: Number of global views, which the teacher sees too.
        global_size: Side of the global views in pixels.
        global_scale: Range of the global views' share of the photo's area.
        local_count: Number of local views, which are small.
        local_size: Side of the local views in pixels.
        local_scale: Range of the local views' share of the photo's area.
        flip: Probability of a horizontal flip.
        rotation: Largest angle of ``caug``, in degrees.
        rotation_probability: How often a view is rotated. Pairs of upright views teach mirroring,
            which hardly begins where every pair is turned.
        elastic: Probability of the elastic distortion of ``caug+``.
        elastic_alpha: Its strength, as torchvision's in a view of 224 pixels.
        elastic_sigma: Its smoothness, in pixels of such a view.
        corners: What a rotation brings in from outside the crop: ``black``, as in
            crop-then-rotate, or ``context``, what the photo has there.
        disc: Probability that a view is seen through the disc that touches its sides, all else
            grey: corners and edges then tell nothing of its turn.
        jitter: Brightness, contrast, saturation and hue strength.
        jitter_probability: How often colours are jittered.
        grayscale: Probability of a grey view.
        blur: Probability of blur for the first global, the other global and the local views.
        blur_sigma: Range of the blur's standard deviation, in pixels at size 224; it scales with
            the view's size.
        scale_lengths: Scale blur and elastic distortion with the view's size; False uses the same
            number of pixels at any size, as the published code does.
        solarize: Probability of solarisation for the global views but the first.
        growth: Steps of progressive resizing; each sets new sizes from a share of the run on.
    """

    flavour: Literal["dino", "simsiam"] = "dino"
    strategy: Literal["baug", "caug", "caug+"] = "baug"
    aug: str | None = None
    backend: Literal["fast", "torchvision"] = "fast"
    global_count: int = Field(2, ge=1)
    global_size: PositiveInt = 224
    global_scale: Scale = (0.4, 1.0)
    local_count: int = Field(0, ge=0)
    local_size: PositiveInt = 96
    local_scale: Scale = (0.05, 0.4)
    flip: float = Field(0.5, ge=0.0, le=1.0)
    rotation: float = Field(90.0, ge=0.0, le=180.0)
    rotation_probability: float = Field(1.0, ge=0.0, le=1.0)
    elastic: float = Field(0.5, ge=0.0, le=1.0)
    elastic_alpha: float = Field(100.0, ge=0.0)
    elastic_sigma: float = Field(5.0, gt=0.0)
    corners: Literal["black", "context"] = "black"
    disc: float = Field(0.0, ge=0.0, le=1.0)
    jitter: tuple[Strength, Strength, Strength, HueStrength] = (0.4, 0.4, 0.2, 0.1)
    jitter_probability: float = Field(0.8, ge=0.0, le=1.0)
    grayscale: float = Field(0.2, ge=0.0, le=1.0)
    blur: tuple[Share, Share, Share] = (1.0, 0.1, 0.5)
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    scale_lengths: bool = True
    solarize: float = Field(0.2, ge=0.0, le=1.0)
    growth: list[GrowthStep] = []

    @model_validator(mode="before")
    @classmethod
    def _expand_flavour(cls, content: object) -> object:
        simsiam = isinstance(content, Mapping) and content.get("flavour") == "simsiam"
        return {**SIMSIAM_VIEWS, **content} if simsiam else content  # type: ignore[dict-item]

    @model_validator(mode="after")
    def _ranges(self) -> ViewsRecipe:
        for name in ("global_scale", "local_scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise ValueError(f"{name}: expected 0 < low <= high <= 1, got {[low, high]}")
        low, high = self.blur_sigma
        if not 0 <= low <= high:
            raise ValueError(f"blur_sigma: expected 0 <= low <= high, got {[low, high]}")
        drawn_here = self.backend == "fast" and self.aug is None
        asked = {"disc": self.disc > 0, "rotation_probability": self.rotation_probability < 1}
        for name, used in asked.items():
            if used and not drawn_here:
                raise ValueError(f"{name} needs backend: fast, and no aug of your own")
        if self.corners == "context" and self.backend != "fast":
            raise ValueError(
                "corners: context needs backend: fast; the published corners are black"
            )
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
    """The optimiser and its schedule.

    Attributes:
        name: ``adamw``, ``sgd`` or ``muon``, which learns more from the same photos and takes a
            quarter to a half more time for a step (docs/zoo.md).
        lr: Learning rate for a batch of 256; it is scaled with the batch size.
        final_lr: Learning rate at the end of the cosine; it is not scaled.
        warmup_epochs: Epochs of linear warm-up of the learning rate from 0.
        layer_decay: Factor on the learning rate from each layer of the backbone to the one before,
            counted as timm does; 1 is none. Below 1 a warm start changes its early layers less.
        weight_decay: Weight decay at the start.
        weight_decay_end: Weight decay at the end, along a cosine; None keeps it constant.
        momentum: Momentum of SGD and Muon.
        clip_grad: Largest norm of each parameter's gradient; 0 does not clip.
    """

    name: Literal["adamw", "sgd", "muon"] = "adamw"
    lr: float = Field(5e-4, gt=0.0)
    final_lr: float = Field(1e-6, ge=0.0)
    warmup_epochs: float = Field(10.0, ge=0.0)
    layer_decay: float = Field(1.0, gt=0.0, le=1.0)
    weight_decay: float = Field(0.04, ge=0.0)
    weight_decay_end: float | None = Field(None, ge=0.0)
    momentum: float = Field(0.9, ge=0.0, lt=1.0)
    clip_grad: float = Field(3.0, ge=0.0)


class RunRecipe(Section):
    """Length, batch size and resources of the run.

    Attributes:
        epochs: Passes through the data; may be a fraction, such as 0.5.
        batch_size: Photos in a step, over all processes.
        seed: Seed of everything random.
        precision: ``bf16``, ``fp32``, or ``auto``: bf16 where the hardware supports it.
        channels_last: Whether images have the memory format channels_last.
        num_workers: Processes that load and augment; 0 uses the training process.
        accumulation: Number of parts in which a batch passes through the backbone, to save memory;
            loss and gradients are those of the whole batch.
        stream: Read the photos in order, shard by shard, from disk or the Hub, instead of picking
            them by number.
        stream_photos: Photos in a pass through a stream whose files do not record it.
        stream_window: Photos of a stream that are read ahead and shuffled together.
        knn_every_epochs: Epochs between k-NN measurements on ``--validation``; 0 measures only at
            the end.
        knn_photos: Limit on the neighbours and on the queries of that measurement.
        save_minutes: Minutes between two saved states.
        log_steps: Steps between two lines of metrics.jsonl.
        max_steps: Steps after which to stop, for trials; None trains to the end.
    """

    epochs: Annotated[float, Field(gt=0, allow_inf_nan=False), AfterValidator(_whole)] = 100
    batch_size: int = Field(256, ge=2)
    seed: int = Field(0, ge=0, lt=2**31)
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    channels_last: bool = True
    num_workers: int = Field(1, ge=0)
    accumulation: PositiveInt = 1
    stream: bool = False
    stream_photos: PositiveInt | None = None
    stream_window: PositiveInt = 4096
    knn_every_epochs: int = Field(1, ge=0)
    knn_photos: int = Field(10_000, ge=2)
    save_minutes: float = Field(10.0, gt=0.0)
    log_steps: PositiveInt = 20
    max_steps: PositiveInt | None = None


class Recipe(Section):
    """A whole pre-training run.

    Attributes:
        name: Name of the run and of its model; not that of a model that ships.
        image_size: Side in pixels to which the model's preprocessing resizes images.
        data_name: Name of the data set in the model card; the id or the folder that the run is
            given when empty.
        data_terms: Terms of the data set, in a sentence.
        backbone: The network that is trained.
        method: The loss terms.
        views: The augmented views.
        optimizer: The optimiser and its schedule.
        run: Length, batch size and resources.

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

    @model_validator(mode="after")
    def _views_agree(self) -> Recipe:
        if self.views.global_count + self.views.local_count < 2:
            raise ValueError("views.global_count: expected 2 views or more, got 1 and no local one")
        return self

    @classmethod
    def parse(cls, content: object, where: str = "recipe") -> Recipe:
        """Validate the content of a recipe.

        Args:
            content: The mapping.
            where: Names the recipe in errors.

        Returns:
            The recipe, with every default filled in.

        Raises:
            ConfigError: Names each wrong key by its dotted path, and suggests a similar one.
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

    def with_random_start(self) -> Recipe:
        """The same recipe with random initial weights, for a run whose state holds its weights."""
        backbone = self.backbone.model_copy(update={"init": "random"})
        return self.model_copy(update={"backbone": backbone})

    def warnings(self) -> list[str]:
        """Warnings about schedules that are longer than the run: valid, but probably unintended.

        Returns:
            A sentence for each.
        """
        epochs, warmup = self.run.epochs, self.optimizer.warmup_epochs
        frozen = self.method.freeze_last_layer_epochs
        found = []
        if warmup >= epochs:
            found.append(
                f"optimizer.warmup_epochs: {warmup:g} is not less than run.epochs, {epochs:g}, so "
                "the learning rate never falls"
            )
        if any(term.name == "dino" for term in self.method.terms) and frozen >= epochs:
            found.append(
                f"method.freeze_last_layer_epochs: {frozen} is not less than run.epochs, "
                f"{epochs:g}, so the last layers of the heads are never trained"
            )
        return found

    def total_steps(self, steps_per_epoch: int) -> int:
        """Number of steps of the whole schedule.

        Args:
            steps_per_epoch: Steps in a pass through the data.

        Returns:
            The steps, at least 1.

        Example:
            >>> Recipe.parse({"name": "mine", "run": {"epochs": 0.5}}).total_steps(195)
            98
        """
        return max(1, round(self.run.epochs * steps_per_epoch))


def _explain(model: type[BaseModel], issue: Any) -> str:
    """An error of pydantic in one line."""
    path = [str(part) for part in issue["loc"]]
    dotted = ".".join(path)
    if issue["type"] != "extra_forbidden":
        # Messages of our own checks already name the value.
        told = issue["type"] in ("missing", "value_error")
        got = "" if told else f", got {issue['input']!r}"
        return f"{dotted or 'recipe'}: {issue['msg'].removeprefix('Value error, ')}{got}"
    section = model
    for part in path[:-1]:
        if part in section.model_fields:  # and not the number of an entry
            section = _section_in(section.model_fields[part].annotation)
    return f"{dotted}: unknown key. {suggest(path[-1], section.model_fields)}"


def _section_in(annotation: Any) -> type[BaseModel]:
    """The section in a type such as ``TeacherRecipe | None`` or ``list[TermRecipe]``."""
    kinds: tuple[Any, ...] = get_args(annotation) or (annotation,)
    found: type[BaseModel] = next(kind for kind in kinds if issubclass(kind, BaseModel))
    return found
