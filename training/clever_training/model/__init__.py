"""What is trained: backbone, split, heads and losses, put together."""
