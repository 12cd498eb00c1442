"""Duplicates, relations, orientation, search, leaks: answers from embeddings, with numpy only."""
