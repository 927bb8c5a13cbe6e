"""What the trained heads say about examples: labels with probabilities, numbers, tags, answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from xt.core.examples import Example
from xt.core.heads import MultiTaskModel, has_segments
from xt.core.inputs import IGNORED, Arrays, Inputs, Unit, chunks, collate
from xt.core.tasks import Task
from xt.core.text import micro_batches

LONGEST_ANSWER = 30
"""Tokens of an answer at most."""
TOKEN_BUDGET = 4096
"""Tokens, padding included, of one forward pass."""
READ_AHEAD = 512
"""Examples that are tokenised and sorted by length together."""
Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """What is said about one example."""

    value: Any
    """A label's or choice's position (int), a score (float), tags (tuple of int, -1 for a word that was not read), or
    the answer (text, empty for none)."""
    probabilities: Array | None = None
    """(labels,) of pair, single and choice; (words, labels) of tagging; (2,) the answer's and none's score of qa."""


def best_span(
    start: Array, end: Array, inside: npt.NDArray[np.bool_], longest: int = LONGEST_ANSWER
) -> tuple[int, int, float]:
    """Find the tokens first <= last, at most `longest` of them, with the highest start + end logit.

    start, end, inside (tokens,): logits, and whether a token belongs to the context. At least one token does.

    >>> best_span(np.array([9., 1, 5], np.float32), np.array([9., 7, 2], np.float32), np.array([False, True, True]))
    (1, 1, 8.0)
    """
    scores = np.where(inside, start, -np.inf)[:, None] + np.where(inside, end, -np.inf)[None, :]  # (first, last)
    tokens = np.arange(len(start))
    length = tokens[None, :] - tokens[:, None] + 1
    scores = np.where((length >= 1) & (length <= longest), scores, -np.inf)
    first, last = np.unravel_index(int(scores.argmax()), scores.shape)
    return int(first), int(last), float(scores[first, last])


def forward(
    model: MultiTaskModel, inputs: Inputs, task: Task, units: Sequence[Unit], *, labels: bool = False
) -> Iterator[tuple[list[int], Arrays, dict[str, Any]]]:
    """Run units in micro-batches sorted by length, one after the other: positions, arrays and the model's output.

    `labels`: whether the model is given them, and so gives a loss.
    """
    device = next(model.parameters()).device
    segments = has_segments(model.encoder)
    lengths = [unit.longest * len(unit.rows) for unit in units]
    for positions in micro_batches(lengths, TOKEN_BUDGET):
        arrays = collate(task.format, [units[i] for i in positions], pad_id=inputs.pad_id, segments=segments)
        given = {name: array for name, array in arrays.items() if labels or name != "labels"}
        tensors = {name: torch.from_numpy(array).to(device) for name, array in given.items()}
        yield positions, arrays, model(task=task.name, **tensors)


def predict(model: MultiTaskModel, inputs: Inputs, task: Task, examples: Sequence[Example]) -> list[Prediction]:
    """Predict without dropout or gradients, in the order of the examples; for all formats that predict something."""
    was_training = model.training
    model.eval()
    found: list[Prediction] = []
    with torch.inference_mode():
        for some in chunks(examples, READ_AHEAD):
            units = inputs.units(task, some)
            logits: list[Any] = [None] * len(units)
            for positions, _, output in forward(model, inputs, task, units):
                for position, value in zip(positions, output["logits"].float().cpu().numpy(), strict=True):
                    logits[position] = value
            found += _READ[task.format](task, some, units, logits)
    model.train(was_training)
    return found


def softmax(logits: Array) -> Array:
    """Give probabilities over the last axis; -inf gives 0."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities: Array = (powers / powers.sum(-1, keepdims=True)).astype(np.float32)
    return probabilities


def _classes(task: Task, examples: Sequence[Any], units: Sequence[Unit], logits: Sequence[Array]) -> list[Prediction]:
    return [Prediction(int(row.argmax()), softmax(row[np.isfinite(row)])) for row in logits]


def _numbers(task: Task, examples: Sequence[Any], units: Sequence[Unit], logits: Sequence[Any]) -> list[Prediction]:
    return [Prediction(float(value)) for value in logits]


def _tags(task: Task, examples: Sequence[Any], units: Sequence[Unit], logits: Sequence[Array]) -> list[Prediction]:
    tags = [[-1] * len(e.words) for e in examples]
    chances = [np.full((len(e.words), len(task.labels)), 1 / len(task.labels), np.float32) for e in examples]
    for unit, values in zip(units, logits, strict=True):
        assert unit.labels is not None
        assert unit.words is not None
        for word, row in zip(unit.words, values[: len(unit.labels)][unit.labels != IGNORED], strict=True):
            tags[unit.owner][word] = int(row.argmax())
            chances[unit.owner][word] = softmax(row)
    return [Prediction(tuple(row), chance) for row, chance in zip(tags, chances, strict=True)]


def _answers(task: Task, examples: Sequence[Any], units: Sequence[Unit], logits: Sequence[Array]) -> list[Prediction]:
    """The best span over all windows; none, where the task allows it and every window prefers it (SQuAD v2.0)."""
    best: list[tuple[float, str]] = [(-np.inf, "")] * len(examples)
    none = [np.inf] * len(examples)
    for unit, (start, end) in zip(units, logits, strict=True):
        assert unit.spans is not None
        none[unit.owner] = min(none[unit.owner], float(start[0] + end[0]))
        inside = np.zeros(len(start), bool)
        inside[: len(unit.spans)] = [span is not None for span in unit.spans]
        if not inside.any():
            continue
        first, last, score = best_span(start, end, inside)
        a, b = unit.spans[first], unit.spans[last]
        if score > best[unit.owner][0] and a is not None and b is not None:
            best[unit.owner] = (score, examples[unit.owner].context[a[0] : b[1]].strip())
    return [
        Prediction("" if task.no_answer and empty > score else text, np.array([score, empty], np.float32))
        for (score, text), empty in zip(best, none, strict=True)
    ]


_READ = {
    "pair": _classes,
    "single": _classes,
    "choice": _classes,
    "regression": _numbers,
    "tagging": _tags,
    "qa": _answers,
}
