"""How high confidences are: gaps by hand, Cox's slope and intercept as scikit-learn fits them, intervals that cover."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from xt.calibration.measuring import measures
from xt.calibration.measuring.level import EDGE, Cox, cox, gap, gap_deviation
from xt.core.errors import XtError


def outcomes(n: int, slope: float, intercept: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, and outcomes whose log odds are intercept + slope * logit(confidence)."""
    rng = np.random.default_rng(seed)
    confidence = rng.beta(3, 1, n)
    return confidence, (rng.random(n) < expit(intercept + slope * logit(confidence))).astype(float)


def test_the_gap_is_signed_and_that_of_a_calibrated_model_is_chance():
    assert gap(np.array([0.9, 0.8, 0.4]), np.array([1, 0, 0])) == pytest.approx(0.7 - 1 / 3)
    assert gap(np.array([0.1, 0.2]), np.array([1, 1])) == pytest.approx(-0.85)
    assert gap_deviation(np.array([0.9, 0.8, 0.5, 1.0])) == pytest.approx(np.sqrt(0.09 + 0.16 + 0.25) / 4)
    rng = np.random.default_rng(0)
    confidence = rng.beta(3, 1, 300)
    drawn = [gap(confidence, (rng.random(300) < confidence).astype(float)) for _ in range(2000)]
    assert gap_deviation(confidence) == pytest.approx(np.std(drawn), rel=0.06)
    row = measures.measure(confidence, (rng.random(300) < confidence).astype(float), repeats=10)
    assert row["gap_null"] == pytest.approx(np.mean(np.abs(drawn)), rel=0.06)


@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (0.6, 0.3), (1.5, -0.4), (-0.3, 0)])
def test_slope_and_intercept_are_those_of_scikit_learn_without_a_penalty(slope, intercept):
    confidence, correct = outcomes(500, slope, intercept)
    confidence[:2], correct[:2] = [0.0, 1.0], [1, 0]  # kept from the ends
    x = logit(np.clip(confidence, EDGE, 1 - EDGE))
    expected = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(x[:, None], correct)
    found = cox(confidence, correct)
    assert found.slope == pytest.approx(expected.coef_[0, 0], abs=1e-5)
    assert found.intercept == pytest.approx(expected.intercept_[0], abs=1e-5)


def test_calibration_in_the_large_makes_the_mean_confidence_the_accuracy():
    confidence, correct = outcomes(500, 1, -0.7)
    found = cox(confidence, correct).in_the_large
    assert expit(logit(confidence) + found).mean() == pytest.approx(correct.mean(), abs=1e-9)
    assert found == pytest.approx(-0.7, abs=0.25)


def test_the_interval_of_the_slope_covers_it_and_is_wider_where_items_belong_together():
    inside = sum(
        low <= 0.7 <= high for low, high in (cox(*outcomes(400, 0.7, 0.2, seed)).slope_ci for seed in range(200))
    )
    assert 0.9 <= inside / 200 <= 0.985
    confidence, correct = outcomes(200, 1, 0)
    five = np.repeat(confidence, 5), np.repeat(correct, 5)
    one, alone = cox(confidence, correct).slope_ci, cox(*five).slope_ci
    together = cox(*five, np.repeat(np.arange(200).astype(str), 5)).slope_ci
    assert together == pytest.approx(one, abs=1e-6)
    assert (one[1] - one[0]) / (alone[1] - alone[0]) == pytest.approx(np.sqrt(5), abs=1e-4)


def test_few_items_have_a_slope_without_an_interval():
    found = cox(np.linspace(0.5, 0.9, 9), np.arange(9) % 2)
    assert found.slope is not None and found.slope_ci is None


def test_there_is_no_slope_where_the_likelihood_has_no_maximum():
    sure = np.array([0.2, 0.4, 0.6, 0.8])
    for correct in (np.ones(4), np.zeros(4)):
        assert cox(sure, correct) == Cox(None, None, None, None)
    for confidence, correct in (
        (sure, np.array([0, 0, 1, 1])),
        (sure, np.array([1, 1, 0, 0])),
        (np.array([0.2, 0.5, 0.5, 0.8]), np.array([0, 0, 1, 1])),  # they meet, but do not mix
        (np.full(4, 0.5), np.array([0, 1, 0, 1])),
    ):
        found = cox(confidence, correct)
        assert found.slope is found.intercept is found.slope_ci is None
        assert found.in_the_large == pytest.approx(0, abs=1e-9)
    assert cox(sure, np.array([0, 1, 0, 1])).slope > 0


@pytest.mark.parametrize("confident", [True, False])
@pytest.mark.parametrize("wrong", [1, 3, 40])
def test_confidences_that_are_far_off_have_an_intercept_and_perhaps_a_slope(wrong, confident):
    """All but 1 while some answers are wrong; or near 0, as a softmax of cosines gives, while nearly all are right."""
    rng = np.random.default_rng(wrong)
    confidence = 1 - 10.0 ** -rng.uniform(3, 6, 300) if confident else rng.uniform(0.0099, 0.0102, 300)
    correct = np.ones(300)
    correct[rng.permutation(300)[:wrong]] = 0
    found = cox(confidence, correct)
    shifted = np.log(confidence / (1 - confidence)) + found.in_the_large
    assert (1 / (1 + np.exp(-shifted))).mean() == pytest.approx(1 - wrong / 300, abs=1e-6)
    assert found.slope is None or np.isfinite([found.slope, found.intercept, *found.slope_ci]).all()


def test_intervals_of_the_gap_leave_out_0_one_time_in_twenty_also_where_all_answers_are_right():
    outside = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        confidence = rng.beta(60, 1, 100)  # .984: all hundred are right one time in five
        low, high = measures.measure(confidence, (rng.random(100) < confidence).astype(float), repeats=60)["gap_ci"]
        outside += not low <= 0 <= high
    assert outside / 150 <= 0.09
    confidence, correct = outcomes(400, 0.5, -0.5)
    low, high = measures.measure(confidence, correct)["gap_ci"]
    assert 0 < low < gap(confidence, correct) < high


@pytest.mark.parametrize("measure", [gap, cox])
def test_what_is_no_probability_is_refused(measure):
    with pytest.raises(XtError, match="not a probability"):
        measure(np.array([0.5, 1.2]), np.array([1, 0]))
    with pytest.raises(XtError, match="two equal, non-empty rows"):
        measure(np.array([]), np.array([]))
