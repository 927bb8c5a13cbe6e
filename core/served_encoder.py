"""The address by which the model.py of exported models knows `xt.serve.runtime.encoder`."""

from xt.serve.runtime.encoder import ServedEncoder

__all__ = ["ServedEncoder"]
