"""A user's own invariance term: a function that a recipe names."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from clever_hub.errors import ConfigError, suggest
from clever_training.objectives.base import Objective, Projections, check_gradient
from clever_training.objectives.projectors import PlainHead
from clever_training.recipe.methods import HEAD_ARGUMENTS
from clever_training.runtime.gathering import gather_photos


class FunctionObjective(Objective):
    """An objective from a function that maps views (views, batch, dim), float32, to a scalar.

    The function sees the views of all processes' photos, global ones first.

    Args:
        function: The invariance term.
        arguments: ``dim`` and ``hidden_dim`` shape the head, an MLP of three layers with BatchNorm;
            the rest are the function's keyword arguments.

    Raises:
        ConfigError: When the function does not take one of the arguments; suggests a similar name.

    Example:
        >>> def spread(views, weight=1.0):
        ...     return -weight * views.var(dim=1).mean()
        >>> FunctionObjective(spread, {"dim": 16, "weight": 2.0}).make_head(409)[-1].out_features
        16
    """

    def __init__(self, function: Callable[..., Any], arguments: dict[str, Any]) -> None:
        super().__init__()
        self.function = function
        self.dim = int(arguments.get("dim", 256))
        self.hidden_dim = int(arguments.get("hidden_dim", 2048))
        self.arguments = {k: v for k, v in arguments.items() if k not in HEAD_ARGUMENTS}
        parameters = inspect.signature(function).parameters
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            return
        known = [*list(parameters)[1:], *HEAD_ARGUMENTS]
        for key in self.arguments:
            if key not in known:
                raise ConfigError(
                    f"method.objective_args.{key}: {getattr(function, '__name__', function)} has "
                    f"no such argument. {suggest(key, known)}"
                )

    def make_head(self, in_dim: int) -> nn.Module:
        """A ``PlainHead`` of three layers."""
        return PlainHead([in_dim, self.hidden_dim, self.hidden_dim, self.dim])

    def invariance(self, projections: Projections, temperature: float) -> Tensor:  # noqa: ARG002 -- the interface's
        """The value of the function, for the photos of all processes.

        Raises:
            ConfigError: When it is no scalar, or has lost the gradient of the views.
        """
        loss = self.function(gather_photos(projections.student), **self.arguments)
        if not isinstance(loss, Tensor) or loss.ndim != 0:
            raise ConfigError(
                f"method.objective: {getattr(self.function, '__name__', self.function)} should "
                f"return a scalar tensor, got {_describe(loss)}"
            )
        check_gradient(loss, projections, getattr(self.function, "__name__", str(self.function)))
        return loss


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return type(value).__name__
