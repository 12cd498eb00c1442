"""Protocols on features of places, which need videos with masks instead of labelled photos."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeVar

from clever_hub.backends.dense import has_keys
from clever_hub.files import folder_name
from clever_hub.hub.evaluation import SCHEMA_VERSION
from clever_training.evaluation import results, saliency, video
from clever_training.evaluation.dense import DenseFeatures, dense_features
from clever_training.evaluation.features import Report, no_report
from clever_training.evaluation.kept import KeptPieces, timed
from clever_training.evaluation.models import FeatureExtractor, ModelFeatures
from clever_training.evaluation.results import Figures
from clever_training.evaluation.run import IN_ALL, named_baselines
from clever_training.evaluation.videos import Keep, Video

_T = TypeVar("_T")


class DenseProtocol(NamedTuple):
    """A way to measure features of places.

    Attributes:
        run: Measures a model on videos with frames of a size, reports frames, keeps each video's
            scores.
        settings: The description in evaluation.json.
        headline: The metrics that tables show.
        layer: Which features of a vision transformer.
        unit: Unit of the headline metrics.
        shown: The conditions that tables show; all of them when None.
    """

    run: Callable[[DenseFeatures, Sequence[Video], int, Callable[[int, int], None], Keep], Figures]
    settings: dict[str, Any]
    headline: tuple[str, ...]
    layer: Literal["tokens", "keys"] = "tokens"
    unit: Literal["%", ""] = "%"
    shown: tuple[str, ...] | None = None


def _run_video(
    dense: DenseFeatures,
    videos: Sequence[Video],
    size: int,
    report: Callable[[int, int], None],
    keep: Keep,
) -> Figures:
    return video.measure_videos(dense, videos, size, report=report, keep=keep)


DENSE_PROTOCOLS: Mapping[str, DenseProtocol] = MappingProxyType(
    {
        "video": DenseProtocol(
            _run_video, video.SETTINGS, ("j_and_f", "j", "f"), shown=(video.ALL,)
        ),
        "saliency": DenseProtocol(
            saliency.measure_saliency, saliency.SETTINGS, ("corloc", "iou", "cut_share"), "keys"
        ),
    }
)


@dataclass(frozen=True)
class DenseEvaluation:
    """What to measure on videos, and how.

    Attributes:
        folder: Where the videos are.
        videos: The videos.
        protocols: Names in ``DENSE_PROTOCOLS``.
        size: Pixels of the shorter side that frames are resized to.
        command: The command line that repeats the evaluation, for evaluation.json.
        report: Called with a label, frames done and in all.
        pieces: Keeps each video's scores, so that an evaluation that was stopped goes on; None
            keeps nothing.
    """

    folder: Path
    videos: Sequence[Video]
    protocols: Sequence[str]
    size: int = video.SIZE
    command: str = ""
    report: Report = no_report
    pieces: KeptPieces | None = None

    def run(
        self,
        extractor: FeatureExtractor,
        baselines: bool = True,
        beside: Sequence[FeatureExtractor] = (),
    ) -> dict[str, Any]:
        """Measure one model; nothing here is drawn at random but the weights of its random twin.

        Args:
            extractor: The model.
            baselines: Also measure its random twin and raw pixels.
            beside: Other models, measured in the same way as further baselines.

        Returns:
            The content of evaluation.json.

        Raises:
            ConfigError: When a model has no features of places.
            DataError: When a mask cannot be read.
            ImageError: When a frame cannot be read.
        """
        beside_it = named_baselines(extractor, baselines, beside)
        total = (1 + len(beside_it)) * len(self.protocols) * len(self.videos)
        steps = self._steps(total)
        next(steps)("")
        figures, records = self._measure(extractor, steps)
        others = {}
        for name, make in beside_it.items():
            other = make(0)
            others[name] = {"model": other.describe(), "figures": self._measure(other, steps)[0]}
        return {
            "schema_version": SCHEMA_VERSION,
            "model": extractor.describe(),
            "figures": figures,
            "baselines": others,
            "protocols": records,
        }

    def _steps(self, total: int) -> Iterator[Callable[[str], None]]:
        """Each reports that one more of so many measurements is done, and which."""
        for done in range(total + 1):
            yield lambda what, done=done: self.report(IN_ALL + what, done, total)  # type: ignore[misc]

    def _measure(
        self, extractor: FeatureExtractor, steps: Iterator[Callable[[str], None]]
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """The figures of every protocol, and how each was made."""
        figures, records = {}, {}
        for name in self.protocols:
            protocol = DENSE_PROTOCOLS[name]
            label = f"{extractor.name}, {name}"
            keeper = _Keeper(self, extractor, name, steps)
            found = protocol.run(
                dense_features(extractor, _layer(extractor, protocol)),
                self.videos,
                self.size,
                lambda done, total, label=label: self.report(label, done, total),  # type: ignore[misc]
                keeper,
            )
            figures[name] = results.summarize([found])
            records[name] = self._record(protocol, keeper.seconds)
        return figures, records

    def _record(self, protocol: DenseProtocol, seconds: float) -> dict[str, Any]:
        return {
            "command": self.command,
            "profile": "–",
            "seeds": [0],
            "settings": {**protocol.settings, "size": self.size},
            "created": results.now(),
            "seconds": round(seconds, 1),
            "environment": results.environment(),
            "data": {"videos": describe_videos(self.folder, self.videos)},
        }


class _Keeper:
    """Keeps the scores of each video by one protocol of one model; adds up their seconds."""

    def __init__(
        self,
        evaluation: DenseEvaluation,
        extractor: FeatureExtractor,
        protocol: str,
        steps: Iterator[Callable[[str], None]],
    ) -> None:
        layer = _layer(extractor, DENSE_PROTOCOLS[protocol])
        self.seconds = 0.0
        self._pieces, self._steps = evaluation.pieces, steps
        self._label = f"{extractor.name}, {protocol}"
        self._on = f"{protocol} {layer} {extractor.identity} {extractor.parts} {evaluation.size}"

    def __call__(self, video: Video, measure: Callable[[], _T]) -> _T:
        if self._pieces is None:
            piece = timed(measure)
        else:
            piece = self._pieces.piece(f"{self._on} {video.fingerprint()}", measure)
        self.seconds += piece.seconds
        next(self._steps)(f"{self._label}, {video.name}")
        return piece.value


def describe_videos(folder: Path, videos: Sequence[Video]) -> dict[str, Any]:
    """What evaluation.json says about videos.

    Args:
        folder: Where they are.
        videos: The videos.

    Returns:
        Name of the folder, counts of videos and frames, and a fingerprint over names and masks.
    """
    digest = hashlib.sha256()
    for one in videos:
        digest.update(f"{one.name} {len(one.frames)} ".encode())
        digest.update(one.masks[0].read_bytes())
    return {
        "name": folder_name(folder),
        "videos": len(videos),
        "frames": sum(len(one.frames) for one in videos),
        "fingerprint": digest.hexdigest(),
    }


def _layer(extractor: FeatureExtractor, protocol: DenseProtocol) -> Literal["tokens", "keys"]:
    """What the protocol wants, where the model has it."""
    keys = isinstance(extractor, ModelFeatures) and has_keys(extractor.model.backbone)
    return protocol.layer if keys else "tokens"
