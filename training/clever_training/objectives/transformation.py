"""Not in the paper: predict from the equivariant parts of two views how one is made from the other.

CLeVER's own terms do not make the equivariant part *predictable*. This optional term does: a small
head sees the equivariant parts of two views and predicts their relative transformation. AugSelf
(Lee et al., NeurIPS 2021, https://arxiv.org/abs/2111.09613) predicts differences of augmentation
parameters from two whole embeddings, E-SSL (Dangovski et al., ICLR 2022,
https://arxiv.org/abs/2111.00899) one view's rotation from its own. Here the geometry is the exact
relative one: place, size, rotation and mirroring of view b within view a, whatever was done to both
views. It is predicted from the equivariant parts alone.

The rotation of view b from upright is predicted as well, as in E-SSL. The sine of a difference of
angles is a sum of products of sines and cosines of both views. As long as the features of one view
do not encode its angle, encoding the other's does not lower the loss, and training on relative
rotations alone does not start (a ResNet-18 had R² 0.00 after 300 steps, with crops at 0.18 and
colours at 0.68).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from clever_hub.errors import ConfigError
from clever_training.runtime.gathering import average, world_size

# Columns of a view's parameters, as ``ViewParameters.as_array`` orders them.
LEFT, TOP, WIDTH, HEIGHT, FLIP, ANGLE = range(6)
FACTORS, HUE, GRAYSCALE = slice(6, 9), 9, 10

# Columns of a pair's values.
GROUPS = {
    "rotation": slice(0, 2),
    "crop": slice(2, 6),
    "color": slice(6, 10),
    "turn": slice(10, 12),
}
_SATURATION, _HUE = 8, 9

# Columns of the predictions: the rotation if the pair is not mirrored, the rotation if it is (the
# two are computed differently, and a user may know which applies), the other values, and the
# mirroring as a logit.
STRAIGHT, MIRRORED, REST = slice(0, 2), slice(2, 4), slice(4, 14)
OF_PAIRS, REGRESSED = 12, 14
# Sine and cosine have one scale: the cosine of small angles hardly varies.
_ANGLES = (STRAIGHT, MIRRORED, slice(12, 14))
_STILL = 1e-6  # variance of a target that nothing moves, such as the angle of unturned views


@dataclass(frozen=True)
class Relative:
    """How view b is made from view a.

    Attributes:
        values: float32 (..., 12): sine and cosine of the rotation; position of b's centre in a, in
            halves of a's side; log ratio of the crops' widths and of their heights; log ratio of
            brightness, contrast and saturation; difference of the hues; sine and cosine of the
            rotation of b from upright.
        mirrored: Whether exactly one of the two is mirrored.
        known: 1 where a value can be seen in the pixels, else 0; a grey view has no hue and no
            saturation.
    """

    values: Float[Tensor, "*pairs 12"]
    mirrored: Bool[Tensor, "*pairs"]
    known: Float[Tensor, "*pairs 12"]


def relative_transformation(
    a: Float[Tensor, "*pairs columns"], b: Float[Tensor, "*pairs columns"]
) -> Relative:
    """The transformation between two views, from the parameters of each.

    A view shows point p of its crop, in [−1, 1]², at R(θ) F p, where F mirrors or does not. With
    crops at c, of half sides D, point p of view b is therefore seen in view a at t + L p, with
    t = R_a F_a D_a⁻¹ (c_b − c_a) and L = R_a F_a D_a⁻¹ D_b F_b R_b⁻¹, which is a scaling times
    R(θ_a − θ_b), or R(θ_a + θ_b) F if one of the two is mirrored.

    Args:
        a: Parameters of one view, from ``ViewParameters.as_array``.
        b: Parameters of the other view.

    Returns:
        The transformation.

    Example:
        >>> upright = torch.tensor([0.0, 0, 1, 1, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0])
        >>> relative_transformation(upright, upright).values
        tensor([0., 1., 0., 0., 0., 0., 0., 0., 0., 0., 0., 1.])
    """
    mirrored = a[..., FLIP] != b[..., FLIP]
    angle = a[..., ANGLE] + torch.where(mirrored, b[..., ANGLE], -b[..., ANGLE])
    # Where b's centre lies in a's crop, then in a's view.
    x, y = (
        2 * (_center(b, start, side) - _center(a, start, side)) / a[..., side]
        for start, side in ((LEFT, WIDTH), (TOP, HEIGHT))
    )
    x = torch.where(a[..., FLIP] > 0, -x, x)
    sine, cosine = a[..., ANGLE].sin(), a[..., ANGLE].cos()
    # Counter-clockwise, with y pointing down.
    place = [cosine * x + sine * y, cosine * y - sine * x]
    sides = [(b[..., side] / a[..., side]).log() for side in (WIDTH, HEIGHT)]
    colors = (b[..., FACTORS].clamp_min(0.1) / a[..., FACTORS].clamp_min(0.1)).log()
    hue = b[..., HUE] - a[..., HUE]
    hue = hue - hue.round()  # of a circle, in turns: the shorter way
    geometry = torch.stack([angle.sin(), angle.cos(), *place, *sides], dim=-1)
    turn = torch.stack([b[..., ANGLE].sin(), b[..., ANGLE].cos()], dim=-1)
    values = torch.cat([geometry, colors, hue.unsqueeze(-1), turn], dim=-1)
    known = torch.ones_like(values)
    colored = ((a[..., GRAYSCALE] == 0) & (b[..., GRAYSCALE] == 0)).float()
    known[..., _SATURATION] = known[..., _HUE] = colored
    return Relative(values, mirrored, known)


class TargetUnits(nn.Module):
    """Mean and deviation of each value over all pairs of the training so far.

    They are the units of the predictions. Units of each batch would change from step to step, and
    would not exist for a single pair after the training. All processes have the same state, and a
    run saves it.
    """

    count: Tensor
    mean: Tensor
    squares: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("count", "mean", "squares"):
            self.register_buffer(name, torch.zeros(REGRESSED, dtype=torch.float64))

    @torch.no_grad()
    def observe(self, relative: Relative) -> None:
        """Include a batch's values, over the pairs of all processes.

        Means and variances are combined as in Chan et al. (1979, "Updating formulae and a pairwise
        algorithm for computing sample variances").

        Args:
            relative: Transformations of this process's pairs.
        """
        values, known = (part.double().flatten(0, -2) for part in _by_branch(relative))
        # Means instead of sums, since every process has the same number of pairs.
        shares = average(known.mean(dim=0))
        mean = average((known * values).mean(dim=0)) / shares.clamp_min(1e-12)
        squares = average((known * (values - mean).square()).mean(dim=0))
        count, pairs = shares * len(values) * world_size(), len(values) * world_size()
        total = (self.count + count).clamp_min(1e-12)
        apart = mean - self.mean
        self.squares += squares * pairs + apart.square() * self.count * count / total
        self.mean += apart * count / total
        self.count += count

    @property
    def center(self) -> Float[Tensor, "14"]:
        """Mean of each value, float32; 0 before the first batch."""
        return self.mean.float()

    @property
    def scale(self) -> Float[Tensor, "14"]:
        """Deviation of each value, float32; sine and cosine of an angle have the same."""
        variance = self.squares / self.count.clamp_min(1)
        for angle in _ANGLES:
            variance[angle] = variance[angle].mean()
        return variance.float().clamp_min(_STILL).sqrt()


class TransformationHead(nn.Module):
    """Predicts the relative transformation of two views from their equivariant parts.

    The rotation of the second view from upright is predicted from its own part alone, everything
    else from both parts. A value is its prediction times ``unit.scale`` plus ``unit.center``.

    Args:
        in_dim: Length of the equivariant part.
        hidden_dim: Width of the hidden layers.

    Attributes:
        unit: Units of the predictions.

    Example:
        >>> TransformationHead(103)(torch.zeros(3, 8, 103), [(0, 1), (1, 2)]).shape
        torch.Size([2, 8, 15])
    """

    def __init__(self, in_dim: int, hidden_dim: int = 512) -> None:
        super().__init__()
        self.pair = nn.Sequential(
            nn.Linear(2 * in_dim, hidden_dim),
            nn.LayerNorm(hidden_dim),
            nn.ReLU(inplace=True),
            nn.Linear(hidden_dim, hidden_dim),
            nn.ReLU(inplace=True),
        )
        self.last = nn.Linear(hidden_dim, OF_PAIRS + 1)
        self.turn = nn.Sequential(
            nn.Linear(in_dim, hidden_dim),
            nn.LayerNorm(hidden_dim),
            nn.ReLU(inplace=True),
        )
        self.last_turn = nn.Linear(hidden_dim, REGRESSED - OF_PAIRS)
        self.unit = TargetUnits()
        # Begins with the blind guess, whose cost is 1 in every group.
        for layer in (self.last, self.last_turn):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self, equivariant: Float[Tensor, "views batch dim"], pairs: list[tuple[int, int]]
    ) -> Float[Tensor, "pairs batch 15"]:
        """Predictions in ``unit``: 14 values, and a logit; float32.

        In this order: sine and cosine of the rotation if the pair is not mirrored, the same if it
        is, crop, colours, sine and cosine of the second view's rotation from upright, mirroring.
        """
        first, second = (equivariant[list(views)] for views in zip(*pairs, strict=True))
        pair = self.last(self.pair(torch.cat([first, second], dim=-1))).float()
        # Once for each view: with local views, one is the second of several pairs.
        turns = self.last_turn(self.turn(equivariant)).float()[[view for _, view in pairs]]
        return torch.cat([pair[..., :OF_PAIRS], turns, pair[..., OF_PAIRS:]], dim=-1)


def view_pairs(views: int, global_count: int) -> list[tuple[int, int]]:
    """Every global view with every other view, as in the other terms.

    Args:
        views: Number of views.
        global_count: Number of global views.

    Returns:
        Pairs of numbers of views.

    Example:
        >>> view_pairs(3, 2)
        [(0, 1), (0, 2), (1, 0), (1, 2)]
    """
    return [(a, b) for a in range(min(views, global_count)) for b in range(views) if a != b]


def transformation_loss(
    predictions: Float[Tensor, "pairs batch 15"],
    parameters: Float[Tensor, "batch views columns"],
    pairs: list[tuple[int, int]],
    unit: TargetUnits,
    shares: Mapping[str, float] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """The part of the relative transformations that the predictions do not explain.

    Rotation, crop, colour, the second view's rotation from upright, and mirroring have the same
    weight by default. For the first four it is the squared error in units of the values' deviation,
    which is 1 − R²; of the two predicted rotations the one for the true mirroring counts. For the
    mirroring it is the cross-entropy relative to that of a blind guess. Values that do not vary,
    such as the angle without rotation, are left out.

    Args:
        predictions: From ``TransformationHead``.
        parameters: Parameters of each view of this process's photos.
        pairs: The pair of views of each prediction.
        unit: The head's units; in training mode they are updated with the batch first.
        shares: Weight of each group, by its name in ``GROUPS`` or ``mirroring``; 1 for groups that
            are left out.

    Returns:
        A scalar, about 1 for blind guesses, 0 at best; and the indicators ``r2_rotation``,
        ``r2_crop``, ``r2_color``, ``r2_turn`` and ``accuracy_flip``, of the groups that vary.

    Raises:
        ConfigError: When the parameters are not known.
    """
    if not parameters.isfinite().all():
        raise ConfigError(
            "method.transformation_weight: the views' parameters are not known. Let the function "
            "in views.aug return them, or set the weight to 0"
        )
    a, b = (parameters[:, list(views)].transpose(0, 1) for views in zip(*pairs, strict=True))
    relative = relative_transformation(a, b)
    if unit.training:
        unit.observe(relative)
    terms, indicators = _regression(predictions[..., :REGRESSED], relative, unit)
    counts = {name: float((shares or {}).get(name, 1.0)) for name in (*GROUPS, "mirroring")}
    share = average(relative.mirrored.float().mean())
    if 0 < share < 1:
        logits, truth = predictions[..., REGRESSED], relative.mirrored
        terms["mirroring"] = F.binary_cross_entropy_with_logits(logits, truth.float()) / math.log(2)
        right = ((logits.detach() > 0) == truth).float().mean()
        indicators["accuracy_flip"] = average(right)
    total = sum(counts[name] for name in terms)
    if not total:
        return predictions.sum() * 0, indicators
    weighted = torch.stack([counts[name] / total * term for name, term in terms.items()])
    return average(weighted.sum()), indicators


def _regression(
    predicted: Float[Tensor, "*pairs 14"], relative: Relative, unit: TargetUnits
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """1 − R² of this process's photos in each group that varies, and R² of all processes'."""
    mirrored, known = relative.mirrored, relative.known.flatten(0, -2)
    center, scale, predicted = (
        _true_branch(part, mirrored).flatten(0, -2)
        for part in (
            unit.center.expand_as(predicted),
            unit.scale.expand_as(predicted),
            predicted,
        )
    )
    target = (relative.values.flatten(0, -2) - center) / scale
    shares = average(known.mean(dim=0)).clamp_min(1e-12)
    unexplained = (known * (predicted - target).square()).mean(dim=0) / shares
    varies = scale.amax(dim=0).square() > 2 * _STILL
    terms, indicators = {}, {}
    for name, columns in GROUPS.items():
        if varies[columns].any():
            terms[name] = unexplained[columns][varies[columns]].mean()
            indicators[f"r2_{name}"] = 1 - average(terms[name].detach())
    return terms, indicators


def _by_branch(relative: Relative) -> tuple[Float[Tensor, "*pairs 14"], Float[Tensor, "*pairs 14"]]:
    """Values and ``known`` in the columns of predictions, which have the rotation twice."""
    rotation = relative.values[..., GROUPS["rotation"]]
    values = torch.cat([rotation, relative.values], dim=-1)
    mirrored = relative.mirrored.float().unsqueeze(-1).expand_as(rotation)
    known = torch.cat([1 - mirrored, mirrored, relative.known[..., 2:]], dim=-1)
    return values, known


def _true_branch(
    columns: Float[Tensor, "*pairs 14"], mirrored: Bool[Tensor, "*pairs"]
) -> Float[Tensor, "*pairs 12"]:
    """From the columns of predictions those of a pair's values, with the rotation that applies."""
    rotation = torch.where(mirrored.unsqueeze(-1), columns[..., MIRRORED], columns[..., STRAIGHT])
    return torch.cat([rotation, columns[..., REST]], dim=-1)


def _center(view: Tensor, start: int, side: int) -> Tensor:
    return view[..., start] + view[..., side] / 2
