"""Processes, precision and memory of the machine that trains."""
