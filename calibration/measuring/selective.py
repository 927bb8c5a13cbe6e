"""What abstaining buys: risk among the answers given, when only the surest are given.

`confidence` (n,) in [0, 1] is the probability of the answer given, `correct` (n,) of 0/1 says whether it was right.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from xt.calibration.measuring import resampling
from xt.calibration.measuring.resampling import Floats, Sample
from xt.core.errors import XtError


def _tied(confidence: Floats, correct: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the ends of the ties in descending order: items up to there, errors among them, the confidence."""
    confidence, correct = resampling.check(confidence, correct)
    order = np.argsort(-confidence, kind="stable")
    ordered = confidence[order]
    last = np.flatnonzero(np.append(np.diff(ordered) != 0, True))
    return (last + 1).astype(np.float64), np.cumsum(1 - correct[order])[last], ordered[last]


def risk_coverage(confidence: Floats, correct: Floats, *, points: int = 100) -> list[list[float]]:
    """Share of wrong answers among the surest, by the share of queries answered: [[coverage, risk], ...], ascending.

    One point for each distinct confidence: a threshold answers all of a tie or none (El-Yaniv & Wiener 2010). Of more
    than `points` of them, those nearest to even steps of coverage are kept, the last one always.
    """
    answered, errors, _ = _tied(confidence, correct)
    n = answered[-1]
    keep = np.arange(len(answered))
    if len(keep) > points:
        keep = np.unique(np.searchsorted(answered, np.linspace(answered[0], n, points)))
    return [[float(answered[i] / n), float(errors[i] / answered[i])] for i in keep]


def aurc(confidence: Floats, correct: Floats) -> float:
    """Return the area under the risk-coverage curve.

    Geifman & El-Yaniv 2017; Geifman et al. 2019, arXiv 1805.08206, section 2.

    Mean over k = 1..n of the share of wrong answers among the k surest; inside a tie, the mean over all its orders.
    """
    return Sample.of(*resampling.check(confidence, correct), bins=1).point()["aurc"]


def eaurc(confidence: Floats, correct: Floats) -> float:
    """Return the AURC less that of the best order of the same answers: every right one before every wrong one.

    The best is summed exactly, not by its limit r + (1 - r) ln(1 - r) for large n (Geifman et al. 2019, equation 3).
    """
    value = aurc(confidence, correct)
    n, wrong = len(np.asarray(correct)), int((1 - np.asarray(correct, np.float64)).sum())
    return float(value - (np.arange(1, wrong + 1) / np.arange(n - wrong + 1, n + 1)).sum() / n)


ABSTENTION_RATES = np.linspace(0, 1, 11)[:-1]
"""Shares of the queries that are not answered: 0, .1, ..., .9, as MTEB has them."""


def abstention_nauc(confidence: npt.ArrayLike, values: npt.ArrayLike) -> float | None:
    """Return the normalised area under the abstention curve, as MTEB computes it.

    Gisserot-Boukhlef et al. 2024, arXiv 2402.12997, section 4.2: the mean value of what is left once the least sure
    0, 10, ..., 90 % are not answered; its area, less that of answering all, over the same of the best possible order.
    1: the worst go first; 0: no better than chance; below 0: worse. Where the cut falls inside a tie, what is left of
    it has the mean of the tie. None where all values are equal.

    Args:
        confidence: (n,) of any scale.
        values: (n,) how good each answer is: 0/1, nDCG, ...
    """
    sure, good = np.asarray(confidence, np.float64), np.asarray(values, np.float64)
    if sure.shape != good.shape or sure.ndim != 1 or not len(sure):
        raise XtError(f"Expected two equal, non-empty rows; found {sure.shape} and {good.shape}.")
    if not (np.isfinite(sure).all() and np.isfinite(good).all()):
        raise XtError("A confidence or a value is NaN or infinite.", "Look for an encoder that gave NaN.")
    flat = float(good.mean()) * float(ABSTENTION_RATES[-1])
    best = _area(good, good)
    if good.min() == good.max() or best == flat:
        return None
    return (_area(sure, good) - flat) / (best - flat)


def _area(confidence: Floats, values: Floats) -> float:
    """Return the area under the mean value of what is left at each of the `ABSTENTION_RATES`, by trapezoids."""
    n = len(values)
    order = np.argsort(confidence, kind="stable")
    starts = np.flatnonzero(np.diff(confidence[order], prepend=-np.inf))
    size = np.diff([*starts, n])
    spread = np.repeat(np.add.reduceat(values[order], starts) / size, size)
    left = np.cumsum(spread[::-1])[::-1] / np.arange(n, 0, -1)  # (n,) the mean from each place on
    heights = left[[min(round(rate * n), n - 1) for rate in ABSTENTION_RATES]]
    return float((np.diff(ABSTENTION_RATES) * (heights[1:] + heights[:-1]) / 2).sum())


def risk_at_coverage(confidence: Floats, correct: Floats, coverage: float) -> float:
    """Share of wrong answers among the surest `coverage` (in 0..1, rounded up to a whole query, at least one).

    Where the cut falls inside a tie, the tie's errors are spread evenly over it.
    """
    if not 0 <= coverage <= 1:
        raise XtError(f"Expected a coverage in 0..1, found {coverage}.", "0.9 answers nine queries in ten.")
    answered, errors, _ = _tied(confidence, correct)
    k = max(1, math.ceil(coverage * answered[-1] - 1e-9))
    return float(np.interp(k, np.append(0.0, answered), np.append(0.0, errors)) / k)


def coverage_at_risk(confidence: Floats, correct: Floats, risk: float) -> float:
    """Return the greatest share of queries that a threshold answers with at most `risk` (in 0..1) wrong.

    It is 0 where none does.

    What the threshold would be is found on these same queries: to promise a risk, choose it on others.
    """
    if not 0 <= risk <= 1:
        raise XtError(f"Expected a risk in 0..1, found {risk}.", "0.05 allows one wrong answer in twenty.")
    answered, errors, _ = _tied(confidence, correct)
    kept = answered[errors <= risk * answered + 1e-9]
    return float(kept.max() / answered[-1]) if len(kept) else 0.0
