"""Scores against torchmetrics, seqeval, scipy and scikit-learn, and against numbers worked out by hand."""

from __future__ import annotations

import string
from typing import Any

import numpy as np
import pytest
from scipy.stats import rankdata
from sklearn.metrics import accuracy_score

from xt.core.data.examples import ChoiceExample, PairExample, QaExample, ScoredExample, SingleExample, TaggedExample
from xt.core.data.tasks import Task
from xt.core.heads.scores import entities, exact_match, majority, score, token_f1

ANSWERS = [
    ("the Eiffel Tower", "Eiffel Tower"),
    ("in 1889, for the fair", "1889"),
    ("a red, red rose", "red rose"),
    ("Berlin", "Paris"),
    ("", "something"),
    ("U.S.A.", "usa"),
    ("São Paulo!", "são  paulo"),
    ("the", "an"),
    ("", ""),
    ("...", ""),
    ("to absorb more heat from the sun", "more heat from sun"),
]


def task(format: str, metric: str, labels: tuple[str, ...] = ()) -> Task:
    return Task("t", "intermediate", format, "", labels, "", metric, "", "")


def theirs(predicted: list[str], golds: list[tuple[str, ...]]) -> tuple[float, float]:
    """F1 and exact match of torchmetrics, 0 to 1."""
    from torchmetrics.functional.text import squad

    found = squad(
        [{"prediction_text": p, "id": str(n)} for n, p in enumerate(predicted)],
        [{"answers": {"answer_start": [0] * len(g), "text": list(g)}, "id": str(n)} for n, g in enumerate(golds)],
    )
    return float(found["f1"]) / 100, float(found["exact_match"]) / 100


@pytest.mark.parametrize(("predicted", "answer"), ANSWERS)
def test_f1_and_exact_match_agree_with_torchmetrics(predicted: str, answer: str) -> None:
    f1, exact = theirs([predicted], [(answer,)])
    assert token_f1(predicted, answer) == pytest.approx(f1, abs=1e-6)
    assert exact_match(predicted, answer) == exact


def test_squads_scores_of_random_answers_agree_with_torchmetrics() -> None:
    rng = np.random.default_rng(0)
    pieces = ["the", "A", "an", "cat", "Cat.", "café", "東京", "b-c", "12,000", "--", "cats", *string.punctuation[:6]]
    phrase = lambda: " ".join(rng.choice(pieces, rng.integers(0, 7)))
    predicted = [phrase() for _ in range(400)]
    golds = [tuple(phrase() for _ in range(rng.integers(1, 4))) for _ in range(400)]
    for p, g in zip(predicted[:150], golds[:150], strict=True):
        assert token_f1(p, g[0]) == pytest.approx(theirs([p], [g[:1]])[0], abs=1e-6)
    examples = [QaExample("", "", "", g, (0,) * len(g)) for g in golds]
    found = score(task("qa", "f1"), examples, predicted)
    f1, exact = theirs(predicted, golds)
    assert found == {"f1": pytest.approx(f1, abs=1e-6), "exact_match": pytest.approx(exact, abs=1e-6)}
    assert 0.1 < f1 < 0.9


def test_a_question_without_answer_wants_the_empty_text() -> None:
    examples = [QaExample("", "", "", (), ()), QaExample("", "", "", (), ()), QaExample("", "", "", ("cat",), (0,))]
    assert score(task("qa", "f1"), examples, ["", "cat", ""]) == {"f1": 1 / 3, "exact_match": 1 / 3}


# --- spans ---

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def random_tags(rng: np.random.Generator, sentences: int) -> list[list[str]]:
    return [list(rng.choice(TAGS, rng.integers(1, 12))) for _ in range(sentences)]


def by_hand(tags: list[str]) -> set[tuple[str, int, int]]:
    """Spans as conlleval reads them: every word joins the span before it, or starts one, or is outside."""
    found: list[list[Any]] = []
    for at, tag in enumerate(tags):
        if tag == "O":
            continue
        prefix, kind = tag.split("-")
        joins = bool(found) and prefix == "I" and found[-1][0] == kind and found[-1][2] == at
        if joins:
            found[-1][2] = at + 1
        else:
            found.append([kind, at, at + 1])
    return {(k, a, b) for k, a, b in found}


def test_spans_of_random_tags_are_conllevals() -> None:
    rng = np.random.default_rng(1)
    for tags in random_tags(rng, 500):
        assert entities(tags) == by_hand(tags)


def test_spans_of_random_tags_and_their_f1_are_seqevals() -> None:
    seqeval = pytest.importorskip("seqeval.metrics")
    get = pytest.importorskip("seqeval.metrics.sequence_labeling").get_entities
    rng = np.random.default_rng(2)
    gold, predicted = random_tags(rng, 300), []
    for row in gold:
        assert entities(row) == {(kind, a, b + 1) for kind, a, b in get(row)}
        predicted.append([t if rng.random() < 0.7 else str(rng.choice(TAGS)) for t in row])
    numbers = lambda row: tuple(TAGS.index(t) for t in row)
    examples = [TaggedExample("", ("w",) * len(row), numbers(row)) for row in gold]
    found = score(task("tagging", "span_f1", TAGS), examples, [numbers(row) for row in predicted])
    assert found["span_f1"] == pytest.approx(seqeval.f1_score(gold, predicted))
    assert found["accuracy"] == pytest.approx(seqeval.accuracy_score(gold, predicted))
    assert 0.3 < found["span_f1"] < 0.9


def test_a_word_that_was_not_read_is_outside_and_counts_as_wrong() -> None:
    example = TaggedExample("", ("a", "b", "c"), (1, 2, 0))  # a person of two words
    found = score(task("tagging", "span_f1", TAGS), [example], [(1, -1, -1)])
    assert found == {"span_f1": 0.0, "accuracy": pytest.approx(1 / 3)}
    assert score(task("tagging", "span_f1", TAGS), [example], [(1, 2, -1)])["span_f1"] == 1.0


def test_tags_without_a_prefix_are_spans_as_long_as_they_repeat() -> None:
    assert entities(["DET", "NOUN", "NOUN", "O", "NOUN"]) == {("DET", 0, 1), ("NOUN", 1, 3), ("NOUN", 4, 5)}


# --- numbers and labels ---


def test_spearman_is_the_correlation_of_ranks() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=200)
    golds = np.round(values + rng.normal(size=200), 1)  # with ties
    examples = [ScoredExample("", "", "", float(g)) for g in golds]
    found = score(task("regression", "spearman"), examples, [float(v) for v in values])
    expected = np.corrcoef(rankdata(values), rankdata(golds))[0, 1]
    assert found["spearman"] == pytest.approx(expected)
    assert found["pearson"] == pytest.approx(np.corrcoef(values, golds)[0, 1])
    assert score(task("regression", "spearman"), examples, [1.0] * 200) == {"spearman": 0.0, "pearson": 0.0}


@pytest.mark.parametrize("format", ["pair", "single", "choice"])
def test_accuracy_is_scikit_learns(format: str) -> None:
    rng = np.random.default_rng(4)
    gold, predicted = (rng.integers(0, 3, 100).tolist() for _ in range(2))
    make = {
        "pair": lambda n: PairExample("", "", "", n),
        "single": lambda n: SingleExample("", "", n),
        "choice": lambda n: ChoiceExample("", "", ("a", "b", "c"), n),
    }[format]
    found = score(task(format, "accuracy", ("a", "b", "c")), [make(n) for n in gold], predicted)
    assert found == {"accuracy": pytest.approx(accuracy_score(gold, predicted))}


def test_accuracy_of_tags_is_over_words_not_sentences() -> None:
    examples = [TaggedExample("", ("a",), (0,)), TaggedExample("", ("a", "b", "c"), (1, 1, 0))]
    assert score(task("tagging", "accuracy", ("x", "y")), examples, [(0,), (0, 0, 1)]) == {"accuracy": 0.25}


def test_the_majority_is_the_most_frequent_label_the_first_of_equal_ones() -> None:
    pairs = [PairExample(str(i), "a", "b", label) for i, label in enumerate([1, 0, 1, 2])]
    assert majority(task("pair", "accuracy", ("e", "n", "c")), pairs) == (0.5, "n")
    assert majority(task("pair", "accuracy", ("e", "n", "c")), pairs[2:]) == (0.5, "n")
    choices = [ChoiceExample(str(i), "a", ("b", "c"), label) for i, label in enumerate([1, 1, 0])]
    assert majority(task("choice", "accuracy"), choices) == (pytest.approx(2 / 3), "choice 1")
    tagged = [TaggedExample("", ("a", "b", "c"), (0, 0, 1))]
    assert majority(task("tagging", "accuracy", ("x", "y")), tagged) == (pytest.approx(2 / 3), "x")
    assert majority(task("tagging", "span_f1", TAGS), tagged) == (0.0, "O")
    assert majority(task("qa", "f1"), [QaExample("q", "c", "q", ("c",), (0,))]) == (0.0, "no baseline")
    assert majority(task("pair", "accuracy", ("e",)), []) == (0.0, "no baseline")


def test_every_metric_of_a_prediction_is_among_its_scores() -> None:
    from xt.core.data.task_table import TASKS
    from xt.core.heads.decode import PREDICTED
    from xt.core.heads.scores import SCORES

    assert {task.metric for task in TASKS.values() if task.format in PREDICTED} <= set(SCORES)
