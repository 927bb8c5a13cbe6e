"""The best spans of a question's windows: each once, by its characters, at its highest score; and the score of none."""

from __future__ import annotations

import numpy as np

from xt.core.data.examples import QaExample
from xt.core.data.tasks import Task
from xt.core.heads.decode import N_BEST, best_scores, find_answers
from xt.core.heads.inputs import Unit

QA = Task("t", "intermediate", "qa", "", (), "", "f1", "", "", no_answer=True)


def window(*spans: tuple[int, int] | None) -> Unit:
    ids = np.zeros(len(spans), np.int32)
    return Unit([ids], [ids], spans=list(spans))


def test_a_span_of_two_windows_counts_once_by_its_higher_score() -> None:
    example = QaExample("q", "ab cd ef", "?", (), ())
    units = [window(None, (0, 2), (3, 5)), window(None, (3, 5), (6, 8), None)]
    start = [[1.0, 5.0, 7.0], [2.0, 9.0, 0.0, 99.0]]
    end = [[1.0, 4.0, 8.0], [0.5, 3.0, 2.0, 99.0]]
    logits = [np.array(pair, np.float32) for pair in zip(start, end, strict=True)]
    (row,) = best_scores(find_answers(QA, [example], units, logits), units, logits)
    expected = {(0, 2): 5 + 4, (0, 5): 5 + 8, (3, 5): max(7 + 8, 9 + 3), (3, 8): 9 + 2, (6, 8): 0 + 2}
    assert row[: len(expected)].tolist() == sorted(expected.values(), reverse=True)
    assert np.isneginf(row[len(expected) : N_BEST]).all()
    assert row[-1] == 2.0  # the least of the windows: 1 + 1, 2 + 0.5


def test_there_are_no_more_than_the_best_and_none_without_a_context() -> None:
    rng = np.random.default_rng(0)
    units = [window(None, *((i, i + 1) for i in range(40))), window(None, None)]
    units[1].owner = 1
    logits = [rng.normal(size=(2, 41)).astype(np.float32), np.zeros((2, 2), np.float32)]
    examples = [QaExample("a", "x" * 40, "?", (), ()), QaExample("b", "", "?", (), ())]
    full, empty = best_scores(find_answers(QA, examples, units, logits), units, logits)
    start, end = logits[0]
    every = sorted((start[i] + end[j] for i in range(1, 41) for j in range(i, min(i + 30, 41))), reverse=True)
    np.testing.assert_allclose(full[:-1], every[:N_BEST], rtol=1e-6)
    assert np.isneginf(empty[:-1]).all()
    assert empty[-1] == 0
