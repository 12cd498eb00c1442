"""Collective control flow: an error or a stop in one process reaches all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from clever_hub.errors import TrainingError
from clever_training.runtime.gathering import world_size

T = TypeVar("T")


def on_all_ranks(action: Callable[[], T]) -> T:
    """Run an action in every process; when it fails in one, it fails in all.

    Otherwise a process that fails leaves the others waiting in their next collective.

    Args:
        action: The action.

    Returns:
        Its result in this process.

    Raises:
        TrainingError: When the action failed in another process; says in which one and why. When it
            failed in this one, its own exception is raised.

    Example:
        >>> on_all_ranks(lambda: 3)
        3
    """
    if world_size() == 1:
        return action()
    result, failure = None, None
    try:
        result = action()
    except Exception as error:  # noqa: BLE001 -- raised again below, after the others know
        failure = error
    if any_rank(failure is not None)[0]:
        messages = gathered(None if failure is None else str(failure))
        if failure is not None:
            raise failure
        number = next(i for i, message in enumerate(messages) if message is not None)
        raise TrainingError(f"process {number} stopped: {messages[number]}")
    return result  # type: ignore[return-value]


def on_rank_zero(action: Callable[[], object]) -> None:
    """Run an action in the first process alone, such as writing a file; all wait for its end.

    Args:
        action: The action.

    Raises:
        TrainingError: As ``on_all_ranks``.
    """
    on_all_ranks(lambda: action() if is_rank_zero() else None)


def is_rank_zero() -> bool:
    """Whether this is the first process, which writes the files."""
    return rank() == 0


def rank() -> int:
    """Number of this process, from 0."""
    return 0 if world_size() == 1 else dist.get_rank()


def gathered(value: Any) -> list[Any]:
    """The values of all processes in their order; a value is any picklable object."""
    values: list[Any] = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(values, value)
    return values


def any_rank(*flags: bool) -> list[bool]:
    """Whether each flag is set in any process, so that a stop of one process stops all.

    Args:
        flags: The flags of this process.

    Returns:
        The same in every process.

    Example:
        >>> any_rank(False, True)
        [False, True]
    """
    if world_size() == 1:
        return list(flags)
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    raised = torch.tensor(flags, dtype=torch.float32, device=device)
    dist.all_reduce(raised, op=dist.ReduceOp.MAX)
    return [bool(flag) for flag in raised.tolist()]


def shutdown() -> None:
    """Leave the process group, if there is one, at the end of a command."""
    if world_size() > 1:
        dist.destroy_process_group()
