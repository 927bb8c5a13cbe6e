"""Conformal sets of candidates: at least so often the right one is among them, whatever the model (Vovk et al. 2005).

Split conformal prediction (Angelopoulos & Bates 2021, arXiv 2107.07511, section 1). The nonconformity of a candidate
is one minus its probability (LAC; Sadinle et al. 2019, arXiv 1609.00451); a set holds the candidates whose
nonconformity is at most a quantile of that of the right candidates of other queries. The promise holds where those
queries are exchangeable with the one asked: of the same language (Mondrian, per language), not from the languages of
the zero-shot scope; the coverage found is therefore always shown beside the one promised.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from xt.calibration.accuracy import PredictedTemperature, sample_answers
from xt.calibration.apply.retrieval import Floats, RetrievalTemperature
from xt.calibration.measuring import measures, resampling
from xt.calibration.predictions import FOLDS, Predictions
from xt.calibration.search import apply_rows, fit_excluding
from xt.core.errors import XtError

ALPHA = 0.1
"""Share of the queries whose set may lack the right candidate."""
DRAWS = 4
"""Answers drawn for each query where a threshold is predicted."""


def threshold(nonconformity: Floats, alpha: float) -> float:
    """Return the quantile that sets are cut at: the ceil((n + 1)(1 - alpha))-th smallest; inf for too small an n.

    >>> threshold(np.array([0.1, 0.2, 0.3, 0.4]), 0.2), threshold(np.array([0.1, 0.2, 0.3]), 0.2)
    (0.4, inf)
    """
    if not 0 < alpha < 1:
        raise XtError(f"alpha is {alpha}, expected a share between 0 and 1.")
    values = np.sort(np.asarray(nonconformity, np.float64))
    if np.isnan(values).any():
        raise XtError("A nonconformity is NaN.")
    rank = math.ceil((len(values) + 1) * (1 - alpha) - 1e-12)
    return float(values[rank - 1]) if rank <= len(values) else math.inf


def sets(probabilities: Floats, gold: Any, limit: float) -> tuple[Any, Any]:
    """Cut sets out of candidates: which hold the right one (n,), and how many candidates each has (n,).

    Args:
        probabilities: (n, k) of the best candidates.
        gold: (n,) position of the right one, -1 when it is not among them: then no set holds it.
        limit: the nonconformity up to which a candidate belongs to the set.
    """
    inside = 1 - probabilities <= limit
    rows = np.arange(len(gold))
    return np.where(gold >= 0, inside[rows, gold], False), inside.sum(1)


def _nonconformity(gold: Any, probabilities: Floats) -> Floats:
    right = probabilities[np.arange(len(gold)), gold]
    return np.asarray(np.where(gold >= 0, 1 - right, 1.0))


Limits = dict[int, tuple[RetrievalTemperature, float]]
"""Fold -> the temperature that scores it, and the nonconformity up to which a candidate belongs to the set."""


def measure(
    rankings: Mapping[str, Predictions],
    sources: Sequence[str],
    alpha: float = ALPHA,
    *,
    predicted: Callable[[str, int | None], PredictedTemperature] | None = None,
) -> dict[str, Any]:
    """Find coverage and size of the sets in every language: thresholds of the sources, predicted, and of its own.

    Temperature and threshold of a fold come from the other folds, half of the queries each, so that neither has seen
    the query. A predicted threshold is that of answers sampled from the language's predicted temperature
    (`sample_answers`), at both ends of its uncertainty too: it needs no label of it, and promises no more than that is
    calibrated. Gives the section
    `conformal` of one direction: scope -> languages -> coverage with its Wilson interval, mean and median
    size; a language with too few queries for a threshold has sets of all candidates, and says so; one that no
    temperature can be fitted to is named in `notes`.
    """
    scopes: dict[str, Any] = {}
    notes: list[str] = []
    shared: Limits = {}  # of the sources: the same for all languages
    for scope in ("zero-shot", "predicted", "per-language"):
        if (scope == "zero-shot" and not sources) or (scope == "predicted" and predicted is None):
            continue
        rows: dict[str, Any] = {}
        lacking: dict[str, list[str]] = {}
        for code, ranking in rankings.items():
            try:
                if scope == "predicted" and predicted is not None:
                    limits = {f: _sampled(ranking, predicted(code, f), f, alpha) for f in range(FOLDS)}
                elif scope == "per-language":
                    limits = _learnt([ranking], alpha)
                else:
                    limits = shared = shared or _learnt([rankings[c] for c in sources], alpha)
                rows[code] = _one(ranking, limits)
            except XtError as error:  # too few queries to fit a temperature, or an unknown accuracy
                lacking.setdefault(error.message, []).append(code)
        notes += [f"sets, {scope}: {', '.join(codes)}: {why}" for why, codes in lacking.items()]
        if rows:
            mean = {key: float(np.mean([r[key] for r in rows.values()])) for key in ("coverage", "mean_size")}
            scopes[scope] = {"languages": rows, "overall": {**mean, "languages": len(rows)}}
    return {"alpha": alpha, "scopes": scopes, **({"notes": notes} if notes else {})}


def _learnt(fitted_on: Sequence[Predictions], alpha: float) -> Limits:
    """Return the temperature and threshold of some languages, by their labels."""
    out: Limits = {}
    for fold in range(FOLDS):
        # The temperature of the other folds of even number, the threshold of those of odd number, by turns.
        others = [f for f in range(FOLDS) if f != fold]
        fitted = fit_excluding(fitted_on, [fold, *others[1::2]])
        scores = []
        for source in fitted_on:
            rows = np.flatnonzero(np.isin(source.fold, others[1::2]))
            assert source.gold is not None
            chances = apply_rows(fitted, source, rows)
            scores.append(_nonconformity(source.gold[rows], chances))
        out[fold] = fitted, threshold(np.concatenate(scores), alpha)
    return out


def _sampled(
    ranking: Predictions, predicted: PredictedTemperature, fold: int, alpha: float
) -> tuple[RetrievalTemperature, float]:
    """Return the predicted temperature, and the threshold of answers sampled by it for queries outside of a fold."""
    scores = ranking.scores[ranking.fold != fold]
    rng = resampling.generator(0, scores)
    chances = predicted.calibrator(scores)[:, :-1]
    found = [_nonconformity(gold, chances) for gold in sample_answers(predicted, scores, rng, DRAWS)]
    return predicted.calibrator, threshold(np.concatenate(found), alpha)


def _one(ranking: Predictions, limits: Limits) -> dict[str, Any]:
    """Measure one language."""
    assert ranking.gold is not None
    held = np.zeros(len(ranking), bool)
    sizes = np.zeros(len(ranking), int)
    unbounded = 0
    for fold, (calibrator, limit) in limits.items():
        rows = np.flatnonzero(ranking.fold == fold)
        unbounded += len(rows) if math.isinf(limit) else 0
        if len(rows):
            held[rows], sizes[rows] = sets(apply_rows(calibrator, ranking, rows), ranking.gold[rows], limit)
    n = len(held)
    found: dict[str, Any] = {"n": n, "coverage": float(held.mean()), "coverage_ci": measures.wilson(int(held.sum()), n)}
    found |= {"mean_size": float(sizes.mean()), "median_size": float(np.median(sizes))}
    return found | ({"unbounded": unbounded} if unbounded else {})
