"""What computes: torch, ONNX Runtime, and what they share."""
