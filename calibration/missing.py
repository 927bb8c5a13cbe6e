"""Queries whose answer is not in the index: whether they are recognised, and what refusing at a chosen risk gives.

Half of the right candidates are taken out of the index (by a hash of the query's id, so that the same ones are in every
language), for all queries: those that they would have answered, and those that they would have misled. Temperature and
margin of "none of these" (`RetrievalMargin`) and a map of the confidence are then fitted with such queries among the
others, which gives "none of these" the mass that it has when answers are missing as often as here. That needs labels,
so it comes from languages that have them; or, without any, from answers sampled in each language at its predicted
temperature. Everything is cross-fitted by fold.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from xt.calibration.accuracy import PredictedTemperature, sample_answers
from xt.calibration.apply.file import CANDIDATES, MethodFit
from xt.calibration.apply.retrieval import Calibrator, Floats, Rescaled, RetrievalMargin
from xt.calibration.fit.maps import fit_map
from xt.calibration.fit.temperature import fit_margin
from xt.calibration.measuring import measures, resampling
from xt.calibration.measuring.clusters import Ids, keys_of
from xt.calibration.measuring.means import average
from xt.calibration.predictions import FOLDS, NONE_OF_THESE, Columns, Predictions, pool
from xt.calibration.search import enough, grouped
from xt.core.errors import XtError

RISK = 0.1
"""Share of the answers given that may be wrong."""
SAMPLED = 2000
"""Queries, about, that answers are sampled for in each language."""


def loses_answer(id: str) -> bool:
    """Return whether a query is among those whose right candidate is taken out: half of them, by a hash of the id."""
    return bool(hashlib.sha256(b"answer " + " ".join(id.casefold().split()).encode()).digest()[0] & 1)


def take_out(ranking: Predictions, gone: Columns, k: int = CANDIDATES) -> Predictions:
    """Return the ranking as a search of the index without some candidates has it.

    A search of the smaller index finds what is left of a ranking, in its order; so the result is exact, and as deep as
    every query's candidates are known: `k`, or fewer where less is left of one of the lists.

    Args:
        ranking: deeper than `k`, so that something is left: of half an index, about twice as deep and 60 more.
        gone: numbers of the candidates, as `group` has them.
        k: candidates of each query, at most.

    Raises:
        XtError: where nothing is left of a query's list.
    """
    assert ranking.gold is not None
    assert ranking.group is not None
    stays = ~np.isin(ranking.group, gone)
    width = min(k, int(stays.sum(1).min()))
    if width < 1:
        raise XtError(
            f"Of the {stays.shape[1]} best candidates of a query none is left without {len(gone)} of the index.",
            "Rank deeper.",
        )
    place = np.argsort(~stays, axis=1, kind="stable")[:, :width]
    scores, group = (np.take_along_axis(array, place, axis=1) for array in (ranking.scores, ranking.group))
    hits = (place == ranking.gold[:, None]) & np.take_along_axis(stays, place, axis=1)
    gold = np.where(hits.any(1), hits.argmax(1), NONE_OF_THESE)
    left = ranking.candidates - len(np.unique(gone))
    right = (gold == 0).astype(np.float64)
    return replace(ranking, scores=scores, group=group, gold=gold, correct=right, candidates=left)


def targets(ranking: Predictions) -> Columns:
    """Return the right candidate of each query, (n,); `NONE_OF_THESE` where there is none, or none is known."""
    if ranking.target is not None:
        return ranking.target
    assert ranking.gold is not None
    assert ranking.group is not None
    found = ranking.group[np.arange(len(ranking)), np.maximum(ranking.gold, 0)]
    return np.where(ranking.gold >= 0, found, NONE_OF_THESE)


def lose_answers(ranking: Predictions, k: int = CANDIDATES) -> tuple[Predictions, npt.NDArray[np.bool_]]:
    """Return the ranking in the index that lost half of its answers, and which queries have none there, (n,).

    A query shares its answer's fate, also one whose answer is the same text as that of another.
    """
    right = targets(ranking)
    loses = np.array([loses_answer(str(id)) for id in ranking.ids])
    gone = np.unique(right[loses & (right != NONE_OF_THESE)])
    return take_out(ranking, gone, k), np.isin(right, gone)


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
    its candidates; then half of the candidates of the index, at random, are taken out of it. What is fitted to that
    needs no label of the language: it carries over what is known of full indexes (the predicted temperature) to indexes
    that lack answers, and the errors of the encoder with it. Sampled as often as it takes to have `SAMPLED` queries.
    """
    few = _others(ranking, fold)
    assert few.group is not None
    scores, every = few.scores[:, :CANDIDATES], np.unique(few.group[few.group >= 0])
    rng = resampling.generator(0, scores)
    sampled = sample_answers(predicted, scores, rng, math.ceil(SAMPLED / max(len(few), 1)))
    return [take_out(replace(few, gold=gold), rng.permutation(every)[: len(every) // 2]) for gold in sampled]


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


KEPT = {"n", "languages", "accuracy", "mean_confidence", "nauc", "intercept", "in_the_large", "slope", "slope_ci"}
MEASURED = ("gap", "mean_gap", "worst_gap", "gaps_outside", "gap_intervals", "ece", "brier", "auroc")
"""Measures that are reported; those that begin so."""
Row = dict[str, Any]
Boots = tuple[dict[str, Floats], dict[str, Floats]]
"""The resamples of `answer` and of `none`."""


def _kept(row: Mapping[str, Any]) -> Row:
    return {key: value for key, value in row.items() if key in KEPT or key.startswith(MEASURED)}


def _measure(confidence: Floats, correct: Floats, ids: Ids, repeats: int) -> tuple[Row, dict[str, Floats]]:
    row, drawn = measures.measure_and_draw(confidence, correct, ids=ids, repeats=repeats)
    about = {"n": len(correct), "accuracy": float(correct.mean()), "mean_confidence": float(confidence.mean())}
    return {**about, **_kept(row)}, drawn


def _one(
    ranking: Predictions, without: npt.NDArray[np.bool_], fits: Fits, risk: float, repeats: int
) -> tuple[Row, Boots, Floats]:
    """Measure one language whose answers have been taken out; with the probabilities of best and none, (n, 2)."""
    probabilities = np.empty((len(ranking), 2))
    answered = np.empty(len(ranking), bool)
    for fold, (fitted, limit) in fits.items():
        here = np.flatnonzero(ranking.fold == fold)
        if len(here):
            probabilities[here] = fitted(ranking.scores[here])[:, [0, -1]]
            answered[here] = probabilities[here, 0] >= limit
    right, ids = ranking.correct, keys_of(ranking.ids)
    probabilities = np.clip(probabilities, 0.0, 1.0)
    answer, answer_drawn = _measure(probabilities[:, 0], right, ids, repeats)
    none, none_drawn = _measure(probabilities[:, 1], without.astype(np.float64), ids, repeats)
    wrong = int(answered.sum() - right[answered].sum())
    limits = [limit for _, limit in fits.values()]
    row = {
        "n": len(right),
        "unanswerable": float(without.mean()),
        "answer": answer,
        "none": none,
        **_flat(answer, none),
        "refusal": {
            "risk": risk,
            "threshold": float(np.mean(limits)) if np.isfinite(limits).all() else None,
            "coverage": float(answered.mean()),
            "answered": int(answered.sum()),
            "risk_found": wrong / int(answered.sum()) if answered.any() else None,
        },
    }
    return row, (answer_drawn, none_drawn), probabilities


def _flat(answer: Mapping[str, Any], none: Mapping[str, Any]) -> Row:
    """Return the measures that reports had before `answer` and `none` had all of them."""
    found = {"auroc": none["auroc"], "auroc_ci": none.get("auroc_ci")}
    found |= {key: answer.get(key) for key in ("ece", "ece_ci", "ece_null")}
    return found | {f"none_{key}": none.get(key) for key in ("ece", "ece_null")}


def _overall(rows: Mapping[str, Row], boots: Mapping[str, Boots]) -> Row:
    """Return the means over languages; of the risk, over those that answer anything."""

    def mean(values: Iterable[float | None]) -> float | None:
        known = [v for v in values if v is not None]
        return float(np.mean(known)) if known else None

    out: Row = {}
    for place, event in enumerate(("answer", "none")):
        each = {code: row[event] for code, row in rows.items()}
        about = {key: mean(row[key] for row in each.values()) for key in ("accuracy", "mean_confidence")}
        found = average(each, {code: two[place] for code, two in boots.items()}, each)
        out[event] = {"n": sum(row["n"] for row in each.values()), "languages": len(each), **about, **_kept(found)}
    refusals = [row["refusal"] for row in rows.values()]
    return {
        **out,
        **_flat(out["answer"], out["none"]),
        **{key: mean(r[key] for r in refusals) for key in ("coverage", "risk_found")},
    }


def _all(
    cut: Mapping[str, tuple[Predictions, npt.NDArray[np.bool_]]], fits: Mapping[str, Fits], risk: float, repeats: int
) -> Row:
    """Measure some languages, each with the fits that score it: `languages` and `overall`."""
    found = {code: _one(*cut[code], own, risk, repeats) for code, own in fits.items()}
    rows = {code: row for code, (row, *_) in found.items()}
    overall = _overall(rows, {code: boots for code, (_, boots, _) in found.items()})
    ids = np.concatenate([keys_of(cut[code][0].ids) for code in found])
    chances = np.concatenate([p for *_, p in found.values()])
    right = np.concatenate([cut[code][0].correct for code in found])
    absent = np.concatenate([cut[code][1].astype(np.float64) for code in found])
    for column, (event, outcomes) in enumerate({"answer": right, "none": absent}.items()):
        overall[event] |= vars(measures.cox(chances[:, column], outcomes, ids))
    return {"languages": rows, "overall": overall}


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
        rankings: language -> ranking, as deep as `take_out` needs it.
        sources: the languages to fit on; where they have too few queries: all.
        predicted: language and fold -> its temperature without a label of it (`xt.calibration.search.CrossFit`).
        risk: of the answers given, with the threshold chosen on other queries.
        repeats: resamples behind an interval.

    Returns:
        The section `none_of_these`: for "zero-shot" (fitted on the sources; "pooled" where they are too few) and
        "predicted" (for each language, answers sampled: `sample_missing`), the measures of the probability that the
        best answer is right (`answer`) and that none is there (`none`, whose AUROC says how well queries with and
        without an answer are told apart), and what refusing below the threshold gives; and what was fitted. Empty and
        None with too few queries or a single candidate; languages that are left out are named in `notes`.
    """
    usable, cut, alone = {}, {}, []
    for code, ranking in rankings.items():
        try:
            cut[code] = lose_answers(ranking)
            usable[code] = ranking
        except XtError:
            alone.append(code)
    named = [c for c in sources if c in cut]
    codes = named if enough([cut[c][0] for c in named]) else list(cut)
    if not enough([cut[c][0] for c in codes]):
        return {}, None
    shared, everything = _by_fold(lambda fold: [_others(cut[c][0], fold) for c in codes], risk)
    notes = [f"none of these: of {', '.join(alone)} too few candidates are left"] if alone else []
    scope = "zero-shot" if codes == named else "pooled"
    found = {scope: {"label": f"fitted on {', '.join(codes)}", **_all(cut, dict.fromkeys(cut, shared), risk, repeats)}}
    by_language: dict[str, Calibrator] = {}
    kept = MethodFit[Calibrator](everything, by_language, tuple(codes), unanswerable=0.5)
    if predicted is not None:
        fits: dict[str, Fits] = {}
        lacking: dict[str, str] = {}
        for code, ranking in usable.items():
            if len(set(ranking.fold.tolist())) < 2:  # without its fold there is nothing to sample from
                lacking[code] = "all queries are in one fold"
                continue
            try:
                own, everything = _by_fold(partial(_sampled, ranking, partial(predicted, code)), risk)
            except XtError as error:  # an unknown accuracy
                lacking[code] = error.message
                continue
            fits[code], by_language[code] = own, everything
        label = "for each language, to answers sampled at its predicted temperature; no labels"
        if fits:
            found["predicted"] = {"label": label, **_all(cut, fits, risk, repeats)}
        if lacking:
            notes.append(f"none of these, predicted: the fit of {scope} in its place: {grouped(lacking)}")
    return {"risk": risk, "methods": found, **({"notes": notes} if notes else {})}, kept
