"""Recipes: a run in YAML, typed and checked."""
