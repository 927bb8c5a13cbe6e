"""Conformal sets against crepes and numbers by hand; what they promise and where they cannot."""

from __future__ import annotations

import math

import numpy as np
import pytest
from crepes import ConformalClassifier
from scipy.special import softmax

from tests.calibration.cases import search, with_gold
from xt.calibration import conformal
from xt.calibration.accuracy import PredictedTemperature
from xt.calibration.apply.estimate import AccuracyEstimate
from xt.calibration.apply.retrieval import RetrievalTemperature
from xt.calibration.conformal import sets, threshold
from xt.core.errors import XtError
from xt.eval.retrieval.ranking import fold_of


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.25])
@pytest.mark.parametrize("n", [20, 41, 333])
def test_sets_are_those_of_crepes(n, alpha):
    """Where (n + 1) alpha is no whole number: there crepes takes one candidate more, and both keep the promise."""
    rng = np.random.default_rng(n)
    calibration = rng.random(n)
    probabilities = softmax(rng.normal(size=(50, 8)) * 2, axis=1)
    limit = threshold(calibration, alpha)
    reference = ConformalClassifier().fit(calibration)
    expected = reference.predict_set(1 - probabilities, confidence=1 - alpha, smoothing=False).astype(bool)
    gold = rng.integers(0, 8, 50)
    held, sizes = sets(probabilities, gold, limit)
    np.testing.assert_array_equal(sizes, expected.sum(1))
    np.testing.assert_array_equal(held, expected[np.arange(50), gold])


def test_too_few_for_the_promise_make_sets_of_everything():
    assert threshold(np.array([0.1] * 8), 0.1) == math.inf
    assert threshold(np.array([0.1] * 9), 0.1) == 0.1
    held, sizes = sets(np.array([[0.7, 0.3], [0.6, 0.4]]), np.array([1, -1]), math.inf)
    assert (held.tolist(), sizes.tolist()) == ([True, False], [2, 2])
    with pytest.raises(XtError, match="between 0 and 1"):
        threshold(np.array([0.1]), 1.0)
    with pytest.raises(XtError, match="NaN"):
        threshold(np.array([0.1, np.nan]), 0.1)


def language(n, temperature, seed):
    rng = np.random.default_rng(seed)
    scores = -np.sort(-rng.normal(0.8, 0.03, (n, 20)), axis=1)
    p = softmax(scores / temperature, axis=1)
    gold = (rng.random((n, 1)) > p.cumsum(1)).sum(1).clip(max=19)
    folds = np.array([fold_of(f"sentence {i}") for i in range(n)])
    return search(scores.astype(np.float32), np.tile(np.arange(20), (n, 1)), gold, folds, 20)


def test_a_language_keeps_its_own_promise_and_borrowed_thresholds_need_not():
    rankings = {"deu": language(3000, 0.01, 0), "swh": language(3000, 0.05, 1)}
    found = conformal.measure(rankings, ["deu"])["scopes"]
    for row in found["per-language"]["languages"].values():
        assert row["coverage"] == pytest.approx(0.9, abs=0.025)
        assert row["coverage_ci"][0] < row["coverage"] < row["coverage_ci"][1]
    assert found["zero-shot"]["languages"]["swh"]["coverage"] < 0.8
    own = found["per-language"]["languages"]
    assert own["swh"]["mean_size"] > own["deu"]["mean_size"] > 0


def certain(temperature):
    return PredictedTemperature(RetrievalTemperature(temperature), temperature, temperature)


def test_an_uncertain_accuracy_makes_larger_sets_and_an_unknown_one_none():
    rankings = {"swh": language(3000, 0.01, 1)}
    sure, unsure = certain(0.01), PredictedTemperature(RetrievalTemperature(0.01), 0.008, 0.03)

    def size(one):
        found = conformal.measure(rankings, [], predicted=lambda code, fold: one)
        return found["scopes"]["predicted"]["overall"]["mean_size"]

    assert size(unsure) > 1.2 * size(sure)

    def unknown(code, fold):
        AccuracyEstimate.refuse("30 queries for 600 documents").check()

    found = conformal.measure(rankings, [], predicted=unknown)
    assert "predicted" not in found["scopes"]
    assert found["notes"] == ["sets, predicted: swh: accuracy unknown: 30 queries for 600 documents"]


def test_answers_sampled_from_the_right_temperature_keep_the_promise_without_a_label():
    rankings = {"deu": language(3000, 0.01, 0), "swh": language(3000, 0.05, 1)}
    known = {"deu": certain(0.01), "swh": certain(0.05)}
    found = conformal.measure(rankings, ["deu"], predicted=lambda code, fold: known[code])["scopes"]["predicted"]
    own = conformal.measure(rankings, ["deu"])["scopes"]["per-language"]["languages"]
    for code, row in found["languages"].items():
        assert row["coverage"] == pytest.approx(0.9, abs=0.025)
        assert row["mean_size"] == pytest.approx(own[code]["mean_size"], rel=0.1)
    blind = {"swh": with_gold(rankings["swh"], np.full(3000, 7))}
    again = conformal.measure(blind, [], predicted=lambda code, fold: known[code])["scopes"]["predicted"]
    assert again["languages"]["swh"]["mean_size"] == found["languages"]["swh"]["mean_size"]


def test_a_query_has_no_part_in_its_own_threshold():
    one = language(400, 0.02, 0)
    before = conformal.measure({"deu": one}, [])["scopes"]["per-language"]["languages"]["deu"]
    spoilt = with_gold(one, np.where(one.fold == 0, 19, one.gold))
    after = conformal.measure({"deu": spoilt}, [])["scopes"]["per-language"]["languages"]["deu"]
    lost = (one.fold == 0).mean()
    assert after["coverage"] < before["coverage"] - lost / 2  # fold 0's sets did not grow to hold its spoilt answers


def test_few_queries_are_left_out():
    assert conformal.measure({"deu": language(40, 0.02, 0)}, ["deu"])["scopes"] == {}
