"""The lines of predictions.jsonl that heads give: what was read, what is right, what was answered."""

from __future__ import annotations

from typing import Any

import numpy as np

from xt.core.data.tasks import Task
from xt.core.heads.decode import Prediction

TEXT_CHARACTERS = 2_000
"""Characters of a text that a line holds; a longer one ends with `CUT`."""
CONTEXT_CHARACTERS = 400
"""Characters of a question's context that a line holds, around the answer: many questions share one context."""
CUT = "…"
FEW_LABELS = 20
"""Of more labels a line names the probabilities of the likeliest `KEPT_LABELS`, and that of the right one."""
KEPT_LABELS = 10


def shortened(text: str) -> str:
    """Return a text of at most `TEXT_CHARACTERS`."""
    return text if len(text) <= TEXT_CHARACTERS else text[:TEXT_CHARACTERS] + CUT


def excerpt(context: str, start: int) -> str:
    """Return the part of a context around a character, of at most `CONTEXT_CHARACTERS`.

    >>> excerpt("a" * 1000 + "Rhine" + "b" * 1000, 1000)[195:215]
    'aaaaaaRhinebbbbbbbbb'
    """
    if len(context) <= CONTEXT_CHARACTERS:
        return context
    first = max(0, min(start - CONTEXT_CHARACTERS // 2, len(context) - CONTEXT_CHARACTERS))
    last = first + CONTEXT_CHARACTERS
    return (CUT if first else "") + context[first:last] + (CUT if last < len(context) else "")


def chances(task: Task, answer: Prediction, gold: int) -> dict[str, float]:
    """Return the probabilities of the labels by name: of all, or of the likeliest and the right one."""
    assert answer.probabilities is not None
    rows = np.round(answer.probabilities.astype(float), 6)
    order = range(len(rows))
    if len(rows) > FEW_LABELS:
        best = [int(i) for i in np.argsort(-rows, kind="stable")[:KEPT_LABELS]]
        order = [*best, *({gold} - set(best))]  # type: ignore[assignment]
    return {task.labels[i]: float(rows[i]) for i in order}


def said(task: Task, example: Any, answer: Prediction) -> dict[str, Any]:
    """Return one line: the id, what was read, `gold` and `predicted` by name, probabilities where there are any.

    single: text. pair: first, second. Both: label -> probability. choice: prompt, choices; positions from 0 and the
    choices themselves, a probability each. tagging: words, a tag and the tag's probability each (null: not read).
    qa: question, context (around the answer), the accepted answers; the scores of the answer and of none.
    """
    return {"id": example.id, **_LINES[task.format](task, example, answer)}


def _single(task: Task, example: Any, answer: Prediction) -> dict[str, Any]:
    return {"text": shortened(example.text), **_labelled(task, example, answer)}


def _pair(task: Task, example: Any, answer: Prediction) -> dict[str, Any]:
    both = {"first": shortened(example.first), "second": shortened(example.second)}
    return {**both, **_labelled(task, example, answer)}


def _labelled(task: Task, example: Any, answer: Prediction) -> dict[str, Any]:
    line: dict[str, Any] = {"gold": task.labels[example.label], "predicted": task.labels[answer.value]}
    return line if answer.probabilities is None else {**line, "probabilities": chances(task, answer, example.label)}


def _regression(task: Task, example: Any, answer: Prediction) -> dict[str, Any]:
    both = {"first": shortened(example.first), "second": shortened(example.second)}
    return {**both, "gold": example.score, "predicted": answer.value}


def _choice(task: Task, example: Any, answer: Prediction) -> dict[str, Any]:
    choices = [shortened(choice) for choice in example.choices]
    line = {"prompt": shortened(example.prompt), "choices": choices, "gold": example.label, "predicted": answer.value}
    line |= {"gold_choice": choices[example.label], "predicted_choice": choices[answer.value]}
    return {**line, **_listed(answer)}


def _listed(answer: Prediction) -> dict[str, Any]:
    if answer.probabilities is None:
        return {}
    return {"probabilities": np.round(answer.probabilities.astype(float), 6).tolist()}


def _tagged(task: Task, example: Any, answer: Prediction) -> dict[str, Any]:
    line: dict[str, Any] = {
        "words": [shortened(word) for word in example.words],
        "gold": [task.labels[i] for i in example.labels],
        "predicted": [task.labels[i] if i >= 0 else None for i in answer.value],
    }
    if answer.probabilities is not None:
        sure = np.round(answer.probabilities.astype(float).max(axis=-1), 6)
        line["probabilities"] = [float(p) if i >= 0 else None for p, i in zip(sure, answer.value, strict=True)]
    return line


def _answered(task: Task, example: Any, answer: Prediction) -> dict[str, Any]:
    at = example.starts[0] if example.starts else max(0, example.context.find(answer.value))
    line: dict[str, Any] = {
        "question": shortened(example.question),
        "context": excerpt(example.context, at),
        "gold": list(example.answers),
        "predicted": answer.value,
    }
    if answer.probabilities is not None:
        best, none = np.round(answer.probabilities.astype(float), 6).tolist()
        line["logits"] = {"answer": best, "none": none}
    return line


_LINES = {
    "single": _single,
    "pair": _pair,
    "regression": _regression,
    "choice": _choice,
    "tagging": _tagged,
    "qa": _answered,
}
