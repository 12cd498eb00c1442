"""Augmented views of a photo, and the parameters of each."""
