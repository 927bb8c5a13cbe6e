"""Fitting what turns a head's logits into probabilities: temperature, vector scaling, maps of each label or answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.optimize import minimize

from xt.calibration.apply.heads import (
    MIN_PROBABILITY,
    HeadCalibrator,
    LabelTemperature,
    OfAnswers,
    OneVsRest,
    VectorScaling,
)
from xt.calibration.apply.maps import Histogram, Isotonic, PlainMap
from xt.calibration.fit.maps import fit_beta, fit_histogram, fit_isotonic, quantile_edges
from xt.calibration.fit.temperature import label_loss, search_log_temperature
from xt.calibration.methods import METHODS
from xt.calibration.predictions import Floats, Predictions

LOG_TEMPERATURES = (-3.0, 3.0)
"""Where temperatures are looked for: e^-3 to e^3, 0.05 to 20."""
STEP = 0.05
"""Of the log temperature, for the curvature at its optimum."""
BINS = 10
"""Of histogram binning, of equal mass."""
RIDGE = 1.0
"""Weight of the pull of vector and beta scaling to "change nothing", against the sum of the losses of all items: what
keeps a label that was never seen from getting an infinite bias. A normal prior of variance 1."""
MAX_ITEMS = 20_000
"""Items at most that vector scaling and the maps are fitted to: every so-many-th of more."""


def temperature_loss(items: Predictions) -> Callable[[float], float]:
    """Return the function from log temperature to the sum of losses, in nats.

    The loss is that of the right column, where there is one; else of the event "the answer given is right".
    """
    if items.gold is not None:
        return label_loss(items.scores, items.gold)
    shifted = items.scores - items.scores.max(1, keepdims=True)  # (rows, k)
    picked = shifted[np.arange(len(shifted)), items.answer]

    def events(log_temperature: float) -> float:
        beta = np.exp(-log_temperature)
        each = picked * beta - np.log(np.exp(shifted * beta).sum(1))
        p = np.exp(np.bincount(items.owner, weights=each, minlength=len(items)))
        return float(event_losses(p, items.correct).sum())

    return events


def event_losses(confidence: Floats, correct: Floats) -> Floats:
    """Return the loss of "the answer is right" as an event, (n,), in nats; at most 27.6 (a probability of 1e-12)."""
    p = np.clip(confidence, MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    return np.asarray(-np.where(correct > 0.5, np.log(p), np.log1p(-p)))


@dataclass(frozen=True)
class Prior:
    """What is believed of a language's log temperature before its items are seen: normal."""

    mean: float
    variance: float


@dataclass(frozen=True)
class FittedTemperature:
    """A log temperature and how sure it is."""

    log: float
    variance: float
    """Of its estimate: one over the curvature of the loss there; inf where the loss is flat."""
    bound: bool
    """Whether it lies at the end of where temperatures are looked for: the items do not tell it."""

    @property
    def calibrator(self) -> LabelTemperature:
        """What applies it."""
        return LabelTemperature(float(np.exp(self.log)))


def fit_log_temperature(items: Predictions, prior: Prior | None = None) -> FittedTemperature:
    """Fit a temperature by maximum likelihood (Guo et al. 2017), or, with a prior, maximum a posteriori.

    A prior of variance 0 is the answer itself.
    """
    low, high = LOG_TEMPERATURES
    if prior is not None and prior.variance <= 0:
        return FittedTemperature(float(np.clip(prior.mean, low, high)), 0.0, False)
    loss = temperature_loss(items)

    def penalised(t: float) -> float:
        return loss(t) + (0.0 if prior is None else (t - prior.mean) ** 2 / (2 * prior.variance))

    best = search_log_temperature(penalised, (low, high), xatol=1e-4)
    bound = min(best - low, high - best) < 0.02
    at = float(np.clip(best, low + STEP, high - STEP))
    curvature = (loss(at + STEP) - 2 * loss(at) + loss(at - STEP)) / STEP**2
    return FittedTemperature(best, 1 / curvature if curvature > 1e-9 else np.inf, bound)


def fit_temperature(items: Predictions) -> LabelTemperature:
    """Fit one temperature by maximum likelihood, to at most 5 * `MAX_ITEMS` items."""
    return fit_log_temperature(thinned(items, 5 * MAX_ITEMS)).calibrator


def some_examples(items: Predictions, limit: int) -> Predictions:
    """Return the items of every so-many-th example, whole examples, so that there are about `limit` of them at most."""
    step = -(-len(items) // limit)
    return items if step <= 1 else items.take(np.isin(items.ids, list(dict.fromkeys(items.ids.tolist()))[::step]))


def thinned(items: Predictions, limit: int = MAX_ITEMS) -> Predictions:
    """Return every so-many-th item, so that there are at most `limit`."""
    step = -(-len(items) // limit)
    return items if step == 1 else items.take(np.arange(0, len(items), step))


def fit_vector(items: Predictions, *, ridge: float = RIDGE) -> VectorScaling:
    """Fit a scale and a bias a label by maximum likelihood, shrunk towards 1 and 0 by `ridge`; items of labels only."""
    items = thinned(items)
    assert items.gold is not None
    logits = items.scores
    classes, rows = logits.shape[1], np.arange(len(logits))

    def loss(x: Floats) -> tuple[float, Floats]:
        scale, bias = x[:classes], x[classes:]
        z = logits * scale + bias
        z -= z.max(1, keepdims=True)
        odds = np.exp(z)
        total = odds.sum(1, keepdims=True)
        value = (np.log(total[:, 0]) - z[rows, items.gold]).sum()
        gap = odds / total
        gap[rows, items.gold] -= 1
        pull = np.concatenate([scale - 1, bias])
        gradient = np.concatenate([(gap * logits).sum(0), gap.sum(0)]) + ridge * pull
        return float(value + ridge / 2 * (pull**2).sum()), gradient

    start = np.concatenate([np.ones(classes), np.zeros(classes)])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    return VectorScaling(tuple(found[:classes].tolist()), tuple(found[classes:].tolist()))


def isotonic_map(probability: Floats, hit: Floats) -> Isotonic:
    """Fit a rising map; its values are kept 1 / 2n away from 0 and 1, which no n items can tell apart from them."""
    return fit_isotonic(probability, hit, floor=1 / (2 * len(hit)))


def histogram_map(probability: Floats, hit: Floats) -> Histogram:
    """Fit `BINS` of equal mass, by Laplace's rule."""
    return fit_histogram(probability, hit, quantile_edges(probability, BINS), pseudo=1.0)


def fit_map(items: Predictions, make: Callable[[Floats, Floats], PlainMap], *, by_label: bool) -> HeadCalibrator:
    """Fit a map of the probability of the answer given, or, `by_label`, one for each label's probability."""
    items = thinned(items)
    plain = items.log_softmax()
    if by_label and items.labels and items.gold is not None:
        probabilities = np.exp(plain)
        classes = probabilities.shape[1]
        return OneVsRest(tuple(make(probabilities[:, k], (items.gold == k).astype(float)) for k in range(classes)))
    return OfAnswers(make(items.confidence(plain), items.correct))


@dataclass(frozen=True)
class HeadMethod:
    """A method besides temperature."""

    label: str
    fit: Callable[[Predictions], HeadCalibrator]
    min_items: int
    """Items that it needs."""
    labels_only: bool = False
    """Whether it is defined for labels alone."""


HEAD_METHODS = {
    "vector": HeadMethod(METHODS["vector"].title, fit_vector, 80, labels_only=True),
    "isotonic": HeadMethod(METHODS["isotonic"].title, partial(fit_map, make=isotonic_map, by_label=True), 200),
    "beta": HeadMethod(METHODS["beta"].title, partial(fit_map, make=partial(fit_beta, ridge=RIDGE), by_label=True), 80),
    "histogram": HeadMethod(METHODS["histogram"].title, partial(fit_map, make=histogram_map, by_label=False), 200),
}
"""Methods besides temperature; isotonic and beta one label against the rest where there are labels."""
