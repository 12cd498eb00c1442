"""Photos: where they come from, in which order they are seen, and how they are batched."""
