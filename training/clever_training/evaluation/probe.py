"""Linear classifiers on frozen features: logistic regression by L-BFGS, or by SGD as published."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from clever_training.data.labelled import stratified_positions

# Strengths of l2 beside the mean cross-entropy, on standardised features; scikit-learn's C is
# 1 / (N · l2).
L2_GRID = (1.0, 0.1, 0.01, 0.001, 0.0001)
LEARNING_RATES = (0.001, 0.01, 0.1)  # per 256 photos of a batch
HELD_OUT = 0.2
SGD_EPOCHS, SGD_BATCH = 100, 256
MAX_ITERATIONS = 100
Report = Callable[[int, int], None]


def _silent(_done: int, _total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Probe:
    """A fitted linear classifier.

    Attributes:
        weight: float32 (d, classes), for features that are not standardised.
        bias: float32 (classes,).
        chosen: The setting that was selected: ``l2`` or ``learning_rate``.
    """

    weight: Float[Tensor, "dim classes"]
    bias: Float[Tensor, " classes"]
    chosen: dict[str, float]

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits, float32 (N, classes)."""
        logits: NDArray[np.float32] = (torch.from_numpy(features) @ self.weight + self.bias).numpy()
        return logits

    def accuracy(
        self, features: NDArray[np.float32], labels: NDArray[np.int64], k: int = 1
    ) -> float:
        """The share of photos whose class is among the k highest scores, in per cent."""
        scores = torch.from_numpy(self.scores(features))
        best = scores.topk(min(k, scores.shape[1]), dim=1).indices.numpy()
        return float((best == labels[:, None]).any(axis=1).mean() * 100)


def fit_probe(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    classes: int,
    *,
    kind: Literal["lbfgs", "sgd"] = "lbfgs",
    seed: int = 0,
    report: Report = _silent,
) -> Probe:
    """Fit a linear classifier; its one setting is selected on a split of the same photos.

    Every setting is fitted to four fifths of each class, from the strongest regularisation on; each
    fit starts from the previous one. The setting that classifies the last fifth best is then fitted
    to all photos. The search stops early when two settings in a row are worse than the best. The
    only photo of a class is not held out, as nothing could be fitted to that class; where all are
    such, nothing is selected, and the first setting is taken.

    Args:
        features: float32 (N, d), of the training photos; they are standardised here.
        labels: int64 (N,), in [0, classes).
        classes: Number of classes.
        kind: ``lbfgs`` for multinomial logistic regression; ``sgd`` for the published recipe: 100
            epochs with momentum 0.9 and a cosine schedule without weight decay, with a selected
            learning rate. Unlike in the published recipe photos are not augmented, since features
            are computed once.
        seed: Seed of the split and of SGD's order.
        report: Called with fits done and fits in all.

    Returns:
        The classifier.

    Example:
        >>> labels = np.arange(40) % 2
        >>> features = (labels[:, None] + np.zeros((40, 3))).astype(np.float32)
        >>> fit_probe(features, labels, 2).accuracy(features, labels)
        100.0
    """
    x, y, mean, scale = _standardised(features, labels)
    grid = L2_GRID if kind == "lbfgs" else LEARNING_RATES
    total = len(grid) + 1
    tried: dict[float, float] = {}
    found: dict[float, Tensor] = {}
    fit = _fitter(kind, x, classes, seed)
    held = _held_out(labels, seed)
    inside, outside = torch.from_numpy(~held), torch.from_numpy(held)
    for value, weight in _path(fit, x[inside], y[inside], grid) if held.any() else ():
        right = (_logits(x[outside], weight).argmax(dim=1) == y[outside]).float().mean()
        tried[value], found[value] = float(right), weight
        report(len(tried), total)
        if _past_the_best(list(tried.values())):
            break
    best = max(tried, key=lambda value: tried[value], default=grid[0])
    # The problem is convex, so the optimum on four fifths is a good start for all photos.
    final = fit(x, y, best, found.get(best))
    report(total, total)
    # Include the standardisation: ((f - mean) / scale) @ W = f @ (W / scale) - (mean / scale) @ W.
    weight = final[:-1] / scale[:, None]
    name = "l2" if kind == "lbfgs" else "learning_rate"
    return Probe(weight, final[-1] - mean @ weight, {name: best})


def _held_out(labels: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """A fifth of the photos, each of a class that has another; none where no class has two."""
    held = np.zeros(len(labels), dtype=bool)
    _, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    several = np.flatnonzero(sizes[inverse] > 1)
    if len(several):
        count = min(len(several), max(1, round(HELD_OUT * len(labels))))
        held[several[stratified_positions(labels[several], count, seed)]] = True
    return held


def _standardised(
    features: NDArray[np.float32], labels: NDArray[np.int64]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features with mean 0 and deviation 1 (constants become 0), labels, mean and deviation."""
    x = torch.from_numpy(np.ascontiguousarray(features))
    mean = x.mean(dim=0)
    scale = x.std(dim=0, correction=0)
    scale = torch.where(scale > 1e-6 * (mean.abs() + 1e-6), scale, torch.ones_like(scale))
    return (x - mean) / scale, torch.from_numpy(labels), mean, scale


def _past_the_best(accuracies: list[float]) -> bool:
    return len(accuracies) > 2 and max(accuracies[-2:]) < max(accuracies[:-2])


# Features, classes, the setting, and the start of logistic regression.
_Fit: TypeAlias = Callable[[Tensor, Tensor, float, Tensor | None], Tensor]


def _fitter(kind: Literal["lbfgs", "sgd"], x: Tensor, classes: int, seed: int) -> _Fit:
    """The function that fits; all fits of logistic regression share one spectrum."""
    if kind == "sgd":
        return lambda x, y, value, _: sgd_fit(x, y, classes, value, seed)
    spectrum = Spectrum.of(x)
    return lambda x, y, value, start: logistic_fit(
        x, y, classes, value, start=start, spectrum=spectrum
    )


def _path(
    fit: _Fit, x: Tensor, y: Tensor, grid: tuple[float, ...]
) -> Iterator[tuple[float, Tensor]]:
    """A fit for each setting; each starts from the previous one."""
    weight = None
    for value in grid:
        weight = fit(x, y, value, weight)
        yield value, weight


class Spectrum(NamedTuple):
    """Principal directions of features: their covariance is vectors · diag(values) · vectorsᵀ.

    Attributes:
        values: Variances along the directions, not negative.
        vectors: The directions, one per column.
    """

    values: Float[Tensor, " dim"]
    vectors: Float[Tensor, "dim dim"]

    @classmethod
    def of(cls, x: Float[Tensor, "batch dim"]) -> Spectrum:
        """The spectrum of standardised features, decomposed in float64."""
        values, vectors = torch.linalg.eigh((x.T @ x).double() / len(x))
        return cls(values.clamp_min(0).to(x.dtype), vectors.to(x.dtype))


def logistic_fit(
    x: Float[Tensor, "batch dim"],
    y: Int[Tensor, " batch"],
    classes: int,
    l2: float,
    *,
    start: Float[Tensor, "dim_and_bias classes"] | None = None,
    spectrum: Spectrum | None = None,
    max_iterations: int = MAX_ITERATIONS,
) -> Float[Tensor, "dim_and_bias classes"]:
    """Multinomial logistic regression by L-BFGS.

    Minimises mean cross-entropy + l2 / 2 · ‖W‖² without regularising the bias. This is
    scikit-learn's ``LogisticRegression(C=1 / (N * l2))``, which takes many times longer on wide
    features with many classes. The covariance of the features is the preconditioner.

    Args:
        x: Standardised features.
        y: Class of each photo.
        classes: Number of classes.
        l2: Strength of the regularisation.
        start: Initial weights; zeros when None.
        spectrum: Spectrum of similar features, if it is known already.
        max_iterations: Limit on the iterations when the fit does not converge.

    Returns:
        The weights; the last row is the bias.
    """
    initial = torch.zeros(x.shape[1] + 1, classes) if start is None else start
    scaling = _Preconditioner.of(spectrum or Spectrum.of(x), classes, l2)
    scaled = scaling.scaled(initial).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [scaled],
        max_iter=max_iterations,
        tolerance_grad=1e-5,
        tolerance_change=1e-7,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        weight = scaling.weight(scaled)
        loss = F.cross_entropy(_logits(x, weight), y) + l2 / 2 * weight[:-1].square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return scaling.weight(scaled.detach())


class _Preconditioner(NamedTuple):
    """A change of variables that conditions the objective of ``logistic_fit``; same optimum.

    Where all classes are equally likely, the curvature is covariance / classes + l2. It differs by
    orders of magnitude between the principal directions; without the change of variables L-BFGS
    takes about twice as many iterations.
    """

    half: Float[Tensor, "dim dim"]  # the root of the inverse of that curvature
    inverse: Float[Tensor, "dim dim"]
    bias: float

    @classmethod
    def of(cls, spectrum: Spectrum, classes: int, l2: float) -> _Preconditioner:
        values, vectors = spectrum
        root = (values / classes + l2).sqrt()
        return cls((vectors / root) @ vectors.T, (vectors * root) @ vectors.T, classes**0.5)

    def weight(self, scaled: Tensor) -> Tensor:
        return torch.cat([self.half @ scaled[:-1], self.bias * scaled[-1:]])

    def scaled(self, weight: Tensor) -> Tensor:
        return torch.cat([self.inverse @ weight[:-1], weight[-1:] / self.bias])


def sgd_fit(
    x: Float[Tensor, "batch dim"],
    y: Int[Tensor, " batch"],
    classes: int,
    learning_rate: float,
    seed: int = 0,
    epochs: int = SGD_EPOCHS,
) -> Float[Tensor, "dim_and_bias classes"]:
    """The published linear probe: SGD, momentum 0.9, no weight decay, cosine schedule to zero.

    This is eval_linear.py of DINO and CLeVER, which states the learning rate per 256 photos.

    Args:
        x: Standardised features.
        y: Class of each photo.
        classes: Number of classes.
        learning_rate: Learning rate per 256 photos of a batch.
        seed: Seed of the initial weights (normal, deviation 0.01) and of the photos' order.
        epochs: Passes over the photos.

    Returns:
        The weights; the last row is the bias.
    """
    random = torch.Generator().manual_seed(seed)
    batch = min(SGD_BATCH, len(x))
    weight = 0.01 * torch.randn(x.shape[1] + 1, classes, generator=random)
    weight[-1] = 0
    weight.requires_grad_()
    optimizer = torch.optim.SGD([weight], lr=learning_rate * batch / 256, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for chosen in torch.split(torch.randperm(len(x), generator=random), batch):
            optimizer.zero_grad()
            loss = F.cross_entropy(_logits(x[chosen], weight), y[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        schedule.step()
    return weight.detach()


def _logits(x: Tensor, weight: Tensor) -> Tensor:
    return torch.addmm(weight[-1], x, weight[:-1])
