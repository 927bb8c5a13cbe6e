"""Measures of calibration: how far stated confidence is from observed correctness.

`confidence` (n,) in [0, 1] is the probability of the answer given, `correct` (n,) of 0/1 says whether it was right.
Each function returns one measure; `measure` returns all of them with intervals and null values, in one fast pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, bdtrik

from xt.calibration.measuring import resampling
from xt.calibration.measuring.clusters import Ids, shared_draws
from xt.calibration.measuring.level import cox, gap, gap_deviation
from xt.calibration.measuring.means import average
from xt.calibration.measuring.resampling import KEYS, MIN_ITEMS, Floats, Sample, interval
from xt.calibration.measuring.selective import (
    abstention_nauc,
    aurc,
    coverage_at_risk,
    eaurc,
    risk_at_coverage,
    risk_coverage,
)
from xt.core.errors import XtError

__all__ = [
    "BINS",
    "KEYS",
    "REPEATS",
    "Floats",
    "abstention_nauc",
    "aurc",
    "auroc",
    "average",
    "binomial_quantile",
    "bootstrap_rows",
    "brier",
    "brier_decomposition",
    "classwise_ece",
    "coverage_at_risk",
    "cox",
    "eaurc",
    "ece",
    "ece_bootstrap",
    "ece_debiased",
    "ece_equal_width",
    "ece_null",
    "equal_mass",
    "gap",
    "gap_deviation",
    "interval",
    "mce",
    "measure",
    "measure_and_draw",
    "nll",
    "null_rows",
    "reliability",
    "risk_at_coverage",
    "risk_coverage",
    "shared_draws",
    "wilson",
]
BINS = 15
"""Guo et al. 2017 (arXiv 1706.04599) and torchmetrics use 15."""
REPEATS = 200


def _sample(confidence: Floats, correct: Floats, bins: int) -> Sample:
    if bins < 1:
        raise XtError(f"Expected at least one bin, found {bins}.", f"{BINS} is usual.")
    return Sample.of(*resampling.check(confidence, correct), bins=bins)


def equal_mass(n: int, bins: int = BINS) -> npt.NDArray[np.int64]:
    """Return the starts of `bins` groups of n sorted items whose sizes differ by at most one (fewer when n is).

    The first n mod bins groups are the larger ones, as `numpy.array_split` has it.
    """
    return resampling.equal_mass(n, bins)


def ece(confidence: Floats, correct: Floats, *, bins: int = BINS) -> float:
    """Return the expected calibration error over bins of equal mass.

    Nguyen & O'Connor 2015; Nixon et al. 2019, arXiv 1904.01685.

    Sum over bins of (share of the items) * |mean confidence - mean correctness|. Ties keep their order.
    """
    return _sample(confidence, correct, bins).point()["ece"]


def ece_equal_width(confidence: Floats, correct: Floats, *, bins: int = BINS) -> float:
    """Return the expected calibration error over bins of equal width (Guo et al. 2017, section 2).

    Bin m holds confidences in ((m-1)/bins, m/bins]; 0 falls into the first. torchmetrics and netcal put a confidence
    that lies on an edge into the bin above it; everything else agrees.
    """
    return _sample(confidence, correct, bins).point()["ece_equal_width"]


def mce(confidence: Floats, correct: Floats, *, bins: int = BINS) -> float:
    """Return the maximum calibration error.

    It is the greatest |mean confidence - mean correctness| of a bin (Guo et al. 2017, sec. 2).

    Over the bins of equal width of `ece_equal_width`, as in torchmetrics (`norm="max"`); a bin with one item counts
    as much as any, so read it beside its null value.
    """
    return _sample(confidence, correct, bins).point()["mce"]


def ece_debiased(confidence: Floats, correct: Floats, *, bins: int = BINS, norm: str = "l1") -> float:
    """Return the calibration error over bins of equal mass, less what chance alone adds at this n.

    It is 0 where that is more.

    "l2" is the estimator of Kumar, Liang & Ma 2019 (arXiv 1909.10155, definition 5.1): the root of the sum over bins of
    share * ((mean confidence - mean correctness)^2 - variance of the bin's mean correctness), that variance being
    m (1 - m) / (size - 1). It is on the scale of a root mean square.
    "l1" is on the scale of the ECE, and what `measure` reports: the same correction for absolute gaps, as their
    library has it (`calibration.utils.normal_debiased_ce`): ECE - (E - ECE), where E is the ECE that gaps drawn from
    Normal(gap, m (1 - m) / size) would show; E is taken in closed form (the mean of a folded normal), not by drawing.
    Of gaps that are chance alone it leaves 59 % (2 - root of 2): compare it, too, with its null value.
    """
    if norm not in ("l1", "l2"):
        raise XtError(f"Expected norm l1 or l2, found {norm!r}.", "l1 is on the scale of the ECE.")
    s = _sample(confidence, correct, bins)
    starts = equal_mass(len(s), bins)
    size = np.diff([*starts, len(s)]).astype(np.float64)
    rate = np.add.reduceat(s.correct, starts) / size
    gap = np.add.reduceat(s.confidence, starts) / size - rate
    return float(resampling.debiased(gap, rate, size, norm=norm))


def classwise_ece(probabilities: npt.ArrayLike, labels: npt.ArrayLike, *, bins: int = BINS) -> float:
    """Mean over classes of the equal-width ECE of "it is this class" (Kull et al. 2019, arXiv 1910.12656, section 2).

    probabilities (n, K), rows that sum to 1; labels (n,) of 0..K-1. Bins as in `ece_equal_width`.
    """
    p, gold = np.asarray(probabilities, np.float64), np.asarray(labels)
    if p.ndim != 2 or gold.shape != p.shape[:1] or not p.size:
        raise XtError(f"Expected probabilities (n, K) and labels (n,); found {p.shape} and {gold.shape}.")
    if not np.isfinite(p).all() or p.min() < 0 or np.abs(p.sum(1) - 1).max() > 1e-4:
        raise XtError("A row of probabilities holds NaN, is negative or does not sum to 1.", "Give them after softmax.")
    if not np.issubdtype(gold.dtype, np.integer) or gold.min() < 0 or gold.max() >= p.shape[1]:
        raise XtError(
            f"A label is not a class number of 0..{p.shape[1] - 1}.", "Number the classes as the columns are."
        )
    p = np.minimum(p, 1.0)
    return float(np.mean([ece_equal_width(p[:, k], (gold == k).astype(float), bins=bins) for k in range(p.shape[1])]))


def ece_null(confidence: Floats, *, bins: int = BINS, repeats: int = REPEATS, seed: int = 0) -> float:
    """Return what a perfectly calibrated model with these confidences would show on average.

    Its answers are right by chance: correct ~ Bernoulli(confidence).

    The plug-in ECE is biased upwards at small n; an ECE near this value is as good as it gets.
    """
    return float(null_rows(confidence, bins=bins, repeats=repeats, seed=seed)["ece"].mean())


def null_rows(confidence: Floats, *, bins: int = BINS, repeats: int = REPEATS, seed: int = 0) -> dict[str, Floats]:
    """Return each measure, (repeats,), of draws of a perfectly calibrated model with these confidences."""
    s = _sample(confidence, np.zeros(np.shape(confidence)), bins)
    return s.null(resampling.generator(seed, s.confidence), repeats)


def bootstrap_rows(
    confidence: Floats,
    correct: Floats,
    *,
    nll: Floats | None = None,
    ids: Ids | None = None,
    bins: int = BINS,
    repeats: int = REPEATS,
    seed: int = 0,
) -> dict[str, Floats]:
    """Return each measure, (repeats,), of resamples of the queries; NaN where a resample has one class only.

    With `ids` queries of one id are drawn together, here and in every language that has it; without them different data
    are drawn independently under one seed. So rows of several languages may be averaged.
    """
    s = _sample(confidence, correct, bins)
    return _bootstrap(s, _losses(nll, len(s)), _checked(ids, len(s)), repeats, seed)


def _bootstrap(s: Sample, losses: Floats | None, ids: Ids | None, repeats: int, seed: int) -> dict[str, Floats]:
    if ids is None:
        draw = resampling.independent(resampling.generator(seed, s.confidence, s.correct), len(s))
    else:
        draw = resampling.in_turn(shared_draws(ids, repeats, seed=seed)[:, s.order])
    rows = s.bootstrap(draw, repeats, losses)
    return rows if losses is not None else {**rows, "nll": rows["nll_binary"]}


def ece_bootstrap(
    confidence: Floats, correct: Floats, *, bins: int = BINS, repeats: int = REPEATS, seed: int = 0
) -> Floats:
    """Return the ECE of `repeats` resamples of the queries: (repeats,)."""
    return bootstrap_rows(confidence, correct, bins=bins, repeats=repeats, seed=seed)["ece"]


def _checked(ids: Ids | None, n: int) -> Ids | None:
    if ids is not None and np.shape(ids) != (n,):
        raise XtError(f"Expected {n} ids; found {np.shape(ids)}.", "Give the id of each answer's query.")
    return ids


def _losses(nll: Floats | None, n: int) -> Floats | None:
    if nll is None:
        return None
    losses = np.asarray(nll, np.float64)
    if losses.shape != (n,) or not np.isfinite(losses).all():
        raise XtError(f"Expected {n} finite losses; found {losses.shape}, some of them not finite or too many or few.")
    return losses


def measure(
    confidence: Floats,
    correct: Floats,
    *,
    nll: Floats | None = None,
    ids: Ids | None = None,
    bins: int = BINS,
    repeats: int = REPEATS,
    seed: int = 0,
) -> dict[str, Any]:
    """Return every measure with its 95 % interval and its null value.

    Keys: gap, ece, ece_equal_width, ece_debiased, mce, brier, nll, nll_binary, auroc, aurc; each also with `_ci`
    (resampled queries; bias-corrected; None under 10 of them) and `_null` (mean over draws of correct ~
    Bernoulli(confidence)). AUROC is None with one class only. The null value of the gap is the mean of its absolute
    value, and its interval is at least as wide as what chance gives a calibrated model: resampling answers that are all
    right would not show it. With an interval alone: the slope of `cox`. With neither: its intercept and in_the_large,
    nauc (`abstention_nauc`), the parts of `brier_decomposition` (brier_reliability, ...), eaurc, risk_at_80 and
    risk_at_90 (percent of coverage), coverage_at_risk_5 (percent).

    Args:
        confidence: (n,) probability of the answer given.
        correct: (n,) of 0/1.
        nll: (n,) losses of the gold answer in nats; `nll` is then their mean, and its null is None, for it depends on
            more than the confidences. Without it, `nll` is `nll_binary`: the loss of "the answer is right".
        ids: (n,) of the queries: those of one id, in this language or another, are resampled together. Without them
            each query is, by itself.
        bins: of the binned measures.
        repeats: resamples, and null draws; 0 leaves intervals and null values out.
        seed: of the draws; what else they depend on is the data alone.
    """
    return measure_and_draw(confidence, correct, nll=nll, ids=ids, bins=bins, repeats=repeats, seed=seed)[0]


def measure_and_draw(
    confidence: Floats,
    correct: Floats,
    *,
    nll: Floats | None = None,
    ids: Ids | None = None,
    bins: int = BINS,
    repeats: int = REPEATS,
    seed: int = 0,
) -> tuple[dict[str, Any], dict[str, Floats]]:
    """Return what `measure` does and the `bootstrap_rows` behind its intervals, for `average` over languages."""
    s = _sample(confidence, correct, bins)
    losses = _losses(nll, len(s))
    values: dict[str, float | None] = dict(resampling.undefined_to_none(s.point()))
    values["nll"] = values["nll_binary"] if losses is None else float(losses.mean())
    fit = cox(confidence, correct, ids)
    points = {**vars(fit), **_points(s)}
    if repeats < 1:
        points.pop("slope_ci")
        return values | points, {}
    drawn = _bootstrap(s, losses, _checked(ids, len(s)), repeats, seed)
    null = s.null(resampling.generator(seed, s.confidence), repeats)
    null |= {"nll": null["nll_binary"]} if losses is None else {}
    out: dict[str, Any] = {}
    for key, value in values.items():
        out[key] = value
        ends = {"low": resampling.lower(key), "high": resampling.upper(key)}
        out[f"{key}_ci"] = None if len(s) < MIN_ITEMS else interval(value, drawn[key], **ends)
        kept = null[key][np.isfinite(null[key])] if key in null else np.empty(0)
        out[f"{key}_null"] = float(kept.mean()) if len(kept) and value is not None else None
    return out | _of_the_gap(out, s) | points, drawn


def _of_the_gap(row: Mapping[str, Any], s: Sample) -> dict[str, Any]:
    """Return interval and null value of the gap, which have to allow for answers that are all right."""
    deviation = gap_deviation(s.confidence)
    ends = row["gap_ci"]
    if ends is not None:
        least = 1.96 * deviation
        ends = [max(-1.0, min(ends[0], row["gap"] - least)), min(1.0, max(ends[1], row["gap"] + least))]
    return {"gap_ci": ends, "gap_null": math.sqrt(2 / math.pi) * deviation}


def _points(s: Sample) -> dict[str, float | None]:
    """Return the measures that come without intervals: `resampling.POINTS`."""
    parts = brier_decomposition(s.confidence, s.correct, bins=s.bins)
    return {
        "nauc": abstention_nauc(s.confidence, s.correct),
        **{f"brier_{k}": v for k, v in parts.items() if k != "brier"},
        "eaurc": eaurc(s.confidence, s.correct),
        "risk_at_80": risk_at_coverage(s.confidence, s.correct, 0.8),
        "risk_at_90": risk_at_coverage(s.confidence, s.correct, 0.9),
        "coverage_at_risk_5": coverage_at_risk(s.confidence, s.correct, 0.05),
    }


def brier(confidence: Floats, correct: Floats) -> float:
    """Mean squared gap between the confidence in the answer given and its correctness."""
    confidence, correct = resampling.check(confidence, correct)
    return float(((confidence - correct) ** 2).mean())


def brier_decomposition(confidence: Floats, correct: Floats, *, bins: int = BINS) -> dict[str, float]:
    """Return the parts of the Brier score over bins of equal mass (Murphy 1973), which add up to it exactly.

    brier = reliability - resolution + uncertainty + within. `reliability`: mean squared gap of the bins (0 when
    calibrated); `resolution`: how far their shares of right answers spread; `uncertainty`: accuracy * (1 - accuracy);
    `within`: what the confidences inside a bin add (Stephenson, Coelho & Jolliffe 2008): their variance less twice
    their covariance with correctness; 0 where all confidences of a bin are equal.
    """
    s = _sample(confidence, correct, bins)
    starts = equal_mass(len(s), bins)
    size = np.diff([*starts, len(s)])
    sure, right = (np.add.reduceat(x, starts) / size for x in (s.confidence, s.correct))
    inner, outer = s.confidence - np.repeat(sure, size), s.correct - np.repeat(right, size)
    base = float(s.correct.mean())
    return {
        "brier": float(((s.confidence - s.correct) ** 2).mean()),
        "reliability": float((size * (sure - right) ** 2).sum() / len(s)),
        "resolution": float((size * (right - base) ** 2).sum() / len(s)),
        "uncertainty": base * (1 - base),
        "within": float((inner**2 - 2 * inner * outer).mean()),
    }


def nll(confidence: Floats, correct: Floats) -> float:
    """Mean negative log-likelihood of "the answer is right" as a binary event, in nats (scikit-learn's `log_loss`).

    A confidence of 0 or 1 counts as 2.2e-16 away from it, as there: one sure error costs 36 nats, not infinity.
    """
    return _sample(confidence, correct, BINS).point()["nll_binary"]


def auroc(confidence: Floats, correct: Floats) -> float | None:
    """Return the chance that a right answer has more confidence than a wrong one (ties count half).

    It is None with one class only.
    """
    value = _sample(confidence, correct, BINS).point()["auroc"]
    return None if math.isnan(value) else value


def reliability(confidence: Floats, correct: Floats, *, bins: int = BINS) -> list[dict[str, Any]]:
    """Return the bins of a reliability diagram, of equal mass: their range, mean confidence, accuracy and size.

    `consistency` is where 95 % of the bin's accuracies would fall were it calibrated (Bröcker & Smith 2007), from the
    binomial at its mean confidence; confidences that differ inside the bin would spread a little less.
    """
    confidence, correct = resampling.check(confidence, correct)
    order = np.argsort(confidence, kind="stable")
    confidence, correct = confidence[order], correct[order]
    starts = equal_mass(len(order), bins)
    sizes = np.diff([*starts, len(order)])
    mean = np.minimum(np.add.reduceat(confidence, starts) / sizes, 1.0)
    share = np.add.reduceat(correct, starts) / sizes
    within = binomial_quantile(np.array([[0.025], [0.975]]), sizes, mean) / sizes
    return [
        {
            "low": float(confidence[start]),
            "high": float(confidence[start + sizes[i] - 1]),
            "confidence": float(mean[i]),
            "accuracy": float(share[i]),
            "count": int(sizes[i]),
            "consistency": within[:, i].tolist(),
        }
        for i, start in enumerate(starts)
    ]


def binomial_quantile(share: Floats, n: npt.NDArray[np.int64], p: Floats) -> Floats:
    """Return the least k of 0..n whose P(Bin(n, p) <= k) is at least `share`; the arrays are broadcast.

    As `scipy.stats.binom.ppf`, whose module takes a second to import.
    """
    inside = np.clip(p, 1e-300, 1 - 1e-16)
    k = np.ceil(np.clip(bdtrik(share, n, inside), 0, n))
    below = np.maximum(k - 1, 0)
    k = np.where(bdtr(below, n, inside) >= share, below, k)
    return np.where(p <= 0, 0.0, np.where(p >= 1, n, k))


def wilson(successes: int, n: int, z: float = 1.96) -> list[float]:
    """Return the 95 % interval of a share (Wilson 1927).

    >>> [round(x, 3) for x in wilson(8, 10)]
    [0.49, 0.943]
    """
    share = successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return [max(0.0, float(middle - half)), min(1.0, float(middle + half))]
