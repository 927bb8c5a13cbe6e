"""FAISS gives what brute force gives."""

from __future__ import annotations

import numpy as np
import pytest

from xt.core.errors import XtError
from xt.core.vectors import top_k


def vectors(n: int, seed: int, dim: int = 24) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


@pytest.mark.parametrize("k", [1, 5, 60])
def test_the_best_rows_are_those_of_brute_force(k):
    queries, corpus = vectors(40, 1), vectors(60, 2)
    scores, rows = top_k(queries, corpus, k)
    all_scores = queries.astype(np.float64) @ corpus.T.astype(np.float64)
    expected = np.argsort(-all_scores, axis=1)[:, :k]
    assert rows.shape == scores.shape == (40, k)
    assert (rows == expected).all()
    np.testing.assert_allclose(scores, np.take_along_axis(all_scores, expected, 1), atol=1e-4)


def test_k_larger_than_the_corpus_gives_every_row_once():
    scores, rows = top_k(vectors(3, 1), vectors(4, 2), 100)
    assert scores.shape == (3, 4)
    assert all(sorted(r) == [0, 1, 2, 3] for r in rows.tolist())


def test_it_is_the_inner_product_and_not_a_distance():
    scores, rows = top_k(np.array([[1.0, 0.0]], np.float32), np.array([[1.0, 0.0], [5.0, 9.0]], np.float32), 2)
    assert rows.tolist() == [[1, 0]]
    assert scores.tolist() == [[5.0, 1.0]]


def test_other_layouts_and_precisions_give_the_same():
    queries, corpus = vectors(4, 1), vectors(9, 2)
    _, expected = top_k(queries, corpus, 3)
    for other in (np.asfortranarray(corpus), corpus.astype(np.float64), np.repeat(corpus, 2, axis=0)[::2]):
        assert (top_k(queries, other, 3)[1] == expected).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_vectors_that_are_not_finite_are_refused(bad, side):
    sides = [vectors(3, 1), vectors(4, 2)]
    sides[side][1, 5] = bad
    with pytest.raises(XtError, match="NaN or infinity"):
        top_k(*sides, 2)


@pytest.mark.parametrize("side", [0, 1])
def test_nothing_to_search_is_refused(side):
    sides = [vectors(3, 1), vectors(4, 2)]
    sides[side] = sides[side][:0]
    with pytest.raises(XtError, match="Nothing to search"):
        top_k(*sides, 2)
