"""Fitting temperatures, with a prior or not: along with the score of "none of these" by Newton's method, or alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq, minimize, minimize_scalar
from scipy.special import expit

from xt.calibration.apply.maps import is_sorted, near
from xt.calibration.apply.retrieval import Floats, RetrievalMargin, RetrievalTemperature
from xt.core.errors import XtError

MIN_QUERIES = 30
"""Fewer queries than this fit no temperature worth having."""
SEARCHED = 100
"""Queries, about, that the start of a fit is looked for on."""
EDGES = 1e-3
"""So near to an end of what is looked for, a fit may have been cut short."""
SCORE_FLOOR = -1e6
"""In place of -inf: no temperature gives it any mass, and it can be multiplied by none."""
STEPS = 100
"""Steps of Newton's method at most; four to ten are usual."""
TOLERANCE = 1e-10
"""Nats a query that a further step may promise at the end of a fit."""
LOG_T = (math.log(1e-4), math.log(10.0))
"""Where temperatures are looked for: cosines differ by 0.001 to 2."""


def checked(scores: npt.NDArray[Any], gold: Any, minimum: int = MIN_QUERIES) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Return the similarities with every row best first, and where the right candidate then is."""
    scores, gold = np.asarray(scores, np.float64), np.asarray(gold, np.int64)
    if len(gold) < minimum:
        raise XtError(f"{len(gold)} queries are too few to fit a temperature.", f"Expected at least {minimum}.")
    if np.isnan(scores).any() or np.isposinf(scores).any() or (scores.shape[1] and np.isneginf(scores.max(1)).any()):
        raise XtError("A similarity is NaN or infinite, so no temperature can be fitted.", "Check the vectors.")
    if not is_sorted(scores):
        order = np.argsort(-scores, axis=1, kind="stable")
        scores = np.take_along_axis(scores, order, 1)
        gold = np.where(gold < 0, -1, (order == gold[:, None]).argmax(1))
    return scores, gold


def search_log_temperature(
    loss: Callable[[float], float], between: tuple[float, float], *, xatol: float = 1e-5
) -> float:
    """Return the log temperature of least loss: of one number alone, where no score of "none of these" is fitted.

    Args:
        loss: of a log temperature.
        between: where it is looked for.
        xatol: how exactly.
    """
    return float(minimize_scalar(loss, bounds=between, method="bounded", options={"xatol": xatol}).x)


def label_loss(scores: npt.NDArray[Any], gold: Any) -> Callable[[float], float]:
    """Return the function from log temperature to the sum of the losses of the gold columns, in nats.

    Guo et al. 2017, arXiv 1706.04599, section 4.2.

    Args:
        scores: (n, k) logits or similarities, -inf where a row has no such column.
        gold: (n,) the right column of each row.

    >>> label_loss(np.array([[0.0, 0.0]]), [1])(0.0) == math.log(2)
    True
    """
    shifted = scores - scores.max(1, keepdims=True)
    right = shifted[np.arange(len(shifted)), gold]

    def loss(log_temperature: float) -> float:
        beta = np.exp(-log_temperature)
        return float((np.log(np.exp(shifted * beta).sum(1)) - right * beta).sum())

    return loss


def losses(probabilities: Floats, gold: Any) -> Floats:
    """Return the negative log-likelihood under probabilities (n, k + 1).

    The last column is "none of these" (gold -1).
    """
    return np.asarray(-np.log(np.maximum(probabilities[np.arange(len(gold)), gold], 1e-300)))


def fit_temperature(scores: npt.NDArray[Any], gold: Any) -> RetrievalTemperature:
    """Fit temperature and the "none of these" score by maximum likelihood.

    Args:
        scores: (n, k) similarities of the top candidates, in any order.
        gold: (n,) position of the right one in 0..k-1, or -1 when it is not among them.
    """
    scores, gold = checked(scores, gold)
    curves = Curves(scores, gold, np.zeros(len(gold)))
    return RetrievalTemperature(*_descend(curves, _search(curves, float(np.median(np.maximum(scores[:, -1], -1.0))))))


def fit_margin(scores: npt.NDArray[Any], gold: Any) -> RetrievalMargin:
    """Fit temperature and the margin of "none of these" by maximum likelihood (arguments as of `fit_temperature`)."""
    scores, gold = checked(scores, gold)
    curves = Curves(scores, gold, near(scores))
    return RetrievalMargin(*_descend(curves, _search(curves, 0.03)))


class Curves:
    """The mean negative log-likelihood by (beta, a): candidate scores beta s, "none of these" beta ground + a.

    Both stand linearly inside the exponents, so that the function is convex and Newton's method finds its one minimum.
    """

    def __init__(self, scores: Floats, gold: npt.NDArray[np.int64], ground: Floats) -> None:
        """Take scores (n, k), gold (n,) and the score (n,) above which "none of these" is measured.

        Rows with fewer candidates than others end in -inf.
        """
        self.scores, self.gold, self.ground = np.maximum(scores, SCORE_FLOOR), gold, ground
        top = self.scores.max(1)
        right = np.where(gold < 0, ground, self.scores[np.arange(len(gold)), np.maximum(gold, 0)])
        # All sums are of distances from the best candidate, so that nothing overflows and little cancels.
        self._behind, self._ground, self._right = self.scores - top[:, None], ground - top, right - top
        self.absent = float((gold < 0).mean())
        self._room = np.empty_like(self.scores)  # one for all calls, as fresh memory costs more than the sums
        self._weighted = np.empty_like(self.scores)
        self._ones, self._mean = np.ones(scores.shape[1]), np.full(len(gold), 1 / len(gold))  # products sum fastest

    def __len__(self) -> int:
        """Queries."""
        return len(self.gold)

    def some(self, limit: int) -> Curves:
        """Return the curves of about so many of the queries, evenly chosen."""
        few = slice(None, None, max(1, len(self) // limit))
        return Curves(self.scores[few], self.gold[few], self.ground[few])

    def __call__(self, beta: float, a: float) -> tuple[float, Floats, Floats]:
        """Return the value, gradient (2,) and Hessian (2, 2)."""
        odds = np.multiply(self._behind, beta, out=self._room)
        np.exp(odds, out=odds)
        total = odds @ self._ones
        log_total = np.log(total)
        lead = beta * self._ground + a - log_total  # log odds of "none of these" against all candidates
        none = expit(lead)
        some = (1 - none) / total
        weighted = np.multiply(odds, self._behind, out=self._weighted)
        mean = some * (weighted @ self._ones) + none * self._ground
        square = some * np.einsum("ij,ij->i", weighted, self._behind) + none * self._ground**2
        each = log_total + np.logaddexp(0.0, lead) - beta * self._right
        across = float(self._mean @ (none * (self._ground - mean)))
        spread = float(self._mean @ (square - mean**2))
        mass = float(self._mean @ none)
        return (
            float(self._mean @ each) - a * self.absent,
            np.array([float(self._mean @ (mean - self._right)), mass - self.absent]),
            np.array([[spread, across], [across, mass - float(none @ (none * self._mean))]]),
        )


def _search(curves: Curves, none: float) -> tuple[float, float]:
    """Return where to start from: the fit of some of the queries, so that a fit of all needs few steps."""
    return _descend(curves.some(SEARCHED), (0.01, none)) if len(curves) > SEARCHED else (0.01, none)


def _step(x: Floats, gradient: Floats, hessian: Floats, absent: float) -> Floats:
    """Return Newton's step, or where the parabola says too little another that leads downhill."""
    mass = float(gradient[1]) + absent  # of "none of these", on average
    outward = gradient[1] * x[1] < 0 and abs(x[1]) >= x[0]
    if outward:  # "none of these" is at its end, and stays there
        along = np.array([1.0, x[1] / x[0]])
        return along * float(gradient @ along) / max(float(along @ hessian @ along), 1e-24)
    if mass < absent / 4:  # where it has next to none the parabola is flat and points anywhere
        return np.array([0.0, math.log(max(mass, 1e-300) / absent)])
    if 1 - mass < (1 - absent) / 4:  # or next to all
        return np.array([0.0, math.log((1 - absent) / max(1 - mass, 1e-300))])
    return np.linalg.solve(hessian + np.diag(1e-12 * np.diag(hessian) + 1e-24), gradient)


def _descend(
    curves: Curves,
    start: tuple[float, float],
    *,
    prior: tuple[float, float] | None = None,
    between: tuple[float, float] = (1e-5, 10.0),
) -> tuple[float, float]:
    """Return the likeliest temperature and "none of these" score (above the ground), by Newton's method.

    Args:
        curves: of the queries.
        start: temperature and score to start from.
        prior: centre and weight of a quadratic penalty on log T; its curvature is taken as 2 weight / T's square.
        between: least and greatest temperature.
    """
    low, high = 1 / between[1], 1 / between[0]

    def at(x: Floats) -> tuple[float, Floats, Floats]:
        value, gradient, hessian = curves(float(x[0]), float(x[1]))
        if prior:
            away = math.log(x[0]) + prior[0]
            value += prior[1] * away**2
            gradient += (2 * prior[1] * away / x[0], 0.0)
            hessian[0, 0] += 2 * prior[1] / x[0] ** 2
        return value, gradient, hessian

    def inside(x: Floats) -> Floats:
        beta = min(max(float(x[0]), low), high)
        return np.array([beta, min(max(float(x[1]), -beta), beta)])  # a score of "none" is a cosine: -1..1

    absent = curves.absent
    beta = 1 / start[0]
    x = inside(np.array([beta, beta * start[1]]))
    value, gradient, hessian = at(x)
    for _ in range(STEPS):
        step = _step(x, gradient, hessian, absent)
        step *= min(1.0, 0.75 * x[0] / step[0] if step[0] > 0 else 3 * x[0] / max(-step[0], 1e-300))
        gain = float(gradient @ step)  # what the slope promises
        if gain < TOLERANCE:
            break
        share = 1.0
        while (after := at(further := inside(x - share * step)))[0] > value - 1e-4 * share * gain and share > 1e-6:
            share /= 4
        moved = value - after[0]
        if moved > 0:
            x, (value, gradient, hessian) = further, after
        if moved < TOLERANCE:  # at an end of where temperatures are looked for
            break
    none = float(x[1] / x[0])
    if abs(none) > 1 - EDGES or not low * (1 + EDGES) < x[0] < high * (1 - EDGES):
        x = _along_the_edge(at, (low, high), x, value)
        none = float(x[1] / x[0])
    return 1 / float(x[0]), none


def _along_the_edge(
    at: Callable[[Floats], tuple[float, Floats, Floats]], between: tuple[float, float], x: Floats, value: float
) -> Floats:
    """Return the least of a function that is lowest at an end of the search, where Newton's steps are cut short.

    By bounded L-BFGS in log beta and the score of "none of these", from there and from three other places.
    """

    def loss(y: Floats) -> tuple[float, Floats]:
        beta = math.exp(y[0])
        value, slope, _ = at(np.array([beta, beta * y[1]]))
        return value, beta * np.array([slope[0] + y[1] * slope[1], slope[1]])

    bounds = [(math.log(between[0]), math.log(between[1])), (-1.0, 1.0)]
    middle = float(np.clip(x[1] / x[0], -0.9, 0.9))
    starts = [(math.log(x[0]), x[1] / x[0])]
    starts += [(float(np.clip(math.log(b), *bounds[0])), middle) for b in (2.0, 20.0, 200.0)]
    found = [minimize(loss, np.array(s), jac=True, method="L-BFGS-B", bounds=bounds) for s in starts]
    best = min(found, key=lambda one: float(one.fun))
    if not float(best.fun) < value:
        return x
    beta = math.exp(best.x[0])
    return np.array([beta, beta * best.x[1]])


def information(calibrator: RetrievalTemperature, scores: npt.NDArray[Any]) -> float:
    """Return the Fisher information of the queries about log T: how firmly they hold it.

    Its inverse is a sampling variance.
    """
    p = calibrator(scores)
    values = np.concatenate([np.asarray(scores, np.float64), np.full((len(scores), 1), calibrator.none_score)], axis=1)
    values = np.where(np.isfinite(values), values, 0.0) / calibrator.temperature
    mean = (p * values).sum(1, keepdims=True)
    return float((p * (values - mean) ** 2).sum())


def fit_shrunk(scores: npt.NDArray[Any], gold: Any, prior: RetrievalTemperature, spread: float) -> RetrievalTemperature:
    """Fit a temperature shrunk towards a prior: the mode under log T ~ Normal(log of the prior's, spread squared).

    The "none of these" score is free: queries whose answer is not among the candidates would else be explained by the
    temperature. With few queries the prior decides, with many the queries; `spread` of infinity is maximum likelihood.
    Any number of queries will do; without one it is the prior.
    """
    scores, gold = checked(scores, gold, 0)
    if not len(gold):
        return prior
    centre = math.log(prior.temperature)
    weight = 0.0 if math.isinf(spread) else 0.5 / max(spread, 1e-3) ** 2 / len(gold)
    between = (max(LOG_T[0], centre - 2.5), min(LOG_T[1], centre + 2.5))
    none = float(np.clip(prior.none_score, -1.0, 1.0))
    curves = Curves(scores, gold, np.zeros(len(gold)))
    ends = (math.exp(between[0]), math.exp(between[1]))
    return RetrievalTemperature(*_descend(curves, (prior.temperature, none), prior=(centre, weight), between=ends))


def match_confidence(scores: npt.NDArray[Any], accuracy: float, none_score: float) -> RetrievalTemperature:
    """Return the temperature at which the mean confidence in the best candidate is `accuracy`; needs no labels.

    Confidence falls as the temperature rises, so there is one; at the ends of `LOG_T` the nearest is taken.
    """
    scores, _ = checked(scores, np.zeros(len(scores)), 1)

    behind = np.concatenate([scores[:, 1:], np.full((len(scores), 1), none_score)], axis=1) - scores[:, :1]
    buffer, ones = np.empty_like(behind), np.ones(behind.shape[1])

    def over(log_t: float, step: int = 1) -> float:
        odds = buffer[::step]
        np.minimum(np.multiply(behind[::step], math.exp(-log_t), out=odds), 700, out=odds)
        return float((1 / (1 + np.exp(odds, out=odds) @ ones)).mean()) - accuracy

    def search(low: float, high: float, step: int) -> float:
        """Return the root between two places, of every `step`-th query; the nearer end where there is none."""
        if over(low, step) <= 0:
            return low
        if over(high, step) >= 0:
            return high
        return float(brentq(over, low, high, args=(step,), xtol=1e-3))

    step = max(1, len(scores) // 100)
    about = search(*LOG_T, step)
    low, high = max(LOG_T[0], about - 0.15), min(LOG_T[1], about + 0.15)
    while over(low) < 0 and low > LOG_T[0]:
        low = max(LOG_T[0], low - 0.5)
    while over(high) > 0 and high < LOG_T[1]:
        high = min(LOG_T[1], high + 0.5)
    return RetrievalTemperature(math.exp(search(low, high, 1)), none_score)
