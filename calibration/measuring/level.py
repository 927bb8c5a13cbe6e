"""Whether confidences are as high as they should be: their gap to the accuracy, and Cox's slope and intercept.

`confidence` (n,) in [0, 1] is the probability of the answer given, `correct` (n,) of 0/1 says whether it was right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit

from xt.calibration.fit.logistic import fit_logistic
from xt.calibration.measuring import resampling
from xt.calibration.measuring.clusters import Ids
from xt.calibration.measuring.resampling import Floats

EDGE = 1e-6
"""Confidences are kept this far from 0 and 1 before the logit, or one that is sure and wrong would outweigh all."""


def gap(confidence: Floats, correct: Floats) -> float:
    """Return the mean confidence less the accuracy: above 0 where answers are right less often than stated.

    >>> round(gap([0.9, 0.7], [1, 0]), 9)
    0.3
    """
    confidence, correct = resampling.check(confidence, correct)
    return float((confidence - correct).mean())


def gap_deviation(confidence: Floats) -> float:
    """Return the standard deviation of the gap of a perfectly calibrated model with these confidences.

    Its answers are right by chance: correct ~ Bernoulli(confidence). On average |gap| is sqrt(2 / pi) times as much.
    """
    confidence, _ = resampling.check(confidence, np.zeros(np.shape(confidence)))
    return float(np.sqrt((confidence * (1 - confidence)).sum())) / len(confidence)


@dataclass(frozen=True)
class Cox:
    """Cox's calibration of confidences: what logistic regression of the outcomes on their logits gives."""

    slope: float | None
    """1 where calibrated; below 1 the confidences are too extreme. None where there is no finite one: all answers right
    or all wrong, or no right one between wrong ones and no wrong one between right ones."""
    intercept: float | None
    """The intercept beside that slope; 0 where calibrated."""
    in_the_large: float | None
    """The intercept with the slope held at 1 ("calibration in the large"): by how much the log odds of all confidences
    together are too low. None where all answers are right or all wrong."""
    slope_ci: list[float] | None
    """95 % interval of the slope; None with few items."""


def cox(confidence: Floats, correct: Floats, ids: Ids | None = None) -> Cox:
    """Return calibration slope and intercepts (Cox 1958, Biometrika 45, section 5; Steyerberg et al. 2010).

    Logistic regression of the outcome on the logit of the confidence, without a penalty; confidences are kept `EDGE`
    from 0 and 1.

    Args:
        confidence: (n,) probability of the answer given.
        correct: (n,) of 0/1.
        ids: (n,) of items that belong together, such as a sentence and its translations, for the interval (the sandwich
            of Liang & Zeger 1986); None: each by itself.
    """
    confidence, correct = resampling.check(confidence, correct)
    x, right = logit(np.clip(confidence, EDGE, 1 - EDGE)), correct == 1
    if right.all() or not right.any():
        return Cox(None, None, None, None)
    large = _in_the_large(x, float(correct.mean()))
    if x[right].min() >= x[~right].max() or x[~right].min() >= x[right].max():  # apart, or all confidences equal
        return Cox(None, None, large, None)
    (slope,), intercept = fit_logistic(x[:, None], correct, ridge=0.0)
    half = 1.96 * _deviation(np.column_stack([np.ones(len(x)), x]), correct, np.array([intercept, slope]), ids)
    ends = [float(slope - half), float(slope + half)] if len(x) >= resampling.MIN_ITEMS else None
    return Cox(float(slope), intercept, large, ends)


def _in_the_large(x: Floats, accuracy: float) -> float:
    """Return what has to be added to some log odds for their mean probability to be the accuracy, in (0, 1)."""
    ends = logit(np.array(accuracy)) - x.max() - 1, logit(np.array(accuracy)) - x.min() + 1
    return float(brentq(lambda shift: float(expit(x + shift).mean()) - accuracy, *map(float, ends), xtol=1e-12))


def _deviation(design: Floats, correct: Floats, weights: Floats, ids: Ids | None) -> float:
    """Return the standard error of the last weight, items of one id taken together."""
    p = expit(design @ weights)
    scores = design * (correct - p)[:, None]
    if ids is not None:
        cluster = np.unique(ids, return_inverse=True)[1]
        scores = np.column_stack([np.bincount(cluster, column) for column in scores.T])
    bread = np.linalg.pinv((design * (p * (1 - p))[:, None]).T @ design)
    return float(np.sqrt((bread @ (scores.T @ scores) @ bread)[-1, -1]))
