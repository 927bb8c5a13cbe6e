"""Predictions of known calibration, for tests of what is fitted to them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.special import softmax

from xt.calibration.predictions import Predictions, searched
from xt.eval.retrieval.ranking import fold_of


def drawn(n: int, temperature: float, none: float, *, k: int = 20, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and gold answers drawn by the very model: P(j) = softmax over k candidates and "none of these"."""
    rng = np.random.default_rng(seed)
    scores = -np.sort(-rng.normal(0.8, 0.03, (n, k)), axis=1)
    p = softmax(np.column_stack([scores, np.full(n, none)]) / temperature, axis=1)
    gold = (rng.random((n, 1)) > p.cumsum(1)).sum(1).clip(max=k)
    return scores, np.where(gold == k, -1, gold)


def search(scores, rows, gold, folds, candidates: int) -> Predictions:
    """A search whose queries are `sentence 0` and so on, as in every other language."""
    ids = [f"sentence {i}" for i in range(len(gold))]
    return searched(scores, np.asarray(gold), fold=folds, group=rows, candidates=candidates, ids=ids)


def ranking(n: int, temperature: float, *, none: float = 0.8, seed: int = 0) -> Predictions:
    """A language whose English sentences are `sentence 0` to `sentence n - 1`, as in every other language.

    Document i answers query i; the other candidates of every query are the first documents, so that errors collide.
    """
    scores, gold = drawn(n, temperature, none, seed=seed)
    folds = np.array([fold_of(f"sentence {i}") for i in range(n)])
    rows = np.array([[j for j in range(21) if j != i][:20] for i in range(n)])
    known = gold >= 0
    rows[known, gold[known]] = np.flatnonzero(known)
    return search(scores.astype(np.float32), rows, gold, folds, n)


def with_gold(one: Predictions, gold: np.ndarray) -> Predictions:
    """The same search with other right answers."""
    return replace(one, gold=gold, correct=(gold == 0).astype(float))
