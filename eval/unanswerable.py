"""Queries whose answer is not in the index: whether they are told apart, and what refusing at a chosen risk gives.

Half of the queries lose their right candidate (by a hash of the English sentence, so that the same ones do in every
language); temperature and margin of "none of these" (`RetrievalMargin`) are then fitted with such queries among the
others, which gives "none of these" the mass that it has when answers are missing as often as here. Everything is
cross-fitted by fold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.core.calibrators import Floats, RetrievalMargin
from xt.eval import measures
from xt.eval.calibration import enough, keep_others, stack
from xt.eval.fitting import fit_margin
from xt.eval.retrieval import FOLDS, Ranking

RISK = 0.1
"""Share of the answers given that may be wrong."""


def loses_answer(english: str) -> bool:
    """Whether a sentence pair is among those whose right candidate is taken out: half of them, by a hash."""
    return bool(hashlib.sha256(b"answer " + " ".join(english.casefold().split()).encode()).digest()[0] & 1)


def take_out(ranking: Ranking, without: npt.NDArray[np.bool_]) -> Ranking:
    """Give the ranking as it would be with the right candidate of some queries not in the index.

    Every row keeps the same number of candidates, one less than before.
    """
    n, k = ranking.scores.shape
    gone = np.where(without & (ranking.gold >= 0), ranking.gold, k - 1)
    keep = np.arange(k)[None, :] != gone[:, None]  # (n, k), k - 1 of each row
    gold = np.where(without | (ranking.gold == k - 1), -1, ranking.gold)
    scores, rows = (array[keep].reshape(n, k - 1) for array in (ranking.scores, ranking.rows))
    return replace(ranking, scores=scores, rows=rows, gold=gold, candidates=ranking.candidates - 1)


def threshold_at_risk(confidence: Floats, correct: Floats, risk: float) -> float:
    """Give the least confidence at which to answer so that at most `risk` of the answers are wrong; inf: never."""
    order = np.argsort(-confidence, kind="stable")
    wrong = np.cumsum(1 - correct[order]) / np.arange(1, len(order) + 1)
    last = np.append(confidence[order][1:] != confidence[order][:-1], True)  # ties are answered together
    good = np.flatnonzero((wrong <= risk) & last)
    return float(confidence[order][good[-1]]) if len(good) else float("inf")


def _fit(rankings: Sequence[Ranking], fold: int | None) -> RetrievalMargin:
    return fit_margin(*stack(rankings, [keep_others(r, fold) for r in rankings]))


def measure(
    rankings: Mapping[str, Ranking],
    english: Mapping[str, Sequence[str]],
    sources: Sequence[str],
    *,
    risk: float = RISK,
    repeats: int = measures.REPEATS,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measure one direction.

    Args:
        rankings: language -> ranking.
        english: language -> the English side of its pairs, in order.
        sources: the languages to fit on; none of them there: all.
        risk: of the answers given, with the threshold chosen on the sources.
        repeats: resamples behind an interval.

    Returns:
        The section `none_of_these` (AUROC of answerable against not by one minus the mass of "none of these", and what
        refusing below the threshold gives), and the calibrator as calibration.json keeps it; both empty with too few
        queries or a single candidate.
    """
    usable = {c: r for c, r in rankings.items() if r.scores.shape[1] > 1}
    without = {c: np.array([loses_answer(e) for e in english[c]]) for c in usable}
    cut = {c: take_out(r, without[c]) for c, r in usable.items()}
    codes = [c for c in sources if c in cut] or list(cut)
    if not enough([cut[c] for c in codes]):
        return {}, {}
    some = [cut[c] for c in codes]
    fits: list[RetrievalMargin] = []
    limits = []
    for fold in range(FOLDS):
        fits.append(_fit(some, fold))
        confidence, correct = [], []
        for ranking in some:
            keep = keep_others(ranking, fold)
            confidence.append(fits[-1](ranking.scores[keep])[:, 0])
            correct.append((ranking.gold[keep] == 0).astype(np.float64))
        limits.append(threshold_at_risk(np.concatenate(confidence), np.concatenate(correct), risk))
    rows: dict[str, Any] = {}
    for code, ranking in cut.items():
        probabilities = np.empty((len(ranking.gold), 2))
        answered = np.empty(len(ranking.gold), bool)
        for fold in range(FOLDS):
            here = np.flatnonzero(ranking.folds == fold)
            if len(here):
                probabilities[here] = fits[fold](ranking.scores[here])[:, [0, -1]]
                answered[here] = probabilities[here, 0] >= limits[fold]
        has_answer = (~without[code]).astype(np.float64)
        right = (ranking.gold == 0).astype(np.float64)
        told = measures.measure(1 - probabilities[:, 1], has_answer, repeats=repeats)
        found = measures.measure(probabilities[:, 0], right, repeats=repeats)
        wrong = int(answered.sum() - right[answered].sum())
        rows[code] = {
            "n": len(right),
            "unanswerable": float(without[code].mean()),
            "auroc": told["auroc"],
            "auroc_ci": told["auroc_ci"],
            "ece": found["ece"],
            "ece_ci": found["ece_ci"],
            "ece_null": found["ece_null"],
            "refusal": {
                "risk": risk,
                "threshold": float(np.mean(limits)) if np.isfinite(limits).all() else None,
                "coverage": float(answered.mean()),
                "risk_found": wrong / int(answered.sum()) if answered.any() else None,
            },
        }
    risks = [r["refusal"]["risk_found"] for r in rows.values() if r["refusal"]["risk_found"] is not None]
    aurocs = [r["auroc"] for r in rows.values() if r["auroc"] is not None]
    overall = {
        "auroc": float(np.mean(aurocs)) if aurocs else None,
        "coverage": float(np.mean([r["refusal"]["coverage"] for r in rows.values()])),
        "risk_found": float(np.mean(risks)) if risks else None,
        "ece": float(np.mean([r["ece"] for r in rows.values()])),
        "ece_null": float(np.mean([r["ece_null"] for r in rows.values()])),
    }
    section = {
        "method": "temperature, and a margin for none of these",
        "fitted_on": codes,
        "languages": rows,
        "overall": overall,
    }
    final = _fit(some, None)
    return section, {**final.to_json(), "fitted_on": codes, "unanswerable": 0.5}
