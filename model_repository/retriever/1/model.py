"""The retriever, as Triton's Python backend loads it.

The code is that of the xt installed where the model is served, so a model outlives the release that exported it.
"""

from xt.core.served_retriever import ServedRetriever as TritonPythonModel

__all__ = ["TritonPythonModel"]
