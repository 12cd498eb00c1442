"""Supervised fine-tuning of a model, with a linear head on the whole embedding or on one part.

On transformers' Trainer: it brings mixed precision, several GPUs through ``accelerate launch`` and
checkpoints, and is kept by more people than a loop of our own would be.
"""
