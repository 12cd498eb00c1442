"""The folder of a run: recipe, metrics, state and model. One run uses it at a time."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clever_hub.config import CONFIG_NAME, ModelConfig
from clever_hub.errors import ConfigError, ModelFormatError, TrainingError
from clever_hub.files import write_json, write_text
from clever_hub.hub.shipped import model_names
from clever_hub.jobs.heads import HEADS_KEY, HEADS_NAME
from clever_hub.weights import WEIGHTS_NAME
from clever_training.data.sources import public_name
from clever_training.recipe.schema import Recipe
from clever_training.run.checkpoint import STATE_NAME, read_counters
from clever_training.runtime.folders import hold, is_log

# Settings that may change when a run is resumed.
_FREE = ("max_steps", "save_minutes", "log_steps", "num_workers", "knn_every_epochs", "knn_photos")
_WRITTEN = (STATE_NAME, "metrics.jsonl", "recipe.json", CONFIG_NAME, WEIGHTS_NAME, HEADS_NAME)
# A partial file that a killed process left of one of a run's own (``files.atomic_path``).
_PARTIAL = re.compile(
    rf"\.({'|'.join(Path(name).stem for name in _WRITTEN)})\.[0-9a-f]{{8}}\.tmp(\.\w+)?"
)
_WORDS = ("name", "data_name", "data_terms")
_LOG = logging.getLogger(__name__)


class RunFolder:
    """Paths and small files of a run.

    Args:
        path: The folder; created when missing.

    Raises:
        TrainingError: When the folder cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = path / STATE_NAME
        self.model = path / "model"
        self.metrics = path / "metrics.jsonl"
        self.recipe = path / "recipe.json"
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(
                f"{path}: expected a run folder, or a path where one can be created ({error}). "
                "Give another --output"
            ) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder; the operating system releases the lock when the process ends.

        Raises:
            TrainingError: When another process has locked it, it cannot be written to, or it holds
                files and no run; then none is touched.
        """
        self._check_ours()
        with _writing(self.path / ".lock"):
            lock = (self.path / ".lock").open("w")
        with lock as file:
            hold(file, self.path)
            for path in (self.path, self.model):
                for stale in filter(_is_partial, path.glob(".*.tmp*")):
                    stale.unlink()
            yield

    def _check_ours(self) -> None:
        """Refuse a folder of somebody's files, of which some may have the names of ours."""
        if self.state.exists() or self._holds_recipe():
            return
        # A run that was killed at its beginning, or that begins just now, has written these.
        found = sorted(self.path.iterdir())
        others = [path.name for path in found if not (_is_partial(path) or is_log(path))]
        if others:
            raise TrainingError(
                f"{self.path}: expected a new folder, an empty one or one of a run, got other "
                f"files: {', '.join(others[:5])}{' …' if len(others) > 5 else ''}. Give another "
                "--output"
            )

    def _holds_recipe(self) -> bool:
        """Whether there is a recipe of ours, as a run has from its beginning on."""
        try:
            self._begun()
        except TrainingError:
            return False
        return True

    def _begun(self) -> dict[str, Any]:
        """What recipe.json says of the run.

        Raises:
            TrainingError: When it cannot be read, or is none of ours.
        """
        try:
            found = json.loads(self.recipe.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = None
        if not (isinstance(found, dict) and {"recipe", "data", "photos"} <= found.keys()):
            raise TrainingError(
                f"{self.recipe}: expected the recipe of the run in this folder, got another file, "
                "or a damaged one. Restore it, or give another --output"
            )
        return found

    def earlier_recipe(self) -> Recipe | None:
        """The recipe of the run that is in the folder; None where none has begun."""
        if not (self.state.exists() and self.recipe.exists()):
            return None
        found = self._begun()
        return Recipe.parse(found["recipe"], str(self.recipe))

    def claim(
        self, recipe: Recipe, data: str, photos: int, image_column: str | None = None
    ) -> None:
        """Write the resolved recipe, or check that the folder belongs to this run.

        Args:
            recipe: The recipe.
            data: Where the photos come from.
            photos: How many there are.
            image_column: The column that holds them.

        Raises:
            TrainingError: When the folder holds a run of another recipe or data set (the error
                names the keys that differ), holds a state without its recipe, or cannot be written
                to.
        """
        wanted = {"recipe": recipe.model_dump(mode="json"), "data": data, "photos": photos}
        wanted |= {"image_column": image_column}
        if self.state.exists():
            if not self.recipe.exists():
                raise TrainingError(
                    f"{self.state}: a state without the {self.recipe.name} of its run. Restore it, "
                    "move the state away, or give another --output"
                )
            found = self._begun()
            # Keys that recipes did not have when the run was started get their defaults.
            found["recipe"] = Recipe.parse(found["recipe"], str(self.recipe)).model_dump(
                mode="json"
            )
            differing = sorted(_differences(_fixed(found), _fixed(wanted)))
            if found["photos"] != photos:
                raise TrainingError(
                    f"{self.path}: the run began with {found['photos']:,} photos, {data} has "
                    f"{photos:,} now, and their order depends on their number. Bring back the "
                    "photos that it began with; or give another --output and go on from its "
                    f"weights: --set backbone.init={self.model}"
                )
            if differing:
                raise TrainingError(
                    f"{self.path}: holds a run with other settings: {', '.join(differing)}. "
                    "Give the settings that it was started with; or give another --output, and to "
                    f"go on from its weights: --set backbone.init={self.model}"
                )
            began, now = public_name(str(found["data"])), public_name(data)
            # An earlier version did not record the column; photos elsewhere have their own.
            column = found.get("image_column") or image_column
            if began == now and column != image_column:
                raise TrainingError(
                    f"{self.path}: the run began with the photos of the column {column!r}, these "
                    f"are those of {image_column!r}. Give --image-column {column}, or another "
                    "--output"
                )
            if began != now:  # the photos may have been moved
                _LOG.warning(
                    "%s: the run began with %s and goes on with %s. If these are other photos, "
                    "give another --output",
                    self.path,
                    began,
                    now,
                )
        with _writing(self.recipe):
            write_json(self.recipe, wanted)

    def steps_done(self) -> int:
        """Steps that the last state has behind it; 0 without one."""
        return int(read_counters(self.state)["step"]) if self.state.exists() else 0

    def model_steps(self, *, heads: bool) -> int:
        """Steps that the model in the folder has behind it; 0 where it is not whole.

        Args:
            heads: Whether the run writes heads, too.
        """
        try:
            config = ModelConfig.load(self.model)
        except ModelFormatError:
            return 0
        names = [WEIGHTS_NAME, *([HEADS_NAME] if heads else [])]
        whole = all((self.model / name).is_file() for name in names)
        # The config names heads once those of the same step are there.
        if not whole or (heads and HEADS_KEY not in config.extra):
            return 0
        return int(config.provenance.get("steps", 0))

    def rewind_metrics(self, step: int) -> None:
        """Drop the lines that a run wrote after its last saved state.

        Args:
            step: Steps done when the state was saved.

        Raises:
            TrainingError: When the file holds something else, or cannot be written.
        """
        if not self.metrics.exists():
            return
        lines = self.metrics.read_text(encoding="utf-8").splitlines(keepends=True)
        # A line that was cut off by a kill has no line end; its step is done again.
        try:
            kept = [x for x in lines if x.endswith("\n") and json.loads(x)["step"] <= step]
        except (ValueError, KeyError, TypeError) as error:
            raise TrainingError(
                f"{self.metrics}: expected the metrics of the run in this folder, got another "
                "file, or a damaged one. Restore it, or move it away"
            ) from error
        with _writing(self.metrics):
            write_text(self.metrics, "".join(kept))

    def log(self, values: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl.

        Raises:
            TrainingError: When the file cannot be written; the last state is complete.
        """
        with _writing(self.metrics), self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn an operating system error into one that says what it means for the run."""
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"{path}: cannot be written ({error.strerror or error}). The last state, if there is "
            "one, is whole; make room or fix the permissions, then run the same command again"
        ) from error


def _is_partial(path: Path) -> bool:
    return bool(_PARTIAL.fullmatch(path.name)) and path.is_file() and not path.is_symlink()


def _fixed(content: dict[str, Any]) -> dict[str, Any]:
    """The settings that must stay the same when a run is resumed; the data may have moved."""
    flat = dict(_flatten(content["recipe"]))
    for key in _FREE:
        flat.pop(f"run.{key}", None)
    return {key: value for key, value in flat.items() if key not in _WORDS}


def _flatten(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> set[str]:
    return {key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key)}


def check_name(name: str) -> None:
    """Refuse a run whose model would be called as one that ships: its name would load that one.

    Args:
        name: The name in the recipe.

    Raises:
        ConfigError: When a model of this name ships with clever-hub.
    """
    if name in model_names():
        raise ConfigError(
            f"name: {name!r} is a model that ships with clever-hub, and from_pretrained({name!r}) "
            f"would load that one. Choose another: --set name={name}.mine"
        )
