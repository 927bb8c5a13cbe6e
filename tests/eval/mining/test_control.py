"""What is promised of mined pairs holds over many dev and test parts, and agrees with MAPIE, SciPy and scikit-learn.

Tests `calibration/guarantees.py` as well.
"""

from __future__ import annotations

import numpy as np
import pytest
from mapie.risk_control import BinaryClassificationController
from mapie.risk_control.fwer_control import FWERFixedSequenceTesting
from scipy.stats import beta, binom
from sklearn.linear_model import LogisticRegression

from xt.calibration.guarantees import conformal_p_values, discoveries, guaranteed_threshold
from xt.core.errors import XtError
from xt.eval.mining import control as mining_control
from xt.eval.mining.control import control, fit_probability
from xt.eval.mining.margin import Candidates, Mined


def drawn(rng: np.random.Generator, n: int, share: float = 0.85, apart: float = 1.2) -> Mined:
    """A part whose right pairs score higher: right ~ N(apart, 1), wrong ~ N(0, 1), in units of 0.05 around 1."""
    right = rng.random(n) < share
    score = 1 + 0.05 * rng.normal(apart * right, 1.0)
    order = np.argsort(-score)
    score, right = score[order], right[order]
    cosine, gap = score * 0.5 + 0.01 * rng.normal(size=n), 0.1 * right + 0.1 * rng.normal(size=n)
    found = Candidates(np.arange(n), np.arange(n), score, cosine, gap, np.full(n, 0.5), 0.4 + 0.1 * rng.random(n))
    return Mined(found, tuple((str(i), str(i)) for i in range(n)), right, int(right.sum()), {})


def test_the_promise_of_precision_breaks_no_more_often_than_stated():
    rng = np.random.default_rng(0)
    true = drawn(rng, 400_000)
    broken = given = 0
    for _ in range(300):
        found = guaranteed_threshold(drawn(rng, 400).predictions(), precision=0.9, risk=0.1)
        if found.threshold is not None:
            given += 1
            broken += true.right[true.candidates.score >= found.threshold].mean() < 0.9
    assert given > 150  # and it is not silent
    assert broken <= binom.ppf(0.999, 300, 0.1)


def test_choosing_by_the_plain_precision_of_dev_would_break_it():
    """What the guarantee is against: the lowest threshold whose dev precision reaches the target."""
    rng = np.random.default_rng(0)
    true = drawn(rng, 400_000)
    broken = 0
    for _ in range(100):
        dev = drawn(rng, 400)
        good = np.flatnonzero(np.cumsum(dev.right) / np.arange(1, 401) >= 0.9)
        broken += true.right[true.candidates.score >= dev.candidates.score[good[-1]]].mean() < 0.9
    assert broken > 25


@pytest.mark.parametrize("starts", [1, 5, 20])
def test_the_sequences_share_the_risk(starts):
    for seed in range(40):
        dev = drawn(np.random.default_rng(seed), 500)
        found = guaranteed_threshold(dev.predictions(), precision=0.9, risk=0.1, starts=starts)
        if found.threshold is not None:
            kept = dev.candidates.score >= found.threshold
            assert binom.sf(int(dev.right[kept].sum()) - 1, int(kept.sum()), 0.9) <= 0.1 / starts + 1e-12


def test_a_certified_threshold_passes_clopper_pearson_at_the_level_of_its_sequence():
    dev = drawn(np.random.default_rng(4), 600)
    found = guaranteed_threshold(dev.predictions(), precision=0.9, risk=0.1, starts=1)
    assert found.threshold is not None
    kept = dev.candidates.score >= found.threshold
    n, hits = int(kept.sum()), int(dev.right[kept].sum())
    lower = beta.ppf(0.1, hits, n - hits + 1)  # one-sided Clopper-Pearson bound at confidence 0.9
    assert lower >= 0.9


@pytest.mark.filterwarnings("ignore:Fixed sequence testing requires")
def test_certified_thresholds_agree_with_mapies_learn_then_test():
    dev = drawn(np.random.default_rng(5), 2000, apart=2.5)
    ours = guaranteed_threshold(dev.predictions(), precision=0.9, risk=0.1, starts=1)
    score = dev.candidates.score
    scaled = (score - score.min()) / (score.max() - score.min())
    grid = scaled[np.linspace(60, 1999, 80).astype(int)]  # from high to low
    theirs = BinaryClassificationController(
        lambda x: np.column_stack([1 - x[:, 0], x[:, 0]]),
        "precision",
        target_level=0.9,
        confidence_level=0.9,
        list_predict_params=grid,
        fwer_method=FWERFixedSequenceTesting(n_starts=1),
    ).calibrate(scaled[:, None], dev.right.astype(int))
    assert ours.threshold is not None and len(theirs.valid_predict_params)
    lowest = float(np.min(theirs.valid_predict_params)) * (score.max() - score.min()) + score.min()
    places = np.linspace(60, 1999, 80).astype(int)
    exact = binom.sf(np.cumsum(dev.right)[places] - 1, places + 1, 0.9)
    assert np.ravel(theirs.p_values)[:70] == pytest.approx(exact[:70], abs=2e-5)  # the same test, the same numbers
    step = 1 + 2000 / 80  # and the same choice, to a step of the coarser grid
    assert abs(int((score >= ours.threshold).sum()) - int((score >= lowest - 1e-12).sum())) <= step


def test_too_few_pairs_certify_nothing():
    dev = drawn(np.random.default_rng(0), 40)
    assert guaranteed_threshold(dev.predictions(), precision=0.95, risk=0.1).threshold is None
    row, _, _ = control(dev, dev, precision=0.95)
    assert row["guarantee"] is None
    assert any("no threshold of precision 0.95 can be certified from 40 pairs" in note for note in row["notes"])


def test_conformal_p_values_are_ranks_among_the_wrong_pairs():
    wrong, score = np.array([1.0, 2.0, 2.0, 5.0]), np.array([0.0, 2.0, 3.0, 6.0])
    by_hand = [(1 + sum(w >= s for w in wrong)) / 5 for s in score]
    assert conformal_p_values(wrong, score) == pytest.approx(by_hand)


def test_the_share_of_false_discoveries_is_held_on_average():
    rng = np.random.default_rng(1)
    shares, found = [], 0
    for _ in range(200):
        dev, test = drawn(rng, 500, apart=2.5, share=0.6), drawn(rng, 400, apart=2.5, share=0.6)
        chosen = discoveries(dev.predictions(), test.predictions(), fdr=0.1)
        shares.append((~test.right[chosen]).mean() if chosen.any() else 0.0)
        found += int(chosen.sum())
    assert np.mean(shares) <= 0.1
    assert found > 200 * 50  # and it finds something


def test_benjamini_hochberg_written_out_chooses_the_same():
    rng = np.random.default_rng(2)
    dev, test = drawn(rng, 300), drawn(rng, 200)
    p = conformal_p_values(dev.candidates.score[~dev.right], test.candidates.score)
    ordered = np.sort(p)
    below = np.flatnonzero(ordered <= 0.2 * np.arange(1, 201) / 200)
    limit = ordered[below[-1]] if len(below) else -1.0
    assert (discoveries(dev.predictions(), test.predictions(), fdr=0.2) == (p <= limit)).all()


def test_the_probability_is_scikit_learns_logistic_regression_and_calibrated():
    rng = np.random.default_rng(3)
    dev, test = drawn(rng, 3000), drawn(rng, 3000)
    fitted = fit_probability([dev])
    assert fitted is not None
    features = dev.candidates.features()
    scale = np.maximum(features.std(0), 1e-9)
    theirs = LogisticRegression(C=10.0, tol=1e-10, max_iter=10_000).fit(
        (features - features.mean(0)) / scale, dev.right
    )
    asked = test.candidates.features()
    expected = theirs.predict_proba((asked - features.mean(0)) / scale)[:, 1]
    assert fitted(asked) == pytest.approx(expected, abs=1e-6)
    row, _, chances = control(dev, test)
    assert chances == pytest.approx(expected, abs=1e-6)
    assert row["probability"]["ece"] < row["probability"]["ece_null"] + 0.02
    bins = np.array_split(np.argsort(expected), 10)
    assert max(abs(expected[b].mean() - test.right[b].mean()) for b in bins) < 0.08
    assert set(fitted.to_json()) == {"kind", "features", "centre", "spread", "weights", "bias"}


def test_a_small_dev_part_takes_the_probability_of_all_languages_and_says_so():
    rng = np.random.default_rng(6)
    large, small, test = drawn(rng, 2000), drawn(rng, 60), drawn(rng, 100)
    pooled = fit_probability([large, small])
    row, calibrator, _ = control(small, test, pooled=pooled)
    assert calibrator is pooled and row["probability"]["scope"] == "pooled"
    assert any("fitted on the dev parts of all languages" in note for note in row["notes"])
    row, calibrator, chances = control(small, test)
    assert calibrator is None and chances is None and row["probability"] is None
    assert any("too few to fit a probability (at least 30)" in note for note in row["notes"])


def test_one_class_on_dev_is_said_and_gives_no_number():
    rng = np.random.default_rng(7)
    dev, test = drawn(rng, 200, share=1.0), drawn(rng, 200)
    row, _, _ = control(dev, test)
    assert row["fdr"] is None and row["probability"] is None
    assert any("no wrong pair was mined on dev" in note for note in row["notes"])
    with pytest.raises(XtError, match="No wrong pair was mined on dev"):
        discoveries(dev.predictions(), test.predictions())
    with pytest.raises(XtError, match="must lie between 0 and 1"):
        guaranteed_threshold(dev.predictions(), precision=1.0)
    assert mining_control.PRECISION == 0.95
