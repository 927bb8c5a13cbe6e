"""The address by which the model.py of exported models knows `xt.serve.runtime.text`."""

from xt.serve.runtime.text import ServedText

__all__ = ["ServedText"]
