"""Fitted temperatures are the true ones, and no calibrator scores a query, or a translation of it, that it was fitted on.

Tests `calibration/scoring.py` and `calibration/summary.py` as well.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize
from scipy.special import log_softmax, softmax

from tests.calibration.cases import drawn, ranking, search, with_gold
from xt.calibration.accuracy import estimate_accuracy
from xt.calibration.apply.file import MethodFit, SearchCalibration, from_json
from xt.calibration.apply.retrieval import RetrievalTemperature, read_calibrator
from xt.calibration.fit import temperature as fitting
from xt.calibration.fit.maps import MAPS, fit_map
from xt.calibration.fit.temperature import fit_margin, fit_temperature, losses
from xt.calibration.measuring import measures
from xt.calibration.predictions import FOLDS, Predictions, pool
from xt.calibration.scoring import Method, score
from xt.calibration.search import calibrate, fit_excluding
from xt.calibration.summary import summary
from xt.core.errors import XtError


def nll(calibrator, scores, gold):
    return losses(calibrator(scores), gold)


def independent_nll(scores, gold, temperature, none):
    logits = log_softmax(np.column_stack([scores, np.full(len(scores), none)]) / temperature, axis=1)
    return -logits[np.arange(len(gold)), np.where(gold < 0, scores.shape[1], gold)]


@pytest.mark.parametrize(("temperature", "none"), [(0.01, 0.85), (0.02, 0.9), (0.05, 0.8)])
def test_a_known_temperature_is_recovered(temperature, none):
    scores, gold = drawn(20_000, temperature, none)
    assert 0.01 < (gold < 0).mean() < 0.9
    found = fit_temperature(scores, gold)
    assert found.temperature == pytest.approx(temperature, rel=0.05)
    assert found.none_score == pytest.approx(none, abs=0.01)


def test_the_fit_is_the_minimum_that_another_optimizer_finds():
    scores, gold = drawn(500, 0.02, 0.85, seed=1)
    found = fit_temperature(scores, gold)
    other = optimize.minimize(
        lambda x: independent_nll(scores, gold, np.exp(x[0]), x[1]).mean(),
        [np.log(0.05), 0.7],
        method="Nelder-Mead",
        options={"xatol": 1e-6, "fatol": 1e-10},
    )
    reached = independent_nll(scores, gold, found.temperature, found.none_score).mean()
    assert reached == pytest.approx(other.fun, abs=1e-6)
    assert np.log(found.temperature) == pytest.approx(other.x[0], abs=5e-3)


@pytest.mark.parametrize("height", [0.0, 0.4])
def test_value_gradient_and_curvature_are_those_of_finite_differences(height):
    scores, gold = drawn(200, 0.03, 0.82, seed=2)
    curves = fitting.Curves(scores, gold, np.full(len(gold), height))
    for beta, none in ((30.0, 0.8), (100.0, 0.85), (2.0, -0.3)):
        x = np.array([beta, beta * (none - height)])
        value, gradient, hessian = curves(*x)
        assert value == pytest.approx(independent_nll(scores, gold, 1 / beta, none).mean())
        np.testing.assert_allclose(optimize.approx_fprime(x, lambda x: curves(*x)[0], 1e-6), gradient, atol=2e-6)
        np.testing.assert_allclose(optimize.approx_fprime(x, lambda x: curves(*x)[1], 1e-6), hessian, atol=2e-6)


@pytest.mark.parametrize("absent", [0, 1, 40, 199, 200])
def test_a_fit_ends_in_the_same_place_wherever_it_starts(absent, monkeypatch):
    scores, gold = drawn(200, 0.01, -1.0, seed=5)
    gold[:absent] = -1
    reached, places = [], []
    for start in [(t, none) for t in (0.002, 0.01, 0.5) for none in (-0.9, 0.5, 0.99)]:
        monkeypatch.setattr(fitting, "_search", lambda *_, start=start: start)
        found = fit_temperature(scores, gold)
        reached.append(nll(found, scores, gold).mean())
        places.append(np.log(found.temperature))
    np.testing.assert_allclose(reached, min(reached), atol=1e-7)
    if 0 < absent < 200:  # else the temperature may be anything
        np.testing.assert_allclose(places, places[0], atol=1e-4)


@pytest.mark.parametrize("seed", range(30))
def test_no_bounded_search_from_anywhere_finds_less_whatever_the_scores(seed):
    """Cosines a hair apart, one candidate, temperatures beyond reason, answers all there or all missing."""
    rng = np.random.default_rng(seed)
    n, k, scale = 40, int(rng.choice([1, 2, 5])), 10 ** rng.uniform(-4, 0)
    scores = -np.sort(-np.clip(rng.normal(rng.uniform(-0.2, 0.9), scale, (n, k)), -1, 1), axis=1)
    gold = rng.integers(-1, k, n) if seed % 3 else np.full(n, seed % 2 - 1)
    found = fit_temperature(scores, gold)
    bounds = [(np.log(1e-5), np.log(10.0)), (-1.0, 1.0)]
    others = [
        optimize.minimize(lambda x: independent_nll(scores, gold, np.exp(x[0]), x[1]).mean(), start, bounds=bounds).fun
        for start in ([-7.0, 0.9], [-5.0, 0.5], [-3.0, -0.5], [0.0, 0.0], [2.0, 0.9])
    ]
    assert independent_nll(scores, gold, found.temperature, found.none_score).mean() < min(others) + 1e-4


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("temperature", [0.005, 0.05, 0.3])
def test_fitting_lowers_the_loss_on_its_own_data(seed, temperature):
    scores, gold = drawn(100, temperature, 0.8, seed=seed)
    fitted = nll(fit_temperature(scores, gold), scores, gold).mean()
    for other in (RetrievalTemperature(1.0, 0.8), RetrievalTemperature(temperature, 0.8)):
        assert fitted <= nll(other, scores, gold).mean() + 1e-9


def test_fitting_beats_the_raw_cosine_when_every_answer_is_among_the_candidates():
    scores, gold = drawn(300, 0.02, -1.0)
    assert (gold >= 0).all()
    fitted = nll(fit_temperature(scores, gold), scores, gold).mean()
    assert fitted < nll(RetrievalTemperature(1.0), scores, gold).mean() - 0.5


def test_nll_is_that_of_scipy_also_where_the_answer_is_absent():
    scores, gold = drawn(100, 0.02, 0.85)
    assert (gold < 0).any() and (gold == 0).any()
    found = nll(RetrievalTemperature(0.03, 0.84), scores, gold)
    np.testing.assert_allclose(found, independent_nll(scores, gold, 0.03, 0.84), rtol=1e-9)


def test_nll_of_the_impossible_is_finite():
    assert np.isfinite(nll(RetrievalTemperature(1e-4), np.array([[0.9, 0.1]]), np.array([-1]))).all()


def test_too_few_queries_are_refused():
    scores, gold = drawn(29, 0.02, 0.8)
    with pytest.raises(XtError, match="29 queries are too few"):
        fit_temperature(scores, gold)
    fit_temperature(*drawn(30, 0.02, 0.8))


def stacked(rankings):
    both = pool(rankings)
    return both.scores.astype(float), both.gold


def test_stacking_keeps_every_candidate_and_fills_up_with_none():
    long, short = ranking(40, 0.02), ranking(30, 0.02, seed=1)
    gold = np.where(short.gold < 3, short.gold, -1)
    short = search(short.scores[:, :3], short.group[:, :3], gold, short.fold, 3)
    scores, gold = stacked([long, short])
    assert gold.tolist() == [*long.gold, *short.gold]
    np.testing.assert_array_equal(scores[:40], long.scores)
    np.testing.assert_array_equal(scores[40:, :3], short.scores)
    assert (scores[40:, 3:] == -np.inf).all() and scores.shape == (70, 20)


def test_a_fold_is_left_out_of_its_own_fit():
    one = ranking(300, 0.02)
    for fold in range(FOLDS):
        rest = one.fold != fold
        assert fit_excluding([one], fold) == fit_temperature(one.scores[rest].astype(float), one.gold[rest])
    assert fit_excluding([one], None) == fit_temperature(one.scores.astype(float), one.gold)


def test_each_query_is_scored_by_the_calibrator_of_its_fold():
    one = ranking(100, 0.02)
    by_fold = {f: RetrievalTemperature(0.01 * (f + 1), 0.8) for f in range(FOLDS)}
    scored = score(one, by_fold)
    for i in range(100):
        p = by_fold[int(one.fold[i])](one.scores[i : i + 1])[0]
        assert (scored.confidence[i], scored.none[i]) == (p[0], p[-1])
        assert scored.nll[i] == pytest.approx(-np.log(p[one.gold[i]]))
        assert scored.correct[i] == (one.gold[i] == 0)
    assert scored.temperature == pytest.approx(0.01 * 120 ** (1 / 5))


def planted(seed: int = 0) -> dict[str, Predictions]:
    """Three languages with the same English sentences; deu and fra are sources of the zero-shot temperature."""
    return {code: ranking(250, 0.02, seed=seed + i) for i, code in enumerate(("deu", "fra", "swh"))}


FITTED = [
    "zero-shot", "pooled", "predicted", "per-language", "shrunk", "platt", "isotonic", "histogram", "beta",
]  # fmt: skip
RESOURCES = {"deu": "high", "fra": "high", "swh": "low"}


@pytest.fixture(scope="module")
def calibrated():
    """The planted languages, their methods and what is kept for serving."""
    found = calibrate(planted(), 0.01)
    return planted(), found.methods, found.kept


@pytest.fixture(scope="module")
def summed(calibrated):
    return calibrated[1], summary(calibrated[1], RESOURCES)


def confidences(methods: list[Method]) -> dict[str, dict[str, np.ndarray]]:
    return {m.key: {lang: s.confidence for lang, s in m.scored.items()} for m in methods}


def test_a_language_with_few_candidates_does_not_shorten_the_others():
    """A pooled fit is that of every query over its own candidates, as a sum written out has it."""
    rankings = planted()
    few = rankings["swh"]
    rankings["swh"] = search(few.scores[:6, :2], few.group[:6, :2], np.minimum(few.gold[:6], 1), few.fold[:6], 1000)
    found = fit_excluding(list(rankings.values()), None)

    def total(x):
        rows = [(r.scores.astype(float), r.gold) for r in rankings.values()]
        return sum(independent_nll(s, g, np.exp(x[0]), x[1]).sum() for s, g in rows)

    other = optimize.minimize(total, [np.log(0.02), 0.75], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9})
    assert np.log(found.temperature) == pytest.approx(other.x[0], abs=2e-3)
    alone = fit_excluding([rankings["deu"], rankings["fra"]], None)
    assert found.temperature == pytest.approx(alone.temperature, rel=0.05)
    for kind in MAPS:
        fit_map(kind, found, *stacked(list(rankings.values())))
    assert fit_margin(*stacked(list(rankings.values()))).temperature == pytest.approx(found.temperature, rel=0.3)


@pytest.mark.parametrize("culprit", ["deu", "swh"])
def test_no_answer_of_a_fold_reaches_the_calibrator_that_scores_it(calibrated, culprit):
    before = calibrated[0]
    one = before[culprit]
    fold = one.fold == 0
    # Fold 0 of one language turns all wrong: fitted on it, every temperature would be dragged far up.
    gold = np.where(fold, 19, one.gold)
    dragged = fit_temperature(one.scores.astype(float), gold)
    assert dragged.temperature > 1.3 * fit_temperature(one.scores.astype(float), one.gold).temperature
    after = calibrate({**before, culprit: with_gold(one, gold)}, 0.01).methods
    first, second = confidences(calibrated[1]), confidences(after)
    for key, by_language in first.items():
        for lang, ranked in before.items():
            zero = ranked.fold == 0
            np.testing.assert_array_equal(by_language[lang][zero], second[key][lang][zero], err_msg=f"{key}, {lang}")
    fitted_on = {"zero-shot": {"deu"}, "pooled": {"deu", "swh"}, "per-language": {"deu", "swh"}}
    fitted_on |= {key: {"deu"} for key in ("platt", "beta", "isotonic")}
    for key, sources in fitted_on.items():
        for lang, ranked in before.items():
            zero = ranked.fold == 0
            touched = culprit in sources and (key != "per-language" or lang == culprit)
            changed = first[key][lang][~zero] != second[key][lang][~zero]
            assert bool(changed.mean() > 0.9) is touched, (key, lang)


def test_a_translation_of_a_query_is_left_out_too(calibrated):
    rankings, methods, _ = calibrated
    folds = {code: r.fold for code, r in rankings.items()}
    assert all((f == folds["deu"]).all() for f in folds.values())
    zero_shot = next(m for m in methods if m.key == "zero-shot")
    for fold in range(FOLDS):
        rest = [r for code, r in rankings.items() if code in ("deu", "fra")]
        scores = np.concatenate([r.scores[r.fold != fold] for r in rest]).astype(float)
        gold = np.concatenate([r.gold[r.fold != fold] for r in rest])
        mine = rankings["swh"].fold == fold
        expected = fit_temperature(scores, gold)(rankings["swh"].scores[mine])[:, 0]
        np.testing.assert_allclose(zero_shot.scored["swh"].confidence[mine], expected)


def test_accuracy_is_the_same_under_every_method(calibrated):
    rankings, methods, _ = calibrated
    assert [m.key for m in methods] == ["cosine", "training", *FITTED]
    for lang, ranked in rankings.items():
        for m in methods:
            np.testing.assert_array_equal(m.scored[lang].correct, ranked.gold == 0)


def test_fixed_temperatures_are_the_plain_softmax(calibrated):
    rankings, methods, _ = calibrated
    for m, temperature in zip(methods[:2], (1.0, 0.01), strict=True):
        expected = softmax(rankings["swh"].scores.astype(float) / temperature, axis=1)[:, 0]
        np.testing.assert_allclose(m.scored["swh"].confidence, expected, rtol=1e-9)
        assert m.temperature == temperature


def test_calibrated_confidence_is_near_its_null_value_and_the_raw_cosine_far_off(summed):
    _, out = summed
    for key in ("zero-shot", "pooled", "per-language"):
        assert out[key]["overall"]["ece"] < 1.6 * out[key]["overall"]["ece_null"]
    assert out["cosine"]["overall"]["ece"] > 2 * out["pooled"]["overall"]["ece"]
    assert out["pooled"]["overall"]["nll"] < out["cosine"]["overall"]["nll"]


def test_what_is_kept_for_serving_is_fitted_on_everything_and_is_json(calibrated):
    rankings, _, kept = calibrated
    written = SearchCalibration({"e": {"foreign-english": kept}})
    assert from_json(json.loads(json.dumps(written.to_json(), allow_nan=False))) == written
    assert kept["zero-shot"].fitted_on == ("deu", "fra")
    assert kept["pooled"].fitted_on == ("deu", "fra", "swh")
    expected = fit_temperature(*stacked(list(rankings.values())))
    assert kept["pooled"].calibrator == expected
    assert kept["per-language"].languages["swh"] == fit_excluding([rankings["swh"]], None)


def test_without_a_source_language_there_is_no_zero_shot():
    found = calibrate({"swh": ranking(100, 0.02), "jav": ranking(100, 0.02, seed=1)}, None)
    assert [m.key for m in found.methods] == ["cosine", *FITTED[1:]]
    assert "zero-shot" not in found.kept
    assert found.kept["platt"].scope == "pooled"
    assert found.notes == ["zero-shot: none of its languages is there"]


def test_with_few_queries_only_the_fixed_temperatures_are_left():
    found = calibrate({"deu": ranking(50, 0.02)}, 0.01)
    assert [m.key for m in found.methods] == ["cosine", "training"]
    assert found.kept == {}
    assert found.notes == [
        "zero-shot: too few queries",
        "pooled: too few queries",
        "predicted: too few queries",
        "per-language: too few queries in deu",
        "shrunk: too few queries",
        "platt, isotonic, histogram, beta: the corpus has too few queries to fit them",
    ]
    with pytest.raises(XtError, match="scope"):
        calibrate({"deu": ranking(50, 0.02)}, 0.01, calibrate_on="other")
    named = calibrate({"deu": ranking(50, 0.02)}, 0.01, calibrate_on="pooled")
    assert named.notes[-1].endswith("the corpus has too few queries to fit them on pooled")


def test_a_corpus_of_one_repeated_sentence_is_calibrated_without_a_fit():
    scores, gold = drawn(80, 0.02, 0.8)
    one = search(scores.astype(np.float32), np.tile(np.arange(20), (80, 1)), gold, np.zeros(80, int), 80)
    methods = calibrate({"deu": one}, 0.01).methods
    assert [m.key for m in methods] == ["cosine", "training"]


def test_a_language_outside_the_table_keeps_the_others_zero_shot():
    found = calibrate({"deu": ranking(100, 0.02), "mylang": ranking(100, 0.02, seed=1)}, None)
    assert [m.key for m in found.methods] == ["cosine", *FITTED]
    assert found.kept["zero-shot"].fitted_on == ("deu",)


def test_one_class_alone_fits_no_map_and_says_so():
    rankings = {code: with_gold(r, np.zeros(250, int)) for code, r in planted().items()}
    found = calibrate(rankings, None)
    assert not {"platt", "isotonic", "histogram", "beta"} & {m.key for m in found.methods}
    assert [n.split(":")[0] for n in found.notes] == ["platt", "isotonic", "histogram", "beta"]
    assert "All 400 queries are right" in found.notes[0] or "queries are right" in found.notes[0]


def test_what_another_corpus_gave_is_applied_as_it_is():
    kept = calibrate(planted(), None).kept
    new = {code: ranking(120, 0.03, seed=9 + i) for i, code in enumerate(("swh", "jav"))}
    found = {m.key: m for m in calibrate(new, None, given=kept).methods}
    for key in ("zero-shot", "pooled"):
        expected = kept[key].calibrator(new["jav"].scores)[:, 0]
        np.testing.assert_array_equal(found[f"given-{key}"].scored["jav"].confidence, expected)
    for code, ranked in new.items():
        scored = found["given-predicted"].scored[code]
        assert scored.estimate == estimate_accuracy(ranked)
        assert scored.confidence.mean() == pytest.approx(scored.estimate.value, abs=1e-3)
    line = {"kind": "distinct-share", "bias": 0.3, "slope": 0.9, "none_score": kept["predicted"].none_score}
    former = {"predicted": MethodFit.from_json({"line": line}, read_calibrator)}  # as it was written with labels
    (again,) = [m for m in calibrate(new, None, given=former).methods if m.key == "given-predicted"]
    np.testing.assert_array_equal(again.scored["swh"].confidence, found["given-predicted"].scored["swh"].confidence)


def test_where_the_accuracy_is_unknown_another_temperature_stands_in_and_everything_says_so():
    """All queries of jav ask for the same ten documents, so that they are ten queries for 250 documents."""
    repeated = planted()["swh"]
    repeated = replace(repeated, ids=np.array([f"sentence {i % 10}" for i in range(250)]))
    rankings = {**planted(), "jav": repeated}
    found = calibrate(rankings, None)
    why = "10 different queries (240 of the 250 repeat another), at least 30 are needed"
    predicted, zero_shot = (next(m for m in found.methods if m.key == key) for key in ("predicted", "zero-shot"))
    np.testing.assert_array_equal(predicted.scored["jav"].confidence, zero_shot.scored["jav"].confidence)
    assert predicted.scored["jav"].fallback == f"zero-shot: accuracy unknown: {why}"
    assert not predicted.scored["swh"].fallback
    row = summary([predicted], {**RESOURCES, "jav": "low"}, repeats=10)["predicted"]["languages"]["jav"]
    assert row["estimated_accuracy"] == {"unknown": why} and row["fallback"].startswith("zero-shot")
    assert found.notes[-2:] == [
        f"predicted: accuracy unknown, zero-shot in its place: jav ({why})",
        "shrunk: towards zero-shot, as the accuracy is unknown: jav",
    ]
    kept = found.kept["predicted"]
    assert "jav" not in kept.languages and kept.estimates["jav"].unknown == why
    assert kept.to_json()["estimates"]["jav"] == {"unknown": why}
    assert {code for code, _ in found.predicted} == {"deu", "fra", "swh"}
    given = calibrate(rankings, None, given=found.kept)
    (again,) = [m for m in given.methods if m.key == "given-predicted"]
    assert again.scored["jav"].fallback == f"given-zero-shot: accuracy unknown: {why}"
    assert f"given-predicted: accuracy unknown, given-zero-shot in its place: jav ({why})" in given.notes
    alone = calibrate(rankings, None, given={"predicted": found.kept["predicted"]})
    assert "given-predicted" not in {m.key for m in alone.methods}
    assert f"given-predicted: accuracy unknown: jav ({why})" in alone.notes
    nowhere = calibrate({"jav": repeated}, None)
    assert "predicted" not in nowhere.kept and f"predicted: accuracy unknown: jav ({why})" in nowhere.notes


def test_the_rows_of_a_summary_are_the_measures_of_its_queries(summed):
    methods, out = summed
    for m in methods:
        for lang, s in m.scored.items():
            row = out[m.key]["languages"][lang]
            assert row["n"] == 250
            assert row["accuracy"] == s.correct.mean()
            assert row["mean_confidence"] == pytest.approx(s.confidence.mean())
            assert row["nll"] == pytest.approx(s.nll.mean())
            assert row["brier"] == pytest.approx(np.mean((s.confidence - s.correct) ** 2))
            assert row["ece"] == measures.ece(s.confidence, s.correct)
            assert row["ece_equal_width"] == measures.ece_equal_width(s.confidence, s.correct)
            assert row["auroc"] == measures.auroc(s.confidence, s.correct)
            assert row["ece_ci"][0] <= row["ece"] <= row["ece_ci"][1]


def test_summary_means_are_over_languages(summed):
    _, out = summed
    rows = out["pooled"]["languages"]
    for key in ("accuracy", "mean_confidence", "ece", "ece_null", "nll", "brier", "auroc"):
        deu, fra, swh = (rows[x][key] for x in ("deu", "fra", "swh"))
        assert out["pooled"]["overall"][key] == pytest.approx((deu + fra + swh) / 3)
        assert out["pooled"]["by_resource"]["high"][key] == pytest.approx((deu + fra) / 2)
        assert out["pooled"]["by_resource"]["low"][key] == pytest.approx(swh)
    assert (out["pooled"]["overall"]["n"], out["pooled"]["overall"]["languages"]) == (750, 3)


def test_the_interval_of_a_mean_is_narrower_than_that_of_one_language(summed):
    _, out = summed
    low, high = out["pooled"]["overall"]["ece_ci"]
    assert 0 <= low < out["pooled"]["overall"]["ece"] < high <= 1
    widths = [row["ece_ci"][1] - row["ece_ci"][0] for row in out["pooled"]["languages"].values()]
    assert high - low < np.mean(widths)


def test_reliability_covers_every_query(summed):
    _, out = summed
    for method in out.values():
        assert sum(b["count"] for b in method["reliability"]) == 750


def test_a_language_that_is_all_right_has_no_auroc_and_does_not_spoil_the_mean():
    rankings = planted()
    rankings["deu"] = with_gold(rankings["deu"], np.zeros(250, int))
    out = summary(calibrate(rankings, None).methods, RESOURCES)["cosine"]
    assert out["languages"]["deu"]["auroc"] is None
    others = [out["languages"][x]["auroc"] for x in ("fra", "swh")]
    assert out["overall"]["auroc"] == pytest.approx(np.mean(others))
