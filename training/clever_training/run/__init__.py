"""A pre-training run from its first step to its last: loop, state, records."""
