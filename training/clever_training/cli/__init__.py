"""The verbs of training; each module imports light things only."""
