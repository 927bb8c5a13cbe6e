"""Checkpoints into Triton models: ONNX, fused, quantised, proven equal to PyTorch."""
