"""The module that is trained: backbone, split, heads and losses."""
