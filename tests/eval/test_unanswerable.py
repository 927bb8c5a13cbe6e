"""Queries without an answer: the ranking without its right candidate by brute force, thresholds by hand, leaks."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from xt.core.bitext import Bitext
from xt.core.calibrators import RetrievalMargin, read_calibrator
from xt.eval import unanswerable
from xt.eval.retrieval import DIRECTIONS, Encodings, Ranking, rank
from xt.eval.unanswerable import loses_answer, take_out, threshold_at_risk


def corpus(n=400, noise=0.8, seed=0):
    rng = np.random.default_rng(seed)
    one = rng.normal(size=(n, 24))
    a, b = one + noise * rng.normal(size=one.shape), one + noise * rng.normal(size=one.shape)
    a, b = ((v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float32) for v in (a, b))
    english = tuple(f"sentence {i}" for i in range(n))
    return Bitext("deu", tuple(f"Satz {i}" for i in range(n)), english), Encodings(a, b, 0, 0)


def test_taking_an_answer_out_is_searching_an_index_without_it():
    bitext, vectors = corpus(60)
    ranking = rank(bitext, vectors, DIRECTIONS[0], k=10)
    without = np.array([loses_answer(e) for e in bitext.english])
    assert 15 < without.sum() < 45
    found = take_out(ranking, without)
    similarities = vectors.foreign @ vectors.english.T
    for i in range(60):
        row = similarities[i].copy()
        if without[i]:
            row[i] = -np.inf
        order = np.argsort(-row)[:9]
        np.testing.assert_array_equal(found.rows[i], order)
        np.testing.assert_allclose(found.scores[i], row[order], atol=1e-6)
        place = np.flatnonzero(order == i)
        assert found.gold[i] == (place[0] if len(place) else -1)


def test_the_threshold_is_the_least_that_keeps_the_risk():
    confidence = np.array([0.9, 0.8, 0.7, 0.7, 0.6, 0.5])
    correct = np.array([1, 1, 1, 0, 1, 0.0])
    assert threshold_at_risk(confidence, correct, 0.2) == 0.6  # 1 wrong of 5
    assert threshold_at_risk(confidence, correct, 0.1) == 0.8
    assert threshold_at_risk(confidence, correct, 0.25) == 0.6
    assert threshold_at_risk(confidence, np.zeros(6), 0.1) == np.inf
    assert threshold_at_risk(confidence, np.ones(6), 0.0) == 0.5


def test_figures_are_those_of_the_definitions_and_the_risk_is_kept():
    bitext, vectors = corpus(2000, noise=0.6)
    ranking = rank(bitext, vectors, DIRECTIONS[0])
    section, kept = unanswerable.measure({"deu": ranking}, {"deu": bitext.english}, ["deu"], repeats=20)
    row = section["languages"]["deu"]
    without = np.array([loses_answer(e) for e in bitext.english])
    final = read_calibrator(kept)
    assert isinstance(final, RetrievalMargin)
    none = final(take_out(ranking, without).scores)[:, -1]
    assert row["auroc"] == pytest.approx(roc_auc_score(~without, 1 - none), abs=0.01)  # by folds, and of all
    assert row["refusal"]["risk_found"] == pytest.approx(0.1, abs=0.03)
    assert 0.1 < row["refusal"]["coverage"] < 0.6
    assert none[without].mean() > none[~without].mean() + 0.3
    assert row["unanswerable"] == without.mean()


def test_answers_of_a_fold_have_no_part_in_its_figures():
    bitext, vectors = corpus(400)
    ranking = rank(bitext, vectors, DIRECTIONS[0])
    spoilt = Ranking(ranking.scores, ranking.rows, np.where(ranking.folds == 0, 50, ranking.gold), ranking.folds, 400)
    for_all = [unanswerable._fit([take_out(r, np.zeros(400, bool))], 0) for r in (ranking, spoilt)]
    assert for_all[0] == for_all[1]
    assert unanswerable._fit([spoilt], None) != unanswerable._fit([ranking], None)


def test_too_few_queries_and_lone_candidates_give_nothing():
    bitext, vectors = corpus(20)
    ranking = rank(bitext, vectors, DIRECTIONS[0])
    assert unanswerable.measure({"deu": ranking}, {"deu": bitext.english}, ["deu"]) == ({}, {})
    lone = rank(bitext, vectors, DIRECTIONS[0], k=1)
    assert unanswerable.measure({"deu": lone}, {"deu": bitext.english}, []) == ({}, {})
