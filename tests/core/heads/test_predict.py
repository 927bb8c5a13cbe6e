"""A prediction is the example's own, whatever stands beside it; answers are the best span over all windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from xt.core.data.examples import (
    ChoiceExample,
    Example,
    PairExample,
    QaExample,
    ScoredExample,
    SingleExample,
    TaggedExample,
)
from xt.core.data.tasks import Task
from xt.core.encoder.resolve import Resolved
from xt.core.encoder.torch_engine import load_network
from xt.core.heads import predict as predicting
from xt.core.heads.inputs import Inputs
from xt.core.heads.network import MultiTaskModel
from xt.core.heads.predict import LONGEST_ANSWER, best_span, predict, softmax

WORDS = "good morning world the cat sleeps today we eat bread and cheese house is very big".split()
LABELS = {"pair": 3, "single": 5, "tagging": 4}


def task(format: str, *, no_answer: bool = False) -> Task:
    labels = tuple(f"l{n}" for n in range(LABELS.get(format, 0)))
    return Task(format, "intermediate", format, "", labels, "", "accuracy", "", "", no_answer=no_answer)


def text(rng: np.random.Generator, longest: int) -> str:
    return " ".join(rng.choice(WORDS, rng.integers(1, longest + 1)))


def some(format: str, count: int = 40) -> list[Example]:
    """Random examples of very different lengths, some longer than an input (64 tokens)."""
    rng = np.random.default_rng(4)
    made: list[Example] = []
    for n in range(count):
        a, b, id = text(rng, 50), text(rng, 50), str(n)
        if format == "pair":
            made.append(PairExample(id, a, b, 0))
        elif format == "single":
            made.append(SingleExample(id, a, 0))
        elif format == "regression":
            made.append(ScoredExample(id, a, b, 0.0))
        elif format == "choice":
            made.append(ChoiceExample(id, a, tuple(text(rng, 9) for _ in range(2 + n % 4)), 0))
        elif format == "tagging":
            words = (a + " " + b).split()
            made.append(TaggedExample(id, tuple(words), (0,) * len(words)))
        else:
            made.append(QaExample(id, a + " " + b + " " + a, text(rng, 6), (), ()))
    return made


@pytest.fixture(scope="module")
def inputs(tiny: Resolved) -> Inputs:
    return Inputs(tiny.path / "tokenizer.json", tiny.spec)


@pytest.fixture(scope="module")
def model(tiny: Resolved) -> MultiTaskModel:
    """The tiny encoder with a head of each format that predicts, in training mode (with dropout)."""
    torch.manual_seed(3)
    rows = [task(f) for f in ("pair", "single", "regression", "choice", "tagging", "qa")]
    made = MultiTaskModel(load_network(tiny.path), tiny.spec, rows)
    for name, weight in made.heads.named_parameters():
        if name.endswith("weight"):
            torch.nn.init.normal_(weight, std=0.5)
    return made.train()


@pytest.mark.parametrize("format", ["pair", "single", "regression", "choice", "tagging", "qa"])
def test_an_example_alone_is_predicted_as_in_a_mix(
    model: MultiTaskModel, inputs: Inputs, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = some(format)
    together = predict(model, inputs, task(format), found)
    assert model.training  # as it was
    assert len(together) == len(found)
    monkeypatch.setattr(predicting, "READ_AHEAD", 7)
    monkeypatch.setattr(predicting, "TOKEN_BUDGET", 200)
    backwards = predict(model, inputs, task(format), found[::-1])[::-1]
    for example, one, other in zip(found, together, backwards, strict=True):
        alone = predict(model, inputs, task(format), [example])[0]
        for again in (alone, other):
            if format == "regression":
                assert one.value == pytest.approx(again.value, abs=1e-4)
                continue
            assert one.value == again.value
            assert one.probabilities is not None
            np.testing.assert_allclose(one.probabilities, again.probabilities, atol=1e-4)
    if format != "regression":
        assert len({str(p.value) for p in together}) > 1


def test_probabilities_are_over_the_labels_and_choices(model: MultiTaskModel, inputs: Inputs) -> None:
    for format in ("pair", "single", "choice", "tagging"):
        for example, found in zip(some(format), predict(model, inputs, task(format), some(format)), strict=True):
            assert found.probabilities is not None
            count = len(example.choices) if isinstance(example, ChoiceExample) else LABELS[format]
            assert found.probabilities.shape[-1] == count
            np.testing.assert_allclose(found.probabilities.sum(-1), 1, atol=1e-5)
            best = found.probabilities.argmax(-1)
            assert tuple(np.atleast_1d(best)) == tuple(np.atleast_1d(found.value))


def test_softmax_against_torch() -> None:
    logits = np.random.default_rng(0).normal(0, 50, (6, 5)).astype(np.float32)
    logits[2, 3] = -np.inf
    expected = torch.from_numpy(logits).softmax(-1).numpy()
    np.testing.assert_allclose(softmax(logits), expected, atol=1e-6)


# --- spans ---


def brute(start: Any, end: Any, inside: Any, longest: int) -> tuple[float, list[tuple[int, int]]]:
    """The best score and all spans that have it."""
    spans = {
        (i, j): float(start[i]) + float(end[j])
        for i in range(len(start))
        for j in range(i, min(len(start), i + longest))
        if inside[i] and inside[j]
    }
    best = max(spans.values())
    return best, [span for span, score in spans.items() if abs(score - best) < 1e-6]


def test_the_best_span_against_trying_them_all() -> None:
    rng = np.random.default_rng(5)
    for _ in range(300):
        tokens = int(rng.integers(2, 25))
        start, end = rng.normal(0, 3, (2, tokens)).astype(np.float32)
        inside = rng.random(tokens) < 0.7
        inside[int(rng.integers(tokens))] = True
        if rng.random() < 0.5:
            start[-1] = end[-1] = -np.inf
            inside[-1], inside[0] = False, True
        longest = int(rng.integers(1, 8))
        first, last, score = best_span(start, end, inside, longest)
        expected, spans = brute(start, end, inside, longest)
        assert score == pytest.approx(expected, abs=1e-5)
        assert (first, last) in spans


class Scripted(torch.nn.Module):
    """In place of a model: the logits of each token are looked up by its id; those of the first token are `none`."""

    def __init__(self, table: Tensor, none: float) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(table)
        self.none = none
        self.encoder = torch.nn.Module()
        self.encoder.config = None

    def forward(self, task: str, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        logits = self.table[input_ids].transpose(1, 2).clone()  # (rows, 2, tokens)
        logits[:, :, 0] = self.none / 2
        return {"logits": logits.masked_fill(attention_mask[:, None] == 0, -torch.inf)}


@pytest.fixture(scope="module")
def table() -> Tensor:
    """Random start and end logits of each token of the tiny vocabulary."""
    torch.manual_seed(9)
    return torch.randn(1400, 2) * 3


def test_an_answer_is_the_best_span_over_all_windows(inputs: Inputs, table: Tensor) -> None:
    rng = np.random.default_rng(7)
    examples = [
        QaExample(str(n), "  ".join(text(rng, 20) for _ in range(1 + n % 9)), text(rng, 4), (), ()) for n in range(40)
    ]
    scripted: Any = Scripted(table, 0.0)
    units = inputs.units(task("qa"), examples)
    assert len(units) > 50
    for owner, found in enumerate(predict(scripted, inputs, task("qa"), examples)):
        answers: list[tuple[float, str]] = []  # of every window, all that score best: words come again
        for unit in units:
            if unit.owner == owner:
                assert unit.spans is not None
                logits = table[unit.rows[0]].numpy().copy()
                score, spans = brute(logits[:, 0], logits[:, 1], [s is not None for s in unit.spans], LONGEST_ANSWER)
                for first, last in spans:
                    a, b = unit.spans[first], unit.spans[last]
                    assert a is not None
                    assert b is not None
                    answers.append((score, " ".join(examples[owner].context[a[0] : b[1]].split())))
        best = max(score for score, _ in answers)
        assert found.probabilities is not None
        assert found.probabilities[0] == pytest.approx(best, abs=1e-4)
        assert " ".join(found.value.split()) in {text for score, text in answers if score > best - 1e-4}


@pytest.mark.parametrize("allowed", [True, False])
def test_no_answer_is_given_where_it_is_allowed_and_every_window_prefers_it(
    inputs: Inputs, table: Tensor, allowed: bool
) -> None:
    example = QaExample("q", "the cat sleeps " * 40, "we eat ?", (), ())
    score = predict(Scripted(table, 0.0), inputs, task("qa"), [example])[0].probabilities[0]  # type: ignore[arg-type,index]
    for none, empty in ((score + 0.1, True), (score - 0.1, False)):
        found = predict(Scripted(table, float(none)), inputs, task("qa", no_answer=allowed), [example])[0]  # type: ignore[arg-type]
        assert (found.value == "") == (empty and allowed)
        assert found.probabilities[1] == pytest.approx(none, abs=1e-4)  # type: ignore[index]


def test_one_window_that_wants_an_answer_is_enough(inputs: Inputs) -> None:
    """SQuAD's rule: the score of no answer is the least of all windows."""

    class Windows(Scripted):
        """No answer is likely everywhere but in windows that hold the word."""

        def forward(self, task: str, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
            logits = super().forward(task, input_ids, attention_mask)["logits"]
            logits[:, :, 0] = torch.where((input_ids == word).any(1), 0.0, 9.0)[:, None]
            return {"logits": logits}

    word = inputs._tokenizer.token_to_id("cheese")
    table = torch.zeros(1400, 2)
    table[word] = 2.0
    context = "the cat sleeps " * 30 + "cheese " + "bread is big " * 30
    model: Any = Windows(table, 0.0)
    found = predict(model, inputs, task("qa", no_answer=True), [QaExample("q", context, "we eat", (), ())])[0]
    assert found.value == "cheese"
    np.testing.assert_allclose(found.probabilities, [4.0, 0.0])


# --- words ---


def test_words_of_a_sentence_in_parts_are_put_together_and_unread_ones_marked(inputs: Inputs, table: Tensor) -> None:
    class ByToken(Scripted):
        """The tag of a word is its token's number modulo 4."""

        def forward(self, task: str, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
            return {"logits": 5.0 * torch.nn.functional.one_hot(input_ids % 4, 4).float()}

    rng = np.random.default_rng(2)
    words = [*rng.choice(WORDS, 90), " ", *rng.choice(WORDS, 60)]  # the blank gives no token
    example = TaggedExample("s", tuple(words), (0,) * len(words))
    short = TaggedExample("t", ("cat", "bread"), (1, 2))
    model: Any = ByToken(table, 0.0)
    assert len(inputs.units(task("tagging"), [example])) > 2
    found, other = predict(model, inputs, task("tagging"), [example, short])
    number = inputs._tokenizer.token_to_id
    assert found.value == tuple(-1 if w == " " else number(w) % 4 for w in words)
    assert other.value == (number("cat") % 4, number("bread") % 4)
    assert found.probabilities is not None
    assert found.probabilities.shape == (151, 4)
    np.testing.assert_allclose(found.probabilities[90], [0.25] * 4)
