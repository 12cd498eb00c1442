"""Regression on features: ridge in closed form, and a small MLP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import r2_score
from torch import Tensor, nn

# Relative to the number of photos, on standardised features.
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
HELD_OUT = 0.2
HIDDEN, EPOCHS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 256, 20, 256, 1e-3, 1e-2
Predictor = Callable[[NDArray[np.float32]], NDArray[np.float32]]
Report = Callable[[int, int], None]


def _silent(_done: int, _total: int) -> None:
    """Report nothing."""


def r2_each(truth: NDArray[np.float32], predicted: NDArray[np.float32]) -> NDArray[np.float64]:
    """R² of each target, as scikit-learn's ``r2_score`` defines it.

    It is 1 − residual sum of squares / sum of squares about the mean of the true values. Some
    published figures take the mean of the training data, or pool the dimensions.

    Args:
        truth: float32 (N, t).
        predicted: float32 (N, t).

    Returns:
        float64 (t,), at most 1; always predicting the mean gives 0.

    Example:
        >>> r2_each(np.array([[0], [1]], np.float32), np.array([[0], [1]], np.float32))
        array([1.])
    """
    found = r2_score(truth.astype(np.float64), predicted, multioutput="raw_values")
    return np.asarray(found, dtype=np.float64)


@dataclass(frozen=True)
class _Scale:
    """Subtracts means and divides by deviations; constants become 0."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, values: Tensor) -> _Scale:
        mean, deviation = values.mean(dim=0), values.std(dim=0, correction=0)
        floor = 1e-6 * (mean.abs() + 1e-6)
        return cls(mean, torch.where(deviation > floor, deviation, torch.ones_like(deviation)))

    def __call__(self, values: Tensor) -> Tensor:
        return (values - self.mean) / self.deviation

    def back(self, values: Tensor) -> Tensor:
        return values * self.deviation + self.mean


def fit_ridge(
    features: NDArray[np.float32], targets: NDArray[np.float32], *, seed: int = 0
) -> Predictor:
    """Ridge regression; its penalty is selected on a split of the same photos.

    Minimises ‖Y − X·W‖² + N·penalty·‖W‖² on standardised features and targets, as scikit-learn's
    ``Ridge(alpha=N * penalty)``. Every penalty is fitted to four fifths of the photos; the one with
    the best mean R² on the last fifth is then fitted to all.

    Args:
        features: float32 (N, d), of training photos.
        targets: float32 (N, t).
        seed: Seed of the split.

    Returns:
        A function that turns features (M, d) into predictions (M, t), both float32.

    Example:
        >>> x = np.arange(20, dtype=np.float32)[:, None]
        >>> predict = fit_ridge(x, 2 * x + 1)
        >>> np.allclose(predict(x), 2 * x + 1, atol=0.05)
        True
    """
    x, y = torch.from_numpy(features).double(), torch.from_numpy(targets).double()
    scale_x, scale_y = _Scale.of(x), _Scale.of(y)
    x, y = scale_x(x), scale_y(y)
    held = _held_out(len(x), seed)
    # The Gram matrix of all photos is the sum of those of the two shares.
    gram, moment = x[~held].T @ x[~held], x[~held].T @ y[~held]
    scores = []
    for penalty in PENALTIES:
        weight = _solve(gram, moment, penalty * float((~held).sum()))
        scores.append(_mean_r2(y[held], x[held] @ weight))
    gram, moment = gram + x[held].T @ x[held], moment + x[held].T @ y[held]
    weight = _solve(gram, moment, PENALTIES[int(np.argmax(scores))] * len(x))

    def predict(asked: NDArray[np.float32]) -> NDArray[np.float32]:
        inputs = scale_x(torch.from_numpy(np.ascontiguousarray(asked)).double())
        found: NDArray[np.float32] = scale_y.back(inputs @ weight).float().numpy()
        return found

    return predict


def fit_mlp(
    features: NDArray[np.float32],
    targets: NDArray[np.float32],
    *,
    seed: int = 0,
    report: Report = _silent,
) -> Predictor:
    """An MLP with one hidden layer of 256; a split of the same photos selects the epoch.

    It is trained by AdamW (learning rate 1e-3, weight decay 1e-2) for at most 20 epochs in batches
    of 256 on four fifths of the photos. The weights of the epoch with the best mean R² on the last
    fifth are kept.

    Args:
        features: float32 (N, d), of training photos.
        targets: float32 (N, t).
        seed: Seed of the split, the initial weights and the order.
        report: Called with epochs done and epochs in all.

    Returns:
        A function that turns features (M, d) into predictions (M, t), both float32.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32)
        >>> predict = fit_mlp(x, x[:, :1] * x[:, 1:])
        >>> predict(x).shape
        (500, 1)
    """
    x, y = torch.from_numpy(features), torch.from_numpy(targets)
    scale_x, scale_y = _Scale.of(x), _Scale.of(y)
    x, y = scale_x(x), scale_y(y)
    held = _held_out(len(x), seed)
    random = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Linear(x.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, y.shape[1])
        )
    best, kept = -np.inf, {}
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    for epoch in range(EPOCHS):
        _epoch(model, optimizer, x[~held], y[~held], random)
        with torch.inference_mode():
            score = _mean_r2(y[held], model(x[held]))
        if score > best:
            best, kept = score, {k: v.clone() for k, v in model.state_dict().items()}
        report(epoch + 1, EPOCHS)
    model.load_state_dict(kept)

    def predict(asked: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            output = model(scale_x(torch.from_numpy(np.ascontiguousarray(asked))))
            found: NDArray[np.float32] = scale_y.back(output).numpy()
        return found

    return predict


def _epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    random: torch.Generator,
) -> None:
    for chosen in torch.split(torch.randperm(len(x), generator=random), BATCH):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x[chosen]), y[chosen])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _held_out(count: int, seed: int) -> Tensor:
    """A mask of a fifth of the photos, but at least two, for there must be a variance."""
    chosen = np.random.default_rng([seed, count]).permutation(count)
    mask = torch.zeros(count, dtype=torch.bool)
    mask[torch.from_numpy(chosen[: max(2, round(HELD_OUT * count))])] = True
    return mask


def _solve(gram: Tensor, moment: Tensor, penalty: float) -> Tensor:
    factor = torch.linalg.cholesky(gram + penalty * torch.eye(len(gram), dtype=gram.dtype))
    return torch.cholesky_solve(moment, factor)


def _mean_r2(truth: Tensor, predicted: Tensor) -> float:
    """A score for selection; targets are standardised, and a constant one must not divide by 0."""
    residual = (truth - predicted).square().sum(dim=0)
    total = (truth - truth.mean(dim=0)).square().sum(dim=0).clamp_min(1e-9)
    return float((1 - residual / total).mean())
