"""Checkpoints into Triton models: ONNX, fused, quantised, parity-tested against PyTorch."""
