"""Recipes: a run in YAML, typed and validated."""
