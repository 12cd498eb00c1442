"""How a model came about, in one line and in stages, from the provenance in its config.json.

The card and ``clever-hub info`` say it in the same words. Labels are told of wherever they went in,
be it through a teacher or through the weights that a training started from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice, takewhile
from typing import Any

from clever_hub.config import ModelConfig

OBJECTIVES = {
    "dino": "DINO",
    "vicreg": "VICReg",
    "simclr": "SimCLR",
    "simsiam": "SimSiam",
    "lejepa": "LeJEPA",
    "ddcl": "DDCL",
    "distill": "distillation",
}
# Of models that others trained: what a provenance that names one may leave out.
_PUBLIC = (
    (
        r"(?i)(?:timm:|tf_)*efficientnet[-_]lite(\d)\b.*",
        r"EfficientNet-Lite\1",
        "ImageNet's labels",
    ),
)
FINETUNED = "finetune"  # the method of `clever-hub finetune`
_LABELS = re.compile(r"(ImageNet)\b(?!.*\bwithout labels).*\blabels", re.IGNORECASE)
_MAX_STAGES = 100  # a config may be a stranger's
Facts = Mapping[str, Any]


def origin(config: ModelConfig) -> str:
    """How the weights were made, in one line.

    Args:
        config: The model's.

    Returns:
        Text without a full stop, such as ``"distilled from EfficientNet-Lite2, which was trained
        with ImageNet's labels; 2 epochs, 0.5 hours"``.

    Example:
        >>> from clever_hub.hub.shipped import ZOO
        >>> origin(ModelConfig.load(ZOO / "clever-resnet18"))  # doctest: +SKIP
        'trained without labels from random weights by CLeVER over SimCLR; 56 epochs, …'
    """
    provenance = config.provenance
    told = provenance.keys() & {"method", "imported", "source", "recipe"}
    if not told and not _is_trained_further(provenance):
        return "not recorded"
    return "; ".join(filter(None, (_how(provenance, config.name), _effort(config))))


def stages(config: ModelConfig) -> list[str]:
    """What was done to the weights, the first stage first.

    Args:
        config: The model's.

    Returns:
        A line for each stage, with the weights that the first one started from.

    Example:
        >>> from clever_hub.hub.shipped import ZOO
        >>> stages(ModelConfig.load(ZOO / "clever-vit-tiny"))  # doctest: +SKIP
        ['random weights', '8 epochs, 1.755 hours, weights 83d46d9f7172…', '12 epochs, …']
    """
    found = [
        _stage(stage, config.name, last=not n) for n, stage in enumerate(_chain(config.provenance))
    ]
    return found[::-1]


def labels_of(config: ModelConfig) -> str | None:
    """Whose labels went into the weights, as far as the provenance says; None where none did.

    Args:
        config: The model's.

    Returns:
        Such as ``"ImageNet's labels"``.
    """
    return _labels_within(config.provenance)


def without_labels(config: ModelConfig) -> bool:
    """Whether the provenance tells of every stage, and its teacher, that no labels went in.

    Args:
        config: The model's.

    Returns:
        False where a stage is not told of: then ``labels_of`` gives None, too.
    """
    told = (
        _is_unlabelled(stage) or (n > 0 and _is_own(stage, config.name))
        for n, stage in enumerate(_chain(config.provenance))
    )
    return not _labels_within(config.provenance) and all(told)


def trained_further(config: ModelConfig, weights_sha256: str | None) -> dict[str, Any]:
    """The provenance of weights that were trained further, which says what they began as.

    Args:
        config: Of the model that the training began with.
        weights_sha256: Hash of its weights.
    """
    before = {"name": config.name, "weights_sha256": weights_sha256}
    return {"start": {**config.provenance, **before}}


def method_name(method: str) -> str:
    """A method in words.

    Args:
        method: Such as ``"clever-vicreg"``.

    Returns:
        Words; an unknown method is given unchanged.

    Example:
        >>> method_name("clever-vicreg"), method_name("mine")
        ('CLeVER over VICReg', 'mine')
    """
    if method == FINETUNED:
        return "fine-tuning with labels"
    base = method.removeprefix("clever-").removeprefix("plus-")
    if base not in OBJECTIVES:
        return method
    return OBJECTIVES[base] if base == method else f"CLeVER over {OBJECTIVES[base]}"


def public_model_name(name: object) -> str:
    """What a model is called where others read it: of a folder's path the last name alone.

    Args:
        name: A name, or a path.

    Example:
        >>> public_model_name("/home/me/runs/first/model"), public_model_name("user/name")
        ('first', 'user/name')
    """
    text = _text(name)
    parts = [part for part in re.split(r"[/\\]", text) if part not in ("", "model")]
    return parts[-1] if re.match(r"[/\\~.]|\w:[/\\]", text) and parts else text


def _how(provenance: Facts, own: str) -> str:
    method, start = _text(provenance.get("method")), _mapping(provenance.get("start"))
    if _is_trained_further(provenance):
        return f"trained further, by a method that is not recorded, from {_begun(start, own)}"
    if method == FINETUNED:
        return f"{_finetuned(provenance)}, from {_begun(start, own)}"
    if "imported" in provenance or (not method and "source" in provenance):
        return f"published weights, unchanged; {_training(provenance)}"
    if "split" in provenance:
        photos = _mapping(_mapping(provenance["split"]).get("photos")).get("fitted")
        fitted = f", fitted to {_count(photos)} photos" if photos else ""
        return (
            f"{_described(start)}, split in closed form by an orthogonal projection{fitted}; "
            "nothing was trained"
        )
    root, earlier = _root(start, own)
    if teacher := _teacher(provenance):
        own_stages = islice(_chain(provenance), earlier + 1)
        same = takewhile(lambda stage: _name(_teacher(stage)) == _name(teacher), own_stages)
        return _distilled(teacher, root, earlier, sum(1 for _ in same))
    alone = "recipe" in provenance or _self_supervised(method)
    without = " without labels" if alone and not _labels_within(provenance) else ""
    begun = f" from {_described(root)}" if _name(root) or root.get("init") == "random" else ""
    by = f"{method_name(method)}" if method else "a method that is not recorded"
    several = f" in {earlier + 1} stages, the last by " if earlier else " by "
    taught = next(filter(None, map(_teacher, _chain(provenance))), None)
    before = f", an earlier one distilled from {_described(taught)}" if taught else ""
    return f"trained{without}{begun}{several}{by}{before}"


def _begun(start: Facts, own: str) -> str:
    """What a training began with, and how that was made."""
    own_way = start.keys() & {"method", "recipe"} and not start.keys() & {"imported", "split"}
    # Not of a start that was fine-tuned, too: a stranger's may go on for ever.
    if own_way and start.get("method") != FINETUNED:
        return f"{_name(start)}, which was {_how(start, own)}"
    return _described(start)


def _finetuned(provenance: Facts) -> str:
    """How a network was fine-tuned."""
    epochs, classes = _number(provenance.get("epochs")), _number(provenance.get("classes"))
    by = [_text(provenance.get("loss")), f"{classes:,.0f} classes" if classes else ""]
    many = f" for {epochs:.3g} epoch{'' if epochs == 1 else 's'}" if epochs else ""
    told = ", ".join(filter(None, by))
    return f"fine-tuned{many} with {_labels(provenance)}" + (f" ({told})" if told else "")


def _is_trained_further(provenance: Facts) -> bool:
    """Whether it only says with what the training began, as after a change of the weights."""
    return provenance.keys() == {"start"} and bool(_name(_mapping(provenance["start"])))


def _distilled(teacher: Facts, root: Facts, earlier: int, with_teacher: int) -> str:
    taught = _name(teacher)
    if taught == _name(root):
        several = f", in {earlier + 1} stages" if earlier else ""
        return f"adapted from {_described(root, teacher)}, with itself as the teacher{several}"
    many = f" {with_teacher}" if with_teacher > 1 else ""
    last = f", in the last{many} of {earlier + 1} stages" if earlier else ""
    said = f"distilled from {_described(teacher)}{last}"
    return f"{said}; it started from {_described(root)}" if _name(root) else said


def _root(start: Facts, own: str) -> tuple[Facts, int]:
    """What the first stage of the model began with, and how many stages came before the last."""
    earlier = 0
    while earlier < _MAX_STAGES and _is_own(start, own) and _mapping(start.get("start")):
        start, earlier = _mapping(start["start"]), earlier + 1
    return start, earlier


def _is_own(start: Facts, own: str) -> bool:
    """Whether it is an earlier stage: of the same name, or, of a model without a tag, with one."""
    return own in (name := _text(start.get("name")), name.partition(".")[0])


def _self_supervised(method: str) -> bool:
    return method.removeprefix("clever-").removeprefix("plus-") in OBJECTIVES.keys() - {"distill"}


def _described(facts: Facts, others: Facts | None = None) -> str:
    """A model's name, with what it was trained on if one of the two says so."""
    name = _name(facts)
    if not name:
        return "random weights"
    known = (one for one in (facts, others or {}) if _labels(one) or _before(one).get("data"))
    told = next((f", which was {_training(one)}" for one in known), "")
    return f"{name}{told}"


def _training(facts: Facts) -> str:
    if labels := _labels(facts):
        return f"trained with {labels}"
    facts = _before(facts)
    data = _text(facts.get("data"))
    if not data:
        return "what they were trained on is not recorded"
    if before := _labels_within(facts):
        return f"trained on {data}, and before that with {before}"
    without = "without labels " if _self_supervised(_text(facts.get("method"))) else ""
    return f"trained {without}on {data}"


def _is_unlabelled(stage: Facts) -> bool:
    if teacher := _teacher(stage):
        return "without labels" in f"{_training(teacher)} {_text(teacher.get('words'))}"
    return (
        stage.get("init") == "random"
        or _text(stage.get("method")) == "split"  # in closed form; what was split comes next
        or "recipe" in stage
        or _self_supervised(_text(stage.get("method")))
        or "without labels" in _text(stage.get("data"))
    )


def _labels_within(provenance: Facts) -> str | None:
    places = [*islice(_lineage(provenance), _MAX_STAGES)]
    tuned = [_labels(place) for place in places if place.get("method") == FINETUNED]
    others = [_labels(place) for place in places if place.get("method") != FINETUNED]
    found = [*tuned, *[*filter(None, others)][:1]]  # of one set's, the names differ
    return " and ".join(dict.fromkeys(filter(None, found))) or None


def _lineage(provenance: Facts) -> Iterator[Facts]:
    """The stages of a model, then those of their teachers, and of the teachers' teachers."""
    waiting = [provenance]
    while waiting:
        chain = [*_chain(waiting.pop(0))]
        yield from chain
        waiting += [teacher for stage in chain if (teacher := _teacher(stage))]


def _labels(facts: Facts) -> str | None:
    if given := _text(facts.get("labels")):
        return f"{given}'s labels"
    if facts.get("method") == FINETUNED:
        return f"{_text(facts.get('data')) or 'somebody'}'s labels"
    for text in (_before(facts).get("data"), facts.get("words")):
        if found := _LABELS.search(_text(text)):
            return f"{found[1]}'s labels"
    for key in ("name", "init"):
        for pattern, _, labels in _PUBLIC:
            if re.fullmatch(pattern, _text(facts.get(key))):
                return labels
    return None


def _teacher(provenance: Facts) -> Facts:
    """The teacher of a distillation; empty where there was none."""
    method = _mapping(_mapping(provenance.get("recipe")).get("method"))
    asked = _mapping(method.get("teacher")).get("model")
    found = provenance.get("teacher")
    if isinstance(found, Mapping):
        return found
    if found:  # in words
        return {"name": re.split(r"[(,;]", _text(found))[0].strip(), "words": _text(found)}
    return {"name": public_model_name(asked)} if asked else {}


def _name(facts: Facts) -> str:
    """What a start or a teacher is called; empty for random weights."""
    init = public_model_name(facts.get("init") or facts.get("name"))
    if init in ("", "random"):
        return ""
    if init == "timm":
        return (
            f"timm's {_text(facts.get('name'))}".strip() if facts.get("name") else "timm's weights"
        )
    name = _text(facts.get("name")) or init
    for pattern, words, _ in _PUBLIC:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, words, name)
    return name


def _effort(config: ModelConfig) -> str:
    """What all stages came to."""
    provenance = config.provenance
    is_tuned = provenance.get("method") == FINETUNED  # its own effort was told of before
    stages_ = islice(_chain(provenance), int(is_tuned), None)
    chain = [stage for stage in stages_ if _number(stage.get("epochs"))]
    total = {key: sum(_number(stage.get(key)) for stage in chain) for key in ("epochs", "hours")}
    if not chain:
        return f"{_count(provenance['views'])} views" if _number(provenance.get("views")) else ""
    hours = f", {total['hours']:.1f} hours" if total["hours"] else ""
    several = " in all" if len(chain) > 1 else ""
    is_last = is_tuned or "split" in provenance or _is_trained_further(provenance)
    before = "before that " if is_last else ""
    return f"{before}{total['epochs']:.3g} epochs{hours}{several}"


def _chain(provenance: Facts) -> Iterator[Facts]:
    """The stages, the last one first, then what they began with."""
    stage = _before(provenance)
    for _ in range(_MAX_STAGES):
        yield stage
        if not (start := _mapping(stage.get("start"))):
            return
        stage = _before(start)


def _stage(stage: Facts, own: str, *, last: bool) -> str:
    method = _text(stage.get("method"))
    if last and (not method or stage.keys() & {"imported", "split"}):
        return _how(stage, own)
    words = [f"{_number(stage.get(key)):.4g} {key}" for key in ("epochs", "hours") if key in stage]
    if method:
        words.append(f"by {method_name(method)}")
    if teacher := _name(_teacher(stage)):
        words.append(f"teacher {teacher}")
    if not last and (not _is_own(stage, own) or not words):
        words.insert(0, _described(stage))
    digest = _text(stage.get("weights_sha256") or stage.get("tensors_sha256"))
    return ", ".join([*words, f"weights {digest[:12]}…"] if digest else words)


def _before(facts: Facts) -> Facts:
    """What is known of a start: `clever-hub split` keeps the whole provenance of its own."""
    return {**facts, **_mapping(facts.get("provenance"))}


def _count(value: object) -> str:
    return f"{_number(value):,.0f}"


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


def _text(value: object) -> str:
    return " ".join(str(value).split()) if value is not None else ""


def _mapping(value: object) -> Facts:
    """The value if it is an object, else an empty one: config.json may be a stranger's."""
    return value if isinstance(value, Mapping) else {}
