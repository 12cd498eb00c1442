"""A model in eval mode beside the same model in training: no mode is switched.

Switching to eval mode and back would reach into a training that goes on in another thread, whose
next forward pass would then drop nothing and take BatchNorm's running statistics.
"""

from __future__ import annotations

import copy
from types import MethodType
from typing import TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)
# What torch keeps per module and a caller may add to.
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def evaluating(module: M) -> M:
    """The module itself where all of it is in eval mode, else a view of it that is.

    Args:
        module: A module in any mode; it is left as it is.

    Returns:
        A module in eval mode with the very same parameters and buffers.

    Example:
        >>> layer = nn.Dropout().train()
        >>> evaluating(layer).training, layer.training, evaluating(layer.eval()) is layer
        (False, True, True)
    """
    if not any(part.training for part in module.modules()):
        return module
    return eval_view(module)


def eval_view(module: M) -> M:
    """A copy of the tree of modules that shares every tensor; in eval mode, with hooks of its own.

    Args:
        module: It is left as it is.

    Returns:
        The copy. Attributes set on its modules do not reach the original's.
    """
    return _view(module, {})


def _view(module: M, made: dict[nn.Module, nn.Module]) -> M:
    # torch.compile wraps a module, and what it compiled was compiled for the original's mode.
    if (wrapped := module._modules.get("_orig_mod")) is not None:
        return _view(wrapped, made)  # type: ignore[return-value]
    if module in made:  # a module that stands in two places stands in two places again
        return made[module]  # type: ignore[return-value]
    view = copy.copy(module)
    made[module] = view
    for name in _HOOKS:
        view.__dict__[name] = copy.copy(module.__dict__[name])
    view.__dict__.pop("_compiled_call_impl", None)  # of module.compile()
    # Accelerate sets a forward of its own, which would go on to run the original in its mode.
    for name, value in module.__dict__.items():
        if isinstance(value, MethodType) and value.__self__ is module:
            view.__dict__[name] = MethodType(value.__func__, view)
    view.__dict__["_modules"] = {
        name: None if child is None else _view(child, made)
        for name, child in module.__dict__["_modules"].items()
    }
    view.training = False
    return view
