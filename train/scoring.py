"""How well the heads do on examples that were not trained on."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from xt.core.examples import ChoiceExample, Example, PairExample, QaExample
from xt.core.tasks import Task
from xt.train.batches import Batch, Batcher, chunks
from xt.train.heads import MultiTaskModel

LONGEST_ANSWER = 30
"""Tokens of an answer at most."""
Array = npt.NDArray[np.float32]


def normalize_answer(text: str) -> str:
    """Lower case, without punctuation, articles and extra spaces, as SQuAD's evaluate-v2.0.py.

    >>> normalize_answer("The  Eiffel-Tower, a.k.a. an icon")
    'eiffeltower aka icon'
    """
    kept = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def exact_match(predicted: str, answer: str) -> float:
    """1.0 when both are the same after `normalize_answer`, else 0.0."""
    return float(normalize_answer(predicted) == normalize_answer(answer))


def token_f1(predicted: str, answer: str) -> float:
    """SQuAD's F1 of the bags of words, 0 to 1, after `normalize_answer`.

    >>> token_f1("in the blue garden", "the garden")
    0.5
    """
    ours, theirs = normalize_answer(predicted).split(), normalize_answer(answer).split()
    if not ours or not theirs:  # nothing left, as of "the": right when the other is nothing too (evaluate-v2.0.py)
        return float(ours == theirs)
    common = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * common / (len(ours) + len(theirs)) if common else 0.0


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


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move the tensors of a batch."""
    return {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}


def _answers(
    model: MultiTaskModel, batcher: Batcher, task: Task, examples: Sequence[QaExample], device: torch.device
) -> list[str]:
    """Give the best span of each question over all its windows."""
    windows = batcher.windows(examples)
    logits = model(task=task.name, **to_device(windows.batch, device))["logits"].float().cpu().numpy()
    best = [(-np.inf, "")] * len(examples)
    for owner, offsets, (start, end) in zip(windows.owners, windows.offsets, logits, strict=True):
        inside = np.array([span is not None for span in offsets])
        if not inside.any():
            continue
        first, last, score = best_span(start, end, inside)
        a, b = offsets[first], offsets[last]
        if score > best[owner][0] and a is not None and b is not None:
            best[owner] = (score, examples[owner].context[a[0] : b[1]].strip())
    return [text for _, text in best]


def predict(
    model: MultiTaskModel, batcher: Batcher, task: Task, examples: Sequence[Example], *, batch: int
) -> list[Any]:
    """Predict without dropout or gradients: a label (int) for pair and choice, the answer's text for qa."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    found: list[Any] = []
    with torch.inference_mode():
        for some in chunks(examples, batch):
            if task.format == "qa":
                found += _answers(model, batcher, task, [e for e in some if isinstance(e, QaExample)], device)
            else:
                logits = model(**to_device(batcher(task, some), device))["logits"]
                found += logits.argmax(-1).tolist()
    model.train(was_training)
    return found


def score(
    model: MultiTaskModel, batcher: Batcher, task: Task, examples: Sequence[Example], *, batch: int = 16
) -> dict[str, float]:
    """Score the model on examples: `accuracy`, or `f1` and `exact_match` for qa; all 0 to 1."""
    predictions = predict(model, batcher, task, examples, batch=batch)
    if task.format == "qa":
        answers = [e.answer for e in examples if isinstance(e, QaExample)]
        pairs = list(zip(predictions, answers, strict=True))
        return {
            "f1": float(np.mean([token_f1(p, a) for p, a in pairs])),
            "exact_match": float(np.mean([exact_match(p, a) for p, a in pairs])),
        }
    labels = [e.label for e in examples if isinstance(e, PairExample | ChoiceExample)]
    return {"accuracy": float(np.mean([p == label for p, label in zip(predictions, labels, strict=True)]))}


def majority(task: Task, examples: Sequence[Example]) -> tuple[float, str]:
    """Give the score of always choosing the most frequent label, and that label; (0.0, "no baseline") for qa."""
    labels = Counter(e.label for e in examples if isinstance(e, PairExample | ChoiceExample))
    if not labels:
        return 0.0, "no baseline"
    label, count = max(labels.items(), key=lambda item: (item[1], -item[0]))
    return count / len(examples), task.labels[label] if task.labels else f"choice {label}"
