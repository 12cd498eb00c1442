"""Where a model came from."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from clever_hub.errors import ModelFormatError
from clever_hub.hub.pins import changed
from clever_hub.weights import WEIGHTS_NAME


class Source(NamedTuple):
    """Where a model came from.

    Attributes:
        kind: ``"folder"``, ``"zoo"`` (shipped in the package) or ``"hub"``.
        name: What the user asked for; of a model from the Hub, its repository, ``user/name``.
        path: The model folder on this machine.
        revision: The Hub's commit; None elsewhere.
        weights_sha256: Hash of the weights file that was loaded; before that, the hash that it must
            have, or None where that is not known.
    """

    kind: Literal["folder", "zoo", "hub"]
    name: str
    path: Path
    revision: str | None = None
    weights_sha256: str | None = None

    def verified(self, weights_sha256: str) -> Source:
        """The source of weights that were read, if they are those that were expected.

        Args:
            weights_sha256: The hash of what was read.

        Returns:
            The source with this hash.

        Raises:
            ModelFormatError: When another was expected: the file was changed, or the copy in the
                cache is damaged.
        """
        expected, path = self.weights_sha256, self.path / WEIGHTS_NAME
        if expected not in (None, weights_sha256):
            if self.kind == "hub":
                raise ModelFormatError(
                    f"{self.name}: the copy in the cache is damaged: expected SHA-256 {expected}, "
                    f"got {weights_sha256}. Remove {path.resolve()} and load it again"
                )
            if self.kind == "folder":
                raise ModelFormatError(
                    f"{path}: changed since this model was loaded: expected SHA-256 {expected}, "
                    f"got {weights_sha256}. Load it again with clever_hub.from_pretrained"
                )
            raise ModelFormatError(changed(path, str(expected), weights_sha256))
        return self._replace(weights_sha256=weights_sha256)
