"""What a folder of shards was made with: the same command goes on, another is refused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

import clever_hub
from clever_hub.config import ModelConfig
from clever_hub.errors import DataError
from clever_hub.hub.source import Source
from clever_hub.images.options import LoadKeywords, LoadOptions, rgb_of

FORMAT = 1
# Where a model came from does not change its vectors; its config is compared by ``run.json`` alone.
_MAY_DIFFER = ("source", "revision", "config")


@dataclass(frozen=True)
class Made:
    """By which model and with which options vectors are made.

    Attributes:
        model: The model's name.
        weights_sha256: Hash of its weights file.
        backend: ``onnx`` or ``torch``: they agree, but not to the last bit.
        precision: ``float32`` or ``int8``.
        normalized: Whether each part has unit length.
        batch_size: Images in a pass, which moves the last bits of a vector.
        decode: As in ``LoadOptions``.
        color_management: As in ``LoadOptions``.
        background: As in ``LoadOptions``; empty for None.
        source: Where the model came from, such as ``hub:user/name``; may differ.
        revision: The commit, for a model from the Hub; may differ.
        config: ``ModelConfig.fingerprint``: its split, its input and so on. Empty in a folder that
            clever-hub 0.2.0 made: unknown.
    """

    model: str
    weights_sha256: str
    backend: str
    precision: str = "float32"
    normalized: bool = False
    batch_size: int = 32
    decode: str = "exact"
    color_management: bool = False
    background: str = ""
    source: str = ""
    revision: str = ""
    config: str = ""

    @classmethod
    def of(  # one for each field
        cls,
        config: ModelConfig,
        source: Source | None,
        *,
        backend: str,
        precision: str = "float32",
        normalized: bool = False,
        batch_size: int = 32,
        load: LoadOptions | None = None,
    ) -> Self:
        """The entry for a loaded model.

        Args:
            config: The model's.
            source: The model's.
            backend: Which one runs it.
            precision: ``float32`` or ``int8``.
            normalized: Whether unit vectors are written.
            batch_size: Images in a pass.
            load: How images are opened.
        """
        load = load or LoadOptions()
        return cls(
            config.name,
            (source.weights_sha256 if source else None) or "",
            backend,
            precision,
            normalized,
            batch_size,
            load.decode,
            load.color_management,
            _color(load.background),
            f"{source.kind}:{source.name}" if source else "",
            (source.revision if source else None) or "",
            config.fingerprint(),
        )

    @classmethod
    def from_dict(cls, entry: dict[str, Any], where: str) -> Self:
        """Read what ``asdict`` gave.

        Raises:
            DataError: When keys are missing or unknown: another version wrote it.
        """
        names = {one.name for one in fields(cls)}
        if entry.keys() not in (names, names - {"config"}):
            raise DataError(
                f"{where}: expected the keys {sorted(names)}, got {sorted(entry)}: another version "
                "of clever-hub wrote it. Name another output"
            )
        return cls(**entry)

    def differences(self, wanted: Made) -> list[str]:
        """What differs from what is wanted now, in words; the place of the model does not matter.

        Example:
            >>> a = Made("m", "1", "onnx")
            >>> a.differences(Made("m", "1", "onnx", decode="reduced"))
            ["decode: 'exact' there, 'reduced' now"]
        """
        names = [one.name for one in fields(self) if one.name not in _MAY_DIFFER]
        found = [
            f"{name}: {getattr(self, name)!r} there, {getattr(wanted, name)!r} now"
            for name in names
            if getattr(self, name) != getattr(wanted, name)
        ]
        if "" not in (self.config, wanted.config) and self.config != wanted.config:
            found.append("config: the model had another split, or another input")
        return found

    def fingerprint(self) -> str:
        """A short hash of all that vectors depend on."""
        kept = {k: v for k, v in asdict(self).items() if k not in (*_MAY_DIFFER, "model")}
        return hashlib.blake2b(json.dumps(kept).encode(), digest_size=16).hexdigest()

    def metadata(self) -> dict[str, str]:
        """For the schema of files with vectors."""
        words = {
            "model": self.model,
            "source": self.source,
            "revision": self.revision,
            "weights_sha256": self.weights_sha256,
            "config": self.config,
            "version": clever_hub.__version__,
            "normalized": str(self.normalized).lower(),
            "backend": self.backend,
            "precision": self.precision,
            "decode": self.decode,
            "color_management": str(self.color_management).lower(),
            "background": self.background,
        }
        # File names on Linux need not be text; the schema's metadata is.
        return {f"clever_hub.{key}": _text(value) for key, value in words.items()}

    def load_keywords(self) -> LoadKeywords:
        """How images are opened, as keywords of ``encode_batches``."""
        return {
            "decode": "reduced" if self.decode == "reduced" else "exact",
            "color_management": self.color_management,
            "background": self.background or None,
        }


@dataclass(frozen=True)
class Run:
    """The content of a folder's ``run.json``.

    Attributes:
        made: By what its vectors are made.
        inputs: What was given, in order; after an update also what was given before, where rows of
            it stay.
        image_column: The image column of tables, if it was named.
        shard_size: Images in a shard.
        shards: How many there are when all is done.
        images: Images in all, those included that cannot be read.
        folders: The working folders at which relative names begin; empty where there are none, or
            an older version wrote it.
    """

    made: Made
    inputs: list[str]
    image_column: str | None
    shard_size: int
    shards: int
    images: int
    folders: list[str] = field(default_factory=list)

    def to_json(self) -> bytes:
        """Ready to be written."""
        return (json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n").encode()

    @classmethod
    def from_json(cls, content: bytes, where: str) -> Self:
        """Read what ``to_json`` gave.

        Args:
            content: The file.
            where: Names it in errors.

        Raises:
            DataError: When it is damaged, or another version wrote it.
        """
        try:
            entry = json.loads(content)
            version = entry.pop("format")
            made = Made.from_dict(entry.pop("made"), where)
            found = cls(made=made, **entry)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"{where}: damaged ({error!r}). Name another output") from error
        if version != FORMAT:
            raise DataError(f"{where}: of format {version}, this version writes {FORMAT}")
        return found


def _text(value: str) -> str:
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _color(background: str | tuple[int, int, int] | None) -> str:
    """A background as text that is one, too; empty for None."""
    if background is None or isinstance(background, str):
        return background or ""
    return "#{:02x}{:02x}{:02x}".format(*rgb_of(background))
