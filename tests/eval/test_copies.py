"""Equal texts in what is evaluated: conventional figures by index, beside them those by text, and a warning.

Tests `eval/mining/run.py`, `eval/ranked/run.py` and `eval/retrieval/run.py` as well.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.eval.test_small_corpora import ENTRY, Vectors, beir, evaluated, plain, request, written
from xt.calibration.matching import agreement
from xt.cli.console import REPORTER
from xt.cli.evaluate.show import show_report
from xt.core.data.bitext import Bitext
from xt.core.data.corpus import Corpus
from xt.eval.mining.run import evaluate_mined, evaluate_mining
from xt.eval.mining.sets import MiningSet, MiningTask, Sentences
from xt.eval.ranked.run import evaluate_ranked
from xt.eval.retrieval import ranking
from xt.eval.retrieval.run import evaluate_corpus
from xt.serve.encoders import OpenedEncoder


class Near(Vectors):
    """Nearly all right: one sentence means another."""

    def vector(self, text):
        language, number = text.split()[:2]
        number = int(number)
        if language != "eng" and number == 7:
            number += 1
        return np.random.default_rng(number).normal(size=32)


def corpus(pairs, code="deu"):
    foreign, english = zip(*pairs, strict=True)
    return Corpus("small", "small", "made here", "none", (Bitext(code, foreign, english),))


def evaluate(tmp_path, capsys, pairs, encoder):
    out = tmp_path / "report"
    opened = OpenedEncoder(encoder, ENTRY, 0.05)
    show_report(evaluate_corpus(opened, corpus(pairs), request(out), reporter=REPORTER))
    return *written(out), " ".join(capsys.readouterr().err.split())


PAIRS = [(f"deu {i}", f"eng {i}") for i in range(40)]


def test_pairs_repeated_once_are_half_right_by_index_and_as_right_as_without_copies_by_text(tmp_path, capsys):
    once, _, before = evaluate(tmp_path / "one", capsys, PAIRS, Near())
    metrics, page, said = evaluate(tmp_path / "two", capsys, [*PAIRS, *PAIRS], Near())
    (entry,), (alone,) = metrics["encoders"], once["encoders"]
    for direction in ranking.DIRECTIONS:
        row, single = (e["retrieval"][direction]["languages"]["deu"] for e in (entry, alone))
        assert single["accuracy"] == single["accuracy_by_text"] == pytest.approx(39 / 40)
        assert single["copies"] == {"documents": 0, "queries": 0}
        assert row["accuracy"] == pytest.approx(39 / 80)  # one of two equal sentences is found first
        assert row["accuracy_by_text"] == pytest.approx(39 / 40)
        assert row["copies"] == {"documents": 40, "queries": 40}
        assert (row["n"], row["candidates"]) == (80, 80)
        assert entry["retrieval"][direction]["by_text"]["all"] == pytest.approx(39 / 40)
        cosine, one = (e["calibration"][direction]["methods"]["cosine"]["overall"] for e in (entry, alone))
        assert cosine["accuracy"] == one["accuracy"] == pytest.approx(39 / 40)
        assert cosine["mean_confidence"] == pytest.approx(one["mean_confidence"], abs=1e-6)
        assert cosine["nll"] == pytest.approx(one["nll"], abs=1e-6)
    warning = (
        "warning: foreign-english: 40 documents and 40 queries repeat another text (deu); accuracy differs: deu 48.8 by "
        "index, 97.5 by text"
    )
    assert metrics["notes"][0] == warning and warning in said and plain(warning) in page
    assert "notes" not in once or not any("repeat" in n for n in once["notes"])
    assert "repeat another" not in before and "by text" not in before
    assert "f-e by text" in said or "by text: all 97.5" in said


def test_variants_in_white_space_and_composition_are_copies_too(tmp_path, capsys):
    pairs = [(f"deu {i}", f"eng {i} \u00e9") for i in range(10)] + [
        (f"deu {i}x", f"eng {i} e\u0301 ") for i in range(3)
    ]

    class Plain(Vectors):
        def vector(self, text):
            return np.random.default_rng(int(text.split()[1].rstrip("x"))).normal(size=32)

    metrics, _, _ = evaluate(tmp_path, capsys, pairs, Plain())
    row = metrics["encoders"][0]["retrieval"]["foreign-english"]["languages"]["deu"]
    assert row["copies"] == {"documents": 3, "queries": 0}
    assert row["accuracy_by_text"] == 1 and row["accuracy"] == pytest.approx(10 / 13)


def test_a_ranking_of_texts_holds_each_once_and_is_that_of_the_index_without_copies():
    some = Bitext("deu", tuple(f"deu {i}" for i in range(8)), tuple(f"eng {i % 4}" for i in range(8)))
    vectors = ranking.encode_corpus(Vectors("all right"), [some])["deu"]
    by_index = ranking.rank(some, vectors, "foreign-english")
    found = ranking.rank_texts(some, vectors, "foreign-english", by_index)
    assert found.scores.shape == (8, 4) and found.candidates == 4
    assert np.sort(found.rows, axis=1).tolist() == [[0, 1, 2, 3]] * 8
    np.testing.assert_allclose(found.scores.max(1), by_index.scores.max(1), atol=1e-6)
    other = ranking.rank(some, vectors, "english-foreign")
    assert ranking.rank_texts(some, vectors, "english-foreign", other) is other
    told = agreement(found.predictions("deu", some.english))
    assert (told.queries, told.documents, told.share) == (4, 4, 1.0)  # all four are found, twice each


def test_a_thousand_copies_of_one_sentence_leave_room_for_the_others():
    english = tuple(["eng 0"] * 1000 + [f"eng {i}" for i in range(1, 120)])
    some = Bitext("deu", tuple(f"deu {i}" for i in range(1119)), english)
    vectors = ranking.encode_corpus(Vectors("noisy"), [some])["deu"]
    by_index = ranking.rank(some, vectors, "foreign-english")
    found = ranking.rank_texts(some, vectors, "foreign-english", by_index)
    assert found.scores.shape == (1119, 100)
    assert all(len(set(row)) == 100 for row in found.rows[::50].tolist())
    exact = vectors.foreign[:20] @ vectors.english[[0, *range(1000, 1119)]].T
    np.testing.assert_allclose(found.scores[:20], -np.sort(-exact, axis=1)[:, :100], atol=1e-5)


# --- ranked retrieval ---


def test_copies_of_a_relevant_document_are_right_by_text_and_counted(tmp_path, capsys):
    documents = {f"a{i}": f"eng {i}" for i in range(6)} | {f"b{i}": f"eng {i}" for i in range(6)}
    judged = {f"q{i}": [f"{'a' if i < 3 else 'b'}{i}"] for i in range(6)}
    folder = beir(tmp_path / "twice", documents, judged)
    opened = OpenedEncoder(Vectors("all right"), ENTRY, 0.05)
    show_report(evaluate_ranked(opened, request(tmp_path / "r", f"beir:{folder}"), cut=True, reporter=REPORTER))
    metrics, page = written(tmp_path / "r")
    section, said = metrics["ranked"], " ".join(capsys.readouterr().err.split())
    assert section["copies"] == {"documents": 6, "queries": 0}
    assert (
        section["languages"]["swh"]["accuracy"] == 0.5
    )  # one of two copies is found, and by turns the other is judged
    assert section["languages"]["swh"]["accuracy_by_text"] == section["mean"]["accuracy_by_text"]["all"] == 1
    cosine = metrics["encoders"][0]["calibration"]["queries-documents"]["methods"]["cosine"]["overall"]
    assert cosine["accuracy"] == 1
    (note,) = [n for n in section["notes"] if n.startswith("warning")]
    assert "6 documents and 0 queries repeat another text (accuracy 0.500, accuracy by text 1.000)" in note
    assert note in said and plain(note) in page
    rows = [json.loads(line) for line in (tmp_path / "r" / "predictions.jsonl").read_text().splitlines()]
    assert all(row["correct"] for row in rows) and sum(row["correct_by_id"] for row in rows) == 3


# --- mining ---


def mining_task(times):
    def part(start):
        ids = [(i, t) for t in range(times) for i in range(start, start + 40)]
        foreign = Sentences(tuple(f"f{i}-{t}" for i, t in ids), tuple(f"deu {i}" for i, t in ids))
        english = Sentences(tuple(f"e{i}-{t}" for i, t in ids), tuple(f"eng {i}" for i, t in ids))
        gold = frozenset((f"f{i}-{t}", f"e{i}-{t}") for i, t in ids if i % 40 < 30)
        return MiningSet(foreign, english, gold, "here")

    return MiningTask("deu", part(0), part(1000))


def test_repeated_sentences_are_mined_by_text_where_the_convention_drops_them():
    once = evaluate_mining(Vectors("noisy"), [mining_task(1)], margin="distance").section["languages"]["deu"]
    twice = evaluate_mining(Vectors("noisy"), [mining_task(2)], margin="distance").section["languages"]["deu"]
    assert "by_text" not in once and not any("repeat" in n for n in once["notes"])
    assert (twice["f1"], twice["pairs"], twice["threshold"]) == (0, 0, None)
    assert twice["n"] == 60 and twice["copies"] == [80, 80]
    assert {k: twice["by_text"][k] for k in ("f1", "precision", "recall", "pairs", "threshold")} == {
        k: pytest.approx(once[k]) for k in ("f1", "precision", "recall", "pairs", "threshold")
    }
    assert any("80 foreign and 80 English sentences repeat another: F1 by id 0.000" in n for n in twice["notes"])


def test_a_report_of_repeated_sentences_has_the_warning(tmp_path, capsys):
    folder = tmp_path / "texts"
    folder.mkdir()
    task = mining_task(2)
    for name, part in (("dev", task.dev), ("test", task.test)):
        for side, found in (("de", part.foreign), ("en", part.english)):
            rows = zip(found.ids, found.texts, strict=True)
            (folder / f"de-en.{name}.{side}").write_text("".join(f"{i}\t{t}\n" for i, t in rows))
        (folder / f"de-en.{name}.gold").write_text("".join(f"{a}\t{b}\n" for a, b in sorted(part.gold)))
    opened, task = OpenedEncoder(Vectors("noisy"), ENTRY), request(tmp_path / "r", f"mine:{folder}")
    show_report(evaluate_mined(opened, task, margin="distance", reporter=REPORTER))
    metrics, page = written(tmp_path / "r")
    (note,) = [n for n in metrics["mining"]["languages"]["deu"]["notes"] if n.startswith("warning")]
    assert plain(note) in page and note in " ".join(capsys.readouterr().err.split())


def test_without_copies_nothing_is_warned_of(tmp_path, capsys):
    metrics, _, said = evaluated(tmp_path, capsys, {"swh": 3})
    assert not any("repeat" in note for note in metrics.get("notes", [])) and "repeat another" not in said
