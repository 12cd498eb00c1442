"""From a published checkpoint to a model folder: reading, recognising, renaming, checking."""
