"""What VMamba is built of: the 2-D selective scan, its block, its stages; also remote code.

Features are channels last (batch, height, width, channels) throughout, so that a 1x1 convolution is
a product of matrices and a layer norm runs along memory. See ``vmamba.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.layers.drop import DropPath
from timm.models import checkpoint_seq
from torch import Tensor, nn

from .selective_scan import selective_scan

# Left to right and top to bottom, along rows and along columns; then both from the other end.
DIRECTIONS, ORDERS = 2, 2


class ChannelsFirst(nn.Module):
    """(batch, height, width, channels) to (batch, channels, height, width), without a copy."""

    def forward(self, x: Tensor) -> Tensor:
        """The same memory, seen otherwise."""
        return x.permute(0, 3, 1, 2)


class ChannelsLast(nn.Module):
    """(batch, channels, height, width) to (batch, height, width, channels), without a copy."""

    def forward(self, x: Tensor) -> Tensor:
        """The same memory, seen otherwise."""
        return x.permute(0, 2, 3, 1)


class Mlp(nn.Module):
    """Two linear layers with a GELU between them.

    Args:
        dim: Channels.
        hidden: Channels between the layers.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(…, dim) to (…, dim)."""
        return self.fc2(F.gelu(self.fc1(x)))  # type: ignore[no-any-return]


class SS2D(nn.Module):
    """The 2-D selective scan: each position hears from all others, along four orders of them.

    Args:
        dim: Channels.
        state: Numbers in the state of a channel.

    Attributes:
        x_proj_weight: What makes step, B and C of a position (4, rank + 2 state, dim).
        dt_projs_weight: From the step's low rank to the channels (4, dim, rank).
        dt_projs_bias: The steps' bias (4, dim).
        A_logs: ln(-A) (4 dim, state).
        Ds: The skip's factors (4 dim).
    """

    def __init__(self, dim: int, state: int = 1) -> None:
        super().__init__()
        ways = DIRECTIONS * ORDERS
        self.rank, self.state = math.ceil(dim / 16), state
        self.in_proj = nn.Linear(dim, dim, bias=False)
        self.conv2d = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False)
        self.x_proj_weight = nn.Parameter(torch.empty(ways, self.rank + 2 * state, dim))
        self.dt_projs_weight = nn.Parameter(torch.empty(ways, dim, self.rank))
        self.dt_projs_bias = nn.Parameter(torch.empty(ways, dim))
        self.A_logs = nn.Parameter(torch.empty(ways * dim, state))
        self.Ds = nn.Parameter(torch.empty(ways * dim))
        self.out_norm = nn.LayerNorm(dim)
        self.out_proj = nn.Linear(dim, dim, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Mamba's start: A = -1 … -state, steps between 0.001 and 0.1."""
        dim = self.Ds.numel() // len(self.dt_projs_bias)
        nn.init.uniform_(self.x_proj_weight, -(dim**-0.5), dim**-0.5)
        nn.init.uniform_(self.dt_projs_weight, -(self.rank**-0.5), self.rank**-0.5)
        with torch.no_grad():
            step = torch.empty_like(self.dt_projs_bias).uniform_(math.log(1e-3), math.log(0.1))
            step = step.exp_().clamp_(min=1e-4)
            self.dt_projs_bias.copy_(step + torch.log(-torch.expm1(-step)))  # softplus, inverted
            self.A_logs.copy_(torch.arange(1.0, self.state + 1).log().expand_as(self.A_logs))
            self.Ds.fill_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, height, width, dim) to the same."""
        x = self.conv2d(self.in_proj(x).permute(0, 3, 1, 2))
        x = F.silu(x).permute(0, 2, 3, 1)
        y = self.scan(x).to(self.out_norm.weight.dtype)
        y = self.out_norm(y).to(x.dtype)
        return self.out_proj(y)  # type: ignore[no-any-return]

    def scan(self, x: Tensor) -> Tensor:
        """Scan along the four orders, and add what they give: float32, shape as it came."""
        u = unroll(x)
        steps, inputs, outputs = self.project(u)
        heads = (DIRECTIONS, ORDERS, -1)
        y = selective_scan(
            u,
            steps,
            -torch.exp(self.A_logs.float()).view(*heads, self.state),
            inputs,
            outputs,
            self.dt_projs_bias.view(heads),
        )
        skip = self.Ds.float().view(DIRECTIONS * ORDERS, -1).sum(0)
        return roll_up(y, x.shape[1:3]) + skip * x

    def project(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the scan is steered by.

        Args:
            u: (orders, length, batch, dim).

        Returns:
            Raw steps (directions, orders, length, batch, dim), B and C (directions, orders,
            length, batch, state).
        """
        positions = u.shape[1:3]
        weight = self.x_proj_weight.unflatten(0, (DIRECTIONS, ORDERS))
        # (orders, dim, directions * outputs): one product for both directions
        weight = weight.permute(1, 3, 0, 2).flatten(2)
        found = torch.matmul(u.flatten(1, 2), weight).unflatten(2, (DIRECTIONS, -1))
        found = found.permute(2, 0, 1, 3)  # (directions, orders, length * batch, outputs)
        low, inputs, outputs = found.split([self.rank, self.state, self.state], dim=-1)
        rise = self.dt_projs_weight.unflatten(0, (DIRECTIONS, ORDERS)).transpose(2, 3)
        steps, inputs, outputs = (
            y.unflatten(2, (positions[0], -1)) for y in (torch.matmul(low, rise), inputs, outputs)
        )
        return steps, inputs, outputs


def unroll(x: Tensor) -> Tensor:
    """Lay a map out along its rows, and along its columns.

    Args:
        x: (batch, height, width, dim).

    Returns:
        (2, height * width, batch, dim): row after row, and column after column.
    """
    rows, columns = x.permute(1, 2, 0, 3), x.permute(2, 1, 0, 3)
    return torch.stack([rows.flatten(0, 1), columns.flatten(0, 1)])


def roll_up(y: Tensor, size: Sequence[int]) -> Tensor:
    """Add what the two orders say of each position: the adjoint of ``unroll``.

    Args:
        y: (2, height * width, batch, dim).
        size: Height and width.

    Returns:
        (batch, height, width, dim).
    """
    height, width = size
    rows = y[0].unflatten(0, (height, width))
    columns = y[1].unflatten(0, (width, height)).transpose(0, 1)
    return torch.add(rows, columns).permute(2, 0, 1, 3)


class Block(nn.Module):
    """The scan and an MLP, each behind a norm and with a way around it.

    Args:
        dim: Channels.
        state: Of the scan.
        mlp_ratio: The MLP's hidden channels, in multiples of ``dim``.
        drop_path: Rate at which a photo's branch is dropped in training.
    """

    def __init__(self, dim: int, state: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.op = SS2D(dim, state)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, height, width, dim) to the same."""
        x = x + self.drop_path(self.op(self.norm(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]


class Stage(nn.Module):
    """Blocks of one size, and what halves the map behind them.

    Args:
        dim: Channels.
        out_dim: Channels of the next stage; None for the last.
        state: Of the scans.
        mlp_ratio: See ``Block``.
        drop_path: A rate for each block.
    """

    def __init__(
        self,
        dim: int,
        out_dim: int | None,
        state: int,
        mlp_ratio: float,
        drop_path: Sequence[float],
    ) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(dim, state, mlp_ratio, rate) for rate in drop_path))
        self.downsample: nn.Module = nn.Identity()
        if out_dim is not None:
            halve = nn.Conv2d(dim, out_dim, 3, stride=2, padding=1)
            self.downsample = nn.Sequential(
                ChannelsFirst(), halve, ChannelsLast(), nn.LayerNorm(out_dim)
            )
        self.grad_checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        """(batch, height, width, dim) to (batch, ⌈height / 2⌉, ⌈width / 2⌉, out_dim)."""
        if self.grad_checkpointing and torch.is_grad_enabled():
            x = checkpoint_seq(self.blocks, x)
        else:
            x = self.blocks(x)
        return self.downsample(x)  # type: ignore[no-any-return]
