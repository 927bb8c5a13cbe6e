"""What XTREME and MTEB each report of the same retrieval: direction, figure, and accuracy in pools of one size.

XTREME asks English to foreign and reports accuracy (`third_party/utils_retrieve.py`); MTEB asks foreign to English and
reports F1 weighted by class, every sentence a class of its own (`mteb/_evaluators/text/bitext_mining_evaluator.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xt.core.copies import Copies
from xt.eval import groups
from xt.eval.retrieval.ranking import Encodings, Ranking, sides

CONVENTIONS = {
    "foreign-english": "MTEB's direction; MTEB's main figure is f1",
    "english-foreign": "XTREME's direction; XTREME's figure is accuracy",
}
"""What a direction is, as the output names it."""


def weighted_f1(ranking: Ranking) -> float:
    """Return scikit-learn's `f1_score(average="weighted")` of the answers, every sentence a class of its own.

    A sentence found by its own query has recall 1 and precision 1 / (queries that it answers), so F1 2 / (1 + them).
    """
    answers = ranking.rows[:, 0]
    asked = np.bincount(answers[answers >= 0], minlength=ranking.candidates)  # queries that each candidate answers
    right = ranking.gold == 0
    return float(np.where(right, 2.0 / (1.0 + asked[np.maximum(answers, 0)]), 0.0).mean())


def figures(
    ranking: Ranking, vectors: Encodings, direction: str, pool: int | None, documents: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return what both conventions add to a language's row: `f1`, and with `pool` the accuracy in pools of that size.

    `documents`: the texts of the candidates; equal ones are one in the pools, which no benchmark prescribes. A language
    with fewer candidates than the pool has None for it.
    """
    row: dict[str, Any] = {"f1": weighted_f1(ranking)}
    if pool is not None:
        query, corpus = sides(vectors, direction)
        copies = Copies.find(documents) if documents is not None else Copies(np.arange(len(corpus)))
        enough = copies.candidates >= pool
        different = corpus[copies.firsts] if copies.extra else corpus
        row["accuracy_pool"] = groups.fixed_pool(query, different, copies.of, size=pool) if enough else None
    return row


def section(
    rows: Mapping[str, Mapping[str, Any]], direction: str, resources: Mapping[str, str], pool: int | None
) -> dict[str, Any]:
    """Return what a direction's section has beside its rows: the convention, groups, and the means in equal pools."""
    out: dict[str, Any] = {
        "convention": CONVENTIONS[direction],
        "f1": groups.with_all({c: r["f1"] for c, r in rows.items()}, resources),
        "groups": _groups({c: r["accuracy"] for c, r in rows.items()}, "accuracy"),
    }
    if pool is not None:
        there = {c: r["accuracy_pool"] for c, r in rows.items() if r["accuracy_pool"] is not None}
        if not there:
            note = f"no language has {pool} candidates: no accuracy in pools of one size"
            return {**out, "pool_missing": list(rows), "notes": [note]}
        out |= {"pool": pool, "pool_mean": groups.with_all(there, resources)}
        out |= {"pool_groups": _groups(there, "accuracy_pool"), "pool_missing": [c for c in rows if c not in there]}
    return out


def _groups(values: Mapping[str, float], name: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Average a figure by family, script, Joshi class and resource, under its own name."""
    return {
        by: {group: {name: row["mean"], "n_languages": row["n"]} for group, row in found.items()}
        for by, found in groups.all_groups(values).items()
    }
