"""Nearest neighbours by FAISS: exact, by inner product."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xt.core.encoder.text import Vectors
from xt.core.errors import XtError, require


def top_k(queries: Vectors, corpus: Vectors, k: int) -> tuple[Vectors, npt.NDArray[np.int64]]:
    """Find the `k` rows of `corpus` (m, dim) with the largest inner product with each of `queries` (n, dim).

    Gives scores and row numbers, both (n, min(k, m)), best first.
    """
    require("faiss", extra="cpu", purpose="Vector search")
    import faiss

    if len(corpus) == 0 or len(queries) == 0:
        raise XtError("Nothing to search: the corpus or the queries are empty.")
    if not (np.isfinite(queries).all() and np.isfinite(corpus).all()):
        raise XtError("Vectors hold NaN or infinity.", "The encoder is damaged; check it with `xt check`.")
    index = faiss.IndexFlatIP(corpus.shape[1])
    index.add(np.ascontiguousarray(corpus, np.float32))
    scores, rows = index.search(np.ascontiguousarray(queries, np.float32), min(k, len(corpus)))
    return np.asarray(scores), np.asarray(rows)
