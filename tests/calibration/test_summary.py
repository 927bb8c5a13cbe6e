"""Summaries: no language makes up for another, sentences are resampled once for all, regressions see all queries."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logit
from sklearn.linear_model import LogisticRegression

from xt.calibration.measuring import measures
from xt.calibration.measuring.clusters import keys_of
from xt.calibration.scoring import Method, Scored
from xt.calibration.summary import summary

SHIFT = {"deu": 0.12, "fra": 0.0, "swh": -0.19}


@pytest.fixture(scope="module")
def method() -> Method:
    """Three languages of the same 400 sentences: too sure, right, not sure enough."""
    rng = np.random.default_rng(0)
    hard = rng.uniform(0.2, 0.8, 400)
    chance = rng.random(400)  # a sentence that fails in one language fails in all
    scored = {}
    for code, shift in SHIFT.items():
        confidence = np.clip(hard + shift + rng.normal(0, 0.01, 400), 0.01, 0.99)
        correct = (chance < hard).astype(float)
        ids = keys_of(np.array([f"sentence {i}" for i in range(400)]))
        scored[code] = Scored(confidence, -np.log(confidence), correct, ids=ids)
    return Method("zero-shot", "one temperature", 0.01, scored)


def test_no_language_makes_up_for_another(method):
    found = summary([method], {"deu": "high", "fra": "high", "swh": "low"})["zero-shot"]
    gaps = {code: s.confidence.mean() - s.correct.mean() for code, s in method.scored.items()}
    overall = found["overall"]
    assert overall["mean_gap"] == pytest.approx(np.mean(np.abs(list(gaps.values())))) and overall["mean_gap"] > 0.07
    assert (overall["worst_gap_language"], overall["worst_gap"]) == ("swh", pytest.approx(gaps["swh"]))
    assert (overall["gaps_outside"], overall["gap_intervals"]) == (2, 3)
    assert found["by_resource"]["low"]["mean_gap"] == pytest.approx(-gaps["swh"])
    excess = [row["ece"] - row["ece_null"] for row in found["languages"].values()]
    assert min(excess) < 0.01 < max(excess)
    assert overall["ece_excess"] == pytest.approx(np.mean(np.maximum(excess, 0)))
    assert overall["worst_ece_excess"] == max(excess)


def test_slope_and_intercept_of_several_languages_are_those_of_all_their_queries(method):
    overall = summary([method], dict.fromkeys(SHIFT, "low"))["zero-shot"]["overall"]
    parts = method.scored.values()
    x, y = logit(np.concatenate([s.confidence for s in parts])), np.concatenate([s.correct for s in parts])
    expected = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(x[:, None], y)
    assert overall["slope"] == pytest.approx(expected.coef_[0, 0], abs=1e-5)
    assert overall["intercept"] == pytest.approx(expected.intercept_[0], abs=1e-5)
    one = measures.cox(np.concatenate([s.confidence for s in parts]), y)
    low, high = overall["slope_ci"]
    assert high - low > 1.2 * (one.slope_ci[1] - one.slope_ci[0])  # 400 sentences, not 1,200


def test_the_mean_over_translations_is_no_surer_than_one_language(method):
    found = summary([method], dict.fromkeys(SHIFT, "low"))["zero-shot"]
    low, high = found["overall"]["gap_ci"]
    one = found["languages"]["fra"]["gap_ci"]
    assert high - low == pytest.approx(one[1] - one[0], rel=0.2)


def test_without_resamples_there_are_no_intervals_and_no_excess(method):
    found = summary([method], dict.fromkeys(SHIFT, "low"), repeats=0)["zero-shot"]
    assert found["overall"]["mean_gap"] > 0.07 and found["overall"]["slope"] is not None
    assert not any(key.endswith(("_ci", "_null", "excess")) for key in (*found["overall"], *found["languages"]["fra"]))
