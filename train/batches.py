"""From examples to the tensors of one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from xt.core.errors import XtError
from xt.core.examples import ChoiceExample, Example, PairExample, QaExample
from xt.core.tasks import Task

Batch = dict[str, Any]
"""`task` (its name) and the tensors that `MultiTaskModel.forward` takes."""
STRIDE = 64
"""Tokens that two neighbouring windows of a long context share."""
T = TypeVar("T")


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Cut a sequence into pieces of `size`, the last one shorter."""
    return (items[at : at + size] for at in range(0, len(items), size))


@dataclass(frozen=True)
class Windows:
    """The windows of some questions, one a row, and how to get from their tokens back to the text."""

    batch: Batch
    owners: list[int]
    """For each window, the position of its question."""
    offsets: list[list[tuple[int, int] | None]]
    """For each window and token, where it starts and ends in the context, in characters; None outside the context."""


def span_tokens(offsets: Sequence[tuple[int, int] | None], start: int, end: int) -> tuple[int, int]:
    """Find the first and last token of the characters start..end (end excluded); (0, 0) when not all are in the window.

    >>> span_tokens([None, (0, 3), (4, 9), (10, 12)], 4, 12)
    (2, 3)
    >>> span_tokens([None, (0, 3), (4, 9)], 4, 12)
    (0, 0)
    """
    inside = [(i, *span) for i, span in enumerate(offsets) if span is not None and span[0] < span[1]]
    touched = [(i, a, b) for i, a, b in inside if a < end and b > start]
    if not touched or touched[0][1] > start or touched[-1][2] < end:
        return 0, 0
    return touched[0][0], touched[-1][0]


class Batcher:
    """Tokenises examples with the encoder's own tokenizer: pairs of texts in one input, `<s> A </s></s> B </s>`."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self._formats: dict[str, Callable[[Any], Batch]] = {
            "pair": self._pair,
            "choice": self._choice,
            "qa": lambda examples: self.windows(examples).batch,
        }

    def __call__(self, task: Task, examples: Sequence[Example]) -> Batch:
        """Make the batch of some examples of one task, with their labels."""
        return {"task": task.name, **self._formats[task.format](examples)}

    def _texts(self, first: list[str], second: list[str]) -> Batch:
        encoded = self.tokenizer(
            first, second, truncation="longest_first", max_length=self.max_length, padding=True, return_tensors="pt"
        )
        return dict(encoded)

    def _pair(self, examples: Sequence[PairExample]) -> Batch:
        inputs = self._texts([e.first for e in examples], [e.second for e in examples])
        return {**inputs, "labels": torch.tensor([e.label for e in examples])}

    def _choice(self, examples: Sequence[ChoiceExample]) -> Batch:
        prompts = [e.prompt for e in examples for _ in e.choices]
        inputs = self._texts(prompts, [choice for e in examples for choice in e.choices])
        rows = torch.full((len(examples), max(len(e.choices) for e in examples)), -1)
        at = 0
        for i, example in enumerate(examples):
            rows[i, : len(example.choices)] = torch.arange(at, at + len(example.choices))
            at += len(example.choices)
        return {**inputs, "choices": rows, "labels": torch.tensor([e.label for e in examples])}

    def windows(self, examples: Sequence[QaExample]) -> Windows:
        """Tokenise questions with their contexts; a context too long for one input gives several windows."""
        encoded = self.tokenizer(
            [e.question for e in examples],
            [e.context for e in examples],
            truncation="only_second",
            max_length=self.max_length,
            stride=STRIDE,
            padding=True,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        owners = encoded.pop("overflow_to_sample_mapping").tolist()
        spans = encoded.pop("offset_mapping").tolist()
        offsets: list[list[tuple[int, int] | None]] = []
        for row, span in enumerate(spans):
            sequence = encoded.sequence_ids(row)
            offsets.append([(a, b) if part == 1 else None for part, (a, b) in zip(sequence, span, strict=True)])
        answers = [(examples[o].start, examples[o].start + len(examples[o].answer)) for o in owners]
        places = torch.tensor([span_tokens(w, *answer) for w, answer in zip(offsets, answers, strict=True)])
        return Windows({**encoded, "starts": places[:, 0], "ends": places[:, 1]}, owners, offsets)

    def check(self, task: Task, examples: Sequence[Example]) -> int:
        """Count the examples whose end will be cut; raise XtError for a question that leaves no room for a context."""
        cut = 0
        for some in chunks(examples, 1024):
            if task.format == "qa":
                self._check_questions([e for e in some if isinstance(e, QaExample)])
            else:
                cut += self._count_cut(some)
        return cut

    def _check_questions(self, examples: Sequence[QaExample]) -> None:
        special = self.tokenizer.num_special_tokens_to_add(pair=True)
        rows = self.tokenizer([e.question for e in examples], add_special_tokens=False)["input_ids"]
        for example, row in zip(examples, rows, strict=True):
            room = self.max_length - len(row) - special
            if room <= STRIDE:
                raise XtError(
                    f"{example.id}: the question has {len(row)} tokens and leaves {max(room, 0)} of {self.max_length} "
                    f"for the context; windows need more than {STRIDE}.",
                    f"Raise max_length (--max-length) to {len(row) + special + STRIDE + 1} or more.",
                )

    def _count_cut(self, examples: Sequence[Example]) -> int:
        pairs = [(i, e.first, e.second) for i, e in enumerate(examples) if isinstance(e, PairExample)]
        for i, e in enumerate(examples):
            if isinstance(e, ChoiceExample):
                pairs += [(i, e.prompt, choice) for choice in e.choices]
        rows = self.tokenizer([first for _, first, _ in pairs], [second for _, _, second in pairs])["input_ids"]
        return len({pair[0] for pair, row in zip(pairs, rows, strict=True) if len(row) > self.max_length})
