"""Measures of calibration: how far stated confidence is from observed correctness.

`confidence` (n,) in [0, 1] is the probability of the answer given, `correct` (n,) of 0/1 says whether it was right.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from xt.core.errors import XtError

Floats = npt.NDArray[np.float64]
BINS = 15
"""Guo et al. 2017 (arXiv 1706.04599) and torchmetrics use 15."""
REPEATS = 200


def _check(confidence: Floats, correct: Floats) -> tuple[Floats, Floats]:
    confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    if confidence.shape != correct.shape or confidence.ndim != 1 or len(confidence) == 0:
        raise XtError(f"Expected two equal, non-empty rows; found {confidence.shape} and {correct.shape}.")
    if not np.isfinite(confidence).all() or confidence.min() < 0 or confidence.max() > 1 + 1e-9:
        raise XtError("A confidence is not a probability (NaN, or outside 0..1).")
    return confidence, correct


def equal_mass(n: int, bins: int = BINS) -> npt.NDArray[np.int64]:
    """Give the starts of `bins` groups of n sorted items whose sizes differ by at most one (fewer when n is).

    The first n mod bins groups are the larger ones, as `numpy.array_split` has it.
    """
    bins = min(bins, n)
    sizes = np.full(bins, n // bins)
    sizes[: n % bins] += 1
    return np.concatenate([[0], np.cumsum(sizes)[:-1]])


def _ece_rows(confidence: Floats, correct: Floats, bins: int) -> Floats:
    """ECE with equal-mass bins of each row of (repeats, n): (repeats,)."""
    order = np.argsort(confidence, axis=1, kind="stable")
    gap = np.take_along_axis(confidence - correct, order, axis=1)
    starts = equal_mass(gap.shape[1], bins)
    return np.asarray(np.abs(np.add.reduceat(gap, starts, axis=1)).sum(1) / gap.shape[1])


def ece(confidence: Floats, correct: Floats, *, bins: int = BINS) -> float:
    """Expected calibration error over bins of equal mass (Nguyen & O'Connor 2015; Nixon et al. 2019, arXiv 1904.01685).

    Sum over bins of (share of the items) * |mean confidence - mean correctness|. Ties keep their order.
    """
    confidence, correct = _check(confidence, correct)
    return float(_ece_rows(confidence[None], correct[None], bins)[0])


def ece_equal_width(confidence: Floats, correct: Floats, *, bins: int = BINS) -> float:
    """Expected calibration error over bins of equal width (Guo et al. 2017, section 2).

    Bin m holds confidences in ((m-1)/bins, m/bins]; 0 falls into the first.
    """
    confidence, correct = _check(confidence, correct)
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(index, weights=confidence - correct, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def ece_null(confidence: Floats, *, bins: int = BINS, repeats: int = REPEATS, seed: int = 0) -> float:
    """What a perfectly calibrated model with these confidences would show on average: correct ~ Bernoulli(confidence).

    The plug-in ECE is biased upwards at small n; an ECE near this value is as good as it gets.
    """
    confidence = np.asarray(confidence, np.float64)
    drawn = np.random.default_rng(seed).random((repeats, len(confidence))) < confidence
    return float(_ece_rows(np.broadcast_to(confidence, drawn.shape), drawn.astype(np.float64), bins).mean())


def ece_bootstrap(
    confidence: Floats, correct: Floats, *, bins: int = BINS, repeats: int = REPEATS, seed: int = 0
) -> Floats:
    """ECE of `repeats` resamples of the queries: (repeats,)."""
    confidence, correct = _check(confidence, correct)
    rows = np.random.default_rng(seed).integers(0, len(confidence), (repeats, len(confidence)))
    return _ece_rows(confidence[rows], correct[rows], bins)


def brier(confidence: Floats, correct: Floats) -> float:
    """Mean squared gap between the confidence in the answer given and its correctness."""
    confidence, correct = _check(confidence, correct)
    return float(((confidence - correct) ** 2).mean())


def auroc(confidence: Floats, correct: Floats) -> float | None:
    """Chance that a right answer has more confidence than a wrong one (ties count half); None with one class only."""
    confidence, correct = _check(confidence, correct)
    right = int(correct.sum())
    wrong = len(correct) - right
    if not right or not wrong:
        return None
    ranks = rankdata(confidence)
    return float((ranks[correct == 1].sum() - right * (right + 1) / 2) / (right * wrong))


def reliability(confidence: Floats, correct: Floats, *, bins: int = BINS) -> list[dict[str, Any]]:
    """Give the bins of a reliability diagram, of equal mass: their range, mean confidence, accuracy and size."""
    confidence, correct = _check(confidence, correct)
    order = np.argsort(confidence, kind="stable")
    groups = np.split(order, equal_mass(len(order), bins)[1:])
    return [
        {
            "low": float(confidence[g].min()),
            "high": float(confidence[g].max()),
            "confidence": float(confidence[g].mean()),
            "accuracy": float(correct[g].mean()),
            "count": len(g),
        }
        for g in groups
    ]


def wilson(successes: int, n: int, z: float = 1.96) -> list[float]:
    """95 % interval of a share (Wilson 1927).

    >>> [round(x, 3) for x in wilson(8, 10)]
    [0.49, 0.943]
    """
    share = successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return [max(0.0, float(middle - half)), min(1.0, float(middle + half))]
