"""Ranked retrieval calibrated: against scikit-learn and sums by hand; several right documents; leaks; short rankings."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax

from tests.eval.ranked.test_search import Meaning, numbered
from xt.calibration.apply.file import CalibrationTable, SearchCalibration
from xt.calibration.apply.retrieval import Rescaled
from xt.calibration.measuring import measures
from xt.eval.ranked.calibration import DIRECTION, calibrate
from xt.eval.ranked.search import Ranked, rank_collection

CODES = ("deu", "fra", "swh")


@pytest.fixture(scope="module")
def result() -> Ranked:
    """Questions in three languages, each answered by a document in each: several right ones a query."""
    return rank_collection(Meaning(noise=1.3), numbered(200, CODES), names=["AP@20"])


@pytest.fixture(scope="module")
def calibrated(result):
    return calibrate(result, 0.05)


def test_methods_are_those_that_judgements_allow_and_what_is_left_out_is_said(calibrated):
    section = calibrated.section[DIRECTION]
    fitted = ["zero-shot", "pooled", "per-language", "shrunk", "platt", "isotonic", "histogram", "beta"]
    assert list(section["methods"]) == ["cosine", "training", *fitted]
    assert section["fit_languages"] == ["deu", "fra"]
    assert any(note.startswith("predicted: it needs one right candidate") for note in section["notes"])
    assert {*fitted} == set(calibrated.kept[DIRECTION])
    kept = SearchCalibration({"e": calibrated.kept}).to_json()
    json.dumps([calibrated.section, kept, calibrated.predictions], allow_nan=False)


def test_probabilities_stand_with_the_queries_that_they_are_of(result, calibrated):
    for code in CODES:
        rows = [p for p in calibrated.predictions if p["language"] == code]
        expected = softmax(result.rankings[code].scores / 0.05, axis=1)[:, 0]
        np.testing.assert_allclose([p["p_training"] for p in rows], expected, rtol=1e-6)
        assert [p["id"] for p in rows] == [f"{i}-{code}" for i in range(200)]
        assert all(p["probability"] == p["p_platt"] for p in rows)
    assert all("probability" not in p for p in result.predictions)


def test_the_chance_that_the_first_document_is_relevant_is_learnt_where_several_are(result, calibrated):
    section = calibrated.section[DIRECTION]["methods"]
    row = section["platt"]["languages"]["swh"]
    confidence = np.array([p["p_platt"] for p in calibrated.predictions if p["language"] == "swh"])
    correct = np.array([p["correct"] for p in calibrated.predictions if p["language"] == "swh"], float)
    assert 0.3 < correct.mean() < 0.95
    assert row["ece"] == pytest.approx(measures.ece(confidence, correct))
    assert row["ece"] < row["ece_null"] + 0.05
    assert section["cosine"]["languages"]["swh"]["ece"] > 0.2


@pytest.mark.parametrize("method", ["zero-shot", "pooled", "shrunk", "platt", "beta"])
def test_judgements_of_a_fold_have_no_part_in_its_probabilities(result, calibrated, method):
    spoilt = {
        code: replace(r, gold=np.where(r.folds == 0, np.where(r.gold == 0, 3, 0), r.gold))
        for code, r in result.rankings.items()
    }
    other = calibrate(replace(result, rankings=spoilt), 0.05)
    folds = np.concatenate([result.rankings[code].folds for code in CODES])
    before, after = (np.array([p[f"p_{method}"] for p in t.predictions]) for t in (calibrated, other))
    np.testing.assert_array_equal(before[folds == 0], after[folds == 0])
    assert (np.abs(before - after)[folds != 0] > 1e-6).mean() > 0.9


def test_a_short_ranking_is_calibrated_over_what_it_has_and_an_empty_one_is_named(result, calibrated):
    one = result.rankings["deu"]
    scores, rows = one.scores.copy(), one.rows.copy()
    scores[7, 1:], rows[7, 1:] = -np.inf, -1
    short = {
        **result.rankings,
        "deu": replace(one, scores=scores, rows=rows, gold=np.where(one.gold > 0, -1, one.gold)),
    }
    found = calibrate(replace(result, rankings=short), 0.05)
    assert found.predictions[7]["p_training"] == 1.0  # its only candidate
    assert all(0 <= found.predictions[7][f"p_{kind}"] <= 1 for kind in ("pooled", "platt", "beta", "shrunk"))
    others = [p["p_training"] for p in found.predictions if p["id"] != "7-deu"]
    assert others == [p["p_training"] for p in calibrated.predictions if p["id"] != "7-deu"]
    scores[7] = -np.inf
    empty = calibrate(replace(result, rankings={"deu": replace(one, scores=scores)}, predictions=[]), None)
    (section,) = empty.section.values()
    assert section["methods"] == {} and section["notes"][0].startswith("not calibrated: deu: a query has no document")


def test_another_reports_fits_are_applied_as_they_are(result, calibrated):
    again = calibrate(result, None, given=calibrated.kept)
    row = {p["id"]: p for p in again.predictions}
    ranking = result.rankings["swh"]
    for method in ("zero-shot", "platt"):
        expected = calibrated.kept[DIRECTION][method].calibrator(ranking.scores)[:, 0]
        found = [row[f"{i}-swh"][f"p_given-{method}"] for i in range(200)]
        np.testing.assert_allclose(found, expected)


def test_what_a_server_takes_of_it_is_the_map_for_every_language(calibrated):
    table = CalibrationTable.from_report(calibrated.kept[DIRECTION], scope="platt")
    assert isinstance(table.default, Rescaled) and table.choose("deu") == (table.default, "platt")
