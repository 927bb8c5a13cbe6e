"""What is odd about the labels that are trained on and scored on: reported before anything is computed."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

from xt.core.data.examples import counts

NAMED = ("pair", "single", "tagging")
"""Formats whose labels have names."""
SKEWED = 0.9
"""The share of one label from which a file is called skewed."""
Counts = Mapping[str, int]


def folded(label: str) -> str:
    """Return a label without what one does not see: case, spaces, ways to write one letter.

    >>> folded(" Not  OK ") == folded("not ok")
    True
    """
    return " ".join(unicodedata.normalize("NFKC", label).casefold().split())


def single_label(format: str, train: Counts) -> str:
    """Return a note that nothing can be learnt, where all training examples have one label; else nothing.

    >>> single_label("single", {"yes": 30})
    "all 30 training labels are 'yes': there is nothing to learn"
    """
    if format not in NAMED or len(train) != 1:
        return ""
    ((label, count),) = train.items()
    return f"all {count:,} training labels are {label!r}: there is nothing to learn"


def label_notes(format: str, train: Counts, scored: Mapping[str, Counts]) -> list[str]:
    """Return what is odd about labels.

    Args:
        format: of the examples.
        train: label -> training examples that have it (of choices the position of the right one).
        scored: name of a part (`dev`, `test`) -> the same of its examples.

    Named are a single label, labels that are scored but never trained on, labels that differ by case, spaces or
    Unicode form alone, labels of one training example, and one label of nine in ten examples or more.

    >>> label_notes("single", {"a": 5, "b": 4}, {"dev": {"c": 2}})
    ['dev has labels that training never sees, so that they are never predicted: c 2']
    """
    notes = [note] if (note := single_label(format, train)) else []
    everything = {**train, **{label: 0 for part in scored.values() for label in part}}
    if format in NAMED:
        for part, found in scored.items():
            if unseen := {label: count for label, count in found.items() if label not in train}:
                notes.append(
                    f"{part} has labels that training never sees, so that they are never predicted: {counts(unseen)}"
                )
        groups: dict[str, list[str]] = {}
        for label in sorted(everything):
            groups.setdefault(folded(label), []).append(label)
        alike = [" and ".join(map(repr, group)) for group in groups.values() if len(group) > 1]
        if alike:
            notes.append(f"labels that differ by case, spaces or Unicode form alone: {'; '.join(alike[:8])}")
        single = {label: 1 for label, count in train.items() if count == 1}
        if single and len(train) > 1:
            names = ", ".join(list(single)[:8]) + (f" and {len(single) - 8} more" if len(single) > 8 else "")
            notes.append(f"{len(single)} labels have a single training example: {names}")
    total = sum(train.values())
    if format in (*NAMED, "choice") and total and not single_label(format, train):
        label, most = max(train.items(), key=lambda item: item[1])
        what = f"the right choice is number {label} (from 0)" if format == "choice" else f"the label is {label!r}"
        if most >= SKEWED * total:
            notes.append(f"skewed: {what} in {most:,} of {total:,} training examples ({most / total:.0%})")
    return notes
