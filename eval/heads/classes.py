"""How well each label is separated from the others: precision, recall, F1, support, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.core.data.tasks import Task
from xt.core.heads.decode import Prediction

Counts = npt.NDArray[np.int64]
MATRIX_LABELS = 50
"""A confusion matrix of more labels is given as its `CONFUSIONS` most frequent entries off the diagonal."""
CONFUSIONS = 200
LANGUAGE_LABELS = 100
"""With more labels the figures of each label are given over all languages alone."""
NOT_READ = "(not read)"
"""What stands for the tag of a word that was cut off."""


def gold_and_given(task: Task, examples: Sequence[Any], answers: Sequence[Prediction]) -> tuple[Counts, Counts]:
    """Return the positions of the right labels and of those given, of examples or (tagging) of words; -1: not read."""
    if task.format == "tagging":
        gold = [label for example in examples for label in example.labels]
        given = [label for answer in answers for label in answer.value]
    else:
        gold, given = [example.label for example in examples], [answer.value for answer in answers]
    return np.array(gold, np.int64), np.array(given, np.int64)


def confusion(gold: Counts, given: Counts, labels: int) -> Counts:
    """Count right labels (rows) against those given (columns): (labels, labels + 1), the last column for -1.

    >>> confusion(np.array([0, 0, 1]), np.array([0, 1, -1]), 2)
    array([[1, 1, 0],
           [0, 0, 1]])
    """
    found = np.zeros((labels, labels + 1), np.int64)
    np.add.at(found, (gold, np.where(given < 0, labels, given)), 1)
    return found


def figures(matrix: Counts) -> dict[str, npt.NDArray[np.float64]]:
    """Return precision, recall, f1 (0 where nothing was given or is right), support and given: (labels,) each.

    >>> {name: values.tolist() for name, values in figures(np.array([[1, 1, 0], [0, 2, 0]])).items()}["f1"]
    [0.6666666666666666, 0.8]
    """
    right = np.diag(matrix[:, :-1]).astype(float)
    support, given = matrix.sum(1).astype(float), matrix[:, :-1].sum(0).astype(float)
    return {
        "precision": right / np.maximum(given, 1),
        "recall": right / np.maximum(support, 1),
        "f1": 2 * right / np.maximum(support + given, 1),
        "support": support,
        "given": given,
    }


def macro_f1(matrix: Counts) -> float:
    """Average the F1 of the labels that are right or given somewhere, each counting the same (as scikit-learn does)."""
    found = figures(matrix)
    seen = (found["support"] + found["given"]) > 0
    return float(found["f1"][seen].mean()) if seen.any() else 0.0


def describe(matrix: Counts, labels: Sequence[str]) -> dict[str, Any]:
    """Return what metrics.json holds of a confusion matrix, of the labels that are right or given somewhere.

    `macro_f1`; `labels`: name -> precision, recall, f1, support, given; `matrix`: rows right, columns given, in the
    order of `labels`, with `not_read` (words of each label that were cut off) where there are such. Of more than
    `MATRIX_LABELS` labels there are `confusions` instead: the most frequent ones, as right, given and count.
    """
    found = figures(matrix)
    seen = np.flatnonzero(found["support"] + found["given"])
    rows = {
        labels[at]: {
            **{name: round(float(found[name][at]), 6) for name in ("precision", "recall", "f1")},
            **{name: int(found[name][at]) for name in ("support", "given")},
        }
        for at in seen
    }
    section: dict[str, Any] = {"macro_f1": macro_f1(matrix), "labels": rows}
    names = [*labels, NOT_READ]
    if len(seen) <= MATRIX_LABELS:
        section["matrix"] = matrix[np.ix_(seen, seen)].tolist()
        if matrix[:, -1].any():
            section["not_read"] = matrix[seen, -1].tolist()
        return section
    off = matrix.copy()
    np.fill_diagonal(off, 0)
    order = np.argsort(-off, axis=None, kind="stable")[:CONFUSIONS]
    pairs = [divmod(int(at), off.shape[1]) for at in order]
    section["confusions"] = [[names[g], names[p], int(off[g, p])] for g, p in pairs if off[g, p]]
    return section


def classes(task: Task, matrices: Mapping[str, Counts]) -> dict[str, Any]:
    """Return the part `classes` of a report on labels: over all languages, and of each where there are few labels.

    matrices: language -> its confusion matrix.
    """
    total = np.sum(list(matrices.values()), axis=0)
    section: dict[str, Any] = {"of": "words" if task.format == "tagging" else "examples"}
    section["all"] = describe(total, task.labels)
    if len(matrices) > 1 and len(task.labels) <= LANGUAGE_LABELS:
        section["languages"] = {code: describe(matrix, task.labels) for code, matrix in matrices.items()}
    return section
