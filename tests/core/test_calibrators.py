"""A calibrator turns similarities into probabilities as its formula says, and survives JSON."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.special import softmax

from xt.core.calibrators import RetrievalTemperature
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
