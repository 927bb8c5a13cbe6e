"""The Triton models as committed; `xt export` completes a copy with weights."""
