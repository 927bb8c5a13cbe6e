"""The address by which the model.py of exported models knows `xt.serve.runtime.retriever`."""

from xt.serve.runtime.retriever import ServedRetriever

__all__ = ["ServedRetriever"]
