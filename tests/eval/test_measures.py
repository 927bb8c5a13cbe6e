"""The measures of calibration agree with other libraries and with numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import brier_score_loss, roc_auc_score

from xt.core.errors import XtError
from xt.eval import measures


def data(n: int = 400, seed: int = 0, power: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, and outcomes that are right with probability confidence ** power."""
    rng = np.random.default_rng(seed)
    confidence = rng.beta(3, 1, n)
    return confidence, (rng.random(n) < confidence**power).astype(float)


def plain_ece(confidence, correct, bins=15):
    order = sorted(range(len(confidence)), key=lambda i: confidence[i])
    total = 0.0
    for part in np.array_split(np.array(order), min(bins, len(order))):
        total += len(part) / len(order) * abs(np.mean(confidence[part]) - np.mean(correct[part]))
    return total


@pytest.mark.parametrize("seed", range(4))
def test_equal_width_ece_is_that_of_torchmetrics(seed):
    import torch
    from torchmetrics.functional.classification import binary_calibration_error

    confidence, correct = data(seed=seed, power=2)
    assert not np.isin(confidence * 15, np.arange(16)).any(), "an edge value: torchmetrics puts it elsewhere"
    # With 0/1 targets torchmetrics takes `preds` as the confidence of class 1: its accuracy in a bin is mean(target).
    expected = binary_calibration_error(
        torch.tensor(confidence), torch.tensor(correct).long(), n_bins=15, norm="l1", validate_args=False
    )
    assert measures.ece_equal_width(confidence, correct) == pytest.approx(float(expected), abs=1e-6)


def test_equal_width_bins_hold_their_upper_edge():
    # bins (0, .5] and (.5, 1]: 0, 0.25 and 0.5 in the first, 0.75 and 1 in the second.
    confidence = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    correct = np.array([0.0, 0.0, 1.0, 1.0, 0.0])
    # first: |0.75 - 1| / 5, second: |1.75 - 1| / 5
    assert measures.ece_equal_width(confidence, correct, bins=2) == pytest.approx(0.05 + 0.15)
    # with 0.5 in the second: |0.25 - 0| / 5 + |2.25 - 2| / 5 = 0.1
    assert measures.ece_equal_width(confidence, correct, bins=2) != pytest.approx(0.1)


@pytest.mark.parametrize("bins", [5, 10, 15])
def test_every_edge_falls_into_the_bin_below(bins):
    for m in range(1, bins + 1):
        edge = m / bins
        inside = edge - 0.5 / bins
        # One right at the edge and one wrong just below: in one bin their gaps partly cancel.
        found = measures.ece_equal_width(np.array([edge, inside]), np.array([1.0, 0.0]), bins=bins)
        assert found == pytest.approx(abs(edge + inside - 1) / 2), m


@pytest.mark.parametrize("n", [1, 7, 15, 16, 100, 401])
def test_equal_mass_ece_is_that_of_a_plain_loop(n):
    confidence, correct = data(n, seed=n, power=1.5)
    assert measures.ece(confidence, correct) == pytest.approx(plain_ece(confidence, correct), abs=1e-12)


@pytest.mark.parametrize(("n", "bins"), [(1, 15), (14, 15), (15, 15), (100, 15), (44, 7)])
def test_groups_of_equal_mass_are_those_of_array_split(n, bins):
    starts = measures.equal_mass(n, bins)
    groups = np.split(np.arange(n), starts[1:])
    expected = np.array_split(np.arange(n), min(n, bins))
    assert [g.tolist() for g in groups] == [g.tolist() for g in expected]


def test_equal_mass_ece_by_hand():
    confidence = np.array([0.9, 0.6, 0.8, 0.7])
    correct = np.array([1.0, 1.0, 0.0, 0.0])
    # sorted: (.6 1) (.7 0) | (.8 0) (.9 1) -> |1.3 - 1| / 4 + |1.7 - 1| / 4
    assert measures.ece(confidence, correct, bins=2) == pytest.approx(0.25)


def test_ece_of_sure_and_right_is_zero_and_of_sure_and_wrong_is_one():
    ones, zeros = np.ones(40), np.zeros(40)
    for one in (measures.ece, measures.ece_equal_width):
        assert one(ones, ones) == 0
        assert one(ones, zeros) == 1


@pytest.mark.parametrize("seed", range(3))
def test_brier_is_that_of_scikit_learn(seed):
    confidence, correct = data(seed=seed)
    assert measures.brier(confidence, correct) == pytest.approx(brier_score_loss(correct, confidence))


def test_auroc_is_that_of_scikit_learn_with_and_without_ties():
    confidence, correct = data(power=3)
    rounded = confidence.round(1)
    assert len(np.unique(rounded)) < 12
    for one in (confidence, rounded, np.full(len(correct), 0.5)):
        assert measures.auroc(one, correct) == pytest.approx(roc_auc_score(correct, one))
    assert measures.auroc(np.full(4, 0.5), np.array([0, 1, 1, 0])) == 0.5


@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_auroc_of_one_class_is_none(outcome):
    assert measures.auroc(np.array([0.1, 0.9]), np.full(2, outcome)) is None


@pytest.mark.parametrize(("right", "n"), [(0, 10), (1, 10), (8, 10), (10, 10), (390, 1000), (999, 1000), (1, 1)])
def test_wilson_is_that_of_scipy(right, n):
    expected = binomtest(right, n).proportion_ci(0.95, method="wilson")
    found = measures.wilson(right, n)
    assert found == pytest.approx([expected.low, expected.high], abs=2e-5)
    assert 0 <= found[0] <= found[1] <= 1


def test_the_null_value_is_what_perfectly_calibrated_data_show():
    observed = [measures.ece(*data(300, seed)) for seed in range(100)]
    expected = measures.ece_null(data(300)[0])
    assert expected == pytest.approx(np.mean(observed), rel=0.05)
    assert min(observed) < expected < max(observed)


def test_overconfident_data_lie_far_above_the_null_value():
    confidence, correct = data(300, power=4)
    assert measures.ece(confidence, correct) > 3 * measures.ece_null(confidence)


def test_the_null_value_falls_with_more_queries():
    assert measures.ece_null(data(1600)[0]) < 0.7 * measures.ece_null(data(200)[0])


def test_the_same_seed_gives_the_same_draws():
    confidence, correct = data()
    assert measures.ece_null(confidence, seed=3) == measures.ece_null(confidence, seed=3)
    assert measures.ece_null(confidence, seed=3) != measures.ece_null(confidence, seed=4)
    first, again, other = (measures.ece_bootstrap(confidence, correct, seed=s) for s in (3, 3, 4))
    assert (first == again).all() and (first != other).any()


def test_the_bootstrap_resamples_pairs_and_spreads_as_fresh_samples_do():
    confidence, correct = data(400, power=3)
    drawn = measures.ece_bootstrap(confidence, correct, repeats=300)
    fresh = [measures.ece(*data(400, seed, power=3)) for seed in range(100)]
    assert drawn.shape == (300,)
    assert np.std(drawn) == pytest.approx(np.std(fresh), rel=0.3)
    sure = np.ones(20)
    assert measures.ece_bootstrap(sure, sure).tolist() == [0.0] * measures.REPEATS


def test_reliability_bins_add_up_to_the_ece():
    confidence, correct = data(401, power=2)
    rows = measures.reliability(confidence, correct)
    assert len(rows) == 15 and sum(r["count"] for r in rows) == 401
    total = sum(r["count"] * abs(r["confidence"] - r["accuracy"]) for r in rows) / 401
    assert total == pytest.approx(measures.ece(confidence, correct))
    assert all(r["low"] <= r["confidence"] <= r["high"] for r in rows)
    assert all(a["high"] <= b["low"] for a, b in zip(rows, rows[1:], strict=False))


MEASURES = [
    measures.ece,
    measures.ece_equal_width,
    measures.brier,
    measures.auroc,
    measures.reliability,
    measures.ece_bootstrap,
]


@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: m.__name__)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.01, 1.01])
def test_what_is_no_probability_is_refused(measure, bad):
    with pytest.raises(XtError, match="not a probability"):
        measure(np.array([0.5, bad]), np.array([1.0, 0.0]))


@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: m.__name__)
@pytest.mark.parametrize("rows", [([], []), ([0.5], [1, 0]), ([[0.5]], [[1]])])
def test_rows_that_do_not_match_are_refused(measure, rows):
    with pytest.raises(XtError, match="two equal, non-empty rows"):
        measure(np.array(rows[0]), np.array(rows[1]))
