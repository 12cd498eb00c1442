"""Where photos come from, and in which order."""
