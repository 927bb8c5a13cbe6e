"""Queries without an answer: the ranking without its right candidate by brute force, thresholds by hand, leaks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tests.calibration.cases import with_gold
from xt.calibration import missing
from xt.calibration.accuracy import PredictedTemperature
from xt.calibration.apply.estimate import AccuracyEstimate
from xt.calibration.apply.file import CalibrationTable
from xt.calibration.apply.retrieval import Rescaled, RetrievalMargin, RetrievalTemperature
from xt.calibration.fit.temperature import fit_temperature
from xt.calibration.missing import lose_answers, loses_answer, take_out, threshold_at_risk
from xt.calibration.search import CrossFit
from xt.core.data.bitext import Bitext
from xt.core.errors import XtError
from xt.core.vectors import top_k
from xt.eval.retrieval.ranking import DEEP, DIRECTIONS, Encodings, rank_texts
from xt.eval.retrieval.ranking import rank as rank_pairs


def certain(calibrator):
    return PredictedTemperature(calibrator, calibrator.temperature, calibrator.temperature)


def corpus(n=400, noise=0.8, seed=0):
    rng = np.random.default_rng(seed)
    one = rng.normal(size=(n, 24))
    a, b = one + noise * rng.normal(size=one.shape), one + noise * rng.normal(size=one.shape)
    a, b = ((v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float32) for v in (a, b))
    english = tuple(f"sentence {i}" for i in range(n))
    return Bitext("deu", tuple(f"Satz {i}" for i in range(n)), english), Encodings(a, b, 0, 0)


def rank(bitext, vectors, direction, **options):
    return rank_pairs(bitext, vectors, direction, **{"k": DEEP, **options}).predictions(bitext.language, bitext.english)


@pytest.mark.parametrize("deep", [DEEP, 40])
def test_taking_answers_out_is_searching_an_index_without_them(deep):
    """Also for other queries than their own: those that they misled find another answer, or the right one."""
    bitext, vectors = corpus(300)
    ranking = rank(bitext, vectors, DIRECTIONS[0], k=deep)
    loses = np.array([loses_answer(e) for e in bitext.english])
    assert 120 < loses.sum() < 180
    found, without = lose_answers(ranking)
    np.testing.assert_array_equal(without, loses)
    left = np.flatnonzero(~loses)
    depth = found.scores.shape[1]
    assert depth == (100 if deep == DEEP else (~np.isin(ranking.group, np.flatnonzero(loses))).sum(1).min())
    index = replace_english(vectors, vectors.english[left])
    scores, rows = top_k(index.foreign, index.english, depth)
    np.testing.assert_array_equal(found.group, left[rows])
    np.testing.assert_array_equal(found.scores, scores)
    assert found.candidates == len(left)
    for i in range(300):
        place = np.flatnonzero(left[rows[i]] == i)
        assert found.gold[i] == (place[0] if len(place) else -1)
    top = ranking.group[:, 0]
    misled = np.flatnonzero(~loses & (top != np.arange(300)) & loses[top])
    assert len(misled) > 10 and (found.group[misled, 0] != top[misled]).all()
    assert found.correct[misled].sum() > 0  # the answer that stood before the right one is gone


def replace_english(vectors, english):
    return replace(vectors, english=english)


def test_an_answer_that_two_queries_share_is_lost_to_both():
    bitext, vectors = corpus(200)
    english = [bitext.english[i // 2] for i in range(200)]  # each text twice, of queries whose ids differ
    twice = Bitext("deu", bitext.foreign, tuple(english))
    same = replace_english(vectors, vectors.english[np.arange(200) // 2])
    by_index = rank_pairs(twice, same, DIRECTIONS[0], DEEP)
    ranking = rank_texts(twice, same, DIRECTIONS[0], by_index, DEEP).predictions("deu", bitext.english)
    found, without = lose_answers(ranking)
    loses = np.array([loses_answer(e) for e in bitext.english]).reshape(100, 2)
    assert (loses[:, 0] != loses[:, 1]).sum() > 20
    np.testing.assert_array_equal(without.reshape(100, 2), np.repeat(loses.any(1, keepdims=True), 2, axis=1))
    assert (found.gold[without] == -1).all() and (found.gold[~without] >= 0).all()


def test_a_ranking_that_nothing_is_left_of_is_refused():
    bitext, vectors = corpus(60)
    ranking = rank(bitext, vectors, DIRECTIONS[0], k=3)
    with pytest.raises(XtError, match="Of the 3 best candidates"):
        take_out(ranking, ranking.group[0])


def test_the_threshold_is_the_least_that_keeps_the_risk():
    confidence = np.array([0.9, 0.8, 0.7, 0.7, 0.6, 0.5])
    correct = np.array([1, 1, 1, 0, 1, 0.0])
    assert threshold_at_risk(confidence, correct, 0.2) == 0.6  # 1 wrong of 5
    assert threshold_at_risk(confidence, correct, 0.1) == 0.8
    assert threshold_at_risk(confidence, correct, 0.25) == 0.6
    assert threshold_at_risk(confidence, np.zeros(6), 0.1) == np.inf
    assert threshold_at_risk(confidence, np.ones(6), 0.0) == 0.5


def test_figures_are_those_of_the_definitions_and_the_risk_is_kept():
    bitext, vectors = corpus(2000, noise=0.6)
    ranking = rank(bitext, vectors, DIRECTIONS[0])
    section, kept = missing.measure({"deu": ranking}, ["deu"], repeats=20)
    assert list(section["methods"]) == ["zero-shot"]
    row = section["methods"]["zero-shot"]["languages"]["deu"]
    without = np.array([loses_answer(e) for e in bitext.english])
    final = kept.calibrator
    assert isinstance(final, Rescaled) and isinstance(final.base, RetrievalMargin)
    cut = lose_answers(ranking)[0]
    none = final(cut.scores)[:, -1]
    assert row["auroc"] == pytest.approx(roc_auc_score(~without, 1 - none), abs=0.01)  # by folds, and of all
    assert row["refusal"]["risk_found"] == pytest.approx(0.1, abs=0.03)
    assert 0.1 < row["refusal"]["coverage"] < 0.6
    assert none[without].mean() > none[~without].mean() + 0.3
    assert row["unanswerable"] == without.mean()
    sure = final(cut.scores)[:, 0]
    for event, chance, outcome in (("answer", sure, cut.correct), ("none", none, without)):
        assert row[event]["gap"] == pytest.approx(chance.mean() - outcome.mean(), abs=0.01)
        assert row[event]["accuracy"] == outcome.mean()
        assert row[event]["slope"] == pytest.approx(1, abs=0.25)
    overall = section["methods"]["zero-shot"]["overall"]
    assert overall["none"]["mean_gap"] == abs(row["none"]["gap"])
    assert overall["answer"]["slope"] == pytest.approx(row["answer"]["slope"])


def spoil(ranking, fold):
    """Every answer of a fold is said to be the sixth candidate."""
    return with_gold(ranking, np.where(ranking.fold == fold, 5, ranking.gold))


@pytest.mark.parametrize("scope", ["zero-shot", "predicted"])
def test_answers_of_a_fold_have_no_part_in_its_figures(scope, monkeypatch):
    """Of the calibrators that score fold 0, none changes with its labels; those of the others do where labels count."""
    bitext, vectors = corpus(400)
    seen = {}

    def spy(ranking, without, fits, risk, repeats):
        seen.setdefault(round(float((ranking.gold == 0).mean()), 6), []).append(fits)
        return real(ranking, without, fits, risk, 0)

    real = missing._one
    monkeypatch.setattr(missing, "_one", spy)
    honest = rank(bitext, vectors, DIRECTIONS[0])
    for ranking in (honest, spoil(honest, 0)):
        fits = CrossFit({"deu": ranking})
        missing.measure({"deu": ranking}, ["deu"], predicted=fits.predicted)
    first, second = (found[scope == "predicted"] for found in seen.values())
    assert first[0] == second[0]
    if scope == "zero-shot":  # labels have no part in the predicted ones but for "none of these"
        assert all(first[fold] != second[fold] for fold in range(1, 5))


def test_answers_drawn_from_the_right_temperature_calibrate_a_hard_language():
    """Fitted on an easy language, a hard one is badly calibrated; answers drawn by its temperature mend it."""
    sides = {code: corpus(1500, noise, seed) for code, noise, seed in (("deu", 0.45, 1), ("swh", 0.65, 2))}
    apart = {code: rank(*corpus(1500, noise, 9), DIRECTIONS[0]) for code, noise in (("deu", 0.45), ("swh", 0.65))}

    def predicted_by(code, fold):
        return certain(fit_temperature(apart[code].scores, apart[code].gold))

    rankings = {code: rank(bitext, vectors, DIRECTIONS[0]) for code, (bitext, vectors) in sides.items()}
    section, kept = missing.measure(rankings, ["deu"], predicted=predicted_by, repeats=50)
    zero, predicted = (section["methods"][key]["languages"]["swh"] for key in ("zero-shot", "predicted"))
    assert zero["ece"] > zero["ece_null"] + 0.04
    assert predicted["ece"] < predicted["ece_null"] + 0.015
    assert predicted["none_ece"] < predicted["none_ece_null"] + 0.015 < zero["none_ece"]
    assert zero["refusal"]["risk_found"] > 0.15
    n = predicted["refusal"]["answered"]
    assert n > 50
    assert predicted["refusal"]["risk_found"] < 0.1 + 2 * (0.09 / n) ** 0.5
    assert predicted["auroc"] == pytest.approx(zero["auroc"], abs=0.03)
    # No label of the language had a part in it.
    shuffled = rankings["swh"].gold[np.random.default_rng(0).permutation(1500)]
    blind = {**rankings, "swh": replace(rankings["swh"], gold=shuffled)}
    again = missing.measure(blind, ["deu"], predicted=predicted_by, repeats=0)[1]
    assert again.languages == kept.languages
    table = CalibrationTable.from_report({"none-of-these": kept}, scope="none-of-these")
    assert table.choose("swh")[0] == kept.languages["swh"]
    assert table.choose("fra")[0] == kept.calibrator


def test_drawn_answers_are_as_frequent_as_the_calibrator_says():
    bitext, vectors = corpus(1000)
    ranking = rank(bitext, vectors, DIRECTIONS[0])
    calibrator = RetrievalTemperature(0.05, 0.4)
    shares = calibrator(ranking.scores[:, :100])
    drawn = missing.sample_missing(ranking, certain(calibrator), None)
    assert len(drawn) == 2
    for one in drawn:  # half of the index is gone, for all queries
        assert one.candidates == 500
        assert len(np.unique(one.group)) <= 500
    top = np.mean([r.group[:, 0] == ranking.group[:, 0] for r in drawn])
    assert top == pytest.approx(0.5, abs=0.03)
    # The best candidate is right if it was drawn and stayed, or if better ones are gone and it was drawn.
    right = np.mean([r.gold == 0 for r in drawn])
    before = 0.5 ** np.arange(1, 101)
    assert right == pytest.approx((shares[:, :100] * before).sum(1).mean(), abs=0.03)
    absent = np.mean([r.gold < 0 for r in drawn])
    assert absent == pytest.approx(0.5 + shares[:, -1].mean() / 2, abs=0.03)
    assert (missing.sample_missing(ranking, certain(calibrator), None)[0].scores == drawn[0].scores).all()
    assert set(missing.sample_missing(ranking, certain(calibrator), 0)[0].fold) == {1, 2, 3, 4}


def test_a_language_of_one_query_is_left_out_of_what_is_predicted():
    bitext, vectors = corpus(300)
    ranking = rank(bitext, vectors, DIRECTIONS[0])
    rankings = {"deu": ranking, "swh": ranking.take(np.array([0]))}
    fits = CrossFit(rankings)
    section, kept = missing.measure(rankings, ["deu"], predicted=fits.predicted, repeats=20)
    assert list(section["methods"]["zero-shot"]["languages"]) == ["deu", "swh"]
    assert list(section["methods"]["predicted"]["languages"]) == list(kept.languages) == ["deu"]


def test_where_the_accuracy_is_unknown_the_sources_fit_stands_in_and_the_notes_say_so():
    rankings = {code: rank(*corpus(300, seed=seed), DIRECTIONS[0]) for seed, code in enumerate(("deu", "swh"))}

    def predicted(code, fold):
        if code == "swh":
            AccuracyEstimate.refuse("it lies between 0.30 and 0.60").check()
        return certain(RetrievalTemperature(0.05, 0.4))

    section, kept = missing.measure(rankings, ["deu"], predicted=predicted, repeats=20)
    assert list(kept.languages) == ["deu"]
    assert section["notes"] == [
        "none of these, predicted: the fit of zero-shot in its place: "
        "swh (accuracy unknown: it lies between 0.30 and 0.60)"
    ]
    table = CalibrationTable.from_report({"none-of-these": kept}, scope="none-of-these")
    assert table.choose("swh")[1] == "none-of-these"


def test_too_few_queries_and_lone_candidates_give_nothing():
    bitext, vectors = corpus(20)
    ranking = rank(bitext, vectors, DIRECTIONS[0])
    assert missing.measure({"deu": ranking}, ["deu"]) == ({}, None)
    lone = rank(bitext, vectors, DIRECTIONS[0], k=1)
    assert missing.measure({"deu": lone}, []) == ({}, None)
