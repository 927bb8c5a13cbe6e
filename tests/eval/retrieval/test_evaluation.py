"""An evaluation writes a whole report, from which its numbers can be worked out again.

Tests `eval/protocols.py`, `eval/retrieval/report.py` and `serve/encoders.py` as well.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from xt.calibration.apply.file import read
from xt.calibration.apply.retrieval import RetrievalTemperature
from xt.core.data.bitext import Bitext
from xt.core.data.corpus import Corpus
from xt.core.encoder import torch_engine
from xt.core.encoder.text import TooLong
from xt.core.errors import XtError
from xt.core.files.artifact import open_artifact
from xt.core.results.folder import read_document
from xt.core.results.report import Encoder
from xt.eval.retrieval.evaluation import evaluate
from xt.eval.retrieval.ranking import DIRECTIONS
from xt.eval.retrieval.report import assemble, examples, write_report
from xt.serve.encoders import OpenedEncoder

ENTRY = Encoder(name="tiny", label="tiny", provenance="test", precision="fp32", engine="pytorch", dim=32)


def corpus_of(pairs: int, languages=("deu", "fra", "swh"), *, noise: int = 1) -> Corpus:
    """English of six made-up words; a "translation" has `noise` of them replaced."""
    rng = random.Random(0)
    english = [" ".join(f"word{rng.randrange(1200)}" for _ in range(6)) for _ in range(pairs)]
    bitexts = []
    for code in languages:
        rows = []
        for sentence in english:
            words = sentence.split()
            for place in rng.sample(range(6), noise):
                words[place] = f"word{rng.randrange(1200)}"
            rows.append(" ".join(words))
        bitexts.append(Bitext(code, tuple(rows), tuple(english)))
    return Corpus("made-up", "Made up", "written here", "none", tuple(bitexts))


@pytest.fixture(scope="module")
def encoder(tiny):
    return torch_engine.load_encoder(tiny, device="cpu")


@pytest.fixture(scope="module")
def made():
    return corpus_of(80)


@pytest.fixture(scope="module")
def few():
    """Too few pairs to fit on."""
    return corpus_of(20, ("deu", "swh"))


@pytest.fixture(scope="module")
def evaluation(encoder, made):
    return evaluate(OpenedEncoder(encoder, ENTRY, 0.05), made)


@pytest.fixture(scope="module")
def report(evaluation, made, tmp_path_factory):
    out = tmp_path_factory.mktemp("reports") / "one"
    metrics = assemble("A title", made, [evaluation], notes=["a caveat"])
    return write_report(out, metrics, [evaluation], parents=[{"kind": "folder", "path": "p", "hash": ""}])


def test_a_report_folder_is_complete_and_checked(report):
    assert sorted(p.name for p in report.path.iterdir()) == [
        "calibration.json",
        "curves.parquet",
        "metrics.json",
        "predictions.parquet",
        "report.html",
        "xt.json",
    ]
    opened = open_artifact(report.path, kind="report")
    assert opened.manifest["parents"] == [{"kind": "folder", "path": "p", "hash": ""}]
    assert opened.facts["encoders"] == ["tiny"]
    assert opened.facts["task"] == {
        "name": "made-up",
        "title": "Made up",
        "description": "written here",
        "licence": "none",
        "languages": 3,
        "pairs": 240,
    }


def test_every_query_has_a_row_of_predictions(report, made):
    table = pq.read_table(report.path / "predictions.parquet")
    assert table.num_rows == 3 * 80 * 2
    rows = table.to_pylist()
    assert {r["direction"] for r in rows} == set(DIRECTIONS)
    deu = [r for r in rows if r["language"] == "deu"]
    asked = [r["query"] for r in deu if r["direction"] == "foreign-english"]
    assert asked == list(made.pairs[0].foreign)
    assert [r["gold"] for r in deu if r["direction"] == "english-foreign"] == list(made.pairs[0].foreign)
    assert all(r["correct"] == (r["answer"] == r["gold"]) == (r["gold_position"] == 0) for r in rows)
    assert all(0 <= r[c] <= 1 for r in rows for c in r if c.startswith("p_"))


def test_accuracy_and_confidence_follow_from_the_predictions(report):
    rows = pq.read_table(report.path / "predictions.parquet").to_pylist()
    metrics = read_document(report.path)
    swept = 0
    for direction in DIRECTIONS:
        found = metrics["encoders"][0]["retrieval"][direction]
        for code, row in found["languages"].items():
            mine = [r for r in rows if (r["direction"], r["language"]) == (direction, code)]
            assert row["accuracy"] == pytest.approx(np.mean([r["correct"] for r in mine]))
            for key, method in metrics["encoders"][0]["calibration"][direction]["methods"].items():
                confidence = np.array([r[f"p_{key}"] for r in mine])
                correct = np.array([r["correct"] for r in mine], float)
                kept = method["languages"][code]
                assert kept["mean_confidence"] == pytest.approx(confidence.mean())
                assert kept["brier"] == pytest.approx(((confidence - correct) ** 2).mean())
                swept += 1
        assert found["mean"]["all"] == pytest.approx(np.mean([r["accuracy"] for r in found["languages"].values()]))
        assert found["mean"]["low"] == pytest.approx(found["languages"]["swh"]["accuracy"])
        assert 0.3 < found["mean"]["all"] < 1, "the corpus is too hard or too easy to say anything"
    assert swept >= 2 * 3 * 9


def test_kept_calibrators_can_be_read_for_serving(report):
    kept = read(report.path / "calibration.json").encoders
    assert list(kept) == ["tiny"] and sorted(kept["tiny"]) == sorted(DIRECTIONS)
    for methods in kept["tiny"].values():
        assert {"per-language", "pooled", "zero-shot", "predicted", "shrunk", "none-of-these"} <= set(methods)
        assert methods["zero-shot"].fitted_on == ("deu", "fra")
        one_each = methods["per-language"].languages.values()
        for fitted in (methods["zero-shot"].calibrator, methods["pooled"].calibrator, *one_each):
            assert isinstance(fitted, RetrievalTemperature) and 0 < fitted.temperature < math.inf


def test_metrics_name_languages_machine_and_command(report):
    metrics = read_document(report.path)
    assert metrics["languages"]["swh"]["resource"] == "low"
    assert metrics["machine"]["cores"] >= 1
    assert metrics["machine"]["packages"]["torch"]
    assert metrics["notes"] == ["a caveat"]
    assert metrics["encoders"][0]["dim"] == 32
    assert metrics["encoders"][0]["truncated"] == 0
    page = (report.path / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") or page.startswith("<!DOCTYPE html>")
    assert "A title" in page and "Swahili" in page


def test_an_existing_target_is_refused_and_force_replaces_it(evaluation, made, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "mine.txt").write_text("keep")
    metrics = assemble("A title", made, [evaluation])
    with pytest.raises(XtError, match="exists already"):
        write_report(tmp_path / "one", metrics, [evaluation])
    assert [p.name for p in (tmp_path / "one").iterdir()] == ["mine.txt"]
    with pytest.raises(XtError, match=r"was not written by xt.*mine\.txt"):
        write_report(tmp_path / "one", metrics, [evaluation], force=True)
    assert (tmp_path / "one" / "mine.txt").read_text() == "keep"
    (tmp_path / "one" / "mine.txt").unlink()
    write_report(tmp_path / "one", metrics, [evaluation])
    write_report(tmp_path / "one", metrics, [evaluation], force=True)
    open_artifact(tmp_path / "one", kind="report")


def test_predictions_of_encoders_with_other_methods_lose_no_column(encoder, few, tmp_path):
    both = [evaluate(OpenedEncoder(encoder, replace(ENTRY, name=n), t), few) for n, t in (("bare", None), ("tiny", 1))]
    write_report(tmp_path / "two", assemble("Two", few, both), both)
    rows = pq.read_table(tmp_path / "two" / "predictions.parquet").to_pylist()
    assert len(rows) == 2 * 2 * 20 * 2
    assert {r["p_training"] is None for r in rows if r["encoder"] == "bare"} == {True}
    assert {r["p_training"] is None for r in rows if r["encoder"] == "tiny"} == {False}


def test_the_training_temperature_changes_confidence_and_not_accuracy(encoder, few):
    both = [evaluate(OpenedEncoder(encoder, ENTRY, t), few) for t in (0.05, 0.5)]
    for direction in DIRECTIONS:
        first, second = (e.encoder.calibration[direction].methods["training"].overall for e in both)
        assert first.accuracy == second.accuracy
        assert first.mean_confidence > second.mean_confidence + 0.05


def test_four_pairs_a_language_are_evaluated_without_a_fit(encoder, corpus):
    found = evaluate(OpenedEncoder(encoder, ENTRY), Corpus("four", "Four", "", "", tuple(corpus)))
    for direction in DIRECTIONS:
        assert list(found.encoder.calibration[direction].methods) == ["cosine"]
        assert found.encoder.calibration[direction].fit_languages == []
    assert len(found.predictions) == 3 * 4 * 2
    assert found.calibrators == {d: {} for d in DIRECTIONS}


def test_a_language_outside_the_table_is_evaluated_as_unknown(encoder, tmp_path):
    made = corpus_of(5, ("deu", "mylang"))
    found = evaluate(OpenedEncoder(encoder, ENTRY), made)
    assert set(found.encoder.retrieval["foreign-english"].mean) == {"all", "high", "unknown"}
    metrics = assemble("Mine", made, [found])
    assert list(metrics.languages) == ["deu"]
    write_report(tmp_path / "mine", metrics, [found])


def test_long_sentences_stop_the_run_unless_they_may_be_cut(encoder, corpus):
    long = " ".join(f"word{i}" for i in range(100))
    pairs = Bitext("deu", (*corpus[0].foreign, long), (*corpus[0].english, "a long one"))
    made = Corpus("long", "Long", "", "", (pairs,))
    with pytest.raises(TooLong, match="text 4 has 103 tokens"):
        evaluate(OpenedEncoder(encoder, ENTRY), made)
    assert evaluate(OpenedEncoder(encoder, ENTRY), made, truncate=True).encoder.truncated == 1


def row(language: str, correct: bool, p: float, direction: str = DIRECTIONS[0]) -> dict:
    names = ("encoder", "query", "answer", "gold")
    return {
        **dict.fromkeys(names, "x"),
        "language": language,
        "correct": correct,
        "direction": direction,
        "p_pooled": p,
    }


def test_examples_are_the_surest_right_and_wrong_ones_one_a_language():
    rows = [
        row("deu", True, 0.8),
        row("deu", True, 0.9),
        row("fra", True, 0.7),
        row("fra", False, 0.95),
        row("swh", False, 0.2),
        row("swh", False, 0.99, DIRECTIONS[1]),
    ]
    found = [(e["language"], e["correct"], e["probability"]) for e in examples(rows)]
    assert found == [("deu", True, 0.9), ("fra", True, 0.7), ("fra", False, 0.95), ("swh", False, 0.2)]
    assert [e["language"] for e in examples(rows, each=1)] == ["deu", "fra"]
