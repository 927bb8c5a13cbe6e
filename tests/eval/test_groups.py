"""Equal pools are worked out in closed form: drawing every pool, or very many, gives the same."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from xt.core.errors import XtError
from xt.core.languages import LANGUAGES
from xt.eval import groups
from xt.eval.groups import all_groups, better_of, fixed_pool, means_by, pool_accuracy


def test_every_pool_there_is_gives_the_closed_form():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(7, 7)) + 0.8 * np.eye(7)
    gold = np.arange(7)
    for size in (1, 2, 3, 5, 7):
        right = total = 0
        for q in range(7):
            for others in combinations([c for c in range(7) if c != q], size - 1):
                right += all(scores[q, q] > scores[q, o] for o in others)
                total += 1
        assert pool_accuracy(better_of(scores, gold), 7, size) == pytest.approx(right / total, abs=1e-12)


def test_random_pools_of_vectors_agree_with_the_closed_form():
    rng = np.random.default_rng(1)
    english = rng.standard_normal((400, 12)).astype(np.float32)
    foreign = english + 1.3 * rng.standard_normal((400, 12)).astype(np.float32)
    english, foreign = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (english, foreign))
    similar = foreign @ english.T
    hits = []
    for _ in range(200):
        for q in rng.integers(0, 400, 20):
            pool = np.concatenate([[q], rng.choice(np.delete(np.arange(400), q), 49, replace=False)])
            hits.append(similar[q, pool].argmax() == 0)
    got = fixed_pool(foreign, english, size=50)
    assert got == pytest.approx(np.mean(hits), abs=4 * np.std(hits) / np.sqrt(len(hits)))
    assert fixed_pool(foreign, english, size=400) == pytest.approx((similar.argmax(1) == np.arange(400)).mean())
    assert fixed_pool(foreign, english, size=1) == 1.0
    assert fixed_pool(foreign, english, size=200) < got


def test_blocks_of_queries_count_the_same(monkeypatch):
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((2, 60, 5)).astype(np.float32)
    whole = groups.better(a, b, np.arange(60))
    monkeypatch.setattr(groups, "BLOCK", 7)
    assert (groups.better(a, b, np.arange(60)) == whole).all()
    assert (whole == better_of(a @ b.T, np.arange(60))).all()


def test_a_large_pool_is_no_overflow():
    beaten = np.array([0, 1, 500, 100_000])
    one = np.exp(np.log1p(-199 / (199_999 - np.arange(500))).sum())  # C(N-1-500, 199) / C(N-1, 199), factor by factor
    expected = np.mean([1.0, 1 - 199 / 199_999, one, 0.0])
    assert pool_accuracy(beaten, 200_000, 200) == pytest.approx(expected, abs=1e-9)


def test_equal_scores_count_as_beaten_and_pools_larger_than_the_candidates_are_refused():
    assert list(better_of(np.array([[1.0, 1.0, 0.0]]), np.array([0]))) == [1]
    with pytest.raises(XtError, match="There are 3 candidates, fewer than a pool of 4"):
        pool_accuracy(np.array([0]), 3, 4)
    with pytest.raises(XtError, match="NaN or infinity"):
        better_of(np.array([[np.nan, 1.0]]), np.array([0]))


def test_groups_are_those_of_the_language_table():
    values = {"deu": 0.9, "nld": 0.7, "swh": 0.4, "jav": 0.2, "xyz": 0.1}
    assert means_by(values, "family")["IE Germanic"] == {
        "mean": pytest.approx(0.8),
        "n": 2,
        "languages": ["deu", "nld"],
    }
    assert means_by(values, "joshi")["2"]["languages"] == ["swh"]
    assert means_by(values, "resource")["low"]["mean"] == pytest.approx(0.3)
    assert means_by(values, "script")["unknown"]["languages"] == ["xyz"]
    for by, found in all_groups(dict.fromkeys(LANGUAGES, 0.5)).items():
        assert sum(row["n"] for row in found.values()) == len(LANGUAGES), by
    with pytest.raises(XtError, match="There is no number for swh"):
        means_by({"deu": 0.5, "swh": float("nan")}, "family")
    with pytest.raises(XtError, match="Unknown grouping"):
        means_by(values, "colour")
