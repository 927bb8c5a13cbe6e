"""Accuracy and temperature without labels: assignments by brute force, every assumption broken once, real vectors.

Tests `calibration/apply/estimate.py`, `calibration/matching.py` and `calibration/measuring/means.py` as well.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from tests.calibration.cases import search, with_gold
from xt.calibration import accuracy
from xt.calibration.accuracy import estimate_accuracy, predict_temperature, sample_answers
from xt.calibration.apply.estimate import AccuracyEstimate
from xt.calibration.matching import agreement, assign, different_queries
from xt.calibration.predictions import Predictions, searched
from xt.core.errors import XtError


def similarities(queries: int, documents: int, noise: float, seed: int = 0) -> np.ndarray:
    """Noisy copies of one vector each; query i asks for document i where there is one. Some documents are hubs."""
    rng = np.random.default_rng(seed)
    one = rng.normal(size=(max(queries, documents), 32)) + 0.4 * rng.normal(size=32)
    a, b = (one + noise * rng.normal(size=one.shape) for _ in range(2))
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    return a[:queries] @ b[:documents].T


def ranked(s: np.ndarray, gold=None, ids=None, k: int = 100) -> Predictions:
    """The ranking that retrieval makes of similarities; `gold`: the document that each query asks for."""
    rows = np.argsort(-s, axis=1, kind="stable")[:, :k]
    hit = rows == (np.arange(len(s)) if gold is None else np.asarray(gold))[:, None]
    scores = np.take_along_axis(s, rows, 1).astype(np.float32)
    gold = np.where(hit.any(1), hit.argmax(1), -1)
    folds = np.arange(len(s)) % 5
    return searched(scores, gold, fold=folds, group=rows, candidates=s.shape[1], ids=ids)


def test_the_assignment_is_the_best_of_all_permutations():
    s = np.random.default_rng(3).normal(size=(6, 6))
    best = max(itertools.permutations(range(6)), key=lambda p: sum(s[i, j] for i, j in enumerate(p)))
    one = ranked(s)
    assert assign(one.scores.astype(float), one.group, more=False).tolist() == list(best)
    assert agreement(one).share == np.mean(s.argmax(1) == np.array(best))


@pytest.mark.parametrize(("queries", "documents"), [(120, 120), (120, 80)])
def test_the_assignment_is_that_of_scipys_other_solver(queries, documents):
    """A query without a document has -1; of as many documents as queries only the best hundred are known."""
    s = similarities(queries, documents, 0.9)
    one = ranked(s)
    rows, columns = linear_sum_assignment(-s)
    expected = np.full(queries, -1)
    expected[rows] = columns
    found = assign(one.scores.astype(float), one.group, more=documents > 100)
    assert (found != expected).mean() < 0.02
    assert agreement(one).share == pytest.approx((expected == s.argmax(1)).mean(), abs=0.02)


def test_chance_is_what_a_second_assignment_keeps_without_the_pairs_of_the_first():
    s = similarities(90, 90, 0.8)
    found = agreement(ranked(s))
    rows, columns = linear_sum_assignment(-s)
    s[rows, columns] = -3
    again = linear_sum_assignment(-s)[1]
    assert found.chance == pytest.approx((again == s.argmax(1)).mean(), abs=0.02)
    a = found.less_chance()
    assert a + (1 - a) ** 2 * found.chance == pytest.approx(found.share, abs=1e-6)


@pytest.mark.parametrize("noise", [0.4, 0.6, 0.7, 0.8])
def test_no_label_and_no_other_language_is_needed(noise):
    one = ranked(similarities(800, 800, noise))
    right = one.correct.mean()
    found = estimate_accuracy(one)
    assert found.value == pytest.approx(right, abs=0.04)
    assert found.low <= right <= found.high
    assert estimate_accuracy(with_gold(one, np.full(800, 7))) == found


def test_the_temperature_has_that_mean_confidence_and_the_ends_of_the_interval_theirs():
    one = ranked(similarities(800, 800, 0.7))
    found = estimate_accuracy(one)
    predicted = predict_temperature(found, one, -1.0)
    for share, expected in ((0, found.low), (0.5, found.value), (1, found.high)):
        assert predicted.at(share)(one.scores)[:, 0].mean() == pytest.approx(expected, abs=0.01)
    assert predicted.at(0.5) == predicted.calibrator


def test_answers_are_sampled_over_the_interval():
    one = ranked(similarities(800, 800, 0.8))
    predicted = predict_temperature(estimate_accuracy(one), one, -1.0)
    drawn = list(sample_answers(predicted, one.scores, np.random.default_rng(0), 8))
    shares = [float((row == 0).mean()) for row in drawn]
    expected = [float(predicted.at((i + 0.5) / 8)(one.scores)[:, 0].mean()) for i in range(8)]
    assert shares == pytest.approx(expected, abs=0.06)
    assert expected[-1] - expected[0] > 0.05


# --- situations in which the share of different answers is off by .1 to .5 ---


def old(one: Predictions) -> float:
    """The share of different answers, which a line in log odds was drawn through."""
    return len(np.unique(one.group[:, 0])) / min(len(one), one.candidates)


def asked(of: np.ndarray, documents: int = 600) -> Predictions:
    """The ranking of queries that ask for some of the documents, again and again."""
    s = similarities(documents, documents, 0.6)[of]
    return ranked(s, of, ids=[f"sentence {i}" for i in of])


def test_queries_with_replacement_are_counted_once():
    of = np.random.default_rng(1).integers(0, 600, 600)
    one = asked(of)
    right = one.correct.mean()
    assert abs(old(one) - right) > 0.2
    found = estimate_accuracy(one)
    assert found.value == pytest.approx(right, abs=0.06) and found.low <= right <= found.high
    unnamed = ranked(similarities(600, 600, 0.6)[of], of)
    assert estimate_accuracy(unnamed) == found  # the same candidates at the same similarities: the same query
    rounded = replace(
        unnamed, scores=unnamed.scores + np.random.default_rng(0).uniform(-3e-6, 3e-6, unnamed.scores.shape)
    )
    assert estimate_accuracy(rounded).value == pytest.approx(found.value, abs=0.005)
    assert len(different_queries(one)[0]) == len(set(of.tolist()))


def test_queries_by_zipfs_law_are_refused():
    weight = 1 / np.arange(1, 601)
    one = asked(np.random.default_rng(1).choice(600, 600, p=weight / weight.sum()))
    assert abs(old(one) - one.correct.mean()) > 0.4
    assert "different queries (" in (why := estimate_accuracy(one).unknown) and "repeat another" in why
    assert "for 600 documents" in why


def test_few_queries_of_a_large_index_are_refused():
    one = ranked(similarities(600, 600, 0.8)[:50])
    assert abs(old(one) - one.correct.mean()) > 0.09
    assert estimate_accuracy(one).unknown.startswith("50 different queries for 600 documents: most documents answer no")


def test_an_index_that_grew_is_refused_or_corrected():
    s = similarities(600, 600, 0.8)
    grown = ranked(s[:100])
    assert "100 different queries for 600 documents" in estimate_accuracy(grown).unknown
    half = ranked(s[:400])  # half as many documents again
    found = estimate_accuracy(half)
    assert found.low <= half.correct.mean() <= found.high


def test_documents_that_are_there_twice_are_refused():
    s = similarities(400, 400, 0.5)
    one = ranked(np.concatenate([s, s + 1e-4], axis=1))
    assert abs(old(one) - one.correct.mean()) > 0.5
    assert "400 different queries for 800 documents" in (why := estimate_accuracy(one).unknown)
    assert "several times" in why


@pytest.mark.parametrize("answered", [0.5, 0.8])
def test_answers_that_are_not_in_the_index_are_refused(answered):
    one = ranked(similarities(500, int(500 * answered), 0.5))
    why = estimate_accuracy(one).unknown
    assert f"500 different queries for {int(500 * answered)} documents" in why and "have no answer" in why


def replaced(share: float, noise: float = 0.5) -> Predictions:
    """Some answers are taken out, and as many documents that nobody asks for are there."""
    s = similarities(800, 800, noise)[:400]
    of = np.arange(400)
    of[: int(400 * share)] += 400
    return ranked(s[:, of], np.where(of < 400, np.arange(400), -1))


def test_answers_that_others_replaced_are_seen_by_chance_or_refused():
    for share in (0.2, 0.4):
        one = replaced(share)
        found = estimate_accuracy(one)
        assert found.low <= one.correct.mean() <= found.high
        assert found.value == pytest.approx(one.correct.mean(), abs=0.03 if share == 0.2 else 0.06)
        assert abs(found.value - one.correct.mean()) < abs(old(one) - one.correct.mean()) - 0.01
    for share in (0.8, 1.0):
        one = replaced(share)
        assert old(one) - one.correct.mean() > 0.2
        assert "may be chance" in (why := estimate_accuracy(one).unknown) or "lies between" in why


def test_answers_at_random_are_refused():
    one = ranked(np.random.default_rng(0).normal(size=(500, 500)))
    assert old(one) == pytest.approx(0.63, abs=0.04)  # 1 - 1/e
    assert "may be chance" in (why := estimate_accuracy(one).unknown) or "lies between" in why


def test_a_few_queries_and_lone_candidates_are_refused():
    assert "at least 30" in estimate_accuracy(ranked(similarities(29, 29, 0.3))).unknown
    lone = search(np.ones((40, 1)), np.arange(40)[:, None], np.zeros(40, int), np.zeros(40, int), 40)
    assert "two candidates" in estimate_accuracy(lone).unknown
    with pytest.raises(XtError, match="accuracy unknown: 29 different queries"):
        predict_temperature(estimate_accuracy(ranked(similarities(29, 29, 0.3))), lone, 0.0)


def test_the_widest_bracket_that_is_reported_is_a_quarter(monkeypatch):
    one = ranked(similarities(500, 500, 0.85))
    found = agreement(one)
    width = found.distinct_share - found.less_chance()
    monkeypatch.setattr(accuracy, "MAX_WIDTH", width + 1e-6)
    assert not estimate_accuracy(one).unknown
    monkeypatch.setattr(accuracy, "MAX_WIDTH", width - 1e-6)
    assert f"{found.share:.2f}" in estimate_accuracy(one).unknown


def test_what_was_estimated_survives_json():
    for one in (AccuracyEstimate(0.7, 0.6, 0.8), AccuracyEstimate.refuse("too few")):
        assert AccuracyEstimate.from_json(one.to_json()) == one
