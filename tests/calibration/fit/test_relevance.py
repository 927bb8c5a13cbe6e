"""Learning what relevant candidates look like: against scikit-learn, by hand, and on corpora whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from xt.calibration.apply.relevance import DEPTH, Shift
from xt.calibration.fit.relevance import (
    RIDGE,
    EncodedCollection,
    Searched,
    corpus_weights,
    fit_regression,
    fit_relevance,
    remove_answers,
    search_exactly,
    set_limits,
    situations,
)
from xt.core.errors import XtError


def units(rng, n, dim=24):
    drawn = rng.normal(size=(n, dim))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def collection(seed, *, noise=1.05, documents=400, queries=300, corpus="made"):
    """Each query is a document and noise, so that some find another document first."""
    rng = np.random.default_rng(seed)
    vectors = units(rng, documents)
    rows = rng.integers(0, documents, queries)
    mixed = vectors[rows] + noise * units(rng, queries)
    mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
    return EncodedCollection(corpus, "eng", mixed, vectors, [np.array([row]) for row in rows])


def several(seed):
    """Search corpora that are easy and hard."""
    made = [collection(seed + i, noise=0.8 + 0.1 * i, corpus=f"made {i}") for i in range(6)]
    return [one for i, corpus in enumerate(made) for one in situations(corpus, seed=seed + i)]


@pytest.fixture(scope="module")
def learnt():
    return several(0)


@pytest.fixture(scope="module")
def fresh():
    return several(50)


def test_the_regression_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    features = rng.normal(2, 3, (800, 2)) * [1, 0.01]
    outcome = (rng.random(800) < 1 / (1 + np.exp(1 - features[:, 0]))).astype(float)
    weight = rng.uniform(0.2, 3, 800)
    ours = fit_regression(("a", "b"), features, outcome, weight)
    weight *= 800 / weight.sum()
    z = np.clip((features - ours.mean) / np.array(ours.scale), -4, 4)
    design = np.concatenate([z, z**2 - 1], 1)
    theirs = LogisticRegression(C=1 / RIDGE, tol=1e-10, max_iter=10_000).fit(design, outcome, weight)
    np.testing.assert_allclose(ours.mean, np.average(features, axis=0, weights=weight))
    np.testing.assert_allclose(ours.weights, [theirs.intercept_[0], *theirs.coef_[0]], atol=1e-4)
    np.testing.assert_allclose(ours(features), theirs.decision_function(design), atol=1e-3)


def test_log_odds_at_an_even_prior_leave_the_share_of_the_sample_out():
    rng = np.random.default_rng(1)
    features, outcome = rng.normal(size=(4000, 1)), (rng.random(4000) < 0.8).astype(float)
    fitted = fit_regression(("noise",), features, outcome, np.ones(4000), even=True)
    assert abs(fitted(features).mean()) < 0.02
    with pytest.raises(XtError, match="All outcomes are the same"):
        fit_regression(("noise",), features, np.ones(4000), np.ones(4000))


def test_a_search_is_that_by_hand():
    made = EncodedCollection(
        "made",
        "eng",
        np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32),
        np.array([[0, 1], [1, 0], [0.8, 0.6], [-1, 0]], np.float32),
        [np.array([1]), np.array([3]), np.array([], int)],
    )
    found = search_exactly(made, np.array([2, 0, 1]), np.arange(3))
    np.testing.assert_allclose(found.scores[:, :3], [[1, 0.8, 0], [1, 0.6, 0], [0.96, 0.8, 0.6]], atol=1e-6)
    assert found.scores.shape == (3, DEPTH) and np.isneginf(found.scores[:, 3:]).all()
    assert found.relevant[:, :3].tolist() == [[True, False, False], [False] * 3, [False] * 3]
    assert found.answerable.tolist() == [True, False, False] and found.size == 3


def test_answers_are_really_removed():
    """A document that is out of the index is no candidate of any query; queries without one before stay."""
    made = collection(0)
    none = replace(made, relevant=[*made.relevant[:-1], np.array([], int)])
    rng = np.random.default_rng(0)
    rows, queries = remove_answers(none, np.arange(300), 0.5, rng)
    wanted = {int(row) for one in none.relevant for row in one if row < 300}
    assert set(range(300)) - set(rows.tolist()) <= wanted
    assert 0.4 < len(wanted & set(rows.tolist())) / len(wanted) < 0.6
    had = [i for i, one in enumerate(none.relevant) if not len(one) or one[0] < 300]
    assert queries.tolist() == had and had[-1] == 299
    found = search_exactly(none, rows, queries)
    assert found.answerable.tolist() == [len(none.relevant[q]) > 0 and none.relevant[q][0] in rows for q in queries]


def test_corpora_weigh_alike_whatever_their_queries():
    def one(corpus, language, n):
        empty = np.zeros((n, DEPTH))
        return Searched(corpus, language, empty, empty > 0, np.ones(n, bool), np.arange(n), 200)

    several = [one("a", "eng", 10), one("a", "eng", 30), one("b", "deu", 5), one("b", "swh", 500)]
    total: dict[tuple[str, str], float] = {}
    for searched, weight in zip(several, corpus_weights(several), strict=True):
        key = searched.corpus, searched.language
        total[key] = total.get(key, 0) + weight * len(searched.queries)
    assert total == pytest.approx({("a", "eng"): 1.0, ("b", "deu"): 2**-0.5, ("b", "swh"): 2**-0.5})


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_queries_never_seen_get_probabilities_that_hold(learnt, fresh, share):
    """At three shares of answerable queries: the best answer's, and those of "none"; also where it is nearly sure."""
    model = fit_relevance(learnt)
    scores, right, answerable = (
        np.concatenate([getattr(one, name) for one in fresh]) for name in ("scores", "right", "answerable")
    )
    weight = np.where(answerable, share / answerable.mean(), (1 - share) / (1 - answerable.mean()))
    said = model.assess(scores, share)
    for probability, outcome in ((said.none, ~answerable), (said.relevance[:, 0], right)):
        rate = np.average(outcome, weights=weight)
        assert np.average(probability, weights=weight) == pytest.approx(rate, abs=0.03)
        for part in (probability < np.median(probability), probability >= np.median(probability)):
            rate = np.average(outcome[part], weights=weight[part])
            assert np.average(probability[part], weights=weight[part]) == pytest.approx(rate, abs=0.05)


def test_evidence_tells_answerable_queries_as_well_as_the_margin(learnt, fresh):
    from sklearn.metrics import roc_auc_score

    model = fit_relevance(learnt)
    scores, answerable = (np.concatenate([getattr(one, n) for one in fresh]) for n in ("scores", "answerable"))
    margin = scores[:, 0] - scores[:, 1:10].mean(1)
    assert roc_auc_score(answerable, model.evidence(scores)) > roc_auc_score(answerable, margin) - 0.005 > 0.6


def test_sets_hold_what_they_promise_on_what_they_were_cut_for_and_on_others_like_it(learnt, fresh):
    model = fit_relevance(learnt, coverage=0.9)
    for searched, tolerance in ((learnt, 0.02), (fresh, 0.03)):
        holds, says = [], []
        for one in searched:
            said = model.assess(one.scores, 0.5)
            holds += (said.held & one.relevant)[one.answerable].any(1).tolist()
            says += said.none_held[~one.answerable].tolist()
        assert np.mean(holds) == pytest.approx(0.9, abs=tolerance)
        assert np.mean(says) == pytest.approx(0.9, abs=tolerance)


def test_limits_do_not_depend_on_the_share_and_follow_the_coverage(learnt):
    model = fit_relevance(learnt)
    loose, tight = set_limits(model, learnt, 0.95), set_limits(model, learnt, 0.6)
    assert loose[0] < model.candidate_limit < tight[0]
    assert loose[1] > model.none_limit > tight[1]
    assert set_limits(model.shifted(Shift(0.3, 0.0)), learnt, 0.9)[1] == pytest.approx(model.none_limit + 0.3)


def test_what_cannot_be_learnt_is_refused():
    with pytest.raises(XtError, match="nothing to learn from"):
        fit_relevance([])
    assert list(situations(collection(0, documents=12, queries=12))) == []
    with pytest.raises(XtError, match="300 queries, and judgements of 2"):
        made = collection(0)
        replace(made, relevant=made.relevant[:2])
