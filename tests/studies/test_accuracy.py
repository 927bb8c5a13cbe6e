"""The study of accuracies without labels: vectors made by hand, estimates that it must agree with, its tables, a run."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from xt.calibration.accuracy import estimate_accuracy
from xt.core.errors import UsageError, XtError
from xt.core.reporter import Reporter
from xt.eval.retrieval.ranking import DIRECTIONS, Encodings
from xt.studies import accuracy
from xt.studies.options import StudyOptions


def language(n: int, noise: float, seed: int) -> Encodings:
    rng = np.random.default_rng(seed)
    one = rng.normal(size=(n, 24))
    a, b = (one + noise * rng.normal(size=one.shape) for _ in range(2))
    a, b = ((v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float32) for v in (a, b))
    return Encodings(a, b, 0, 0)


def made() -> dict[tuple[str, str, str], accuracy.Case]:
    cases = {}
    for seed, (code, noise) in enumerate({"deu": 0.4, "fra": 0.5, "swh": 0.65, "jav": 0.55}.items()):
        vectors = language(240, noise, seed)
        texts = ([f"{code} {i}" for i in range(240)], [f"sentence {i}" for i in range(240)])
        for direction in DIRECTIONS:
            cases["planted", code, direction] = accuracy.case(vectors, texts, direction)
    return cases


@pytest.fixture(scope="module")
def found():
    return accuracy.results(made())


def test_the_sources_are_learnt_from_and_the_others_measured(found):
    assert [(row["language"], row["direction"]) for row in found["rows"]] == [
        (code, direction) for direction in DIRECTIONS for code in ("swh", "jav")
    ]
    for row in found["rows"]:
        ranking = made()["planted", row["language"], row["direction"]].ranking()
        assert row["accuracy"] == ranking.correct.mean()
        value = estimate_accuracy(ranking).value
        assert row["estimates"]["agreement with the assignment, less half of chance"] == pytest.approx(value, abs=1e-3)
        assert len(row["estimates"]) == 9 and all(0 <= v <= 1 for v in row["estimates"].values())


def test_a_situation_that_is_not_one_to_one_is_refused_or_corrected(found):
    rows = {row["situation"]: row for row in found["situations"]}
    assert list(rows) == list(accuracy.SITUATIONS)
    refused = {"queries by Zipf's law", "50 queries", "an index six times as large"}
    refused |= {"80 % of the answers are there", "every document twice"}
    assert {name for name, row in rows.items() if row["unknown"] == row["cases"]} == refused
    for name in set(rows) - refused:
        assert rows[name]["mean"] < 0.06
    assert rows["queries with replacement"]["share_mean"] > 0.2


def test_repeated_texts_are_one():
    vectors = language(4, 0.1, 0)
    one = accuracy.case(vectors, (["a", "b", "a", "c"], ["x", "x", "y", "z"]), DIRECTIONS[0])
    assert (len(one.queries), len(one.documents)) == (3, 3)
    assert one.gold.tolist() == [0, 0, 2]


def test_its_tables_hold_the_numbers():
    rows = [
        {
            "corpus": c,
            "language": "swh",
            "accuracy": 0.8,
            "unknown": u,
            "interval": (0.7, 0.85),
            "estimates": {"one": v},
        }
        for c, u, v in (("tatoeba", False, 0.81), ("sib200", True, 0.7))
    ]
    situation = {"situation": "50 queries", "cases": 2, "unknown": 1, "mean": 0.01, "worst": 0.02, "share_mean": 0.125}
    text = accuracy.markdown({"rows": rows, "situations": [situation]})
    assert "| one | 0.055 / 0.100 | 0.010 / 0.010 | 0.010 / 0.010 | – |" in text
    assert "1 of 1 cases" in text and "| 50 queries | 2 | 1 | 0.010 / 0.020 | 0.125 |" in text


def test_a_run_of_it_on_a_users_corpus(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XT_CACHE", str(tmp_path / "cache"))
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for code in ("deu", "swh"):
        lines = {
            "eng": [f"word {i} and {i * i}" for i in range(80)],
            code: [f"{code} {i} und {i * i}" for i in range(80)],
        }
        for side, some in lines.items():
            (corpus / f"corpus.{code}-eng.{side}").write_text("\n".join(some) + "\n", encoding="utf-8")
    study = accuracy.Settings(tmp_path / "out", str(tiny_folder), device="cpu", corpora=(str(corpus),))
    found = accuracy.execute(study, reporter=Reporter())
    assert {row["language"] for row in found["rows"]} == {"swh"}
    written = json.loads((tmp_path / "out" / "accuracy.json").read_text())
    assert [row["accuracy"] for row in written["rows"]] == [row["accuracy"] for row in found["rows"]]
    with pytest.raises(XtError, match="accuracy.json is there"):
        accuracy.execute(study, reporter=Reporter())
    (corpus / "corpus.deu-eng.deu").unlink()
    (corpus / "corpus.deu-eng.eng").unlink()
    with pytest.raises(XtError, match="none of the languages that are learnt from"):
        accuracy.execute(replace(study, force=True), reporter=Reporter())


def test_settings_that_do_nothing_are_refused(tmp_path):
    with pytest.raises(UsageError, match="precision"):
        StudyOptions("accuracy", tmp_path, precision="fp32")
