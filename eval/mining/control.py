"""Mined pairs to trust: a threshold of guaranteed precision, false-discovery control, a probability for each pair.

All of it is fitted on the dev part alone. What is promised holds as far as the pairs of the test part are of the same
kind as those of dev (exchangeable with them), nothing more is assumed of their scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import bdtrc

from xt.calibration import measures
from xt.calibration.fit.maps import fit_logistic
from xt.core.errors import XtError
from xt.eval.mining.margin import Floats, Mined, scored

PRECISION = 0.95
"""The precision that is promised."""
RISK = 0.1
"""How often the promise may break, over dev parts."""
STARTS = 5
"""Fixed sequences that share the risk: one alone would fail with its first mistake among the best-scored pairs."""
GRID = 100
FDR = 0.05
MIN_PAIRS = 30
"""Fewer right or wrong pairs of dev than this fit no probability worth having."""


@dataclass(frozen=True)
class Guarantee:
    """A threshold whose precision is at least `precision` with probability 1 - `risk`; None where dev allows none."""

    precision: float
    risk: float
    threshold: float | None


def guaranteed_threshold(
    dev: Mined, *, precision: float = PRECISION, risk: float = RISK, starts: int = STARTS, grid: int = GRID
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
    order = np.argsort(-dev.candidates.score, kind="stable")
    score, right = dev.candidates.score[order], np.cumsum(dev.right[order])
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
    """Conformal p-values of "this pair is wrong" (Bates et al. 2023, arXiv 2104.08279): (n,).

    (1 + number of the wrong pairs of dev with a score at least as high) / (1 + their number).

    >>> conformal_p_values(np.array([0.1, 0.5, 0.9]), np.array([1.0, 0.5, 0.0]))
    array([0.25, 0.75, 1.  ])
    """
    ordered = np.sort(wrong)
    above = len(ordered) - np.searchsorted(ordered, score, side="left")
    return np.asarray((1 + above) / (1 + len(ordered)))


def discoveries(dev: Mined, test: Mined, *, fdr: float = FDR) -> npt.NDArray[np.bool_]:
    """Choose pairs of test by Benjamini-Hochberg on their conformal p-values against the wrong pairs of dev: (n,).

    The expected share of wrong pairs among those chosen is at most `fdr`, over dev and test parts.
    """
    from scipy.stats import false_discovery_control  # a second to import

    wrong = dev.candidates.score[~dev.right]
    if len(wrong) == 0:
        raise XtError("No wrong pair was mined on dev: false discoveries cannot be told.", "Give a larger dev part.")
    if len(test.candidates) == 0:
        return np.zeros(0, bool)
    return np.asarray(false_discovery_control(conformal_p_values(wrong, test.candidates.score)) <= fdr)


@dataclass(frozen=True)
class PairProbability:
    """P(a mined pair is right | its margin, cosine, lead over the next candidate, and both neighbourhoods)."""

    centre: Floats
    spread: Floats
    weights: Floats
    bias: float

    def __call__(self, features: Floats) -> Floats:
        """(n, 5) features of candidates -> (n,) probabilities."""
        logits = (features - self.centre) / self.spread @ self.weights + self.bias
        return np.asarray(1 / (1 + np.exp(-np.clip(logits, -700, 700))))

    def to_json(self) -> dict[str, Any]:
        """As calibration.json keeps it."""
        names = ("score", "cosine", "gap", "foreign_around", "english_around")
        values = {"centre": self.centre, "spread": self.spread, "weights": self.weights}
        kept = {name: [float(x) for x in value] for name, value in values.items()}
        return {"method": "logistic", "features": list(names), **kept, "bias": self.bias}


def fit_probability(devs: Sequence[Mined]) -> PairProbability | None:
    """Fit a logistic regression on the pairs of dev parts; None with fewer than `MIN_PAIRS` right or wrong ones."""
    labels = np.concatenate([dev.right for dev in devs])
    if min(int(labels.sum()), int((~labels).sum())) < MIN_PAIRS:
        return None
    features = np.concatenate([dev.candidates.features() for dev in devs])
    centre, spread = features.mean(0), np.maximum(features.std(0), 1e-9)
    weights, bias = fit_logistic((features - centre) / spread, labels.astype(np.float64))
    return PairProbability(centre, spread, weights, bias)


def control(
    dev: Mined,
    test: Mined,
    *,
    pooled: PairProbability | None = None,
    precision: float = PRECISION,
    risk: float = RISK,
    fdr: float = FDR,
) -> tuple[dict[str, Any], PairProbability | None, Floats | None]:
    """Apply all three to a language: the facts for its row, the probability's calibrator, the probabilities of test.

    `pooled` is the probability fitted on the dev parts of all languages, for one whose own dev part is too small.
    Where dev does not allow one of the three, its entry is None and `notes` says why.
    """
    notes = []
    guarantee = guaranteed_threshold(dev, precision=precision, risk=risk)
    row: dict[str, Any] = {"guarantee": None, "fdr": None, "probability": None}
    if guarantee.threshold is None:
        notes.append(f"no threshold of precision {precision:g} can be certified from {len(dev.right)} pairs of dev")
    else:
        kept = test.candidates.score >= guarantee.threshold
        asked = {"asked": precision, "risk": risk, "threshold": guarantee.threshold}
        row["guarantee"] = {**asked, **scored(test.right[kept], test.gold)}
    if dev.right.all():
        notes.append("no wrong pair was mined on dev: false discoveries cannot be controlled")
    else:
        chosen = discoveries(dev, test, fdr=fdr)
        got = scored(test.right[chosen], test.gold)
        share = 1 - got["precision"] if got["pairs"] else 0.0
        row["fdr"] = {"asked": fdr, "false_share": share, **got}
    calibrator, chances, scope = fit_probability([dev]), None, "language"
    if calibrator is None:
        few = min(int(dev.right.sum()), int((~dev.right).sum()))
        told = f"{few} right or wrong pairs of dev are too few to fit a probability (at least {MIN_PAIRS})"
        notes.append(f"{told}; fitted on the dev parts of all languages" if pooled else told)
        calibrator, scope = pooled, "pooled"
    if calibrator is not None and len(test.candidates):
        chances, right = calibrator(test.candidates.features()), test.right.astype(np.float64)
        row["probability"] = {
            "n": len(right),
            "scope": scope,
            "ece": measures.ece(chances, right),
            "ece_null": measures.ece_null(chances),
            "brier": measures.brier(chances, right),
            "auroc": measures.auroc(chances, right),
        }
    return {**row, "notes": notes}, calibrator, chances
