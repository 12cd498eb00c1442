"""Augmented views of a photo, and what was done to make each."""
