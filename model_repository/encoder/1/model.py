"""The encoder, as Triton's Python backend loads it.

The code is that of the xt installed where the model is served, so a model outlives the release that exported it.
"""

from xt.core.served_encoder import ServedEncoder as TritonPythonModel

__all__ = ["TritonPythonModel"]
