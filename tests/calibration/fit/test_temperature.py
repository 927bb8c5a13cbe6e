"""Maps of confidences, drawn temperatures and matched means against independent implementations and numbers by hand.

Tests `calibration/apply/maps.py`, `calibration/fit/maps.py` and `calibration/fit/logistic.py` as well.
"""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import optimize, stats
from scipy.special import expit, log_softmax, softmax
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from xt.calibration.apply import maps as confidence_maps
from xt.calibration.apply.file import CalibrationTable, table_of
from xt.calibration.apply.retrieval import Rescaled, RetrievalMargin, RetrievalTemperature, read_calibrator
from xt.calibration.fit.logistic import fit_logistic
from xt.calibration.fit.maps import MAPS, fit_map
from xt.calibration.fit.temperature import fit_margin, fit_shrunk, fit_temperature, information, match_confidence
from xt.core.errors import XtError


def drawn(n, temperature=0.02, none=0.8, *, k=20, seed=0, power=1.0):
    """Scores, and gold drawn by the model itself; `power` above 1 makes the best candidate right more often."""
    rng = np.random.default_rng(seed)
    scores = -np.sort(-rng.normal(0.8, 0.03, (n, k)), axis=1)
    p = softmax(np.column_stack([scores, np.full(n, none)]) / temperature * power, axis=1)
    gold = (rng.random((n, 1)) > p.cumsum(1)).sum(1).clip(max=k)
    return scores, np.where(gold == k, -1, gold)


BASE = RetrievalTemperature(0.02, 0.8)


def fitted(kind, n=4000, power=2.0, seed=0):
    scores, gold = drawn(n, power=power, seed=seed)
    return scores, gold, BASE(scores)[:, 0], fit_map(kind, BASE, scores, gold)


def test_isotonic_is_scikit_learns_on_points_between_too():
    scores, gold, confidence, made = fitted("isotonic")
    reference = IsotonicRegression(out_of_bounds="clip").fit(confidence, gold == 0)
    asked = np.linspace(-0.1, 1.1, 500)
    np.testing.assert_allclose(made(asked, scores), reference.predict(asked), atol=1e-9)


@pytest.mark.parametrize("ridge", [0.1, 3.0, 1e-6])
def test_logistic_regression_is_scikit_learns(ridge):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 4)) * (1, 0.01, 20, 3)
    right = (rng.random(300) < expit(features @ (1, 30, 0.1, -1) - 2)).astype(float)
    weights, bias = fit_logistic(features, right, ridge=ridge)
    reference = LogisticRegression(C=1 / ridge, solver="newton-cholesky", tol=1e-10).fit(features, right)
    np.testing.assert_allclose([*weights, bias], [*reference.coef_[0], *reference.intercept_], rtol=1e-5)


def test_logistic_regression_ends_where_classes_are_parted_and_features_tell_nothing():
    x = np.arange(20.0)
    weights, bias = fit_logistic(x[:, None], (x > 9.5).astype(float), ridge=0.1)
    reference = LogisticRegression(C=10, tol=1e-10).fit(x[:, None], x > 9.5)
    np.testing.assert_allclose([weights[0], bias], [reference.coef_[0, 0], reference.intercept_[0]], rtol=1e-3)
    assert np.isfinite(fit_logistic(x[:, None], (x > 9.5).astype(float), ridge=0.0)[0]).all()
    weights, bias = fit_logistic(np.ones((20, 2)), (x > 4.5).astype(float), ridge=0.1)
    np.testing.assert_allclose([*weights, bias], [0, 0, math.log(3)], atol=1e-6)


def test_beta_without_its_bounds_is_logistic_regression_on_two_logarithms():
    scores, gold, confidence, made = fitted("beta")
    features = np.stack([np.log(confidence), -np.log1p(-confidence)], axis=1)
    reference = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(features, gold == 0)
    assert (reference.coef_ > 0).all()  # the bounds are not touched
    np.testing.assert_allclose(made(confidence, scores), reference.predict_proba(features)[:, 1], atol=1e-6)


def test_beta_stays_rising_where_confidence_misleads():
    rng = np.random.default_rng(0)
    scores, _ = drawn(2000)
    wrong_way = np.where(rng.random(2000) < 1 - BASE(scores)[:, 0], 0, 1)
    made = fit_map("beta", BASE, scores, wrong_way)
    assert made.a >= 0 and made.b >= 0
    values = made(np.linspace(0.01, 0.99, 50), scores)
    assert (np.diff(values) >= -1e-12).all()


def test_histogram_has_the_shares_of_its_bins_by_hand():
    scores, gold, confidence, made = fitted("histogram", n=600)
    order = np.argsort(confidence)
    for part in np.array_split(order, 15):
        np.testing.assert_allclose(made(confidence[part], scores[part]), (gold[part] == 0).mean(), atol=1e-12)


def test_platt_reads_margins_and_lowers_the_loss():
    scores, gold, confidence, made = fitted("platt")
    features = confidence_maps.margin_features(confidence, scores)
    np.testing.assert_allclose(features[:, 2], scores[:, 0] - scores[:, 1])
    np.testing.assert_allclose(features[:, 3], scores[:, 0] - scores[:, 1:10].mean(1))
    scaled = (features - features.mean(0)) / features.std(0)
    reference = (
        LogisticRegression(C=10.0, tol=1e-10, max_iter=10_000).fit(scaled, gold == 0).predict_proba(scaled)[:, 1]
    )
    np.testing.assert_allclose(made(confidence, scores), reference, atol=1e-6)
    right = gold == 0
    loss = lambda p: -np.log(np.where(right, p, 1 - p)).mean()
    assert loss(reference) < loss(confidence) - 0.01


@pytest.mark.parametrize("kind", MAPS)
def test_a_mapped_calibrator_is_calibrated_sums_to_one_and_survives_json(kind):
    _, _, _, made = fitted(kind)
    scores, gold = drawn(4000, power=2.0, seed=5)
    rescaled = Rescaled(BASE, made)
    p = rescaled(scores)
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-9)
    assert (p >= 0).all()
    assert abs(p[:, 0].mean() - (gold == 0).mean()) < 0.03 < abs(BASE(scores)[:, 0].mean() - (gold == 0).mean())
    again = read_calibrator(json.loads(json.dumps(rescaled.to_json())))
    np.testing.assert_array_equal(again(scores), p)
    table = table_of(CalibrationTable(rescaled, "zero-shot", {}).to_json())
    np.testing.assert_array_equal(table.choose("swh")[0](scores), p)


def test_what_the_best_loses_goes_to_none_and_what_it_gains_comes_from_all():
    class Fixed:
        def __init__(self, value):
            self.value = value

        def __call__(self, confidence, scores):
            return np.full(len(confidence), self.value)

    scores = np.log(np.array([[0.5, 0.3]]))
    base = RetrievalTemperature(1.0, math.log(0.2))
    np.testing.assert_allclose(base(scores), [[0.5, 0.3, 0.2]])
    np.testing.assert_allclose(Rescaled(base, Fixed(0.1))(scores), [[0.1, 0.3, 0.6]])
    np.testing.assert_allclose(Rescaled(base, Fixed(0.75))(scores), [[0.75, 0.15, 0.1]])


def test_one_class_too_few_and_nan_are_refused():
    scores, gold = drawn(100)
    with pytest.raises(XtError, match="All 100 queries are right"):
        fit_map("beta", BASE, scores, np.zeros(100, int))
    with pytest.raises(XtError, match="29 queries are too few"):
        fit_map("isotonic", BASE, scores[:29], gold[:29])
    with pytest.raises(XtError, match="map"):
        fit_map("spline", BASE, scores, gold)
    scores[3, 2] = np.nan
    for fit in (lambda: fit_map("platt", BASE, scores, gold), lambda: fit_temperature(scores, gold)):
        with pytest.raises(XtError, match="NaN or infinite"):
            fit()


@pytest.mark.parametrize(
    "damage",
    [
        {"kind": "spline"},
        {"kind": "isotonic", "x": [0.2, 0.1], "y": [0, 1]},
        {"kind": "isotonic", "x": [0.2], "y": [0, 1]},
        {"kind": "histogram", "edges": [0.5], "values": [0.1]},
        {"kind": "beta", "a": float("nan"), "b": 1, "m": 0},
        {"kind": "platt", "bias": 0, "weights": [1], "mean": [0], "scale": [1]},
    ],
)
def test_a_damaged_map_is_refused(damage):
    with pytest.raises(XtError):
        confidence_maps.from_json(damage)


def test_the_margin_is_the_likeliest_by_another_optimizer_and_the_same_at_any_height():
    scores, gold = drawn(600, temperature=0.03, none=0.82)
    near = scores[:, 1:10].mean(1)

    def loss(x):
        logits = log_softmax(np.column_stack([scores, near + x[1]]) / np.exp(x[0]), axis=1)
        return -logits[np.arange(600), np.where(gold < 0, 20, gold)].mean()

    other = optimize.minimize(loss, [-3, 0.02], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-10})
    found = fit_margin(scores, gold)
    assert (math.log(found.temperature), found.margin) == pytest.approx(tuple(other.x), abs=2e-3)
    np.testing.assert_allclose(found(scores - 0.3), found(scores), atol=1e-9)
    p = np.exp(np.append(scores[0], near[0] + found.margin) / found.temperature)
    np.testing.assert_allclose(found(scores[:1])[0], p / p.sum(), atol=1e-9)
    np.testing.assert_array_equal(read_calibrator(found.to_json())(scores), found(scores))
    with pytest.raises(XtError, match="positive"):
        RetrievalMargin(0.0, 0.1)


@pytest.mark.parametrize("spread", [0.05, 0.3])
def test_a_drawn_temperature_is_the_maximum_of_the_posterior(spread):
    scores, gold = drawn(40, temperature=0.03, none=0.87)
    assert (gold < 0).any()
    prior = RetrievalTemperature(0.015, 0.8)

    def posterior(x):
        logits = log_softmax(np.column_stack([scores, np.full(40, x[1])]) / np.exp(x[0]), axis=1)
        likelihood = logits[np.arange(40), np.where(gold < 0, 20, gold)].sum()
        return -(likelihood + stats.norm.logpdf(x[0], np.log(0.015), spread))

    tight = {"xatol": 1e-6, "fatol": 1e-9, "maxiter": 4000}
    reference = optimize.minimize(posterior, [-4, 0.8], method="Nelder-Mead", options=tight)
    found = fit_shrunk(scores, gold, prior, spread)
    assert (math.log(found.temperature), found.none_score) == pytest.approx(tuple(reference.x), abs=3e-3)


def test_few_queries_leave_the_prior_and_many_overrule_it():
    prior = RetrievalTemperature(0.01, 0.8)
    assert fit_shrunk(np.empty((0, 5)), np.empty(0, int), prior, 0.1) is prior
    few, many = (fit_shrunk(*drawn(n, temperature=0.03), prior, 0.1).temperature for n in (4, 20_000))
    assert abs(math.log(few / 0.01)) < abs(math.log(few / 0.03))
    assert many == pytest.approx(0.03, rel=0.05)


def test_information_is_the_curvature_of_the_likelihood():
    scores, gold = drawn(2000)
    here = fit_temperature(scores, gold)

    def loss(log_t):
        logits = log_softmax(np.column_stack([scores, np.full(2000, here.none_score)]) / np.exp(log_t), axis=1)
        return -logits[np.arange(2000), np.where(gold < 0, 20, gold)].sum()

    x, h = math.log(here.temperature), 0.01
    curvature = (loss(x + h) - 2 * loss(x) + loss(x - h)) / h**2
    assert information(here, scores) == pytest.approx(curvature, rel=0.02)


@pytest.mark.parametrize("accuracy", [0.3, 0.6, 0.9])
def test_the_matched_temperature_has_that_mean_confidence(accuracy):
    scores, _ = drawn(500)
    found = match_confidence(scores, accuracy, 0.75)
    assert found(scores)[:, 0].mean() == pytest.approx(accuracy, abs=2e-3)
    assert match_confidence(scores, 0.0, 0.75).temperature == pytest.approx(10.0)
    assert match_confidence(scores, 1.0, 0.75).temperature < 2e-4


def test_the_matched_temperature_is_that_of_all_queries_where_a_part_of_them_tells_another():
    scores, _ = drawn(500)
    scores[::5] = 0.5 + (scores[::5] - 0.5) * 30  # the fifth that the search begins with
    found = match_confidence(scores, 0.6, 0.75)
    assert found(scores)[:, 0].mean() == pytest.approx(0.6, abs=2e-3)
    assert expit(0) == 0.5


def shuffled(scores, gold, seed=0):
    """The same queries with their candidates in another order, and where the right one stands then."""
    order = np.random.default_rng(seed).permuted(np.tile(np.arange(scores.shape[1]), (len(scores), 1)), axis=1)
    return np.take_along_axis(scores, order, 1), np.where(gold < 0, -1, (order == gold[:, None]).argmax(1))


def test_every_fit_is_the_same_in_any_order_of_the_candidates():
    scores, gold = drawn(400, power=2.0)
    mixed, moved = shuffled(scores, gold)
    assert not (mixed[:, 0] == scores[:, 0]).all()
    assert fit_temperature(mixed, moved) == fit_temperature(scores, gold)
    assert fit_margin(mixed, moved) == fit_margin(scores, gold)
    assert fit_shrunk(mixed, moved, BASE, 0.3) == fit_shrunk(scores, gold, BASE, 0.3)
    assert match_confidence(mixed, 0.6, 0.8) == match_confidence(scores, 0.6, 0.8)
    for kind in MAPS:
        assert fit_map(kind, BASE, mixed, moved) == fit_map(kind, BASE, scores, gold)
