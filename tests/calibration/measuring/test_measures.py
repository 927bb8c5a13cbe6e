"""The measures of calibration agree with other libraries and with numbers worked out by hand.

Tests `calibration/measuring/resampling.py` and `calibration/measuring/selective.py` as well.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.stats import binom, binomtest
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from xt.calibration.measuring import measures, resampling
from xt.core.errors import XtError


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


def test_binomial_quantiles_are_scipys():
    rng = np.random.default_rng(0)
    n = rng.integers(1, 500, 5000)
    p = np.concatenate([rng.random(4600), rng.random(200) * 1e-6, 1 - rng.random(198) * 1e-9, [0, 1]])
    share = np.array([[0.025], [0.975], [0.5]])
    np.testing.assert_array_equal(measures.binomial_quantile(share, n, p), binom.ppf(share, n, p))


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


def plain_aurc(confidence, correct):
    order = sorted(range(len(confidence)), key=lambda i: -confidence[i])
    return float(np.mean([1 - np.mean(correct[order[:k]]) for k in range(1, len(order) + 1)]))


@pytest.mark.parametrize("seed", range(3))
def test_mce_is_the_largest_gap_of_torchmetrics(seed):
    import torch
    from torchmetrics.functional.classification import binary_calibration_error

    confidence, correct = data(seed=seed, power=2)
    expected = binary_calibration_error(
        torch.tensor(confidence), torch.tensor(correct).long(), n_bins=15, norm="max", validate_args=False
    )
    assert measures.mce(confidence, correct) == pytest.approx(float(expected), abs=1e-6)


def test_nll_is_the_log_loss_of_scikit_learn_also_at_the_ends():
    confidence, correct = data(power=2)
    confidence[:3], correct[:3] = [0.0, 1.0, 1.0], [1.0, 0.0, 1.0]
    assert measures.nll(confidence, correct) == pytest.approx(log_loss(correct, confidence), abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_classwise_ece_is_the_mean_of_plain_loops(seed):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet([1, 2, 3, 0.5], 300)
    labels = rng.integers(0, 4, 300)
    total = 0.0
    for k in range(4):
        for m in range(1, 16):
            inside = (p[:, k] > (m - 1) / 15) & (p[:, k] <= m / 15)
            if inside.any():
                total += inside.mean() * abs((labels == k)[inside].mean() - p[inside, k].mean())
    assert measures.classwise_ece(p, labels) == pytest.approx(total / 4, abs=1e-12)


@pytest.mark.parametrize(
    ("p", "labels"),
    [
        ([[0.5, 0.6]], [0]),
        ([[0.5, 0.5]], [2]),
        ([[0.5, 0.5]], [-1]),
        ([[0.5, np.nan]], [0]),
        ([[0.5, 0.5]], [0, 1]),
        ([[0.5, 0.5]], [0.0]),
        ([], []),
    ],
)
def test_classwise_ece_refuses_what_is_no_distribution_or_no_class(p, labels):
    with pytest.raises(XtError, match="probabilities|class number"):
        measures.classwise_ece(p, np.array(labels))


def test_debiased_l2_is_the_formula_of_kumar_liang_and_ma():
    confidence, correct = data(301, power=2)
    order = np.argsort(confidence, kind="stable")
    square = 0.0
    for part in np.array_split(order, 15):
        rate = correct[part].mean()
        square += len(part) / 301 * ((confidence[part].mean() - rate) ** 2 - rate * (1 - rate) / (len(part) - 1))
    assert square > 0
    assert measures.ece_debiased(confidence, correct, norm="l2") == pytest.approx(np.sqrt(square), abs=1e-12)
    sure = np.full(60, 0.5)
    assert measures.ece_debiased(sure, np.tile([0.0, 1.0], 30), norm="l2") == 0  # below zero under the root


def test_debiased_l1_is_what_normal_draws_give():
    # as in `calibration.utils.normal_debiased_ce` of Kumar's library: plug-in less (mean over draws less plug-in)
    confidence, correct = data(301, power=2)
    parts = np.array_split(np.argsort(confidence, kind="stable"), 15)
    share = np.array([len(p) / 301 for p in parts])
    sure, rate = (np.array([x[p].mean() for p in parts]) for x in (confidence, correct))
    rng = np.random.default_rng(0)
    drawn = rng.normal(rate, np.sqrt(rate * (1 - rate) / (301 * share)), (100_000, 15))
    plugin = (share * np.abs(sure - rate)).sum()
    expected = plugin - ((share * np.abs(drawn - sure)).sum(1).mean() - plugin)
    assert expected < plugin - 0.005
    assert measures.ece_debiased(confidence, correct) == pytest.approx(expected, abs=3e-4)


def test_debiasing_absolute_gaps_leaves_three_fifths_of_what_is_chance_alone():
    # |g| has mean a = s sqrt(2 / pi) where g ~ N(0, s), and |N(g, s)| has a sqrt(2): 2 a - sqrt(2) a is left.
    null = measures.null_rows(data(3000)[0])
    assert null["ece_debiased"].mean() == pytest.approx((2 - np.sqrt(2)) * null["ece"].mean(), rel=0.05)


@pytest.mark.parametrize("digits", [12, 1])
def test_parts_of_the_brier_score_add_up_and_are_murphys_where_bins_hold_one_value(digits):
    confidence, correct = data(400, power=2)
    confidence = confidence.round(digits)
    parts = measures.brier_decomposition(confidence, correct)
    total = parts["reliability"] - parts["resolution"] + parts["uncertainty"] + parts["within"]
    assert total == pytest.approx(brier_score_loss(correct, confidence), abs=1e-12) == parts["brier"]
    three = np.repeat([0.2, 0.5, 0.9], 100)
    right = np.concatenate([np.arange(100) < k for k in (30, 40, 95)]).astype(float)
    parts = measures.brier_decomposition(three, right, bins=3)
    assert parts["within"] == pytest.approx(0)
    assert parts["reliability"] == pytest.approx((0.1**2 + 0.1**2 + 0.05**2) / 3)
    base = 165 / 300
    assert parts["resolution"] == pytest.approx(sum((x - base) ** 2 for x in (0.3, 0.4, 0.95)) / 3)
    assert parts["uncertainty"] == pytest.approx(base * (1 - base))


def test_aurc_by_hand_and_by_a_plain_loop():
    # surest first: right, wrong, right, wrong -> risks 0, 1/2, 1/3, 1/2
    confidence, correct = np.array([0.9, 0.8, 0.7, 0.6]), np.array([1.0, 0.0, 1.0, 0.0])
    assert measures.aurc(confidence, correct) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    # best order: right, right, wrong, wrong -> 0, 0, 1/3, 1/2
    assert measures.eaurc(confidence, correct) == pytest.approx((1 / 2) / 4)
    for seed in range(3):
        confidence, correct = data(200, seed)
        assert measures.aurc(confidence, correct) == pytest.approx(plain_aurc(confidence, correct), abs=1e-12)


def test_aurc_of_ties_is_the_mean_over_their_orders():
    confidence, correct = data(120, power=2)
    rounded = confidence.round(1)
    rng = np.random.default_rng(0)
    orders = [plain_aurc(rounded[o], correct[o]) for o in (rng.permutation(120) for _ in range(500))]
    assert np.std(orders) > 0.002
    assert measures.aurc(rounded, correct) == pytest.approx(np.mean(orders), abs=4 * np.std(orders) / np.sqrt(500))
    assert measures.aurc(np.full(9, 0.5), np.array([1, 0, 0, 1, 1, 1, 1, 0, 0.0])) == pytest.approx(4 / 9)


@pytest.mark.parametrize("n", [7, 90, 1003])
@pytest.mark.parametrize("ties", [False, True])
def test_the_nauc_of_abstention_is_that_of_mteb(n, ties):
    from mteb._evaluators.retrieval_metrics import nauc

    confidence, correct = data(n, power=2)
    confidence = confidence.round(1) if ties else confidence
    graded = np.random.default_rng(1).random(n).round(2)  # as nDCG
    for values in (correct, graded):
        assert measures.abstention_nauc(confidence, values) == pytest.approx(nauc(confidence, values), abs=1e-12)
    assert measures.abstention_nauc(correct, correct) == pytest.approx(1)
    assert measures.abstention_nauc(np.ones(n), correct) == pytest.approx(0, abs=1e-12)
    assert measures.abstention_nauc(confidence, np.ones(n)) is None


def test_the_nauc_of_abstention_by_hand():
    # ten answers, the two surest right: the means of what is left at 0, .1, ..., .9
    confidence, correct = np.arange(10) / 10, np.array([0.0] * 8 + [1, 1])
    assert measures.abstention_nauc(confidence, correct) == pytest.approx(1)
    swapped = np.array([0.0] * 7 + [1, 0, 1])
    best = [2 / 10, 2 / 9, 2 / 8, 2 / 7, 2 / 6, 2 / 5, 2 / 4, 2 / 3, 1, 1]
    found = [*best[:8], 1 / 2, 1]
    area = [0.1 * (sum(c) - (c[0] + c[-1]) / 2) - 0.9 * 0.2 for c in (found, best)]
    assert measures.abstention_nauc(confidence, swapped) == pytest.approx(area[0] / area[1])
    for bad in (np.arange(9), np.full(10, np.nan)):
        with pytest.raises(XtError):
            measures.abstention_nauc(bad, correct)


def test_risk_coverage_by_hand_answers_all_of_a_tie_or_none():
    confidence = np.array([0.9, 0.7, 0.7, 0.4, 0.2])
    correct = np.array([1.0, 0.0, 1.0, 1.0, 0.0])
    curve = measures.risk_coverage(confidence, correct)
    assert curve == [[0.2, 0.0], [0.6, pytest.approx(1 / 3)], [0.8, 0.25], [1.0, 0.4]]
    assert measures.coverage_at_risk(confidence, correct, 0.3) == 0.8
    assert measures.coverage_at_risk(confidence, correct, 0.24) == 0.2
    assert measures.coverage_at_risk(confidence, correct, 0.25) == 0.8  # at most, not below
    assert measures.coverage_at_risk(confidence, 1 - correct, 0.3) == 0
    assert measures.risk_at_coverage(confidence, correct, 0.8) == 0.25
    assert measures.risk_at_coverage(confidence, correct, 0.4) == 0.25  # half of the tie: half an error among two
    assert measures.risk_at_coverage(confidence, correct, 0.0) == 0
    for bad in (-0.1, 1.1, np.nan):
        with pytest.raises(XtError, match=r"in 0\.\.1"):
            measures.risk_at_coverage(confidence, correct, bad)
        with pytest.raises(XtError, match=r"in 0\.\.1"):
            measures.coverage_at_risk(confidence, correct, bad)


def test_a_thinned_curve_keeps_points_of_the_whole_one_and_its_end():
    confidence, correct = data(1000)
    whole, thin = measures.risk_coverage(confidence, correct, points=1000), measures.risk_coverage(confidence, correct)
    assert len(whole) == 1000 and 90 <= len(thin) <= 100
    assert all(p in whole for p in thin) and thin[-1] == whole[-1] and thin[0] == whole[0]


def plain(confidence, correct):
    """Every key of `measure`, each by itself, with libraries or loops."""
    index = np.clip(np.ceil(confidence * 15).astype(int) - 1, 0, 14)
    gaps = [abs((confidence - correct)[index == m].sum()) for m in range(15)]
    held = [max((index == m).sum(), 1) for m in range(15)]
    one_class = len(set(correct)) == 1
    return {
        "ece": plain_ece(confidence, correct),
        "ece_equal_width": sum(gaps) / len(confidence),
        "mce": max(g / h for g, h in zip(gaps, held, strict=True)),
        "brier": brier_score_loss(correct, confidence, pos_label=1),
        "nll_binary": log_loss(correct, confidence, labels=[0, 1]),
        "auroc": np.nan if one_class else roc_auc_score(correct, confidence),
    }


@pytest.mark.parametrize("ties", [False, True])
def test_each_resample_is_measured_as_if_it_were_alone(ties):
    confidence, correct = data(90, power=2)
    confidence = confidence.round(1) if ties else confidence
    losses = np.random.default_rng(5).exponential(size=90)
    found = measures.bootstrap_rows(confidence, correct, nll=losses, repeats=12, seed=7)
    order = np.argsort(confidence, kind="stable")
    rng = resampling.generator(7, confidence[order], correct[order])
    assert set(found) == {*measures.KEYS, "nll"}
    for row, picked in enumerate(rng.integers(0, 90, (12, 90))):
        some = order[np.sort(picked)]
        for key, value in plain(confidence[some], correct[some]).items():
            assert found[key][row] == pytest.approx(value, abs=1e-9), key
        assert found["nll"][row] == pytest.approx(losses[some].mean())
        assert found["ece_debiased"][row] == pytest.approx(measures.ece_debiased(confidence[some], correct[some]))
        assert found["aurc"][row] == pytest.approx(measures.aurc(confidence[some], correct[some]))


def test_each_null_draw_is_measured_as_if_it_were_alone():
    confidence = np.sort(data(90)[0])
    found = measures.null_rows(confidence, repeats=8, seed=3)
    drawn = resampling.generator(3, confidence).random((8, 90), dtype=np.float32) < confidence.astype(np.float32)
    for row, right in enumerate(drawn.astype(float)):
        for key, value in plain(confidence, right).items():
            assert found[key][row] == pytest.approx(value, abs=1e-9), key


def test_draws_do_not_depend_on_the_size_of_a_block(monkeypatch):
    confidence, correct = data(70, power=2)
    whole = measures.measure(confidence, correct, repeats=20)
    monkeypatch.setattr(resampling, "BLOCK", 3 * 70)
    again = measures.measure(confidence, correct, repeats=20)
    assert whole.keys() == again.keys()
    for key, value in whole.items():
        assert again[key] == pytest.approx(value, abs=1e-12), key


def test_measure_gives_each_key_with_interval_and_null_value():
    confidence, correct = data(300, power=2)
    row = measures.measure(confidence, correct)
    keys = ("gap", "ece", "ece_equal_width", "ece_debiased", "mce", "brier", "nll", "nll_binary", "auroc", "aurc")
    of_cox = ("slope", "slope_ci", "intercept", "in_the_large")
    assert set(row) == {*(f"{k}{end}" for k in keys for end in ("", "_ci", "_null")), *of_cox, *resampling.POINTS}
    assert row["gap"] == pytest.approx(confidence.mean() - correct.mean())
    assert row["nauc"] == measures.abstention_nauc(confidence, correct)
    assert row["risk_at_80"] == measures.risk_at_coverage(confidence, correct, 0.8)
    assert row["coverage_at_risk_5"] == measures.coverage_at_risk(confidence, correct, 0.05)
    assert row["eaurc"] == pytest.approx(measures.eaurc(confidence, correct))
    assert row["brier_resolution"] == pytest.approx(measures.brier_decomposition(confidence, correct)["resolution"])
    for key in keys:
        low, high = row[f"{key}_ci"]
        assert low < row[key] < high, key
    for key, one in (("ece", measures.ece), ("mce", measures.mce), ("brier", measures.brier), ("nll", measures.nll)):
        assert row[key] == pytest.approx(one(confidence, correct), abs=1e-12)
    assert row["ece_null"] == measures.ece_null(confidence)
    assert row["nll"] == row["nll_binary"]
    # with p = confidence**2 right, confidence is too high: every error of calibration is beyond its null value
    assert row["ece"] > row["ece_null"] and row["ece_debiased"] > row["ece_debiased_null"]
    assert row["brier_null"] == pytest.approx((confidence * (1 - confidence)).mean(), rel=0.05)


def test_given_losses_are_averaged_and_have_no_null_value():
    confidence, correct = data(100)
    row = measures.measure(confidence, correct, nll=np.arange(100.0))
    assert row["nll"] == 49.5 and row["nll_null"] is None and row["nll_binary_null"] is not None
    spread = 1.96 * np.std(np.arange(100)) / 10
    assert row["nll_ci"] == pytest.approx([49.5 - spread, 49.5 + spread], abs=1.5)
    for bad in (np.arange(99.0), np.full(100, np.inf)):
        with pytest.raises(XtError, match="finite losses"):
            measures.measure(confidence, correct, nll=bad)


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    inside = 0
    for seed in range(150):
        low, high = measures.measure(*data(300, seed), repeats=100)["brier_ci"]
        inside += low <= 1 / 10 * 1.5 <= high  # E[c (1 - c)] of beta(3, 1): 3/4 - 3/5
    assert 0.88 <= inside / 150 <= 0.99


def test_one_class_has_no_auroc_and_few_items_no_interval():
    row = measures.measure(np.linspace(0.5, 0.9, 20), np.ones(20))
    assert row["auroc"] is row["auroc_ci"] is row["auroc_null"] is None
    assert row["ece_ci"] is not None and row["aurc"] == 0
    few = measures.measure(np.linspace(0.5, 0.9, 9), np.arange(9) % 2.0)
    assert few["ece"] is not None and all(few[k] is None for k in few if k.endswith("_ci"))


def test_languages_are_drawn_independently_under_one_seed():
    first, second = (measures.bootstrap_rows(*data(200, seed), repeats=400)["brier"] for seed in (0, 1))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.15


def test_the_interval_of_a_mean_over_languages_is_narrower_than_theirs():
    rows, boots = {}, {}
    for seed in range(8):
        rows[str(seed)], boots[str(seed)] = measures.measure_and_draw(*data(200, seed, power=2))
    mean = measures.average(rows, boots, rows)
    assert mean["ece"] == pytest.approx(np.mean([r["ece"] for r in rows.values()]))
    assert mean["ece_null"] == pytest.approx(np.mean([r["ece_null"] for r in rows.values()]))
    width = np.mean([r["brier_ci"][1] - r["brier_ci"][0] for r in rows.values()])
    low, high = mean["brier_ci"]
    assert (high - low) == pytest.approx(width / np.sqrt(8), rel=0.3)
    assert mean["risk_at_80"] == pytest.approx(np.mean([r["risk_at_80"] for r in rows.values()]))
    rows["2"]["auroc"] = rows["2"]["auroc_ci"] = rows["2"]["auroc_null"] = None
    others = [r["auroc"] for r in rows.values() if r["auroc"] is not None]
    assert measures.average(rows, boots, rows)["auroc"] == pytest.approx(np.mean(others)) and len(others) == 7


def test_without_resamples_there_are_values_alone_and_their_mean():
    rows = {str(s): measures.measure(*data(100, s), repeats=0) for s in range(2)}
    assert not any(key.endswith(("_ci", "_null")) for key in rows["0"]) and rows["0"]["ece"] > 0
    mean = measures.average(rows, {}, rows)
    assert mean["ece"] == pytest.approx((rows["0"]["ece"] + rows["1"]["ece"]) / 2) and "ece_ci" not in mean


def test_outcomes_between_right_and_wrong_are_refused():
    with pytest.raises(XtError, match="neither 0 nor 1: number 1 is 0.5"):
        measures.ece(np.array([0.5, 0.5]), np.array([1.0, 0.5]))
    with pytest.raises(XtError, match="neither 0 nor 1"):
        measures.measure(np.array([0.5, 0.5]), np.array([1.0, np.nan]))


def test_a_language_is_measured_in_a_fraction_of_a_tenth_of_a_second():
    confidence, correct = data(1000)
    start = time.process_time()
    for _ in range(4):
        measures.measure(confidence, correct)
    assert (time.process_time() - start) / 4 < 0.1


MEASURES = [
    measures.ece,
    measures.ece_equal_width,
    measures.brier,
    measures.auroc,
    measures.reliability,
    measures.ece_bootstrap,
    measures.mce,
    measures.ece_debiased,
    measures.brier_decomposition,
    measures.nll,
    measures.aurc,
    measures.eaurc,
    measures.risk_coverage,
    measures.bootstrap_rows,
    measures.measure,
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
