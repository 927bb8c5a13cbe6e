"""Fitting what turns similarities into probabilities: temperatures, drawn to a prior or not; maps of confidences."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq, minimize

from xt.core.calibrators import Floats, RetrievalMargin, RetrievalTemperature
from xt.core.confidence_maps import EDGE, Beta, ConfidenceMap, Histogram, Isotonic, Platt, margin_features, near
from xt.core.errors import XtError, unknown
from xt.eval.measures import BINS, equal_mass

MIN_QUERIES = 30
"""Fewer queries than this fit no temperature worth having."""
SEARCHED = 300
"""Queries, about, that the start of a fit is looked for on."""
LOG_T = (math.log(1e-4), math.log(10.0))
"""Where temperatures are looked for: cosines differ by 0.001 to 2."""


def _checked(scores: npt.NDArray[Any], gold: Any, least: int = MIN_QUERIES) -> tuple[Floats, npt.NDArray[np.int64]]:
    scores, gold = np.asarray(scores, np.float64), np.asarray(gold, np.int64)
    if len(gold) < least:
        raise XtError(f"{len(gold)} queries are too few to fit a temperature.", f"Expected at least {least}.")
    if not np.isfinite(scores).all():
        raise XtError("A similarity is NaN or infinite, so no temperature can be fitted.", "Check the vectors.")
    return scores, gold


def nll(calibrator: Any, scores: npt.NDArray[Any], gold: Any) -> Floats:
    """Negative log-likelihood of the gold candidate, or of "none of these" where gold is -1: (n,), in nats."""
    probabilities = calibrator(scores)  # (n, k + 1); column -1 is "none of these", as gold -1 is
    return np.asarray(-np.log(np.maximum(probabilities[np.arange(len(gold)), gold], 1e-300)))


def fit_temperature(scores: npt.NDArray[Any], gold: Any) -> RetrievalTemperature:
    """Fit temperature and the "none of these" score by maximum likelihood.

    Args:
        scores: (n, k) similarities of the top candidates, best first.
        gold: (n,) position of the right one in 0..k-1, or -1 when it is not among them.
    """
    scores, gold = _checked(scores, gold)
    log_t, none = _fit_two(scores, gold, np.zeros(len(gold)), float(np.quantile(scores[:, -1], 0.5)))
    return RetrievalTemperature(math.exp(log_t), none)


def fit_margin(scores: npt.NDArray[Any], gold: Any) -> RetrievalMargin:
    """Fit temperature and the margin of "none of these" by maximum likelihood (arguments as of `fit_temperature`)."""
    scores, gold = _checked(scores, gold)
    log_t, margin = _fit_two(scores, gold, near(scores), 0.03)
    return RetrievalMargin(math.exp(log_t), margin)


def _fit_two(scores: Floats, gold: npt.NDArray[np.int64], ground: Floats, start: float) -> tuple[float, float]:
    """Give log T and the "none of these" score above `ground` (n,) that are likeliest, looked for from `start`."""
    bounds = [(np.log(0.1), np.log(1e5)), (-1.0, 1.0)]
    few = slice(None, None, max(1, len(gold) // SEARCHED))  # where to start from is found on some of the queries
    search, loss = _loss(scores[few], gold[few], ground[few]), _loss(scores, gold, ground)
    found = [
        minimize(search, np.array([np.log(beta), start]), jac=True, method="L-BFGS-B", bounds=bounds)
        for beta in (20.0, 100.0, 200.0)
    ]
    best = min(found, key=lambda one: float(one.fun))
    if len(gold) > len(gold[few]):
        best = minimize(loss, best.x, jac=True, method="L-BFGS-B", bounds=bounds)
    return -float(best.x[0]), float(best.x[1])


def _loss(scores: Floats, gold: npt.NDArray[np.int64], ground: Floats) -> Callable[[Floats], tuple[float, Floats]]:
    """Give the mean negative log-likelihood and its gradient by log 1/T and the score of "none" above `ground`."""
    rows = np.arange(len(gold))
    absent = gold < 0
    top_score = scores.max(1)
    room = np.empty_like(scores)
    right = np.where(absent, 0.0, scores[rows, np.maximum(gold, 0)])

    def loss(x: Floats) -> tuple[float, Floats]:
        beta, none = float(np.exp(x[0])), ground + float(x[1])
        top = np.maximum(top_score, none)
        odds = np.subtract(
            scores, top[:, None], out=room
        )  # (n, k); in one room, as fresh memory costs more than the sums
        odds *= beta
        np.exp(odds, out=odds)
        none_odds = np.exp(beta * (none - top))
        total = odds.sum(1) + none_odds
        expected = (np.einsum("ij,ij->i", odds, scores) + none_odds * none) / total
        gold_score = np.where(absent, none, right)
        value = (np.log(total) + beta * (top - gold_score)).mean()
        by_beta = (expected - gold_score).mean()
        by_none = beta * (none_odds / total - absent).mean()
        return float(value), np.array([by_beta * beta, by_none])

    return loss


def information(calibrator: RetrievalTemperature, scores: npt.NDArray[Any]) -> float:
    """Fisher information of the queries about log T: how firmly they hold it; its inverse is a sampling variance."""
    p = calibrator(scores)
    values = np.concatenate([np.asarray(scores, np.float64), np.full((len(scores), 1), calibrator.none_score)], axis=1)
    values = np.where(np.isfinite(values), values, 0.0) / calibrator.temperature
    mean = (p * values).sum(1, keepdims=True)
    return float((p * (values - mean) ** 2).sum())


def fit_drawn(scores: npt.NDArray[Any], gold: Any, prior: RetrievalTemperature, spread: float) -> RetrievalTemperature:
    """Fit a temperature drawn to a prior: maximum a posteriori, log T ~ Normal(log of the prior's, spread squared).

    The "none of these" score is free: queries whose answer is not among the candidates would else be explained by the
    temperature. With few queries the prior speaks, with many the queries; `spread` of infinity is maximum likelihood.
    Any number of queries will do; without one it is the prior.
    """
    scores, gold = _checked(scores, gold, 0)
    if not len(gold):
        return prior
    centre = math.log(prior.temperature)
    weight = 0.0 if math.isinf(spread) else 0.5 / max(spread, 1e-3) ** 2 / len(gold)
    mean = _loss(scores, gold, np.zeros(len(gold)))

    def loss(x: Floats) -> tuple[float, Floats]:
        value, slope = mean(x)
        away = -x[0] - centre
        return value + weight * away**2, slope - np.array([2 * weight * away, 0.0])

    bounds = [(-min(LOG_T[1], centre + 2.5), -max(LOG_T[0], centre - 2.5)), (-1.0, 1.0)]
    none = float(np.clip(prior.none_score, -1.0, 1.0))
    found = minimize(loss, np.array([-centre, none]), jac=True, method="L-BFGS-B", bounds=bounds)
    return RetrievalTemperature(math.exp(-float(found.x[0])), float(found.x[1]))


def match_confidence(scores: npt.NDArray[Any], accuracy: float, none_score: float) -> RetrievalTemperature:
    """Give the temperature at which the mean confidence in the best candidate is `accuracy`; needs no labels.

    Confidence falls as the temperature rises, so there is one; at the ends of `LOG_T` the nearest is taken.
    """
    scores, _ = _checked(scores, np.zeros(len(scores)), 1)

    behind = np.concatenate([scores[:, 1:], np.full((len(scores), 1), none_score)], axis=1) - scores[:, :1]
    room = np.empty_like(behind)

    def over(log_t: float) -> float:
        np.minimum(np.multiply(behind, math.exp(-log_t), out=room), 700, out=room)
        return float((1 / (1 + np.exp(room, out=room).sum(1))).mean()) - accuracy

    low, high = LOG_T
    if over(low) <= 0:
        return RetrievalTemperature(math.exp(low), none_score)
    if over(high) >= 0:
        return RetrievalTemperature(math.exp(high), none_score)
    return RetrievalTemperature(math.exp(float(brentq(over, low, high, xtol=1e-3))), none_score)


MAPS = ("platt", "isotonic", "histogram", "beta")


def fit_map(kind: str, base: RetrievalTemperature, scores: npt.NDArray[Any], gold: Any) -> ConfidenceMap:
    """Fit a map of the base's confidence in the best candidate to the chance that it is right.

    Args:
        kind: one of `MAPS`.
        base: the temperature under the map.
        scores: (n, k) similarities, best first.
        gold: (n,) position of the right candidate, -1 when it is not among them.

    Raises XtError with fewer than `MIN_QUERIES` queries, and where all of them are right or all wrong.
    """
    if kind not in MAPS:
        raise unknown("map", kind, MAPS)
    scores, gold = _checked(scores, gold)
    right = (gold == 0).astype(np.float64)
    if right.min() == right.max():
        raise XtError(
            f"All {len(right)} queries are {'right' if right[0] else 'wrong'}: {kind} cannot be fitted to one class.",
            "Give queries of both kinds, or use a temperature.",
        )
    confidence = base(scores)[:, 0]
    fits: dict[str, Callable[[Floats, Floats, Floats], ConfidenceMap]] = {
        "platt": _platt, "isotonic": _isotonic, "histogram": _histogram, "beta": _beta,
    }  # fmt: skip
    return fits[kind](confidence, scores, right)


def _platt(confidence: Floats, scores: Floats, right: Floats) -> Platt:
    from sklearn.linear_model import LogisticRegression

    features = margin_features(confidence, scores)
    mean, scale = features.mean(0), np.maximum(features.std(0), 1e-9)
    model = LogisticRegression(C=10.0, max_iter=1000).fit((features - mean) / scale, right)
    weights = tuple(float(w) for w in model.coef_[0])
    return Platt(float(model.intercept_[0]), weights, tuple(map(float, mean)), tuple(map(float, scale)))


def _isotonic(confidence: Floats, scores: Floats, right: Floats) -> Isotonic:
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(confidence, right)
    return Isotonic(tuple(map(float, model.X_thresholds_)), tuple(map(float, model.y_thresholds_)))


def _histogram(confidence: Floats, scores: Floats, right: Floats) -> Histogram:
    """Bins of equal mass; an edge lies between the neighbours of two bins, and bins that it cannot part are one."""
    order = np.argsort(confidence, kind="stable")
    starts = equal_mass(len(order), BINS)[1:]
    ranked = confidence[order]
    edges = np.unique((ranked[starts - 1] + ranked[starts]) / 2)
    bins = np.searchsorted(edges, confidence, side="left")
    counts = np.bincount(bins, minlength=len(edges) + 1)
    shares = np.bincount(bins, weights=right, minlength=len(edges) + 1) / np.maximum(counts, 1)
    filled = np.flatnonzero(counts)
    nearest = filled[np.abs(np.arange(len(counts))[:, None] - filled[None, :]).argmin(1)]
    return Histogram(tuple(map(float, edges)), tuple(map(float, shares[nearest])))


def _beta(confidence: Floats, scores: Floats, right: Floats) -> Beta:
    """By maximum likelihood with a, b >= 0, so that the map rises."""
    c = np.clip(confidence, EDGE, 1 - EDGE)
    log_c, log_rest = np.log(c), -np.log1p(-c)

    def loss(x: Floats) -> tuple[float, Floats]:
        z = x[0] * log_c + x[1] * log_rest + x[2]
        p = 1 / (1 + np.exp(-np.clip(z, -40, 40)))
        value = np.logaddexp(0, -z) * right + np.logaddexp(0, z) * (1 - right)
        gap = (p - right) / len(right)
        return float(value.mean()), np.array([gap @ log_c, gap @ log_rest, gap.sum()])

    bounds = [(0.0, 50.0), (0.0, 50.0), (-50.0, 50.0)]
    found = minimize(loss, np.array([1.0, 1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=bounds)
    return Beta(*(float(v) for v in found.x))
