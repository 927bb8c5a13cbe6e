"""How near a head's graph comes to PyTorch's answers: on inputs made of real text, alone and in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xt.core.characters import compose
from xt.core.data.bitext import Bitext
from xt.core.data.tasks import Task
from xt.core.errors import XtError
from xt.core.heads.onnx_heads import HeadModel, Reply
from xt.export.parity import ParityTexts, decompose, in_both_forms, spread, written

INPUTS = 256
"""Inputs at most that parity is measured on."""
DECOMPOSED = 16
"""Inputs of the parity corpus that are measured a second time, decomposed."""
CHOICES = 4
SENTENCES_A_CONTEXT = 24
"""Sentences of the longest context that parity is measured on: more than one window of 512 tokens."""


@dataclass(frozen=True)
class HeadStage:
    """How near one graph comes to PyTorch fp32, over all inputs."""

    stage: str
    difference_max: float
    """Largest difference of a probability (of an answer and none for qa; for regression: of a score, in standard
    deviations of the training scores)."""
    difference_p99: float
    """99th percentile, over inputs, of an input's largest difference."""
    difference_mean: float
    """Mean, over inputs, of an input's largest difference."""
    agreement: float
    """Share of the labels, choices, tags or answers that are the same; for regression of the pairs of inputs whose
    scores have the same order."""
    batch_difference_max: float
    """Largest difference of a probability between an input alone and the same input in a batch of mixed lengths."""
    megabytes: float

    def __str__(self) -> str:
        """Return the line that an export reports."""
        return (
            f"{self.stage}: {self.megabytes:.0f} MB, probability difference max {self.difference_max:.5f} p99 "
            f"{self.difference_p99:.5f} mean {self.difference_mean:.5f}, agreement {self.agreement:.1%}, "
            f"batch {self.batch_difference_max:.6f}"
        )


def parity_inputs(task: Task, corpus: Sequence[Bitext], most: int = INPUTS) -> list[Any]:
    """Make inputs of the task's format out of real sentences of every language: short ones, long ones, odd ones.

    A text and its translation make a pair, a prompt its choices (other sentences), sentences together a context.
    """
    each = max(1, min(8, most // max(1, len(corpus))))
    texts = ParityTexts.sample(corpus, each)
    if not texts.foreign:
        raise XtError("There is no text to measure parity on.", "Name a corpus by --parity-corpus.")
    return make_inputs(task, texts.foreign, texts.translations, spread(len(texts.foreign), most))


def make_inputs(task: Task, foreign: Sequence[str], english: Sequence[str], rows: Sequence[int]) -> list[Any]:
    """Make an input of the task's format at each of `rows`, out of the sentences there and of those that follow."""
    form = task.format

    def sentences(start: int, count: int) -> str:
        return " ".join(foreign[(start + i) % len(foreign)] for i in range(count))

    made: list[Any] = []
    for n, i in enumerate(rows):
        text, other = foreign[i], english[i]
        longer = sentences(i, 1 + n % 5) if n % 4 == 0 else text
        if form == "single":
            made.append(longer)
        elif form == "tagging":
            made.append(longer.split())
        elif form == "choice":
            made.append((text, [english[(i + 7 * k) % len(english)] for k in range(2 + n % (CHOICES - 1))]))
        elif form == "qa":
            made.append((other, sentences(i, SENTENCES_A_CONTEXT if n % 16 == 0 else 1 + n % 5)))
        else:
            made.append((text, other))
    return made


def measure(
    stage: str, model: HeadModel, expected: Sequence[Reply], items: Sequence[Any], *, megabytes: float, scale: float
) -> HeadStage:
    """Compare a graph's answers with PyTorch's: to decomposed inputs (NFD) with those to their composed form, too.

    expected: PyTorch's replies to `items`. scale: divides differences of scores (regression); else 1.
    """
    both = in_both_forms(items, DECOMPOSED)
    expected = [*expected, *(expected[i] for i in both)]
    found = model.predict([*items, *(written(items[i], decompose) for i in both)], truncate=True)
    worst = np.array([_apart(a, b) for a, b in zip(found, expected, strict=True)]) / scale
    some = [items[i] for i in spread(len(items), 24)]
    together = model.predict(some, truncate=True, token_budget=1 << 20)
    alone = [model.predict([item], truncate=True, token_budget=1)[0] for item in some]
    batch = float(np.max([_apart(a, b) for a, b in zip(alone, together, strict=True)])) / scale
    return HeadStage(
        stage=stage,
        difference_max=float(worst.max()),
        difference_p99=float(np.quantile(worst, 0.99)),
        difference_mean=float(worst.mean()),
        agreement=agreement(found, expected),
        batch_difference_max=batch,
        megabytes=round(megabytes, 1),
    )


def _apart(a: Reply, b: Reply) -> float:
    """Return the largest difference of two replies' probabilities."""
    return float(np.abs(a.numbers - b.numbers).max())


def agreement(found: Sequence[Reply], expected: Sequence[Reply]) -> float:
    """Share of equal predictions: of tags each by itself; of scores the pairs of inputs in the same order."""
    pairs = list(zip([r.value for r in found], [r.value for r in expected], strict=True))
    if all(isinstance(value, float) for value, _ in pairs):
        if len(pairs) < 2:
            return 1.0
        one, other = (np.array(values) for values in zip(*pairs, strict=True))
        first, second = np.triu_indices(len(one), 1)
        same = np.sign(one[first] - one[second]) == np.sign(other[first] - other[second])
        return float(same.mean())
    if all(isinstance(value, tuple) for value, _ in pairs):
        pairs = [(a, b) for one, other in pairs for a, b in zip(one, other, strict=True)]
    return float(np.mean([_text(a) == _text(b) for a, b in pairs]))


def _text(value: Any) -> Any:
    return compose(value) if isinstance(value, str) else value  # answers are cut out of contexts as they are given
