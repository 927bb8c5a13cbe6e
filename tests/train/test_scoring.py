"""SQuAD's scores against torchmetrics, and spans chosen by hand."""

import numpy as np
import pytest
from torchmetrics.text import SQuAD

from xt.core import tasks
from xt.core.examples import ChoiceExample, PairExample, QaExample
from xt.train.scoring import best_span, exact_match, majority, token_f1

ANSWERS = [
    ("the Eiffel Tower", "Eiffel Tower"),
    ("in 1889, for the fair", "1889"),
    ("a red, red rose", "red rose"),
    ("Berlin", "Paris"),
    ("", "something"),
    ("U.S.A.", "usa"),
    ("São Paulo!", "são  paulo"),
    ("the", "an"),
    ("to absorb more heat from the sun", "more heat from sun"),
]


@pytest.mark.parametrize(("predicted", "answer"), ANSWERS)
def test_f1_and_exact_match_agree_with_torchmetrics(predicted: str, answer: str) -> None:
    metric = SQuAD()
    target = {"answers": {"answer_start": [0], "text": [answer]}, "id": "q"}
    scores = metric([{"prediction_text": predicted, "id": "q"}], [target])
    assert token_f1(predicted, answer) == pytest.approx(float(scores["f1"]) / 100, abs=1e-6)
    assert exact_match(predicted, answer) == pytest.approx(float(scores["exact_match"]) / 100)


def span(start: list[float], end: list[float], inside: list[int], longest: int = 30) -> tuple[int, int, float]:
    """`best_span` of plain lists."""
    return best_span(np.array(start, np.float32), np.array(end, np.float32), np.array(inside, bool), longest)


def test_a_span_does_not_end_before_it_starts() -> None:
    # The best start is token 3 and the best end token 1; the best pair in order is 1..2 with 4 + 3.
    assert span([0, 4, 0, 5], [0, 6, 3, 1], [0, 1, 1, 1]) == (1, 1, 10.0)
    assert span([0, 1, 0, 5], [0, 6, 3, 1], [0, 1, 1, 1]) == (1, 1, 7.0)
    assert span([0, 0, 0, 5], [0, 3, 3, 1], [0, 1, 1, 1]) == (3, 3, 6.0)


def test_a_span_stays_in_the_context_and_within_the_longest_length() -> None:
    assert span([9, 1, 0, 0], [9, 0, 0, 2], [0, 1, 1, 1]) == (1, 3, 3.0)
    assert span([9, 1, 0, 0], [9, 0, 0, 2], [0, 1, 1, 1], longest=2) == (2, 3, 2.0)


def test_padding_of_minus_infinity_is_never_chosen() -> None:
    assert span([-5, -7, -np.inf], [-5, -8, -np.inf], [0, 1, 0]) == (1, 1, -15.0)


def test_the_majority_is_the_most_frequent_label() -> None:
    pairs = [PairExample(str(i), "a", "b", label) for i, label in enumerate([1, 0, 1, 2])]
    assert majority(tasks.get("sample-nli"), pairs) == (0.5, "neutral")
    choices = [ChoiceExample(str(i), "a", ("b", "c"), label) for i, label in enumerate([1, 1, 0])]
    assert majority(tasks.get("sample-choice"), choices) == (pytest.approx(2 / 3), "choice 1")
    assert majority(tasks.get("sample-qa"), [QaExample("q", "c", "q", "c", 0)]) == (0.0, "no baseline")
