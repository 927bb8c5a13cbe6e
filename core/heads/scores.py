"""How good predictions are: accuracy, SQuAD's F1 and exact match, F1 of entities, rank correlation."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from xt.core.data.examples import Example
from xt.core.data.tasks import Task


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


def token_f1(
    predicted: str, answer: str, *, normalize: Callable[[str], str] = normalize_answer, nothing: float = 1.0
) -> float:
    """Return SQuAD's F1 of the bags of words, 0 to 1, after `normalize`.

    nothing: what it is when nothing is left of either, as of "the" and of "a": 1 in SQuAD's evaluate-v2.0.py, 0 in
    evaluate-v1.1.py and in MLQA's script.

    >>> token_f1("in the blue garden", "the garden")
    0.5
    """
    ours, theirs = normalize(predicted).split(), normalize(answer).split()
    if not ours and not theirs:
        return nothing
    common = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * common / (len(ours) + len(theirs)) if common else 0.0


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Find the labelled spans of a sentence: (type, first word, word after the last), as seqeval's default mode does.

    The first letter of a tag says where in a span it is, and what follows the first hyphen (the whole tag, where there
    is none) is the type. A span starts at B- and S-, where the type changes, and at I- and E- after O, S- or E-; it
    ends after S- and E-, before B-, S- and O, and where the type changes. So IOB2 is read as conlleval reads it, and a
    part of speech is a span of its type as long as it repeats; but one whose name starts with S (SYM, SCONJ) is read
    as a span of one word, which XTREME's F1 of parts of speech has in it.

    >>> sorted(entities(["B-PER", "I-PER", "O", "I-LOC", "B-LOC"]))
    [('LOC', 3, 4), ('LOC', 4, 5), ('PER', 0, 2)]
    >>> sorted(entities(["NOUN", "NOUN", "SYM", "SYM"]))
    [('NOUN', 0, 2), ('SYM', 2, 3), ('SYM', 3, 4)]
    """
    found: set[tuple[str, int, int]] = set()
    before, kind, start = "O", "", 0
    for at, tag in enumerate([*tags, "O"]):
        letter, name = tag[:1] or "O", tag.partition("-")[2] or tag or "_"
        changed = name != kind
        if before in "ES" or (before in "BI" and letter in "BSO") or (before not in "O." and changed):
            found.add((kind, start, at))
        if letter in "BS" or (before in "ESO" and letter in "EI") or (letter not in "O." and changed):
            start = at
        before, kind = letter, name
    return found


def _accuracy(task: Task, examples: Sequence[Any], values: Sequence[Any]) -> dict[str, float]:
    if task.format == "tagging":
        right = [p == g for e, v in zip(examples, values, strict=True) for p, g in zip(v, e.labels, strict=True)]
    else:
        right = [v == e.label for e, v in zip(examples, values, strict=True)]
    return {"accuracy": float(np.mean(right))}


def _squad(task: Task, examples: Sequence[Any], values: Sequence[Any]) -> dict[str, float]:
    """Return the best over the accepted answers, averaged over questions.

    A question without answer wants the empty text.
    """
    golds = [e.answers or ("",) for e in examples]
    return {
        "f1": float(np.mean([max(token_f1(v, g) for g in gold) for v, gold in zip(values, golds, strict=True)])),
        "exact_match": float(
            np.mean([max(exact_match(v, g) for g in gold) for v, gold in zip(values, golds, strict=True)])
        ),
    }


def _span_f1(task: Task, examples: Sequence[Any], values: Sequence[Any]) -> dict[str, float]:
    """Return the micro F1 of spans over all sentences; a word that was not read counts as O."""
    right = predicted = gold = 0
    names = [*task.labels, "O"]  # -1, a word that was not read, is the last
    for example, value in zip(examples, values, strict=True):
        ours, theirs = entities([names[i] for i in value]), entities([names[i] for i in example.labels])
        right, predicted, gold = right + len(ours & theirs), predicted + len(ours), gold + len(theirs)
    f1 = 2 * right / (predicted + gold) if predicted + gold else 0.0  # as seqeval has it
    return {"span_f1": f1, **_accuracy(task, examples, values)}


def _spearman(task: Task, examples: Sequence[Any], values: Sequence[Any]) -> dict[str, float]:
    from scipy.stats import pearsonr, spearmanr

    golds = [e.score for e in examples]
    if len(set(values)) < 2 or len(set(golds)) < 2:  # no order to compare
        return {"spearman": 0.0, "pearson": 0.0}
    return {
        "spearman": float(spearmanr(values, golds).statistic),
        "pearson": float(pearsonr(values, golds).statistic),
    }


SCORES: dict[str, Callable[[Task, Sequence[Any], Sequence[Any]], dict[str, float]]] = {
    "accuracy": _accuracy,
    "f1": _squad,
    "span_f1": _span_f1,
    "spearman": _spearman,
}
"""The scores of each metric, itself among them."""


def score(task: Task, examples: Sequence[Example], values: Sequence[Any]) -> dict[str, float]:
    """Score predicted values (`Prediction.value`) of examples: the task's metric and what goes with it."""
    return SCORES[task.metric](task, examples, values)


def majority(task: Task, examples: Sequence[Any]) -> tuple[float, str]:
    """Return the metric of always choosing the most frequent label, and that label.

    Without labels it is (0.0, "no baseline").

    For span F1 the most frequent label is nearly always O, which finds no span.
    """
    if task.format in ("pair", "single", "choice"):
        labels = Counter(e.label for e in examples)
    elif task.format == "tagging":
        labels = Counter(label for e in examples for label in e.labels)
    else:
        return 0.0, "no baseline"
    if not labels:
        return 0.0, "no baseline"
    label, _ = max(labels.items(), key=lambda item: (item[1], -item[0]))
    values = [(label,) * len(e.labels) if task.format == "tagging" else label for e in examples]
    return score(task, examples, values)[task.metric], task.labels[label] if task.labels else f"choice {label}"
