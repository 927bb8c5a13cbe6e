"""What runs inside Triton: xt's own queue and the models that it serves. Neither torch nor transformers."""
