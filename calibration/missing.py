"""Queries whose answer is not in the index: whether they are recognised, and what refusing at a chosen risk gives.

Half of the queries lose their right candidate (by a hash of the id, so that the same ones do in every language);
temperature and margin of "none of these" (`RetrievalMargin`) and a map of the confidence are then fitted with such
queries among the others, which gives "none of these" the mass that it has when answers are missing as often as here.
That needs labels, so it comes from languages that have them; or, without any, from answers sampled in each language at
its predicted temperature. Everything is cross-fitted by fold.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.calibration import measures, resampling
from xt.calibration.accuracy import PredictedTemperature, sample_answers
from xt.calibration.apply.file import MethodFit
from xt.calibration.apply.retrieval import Calibrator, Floats, Rescaled, RetrievalMargin
from xt.calibration.fit.maps import fit_map
from xt.calibration.fit.temperature import fit_margin
from xt.calibration.predictions import FOLDS, Predictions, pool
from xt.calibration.search import enough, grouped
from xt.core.errors import XtError

RISK = 0.1
"""Share of the answers given that may be wrong."""
SAMPLED = 2000
"""Queries, about, that answers are sampled for in each language."""


def loses_answer(id: str) -> bool:
    """Return whether a query is among those whose right candidate is taken out: half of them, by a hash of the id."""
    return bool(hashlib.sha256(b"answer " + " ".join(id.casefold().split()).encode()).digest()[0] & 1)


def take_out(ranking: Predictions, without: npt.NDArray[np.bool_]) -> Predictions:
    """Return the ranking as it would be with the right candidate of some queries not in the index.

    Every row keeps the same number of candidates, one less than before.
    """
    n, k = ranking.scores.shape
    assert ranking.gold is not None
    gone = np.where(without & (ranking.gold >= 0), ranking.gold, k - 1)
    keep = np.arange(k)[None, :] != gone[:, None]  # (n, k), k - 1 of each row
    gold = np.where(without | (ranking.gold == k - 1), -1, ranking.gold)
    assert ranking.group is not None
    scores, group = (array[keep].reshape(n, k - 1) for array in (ranking.scores, ranking.group))
    right = (gold == 0).astype(np.float64)
    return replace(ranking, scores=scores, group=group, gold=gold, correct=right, candidates=ranking.candidates - 1)


def threshold_at_risk(confidence: Floats, correct: Floats, risk: float) -> float:
    """Return the least confidence at which to answer so that at most `risk` of the answers are wrong; inf: never."""
    order = np.argsort(-confidence, kind="stable")
    wrong = np.cumsum(1 - correct[order]) / np.arange(1, len(order) + 1)
    last = np.append(confidence[order][1:] != confidence[order][:-1], True)  # ties are answered together
    good = np.flatnonzero((wrong <= risk) & last)
    return float(confidence[order][good[-1]]) if len(good) else float("inf")


def _others(ranking: Predictions, fold: int | None) -> Predictions:
    """Return the ranking of the queries outside of a fold (None: of all)."""
    return ranking.take(ranking.outside(fold))


def fit_missing(scores: Floats, gold: Any) -> RetrievalMargin | Rescaled:
    """Fit temperature and margin of "none of these", and a beta map of the confidence that they give.

    The map is left out where all queries are right or all wrong. XtError with too few queries.
    """
    base = fit_margin(scores, gold)
    if (gold == 0).all() or (gold != 0).all():
        return base
    return Rescaled(base, fit_map("beta", base, scores, gold))


def sample_missing(ranking: Predictions, predicted: PredictedTemperature, fold: int | None) -> list[Predictions]:
    """Return the ranking, without a fold, as it would be with answers missing, its labels sampled instead of read.

    Each query's answer is sampled from the probabilities that the predicted temperature, as uncertain as it is, gives
    its candidates; then half of the queries, at random, lose the answer sampled. What is fitted to that needs no label
    of the language: it carries over what is known of full indexes (the predicted temperature) to indexes that lack
    answers, and the errors of the encoder with it. Sampled as often as it takes to have `SAMPLED` queries.
    """
    few = _others(ranking, fold)
    rng = resampling.generator(0, few.scores)
    n = len(few)
    sampled = sample_answers(predicted, few.scores, rng, math.ceil(SAMPLED / max(n, 1)))
    return [take_out(replace(few, gold=gold), rng.random(n) < 0.5) for gold in sampled]


def _sampled(
    ranking: Predictions, predicted: Callable[[int | None], PredictedTemperature], fold: int | None
) -> list[Predictions]:
    return sample_missing(ranking, predicted(fold), fold)


Fits = Mapping[int, tuple[RetrievalMargin | Rescaled, float]]
"""Fold -> the calibrator fitted without it, and the least confidence at which to answer."""


def _by_fold(
    without: Callable[[int | None], Sequence[Predictions]], risk: float
) -> tuple[Fits, RetrievalMargin | Rescaled]:
    """Fit to the rankings without each fold, the threshold chosen on the same queries, and to those of all folds."""
    fits: dict[int, tuple[RetrievalMargin | Rescaled, float]] = {}
    for fold in range(FOLDS):
        some = pool(without(fold))
        fitted = fit_missing(some.scores, some.gold)
        fits[fold] = fitted, threshold_at_risk(fitted(some.scores)[:, 0], some.correct, risk)
    everything = pool(without(None))
    return fits, fit_missing(everything.scores, everything.gold)


def _one(ranking: Predictions, without: npt.NDArray[np.bool_], fits: Fits, risk: float, repeats: int) -> dict[str, Any]:
    """Measure one language whose answers have been taken out."""
    probabilities = np.empty((len(ranking), 2))
    answered = np.empty(len(ranking), bool)
    for fold, (fitted, limit) in fits.items():
        here = np.flatnonzero(ranking.fold == fold)
        if len(here):
            probabilities[here] = fitted(ranking.scores[here])[:, [0, -1]]
            answered[here] = probabilities[here, 0] >= limit
    right = ranking.correct
    has = np.clip(1 - probabilities[:, 1], 0.0, 1.0)
    detection = measures.measure(has, (~without).astype(np.float64), repeats=repeats)
    answers = measures.measure(probabilities[:, 0], right, repeats=repeats)
    wrong = int(answered.sum() - right[answered].sum())
    limits = [limit for _, limit in fits.values()]
    return {
        "n": len(right),
        "unanswerable": float(without.mean()),
        "auroc": detection["auroc"],
        "auroc_ci": detection.get("auroc_ci"),
        "none_ece": detection["ece"],
        "none_ece_null": detection.get("ece_null"),
        "ece": answers["ece"],
        "ece_ci": answers.get("ece_ci"),
        "ece_null": answers.get("ece_null"),
        "refusal": {
            "risk": risk,
            "threshold": float(np.mean(limits)) if np.isfinite(limits).all() else None,
            "coverage": float(answered.mean()),
            "answered": int(answered.sum()),
            "risk_found": wrong / int(answered.sum()) if answered.any() else None,
        },
    }


def _overall(rows: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the means over languages; of the risk, over those that answer anything."""

    def mean(values: Sequence[float | None]) -> float | None:
        known = [v for v in values if v is not None]
        return float(np.mean(known)) if known else None

    keys = ("auroc", "ece", "ece_null", "none_ece", "none_ece_null")
    refusals = [row["refusal"] for row in rows.values()]
    return {
        **{key: mean([row[key] for row in rows.values()]) for key in keys},
        **{key: mean([r[key] for r in refusals]) for key in ("coverage", "risk_found")},
    }


def measure(
    rankings: Mapping[str, Predictions],
    sources: Sequence[str],
    *,
    predicted: Callable[[str, int | None], PredictedTemperature] | None = None,
    risk: float = RISK,
    repeats: int = measures.REPEATS,
) -> tuple[dict[str, Any], MethodFit[Calibrator] | None]:
    """Measure one direction.

    Args:
        rankings: language -> ranking.
        sources: the languages to fit on; where they have too few queries: all.
        predicted: language and fold -> its temperature without a label of it (`xt.calibration.search.CrossFit`).
        risk: of the answers given, with the threshold chosen on other queries.
        repeats: resamples behind an interval.

    Returns:
        The section `none_of_these`: for "zero-shot" (fitted on the sources; "pooled" where they are too few) and
        "predicted" (for each language, answers sampled: `sample_missing`), AUROC of answerable against not by one minus
        the mass of "none of these", ECE of that and of the answer's confidence, and what refusing below the threshold
        gives; and what was fitted. Empty and None with too few queries or a single candidate; languages that are
        left out are named in `notes`.
    """
    usable = {c: r for c, r in rankings.items() if r.scores.shape[1] > 1}
    without = {c: np.array([loses_answer(str(id)) for id in r.ids]) for c, r in usable.items()}
    cut = {c: take_out(r, without[c]) for c, r in usable.items()}
    named = [c for c in sources if c in cut]
    codes = named if enough([cut[c] for c in named]) else list(cut)
    if not enough([cut[c] for c in codes]):
        return {}, None
    shared, everything = _by_fold(lambda fold: [_others(cut[c], fold) for c in codes], risk)
    rows = {c: _one(r, without[c], shared, risk, repeats) for c, r in cut.items()}
    alone = [c for c in rankings if c not in usable]
    notes = [f"none of these: {', '.join(alone)} have a single candidate"] if alone else []
    scope = "zero-shot" if codes == named else "pooled"
    found = {scope: {"label": f"fitted on {', '.join(codes)}", "languages": rows, "overall": _overall(rows)}}
    by_language: dict[str, Calibrator] = {}
    kept = MethodFit[Calibrator](everything, by_language, tuple(codes), unanswerable=0.5)
    if predicted is not None:
        rows, lacking = {}, {}
        for code, ranking in usable.items():
            if len(set(ranking.fold.tolist())) < 2:  # without its fold there is nothing to sample from
                lacking[code] = "all queries are in one fold"
                continue
            try:
                own, everything = _by_fold(partial(_sampled, ranking, partial(predicted, code)), risk)
            except XtError as error:  # an unknown accuracy
                lacking[code] = error.message
                continue
            rows[code] = _one(cut[code], without[code], own, risk, repeats)
            by_language[code] = everything
        label = "for each language, to answers sampled at its predicted temperature; no labels"
        if rows:
            found["predicted"] = {"label": label, "languages": rows, "overall": _overall(rows)}
        if lacking:
            notes.append(f"none of these, predicted: the fit of {scope} in its place: {grouped(lacking)}")
    return {"risk": risk, "methods": found, **({"notes": notes} if notes else {})}, kept
