"""Fitting maps of confidences: isotonic regression, histograms, beta and Platt calibration, each in one place.

`confidence` (n,) in [0, 1] is the probability of the answer given, `right` (n,) of 0/1 says whether it was right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression, minimize

from xt.calibration.apply.maps import EDGE, Beta, ConfidenceMap, Histogram, Isotonic, Platt, margin_features
from xt.calibration.apply.retrieval import Floats, RetrievalMargin, RetrievalTemperature
from xt.calibration.fit.logistic import fit_logistic, fit_standardised
from xt.calibration.fit.temperature import checked
from xt.calibration.measuring.measures import BINS, equal_mass
from xt.calibration.methods import MAP, PARALLEL, names
from xt.core.errors import XtError, unknown

MAPS = names(PARALLEL, MAP)
FAR = 50.0
"""Bound on the parameters of a beta map that nothing pulls to "change nothing"."""


def fit_map(
    kind: str, base: RetrievalTemperature | RetrievalMargin, scores: npt.NDArray[Any], gold: Any
) -> ConfidenceMap:
    """Fit a map of the base's confidence in the best candidate to the chance that it is right.

    Args:
        kind: one of `MAPS`.
        base: the temperature or margin under the map.
        scores: (n, k) similarities, in any order.
        gold: (n,) position of the right candidate, -1 when it is not among them.

    Raises XtError with fewer than `MIN_QUERIES` queries, and where all of them are right or all wrong.
    """
    if kind not in MAPS:
        raise unknown("map", kind, MAPS)
    scores, gold = checked(scores, gold)
    right = (gold == 0).astype(np.float64)
    if right.min() == right.max():
        raise XtError(
            f"All {len(right)} queries are {'right' if right[0] else 'wrong'}: {kind} cannot be fitted to one class.",
            "Give queries of both kinds, or use a temperature.",
        )
    confidence = base(scores)[:, 0]
    fits: dict[str, Callable[[], ConfidenceMap]] = {
        "platt": lambda: fit_platt(margin_features(confidence, scores), right),
        "isotonic": lambda: fit_isotonic(confidence, right),
        "histogram": lambda: fit_histogram(confidence, right, mass_edges(confidence, BINS)),
        "beta": lambda: fit_beta(confidence, right),
    }
    return fits[kind]()


def fit_platt(features: Floats, right: Floats) -> Platt:
    """Fit a logistic function of margin features (n, 4)."""
    weights, bias, mean, scale = fit_standardised(features, right)
    return Platt(bias, tuple(map(float, weights)), tuple(map(float, mean)), tuple(map(float, scale)))


def fit_isotonic(confidence: Floats, right: Floats, *, floor: float = 0.0) -> Isotonic:
    """Fit a rising map: shares of blocks of neighbours, pooled until they rise; only a block's ends are kept as points.

    What it returns is kept `floor` away from 0 and 1.
    """
    x, where, count = np.unique(confidence, return_inverse=True, return_counts=True)  # equal confidences share a value
    y = isotonic_regression(np.bincount(where, weights=right) / count, weights=count).x
    inner = np.zeros(len(y), bool)
    inner[1:-1] = (y[1:-1] == y[:-2]) & (y[1:-1] == y[2:])
    y = np.clip(y[~inner], floor, 1 - floor)
    return Isotonic(tuple(map(float, x[~inner])), tuple(map(float, y)))


def mass_edges(confidence: Floats, bins: int) -> Floats:
    """Return the inner edges of bins of equal mass, each midway between the neighbours of two bins."""
    ranked = np.sort(confidence)
    starts = equal_mass(len(ranked), bins)[1:]
    return np.asarray(np.unique((ranked[starts - 1] + ranked[starts]) / 2))


def quantile_edges(confidence: Floats, bins: int) -> Floats:
    """Return the inner edges of bins of equal mass at quantiles, without those that leave an end bin empty."""
    edges = np.unique(np.quantile(confidence, np.linspace(0, 1, bins + 1)[1:-1]))
    return np.asarray(edges[(edges >= confidence.min()) & (edges < confidence.max())])


def fit_histogram(confidence: Floats, right: Floats, edges: Floats, *, pseudo: float = 0.0) -> Histogram:
    """Fit the share of right answers in each bin, (right + pseudo) / (items + 2 pseudo); 1 is Laplace's rule.

    Equal confidences are never parted. Without pseudo-counts an empty bin has the share of the nearest filled one.
    """
    bins = np.searchsorted(edges, confidence, side="left")
    hits = np.bincount(bins, weights=right, minlength=len(edges) + 1)
    counts = np.bincount(bins, minlength=len(edges) + 1)
    shares = (hits + pseudo) / np.maximum(counts + 2 * pseudo, 1)
    filled = np.flatnonzero(counts + pseudo)
    nearest = filled[np.abs(np.arange(len(counts))[:, None] - filled[None, :]).argmin(1)]
    return Histogram(tuple(map(float, edges)), tuple(map(float, shares[nearest])))


def fit_beta(confidence: Floats, right: Floats, *, ridge: float = 0.0) -> Beta:
    """Fit beta calibration by maximum likelihood with a, b >= 0, so that the map rises.

    `ridge` pulls it to "change nothing" (1, 1, 0), against the sum of the losses; without it the parameters are within
    `FAR`, and the fit is a logistic regression on two logarithms wherever that touches no bound.
    """
    c = np.clip(confidence, EDGE, 1 - EDGE)
    features = np.stack([np.log(c), -np.log1p(-c), np.ones_like(c)])  # (3, n)
    if not ridge:
        weights, bias = fit_logistic(np.column_stack([features[0], features[1]]), right, ridge=0.0)
        if weights.min() > 0 and weights.max() < FAR and abs(bias) < FAR:
            return Beta(float(weights[0]), float(weights[1]), bias)
    still = np.array([1.0, 1.0, 0.0])

    def mean_loss(x: Floats) -> tuple[float, Floats]:
        z = x[0] * features[0] + x[1] * features[1] + x[2]
        value = np.logaddexp(0, -z) * right + np.logaddexp(0, z) * (1 - right)
        gap = (1 / (1 + np.exp(-np.clip(z, -40, 40))) - right) / len(right)
        return float(value.mean()), np.array([gap @ features[0], gap @ features[1], gap.sum()])

    def pulled_loss(x: Floats) -> tuple[float, Floats]:
        z = x[0] * features[0] + x[1] * features[1] + x[2]
        value = np.logaddexp(0, z).sum() - (z * right).sum()
        gap = 1 / (1 + np.exp(-np.clip(z, -500, 500))) - right
        return float(value + ridge / 2 * ((x - still) ** 2).sum()), (features * gap).sum(1) + ridge * (x - still)

    bounds = [(0, None), (0, None), (None, None)] if ridge else [(0, FAR), (0, FAR), (-FAR, FAR)]
    loss = pulled_loss if ridge else mean_loss
    found = minimize(loss, still, jac=True, method="L-BFGS-B", bounds=bounds)
    return Beta(*(float(v) for v in found.x))
