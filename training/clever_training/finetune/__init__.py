"""Supervised fine-tuning of a model, with a linear head on the whole embedding or on one part.

It uses transformers' Trainer, which brings mixed precision, several GPUs through ``accelerate
launch``, and checkpoints, and which is better maintained than a loop of our own would be.
"""
