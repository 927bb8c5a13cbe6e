"""The encoder before a graph of Triton's ONNX Runtime backend, as the Python backend loads it.

The code is that of the xt installed where the model is served, so a model outlives the release that exported it.
"""

from xt.core.served_text import ServedText as TritonPythonModel

__all__ = ["TritonPythonModel"]
