"""CLeVER models for transformers; also shipped as remote code in model folders.

The weights on disk keep timm's own names, so that every reader loads one file: a conversion adds
the ``backbone.`` that modules have here when loading, and takes it off when saving.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import timm
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.utils.generic import ModelOutput

from .configuration_clever import CleverConfig


@dataclass
class CleverModelOutput(ModelOutput):
    """Embeddings of a batch.

    Attributes:
        pooler_output: The whole embedding (batch, num_features); first, so that pipelines give it.
        invariant: Its invariant part (batch, invariant_dim).
        equivariant: Its equivariant part (batch, num_features − invariant_dim).
        last_hidden_state: What the embedding is pooled from, before a projection, as transformers'
            own models of its kind give it: a vision transformer's tokens (batch, tokens, dim), CLS
            and registers first; a CNN's last map (batch, channels, rows, columns); the places of
            networks that keep channels last, such as Swin and VMamba, row by row (batch, rows ·
            columns, channels). None for the few networks of timm with several maps, or without.
    """

    pooler_output: Tensor | None = None
    invariant: Tensor | None = None
    equivariant: Tensor | None = None
    last_hidden_state: Tensor | None = None


class TimmNames(WeightRenaming):
    """Adds ``backbone.`` to timm's names; those of ``clever_head`` stay as they are.

    Args:
        remove: Take it off instead.
    """

    __slots__ = ("remove",)

    def __init__(self, remove: bool = False) -> None:
        self.remove = remove
        if remove:
            super().__init__(source_patterns=r"^backbone\.(.+)", target_patterns=r"\1")
        else:
            super().__init__(
                source_patterns=r"^(?!backbone\.|clever_head\.)(.+)",
                target_patterns=r"backbone\.\1",
            )

    def reverse_transform(self) -> TimmNames:
        """What undoes this, for saving."""
        result = TimmNames(remove=not self.remove)
        result.scope_prefix = self.scope_prefix
        result.base_model_prefix = self.base_model_prefix
        return result


# What a classification head was called until a backbone's own classifier could be a projection.
_OLD_HEAD = {r"^classifier\.(weight|bias)$": r"clever_head.\1"}
_OLD_NAMES = {"backbone.classifier.weight", "backbone.classifier.bias"}
_HEAD = {"clever_head.weight", "clever_head.bias"}

# Remote code may be loaded beside the package's own classes: the later one replaces the earlier.
register_checkpoint_conversion_mapping("clever", [TimmNames()], overwrite=True)


class CleverPreTrainedModel(PreTrainedModel):
    """What all CLeVER models share."""

    config_class = CleverConfig
    # Not "backbone": with a base model of that name transformers would add and strip the prefix by
    # its own rules, next to the conversion above.
    base_model_prefix = "clever"
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    # The loss is each batch's mean: the Trainer divides it by the batches that it accumulates.
    accepts_loss_kwargs = False
    # Of the weights that were loaded, and what the config said of them.
    _loaded: Mapping[str, int] | None = None
    _provenance: Any = None

    def __init__(self, config: CleverConfig) -> None:
        super().__init__(config)
        self.backbone = _backbone(config)
        config._attn_implementation = self._attend(config._attn_implementation)
        self.register_load_state_dict_pre_hook(_take_timms_names)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, source: Any, *args: Any, output_loading_info: bool = False, **kwargs: Any
    ) -> Any:
        """Load weights, every one of them; see transformers.

        Raises:
            ValueError: When the backbone lacks a tensor, or the file has one too many.
        """
        again = copy.copy(kwargs)
        result: Any = super().from_pretrained(source, *args, output_loading_info=True, **kwargs)
        model, found = result
        _compute_buffers(model)
        headed = isinstance(model, CleverForImageClassification)
        old = not model.config.projection and found["unexpected_keys"] == _OLD_NAMES
        if old and headed and "key_mapping" not in again:
            again |= {"key_mapping": _OLD_HEAD, "output_loading_info": output_loading_info}
            loaded = cls.from_pretrained(source, *args, **again)
            renamed = loaded[0] if output_loading_info else loaded
            # Saved, the head has its new name.
            kept = [entry for entry in renamed._weight_conversions if isinstance(entry, TimmNames)]
            renamed._weight_conversions = kept
            return loaded
        missing = sorted(found["missing_keys"] - (_HEAD if headed else set()))
        unexpected = sorted(found["unexpected_keys"] - (_OLD_NAMES if old else set()))
        if missing or unexpected:
            raise ValueError(
                f"{source}: expected every tensor of a {model.config.architecture} and no other; "
                f"missing: {missing[:20] or 'none'}, unexpected: {unexpected[:20] or 'none'}. "
                "The file is of another model, or damaged; fetch it again"
            )
        model._loaded = _sums_of_bits(model.state_dict())
        model._provenance = copy.deepcopy(getattr(model.config, "provenance", None))
        return (model, found) if output_loading_info else model

    def embed(self, pixel_values: Tensor) -> CleverModelOutput:
        """Split the backbone's embedding."""
        backbone: Any = self.backbone
        if hasattr(backbone, "forward_head"):
            last = backbone.forward_features(pixel_values)
            embedding: Tensor = backbone.forward_head(last)
        else:
            last, embedding = None, backbone(pixel_values)
        if not isinstance(last, Tensor):
            last = None
        elif last.ndim == 4 and getattr(backbone, "output_fmt", "NCHW") == "NHWC":
            last = last.flatten(1, 2)  # (batch, rows · columns, channels)
        split = self.config.invariant_dim
        return CleverModelOutput(embedding, embedding[:, :split], embedding[:, split:], last)

    def _check_and_adjust_attn_implementation(  # type: ignore[override]
        self, attn_implementation: str | None, *_: Any, **__: Any
    ) -> str | None:
        """What transformers calls before it notes another implementation, here timm's.

        Raises:
            ValueError: When timm has no such attention, or the network none that can be fused.
        """
        if attn_implementation not in (None, "sdpa", "eager"):
            raise ValueError(
                f"attn_implementation: expected 'sdpa' or 'eager', which timm's networks have, got "
                f"{attn_implementation!r}. On a GPU 'sdpa' takes the fastest kernel that there is"
            )
        # There is no backbone yet while transformers makes the model; then it is asked again.
        built = "backbone" in self._modules
        return self._attend(attn_implementation) if built else attn_implementation

    def _attend(self, implementation: str | None) -> str:
        """Let timm's attention be fused or written out; None leaves what timm has chosen."""
        layers: list[Any] = [m for m in self.backbone.modules() if hasattr(m, "fused_attn")]
        if implementation == "sdpa" and not layers:
            raise ValueError(
                f"attn_implementation: {self.config.architecture} has no attention that timm could "
                "fuse, got 'sdpa'. Leave it out, or take 'eager'"
            )
        if implementation is not None:
            for layer in layers:
                layer.fused_attn = implementation == "sdpa"
        return "sdpa" if any(layer.fused_attn for layer in layers) else "eager"

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any
    ) -> None:
        """Write config.json and model.safetensors under timm's names; see transformers.

        Of weights that have changed since they were loaded, the provenance only says what the
        training began with, unless ``config`` was given another one.

        Raises:
            ValueError: When the folder has a model.onnx: that points into the very bytes of the
                weights file beside it, which are about to be replaced. When the weights are not
                float32, or would not go into one file: the other readers want both. When
                ``push_to_hub`` is true and the backbone is clever_hub's own.
        """
        self._check_storage(kwargs.get("max_shard_size"))
        code = _own_code(self.config.architecture)
        if code and kwargs.get("push_to_hub"):
            raise ValueError(
                "push_to_hub: transformers would upload this model before its code is complete. "
                "Leave it out, and call model.push_to_hub(repo_id)"
            )
        if (Path(save_directory) / "model.onnx").is_file():
            raise ValueError(
                f"{save_directory}: expected a folder without model.onnx, which belongs to other "
                "weights than those to be written beside it. Choose another folder, or remove it"
            )
        entries: dict[str, Any] = self.config.__dict__
        # The heads of relate and orient were fitted to this embedding, and their file stays behind.
        kept = {key: entries[key] for key in entries if key in ("heads", "provenance")}
        entries.pop("heads", None)
        if self._is_changed(kwargs.get("state_dict")):
            start = {**(self._provenance or {}), "name": entries.get("name", "")}
            entries["provenance"] = {"start": start}
        try:
            super().save_pretrained(save_directory, *args, **kwargs)
        finally:
            entries.pop("provenance", None)
            entries.update(kept)
        if kwargs.get("is_main_process", True):
            for name, text in code.items():
                (Path(save_directory) / name).write_text(text, encoding="utf-8")

    def _is_changed(self, state: Mapping[str, Tensor] | None) -> bool:
        """Whether the weights to be saved are others than those that the provenance tells of."""
        if not self._loaded or getattr(self.config, "provenance", None) != self._provenance:
            return False
        found = _sums_of_bits(self.state_dict() if state is None else state)
        return any(self._loaded.get(name, value) != value for name, value in found.items())

    def _check_storage(self, limit: int | str | None) -> None:
        tensors = [*self.parameters(), *self.buffers()]
        kinds = {str(t.dtype) for t in tensors if t.is_floating_point()} - {"torch.float32"}
        if kinds:
            raise ValueError(
                f"expected float32 weights, which every reader loads, got {', '.join(kinds)}. Save "
                "model.float(); from_pretrained(…, dtype=torch.bfloat16) computes in another"
            )
        parts = re.fullmatch(r"(\d+) *([KMGT]?)B", str(limit or ""), re.IGNORECASE)
        if parts:
            limit = int(parts[1]) * 1000 ** " KMGT".index(parts[2].upper() or " ")
        size = sum(tensor.nbytes for tensor in tensors)
        if isinstance(limit, int) and size > limit:
            raise ValueError(
                f"max_shard_size: expected at least {size} bytes, as the other readers want one "
                f"weights file, got {limit}. Leave it out"
            )

    def _set_gradient_checkpointing(self, enable: bool = True, *_: Any, **__: Any) -> None:
        """Let timm compute activations again in the backward pass, in its own way."""
        backbone: Any = self.backbone
        backbone.set_grad_checkpointing(enable)
        self.gradient_checkpointing = enable  # by which transformers knows

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Only a new head is ours: timm has initialised its own, but for buffers in no file."""
        if module is getattr(self, "clever_head", None):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
        compute = getattr(module, _COMPUTE, None)
        if compute is not None:
            compute()


def _take_timms_names(model: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Rename what lacks ``backbone.``: transformers' Trainer gives the names of the file."""
    own = model.state_dict().keys()
    for key in [key for key in state if key.startswith(prefix)]:
        name = key.removeprefix(prefix)
        if name not in own and f"backbone.{name}" in own:
            state[f"{prefix}backbone.{name}"] = state.pop(key)


# By the bytes of a number, whole numbers of the same length.
_WHOLE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@torch.no_grad()
def _sums_of_bits(state: Mapping[str, Tensor]) -> dict[str, int]:
    """A number for each tensor of the backbone, another one after a training; exact on any device.

    The provenance tells of the backbone alone: a new head does not change it.
    """
    return {
        name: int(tensor.view(_WHOLE[tensor.element_size()]).sum(dtype=torch.int64))
        for name, tensor in state.items()
        if name.startswith("backbone.") and not tensor.is_meta
    }


def _own_code(architecture: str) -> dict[str, str]:
    """The files that a folder needs with a backbone of clever_hub's own; others need no more.

    transformers copies this file, which does not import such a backbone. In a model folder it does,
    and transformers finds the rest by itself.
    """
    if not __name__.startswith("clever_hub."):
        return {}
    # Of a plain import transformers would ask that every reader of a folder has the package.
    own = import_module("clever_hub.backends.own")
    found: dict[str, str] = own.remote_code(architecture)
    return found if architecture in own.OWN_BACKBONES else {}


# What timm calls the method that computes the buffers in no file; its release 1.0.21 has none.
_COMPUTE = "init_non_persistent_buffers"


def _backbone(config: CleverConfig) -> nn.Module:
    built: nn.Module = timm.create_model(
        config.architecture,
        pretrained=False,
        num_classes=config.num_features if config.projection else 0,
        **config.model_args,
    )
    return built


@torch.no_grad()
def _compute_buffers(model: Any) -> None:
    """Fill the buffers that are in no file, where ``_init_weights`` could not.

    transformers builds on the meta device, and puts memory as it finds it in the place of such
    buffers: filters, tables of places and angles. Those that their module does not compute itself
    are taken from another backbone.
    """
    left = [
        f"{name}.{key}".lstrip(".")
        for name, module in model.backbone.named_modules()
        for key in module._non_persistent_buffers_set
        if not hasattr(module, _COMPUTE) and module._buffers.get(key) is not None
    ]
    if left:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            computed = _backbone(model.config)
        for name in left:
            model.backbone.get_buffer(name).copy_(computed.get_buffer(name))


def _refuse(others: dict[str, Any]) -> None:
    """Outputs of transformers that there are not here must not go missing without a word."""
    asked = [key for key in ("output_attentions", "output_hidden_states") if others.get(key)]
    if asked:
        raise ValueError(
            f"{asked[0]}: these models give last_hidden_state, of no other layer. Leave it out; "
            "timm's forward_intermediates of model.backbone gives other layers"
        )


class CleverModel(CleverPreTrainedModel):
    """Images in, an invariant and an equivariant embedding out."""

    _keys_to_ignore_on_load_unexpected: ClassVar[Any] = {  # type: ignore[misc]
        r"^clever_head\."
    }

    def __init__(self, config: CleverConfig) -> None:
        super().__init__(config)
        self.post_init()

    def forward(
        self, pixel_values: Tensor, return_dict: bool | None = None, **others: Any
    ) -> CleverModelOutput | tuple[Tensor, ...]:
        """Embed prepared images.

        Args:
            pixel_values: (batch, 3, height, width), as the image processor makes them.
            return_dict: False gives a tuple.
            **others: What trainers and pipelines add; not used.

        Returns:
            ``pooler_output``, ``invariant``, ``equivariant``, not normalised, and
            ``last_hidden_state``, see ``CleverModelOutput``.
        """
        _refuse(others)
        output = self.embed(pixel_values)
        return output.to_tuple() if return_dict is False else output


class CleverForImageClassification(CleverPreTrainedModel):
    """A linear head on the whole embedding or on one of its parts (``config.head_input``)."""

    def __init__(self, config: CleverConfig) -> None:
        super().__init__(config)
        widths = {
            "full": config.num_features,
            "invariant": config.invariant_dim,
            "equivariant": config.equivariant_dim,
        }
        if not widths.get(config.head_input):
            there = [part for part, width in widths.items() if width]
            raise ValueError(f"head_input: expected one of {there}, got {config.head_input!r}")
        # Not "classifier": that is where many of timm's networks have a projection.
        self.clever_head = nn.Linear(widths[config.head_input], int(config.num_labels or 0))
        # By which transformers finds the loss; it would look at the name of the class.
        self.loss_type = "ForImageClassification"
        self.post_init()

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
        **others: Any,
    ) -> ImageClassifierOutput | tuple[Tensor, ...]:
        """Classify prepared images.

        Args:
            pixel_values: (batch, 3, height, width), as the image processor makes them.
            labels: Give ``loss``, as in transformers' own classifiers. ``config.problem_type`` says
                which: the cross-entropy of class numbers (batch,), the binary one of several labels
                (batch, num_labels), or the squared error of numbers to predict. If it is None, the
                first labels set it: ``num_labels`` of 1 is a regression, whole numbers are classes,
                and other numbers several labels.
            return_dict: False gives a tuple.
            **others: What trainers and pipelines add; not used.

        Returns:
            ``loss`` (with labels) and ``logits`` (batch, num_labels).
        """
        _refuse(others)
        embedded = self.embed(pixel_values)
        part = {"full": embedded.pooler_output}.get(
            self.config.head_input, getattr(embedded, self.config.head_input, None)
        )
        logits = self.clever_head(part)
        loss = None
        if labels is not None:
            # By whole numbers of 64 bits transformers tells classes from other targets.
            labels = labels if labels.is_floating_point() else labels.long()
            loss = self.loss_function(labels, logits, self.config)
        output = ImageClassifierOutput(loss=loss, logits=logits)
        return output.to_tuple() if return_dict is False else output
