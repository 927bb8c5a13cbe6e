"""How many labelled queries a language needs: its own temperature, and one drawn to the prediction, from k of them.

For every fold the k queries are drawn from the other folds, so that all queries are scored by fits that saw neither
them nor a translation of them; several draws are averaged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xt.calibration import measures
from xt.calibration.fit.temperature import fit_shrunk
from xt.core.errors import XtError
from xt.eval.retrieval.calibration import CrossFit, Scored, apply, keep_others
from xt.eval.retrieval.ranking import FOLDS, Ranking

DRAWS = 3


def measure(
    rankings: Mapping[str, Ranking],
    others: Mapping[str, Ranking],
    shots: Sequence[int],
    *,
    seed: int = 0,
    known: Mapping[Any, Any] | None = None,
) -> dict[str, Any]:
    """Measure ECE with k labelled queries a language: {"16": {"per-language": row, "shrunk": row}, ...}.

    A row has the means over languages and draws of ece, ece_null and ece_excess, the largest excess of a language, and
    the number of languages; those with fewer than k queries outside of any fold are left out, and named; where nothing
    is known that a temperature could be drawn to, all are, and `note` has the reason. `known`: of
    the fits of the same rankings (`xt.eval.retrieval.calibration.CrossFit.known`), where they have been made.
    """
    if any(k < 1 for k in shots):
        raise XtError(f"Shots of {min(shots)} queries cannot be drawn.", "Give numbers of at least 1.")
    fits = CrossFit(rankings, others, known=known)
    return {str(k): _one(fits, k, seed) for k in sorted(set(shots))}


def _one(fits: CrossFit, k: int, seed: int) -> dict[str, Any]:
    figures: dict[str, dict[str, list[tuple[float, float]]]] = {"per-language": {}, "shrunk": {}}
    lacking = []
    try:
        for code in fits.rankings:
            for fold in range(FOLDS):
                fits.prior(code, fold)
    except XtError as error:
        return {key: {**_row({}, list(fits.rankings)), "note": error.message} for key in figures}
    for code, ranking in fits.rankings.items():
        if min(int(keep_others(ranking, f).sum()) for f in range(FOLDS)) < k:
            lacking.append(code)
            continue
        for draw in range(DRAWS):
            random = np.random.default_rng([seed, draw, k])
            drawn = {f: random.choice(np.flatnonzero(keep_others(ranking, f)), k, replace=False) for f in range(FOLDS)}
            for key in figures:
                by_fold = {}
                for fold, rows in drawn.items():
                    spread = fits.spread(code, fold) if key == "shrunk" else float("inf")
                    prior = fits.prior(code, fold)
                    by_fold[fold] = fit_shrunk(ranking.scores[rows], ranking.gold[rows], prior, spread)
                figures[key].setdefault(code, []).append(_figures(apply(ranking, by_fold)))
    return {key: _row(found, lacking) for key, found in figures.items()}


def _figures(scored: Scored) -> tuple[float, float]:
    return measures.ece(scored.confidence, scored.correct), measures.ece_null(scored.confidence, repeats=50)


def _row(found: Mapping[str, Sequence[tuple[float, float]]], lacking: Sequence[str]) -> dict[str, Any]:
    if not found:
        return {"languages": 0, "left_out": list(lacking)}
    means = {code: np.mean(pairs, axis=0) for code, pairs in found.items()}
    eces = np.array(list(means.values()))
    excess = {code: float(e - n) for code, (e, n) in means.items()}
    return {
        "ece": float(eces[:, 0].mean()),
        "ece_null": float(eces[:, 1].mean()),
        "ece_excess": float(np.mean(list(excess.values()))),
        "worst_ece_excess": max(excess.values()),
        "languages": len(means),
        "left_out": list(lacking),
        "by_language": excess,
    }
