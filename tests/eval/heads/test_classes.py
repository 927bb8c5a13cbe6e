"""Figures of each label are scikit-learn's, and the lines of predictions name what was read and answered.

Tests `eval/heads/items.py` and `eval/heads/lines.py` as well.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

from tests.pages import read as read_page
from xt.core.data import tasks
from xt.core.data.examples import ChoiceExample, PairExample, QaExample, ScoredExample, SingleExample, TaggedExample
from xt.core.heads.decode import Prediction
from xt.eval import compare_reading
from xt.eval.heads import classes
from xt.eval.heads.lines import CONTEXT_CHARACTERS, TEXT_CHARACTERS, said
from xt.eval.report import build

SIB, XNLI, XCOPA, XQUAD, NER, SICK = (
    tasks.get(n) for n in ("sib200", "xnli", "xcopa", "xquad", "masakhaner", "sick-relatedness")
)


def drawn(labels, count, seed, *, never=()):
    rng = np.random.default_rng(seed)
    allowed = [i for i in range(labels) if i not in never]
    gold = rng.choice(allowed, count)
    return gold, np.where(rng.random(count) < 0.6, gold, rng.choice(allowed, count))


@pytest.mark.parametrize(("labels", "count", "never"), [(2, 50, ()), (7, 400, (3,)), (60, 3000, (0, 59)), (3, 1, ())])
def test_figures_are_those_of_scikit_learn(labels, count, never):
    gold, given = drawn(labels, count, labels, never=never)
    names = [f"label {i}" for i in range(labels)]
    found = classes.describe(classes.confusion(gold, given, labels), names)
    seen = sorted({*gold.tolist(), *given.tolist()})
    assert list(found["labels"]) == [names[i] for i in seen]  # those that the data lack are left out
    expected = precision_recall_fscore_support(gold, given, labels=seen, zero_division=0)
    for key, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        np.testing.assert_allclose([row[key] for row in found["labels"].values()], values, atol=1e-6)
    assert found["macro_f1"] == pytest.approx(f1_score(gold, given, average="macro", zero_division=0))
    matrix = confusion_matrix(gold, given, labels=seen)
    if labels <= classes.MATRIX_LABELS:
        assert found["matrix"] == matrix.tolist()
        return
    np.fill_diagonal(matrix, 0)
    assert "matrix" not in found and len(found["confusions"]) == classes.CONFUSIONS
    assert found["confusions"][0][2] == matrix.max()
    for right, other, n in found["confusions"]:
        assert matrix[seen.index(names.index(right)), seen.index(names.index(other))] == n


def test_words_that_were_not_read_are_counted_beside_the_matrix():
    examples = [TaggedExample("a", ("x", "y", "z"), (0, 1, 1)), TaggedExample("b", ("w",), (2,))]
    answers = [Prediction((0, 1, -1)), Prediction((1,))]
    gold, given = classes.gold_and_given(NER, examples, answers)
    found = classes.classes(NER, {"eng": classes.confusion(gold, given, len(NER.labels))})
    assert found["of"] == "words" and "languages" not in found
    assert found["all"]["matrix"] == [[1, 0, 0], [0, 1, 0], [0, 1, 0]]
    assert found["all"]["not_read"] == [0, 1, 0]
    rows = found["all"]["labels"]
    assert [rows[NER.labels[i]]["recall"] for i in range(3)] == [1.0, 0.5, 0.0]
    assert [rows[NER.labels[i]]["precision"] for i in range(3)] == [1.0, 0.5, 0.0]


def test_the_page_shows_labels_and_matrix_and_escapes_them():
    names = ("<i>no</i>", "yes")
    task = replace(SIB, labels=names)
    matrices = {"deu": np.array([[13, 2, 0], [4, 11, 0]]), "swh": np.array([[1, 0, 0], [0, 1, 0]])}
    rows = {code: {"n": 3, "accuracy": 0.5, "macro_f1": classes.macro_f1(m)} for code, m in matrices.items()}
    section = {"task": "t", "metric": "accuracy", "head": "h", "mean": {"macro_f1": {"all": 0.8}}, "languages": rows}
    section |= {"classes": classes.classes(task, matrices), "notes": ["no row <names> its language"]}
    page = read_page(build.render({"title": "t", "classification": section}))
    assert not page.of("i") and "no row <names> its language" in page.text
    matrix = page.table("Confusion matrix, all languages")
    assert matrix.row("<i>no</i>") == ["<i>no</i>", "14", "2"] and matrix.row("yes") == ["yes", "4", "12"]
    assert [bold.text for bold in matrix.of("b")] == ["14", "12"]
    labels = page.table("Labels, all languages")
    assert labels.row("<i>no</i>")[1:3] == ["77.8%", "87.5%"]  # 14 of 18, 14 of 16
    assert page.table("Confusion matrix, deu").row("<i>no</i>")[1] == "13"
    many = np.ones((40, 41), np.int64)
    many[3, 5] = 77
    section["classes"] = classes.classes(replace(SIB, labels=tuple(f"l{i}" for i in range(40))), {"deu": many})
    page = read_page(build.render({"title": "t", "classification": section}))
    assert page.table("The commonest confusions, all languages").rows[1] == ["l3", "l5", "77"]


def test_lines_name_texts_labels_and_tags():
    chance = np.array([0.25, 0.5, 0.25], np.float32)
    line = said(XNLI, PairExample("a", "x", "y", 2), Prediction(1, chance))
    no, maybe, yes = XNLI.labels
    assert line == {
        "id": "a", "first": "x", "second": "y", "gold": yes, "predicted": maybe,
        "probabilities": {no: 0.25, maybe: 0.5, yes: 0.25},
    }  # fmt: skip
    line = said(SIB, SingleExample("a", "x", 2), Prediction(1))
    assert line == {"id": "a", "text": "x", "gold": SIB.labels[2], "predicted": SIB.labels[1]}
    line = said(SICK, ScoredExample("a", "x", "y", 2.5), Prediction(1.5))
    assert line == {"id": "a", "first": "x", "second": "y", "gold": 2.5, "predicted": 1.5}
    line = said(XCOPA, ChoiceExample("b", "x", ("y", "z"), 1), Prediction(0, chance[:2]))
    assert line == {
        "id": "b", "prompt": "x", "choices": ["y", "z"], "gold": 1, "predicted": 0,
        "gold_choice": "z", "predicted_choice": "y", "probabilities": [0.25, 0.5],
    }  # fmt: skip
    tags = Prediction((1, -1), np.array([[0.2, 0.8], [0.5, 0.5]]))
    line = said(NER, TaggedExample("c", ("x", "y"), (0, 1)), tags)
    assert line == {
        "id": "c", "words": ["x", "y"], "gold": list(NER.labels[:2]), "predicted": [NER.labels[1], None],
        "probabilities": [0.8, None],
    }  # fmt: skip
    line = said(XQUAD, QaExample("d", "x y", "?", ("x", "y"), (0, 2)), Prediction("y", np.array([3.0, 1.0])))
    assert line == {
        "id": "d", "question": "?", "context": "x y", "gold": ["x", "y"], "predicted": "y",
        "logits": {"answer": 3.0, "none": 1.0},
    }  # fmt: skip


def test_lines_are_of_bounded_size_and_keep_what_is_right():
    long = "word " * 100_000
    assert len(said(SIB, SingleExample("a", long, 0), Prediction(1))["text"]) == TEXT_CHARACTERS + 1
    context = f"{'a ' * 9000}the Rhine {'b ' * 9000}"
    example = QaExample("d", context, "?", ("the Rhine",), (context.index("the Rhine"),))
    shown = said(XQUAD, example, Prediction("b"))["context"]
    assert "the Rhine" in shown and len(shown) == CONTEXT_CHARACTERS + 2
    task = replace(SIB, labels=tuple(f"l{i}" for i in range(500)))
    chances = np.random.default_rng(0).dirichlet(np.ones(500))
    gold = int(chances.argmin())
    found = said(task, SingleExample("a", "x", gold), Prediction(int(chances.argmax()), chances))["probabilities"]
    assert len(found) == 11 and found[f"l{gold}"] == round(chances[gold], 6)
    assert max(found.values()) == round(chances.max(), 6)


@pytest.mark.parametrize("chances", [[0.25, 0.75], {"a": 0.25, "b": 0.75}], ids=["earlier", "now"])
def test_lines_of_this_release_and_of_earlier_ones_are_read_alike(chances):
    row = {"id": "1", "gold": "b", "predicted": "b", "probabilities": chances}
    (line,) = compare_reading._lines({**row, "text": "x", "first": "y"})
    assert (line.key, line.correct, dict(line.chances)) == (("1", json.dumps("b")), 1.0, {"own": 0.75})
    tags = {"id": "1", "gold": ["A", "B"], "predicted": ["A", None], "probabilities": [0.9, None], "words": ["x", "y"]}
    assert [(x.correct, dict(x.chances)) for x in compare_reading._lines(tags)] == [(1.0, {"own": 0.9}), (0.0, {})]
