"""A LanceDB embedding function: one part of the embedding into one vector column.

Register one configuration a column. LanceDB fills a single vector column for each source field:
with two functions on one ``SourceField`` the second column silently stays null, so for both parts
let the table have the path twice.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

from lancedb.embeddings import EmbeddingFunction, register
from pydantic import Field

import clever_hub
from clever_hub.jobs.default import default_model

_load: Any = lru_cache(maxsize=4)(clever_hub.from_pretrained)


# The name is what LanceDB says it lacks, and what has to be imported.
@register("clever_hub.integrations")
class CleverEmbeddings(EmbeddingFunction):
    """Embeds images: paths, bytes or PIL images.

    Attributes:
        name: The model; where none is named, the one that ``clever_hub.jobs.default`` recommends.
            The table remembers it: another default of a later version does not change the table's.
        part: Which part of the embedding.
        backend: As for ``clever_hub.from_pretrained``.

    Example:
        >>> from lancedb.embeddings import get_registry  # doctest: +SKIP
        >>> clever = get_registry().get("clever_hub.integrations").create()  # doctest: +SKIP
    """

    name: str = Field(default_factory=default_model)
    part: Literal["invariant", "equivariant", "full"] = "invariant"
    backend: str = "torch"
    max_retries: int = 0  # a photo that cannot be read will not get better

    @classmethod
    def create(cls, **options: Any) -> CleverEmbeddings:
        """An embedding function; LanceDB stores the options that are given here with the table."""
        made: CleverEmbeddings = super().create(**{"name": default_model(), **options})
        return made

    def ndims(self) -> int:
        """The length of the vectors."""
        config = _load(self.name, backend=self.backend).config
        widths = {"invariant": config.invariant_dim, "equivariant": config.equivariant_dim}
        return int(widths.get(self.part, config.num_features))

    def compute_source_embeddings(self, images: Any, *_: Any, **__: Any) -> list[Any]:
        """A vector for each image."""
        embeddings = _load(self.name, backend=self.backend).encode(self.sanitize_input(images))
        return list(getattr(embeddings, self.part))

    def compute_query_embeddings(self, query: Any, *_: Any, **__: Any) -> list[Any]:
        """The vector of one image."""
        return self.compute_source_embeddings([query])
