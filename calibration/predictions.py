"""What a model answered and what was right: the one form in which every calibration is fitted, applied and measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.core.errors import XtError

Floats = npt.NDArray[np.float64]
Columns = npt.NDArray[np.int64]
Names = npt.NDArray[np.str_]
FOLDS = 5
"""Parts of cross-fitting: what is measured on one of them is fitted on the others."""
NONE_OF_THESE = -1
"""The right column where the right answer is none of the candidates: that which calibrators add after the last."""


@dataclass(frozen=True)
class Predictions:
    """Scores of candidates, the answer given and the right one, of one language or of several.

    `searched` makes those of retrieval, ranked search and mining, `classified` those of trained heads. A prediction has
    one row of scores; one whose answer is made of several choices (a span of tags: one a word) has a row for each.
    """

    scores: npt.NDArray[Any]
    """(rows, k): similarities or logits before any temperature, -inf for what there is not."""
    answer: Columns
    """(rows,): the column that was answered."""
    owner: Columns
    """(rows,): the prediction that a row belongs to, ascending, each of 0..n-1 at least once."""
    correct: Floats
    """(n,) of 0/1: whether the answer was right."""
    gold: Columns | None
    """(n,): the right column, or `NONE_OF_THESE`; None where no column is right by itself."""
    fold: Columns
    """(n,): its part in cross-fitting."""
    language: Names
    """(n,): code of its language."""
    ids: Names
    """(n,): the example or query; its translations share it, and the fold with it."""
    group: Columns | None = None
    """(rows, k): which candidate of the corpus a column is; equal candidates are one."""
    candidates: int = 0
    """How many different candidates the corpus has; 0 where that is not asked."""
    labels: bool = False
    """Whether the columns are the same labels in every row."""
    target: Columns | None = None
    """(n,): the right candidate of the corpus, as `group` numbers them, also where no column is; None: not told."""

    def __post_init__(self) -> None:
        n = len(self.correct)
        held = int(self.owner[-1]) + 1 if len(self.owner) else 0
        sizes = {"ids": len(self.ids), "folds": len(self.fold), "languages": len(self.language), "answers": held}
        if self.gold is not None:
            sizes["right columns"] = len(self.gold)
        if any(size != n for size in sizes.values()):
            raise XtError(f"{n} outcomes, and {', '.join(f'{size} {name}' for name, size in sizes.items())}.")

    def __len__(self) -> int:
        return len(self.correct)

    def take(self, keep: npt.NDArray[np.bool_] | Columns) -> Predictions:
        """Return some of the predictions, by a mask or by places in ascending order."""
        mask = np.zeros(len(self), bool)
        mask[keep] = True
        rows = mask[self.owner]
        return Predictions(
            self.scores[rows],
            self.answer[rows],
            (np.cumsum(mask) - 1)[self.owner[rows]],
            self.correct[mask],
            None if self.gold is None else self.gold[mask],
            self.fold[mask],
            self.language[mask],
            self.ids[mask],
            None if self.group is None else self.group[rows],
            self.candidates,
            self.labels,
            None if self.target is None else self.target[mask],
        )

    def outside(self, fold: int | Sequence[int] | None) -> npt.NDArray[np.bool_]:
        """Mask of the predictions outside of a fold, or of several (None: all)."""
        if fold is None:
            return np.ones(len(self), bool)
        return self.fold != fold if isinstance(fold, int) else ~np.isin(self.fold, np.asarray(fold))

    def log_softmax(self, temperature: float = 1.0) -> Floats:
        """Return log probabilities of every row's columns, (rows, k), at a temperature."""
        scaled = (self.scores - self.scores.max(1, keepdims=True)) / temperature
        return np.asarray(scaled - np.log(np.exp(scaled).sum(1, keepdims=True)))

    def confidence(self, log_probabilities: Floats) -> Floats:
        """Return the probability of each answer, (n,), from (rows, k): the product over its choices."""
        picked = log_probabilities[np.arange(len(self.answer)), self.answer]
        return np.minimum(np.exp(np.bincount(self.owner, weights=picked, minlength=len(self))), 1.0)


def searched(
    scores: npt.NDArray[Any],
    gold: Columns,
    *,
    fold: Columns,
    group: Columns | None = None,
    candidates: int = 0,
    language: str = "",
    ids: Sequence[str] | Names | None = None,
    target: Columns | None = None,
) -> Predictions:
    """Return the predictions of a search: similarities (n, k) best first, and the column of the right one, -1: none."""
    n = len(gold)
    return Predictions(
        scores,
        np.zeros(n, np.int64),
        np.arange(n),
        (gold == 0).astype(np.float64),
        gold,
        fold,
        np.full(n, language),
        np.arange(n).astype(str) if ids is None else np.asarray(ids, str),
        group,
        candidates,
        target=target,
    )


def classified(
    logits: Any,
    answer: Any,
    *,
    ids: Any,
    fold: Columns,
    language: str = "",
    gold: Any = None,
    correct: Any = None,
    owner: Any = None,
    labels: bool = False,
) -> Predictions:
    """Return the predictions of a head: logits (rows, k) and the columns answered (rows,).

    Args:
        logits: before any temperature, -inf for what there is not; each row has one that is more.
        answer: the column answered.
        ids: of each prediction's example.
        fold: of each prediction.
        language: of all of them.
        gold: the right column of each, where it is one.
        correct: whether each is right; None: where the answer is the right column.
        owner: the prediction that a row belongs to; None: one row each.
        labels: whether the columns are the same labels in every row.

    Raises XtError for logits that are not numbers.
    """
    logits, answer = np.asarray(logits, np.float64), np.asarray(answer, np.int64)
    owner = np.arange(len(logits)) if owner is None else np.asarray(owner, np.int64)
    damaged = np.isnan(logits) | np.isposinf(logits)
    if damaged.any():
        row = int(np.flatnonzero(damaged.any(1))[0])
        raise XtError(f"The logits of answer {int(owner[row])} are not numbers.", "The model is damaged.")
    if len(logits) and not np.isfinite(logits).any(1).all():
        raise XtError("An answer has no logits at all: every one is -inf.", "Leave it out.")
    gold = None if gold is None else np.asarray(gold, np.int64)
    right = np.asarray(answer == gold if correct is None else correct, np.float64)
    names = np.asarray(ids, str)
    return Predictions(logits, answer, owner, right, gold, fold, np.full(len(right), language), names, labels=labels)


def pool(parts: Sequence[Predictions]) -> Predictions:
    """Put predictions together, of several languages for example; rows are filled up to the widest with -inf.

    Their candidates may be of different corpora, so that several have no `group`.
    """
    if len(parts) == 1:
        return parts[0]
    width = max(part.scores.shape[1] for part in parts)
    wide = [np.pad(p.scores, ((0, 0), (0, width - p.scores.shape[1])), constant_values=-np.inf) for p in parts]
    starts = np.cumsum([0, *(len(part) for part in parts)])
    golds = [part.gold for part in parts if part.gold is not None]
    return Predictions(
        np.concatenate(wide),
        np.concatenate([part.answer for part in parts]),
        np.concatenate([part.owner + start for part, start in zip(parts, starts, strict=False)]),
        np.concatenate([part.correct for part in parts]),
        np.concatenate(golds) if len(golds) == len(parts) else None,
        np.concatenate([part.fold for part in parts]),
        np.concatenate([part.language for part in parts]),
        np.concatenate([part.ids for part in parts]),
        labels=all(part.labels for part in parts),
    )


def sizes_by_fold(parts: Sequence[Predictions]) -> Columns:
    """Count the predictions of some languages in each fold, (FOLDS,)."""
    return np.asarray(sum((np.bincount(part.fold, minlength=FOLDS) for part in parts), np.zeros(FOLDS, np.int64)))
