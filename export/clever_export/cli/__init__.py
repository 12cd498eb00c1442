"""The verbs of packaging; each module imports light things only."""
