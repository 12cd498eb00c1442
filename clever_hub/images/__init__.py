"""From image files to a backbone's input, and through it to embeddings."""
