"""This project's embeddings inside other libraries.

``import clever_hub.integrations`` registers the LanceDB embedding function where LanceDB is
installed: a table that was made with it, opened again by another program, needs that import and
says its name. ``clever_hub.integrations.sentence_transformers`` is imported by its name.
"""

from importlib.util import find_spec

if find_spec("lancedb") is not None:
    from clever_hub.integrations import lancedb as lancedb
