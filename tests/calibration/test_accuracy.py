"""A temperature without labels: the line by hand, on made matchings, and on real vectors of Tatoeba."""

from __future__ import annotations

import numpy as np
import pytest

from tests.calibration.cases import search, with_gold
from xt.calibration.accuracy import SLOPE_SPREAD, SPREAD, distinct_share, fit_line, predict_temperature
from xt.calibration.apply.line import AccuracyLine
from xt.core.errors import XtError


def matching(n, quality, seed=0, k=20):
    """Sentences and translations as noisy copies of one vector: a ranking as retrieval gives it."""
    rng = np.random.default_rng(seed)
    one = rng.normal(size=(n, 32))
    a, b = one + quality * rng.normal(size=one.shape), one + quality * rng.normal(size=one.shape)
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    s = a @ b.T
    rows = np.argsort(-s, axis=1)[:, :k]
    hit = rows == np.arange(n)[:, None]
    scores = np.take_along_axis(s, rows, 1).astype(np.float32)
    return search(scores, rows, np.where(hit.any(1), hit.argmax(1), -1), np.arange(n) % 5, n)


def test_the_share_is_of_different_answers_by_hand():
    rows = np.array([[3, 0], [3, 1], [2, 0], [1, 2]])
    one = search(np.zeros((4, 2), np.float32), rows, np.zeros(4, int), np.zeros(4, int), 4)
    assert distinct_share(one) == 0.75
    all_right = search(np.zeros((4, 2), np.float32), np.arange(4)[:, None], np.zeros(4, int), np.zeros(4, int), 4)
    assert distinct_share(all_right) == 1 - 0.125


def test_the_line_is_weighted_ridge_regression_by_hand():
    made = [matching(300, q, seed=i) for i, q in enumerate((0.5, 0.7, 0.9, 1.1))]
    found = fit_line(made, 0.1)
    logit = lambda p: np.log(p / (1 - p))
    accuracy = np.array([(r.gold == 0).mean() for r in made])
    x, y = logit(np.array([distinct_share(r) for r in made])), logit(accuracy)
    w = 1 / (SPREAD**2 + 1 / (300 * accuracy * (1 - accuracy)))
    best = None
    for bias in np.linspace(found.bias - 0.02, found.bias + 0.02, 41):
        for slope in np.linspace(found.slope - 0.02, found.slope + 0.02, 41):
            loss = (w * (y - bias - slope * x) ** 2).sum() + ((slope - 1) / SLOPE_SPREAD) ** 2
            best = min(best or (loss, 0, 0), (loss, bias, slope))
    assert best[1:] == pytest.approx((found.bias, found.slope), abs=1.01e-3)


def test_labels_of_easy_languages_tell_the_accuracy_of_hard_ones():
    line = fit_line([matching(800, q, seed=i) for i, q in enumerate((0.55, 0.6, 0.65, 0.7))], -1.0)
    for i, quality in enumerate((0.72, 0.76, 0.8)):
        hard = matching(800, quality, seed=20 + i)
        assert line.accuracy(distinct_share(hard)) == pytest.approx((hard.gold == 0).mean(), abs=0.06)
        blind = with_gold(hard, np.full(800, -1))
        assert predict_temperature(line, blind) == predict_temperature(line, hard)  # its own labels play no part
        confidence = predict_temperature(line, hard)(hard.scores)[:, 0]
        assert confidence.mean() == pytest.approx(line.accuracy(distinct_share(hard)), abs=1e-3)


def test_only_the_labels_kept_are_used():
    one, two = matching(400, 0.8), matching(400, 0.8)
    keep = two.fold != 0
    spoilt = with_gold(two, np.where(keep, two.gold, 7))
    assert fit_line([one], 0.5, [keep]) == fit_line([spoilt], 0.5, [keep])
    assert fit_line([one], 0.5) != fit_line([spoilt], 0.5)


def test_it_survives_json_and_what_is_no_line_is_refused():
    line = AccuracyLine(-0.2, 1.05, 0.81)
    assert AccuracyLine.from_json(line.to_json()) == line
    with pytest.raises(XtError, match="predictor"):
        AccuracyLine.from_json({"kind": "else"})
    with pytest.raises(XtError, match="enough labelled"):
        fit_line([matching(20, 0.5)], 0.5)
