"""The calibration's entry: read strictly, written back as it was."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from clever_hub.errors import ConfigError, ModelFormatError
from clever_hub.jobs.calibration import TURNS, Calibration
from tests.hub.jobs.conftest import CALIBRATION


def test_a_threshold_follows_from_the_rate_of_false_pairs() -> None:
    calibration = Calibration.from_dict(CALIBRATION)
    assert calibration.threshold("full", 1e-3) == pytest.approx(0.5)
    assert calibration.threshold("full", 1e-4) == pytest.approx(0.6)
    assert calibration.threshold("invariant", 1e-5) == pytest.approx(0.7)


def test_rates_beyond_what_was_measured_are_refused() -> None:
    calibration = Calibration.from_dict(CALIBRATION)
    with pytest.raises(ConfigError, match=r"has 1e-05 to 0\.001, got 1e-06"):
        calibration.threshold("full", 1e-6)
    with pytest.raises(ConfigError, match="expected one of invariant, equivariant, full"):
        calibration.threshold("whole", 1e-4)


def test_the_error_of_an_angle_shrinks_with_the_length() -> None:
    angle = Calibration.from_dict(CALIBRATION).angle
    np.testing.assert_allclose(angle.error(np.array([0.25, 0.5, 2.0])), [55, 20, 4])


def test_what_was_measured_of_four_positions_is_kept() -> None:
    content = copy.deepcopy(CALIBRATION)
    content["from_eight"] = {"angle": content["angle"], "mirrored": [2.0, 0.1]}
    content["orientation"]["from_four"] = {
        "temperature": 0.2,
        "power": 1.5,
        "confidence_at": {"0.01": 0.7},
        "by_turn": {turn: {"0.25": {"0.01": 0.8}, "0.9": {"0.01": 0.6}} for turn in TURNS},
    }
    assert Calibration.from_dict(content).to_dict() == content


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("same.features", ["cosine_full", "luck"], "knows cosine_invariant.*luck"),
        ("same.features", "cosine_full", "expected names"),
        ("same.weights", [1.0, 2.0], "same.weights: expected a list of 1 numbers"),
        ("same.prior", 2.0, "same.prior: expected a number from 0 to 1"),
        ("angle.degrees", [1.0], "angle.degrees: expected a list of 3 numbers"),
        ("angle.lengths", [], "angle.lengths: expected a list of numbers"),
        ("orientation.temperature", 0, "orientation.temperature"),
        ("orientation.power", -1, "orientation.power"),
        ("orientation.by_turn", {"sideways": {}}, "by_turn.sideways: expected confidences by"),
        ("orientation.by_turn", {"sideways": {"most": {}}}, "by_turn.sideways: .* such as '0.9'"),
        ("cosine.full", {}, "cosine.full: expected thresholds by rate"),
        ("cosine.full.often", CALIBRATION["cosine"]["full"]["1e-3"], "expected a rate such as"),
        ("cosine.full.1e-3", 0.5, "cosine.full.1e-3: expected an object"),
        ("photos", float("nan"), "photos: expected a number"),
        ("values.zoom", None, "zoom: expected an object"),
        ("mirrored", [1.0], "mirrored: expected a list of 2"),
    ],
)
def test_a_damaged_calibration_is_refused_by_name(path: str, value: object, message: str) -> None:
    content: Any = copy.deepcopy(CALIBRATION)
    section = content
    *parents, last = path.split(".", 2) if path.startswith("cosine") else path.split(".")
    for parent in parents:
        section = section[parent]
    section[last] = value
    with pytest.raises(ModelFormatError, match=message):
        Calibration.from_dict(content)
