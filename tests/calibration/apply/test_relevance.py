"""What is said of a query's candidates, from its scores alone, against numbers by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from xt.calibration.apply.relevance import (
    BEST,
    CANDIDATE,
    DEPTH,
    Regression,
    RelevanceModel,
    Shift,
    best_features,
    candidate_features,
    padded,
)
from xt.core.errors import XtError


def regression(names, bias=0.0, **slopes):
    """Features as they are (mean 0, scale 1), some with a slope."""
    weights = (bias, *(slopes.get(name, 0.0) for name in names), *[0.0] * len(names))
    return Regression(names, (0.0,) * len(names), (1.0,) * len(names), weights)


def model(**options):
    parts = {
        "present": regression(BEST, 0.3, margin=20.0),
        "best": regression(BEST, -0.2, margin=30.0),
        "others": regression(CANDIDATE, -1.0, softmax=0.5),
    }
    return RelevanceModel(**{**parts, **options})


def rows(n=6, k=DEPTH, seed=0):
    return -np.sort(-np.random.default_rng(seed).normal(0.8, 0.02, (n, k)), axis=1)


def test_the_features_of_the_best_candidate_by_hand():
    scores = np.array([[0.9, 0.8, *np.linspace(0.79, 0.70, 98)]])
    spacing_10, spacing_30, softmax, second, margin = best_features(padded(scores))[0]
    spacings = [(scores[0, i] - scores[0, i + 1]) * (i + 1) for i in range(99)]
    assert spacing_10 == pytest.approx(math.log(0.1 + 1e-3) - math.log(sum(spacings[1:10]) / 9 + 1e-4))
    assert spacing_30 == pytest.approx(math.log(0.1 + 1e-3) - math.log(sum(spacings[1:30]) / 29 + 1e-4))
    share = math.exp(90) / sum(math.exp(100 * s) for s in scores[0])
    assert softmax == pytest.approx(math.log(share / (1 - share)))
    assert second == pytest.approx(0.8 - sum(scores[0, 2:10]) / 8)
    assert margin == pytest.approx(0.9 - sum(scores[0, 1:10]) / 9)


def test_the_features_of_further_candidates_by_hand():
    scores = rows(1)
    found = candidate_features(padded(scores))[0]
    softmax, behind_best, behind_previous, ahead, rank = found[3]
    share = math.exp(100 * scores[0, 3]) / sum(math.exp(100 * s) for s in scores[0])
    assert softmax == pytest.approx(math.log(share / (1 - share)))
    assert behind_best == pytest.approx(math.log(scores[0, 0] - scores[0, 3] + 1e-3))
    assert behind_previous == pytest.approx(math.log(scores[0, 2] - scores[0, 3] + 1e-3))
    assert ahead == pytest.approx(scores[0, 3] - scores[0, 4:13].mean())
    assert rank == pytest.approx(math.log(4))
    assert found[-2, 3] == pytest.approx(scores[0, -2] - scores[0, -1])


def test_spacings_do_not_depend_on_the_size_of_the_index_where_the_tail_is_exponential():
    """Rényi 1953: the largest of n exponential numbers grows with log n, what lies between the largest does not."""
    rng = np.random.default_rng(0)
    means = {}
    for size in (200, 20_000):
        drawn = -np.sort(-rng.exponential(0.01, (1500, size)), axis=1)[:, :DEPTH]
        features = best_features(padded(0.7 + drawn))
        means[size] = features.mean(0), features.std(0) / math.sqrt(1500)
    apart = np.abs(means[200][0] - means[20_000][0]) / np.hypot(means[200][1], means[20_000][1])
    assert apart[[0, 1, 4]].max() < 3.5  # standard errors


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_the_share_of_answerable_queries_enters_by_bayes_rule(share):
    scores = rows()
    ratio = np.exp(model().evidence(scores))
    said = model().assess(scores, share)
    np.testing.assert_allclose(1 - said.none, share * ratio / (share * ratio + 1 - share), rtol=1e-12)
    given = model().given_present(scores)
    np.testing.assert_allclose(said.relevance, (1 - said.none)[:, None] * given, rtol=1e-12)


def test_a_share_of_its_own_for_each_query_and_of_none_and_all():
    scores = rows(3)
    said = model().assess(scores, np.array([0.0, 0.4, 1.0]))
    assert said.none[0] == 1.0 and said.none[2] == 0.0
    assert (said.relevance[0] == 0).all()
    assert said.none[1] == model().assess(scores[1:2], 0.4).none[0]


def test_a_query_is_judged_alike_whatever_it_is_asked_with():
    scores = rows(40)
    together = model().assess(scores, 0.6)
    for i in range(40):
        alone = model().assess(scores[i : i + 1], 0.6)
        assert alone.none[0] == together.none[i]
        assert (alone.relevance[0] == together.relevance[i]).all()


def test_relevance_never_rises_with_the_rank_and_equal_scores_are_equal():
    scores = rows(200)
    scores[:, 5] = scores[:, 4] = scores[:, 3]
    scores[:50, 1] = scores[:50, 0]
    given = model(others=regression(CANDIDATE, 2.0, ahead=80.0)).given_present(scores)
    assert (np.diff(given, axis=1) <= 1e-15).all()
    assert (given[:, 3] == given[:, 4]).all() and (given[:, 4] == given[:, 5]).all()
    assert (given[:50, 0] == given[:50, 1]).all()


def test_absent_candidates_have_no_probability_and_change_nothing():
    scores = rows(4, 15)
    said = model().assess(scores, 0.5)
    wide = model().assess(np.pad(scores, ((0, 0), (0, 200)), constant_values=-np.inf), 0.5)
    assert said.relevance.shape == (4, 15) and wide.relevance.shape == (4, 215)
    assert (wide.relevance[:, :15] == said.relevance).all() and (wide.relevance[:, 15:] == 0).all()
    assert (wide.none == said.none).all() and not wide.held[:, 15:].any()


def test_candidates_beyond_those_that_are_read_have_no_probability():
    scores = rows(2, 150)
    assert (model().given_present(scores)[:, DEPTH:] == 0).all()
    assert (model().assess(scores).none == model().assess(scores[:, :DEPTH]).none).all()


def test_sets_hold_what_reaches_the_limits():
    scores = rows(50)
    cut = model(candidate_limit=0.2, none_limit=0.9)
    said = cut.assess(scores, 0.01)
    assert (said.held == (cut.given_present(scores) >= 0.2)).all() and said.held.any() and not said.held.all()
    assert (said.none_held == (cut.evidence(scores) <= 0.9)).all()
    assert (cut.assess(scores, 0.99).held == said.held).all()  # whatever the share is


def test_shifts_of_a_language_move_log_odds():
    one = model(languages={"kin": Shift(-0.7, 0.4)})
    scores = rows()
    moved = one.assess(scores, 0.5, one.for_language("kin"))
    odds = lambda p: np.log(p / (1 - p))
    np.testing.assert_allclose(odds(1 - moved.none) - odds(1 - one.assess(scores).none), -0.7)
    given = one.given_present(scores, Shift(0, 0.4))[:, 0]
    np.testing.assert_allclose(odds(given) - odds(one.given_present(scores)[:, 0]), 0.4)
    for_all = one.shifted(Shift(-0.7, 0.4)).assess(scores)
    np.testing.assert_allclose(for_all.relevance, moved.relevance, rtol=1e-12)
    assert one.for_language("deu") == one.for_language(None) == Shift()


def test_what_is_written_is_read():
    one = model(candidate_limit=0.25, none_limit=1.5, coverage=0.8, languages={"swh": Shift(0.5, -0.25)})
    assert RelevanceModel.from_json(one.to_json()) == one
    assert RelevanceModel.from_json(model().to_json()) == model()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "retrieval-margin"}, "retrieval-margin"),
        ({"coverage": 1.0}, "coverage"),
        ({"present": {**regression(BEST).to_json(), "names": ["cosine"]}}, "cosine"),
        ({"best": {**regression(BEST).to_json(), "scale": [0.0] * 5}}, "positive"),
        ({"others": {**regression(CANDIDATE).to_json(), "weights": [1.0]}}, "11 weights"),
        ({"languages": {"swh": {"present": math.nan, "relevant": 0.0}}}, "finite"),
    ],
)
def test_what_no_model_says_is_refused(change, message):
    with pytest.raises(XtError, match=message):
        RelevanceModel.from_json({**model().to_json(), **change})


@pytest.mark.parametrize(
    ("scores", "share", "message"),
    [
        (rows(2, 9), 0.5, "9 candidates; at least 10"),
        (rows(2)[:, ::-1], 0.5, "not in order"),
        (rows(2), 1.5, "expected 0 to 1"),
        (rows(2), math.nan, "expected 0 to 1"),
        (np.append(np.full((1, 1), np.inf), rows(1), axis=1), 0.5, "infinite"),
        (rows(2)[0], 0.5, "shape"),
    ],
)
def test_what_cannot_be_judged_is_refused(scores, share, message):
    with pytest.raises(XtError, match=message):
        model().assess(scores, share)
