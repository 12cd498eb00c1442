"""The selective scan of Mamba in plain PyTorch; also shipped as remote code in model folders.

For every channel c and state n, along positions t of a sequence (Gu and Dao,
https://arxiv.org/abs/2312.00752, algorithm 2, with A by zero-order hold and B by Euler's rule):

    delta_t = softplus(step_t + bias)
    h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t
    y_t = sum over n of C_t h_t

The published implementations need a CUDA kernel. Here the recurrence runs position by position for
all sequences at once, or, where that would be thousands of small kernels, in chunks; its gradient
is the same recurrence in the other direction. Exporters get it by doubling, in plain operations.
Only products of numbers in [0, 1] are taken, never a quotient or a logarithm, so that nothing
overflows however far the steps reach.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Below this many numbers a step of the recurrence is mostly the start of its kernel, and from this
# length on there are enough steps for it to matter.
_SMALL_STEP = 2_048
_SHORTEST_IN_CHUNKS = 64


def selective_scan(
    u: Tensor,
    steps: Tensor,
    decay: Tensor,
    inputs: Tensor,
    outputs: Tensor,
    bias: Tensor | None = None,
    softplus: bool = True,
) -> Tensor:
    """Scan sequences in one or both directions, and add what the directions give.

    Time is the second-to-last dimension but one: a step then reads whole rows of memory. All is
    computed in float32 at least, whatever the inputs are.

    Args:
        u: Sequences (orders, length, batch, channels).
        steps: Raw step sizes (directions, orders, length, batch, channels). The first direction
            runs from the first position to the last, the second from the last to the first.
        decay: A, negative (directions, orders, channels, states).
        inputs: B (directions, orders, length, batch, states).
        outputs: C, of the same shape.
        bias: Added to the steps (directions, orders, channels).
        softplus: Take the steps' softplus; they must be positive already otherwise.

    Returns:
        y, summed over the directions, without the skip D u (orders, length, batch, channels).

    Example:
        >>> u = torch.ones(1, 4, 1, 1)
        >>> half = torch.full((1, 1, 1, 1), math.log(0.5))
        >>> one = torch.ones(1, 1, 4, 1, 1)
        >>> selective_scan(u, one, half, one, one, softplus=False).flatten().tolist()
        [1.0, 1.5, 1.75, 1.875]
    """
    wide = torch.promote_types(u.dtype, torch.float32)
    u, steps, decay, inputs, outputs = (x.to(wide) for x in (u, steps, decay, inputs, outputs))
    if bias is not None:
        steps = steps + bias.to(wide)[..., None, None, :]
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined]
        return _scan_by_doubling(u, steps, decay, inputs, outputs, softplus)
    y: Tensor = _SelectiveScan.apply(u, steps, decay, inputs, outputs, softplus)
    return y


class _SelectiveScan(torch.autograd.Function):
    """The scan and its gradient; keeps the states and the step sizes, computes the rest again."""

    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,
        steps: Tensor,
        decay: Tensor,
        inputs: Tensor,
        outputs: Tensor,
        softplus: bool,
    ) -> Tensor:
        delta = _softplus(steps) if softplus else steps
        drive = delta * u
        states, y = [], torch.zeros_like(u)
        for n in range(decay.shape[-1]):
            h = drive * inputs[..., n, None]
            a = torch.exp(delta * decay[..., None, None, :, n])
            for direction in range(len(h)):
                _recur(a[direction], h[direction], backwards=direction == 1, adjoint=False)
                y.addcmul_(outputs[direction, ..., n, None], h[direction])
            states.append(h)
        ctx.save_for_backward(u, delta, decay, inputs, outputs, *states)
        ctx.softplus = softplus
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        u, delta, decay, inputs, outputs, *states = ctx.saved_tensors
        drive = delta * u
        d_drive, d_delta = torch.zeros_like(delta), torch.zeros_like(delta)
        d_decay, d_inputs, d_outputs = (torch.empty_like(x) for x in (decay, inputs, outputs))
        for n, h in enumerate(states):
            rate = decay[..., None, None, :, n]
            a = torch.exp(delta * rate)
            g = dy * outputs[..., n, None]  # dL/dh, first its own part, then the later ones'
            for direction in range(len(g)):
                _recur(a[direction], g[direction], backwards=direction == 0, adjoint=True)
            d_outputs[..., n] = (h * dy).sum(-1)
            d_inputs[..., n] = (g * drive).sum(-1)
            d_drive.addcmul_(g, inputs[..., n, None])
            d_exponent = g.mul_(a).mul_(_previous(h))
            d_decay[..., n] = (d_exponent * delta).sum((-3, -2))
            d_delta.addcmul_(d_exponent, rate)
        d_delta.addcmul_(d_drive, u)
        d_u = d_drive.mul_(delta).sum(0)
        if ctx.softplus:
            d_delta.mul_(_softplus_slope(delta))
        return d_u, d_delta, d_decay, d_inputs, d_outputs, None


def _softplus(x: Tensor) -> Tensor:
    """max(x, 0) + ln(1 + e), e = exp(-|x|), as 2 artanh(e / (2 + e)), which is no less exact.

    On processors ``log1p`` takes five times as long as ``atanh``, and more than all the rest of the
    scan (10 against 0.8 ns a number, torch 2.14).
    """
    e = x.abs().neg_().exp_()
    return e.div_(e + 2).atanh_().mul_(2).add_(x.clamp(min=0))


def _softplus_slope(y: Tensor) -> Tensor:
    """sigmoid(x) of y = softplus(x): 1 - exp(-y), as 2 t / (1 + t) of t = tanh(y / 2).

    The difference from 1 would lose the digits of small steps; ``expm1`` is as slow as ``log1p``.
    """
    t = (y / 2).tanh_()
    return t.div_(t + 1).mul_(2)


def _previous(h: Tensor) -> Tensor:
    """What came before each position in its direction; zero before the first."""
    result = torch.zeros_like(h)
    result[0, :, 1:] = h[0, :, :-1]
    if len(h) == 2:
        result[1, :, :-1] = h[1, :, 1:]
    return result


def _recur(a: Tensor, b: Tensor, *, backwards: bool, adjoint: bool) -> None:
    """h_t = a_t h_{t-1} + b_t in place of b; backwards with t + 1 in the place of t - 1.

    Args:
        a: Factors (orders, length, batch, channels).
        b: What is added at each position; becomes h.
        backwards: From the last position to the first.
        adjoint: A factor belongs to where it comes from, not to where it leads: that of the
            gradient of a scan in the other direction.
    """
    length = b.shape[1] - 1
    # The factor between two neighbours belongs to the later one, in the direction of the scan.
    later = backwards == adjoint
    factors = a.narrow(1, 1 if later else 0, length)
    rest, start = (b[:, :-1], b[:, -1]) if backwards else (b[:, 1:], b[:, 0])
    small = b[:, 0].numel() < _SMALL_STEP or b.device.type != "cpu"
    if small and length >= _SHORTEST_IN_CHUNKS:
        _recur_in_chunks(factors, rest, start, backwards)
    else:
        _recur_one_by_one(factors, rest, start, backwards)


def _recur_one_by_one(a: Tensor, b: Tensor, start: Tensor, backwards: bool) -> None:
    pairs = list(zip(a.unbind(1), b.unbind(1), strict=True))
    for factor, value in reversed(pairs) if backwards else pairs:
        start = value.addcmul_(factor, start)


def _recur_in_chunks(a: Tensor, b: Tensor, start: Tensor, backwards: bool) -> None:
    """All chunks at once as if each began with zero, then what each is handed by the one before.

    This takes 2 sqrt(length) steps, not length. What one chunk hands to the next is the product of
    its factors, each at most 1.
    """
    length = b.shape[1]
    size = math.isqrt(length)
    count = length // size
    whole = count * size
    first = length - whole if backwards else 0
    # To (orders, count, size, batch, channels) each.
    chunks, factors = (x.narrow(1, first, whole).unflatten(1, (count, size)) for x in (b, a))
    products = factors.clone()
    values, steps, running = (x.unbind(2) for x in (chunks, factors, products))
    places = list(range(size))[:: -1 if backwards else 1]
    for before, now in pairwise(places):
        values[now].addcmul_(steps[now], values[before])
        running[now].mul_(running[before])
    carried = torch.empty_like(values[0])  # (orders, count, batch, channels)
    for chunk in list(range(count))[:: -1 if backwards else 1]:
        carried[:, chunk] = start
        start = torch.addcmul(values[places[-1]][:, chunk], running[places[-1]][:, chunk], start)
    chunks.addcmul_(products, carried.unsqueeze(2))
    if whole < length:
        left = slice(0, first) if backwards else slice(whole, length)
        _recur_one_by_one(a[:, left], b[:, left], start, backwards)


def _scan_by_doubling(
    u: Tensor,
    steps: Tensor,
    decay: Tensor,
    inputs: Tensor,
    outputs: Tensor,
    softplus: bool,
) -> Tensor:
    """The same in log2(length) passes of plain operations, which exporters and compilers take."""
    delta = F.softplus(steps) if softplus else steps
    drive = delta * u
    y = torch.zeros_like(u)
    for n in range(decay.shape[-1]):
        a = torch.exp(delta * decay[..., None, None, :, n])
        b = drive * inputs[..., n, None]
        for direction in range(len(b)):
            h = _double(a[direction], b[direction], backwards=direction == 1)
            y = y + outputs[direction, ..., n, None] * h
    return y


def _double(a: Tensor, b: Tensor, backwards: bool) -> Tensor:
    """The recurrence by Hillis and Steele's doubling: after a pass over s, sums reach back 2 s."""
    length, reach = b.shape[1], 1
    # Factors over ``reach`` positions; there is none for the positions that are complete already.
    a = a[:, :-1] if backwards else a[:, 1:]
    while reach < length:
        if backwards:
            b = torch.cat([b[:, :-reach] + a * b[:, reach:], b[:, -reach:]], dim=1)
        else:
            b = torch.cat([b[:, :reach], b[:, reach:] + a * b[:, :-reach]], dim=1)
        reach *= 2
        if reach < length:
            a = a[:, reach // 2 :] * a[:, : -(reach // 2)]
    return b
