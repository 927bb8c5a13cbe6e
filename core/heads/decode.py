"""From logits to predictions: labels, numbers, tags, answers. PyTorch and ONNX Runtime are read by the same code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.core.data.examples import Example
from xt.core.data.tasks import Task
from xt.core.heads.inputs import IGNORED, Unit

LONGEST_ANSWER = 30
"""Tokens of an answer at most."""
N_BEST = 20
"""Spans of a context, the best ones, that the probability of an answer is over when it is calibrated: as many as
SQuAD's own n-best lists hold."""
Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """The prediction for one example."""

    value: Any
    """A label's or choice's position (int), a score (float), tags (tuple of int, -1 for a word that was not read), or
    the answer (text, empty for none)."""
    probabilities: Array | None = None
    """(labels,) of pair, single and choice; (words, labels) of tagging; (2,) the answer's and none's score of qa."""
    logits: Array | None = None
    """What can be calibrated, before any temperature: (labels,) or (choices,) of pair, single and choice; (words,
    labels) of tagging, zeros for a word that was not read; (`N_BEST` + 1,) of qa: the scores of the best spans, best
    first, then that of none, -inf for what there is not. None for regression."""


@dataclass(frozen=True)
class Span:
    """The best answer in a context, and how it compares with none."""

    text: str
    """The answer; empty for none."""
    start: int
    """Its first character in the context; -1 for none."""
    end: int
    """The character after its last; -1 for none."""
    score: float
    """Start and end logit of the best span, also where none is preferred to it; -inf without any span."""
    none: float
    """The logits of "no answer here", the least of all windows."""


def best_span(
    start: Array, end: Array, inside: npt.NDArray[np.bool_], longest: int = LONGEST_ANSWER
) -> tuple[int, int, float]:
    """Find the tokens first <= last, at most `longest` of them, with the highest start + end logit.

    start, end, inside (tokens,): logits, and whether a token belongs to the context. At least one token does.

    >>> best_span(np.array([9., 1, 5], np.float32), np.array([9., 7, 2], np.float32), np.array([False, True, True]))
    (1, 1, 8.0)
    """
    scores = _span_scores(start, end, inside, longest)
    first, last = np.unravel_index(int(scores.argmax()), scores.shape)
    return int(first), int(last), float(scores[first, last])


def _span_scores(start: Array, end: Array, inside: npt.NDArray[np.bool_], longest: int) -> Array:
    """Score every span: (first token, last token), -inf for what is no span or a longer one."""
    scores = np.where(inside, start, -np.inf)[:, None] + np.where(inside, end, -np.inf)[None, :]
    tokens = np.arange(len(start))
    length = tokens[None, :] - tokens[:, None] + 1
    return np.asarray(np.where((length >= 1) & (length <= longest), scores, -np.inf))


def softmax(logits: Array) -> Array:
    """Return the probabilities over the last axis; -inf gives 0."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities: Array = (powers / powers.sum(-1, keepdims=True)).astype(np.float32)
    return probabilities


def decode(
    task: Task, examples: Sequence[Example], units: Sequence[Unit], logits: Sequence[Any], *, temperature: float = 1.0
) -> list[Prediction]:
    """Return what the logits of the units mean for each example.

    Args:
        task: whose head gave them; of a format that predicts something.
        examples: what was read.
        units: `Inputs.units(task, examples)`.
        logits: of each unit: (labels,), (choices,), a number, (tokens, labels) or (2, tokens); padding may follow.
        temperature: divides the logits of pair, single, choice and tagging before the softmax.
    """
    return _READ[task.format](task, examples, units, logits, temperature)


def _classes(
    task: Task, examples: Sequence[Any], units: Sequence[Unit], logits: Sequence[Array], temperature: float
) -> list[Prediction]:
    found = []
    for row in logits:
        own = row[~np.isneginf(row)]  # without the padding of other examples' choices
        found.append(Prediction(int(row.argmax()), softmax(own / np.float32(temperature)), own))
    return found


def _numbers(
    task: Task, examples: Sequence[Any], units: Sequence[Unit], logits: Sequence[Any], temperature: float
) -> list[Prediction]:
    return [Prediction(float(value)) for value in logits]


def _tags(
    task: Task, examples: Sequence[Any], units: Sequence[Unit], logits: Sequence[Array], temperature: float
) -> list[Prediction]:
    tags = [[-1] * len(e.words) for e in examples]
    chances = [np.full((len(e.words), len(task.labels)), 1 / len(task.labels), np.float32) for e in examples]
    scores = [np.zeros((len(e.words), len(task.labels)), np.float32) for e in examples]
    for unit, values in zip(units, logits, strict=True):
        assert unit.labels is not None
        assert unit.words is not None
        for word, row in zip(unit.words, values[: len(unit.labels)][unit.labels != IGNORED], strict=True):
            tags[unit.owner][word] = int(row.argmax())
            chances[unit.owner][word] = softmax(row / np.float32(temperature))
            scores[unit.owner][word] = row
    return [Prediction(tuple(row), *more) for row, *more in zip(tags, chances, scores, strict=True)]


def _inside(unit: Unit, tokens: int) -> npt.NDArray[np.bool_]:
    """Mark the tokens of a window that belong to the context: (tokens,)."""
    assert unit.spans is not None
    inside = np.zeros(tokens, bool)
    inside[: len(unit.spans)] = [span is not None for span in unit.spans]
    return inside


def find_answers(task: Task, examples: Sequence[Any], units: Sequence[Unit], logits: Sequence[Array]) -> list[Span]:
    """Find the best span over all windows; none, where the task allows it and every window prefers it (SQuAD v2.0)."""
    best = [Span("", -1, -1, -np.inf, np.inf)] * len(examples)
    none = [np.inf] * len(examples)
    for unit, (start, end) in zip(units, logits, strict=True):
        assert unit.spans is not None
        none[unit.owner] = min(none[unit.owner], float(start[0] + end[0]))
        inside = _inside(unit, len(start))
        if not inside.any():
            continue
        first, last, score = best_span(start, end, inside)
        a, b = unit.spans[first], unit.spans[last]
        if score > best[unit.owner].score and a is not None and b is not None:
            piece = examples[unit.owner].context[a[0] : b[1]]
            text = piece.strip()
            at = a[0] + len(piece) - len(piece.lstrip())
            best[unit.owner] = Span(text, at, at + len(text), score, np.inf)
    return [
        Span("", -1, -1, span.score, empty)
        if task.no_answer and empty > span.score
        else Span(span.text, span.start, span.end, span.score, empty)
        for span, empty in zip(best, none, strict=True)
    ]


def _answers(
    task: Task, examples: Sequence[Any], units: Sequence[Unit], logits: Sequence[Array], temperature: float
) -> list[Prediction]:
    spans = find_answers(task, examples, units, logits)
    best = best_scores(spans, units, logits)
    if not task.no_answer:
        for row in best:
            row[-1] = -np.inf
    return [
        Prediction(span.text, np.array([span.score, span.none], np.float32), row)
        for span, row in zip(spans, best, strict=True)
    ]


def best_scores(spans: Sequence[Span], units: Sequence[Unit], logits: Sequence[Array]) -> list[Array]:
    """Return the scores of the `N_BEST` best spans of questions, best first, -inf for want of spans, then that of none.

    A span is counted once, by its characters, though two windows hold it. Each of the best overall is among the best of
    the window that scores it highest, so that no more of a window need be looked at.

    spans: what `find_answers` gave for the examples.
    """
    found: list[dict[tuple[int, int], float]] = [{} for _ in spans]
    for unit, (start, end) in zip(units, logits, strict=True):
        assert unit.spans is not None
        inside = _inside(unit, len(start))
        if not inside.any():
            continue
        scores = _span_scores(start, end, inside, LONGEST_ANSWER)
        flat = scores.ravel()
        count = min(N_BEST, len(flat))
        for at in np.argpartition(-flat, count - 1)[:count].tolist():
            score, (first, last) = float(flat[at]), divmod(at, scores.shape[1])
            if score == -np.inf:  # no span, perhaps in the padding
                continue
            a, b, own = unit.spans[first], unit.spans[last], found[unit.owner]
            if a is not None and b is not None:
                own[a[0], b[1]] = max(score, own.get((a[0], b[1]), -np.inf))
    rows = []
    for span, scored in zip(spans, found, strict=True):
        row = np.full(N_BEST + 1, -np.inf, np.float32)
        best = sorted(scored.values(), reverse=True)[:N_BEST]
        row[: len(best)] = best
        row[-1] = span.none
        rows.append(row)
    return rows


def answer_chances(
    task: Task, span: Span, units: Sequence[Unit], logits: Sequence[Array], *, temperature: float = 1.0
) -> tuple[float, float]:
    """Return the probability of a found answer, and that of none.

    Over every span of at most `LONGEST_ANSWER` tokens of every window, a span that two windows share counted once (by
    the higher score), and "none" where the task allows it. For an answer of none both are the same.

    span: what `find_answers` gave for one example; units, logits: its windows.
    """
    places, scores = [], []
    for unit, (start, end) in zip(units, logits, strict=True):
        inside = np.flatnonzero(_inside(unit, len(start)))
        if not len(inside):
            continue
        assert unit.spans is not None
        known = [unit.spans[i] or (0, 0) for i in inside]
        begins, ends = np.array(known, np.int64).T  # each (context tokens,)
        for further in range(LONGEST_ANSWER):
            first = np.arange(len(inside) - further) if further < len(inside) else np.zeros(0, np.int64)
            first = first[inside[first + further] - inside[first] == further]
            places.append((begins[first] << 32) | ends[first + further])
            scores.append((start[inside[first]] + end[inside[first + further]]).astype(np.float64))
    none = span.none if task.no_answer else -np.inf
    if places:
        _, owners = np.unique(np.concatenate(places), return_inverse=True)
        each = np.full(int(owners.max()) + 1, -np.inf)
        np.maximum.at(each, owners, np.concatenate(scores))
    else:
        each = np.zeros(0)
    if not len(each) and none == -np.inf:
        return 0.0, 0.0
    top = max(float(each.max(initial=-np.inf)), none)
    total = float(np.exp((each - top) / temperature).sum() + np.exp((none - top) / temperature))
    empty = float(np.exp((none - top) / temperature)) / total
    return (empty if span.start < 0 else float(np.exp((span.score - top) / temperature)) / total), empty


_READ = {
    "pair": _classes,
    "single": _classes,
    "choice": _classes,
    "regression": _numbers,
    "tagging": _tags,
    "qa": _answers,
}
PREDICTED = tuple(_READ)
"""The formats whose heads predict something of each example."""
