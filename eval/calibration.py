"""Fitting retrieval temperatures, and scoring them on queries that no fit has seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from xt.core import languages
from xt.core.calibrators import Floats, RetrievalTemperature
from xt.core.errors import XtError
from xt.eval import measures
from xt.eval.retrieval import FOLDS, Ranking

SOURCES = ("deu", "fra", "spa", "rus", "cmn")
"""High-resource languages that the zero-shot temperature is fitted on."""
MIN_QUERIES = 30
"""Fewer queries than this fit no temperature worth having."""


def nll(calibrator: RetrievalTemperature, scores: npt.NDArray[Any], gold: Any) -> Floats:
    """Negative log-likelihood of the gold candidate, or of "none of these" where gold is -1: (n,), in nats."""
    probabilities = calibrator(scores)  # (n, k + 1); column -1 is "none of these", as gold -1 is
    return np.asarray(-np.log(np.maximum(probabilities[np.arange(len(gold)), gold], 1e-300)))


def fit_temperature(scores: Floats, gold: Any) -> RetrievalTemperature:
    """Fit temperature and the "none of these" score by maximum likelihood.

    Args:
        scores: (n, k) similarities of the top candidates, best first.
        gold: (n,) position of the right one in 0..k-1, or -1 when it is not among them.
    """
    scores, gold = np.asarray(scores, np.float64), np.asarray(gold, np.int64)
    if len(gold) < MIN_QUERIES:
        raise XtError(f"{len(gold)} queries are too few to fit a temperature.", f"Expected at least {MIN_QUERIES}.")
    rows = np.arange(len(gold))
    absent = gold < 0

    def loss(x: Floats) -> tuple[float, Floats]:
        beta, none = float(np.exp(x[0])), float(x[1])
        values = np.concatenate([scores, np.full((len(scores), 1), none)], axis=1)
        logits = beta * values
        top = logits.max(1, keepdims=True)
        odds = np.exp(logits - top)
        total = odds.sum(1, keepdims=True)
        p = odds / total
        value = (np.log(total[:, 0]) + top[:, 0] - logits[rows, gold]).mean()
        by_beta = ((p * values).sum(1) - values[rows, gold]).mean()
        by_none = beta * (p[:, -1] - absent).mean()
        return float(value), np.array([by_beta * beta, by_none])

    best = None
    for start in (20.0, 100.0, 200.0):
        x0 = np.array([np.log(start), float(np.quantile(scores[:, -1], 0.5))])
        bounds = [(np.log(0.1), np.log(1e5)), (-1.0, 1.0)]
        found = minimize(loss, x0, jac=True, method="L-BFGS-B", bounds=bounds)
        if best is None or found.fun < best.fun:
            best = found
    assert best is not None
    return RetrievalTemperature(float(np.exp(-best.x[0])), float(best.x[1]))


def stack(rankings: Sequence[Ranking], keep: Sequence[Any] | None = None) -> tuple[Floats, Any]:
    """Put the rankings of several languages together, cut to their common number of candidates."""
    k = min(r.scores.shape[1] for r in rankings)
    masks = keep if keep is not None else [np.ones(len(r.gold), bool) for r in rankings]
    scores = np.concatenate([r.scores[m, :k] for r, m in zip(rankings, masks, strict=True)])
    gold = np.concatenate([np.where(r.gold[m] < k, r.gold[m], -1) for r, m in zip(rankings, masks, strict=True)])
    return scores.astype(np.float64), gold


def fit_excluding(rankings: Sequence[Ranking], fold: int | None) -> RetrievalTemperature:
    """Fit on all queries of some languages but those of one fold (None: on all)."""
    keep = None if fold is None else [r.folds != fold for r in rankings]
    return fit_temperature(*stack(rankings, keep))


@dataclass(frozen=True)
class Scored:
    """What one calibration method says of one language's queries, none of which it was fitted on."""

    confidence: Floats
    """(n,) probability of the answer given."""
    none: Floats
    """(n,) probability that the answer is not among the candidates."""
    nll: Floats
    correct: Floats
    temperature: float


def apply(ranking: Ranking, by_fold: Mapping[int, RetrievalTemperature]) -> Scored:
    """Score each query with the calibrator of its own fold, which was fitted without that fold."""
    n = len(ranking.gold)
    confidence, none, loss = np.empty(n), np.empty(n), np.empty(n)
    for fold, calibrator in by_fold.items():
        rows = np.flatnonzero(ranking.folds == fold)
        if len(rows):
            probabilities = calibrator(ranking.scores[rows])
            confidence[rows], none[rows] = probabilities[:, 0], probabilities[:, -1]
            loss[rows] = nll(calibrator, ranking.scores[rows], ranking.gold[rows])
    mean_temperature = float(np.exp(np.mean([np.log(c.temperature) for c in by_fold.values()])))
    return Scored(confidence, none, loss, (ranking.gold == 0).astype(np.float64), mean_temperature)


@dataclass(frozen=True)
class Method:
    """One way to calibrate, applied to every language."""

    key: str
    label: str
    temperature: float | None
    scored: dict[str, Scored]


def calibrate(
    rankings: Mapping[str, Ranking], training_temperature: float | None
) -> tuple[list[Method], dict[str, Any]]:
    """Apply every method to every language; give the methods and what is kept for serving.

    `cosine` (T = 1) and, where known, `training` (the temperature of the encoder's own training) need no fit.
    `zero-shot` is fitted on `SOURCES`, `pooled` on all languages, `per-language` on the language itself; all three
    are cross-fitted by the English sentence, so that no calibrator scores a query, or a translation of it, that it saw.
    """
    fixed = {"cosine": (RetrievalTemperature(1.0), "softmax of the cosine, T = 1")}
    if training_temperature:
        label = f"T = {training_temperature:g}, as the encoder was trained"
        fixed["training"] = (RetrievalTemperature(training_temperature), label)
    methods = [
        Method(
            key, label, c.temperature, {lang: apply(r, dict.fromkeys(range(FOLDS), c)) for lang, r in rankings.items()}
        )
        for key, (c, label) in fixed.items()
    ]
    kept: dict[str, Any] = {}

    def cross_fitted(key: str, label: str, sources: Sequence[str]) -> None:
        some = [rankings[s] for s in sources]
        by_fold = {fold: fit_excluding(some, fold) for fold in range(FOLDS)}
        final = fit_excluding(some, None)
        kept[key] = {**final.to_json(), "fitted_on": list(sources)}
        scored = {lang: apply(r, by_fold) for lang, r in rankings.items()}
        methods.append(Method(key, label, final.temperature, scored))

    sources = [c for c in rankings if _is_source(c)]
    if _enough([rankings[s] for s in sources]):
        cross_fitted("zero-shot", f"one temperature fitted on {', '.join(sources)}", sources)
    if _enough(list(rankings.values())):
        cross_fitted("pooled", "one temperature fitted on all languages", list(rankings))
    scored, own = {}, {}
    for lang, ranking in rankings.items():
        if _enough([ranking]):
            scored[lang] = apply(ranking, {f: fit_excluding([ranking], f) for f in range(FOLDS)})
            own[lang] = fit_excluding([ranking], None).to_json()
    if len(scored) == len(rankings):
        methods.append(Method("per-language", "a temperature for each language", None, scored))
        kept["per-language"] = own
    return methods, kept


def _enough(rankings: Sequence[Ranking]) -> bool:
    """Whether there are queries to cross-fit on: twice the least number, and the least without any one fold."""
    sizes = sum((np.bincount(r.folds, minlength=FOLDS) for r in rankings), np.zeros(FOLDS, np.int64))
    return bool(sizes.sum() >= 2 * MIN_QUERIES and sizes.sum() - sizes.max() >= MIN_QUERIES)


def _is_source(code: str) -> bool:
    try:
        return languages.resolve(code).iso3 in SOURCES
    except XtError:  # a code outside the table
        return False


def summary(methods: Sequence[Method], resources: Mapping[str, str]) -> dict[str, Any]:
    """Measure every method: per language, by resource class and overall (means over languages), and its reliability.

    The interval of a mean over languages comes from resampling the queries inside each language.
    """
    out: dict[str, Any] = {}
    for method in methods:
        rows: dict[str, dict[str, Any]] = {}
        boots: dict[str, Floats] = {}
        for lang, s in method.scored.items():
            boots[lang] = measures.ece_bootstrap(s.confidence, s.correct)
            rows[lang] = {
                "n": len(s.correct),
                "accuracy": float(s.correct.mean()),
                "mean_confidence": float(s.confidence.mean()),
                "ece": measures.ece(s.confidence, s.correct),
                "ece_equal_width": measures.ece_equal_width(s.confidence, s.correct),
                "ece_null": measures.ece_null(s.confidence),
                "nll": float(s.nll.mean()),
                "brier": measures.brier(s.confidence, s.correct),
                "auroc": measures.auroc(s.confidence, s.correct),
                "temperature": s.temperature,
            }
            rows[lang]["ece_ci"] = _interval(measures.ece(s.confidence, s.correct), boots[lang])
        classes = sorted(set(resources.values()))
        out[method.key] = {
            "label": method.label,
            "temperature": method.temperature,
            "overall": _mean(rows, boots, list(rows)),
            "by_resource": {
                c: _mean(rows, boots, members) for c in classes if (members := [x for x in rows if resources[x] == c])
            },
            "languages": rows,
            "reliability": measures.reliability(
                np.concatenate([s.confidence for s in method.scored.values()]),
                np.concatenate([s.correct for s in method.scored.values()]),
            ),
        }
    return out


def _mean(rows: Mapping[str, dict[str, Any]], boots: Mapping[str, Floats], members: Sequence[str]) -> dict[str, Any]:
    """Mean over languages; the interval from the bootstrap of that mean."""
    keys = ("accuracy", "mean_confidence", "ece", "ece_equal_width", "ece_null", "nll", "brier", "auroc")
    mean: dict[str, Any] = {"n": sum(rows[m]["n"] for m in members), "languages": len(members)}
    for key in keys:
        values = [rows[m][key] for m in members if rows[m][key] is not None]
        mean[key] = float(np.mean(values)) if values else None
    drawn = np.mean([boots[m] for m in members], axis=0)
    mean["ece_ci"] = _interval(mean["ece"], drawn)
    return mean


def _interval(value: float, drawn: Floats) -> list[float]:
    """95 % interval from resamples, centred on the value: resampling itself raises the ECE, and that is taken off."""
    low, high = np.quantile(drawn - drawn.mean(), [0.025, 0.975])
    return [max(0.0, float(value + low)), min(1.0, float(value + high))]
