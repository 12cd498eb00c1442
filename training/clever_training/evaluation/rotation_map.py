"""Predicting the feature of a rotated photo by a linear map, and retrieving it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from clever_training.evaluation.context import SLICE, Columns, Context
from clever_training.evaluation.knn import unit
from clever_training.evaluation.perturbations import ROTATED, UPRIGHT, draw_all
from clever_training.evaluation.regression import Predictor, fit_ridge
from clever_training.evaluation.retrieval import own_ranks, rank_figures, ranks_of
from clever_training.evaluation.strengths import at_strength, sweep_features

POSES = tuple(float(angle) for angle in range(-90, 91, 15))


def rotation_map_figures(
    context: Context, parts: Mapping[str, Columns]
) -> dict[str, dict[str, float]]:
    """How well the predicted feature retrieves the right pose and the right photo.

    Args:
        context: Model, photos, seed.
        parts: Columns of each part.

    Returns:
        part → ``pose_`` and ``photo_`` ``mrr``, ``hit1``, ``hit5``.
    """
    gallery = np.stack(  # (N, poses, d)
        [
            sweep_features(context, f"rotation/{angle:g}", at_strength("rotation", angle))
            for angle in POSES
        ],
        axis=1,
    )
    mean = context.train(ROTATED, "train rotated").mean(axis=0)
    upright = gallery[:, POSES.index(0.0)]
    found = {}
    for part, columns in parts.items():
        predict = _fitted(context, part, columns)
        predicted = np.stack(
            [predict(conditioned(upright[:, columns], np.full(len(upright), a))) for a in POSES],
            axis=1,
        )
        shift = mean[columns]
        found[part] = pose_figures(predicted - shift, gallery[:, :, columns] - shift)
    return found


def pose_figures(predicted: NDArray[np.float32], gallery: NDArray[np.float32]) -> dict[str, float]:
    """Rank the true features of rotated photos by their similarity to the predicted ones.

    Args:
        predicted: float32 (N, poses, d), centred.
        gallery: float32 (N, poses, d), centred; the features of the rotated photos.

    Returns:
        ``pose_…`` among the poses of the same photo, ``photo_…`` among the photos in the same pose.
    """
    count, poses, width = gallery.shape
    asked, known = (
        unit(np.ascontiguousarray(v).reshape(-1, width)).reshape(count, poses, width)
        for v in (predicted, gallery)
    )
    similarity = asked @ known.transpose(0, 2, 1)  # (N, asked pose, candidate pose)
    answers = np.tile(np.arange(poses), count)
    pose_ranks = ranks_of(similarity.reshape(-1, poses), answers)
    photo_ranks = np.concatenate(
        [own_ranks(asked[:, pose], known[:, pose], np.arange(count)) for pose in range(poses)]
    )
    return {**rank_figures(pose_ranks, "pose_"), **rank_figures(photo_ranks, "photo_")}


def conditioned(features: NDArray[np.float32], degrees: NDArray[np.float64]) -> NDArray[np.float32]:
    """The inputs of a map that is linear in the feature and in (1, sin, cos) of the angle.

    Args:
        features: float32 (N, d), features of upright photos.
        degrees: float64 (N,), angles of rotation.

    Returns:
        float32 (N, 3·d + 2): f, f·sin, f·cos, sin, cos.

    Example:
        >>> conditioned(np.array([[5]], np.float32), np.array([90.0])).round(3).tolist()
        [[5.0, 5.0, 0.0, 1.0, 0.0]]
    """
    angle = np.deg2rad(degrees)[:, None]
    sin, cos = np.sin(angle), np.cos(angle)
    joined = np.concatenate([features, features * sin, features * cos, sin, cos], axis=1)
    return joined.astype(np.float32)


def _fitted(context: Context, part: str, columns: Columns) -> Predictor:
    """The map of one part, fitted on training photos; all seeds share it except the slice's."""

    def fit() -> Predictor:
        photos = context.splits.train
        upright = context.train(UPRIGHT, "train upright")[:, columns]
        turned = context.train(ROTATED, "train rotated")[:, columns]
        drawn = draw_all(ROTATED, 0, photos.indices)
        angles = np.array([parameters[0][0] for parameters in drawn])
        return fit_ridge(conditioned(upright, angles), np.ascontiguousarray(turned))

    key = ("rotation-map", part, context.seed if part == SLICE else None)
    return context.once(key, fit)
