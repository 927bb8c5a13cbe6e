"""What of a head's predictions can be calibrated: labels, tags, spans of tags, answers, and "no answer"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xt.calibration.heads import folds_of
from xt.calibration.predictions import Predictions, classified
from xt.core.data.tasks import Task
from xt.core.errors import XtError
from xt.core.heads.decode import Prediction
from xt.core.heads.scores import entities
from xt.eval.heads import official


@dataclass(frozen=True)
class Outcomes:
    """The items of one language, and what could not become one."""

    items: dict[str, Predictions]
    """What they are about -> items: "labels"; "words" and "spans" (tagging); "answers" and "no answer" (qa)."""
    left_out: dict[str, int]
    """Why -> how many."""
    places: dict[str, np.ndarray[Any, np.dtype[np.int64]]]
    """What they are about -> for each item the position of its example."""


def check(task: Task, language: str, examples: Sequence[Any], answers: Sequence[Prediction]) -> None:
    """Raise XtError unless there is an answer for each example, and each is made of numbers."""
    if len(examples) != len(answers):
        raise XtError(f"{task.name}, {language}: {len(examples)} examples and {len(answers)} answers.")
    for example, answer in zip(examples, answers, strict=True):
        values = [answer.value] if isinstance(answer.value, float) else []
        for name, row in (("score", values), ("logit", answer.logits), ("probability", answer.probabilities)):
            found = np.asarray(() if row is None else row, np.float64)
            if np.isnan(found).any() or np.isposinf(found).any():
                raise XtError(
                    f"{task.name}, {language}, example {example.id!r}: a {name} is not a number.",
                    "The model is damaged, or too much for its precision: try another checkpoint or precision.",
                )


def outcomes(task: Task, language: str, examples: Sequence[Any], answers: Sequence[Prediction]) -> Outcomes:
    """Return what of one language's answers can be calibrated; empty for formats without probabilities."""
    check(task, language, examples, answers)
    if task.format in ("pair", "single", "choice"):
        return _labels(task, language, examples, answers)
    if task.format == "tagging":
        return _tags(task, language, examples, answers)
    return _answers(task, language, examples, answers) if task.format == "qa" else Outcomes({}, {}, {})


def _labels(task: Task, language: str, examples: Sequence[Any], answers: Sequence[Prediction]) -> Outcomes:
    rows = [np.asarray(a.logits, np.float64) for a in answers if a.logits is not None]
    if len(rows) < len(answers):
        return Outcomes({}, {"without logits": len(answers) - len(rows)}, {})
    width = max(len(row) for row in rows)
    logits = np.stack([np.pad(row, (0, width - len(row)), constant_values=-np.inf) for row in rows])
    gold = np.array([e.label for e in examples], np.int64)
    given = np.array([a.value for a in answers], np.int64)
    every = np.arange(len(rows))
    ids = [str(e.id) for e in examples]
    known: dict[str, Any] = {"ids": ids, "fold": folds_of(ids), "language": language}
    items = classified(logits, given, gold=gold, labels=task.format != "choice", **known)
    return Outcomes({"labels": items}, {}, {"labels": every})


def _tags(task: Task, language: str, examples: Sequence[Any], answers: Sequence[Prediction]) -> Outcomes:
    """Words that were read; and spans as predicted, right when type and both ends are.

    A span's probability is the product over its words of that of their tags: not over all ways to tag the words beside
    it, so that it is a score to be calibrated rather than a marginal.
    """
    names = [*task.labels, "O"]
    words: list[tuple[int, int]] = []  # example, word
    spans: list[tuple[int, int, int, bool]] = []  # example, first, after the last, right
    unread = 0
    for at, (example, answer) in enumerate(zip(examples, answers, strict=True)):
        if answer.logits is None:
            return Outcomes({}, {"without logits": len(answers)}, {})
        read = [word for word, value in enumerate(answer.value) if value >= 0]
        unread += len(answer.value) - len(read)
        words += [(at, word) for word in read]
        ours = sorted(entities([names[i] for i in answer.value]), key=lambda span: span[1:])
        theirs = entities([names[i] for i in example.labels])
        spans += [(at, first, end, (kind, first, end) in theirs) for kind, first, end in ours]
    left_out = {"words that were not read": unread} if unread else {}

    def logits(chosen: Sequence[tuple[int, int]]) -> Any:
        found = [answers[at].logits[word] for at, word in chosen]  # type: ignore[index]
        return np.array(found, np.float64).reshape(len(found), len(task.labels))

    def value(chosen: Sequence[tuple[int, int]]) -> Any:
        return np.array([answers[at].value[word] for at, word in chosen], np.int64)

    ids = [str(e.id) for e in examples]
    gold = np.array([examples[at].labels[word] for at, word in words], np.int64)
    given = value(words)

    def known(at: Sequence[int]) -> dict[str, Any]:
        of = [ids[i] for i in at]
        return {"ids": of, "fold": folds_of(of), "language": language}

    items = {"words": classified(logits(words), given, gold=gold, labels=True, **known([at for at, _ in words]))}
    places = {"words": np.array([at for at, _ in words], np.int64)}
    if task.metric == "span_f1" and spans:
        inside = [(at, word) for at, first, end, _ in spans for word in range(first, end)]
        owner = np.repeat(np.arange(len(spans)), [end - first for _, first, end, _ in spans])
        right = [right for *_, right in spans]
        about = known([at for at, *_ in spans])
        items["spans"] = classified(logits(inside), value(inside), owner=owner, correct=right, **about)
        places["spans"] = np.array([at for at, *_ in spans], np.int64)
    return Outcomes(items, left_out, places)


def _answers(task: Task, language: str, examples: Sequence[Any], answers: Sequence[Prediction]) -> Outcomes:
    """Answers, among the best spans and none, right when they match exactly; and "no answer", where it may be so."""
    _, exact = official.answer_scores(task, language, examples, [a.value for a in answers])
    rows = [a.logits for a in answers]
    kept = [at for at, row in enumerate(rows) if row is not None and np.isfinite(row).any()]
    left_out = {"questions whose context holds no span": len(rows) - len(kept)} if len(kept) < len(rows) else {}
    if not kept:
        return Outcomes({}, left_out, {})
    logits = np.stack([np.asarray(rows[at], np.float64) for at in kept])  # (n, spans + 1)
    none = logits.shape[1] - 1
    empty = (logits[:, -1] > logits[:, :-1].max(1)) if task.no_answer else np.zeros(len(kept), bool)
    given = np.where(empty, none, 0)
    ids = [str(examples[at].id) for at in kept]
    known: dict[str, Any] = {"ids": ids, "fold": folds_of(ids), "language": language}
    items = {"answers": classified(logits, given, correct=exact[kept], **known)}
    if task.no_answer:
        absent = np.array([not examples[at].answers for at in kept], float)
        items["no answer"] = classified(logits, np.full(len(kept), none), correct=absent, **known)
    place = np.array(kept, np.int64)
    return Outcomes(items, left_out, dict.fromkeys(items, place))
