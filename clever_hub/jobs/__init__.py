"""What the two parts of the embedding are for: embeddings in, answers out, on numpy alone."""
