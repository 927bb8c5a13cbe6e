"""XTREME's and MTEB's figures of one retrieval are those of independent libraries, and named."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from xt.core.data.bitext import Bitext
from xt.eval.retrieval.conventions import figures, section, weighted_f1
from xt.eval.retrieval.ranking import DIRECTIONS, Encodings, rank


def noisy(n: int, seed: int = 0) -> Encodings:
    rng = np.random.default_rng(seed)
    english = rng.standard_normal((n, 10)).astype(np.float32)
    foreign = english + 1.2 * rng.standard_normal((n, 10)).astype(np.float32)
    return Encodings(*(v / np.linalg.norm(v, axis=1, keepdims=True) for v in (foreign, english)), 0, 0)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_f1_is_scikit_learns_weighted_f1_as_mteb_takes_it(direction):
    vectors = noisy(300)
    pairs = Bitext("deu", tuple(f"a{i}" for i in range(300)), tuple(f"b{i}" for i in range(300)))
    ranking = rank(pairs, vectors, direction)
    expected = f1_score(np.arange(300), ranking.rows[:, 0], average="weighted", zero_division=0)
    assert 0.1 < expected < 0.9
    assert weighted_f1(ranking) == pytest.approx(expected, abs=1e-12)


def test_both_directions_and_pools_are_in_the_section_and_small_languages_are_named():
    rows = {}
    for code, n in (("deu", 60), ("jav", 30)):
        vectors = noisy(n)
        pairs = Bitext(code, tuple(f"a{i}" for i in range(n)), tuple(f"b{i}" for i in range(n)))
        ranking = rank(pairs, vectors, DIRECTIONS[1])
        rows[code] = {"accuracy": float((ranking.gold == 0).mean()), **figures(ranking, vectors, DIRECTIONS[1], 40)}
    assert rows["jav"]["accuracy_pool"] is None
    assert rows["deu"]["accuracy_pool"] > rows["deu"]["accuracy"]  # fewer candidates are easier
    found = section(rows, DIRECTIONS[1], {"deu": "high", "jav": "low"}, 40)
    assert (found["pool"], found["pool_missing"]) == (40, ["jav"])
    assert found["pool_mean"] == {"all": rows["deu"]["accuracy_pool"], "high": rows["deu"]["accuracy_pool"]}
    assert "XTREME" in found["convention"]
    assert found["groups"]["family"]["Austronesian"]["accuracy"] == rows["jav"]["accuracy"]
    without = section({"jav": rows["jav"]}, DIRECTIONS[1], {"jav": "low"}, 40)
    assert without["pool_missing"] == ["jav"] and "pool_mean" not in without
    assert without["notes"] == ["no language has 40 candidates: no accuracy in pools of one size"]
