"""Batches and heads: what goes in, what comes out, and what must not matter."""

import dataclasses
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from xt.core import tasks
from xt.core.encoders import from_folder
from xt.core.errors import XtError
from xt.core.examples import ChoiceExample, PairExample, QaExample
from xt.core.torch_engine import load_network
from xt.train.batches import STRIDE, Batcher, span_tokens
from xt.train.heads import MultiTaskModel
from xt.train.loop import load_tokenizer
from xt.train.scoring import predict
from xt.train.trainer import TaskData

NLI, CHOICE, QA = (tasks.get(name) for name in ("sample-nli", "sample-choice", "sample-qa"))


@pytest.fixture
def model(tiny: Path) -> MultiTaskModel:
    """The tiny encoder with a head for each sample task, without dropout."""
    torch.manual_seed(3)
    rows = [tasks.get(name) for name in tasks.names("intermediate")]
    return MultiTaskModel(load_network(tiny), from_folder(tiny).spec, rows).eval()


@pytest.fixture
def batcher(tiny: Path) -> Batcher:
    """The tiny encoder's, at its full length."""
    return Batcher(load_tokenizer(tiny), 128)


def long_question() -> QaExample:
    """A question whose answer is far behind in a context of some 300 tokens."""
    context = "the river is long . " * 60 + "anna lives in the blue house ."
    return QaExample("long", context, "who lives here ?", "anna", context.index("anna"))


@torch.no_grad()
def test_padding_changes_no_logits_and_no_loss(
    model: MultiTaskModel, batcher: Batcher, small_data: list[TaskData]
) -> None:
    checked = 0
    for data in small_data:
        together = model(**batcher(data.task, data.train[:6]))
        alone = [model(**batcher(data.task, [example])) for example in data.train[:6]]
        mean = torch.stack([output["loss"] for output in alone]).mean()
        torch.testing.assert_close(together["loss"], mean, rtol=1e-4, atol=1e-5)
        for row, output in zip(together["logits"], alone, strict=True):
            part = row[..., : output["logits"].shape[-1]]
            torch.testing.assert_close(part, output["logits"][0], rtol=1e-4, atol=1e-5)
        checked += 1
    assert checked == 4


@torch.no_grad()
def test_the_loss_of_a_span_is_the_mean_of_both_cross_entropies(model: MultiTaskModel, batcher: Batcher) -> None:
    example = QaExample("q", "anna lives in the blue house", "who lives here ?", "anna", 0)
    batch = batcher(QA, [example])
    output = model(**batch)
    logs = output["logits"][0].log_softmax(-1)
    expected = -(logs[0, int(batch["starts"][0])] + logs[1, int(batch["ends"][0])]) / 2
    torch.testing.assert_close(output["loss"], expected)


@torch.no_grad()
def test_a_prompt_with_fewer_choices_gives_the_missing_ones_no_chance(model: MultiTaskModel, batcher: Batcher) -> None:
    two = ChoiceExample("a", "it rained , so", ("the road is wet", "the road is dry"), 1)
    three = dataclasses.replace(two, id="b", choices=(*two.choices, "the river is blue"))
    logits = model(**batcher(CHOICE, [two, three]))["logits"]
    assert logits.shape == (2, 3)
    assert logits[0, 2] == -torch.inf
    torch.testing.assert_close(logits[0, :2], logits[1, :2], rtol=1e-4, atol=1e-5)
    assert torch.isfinite(model(**batcher(CHOICE, [two, three]))["loss"])


def test_a_pair_is_read_as_one_input_with_its_type_ids(batcher: Batcher) -> None:
    batch = batcher(NLI, [PairExample("p", "the river", "the house is blue", 2)])
    tokens = batcher.tokenizer.convert_ids_to_tokens(batch["input_ids"][0].tolist())
    assert tokens == ["[CLS]", "the", "river", "[SEP]", "the", "house", "is", "blue", "[SEP]"]
    assert batch["token_type_ids"][0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert batch["labels"].tolist() == [2]


def test_the_token_span_of_an_answer_gives_back_its_text(batcher: Batcher, small_data: list[TaskData]) -> None:
    examples = [e for e in next(d for d in small_data if d.task is QA).train if isinstance(e, QaExample)]
    windows = batcher.windows(examples)
    assert windows.owners == list(range(len(examples)))  # short contexts: one window each
    for row, example in enumerate(examples):
        first, last = (windows.offsets[row][int(windows.batch[key][row])] for key in ("starts", "ends"))
        assert first is not None
        assert last is not None
        assert example.context[first[0] : last[1]] == example.answer


def test_a_long_context_is_read_in_windows_that_overlap_by_the_stride(batcher: Batcher) -> None:
    windows = batcher.windows([long_question()])
    assert len(windows.owners) > 3
    assert windows.batch["input_ids"].shape[1] == 128
    spans = [[span for span in row if span is not None] for row in windows.offsets]
    shared = [len(set(a) & set(b)) for a, b in pairwise(spans)]
    assert shared == [STRIDE] * len(shared)
    assert spans[-1][-1][1] == len(long_question().context)
    holding = [row for row, start in enumerate(windows.batch["starts"].tolist()) if start > 0]
    assert holding == [len(windows.owners) - 1]
    assert windows.batch["ends"].tolist()[:-1] == [0] * (len(windows.owners) - 1)


def test_an_answer_cut_by_the_window_points_to_token_0() -> None:
    window = [None, (0, 4), (5, 9), None]
    assert span_tokens(window, 0, 9) == (1, 2)
    assert span_tokens(window, 5, 12) == (0, 0)
    assert span_tokens(window, 20, 22) == (0, 0)


class Spotlight(torch.nn.Module):
    """In place of the model: both ends score 1 at one word, 0 elsewhere, -inf at padding."""

    def __init__(self, word: int) -> None:
        super().__init__()
        self.word = torch.nn.Parameter(torch.tensor(float(word)))

    def forward(self, task: str, input_ids: Tensor, attention_mask: Tensor, **rest: Tensor) -> dict[str, Tensor]:
        """Logits (rows, 2, tokens)."""
        logits = (input_ids == self.word).float().masked_fill(attention_mask == 0, -torch.inf)
        return {"logits": logits[:, None].expand(-1, 2, -1)}


def test_the_answer_is_taken_from_the_best_window(batcher: Batcher) -> None:
    spotlight: Any = Spotlight(batcher.tokenizer.convert_tokens_to_ids("anna"))
    other = QaExample("short", "The house of  Anna, the baker", "who is anna ?", "Anna", 14)
    assert len(batcher.windows([long_question()]).owners) > 3
    assert predict(spotlight, batcher, QA, [long_question(), other], batch=2) == ["anna", "Anna"]


def test_cut_examples_are_counted_and_a_question_without_room_is_named(batcher: Batcher) -> None:
    short = Batcher(batcher.tokenizer, 16)
    pairs = [PairExample("a", "the river", "the house", 0), PairExample("b", "the river is long " * 5, "the house", 0)]
    assert short.check(NLI, pairs) == 1
    assert batcher.check(NLI, pairs) == 0
    assert short(NLI, pairs)["input_ids"].shape == (2, 16)
    with pytest.raises(XtError, match="wordy: the question has 80 tokens") as error:
        batcher.check(QA, [QaExample("wordy", "anna", "who is the " + "river " * 77, "anna", 0)])
    assert "148" in error.value.hint  # 80 and three special tokens, a stride of 64, and one to go on


def test_prediction_leaves_the_model_as_it_was(
    model: MultiTaskModel, batcher: Batcher, small_data: list[TaskData]
) -> None:
    model.train()
    first = predict(model, batcher, small_data[0].task, small_data[0].dev, batch=3)
    assert model.training
    assert first == predict(model, batcher, small_data[0].task, small_data[0].dev, batch=8)
