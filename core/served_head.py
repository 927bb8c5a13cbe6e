"""The address by which the model.py of exported models knows `xt.serve.runtime.head`."""

from xt.serve.runtime.head import ServedHead

__all__ = ["ServedHead"]
