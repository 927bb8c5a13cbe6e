"""A calibrator turns similarities into probabilities as its formula says, and survives JSON."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from scipy.special import softmax

from xt.calibration.apply.maps import MAPS, Beta, Histogram, Isotonic, Platt, margin_features, near
from xt.calibration.apply.retrieval import Rescaled, RetrievalMargin, RetrievalTemperature, read_calibrator
from xt.core.errors import XtError

SCORES = np.random.default_rng(0).normal(0.8, 0.05, (50, 7))


def test_probabilities_are_the_softmax_with_none_of_these_last():
    found = RetrievalTemperature(0.02, 0.75)(SCORES)
    expected = softmax(np.column_stack([SCORES, np.full(50, 0.75)]) / 0.02, axis=1)
    assert found.shape == (50, 8)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize(("temperature", "none"), [(1.0, 0.0), (0.01, 0.9), (1e-4, -math.inf), (50.0, -1.0)])
def test_probabilities_sum_to_one(temperature, none):
    found = RetrievalTemperature(temperature, none)(SCORES)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-12)
    assert (found >= 0).all()


def test_the_values_are_those_worked_out_by_hand():
    # exp(0.6 / 0.2) = e^3, exp(0.4 / 0.2) = e^2, exp(0.2 / 0.2) = e
    total = math.e**3 + math.e**2 + math.e
    found = RetrievalTemperature(0.2, 0.2)(np.array([[0.6, 0.4]]))
    assert found[0].tolist() == pytest.approx([math.e**3 / total, math.e**2 / total, math.e / total])


def test_without_a_none_score_none_of_these_has_no_mass():
    assert (RetrievalTemperature(0.05)(SCORES)[:, -1] == 0).all()


def test_a_lower_temperature_is_more_confident_and_keeps_the_order():
    hot, cold = (RetrievalTemperature(t)(SCORES) for t in (0.1, 0.01))
    assert (cold.max(1) > hot.max(1)).all()
    assert (np.argsort(hot[:, :-1]) == np.argsort(SCORES)).all()


def test_float32_scores_at_a_tiny_temperature_do_not_overflow():
    found = RetrievalTemperature(1e-5, 0.1)(np.array([[1.0, 0.999], [-1.0, -1.0]], np.float32))
    assert np.isfinite(found).all()
    assert found[1].tolist() == [0.0, 0.0, 1.0]


def test_the_input_is_not_modified():
    scores = SCORES.copy()
    RetrievalTemperature(0.02, 0.7)(scores)
    assert (scores == SCORES).all()


@pytest.mark.parametrize("none", [0.83, -1.0, -math.inf])
def test_json_round_trip_keeps_temperature_and_none_score(none):
    one = RetrievalTemperature(0.0123456789, none)
    text = json.dumps(one.to_json(), allow_nan=False)
    assert RetrievalTemperature.from_json(json.loads(text)) == one


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(XtError, match="must be positive"):
        RetrievalTemperature(temperature)


def test_another_kind_of_calibrator_is_refused():
    with pytest.raises(XtError, match="Unknown calibrator 'platt'"):
        RetrievalTemperature.from_json({"kind": "platt", "temperature": 1})


PLATT = Platt(-0.4, (0.9, 0.3, 0.8, 1.1), (0.5, 0.8, 0.02, 0.06), (2.0, 0.05, 0.02, 0.03))
MAPPED = (
    PLATT,
    Beta(0.8, 1.3, -0.2),
    Isotonic((0.1, 0.5, 0.9), (0.0, 0.4, 0.8)),
    Histogram((0.3, 0.7), (0.1, 0.5, 0.6)),
)
BASES = (RetrievalTemperature(0.02, 0.8), RetrievalTemperature(0.05), RetrievalMargin(0.02, 0.03))
CALIBRATORS = [*BASES, *(Rescaled(base, one) for base in BASES for one in MAPPED)]


def named(calibrator):
    value = calibrator.to_json()
    inner = value.get("base", value)
    none = "-none" if inner.get("none_score") is not None else ""
    return f"{inner['kind']}{none}{'-' + value['map']['kind'] if 'map' in value else ''}"


def test_every_kind_of_calibrator_and_map_is_among_those_tested_here():
    assert {type(m) for m in MAPPED} == set(MAPS.values())
    assert len({named(c) for c in CALIBRATORS}) == len(CALIBRATORS) == 3 * 5
    assert all(read_calibrator(json.loads(json.dumps(c.to_json()))) == c for c in CALIBRATORS)


def rows_with(kind, k, n=40):
    """Similarities (n, k): all different, with ties, or with candidates that are absent."""
    random = np.random.default_rng(k)
    scores = random.normal(0.8, 0.03, (n, k))
    if kind == "ties":
        scores = np.round(scores, 2)
        scores[:10] = scores[:10, :1]  # all equal
    if kind in ("-inf", "nan"):
        scores[random.random((n, k)) < 0.4] = -np.inf if kind == "-inf" else np.nan
        scores[0] = -np.inf if kind == "-inf" else np.nan
    return scores


@pytest.mark.parametrize("calibrator", CALIBRATORS, ids=named)
@pytest.mark.parametrize("kind", ["different", "ties", "-inf", "nan"])
def test_each_candidate_keeps_its_probability_in_any_order(calibrator, kind):
    random = np.random.default_rng(1)
    for k in (1, 2, 3, 4, 10, 11, 12, 100):
        scores = rows_with(kind, k)
        sorted_ = -np.sort(-np.where(np.isnan(scores), -np.inf, scores), axis=1)
        found, best_first = calibrator(scores), calibrator(sorted_)
        np.testing.assert_allclose(found.sum(1), 1, atol=1e-9)
        assert (found >= 0).all() and (found[:, :-1][~np.isfinite(scores)] == 0).all()
        np.testing.assert_array_equal(found[:, -1], best_first[:, -1])
        for row in range(len(scores)):  # the same similarity has the same probability
            expected = dict(zip(sorted_[row], best_first[row, :-1], strict=True))
            there = np.isfinite(scores[row])
            assert found[row, :-1][there].tolist() == [expected[s] for s in scores[row][there]]
        for _ in range(3):
            order = random.permuted(np.tile(np.arange(k), (len(scores), 1)), axis=1)
            again = calibrator(np.take_along_axis(scores, order, 1))
            np.testing.assert_array_equal(again[:, :-1], np.take_along_axis(found[:, :-1], order, 1))
            np.testing.assert_array_equal(again[:, -1], found[:, -1])


def test_four_documents_have_the_probabilities_worked_out_by_hand_in_all_24_orders():
    # T = .1, margin .05: none's score is the mean of .5, .4 and .3, and .05; the best one's share is
    # sigmoid(ln 4) = .8, and the others keep their proportions.
    calibrator = Rescaled(RetrievalMargin(0.1, 0.05), Beta(0.0, 0.0, math.log(4)))
    scores = np.array([0.6, 0.5, 0.4, 0.3])
    odds = np.exp(np.array([0.6, 0.5, 0.4, 0.3, 0.45]) / 0.1)
    plain = odds / odds.sum()
    expected = np.append(0.8, plain[1:] * 0.2 / (1 - plain[0]))
    for order in itertools.permutations(range(4)):
        found = calibrator(scores[list(order)][None])[0]
        np.testing.assert_allclose(found, expected[[*order, 4]], rtol=1e-12)


def test_two_best_candidates_of_one_similarity_share_what_the_map_gives():
    even = Rescaled(RetrievalTemperature(0.1), Histogram((0.25,), (0.1, 0.9)))
    p = even(np.array([[0.7, 0.2, 0.7]]))[0]
    assert p[:3].tolist() == [0.5, 0.0, 0.5]  # .9 each would be more than there is
    low = Rescaled(RetrievalTemperature(0.1), Histogram((0.25,), (0.1, 0.2)))
    p = low(np.array([[0.7, 0.2, 0.7]]))[0]
    assert p[[0, 2]].tolist() == [0.2, 0.2] and p[3] == pytest.approx(0.6 - p[1])


def test_the_margin_features_are_of_the_best_candidates_wherever_they_stand():
    scores = np.array([[0.2, 0.9, 0.5], [-np.inf, 0.3, np.nan]])
    np.testing.assert_allclose(near(scores), [0.35, 0.3])
    np.testing.assert_allclose(margin_features(np.array([0.5, 0.5]), scores)[0, 1:], [0.9, 0.4, 0.55])
    np.testing.assert_allclose(margin_features(np.array([0.5, 0.5]), scores)[1, 1:], [0.3, 0, 0], atol=1e-12)


@pytest.mark.parametrize("calibrator", CALIBRATORS, ids=named)
def test_without_a_candidate_all_the_mass_is_that_of_none_of_these(calibrator):
    assert calibrator(np.zeros((2, 0))).tolist() == [[1.0], [1.0]]
    assert calibrator(np.full((1, 3), -np.inf)).tolist() == [[0, 0, 0, 1]]
    assert calibrator(np.zeros((0, 3))).shape == (0, 4)


@pytest.mark.parametrize(("scores", "says"), [([0.5, 0.4], "have shape"), ([[0.5, np.inf]], "infinite")])
def test_what_is_no_row_of_similarities_a_query_is_refused(scores, says):
    with pytest.raises(XtError, match=says):
        PLATT_OVER_MARGIN(np.array(scores))


PLATT_OVER_MARGIN = Rescaled(BASES[2], PLATT)
