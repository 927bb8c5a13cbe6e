"""Scores equal those of the benchmarks' scripts: against seqeval, torchmetrics, and MLQA's rules written out again."""

from __future__ import annotations

import unicodedata
import warnings
from collections import Counter
from dataclasses import replace
from string import punctuation

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from xt.core.data import tasks
from xt.core.data.examples import PairExample, QaExample, TaggedExample
from xt.core.data.task_table import TASKS
from xt.core.errors import XtError
from xt.core.heads.scores import entities
from xt.eval.heads.official import ARTICLES, answer_scores, convention, mlqa_normalize, score

MLQA, XQUAD, SQUAD2, UDPOS = (tasks.get(name) for name in ("mlqa", "xquad", "squad-v2", "udpos"))


def question(*answers: str) -> QaExample:
    return QaExample("q", "", "", answers, (0,) * len(answers))


# --- MLQA ---

DROPPED = {
    "en": {"a", "an", "the"},
    "es": {"un", "una", "unos", "unas", "el", "la", "los", "las"},
    "de": {"ein", "eine", "einen", "einem", "eines", "einer", "der", "die", "das", "den", "dem", "des"},
    "vi": {"của", "là", "cái", "chiếc", "những"},
}


def by_hand(text: str, language: str) -> list[str]:
    """MLQA's words of an answer, character by character and word by word, without regular expressions."""
    kept = "".join(c for c in text.lower() if not (unicodedata.category(c).startswith("P") or c in punctuation))
    if language == "ar":
        kept = kept.replace("ال", " ")
    if language == "zh":
        kept = "".join(f" {c} " if "\u4e00" <= c <= "\u9fa5" else c for c in kept)
    return [word for word in kept.split() if word not in DROPPED.get(language, set())]


PIECES = {
    "en": ["the", "The", "an", "cat", "A", "theatre", "U.S.", "«cat»", "12,000", "-", "it's", "_"],
    "es": ["el", "La", "gato", "unos", "niño", "¿qué?", "las", "una,"],
    "de": ["der", "Die", "Straße", "eines", "Haus", "„Haus“", "des", "Größe"],
    "vi": ["của", "những", "mèo", "Cái", "chiếc", "Hà", "Nội.", "là"],
    "ar": ["القط", "قط", "بالبيت", "ال", "كتاب،", "الكتاب", "؟"],
    "hi": ["बिल्ली", "घर।", "एक", "॥", "cat", "the"],
    "zh": ["中国", "人民", "iPhone", "3G", "，", "《书》", "the", "2008年", "龥龥", "龦龦"],
}


@pytest.mark.parametrize("language", sorted(ARTICLES))
def test_mlqas_words_and_scores_are_those_by_hand(language: str) -> None:
    rng = np.random.default_rng(3)
    phrase = lambda: " ".join(rng.choice(PIECES[language], rng.integers(0, 6)))
    seen: set[float] = set()
    for _ in range(300):
        predicted, golds = phrase(), [phrase() for _ in range(rng.integers(1, 3))]
        assert mlqa_normalize(predicted, language).split() == by_hand(predicted, language)
        f1s, exact = [], []
        for gold in golds:
            ours, theirs = by_hand(predicted, language), by_hand(gold, language)
            same = sum((Counter(ours) & Counter(theirs)).values())
            f1s.append(2 * same / (len(ours) + len(theirs)) if same else 0.0)
            exact.append(float(ours == theirs))
        found = score(MLQA, language, [question(*golds)], [predicted])
        assert found == {"f1": pytest.approx(max(f1s)), "exact_match": max(exact)}
        seen.add(round(max(f1s), 3))
    assert len(seen) > 5


def test_mlqa_is_scored_in_the_language_of_the_answer() -> None:
    """What is an article in one language is a word in another; the code may have two letters or three."""
    example, said = [question("die Katze")], ["Katze"]
    assert score(MLQA, "deu", example, said) == {"f1": 1.0, "exact_match": 1.0}
    assert score(MLQA, "de", example, said) == {"f1": 1.0, "exact_match": 1.0}
    assert score(MLQA, "eng", example, said)["f1"] == pytest.approx(2 / 3)
    assert score(MLQA, "cmn", [question("北京大学")], ["北京"])["f1"] == pytest.approx(2 * 2 / (2 + 4))
    assert score(XQUAD, "cmn", [question("北京大学")], ["北京"])["f1"] == 0.0  # SQuAD's has no words but by blanks
    with pytest.raises(XtError, match=r"MLQA has no swh|MLQA has no sw"):
        score(MLQA, "swh", example, said)


# --- SQuAD ---


def test_answers_of_v1_agree_with_torchmetrics_but_for_nothing() -> None:
    """evaluate-v1.1.py has 0 as the F1 of nothing and nothing, torchmetrics 1: those are worked out by hand."""
    from torchmetrics.functional.text import squad

    rng = np.random.default_rng(0)
    pieces = ["the", "A", "an", "cat", "Cat.", "café", "東京", "b-c", "12,000", "--", *punctuation[:6]]
    phrase = lambda: " ".join([*rng.choice(pieces, rng.integers(0, 7)), "word"])
    predicted, golds = [phrase() for _ in range(200)], [tuple(phrase() for _ in range(3)) for _ in range(200)]
    theirs = squad(
        [{"prediction_text": p, "id": str(n)} for n, p in enumerate(predicted)],
        [{"answers": {"answer_start": [0] * 3, "text": list(g)}, "id": str(n)} for n, g in enumerate(golds)],
    )
    found = score(XQUAD, "eng", [question(*g) for g in golds], predicted)
    assert found["f1"] == pytest.approx(float(theirs["f1"]) / 100, abs=1e-6)
    assert found["exact_match"] == pytest.approx(float(theirs["exact_match"]) / 100, abs=1e-6)
    assert score(XQUAD, "eng", [question("the")], ["an"]) == {"f1": 0.0, "exact_match": 1.0}


def test_v2_drops_answers_of_nothing_and_wants_the_empty_text_where_there_is_none() -> None:
    golds = [question("the", "cat"), question("the"), question(), question()]
    f1, exact = answer_scores(SQUAD2, "eng", golds, ["an", "an", "", "cat"])
    assert f1.tolist() == exact.tolist() == [0.0, 1.0, 1.0, 0.0]


def test_a_question_without_gold_is_refused_where_each_has_one() -> None:
    with pytest.raises(XtError, match=r"xquad, deu: question 'q' has no accepted answer"):
        score(XQUAD, "deu", [question()], ["cat"])
    with pytest.raises(XtError, match="there are no examples"):
        score(XQUAD, "deu", [], [])


def test_tydiqas_answers_are_scored_as_squads_v1() -> None:
    assert convention(tasks.get("tydiqa")) == convention(XQUAD) == "SQuAD's evaluate-v1.1.py"
    assert convention(SQUAD2) == "SQuAD's evaluate-v2.0.py"
    found = score(
        tasks.get("tydiqa"), "fin", [question("Helsingin yliopisto"), question("1640")], ["yliopisto", "1640."]
    )
    assert found == {"f1": pytest.approx((2 / 3 + 1) / 2), "exact_match": 0.5}


# --- tags ---


def seqevals(gold: list[list[str]], predicted: list[list[str]]) -> float:
    """seqeval's F1, of tags written so that its versions agree: the type after the hyphen."""
    from seqeval.metrics import f1_score

    whole = lambda row: [tag if tag == "O" or "-" in tag else f"{tag[0]}-{tag}" for tag in row]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(f1_score([whole(row) for row in gold], [whole(row) for row in predicted]))


@pytest.mark.parametrize("name", ["udpos", "panx", "masakhaner"])
def test_the_f1_of_tags_is_seqevals(name: str) -> None:
    task = tasks.get(name)
    rng = np.random.default_rng(5)
    n = len(task.labels)
    gold = [tuple(rng.integers(0, n, rng.integers(1, 12)).tolist()) for _ in range(300)]
    said = [tuple(int(x) if rng.random() < 0.7 else int(rng.integers(0, n)) for x in row) for row in gold]
    tags = lambda rows: [[task.labels[i] for i in row] for row in rows]
    found = score(task, "eng", [TaggedExample("", ("w",) * len(row), row) for row in gold], said)
    assert found["span_f1"] == pytest.approx(seqevals(tags(gold), tags(said)), abs=1e-9)
    flat = lambda rows: [i for row in rows for i in row]
    assert found["accuracy"] == pytest.approx(accuracy_score(flat(gold), flat(said)))
    assert 0.3 < found["span_f1"] < 0.95
    assert next(iter(found)) == task.metric


def test_spans_of_parts_of_speech_are_seqevals_span_by_span() -> None:
    get = pytest.importorskip("seqeval.metrics.sequence_labeling").get_entities
    rng = np.random.default_rng(6)
    kinds = ["NOUN", "SYM", "SCONJ", "CCONJ", "INTJ", "X", "O", "B-A", "I-A", "E-A", "S-A", "B-b-c"]
    for _ in range(2000):
        row = rng.choice(kinds, rng.integers(1, 9)).tolist()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = get([tag if tag == "O" or "-" in tag else f"{tag[0]}-{tag}" for tag in row])
        assert entities(row) == {(kind, a, b + 1) for kind, a, b in theirs}


def test_no_span_at_all_has_an_f1_of_zero_as_in_seqeval() -> None:
    task = tasks.get("panx")
    outside = task.labels.index("O")
    example = TaggedExample("", ("a", "b"), (outside, outside))
    assert score(task, "eng", [example], [(outside, outside)]) == {"span_f1": 0.0, "accuracy": 1.0}
    assert seqevals([["O", "O"]], [["O", "O"]]) == 0.0


def test_accuracy_is_the_share_of_right_labels() -> None:
    rows = [PairExample(str(n), "a", "b", n % 3) for n in range(9)]
    assert score(tasks.get("xnli"), "deu", rows, [0] * 9) == {"accuracy": pytest.approx(1 / 3)}


def test_every_task_of_heads_has_a_named_convention() -> None:
    rows = [t for t in TASKS.values() if t.format in ("pair", "single", "choice", "tagging", "qa", "regression")]
    assert len(rows) > 20
    assert all(convention(row) for row in rows)
    assert convention(replace(XQUAD, name="mine")) == convention(XQUAD)
