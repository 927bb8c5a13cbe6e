"""Means over groups of languages (family, script, Joshi class, resource), and accuracy in pools of one size.

Tatoeba has from 205 to 1,000 candidates a language, so accuracies are not comparable across languages as they are:
`fixed_pool` returns what the same encoder scores when every query chooses among equally many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from xt.core import languages
from xt.core.encoder.text import Vectors
from xt.core.errors import XtError, unknown
from xt.core.languages import Language

POOL = 200
"""Candidates of an equal pool; the smallest of XTREME's Tatoeba languages (Javanese) has 205."""
BLOCK = 1024
UNKNOWN = "unknown"
BY: dict[str, Callable[[Language], str]] = {
    "family": lambda row: row.family,
    "script": lambda row: row.script,
    "joshi": lambda row: UNKNOWN if row.joshi is None else str(row.joshi),
    "resource": lambda row: row.resource,
}
"""What languages can be grouped by."""


def group_of(code: str, by: str) -> str:
    """Name the group of a language; "unknown" for a code outside the table.

    >>> group_of("swh", "family"), group_of("swh", "joshi"), group_of("xyz", "script")
    ('Niger-Congo', '2', 'unknown')
    """
    if by not in BY:
        raise unknown("grouping", by, BY)
    try:
        return BY[by](languages.resolve(code))
    except XtError:
        return UNKNOWN


def means_by(values: Mapping[str, float], by: str) -> dict[str, dict[str, Any]]:
    """Average a figure of each language over the groups of `by`: group -> mean, n and the languages.

    Every language has the same weight. A value that is no finite number is an error: it would vanish in a mean.

    >>> means_by({"deu": 0.9, "nld": 0.7, "swh": 0.5}, "family")["IE Germanic"]
    {'mean': 0.8, 'n': 2, 'languages': ['deu', 'nld']}
    """
    if broken := [code for code, value in values.items() if not np.isfinite(value)]:
        raise XtError(f"There is no number for {', '.join(broken)}.", "Leave them out, and say so.")
    found: dict[str, list[str]] = {}
    for code in values:
        found.setdefault(group_of(code, by), []).append(code)
    return {
        group: {"mean": float(np.mean([values[c] for c in codes])), "n": len(codes), "languages": codes}
        for group, codes in sorted(found.items())
    }


def all_groups(values: Mapping[str, float]) -> dict[str, dict[str, dict[str, Any]]]:
    """Average a figure by each of `BY`: the section `groups` of metrics.json."""
    return {by: means_by(values, by) for by in BY}


def with_all(values: Mapping[str, float], resources: Mapping[str, str]) -> dict[str, float]:
    """Mean over all languages and over each resource class, as the report's tables have it."""
    classes = sorted({resources[code] for code in values})
    members = {"all": list(values), **{c: [x for x in values if resources[x] == c] for c in classes}}
    return {name: float(np.mean([values[c] for c in codes])) for name, codes in members.items()}


def better(queries: Vectors, corpus: Vectors, gold: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Count for each query the candidates that score at least as high as its gold one, itself left out: (n,).

    queries (n, dim), corpus (m, dim), gold (n,) rows of the corpus. Block by block, so that n x m is never in memory.
    """
    counts = np.empty(len(queries), np.int64)
    for start in range(0, len(queries), BLOCK):
        block = slice(start, start + BLOCK)
        counts[block] = better_of(queries[block] @ corpus.T, gold[block])
    return counts


def better_of(scores: npt.NDArray[Any], gold: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Count for each row of scores (n, m) those that are at least as high as that of its gold column, without it."""
    if not np.isfinite(scores).all():
        raise XtError("Scores hold NaN or infinity.", "The encoder is damaged; check it with `xt check`.")
    own = scores[np.arange(len(scores)), gold][:, None]
    return np.asarray((scores >= own).sum(1) - 1, np.int64)


def pool_accuracy(beaten_by: npt.NDArray[np.int64], candidates: int, size: int = POOL) -> float:
    """Mean accuracy at 1 when each query chooses among its gold candidate and `size` - 1 others, drawn at random.

    In closed form, over all pools there are: a query whose gold candidate is beaten by r of the N - 1 others is right
    when none of those r is drawn, which has the chance C(N-1-r, size-1) / C(N-1, size-1). Equal scores count as
    beaten. `size` = N gives the plain accuracy.

    Args:
        beaten_by: (n,) r of each query.
        candidates: N, at least `size`.
        size: candidates of a pool, the gold one among them.
    """
    if size < 1 or candidates < size:
        raise XtError(
            f"There are {candidates} candidates, fewer than a pool of {size}.",
            "Choose a smaller --pool, or leave the language out.",
        )
    rest, drawn = candidates - 1, size - 1
    free = rest - np.asarray(beaten_by, np.int64)

    def log_choose(n: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        return np.asarray(gammaln(n + 1) - gammaln(drawn + 1) - gammaln(n - drawn + 1))

    possible = free >= drawn
    chance = np.zeros(len(free))
    chance[possible] = np.exp(log_choose(free[possible]) - log_choose(np.array(rest)))
    return float(chance.mean())


def fixed_pool(
    queries: Vectors, corpus: Vectors, gold: npt.NDArray[np.int64] | None = None, *, size: int = POOL
) -> float:
    """Return the accuracy at 1 in random pools of `size` candidates (`pool_accuracy`), from vectors of unit length.

    Args:
        queries: (n, dim).
        corpus: (m, dim) all candidates.
        gold: (n,) row of each query's right candidate; None: its own row.
        size: candidates of a pool.
    """
    rows = np.arange(len(queries)) if gold is None else gold
    return pool_accuracy(better(queries, corpus, rows), len(corpus), size)
