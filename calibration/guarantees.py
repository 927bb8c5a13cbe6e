"""Promises for a set of answers: a threshold of guaranteed precision, and discoveries of which few are false.

Both read predictions of one score each, (n, 1), and are fitted on the dev part alone. What is promised holds as far as
the answers of the test part are of the same kind as those of dev (exchangeable with them); nothing more is assumed of
their scores. Tested in tests/eval/mining/test_control.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import bdtrc

from xt.calibration.predictions import Floats, Predictions
from xt.core.errors import XtError

PRECISION = 0.95
"""The precision that is promised."""
RISK = 0.1
"""How often the promise may break, over dev parts."""
STARTS = 5
"""Fixed sequences that share the risk: one alone would fail with its first mistake among the best-scored pairs."""
GRID = 100
FDR = 0.05


@dataclass(frozen=True)
class Guarantee:
    """A threshold whose precision is at least `precision` with probability 1 - `risk`; None where dev allows none."""

    precision: float
    risk: float
    threshold: float | None


def guaranteed_threshold(
    dev: Predictions, *, precision: float = PRECISION, risk: float = RISK, starts: int = STARTS, grid: int = GRID
) -> Guarantee:
    """Choose the lowest threshold that Learn-then-Test certifies (Angelopoulos et al. 2021, arXiv 2110.01052).

    For each of a grid of thresholds (places in the order of the scores, chosen without the labels) the hypothesis
    "precision is below `precision`" has the exact binomial p-value P(Bin(n, precision) >= right), the one that
    Clopper-Pearson bounds invert. Thresholds are tested from the highest down in `starts` fixed sequences, each at
    level risk / starts, and each stops at its first hypothesis that is not rejected (their section 3.2): the chance
    that any threshold rejected has too low a precision is at most `risk`.
    """
    if not 0 < precision < 1 or not 0 < risk < 1:
        raise XtError(f"Precision {precision} and risk {risk} must lie between 0 and 1.")
    order = np.argsort(-dev.scores[:, 0], kind="stable")
    score, right = dev.scores[order, 0], np.cumsum(dev.correct[order] > 0)
    level = risk / starts
    least = int(np.ceil(np.log(level) / np.log(precision)))  # with fewer pairs even a clean sheet proves nothing
    ends = np.flatnonzero(np.append(score[1:] < score[:-1], True)) + 1  # pairs of one score are taken together
    ends = ends[ends >= least]
    if len(ends) == 0:
        return Guarantee(precision, risk, None)
    sizes = ends[np.unique(np.linspace(0, len(ends) - 1, min(grid, len(ends))).round().astype(int))]
    p = bdtrc(right[sizes - 1] - 1, sizes, precision)  # P(Bin >= right)
    certified = []
    for part in np.array_split(np.arange(len(sizes)), min(starts, len(sizes))):
        failed = np.flatnonzero(p[part] > level)
        certified += list(part[: failed[0]] if len(failed) else part)
    if not certified:
        return Guarantee(precision, risk, None)
    return Guarantee(precision, risk, float(score[sizes[max(certified)] - 1]))


def conformal_p_values(wrong: Floats, score: Floats) -> Floats:
    """Return the conformal p-values of "this pair is wrong" (Bates et al. 2023, arXiv 2104.08279): (n,).

    (1 + number of the wrong pairs of dev with a score at least as high) / (1 + their number).

    >>> conformal_p_values(np.array([0.1, 0.5, 0.9]), np.array([1.0, 0.5, 0.0]))
    array([0.25, 0.75, 1.  ])
    """
    ordered = np.sort(wrong)
    above = len(ordered) - np.searchsorted(ordered, score, side="left")
    return np.asarray((1 + above) / (1 + len(ordered)))


def discoveries(dev: Predictions, test: Predictions, *, fdr: float = FDR) -> npt.NDArray[np.bool_]:
    """Choose pairs of test by Benjamini-Hochberg on their conformal p-values against the wrong pairs of dev: (n,).

    The expected share of wrong pairs among those chosen is at most `fdr`, over dev and test parts.
    """
    from scipy.stats import false_discovery_control  # a second to import

    wrong = dev.scores[dev.correct == 0, 0]
    if len(wrong) == 0:
        raise XtError("No wrong pair was mined on dev to estimate false discoveries by.", "Give a larger dev part.")
    if len(test) == 0:
        return np.zeros(0, bool)
    return np.asarray(false_discovery_control(conformal_p_values(wrong, test.scores[:, 0])) <= fdr)
