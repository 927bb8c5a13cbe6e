"""Predictions are put together and taken apart as they are, and both kinds of calibrator read them alike."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax

from xt.calibration.apply.heads import LabelTemperature
from xt.calibration.apply.retrieval import RetrievalTemperature
from xt.calibration.predictions import FOLDS, classified, pool, searched, sizes_by_fold
from xt.calibration.scoring import score
from xt.core.errors import XtError


def search(n: int, k: int, seed: int = 0, language: str = "deu"):
    rng = np.random.default_rng(seed)
    scores = -np.sort(-rng.normal(size=(n, k)), axis=1)
    group = rng.permuted(np.tile(np.arange(k), (n, 1)), axis=1)
    return searched(
        scores, rng.integers(-1, k, n), fold=np.arange(n) % FOLDS, group=group, candidates=k, language=language
    )


def test_a_pool_holds_every_prediction_and_fills_up_with_what_there_is_not():
    long, short = search(6, 5), search(4, 2, 1, "swh")
    both = pool([long, short])
    assert both.language.tolist() == ["deu"] * 6 + ["swh"] * 4
    np.testing.assert_array_equal(both.scores[6:, :2], short.scores)
    assert (both.scores[6:, 2:] == -np.inf).all() and both.group is None
    np.testing.assert_array_equal(both.gold, [*long.gold, *short.gold])
    again = both.take(both.language == "deu")
    np.testing.assert_array_equal(again.scores, long.scores)
    np.testing.assert_array_equal(again.owner, long.owner)
    assert sizes_by_fold([long, short]).tolist() == [3, 2, 2, 2, 1]


def test_an_answer_of_several_choices_keeps_all_its_rows():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5, 3))
    spans = classified(
        logits, logits.argmax(1), ids=["a", "b"], fold=np.array([0, 1]), correct=[1, 0], owner=[0, 0, 0, 1, 1]
    )
    second = spans.take(np.array([1]))
    np.testing.assert_array_equal(second.scores, logits[3:])
    assert (second.owner.tolist(), second.ids.tolist(), second.correct.tolist()) == ([0, 0], ["b"], [0.0])
    expected = np.exp(log_softmax(logits[3:] / 2, axis=1).max(1).sum())
    assert LabelTemperature(2.0)(second) == pytest.approx([expected])


def test_one_temperature_is_the_same_of_a_head_and_of_a_search():
    found = search(40, 6)
    gold = np.maximum(found.gold, 0)
    head = classified(found.scores, np.zeros(40, int), ids=found.ids, fold=found.fold, gold=gold)
    by_head = score(head, dict.fromkeys(range(FOLDS), LabelTemperature(0.3)))
    by_search = score(
        searched(found.scores, gold, fold=found.fold), dict.fromkeys(range(FOLDS), RetrievalTemperature(0.3))
    )
    np.testing.assert_allclose(by_head.confidence, by_search.confidence, rtol=1e-12)
    np.testing.assert_allclose(by_head.nll, by_search.nll, rtol=1e-9)
    np.testing.assert_array_equal(by_head.correct, by_search.correct)
    assert (by_search.none == 0).all() and by_head.none is None


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(XtError, match="3 outcomes, and 2 ids, 3 folds"):
        searched(np.zeros((3, 2)), np.zeros(3, int), fold=np.zeros(3, int), ids=["a", "b"])
    with pytest.raises(XtError, match="logits of answer 1 are not numbers"):
        classified([[0.0, 1], [np.nan, 0]], [0, 0], ids=["a", "b"], fold=np.zeros(2, int), gold=[0, 0])
    with pytest.raises(XtError, match="no logits at all"):
        classified([[-np.inf, -np.inf]], [0], ids=["a"], fold=np.zeros(1, int), gold=[0])
