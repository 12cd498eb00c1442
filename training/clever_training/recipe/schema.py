"""Recipes: a pre-training run in YAML, typed; what is unknown or ill-typed is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

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
PerChannel = tuple[float, float, float]


def _whole(number: float) -> int | float:
    """A whole number as one, so that a recipe reads as it was written."""
    return int(number) if number == int(number) else number


class Section(BaseModel):
    """A part of a recipe: immutable, and strict about its keys and types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class BackboneRecipe(Section):
    """What is trained.

    Attributes:
        architecture: A name in timm.
        model_args: Arguments for ``timm.create_model``.
        drop_path: Stochastic depth of the student.
        init: What to start from: ``random``, ``timm`` (its own pretrained weights), or a clever
            model, by name or folder.
        mean: Mean of each channel, red green blue, of pixels in [0, 1]. Where it, ``std``,
            ``interpolation`` or the recipe's ``image_size`` is left out, it is that of the weights
            that ``init`` names; ImageNet's are those of random weights.
        std: Standard deviation of each channel.
        interpolation: How the shipped model resizes photos.
        trainable: ``all``, or ``last-N-stages``: the rest of the backbone stays as it is.
        batch_norm: ``train``: BatchNorm takes each batch's statistics, and keeps running ones;
            ``frozen``: it keeps those that it starts with, for warm starts.
        gradient_checkpointing: Compute activations again in the backward pass: less memory, about
            a third more time.
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
        model: ``timm:NAME``, or a clever model by name or folder. ``teacher: NAME`` says the same.
        size: Side of the photos that it sees, in pixels; its own when None.
    """

    model: str = Field(min_length=1)
    size: PositiveInt | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_model(cls, content: object) -> object:
        return {"model": content} if isinstance(content, str) else content


class TermRecipe(Section):
    """One of several invariance terms.

    Attributes:
        name: Of the objective, or ``package.module:function``.
        weight: Of its term.
        args: Its arguments, as ``objective_args``.
    """

    name: str = Field(min_length=1)
    weight: float = Field(1.0, gt=0.0)
    args: dict[str, Any] = {}


class TransformationGroups(Section):
    """How much each group of what is predicted of two views counts, among them.

    Attributes:
        rotation: Of one view to the other.
        crop: Place and size.
        color: Brightness, contrast, saturation and hue.
        turn: Of the second view, from upright.
        mirroring: Whether one of them is mirrored.
    """

    rotation: float = Field(1.0, ge=0.0)
    crop: float = Field(1.0, ge=0.0)
    color: float = Field(1.0, ge=0.0)
    turn: float = Field(1.0, ge=0.0)
    mirroring: float = Field(1.0, ge=0.0)


class MethodRecipe(Section):
    """How it is trained.

    Attributes:
        name: A method by name, such as ``clever-dino``; stands for the keys that
            ``methods.method_settings`` lists. ``method: clever-dino`` says the same. Filled in
            where the method is put together key by key.
        objective: Name of the invariance term, or ``package.module:function``.
        objective_args: Its arguments.
        objectives: Several invariance terms with their weights, in the place of ``objective``; the
            first one's head and terms are the equivariant part's.
        teacher: Of distillation.
        equivariance: Split the embedding and add CLeVER's terms; False is the plain objective.
        split_ratio: Share of the invariant part.
        orthogonality_weight: λ.
        regularization_weight: λ_reg.
        transformation_weight: Of predicting the relative transformation of two views from their
            equivariant parts; 0, the paper's method, does without.
        transformation_groups: Shares of what is predicted, 1 each where left out: ``rotation``,
            ``crop``, ``color``, ``turn`` and ``mirroring``.
        transformation_dim: Width of the hidden layers that predict it.
        teacher_momentum: At the start; 1 at the end, along a cosine.
        teacher_temperature: τ_t after warm-up.
        warmup_teacher_temperature: τ_t at the start.
        warmup_teacher_temperature_epochs: Length of its linear warm-up.
        freeze_last_layer_epochs: Epochs in which the DINO heads' last layers stay as they are.
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
        if not isinstance(content, Mapping) or not isinstance(content.get("name") or None, str):
            return content
        settings = method_settings(content["name"])
        first = (content.get("objectives") or [{}])[0]
        if (
            isinstance(first, Mapping)
            and first.get("name", settings["objective"]) != (settings["objective"])
        ):
            raise ValueError(
                f"{content['name']} has the objective {settings['objective']!r}, but the first of "
                f"objectives is {first['name']!r}. Name the method after its first objective"
            )
        for key in ("objective", "equivariance"):
            if content.get(key, settings[key]) != settings[key]:
                raise ValueError(
                    f"{content['name']} has {key} {settings[key]!r}, but {key} is also set to "
                    f"{content[key]!r}. Leave one of them out"
                )
        return {**settings, **content}

    @model_validator(mode="after")
    def _has_equivariant_part(self) -> MethodRecipe:
        if self.transformation_weight and not self.equivariance:
            raise ValueError("transformation_weight needs equivariance: there is no part to ask")
        return self

    @model_validator(mode="after")
    def _has_teacher(self) -> MethodRecipe:
        distills = any(term.name == "distill" for term in self.terms)
        if distills and self.teacher is None:
            raise ValueError(
                "teacher: distill needs one, such as timm:NAME, a clever model or a model folder"
            )
        if self.teacher is not None and not distills:
            raise ValueError(
                "teacher: nothing is learned from it. Take the objective distill, or leave it out"
            )
        return self

    @property
    def terms(self) -> list[TermRecipe]:
        """The invariance terms; one of weight 1 where ``objectives`` names none."""
        return self.objectives or [TermRecipe(name=self.objective, args=self.objective_args)]

    @model_validator(mode="after")
    def _fill_name(self) -> MethodRecipe:
        # The same method has the same name, however it was said.
        if not self.name:
            names = "+".join(term.name for term in self.terms)
            label = method_label(names, self.equivariance, self.transformation_weight > 0)
            object.__setattr__(self, "name", label)
        return self


# Chen and He, "Exploring Simple Siamese Representation Learning", https://arxiv.org/abs/2011.10566
SIMSIAM_VIEWS: dict[str, Any] = {
    "global_scale": (0.2, 1.0),
    "jitter": (0.4, 0.4, 0.4, 0.1),
    "blur": (0.5, 0.5, 0.5),
    "solarize": 0.0,
}


class ViewsRecipe(Section):
    """The augmented views (DINO's constants unless said otherwise).

    Attributes:
        flavour: ``simsiam`` stands for SimSiam's crops, jitter and blur, as far as they are not
            set here; ``dino`` for the defaults.
        strategy: ``baug``; ``caug``, which adds a rotation within ±``rotation`` degrees; or
            ``caug+``, which adds an elastic distortion to that.
        aug: An augmentation of the user's own instead of all that follows but the views' counts
            and sizes: ``package.module:function``, see ``user_views.py``.
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
        blur: Probability for the first global, the other global and the local views.
        blur_sigma: Range of the blur's standard deviation, in pixels at size 224; scaled with
            the view's size.
        scale_lengths: Scale blur and elastic distortion with the view's size; False takes them in
            pixels of any view, as the published code does.
        solarize: Probability for the global views but the first.
        growth: Steps of progressive resizing: from each share of the run on, factors on
            ``global_size`` and ``local_size`` are replaced by this pair of sizes.
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
    elastic: float = Field(0.5, ge=0.0, le=1.0)
    elastic_alpha: float = Field(100.0, ge=0.0)
    elastic_sigma: float = Field(5.0, gt=0.0)
    corners: Literal["black", "context"] = "black"
    disc: float = Field(0.0, ge=0.0, le=1.0)
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    jitter_probability: float = Field(0.8, ge=0.0, le=1.0)
    grayscale: float = Field(0.2, ge=0.0, le=1.0)
    blur: tuple[float, float, float] = (1.0, 0.1, 0.5)
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
        if self.disc and (self.backend != "fast" or self.aug is not None):
            raise ValueError("disc needs backend: fast, and no aug of your own")
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
    """How the weights move.

    Attributes:
        name: ``adamw`` or ``sgd``.
        lr: Learning rate for a batch of 256; scaled with the batch.
        final_lr: At the end of the cosine, not scaled.
        warmup_epochs: Linear warm-up from 0.
        layer_decay: Factor on the learning rate for each layer of the backbone further from its
            end, as timm counts them; 1 is none. A warm start keeps what its early layers had.
        weight_decay: At the start.
        weight_decay_end: At the end, along a cosine; None keeps it.
        momentum: Of SGD.
        clip_grad: Largest norm of each parameter's gradient; 0 is none.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(5e-4, gt=0.0)
    final_lr: float = Field(1e-6, ge=0.0)
    warmup_epochs: float = Field(10.0, ge=0.0)
    layer_decay: float = Field(1.0, gt=0.0, le=1.0)
    weight_decay: float = Field(0.04, ge=0.0)
    weight_decay_end: float | None = Field(None, ge=0.0)
    momentum: float = Field(0.9, ge=0.0, lt=1.0)
    clip_grad: float = Field(3.0, ge=0.0)


class RunRecipe(Section):
    """How long, and on what.

    Attributes:
        epochs: Passes through the data; a part of one, such as 0.5, ends its schedule there.
        batch_size: Photos in a step, over all processes.
        seed: Of everything random.
        precision: ``bf16``, ``fp32``, or ``auto``: bf16 where the processor computes it natively.
        channels_last: Memory format of the images.
        num_workers: Processes that load and augment; 0 does it in the training process.
        accumulation: Parts in which a batch passes the backbone, one after another, for its memory;
            loss and gradients stay those of the whole batch.
        stream: Read the photos in order, shard by shard, as they come from disk or the Hub, instead
            of picking each by its number.
        stream_photos: Photos in a pass through a stream, where its files do not say.
        stream_window: Photos of a stream that are read ahead and shuffled together.
        knn_every_epochs: Epochs between two k-NN measurements on ``--validation``; 0 measures at
            the end alone.
        knn_photos: Most photos on each side of that measurement.
        save_minutes: Time between two saved states.
        log_steps: Steps between two lines of metrics.jsonl.
        max_steps: Stop here, for trials; None goes on to the end.
    """

    epochs: Annotated[float, Field(gt=0, allow_inf_nan=False), AfterValidator(_whole)] = 100
    batch_size: int = Field(256, ge=2)
    seed: int = Field(0, ge=0)
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

    @model_validator(mode="after")
    def _views_agree(self) -> Recipe:
        if self.views.global_count + self.views.local_count < 2:
            raise ValueError("views.global_count: expected 2 views or more, got 1 and no local one")
        return self

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

    def with_random_start(self) -> Recipe:
        """The same run, with a backbone that has yet to get its weights."""
        backbone = self.backbone.model_copy(update={"init": "random"})
        return self.model_copy(update={"backbone": backbone})

    def remarks(self) -> list[str]:
        """What is allowed, and rarely meant: schedules that do not fit into the run.

        Returns:
            A sentence for each.
        """
        epochs, warmup = self.run.epochs, self.optimizer.warmup_epochs
        frozen = self.method.freeze_last_layer_epochs
        found = []
        if warmup >= epochs:
            found.append(
                f"optimizer.warmup_epochs: {warmup:g} is no less than run.epochs, {epochs:g}: the "
                "learning rate never falls"
            )
        if any(term.name == "dino" for term in self.method.terms) and frozen >= epochs:
            found.append(
                f"method.freeze_last_layer_epochs: {frozen} is no less than run.epochs, "
                f"{epochs:g}: the last layers of the heads never learn"
            )
        return found

    def total_steps(self, steps_per_epoch: int) -> int:
        """Steps from the first to the end of the schedule.

        Args:
            steps_per_epoch: Steps in a pass through the data.

        Returns:
            At least 1.

        Example:
            >>> Recipe.parse({"name": "mine", "run": {"epochs": 0.5}}).total_steps(195)
            98
        """
        return max(1, round(self.run.epochs * steps_per_epoch))


def _explain(model: type[BaseModel], issue: Any) -> str:
    """One line for one finding of pydantic."""
    path = [str(part) for part in issue["loc"]]
    dotted = ".".join(path)
    if issue["type"] != "extra_forbidden":
        # What our own checks say names the value already.
        told = issue["type"] in ("missing", "value_error")
        got = "" if told else f", got {issue['input']!r}"
        return f"{dotted or 'recipe'}: {issue['msg'].removeprefix('Value error, ')}{got}"
    section: Any = model
    for part in path[:-1]:
        annotation = section.model_fields[part].annotation if part in section.model_fields else None
        section = annotation if isinstance(annotation, type) else GrowthStep
    return f"{dotted}: unknown key. {suggest(path[-1], section.model_fields)}"
