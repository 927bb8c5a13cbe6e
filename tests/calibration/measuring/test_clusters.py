"""Resamples that languages share: a bootstrap by itself, the same for the same ids, and as wide as sentences allow."""

from __future__ import annotations

import numpy as np
import pytest

from xt.calibration.measuring import measures
from xt.calibration.measuring.clusters import shared_draws
from xt.core.errors import XtError


def ids(start: int, stop: int) -> np.ndarray:
    return np.array([f"sentence {i}" for i in range(start, stop)])


def test_ids_that_are_there_once_are_drawn_as_the_bootstrap_does():
    n, repeats = 120, 4000
    counts = shared_draws(ids(0, n), repeats).astype(int)
    assert counts.shape == (repeats, n) and (counts.sum(1) == n).all()
    # multinomial: mean 1, variance 1 - 1/n, covariance -1/n
    assert counts.mean(0) == pytest.approx(np.ones(n), abs=0.08)
    assert counts.var(0).mean() == pytest.approx(1 - 1 / n, abs=0.01)
    assert np.cov(counts[:, 0], counts[:, 1:].sum(1))[0, 1] == pytest.approx(-(1 - 1 / n), abs=0.08)
    shares = np.bincount(counts.ravel(), minlength=4)[:4] / counts.size
    p = [(1 - 1 / n) ** n, (1 - 1 / n) ** (n - 1)]
    assert shares[:2] == pytest.approx(p, abs=0.004)


def test_sets_of_items_go_together_as_far_as_they_share_ids():
    one = shared_draws(ids(0, 200), 3000).astype(float)
    turned = shared_draws(ids(0, 200)[::-1], 3000)
    assert (turned[:, ::-1] == one).all()
    values = np.random.default_rng(0).normal(size=400)  # of each sentence

    def means(start, stop):
        return shared_draws(ids(start, stop), 3000) @ values[start:stop] / (stop - start)

    whole, half, none = means(0, 200), means(100, 300), means(200, 400)
    assert abs(np.corrcoef(whole, none)[0, 1]) < 0.06
    # Of a plain bootstrap of all 300 sentences, each set the drawn ones that it holds: an independent reference.
    rng = np.random.default_rng(1)
    picked = rng.integers(0, 300, (3000, 300))
    plain = [[values[p[(p >= a) & (p < b)]].mean() for p in picked] for a, b in ((0, 200), (100, 300))]
    assert np.corrcoef(whole, half)[0, 1] == pytest.approx(np.corrcoef(*plain)[0, 1], abs=0.06)
    assert not (shared_draws(ids(0, 200), 30, seed=1) == one[:30]).all()


def test_items_of_one_id_are_drawn_together_and_the_last_is_cut():
    member = np.repeat(np.arange(40), 5)
    counts = shared_draws(np.array([f"document {i}" for i in member]), 500).astype(int)
    assert (counts.sum(1) == 200).all()
    each = counts.reshape(500, 40, 5)
    assert (each.max(2) == each.min(2)).all()  # 200 is a multiple of 5: nothing to cut
    uneven = np.array(["a"] * 7 + ["b"] * 3 + ["c"] * 2)
    counts = shared_draws(uneven, 300).astype(int)
    assert (counts.sum(1) == 12).all()
    parts = [counts[:, :7], counts[:, 7:10], counts[:, 10:]]
    assert (sum((p.max(1) != p.min(1)).astype(int) for p in parts) <= 1).all()
    assert all((p.max(1) - p.min(1) <= 1).all() for p in parts)
    assert counts[:, 0].std() > 0.3


def test_the_interval_of_a_mean_over_translations_is_that_of_their_sentences():
    """Ten languages that all fail on the same sentences are no more than one; by themselves they would look like ten."""
    rng = np.random.default_rng(0)
    confidence = rng.beta(3, 1, 300)
    correct = (rng.random(300) < confidence).astype(float)
    shared, apart, boots, alone = {}, {}, {}, {}
    for i in range(10):
        near = np.clip(confidence + rng.normal(0, 0.001, 300), 0, 1)
        shared[str(i)], boots[str(i)] = measures.measure_and_draw(near, correct, ids=ids(0, 300))
        apart[str(i)], alone[str(i)] = measures.measure_and_draw(near, correct)

    def width(row):
        return row["gap_ci"][1] - row["gap_ci"][0]

    together = width(measures.average(shared, boots, shared))
    assert together == pytest.approx(width(shared["0"]), rel=0.15)
    assert width(measures.average(apart, alone, apart)) < together / 2.5


def test_means_of_gaps_do_not_offset_each_other():
    rng = np.random.default_rng(0)
    rows, boots = {}, {}
    for code, shift in (("deu", 0.1), ("swh", -0.12), ("cmn", 0.0)):
        truth = rng.uniform(0.3, 0.8, 2000)
        correct = (rng.random(2000) < truth).astype(float)
        rows[code], boots[code] = measures.measure_and_draw(truth + shift, correct, ids=ids(0, 2000))
    mean = measures.average(rows, boots, rows)
    gaps = [rows[code]["gap"] for code in rows]
    assert abs(mean["gap"]) < 0.02 and mean["gap"] == pytest.approx(np.mean(gaps))
    assert mean["mean_gap"] == pytest.approx(np.mean(np.abs(gaps))) and mean["mean_gap"] > 0.06
    assert mean["worst_gap_language"] == "swh" and mean["worst_gap"] == rows["swh"]["gap"] < -0.1
    assert (mean["gaps_outside"], mean["gap_intervals"]) == (2, 3)
    low, high = mean["mean_gap_ci"]
    assert 0.04 < low < mean["mean_gap"] < high < 0.1
    assert mean["mean_gap_null"] == pytest.approx(np.mean([r["gap_null"] for r in rows.values()]))


def test_ids_that_do_not_match_are_refused():
    with pytest.raises(XtError, match="Expected 2 ids"):
        measures.bootstrap_rows(np.array([0.5, 0.6]), np.array([1, 0]), ids=np.array(["a"]))
