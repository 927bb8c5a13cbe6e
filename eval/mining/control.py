"""Mined pairs to trust: a threshold of guaranteed precision, false-discovery control, a probability for each pair.

All of it is fitted on the dev part alone. What is promised holds as far as the pairs of the test part are of the same
kind as those of dev (exchangeable with them), nothing more is assumed of their scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xt.calibration.apply.pairs import PairProbability
from xt.calibration.fit.maps import fit_standardised
from xt.calibration.guarantees import FDR, PRECISION, RISK, discoveries, guaranteed_threshold
from xt.calibration.measuring import measures
from xt.eval.mining.margin import Floats, Mined, scored

MIN_PAIRS = 30
"""Fewer right or wrong pairs of dev than this fit no probability worth having."""


def fit_probability(devs: Sequence[Mined]) -> PairProbability | None:
    """Fit a logistic regression on the pairs of dev parts; None with fewer than `MIN_PAIRS` right or wrong ones."""
    labels = np.concatenate([dev.right for dev in devs])
    if min(int(labels.sum()), int((~labels).sum())) < MIN_PAIRS:
        return None
    features = np.concatenate([dev.candidates.features() for dev in devs])
    weights, bias, centre, spread = fit_standardised(features, labels.astype(np.float64))
    return PairProbability(_floats(centre), _floats(spread), _floats(weights), bias)


def _floats(values: Floats) -> tuple[float, ...]:
    return tuple(map(float, values))


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
    ours, theirs = dev.predictions(), test.predictions()
    guarantee = guaranteed_threshold(ours, precision=precision, risk=risk)
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
        chosen = discoveries(ours, theirs, fdr=fdr)
        got = scored(test.right[chosen], test.gold)
        share = 1 - got["precision"] if got["pairs"] else 0.0
        row["fdr"] = {"asked": fdr, "false_share": share, **got}
    calibrator, chances, scope = fit_probability([dev]), None, "language"
    if calibrator is None:
        few = min(int(dev.right.sum()), int((~dev.right).sum()))
        reason = f"{few} right or wrong pairs of dev are too few to fit a probability (at least {MIN_PAIRS})"
        notes.append(f"{reason}; fitted on the dev parts of all languages" if pooled else reason)
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
