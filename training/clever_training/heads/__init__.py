"""Heads for a model whose weights stay as they are: fitted on embeddings of views, calibrated."""
